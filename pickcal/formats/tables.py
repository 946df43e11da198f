"""Plain tables: CSV and Parquet, of picks and of micrographs; pickcal's own exports are among them.

Text tables may be separated by commas, tabs or semicolons, which the header tells.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from pickcal.errors import InputError
from pickcal.formats.atomic import atomic_path
from pickcal.formats.boxes import positions, score_of
from pickcal.formats.delimited_write import TableWriter, sources_beside
from pickcal.formats.exposures import problems
from pickcal.formats.foreign import (
    EXPOSURE_COLUMNS,
    WHOLE_COLUMNS,
    Column,
    ExportBlock,
    ForeignPicks,
    categorical,
    text_of,
)
from pickcal.formats.opening import check_file, head_of
from pickcal.formats.table_files import columns_of, table_blocks

TableFormat = Literal["csv", "parquet"]

OWN = ("micrograph", "x_px", "y_px")
BASE = (*OWN, "x", "y")
NAMES = (
    "micrograph",
    "image_name",
    "micrograph_name",
    "micrograph_path",
    "name",
    "rlnMicrographName",
    "location/micrograph_path",
)
FRACTIONS = ("location/center_x_frac", "location/center_y_frac")
POSITIONS = (("x_px", "y_px"), ("x_coord", "y_coord"), ("rlnCoordinateX", "rlnCoordinateY"), ("x", "y"), FRACTIONS)
SCORES = {
    "ncc": "ncc",
    "pick_stats/ncc_score": "ncc",
    "power": "power",
    "pick_stats/power": "power",
    "score": "score",
    "confidence": "confidence",
    "figure_of_merit": "figure_of_merit",
    "rlnAutopickFigureOfMerit": "figure_of_merit",
}
PROBABILITY = "probability"


def recognise(path: Path, head: bytes) -> bool:
    """Whether a file is CSV or Parquet with positions.

    Parameters
    ----------
    path
        The file; its name plays no part.
    head
        Its first `foreign.HEAD` bytes.
    """
    names = set(columns_of(path, head))
    return any(names.issuperset(pair) for pair in POSITIONS)


def recognise_exposures(path: Path, head: bytes) -> bool:
    """Whether a file is CSV or Parquet with `name` and `defocus_u`; see `recognise`."""
    return {"name", "defocus_u"} <= set(columns_of(path, head))


def read_picks(path: Path) -> Iterator[ForeignPicks]:
    """Read picks from CSV or Parquet.

    Parameters
    ----------
    path
        The file. Its columns:

        - the micrograph: one of `NAMES`;
        - x and y: one pair of `POSITIONS`, in pixels of the micrograph (also `x`, `y`), or cryoSPARC's fractions;
        - scores: any of `SCORES`; `probability` only where there is none of these.

        In a table with `micrograph`, `x_px` and `y_px`, which is pickcal's own export, these are taken whatever else
        there is; its `x` and `y` are Å and left alone, its `template` (from 0) and `angle` (degrees from x towards y)
        are understood. `uid` and the names of `foreign.EXPOSURE_COLUMNS` mean what they mean there. All other columns
        are carried along.

    Yields
    ------
    ForeignPicks
        At least one, of at most `foreign.ROWS` rows.

    Raises
    ------
    MissingFileError, InputError
        If the file is not there or damaged, its columns leave a choice or lack one, or a position is no finite number.
    """
    check_file(path, "a table of picks")
    names = columns_of(path, head_of(path))
    name, (x, y) = _chosen(path, "name of the micrograph", names, [(n,) for n in NAMES])[0], _position(path, names)
    row = 0
    for columns in table_blocks(path, NAMES):
        yield _picks(path, columns, name, x, y, row)
        row += len(columns[x])


def _picks(path: Path, columns: dict[str, Column], name: str, x: str, y: str, row: int) -> ForeignPicks:
    micrograph = columns[name]
    if not isinstance(micrograph, pd.Categorical):
        raise InputError(f"{path}: column {name}: expected names of micrographs, found numbers")
    scores: dict[str, NDArray[np.floating]] = {}
    for label, score in SCORES.items():
        if label in columns and score not in scores:
            scores[score] = score_of(path, label, columns[label], row)
    if not scores and PROBABILITY in columns:
        scores[PROBABILITY] = score_of(path, PROBABILITY, columns[PROBABILITY], row)
    template = angle = uid = None
    if set(OWN) <= set(columns):
        if "template" in columns:
            given = np.nan_to_num(score_of(path, "template", columns["template"], row), nan=-1, posinf=-1, neginf=-1)
            template = given.clip(-1, 2**31 - 1).astype(np.int32)
        angle = score_of(path, "angle", columns["angle"], row) if "angle" in columns else None
    if "uid" in columns and not isinstance(columns["uid"], pd.Categorical) and columns["uid"].dtype.kind in "iu":
        uid = columns["uid"].astype(np.uint64)
    told = [label for label in EXPOSURE_COLUMNS if label in columns and label != "uid"]
    return ForeignPicks(
        "table",
        path,
        columns,
        positions(path, x, columns[x], row),
        positions(path, y, columns[y], row),
        unit="fraction" if (x, y) == FRACTIONS else "px",
        y_from="last row" if (x, y) == FRACTIONS else "first row",
        micrograph=micrograph,
        scores=scores,
        template=template,
        angle=angle,
        uid=uid,
        exposure={label: score_of(path, label, columns[label], row) for label in told},
    )


def _position(path: Path, names: Sequence[str]) -> tuple[str, str]:
    x, y = _chosen(path, "position", names, POSITIONS)
    return x, y


def _chosen(path: Path, what: str, names: Sequence[str], known: Sequence[tuple[str, ...]]) -> tuple[str, ...]:
    found = [group for group in known if set(group) <= set(names)]
    if found and set(OWN) <= set(names):
        return found[0]
    if len(found) == 1:
        return found[0]
    expected = ", ".join(" and ".join(group) for group in known)
    several = f"several ({', '.join(' and '.join(group) for group in found)})" if found else "none"
    raise InputError(
        f"{path}: expected one {what} ({expected}), found {several} among the columns {', '.join(names)[:300]}; rename "
        "the columns"
    )


def read_exposures(paths: Sequence[Path]) -> pd.DataFrame:
    """Read micrographs and their CTF from CSV or Parquet.

    Parameters
    ----------
    paths
        Files with `name`, `defocus_u` and any of `foreign.EXPOSURE_COLUMNS`; other columns play no part.

    Returns
    -------
    DataFrame
        `name`, `EXPOSURE_COLUMNS`, and `problem`: what is wrong with a row, else empty. Missing: `defocus_v` is
        `defocus_u`, angle and phase shift are 0, exposure group 1, sizes and uid 0, and others NaN.

    Raises
    ------
    MissingFileError, InputError
        If a file is not there or damaged, lacks a column, has text for a number, or a name is empty or comes twice.
    """
    frames = []
    for path in paths:
        check_file(path, "a table of micrographs")
        names = columns_of(path, head_of(path))
        if not {"name", "defocus_u"} <= set(names):
            raise InputError(
                f"{path}: expected the columns name and defocus_u, found {', '.join(names)[:300] or 'none'}"
            )
        frames += [_exposures(path, columns) for columns in table_blocks(path, ("name",))]
    frame = pd.concat(frames, ignore_index=True)
    wrong = frame["name"].isna() | frame["name"].duplicated() | (frame["name"] == "")
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InputError(
            f"{paths[-1]}: column name: expected every name once, found {frame['name'][row]!r} again or empty"
        )
    frame["problem"] = problems(frame, ("defocus_u", "defocus_v", "defocus_angle"))
    return frame


def _exposures(path: Path, columns: Mapping[str, Column]) -> pd.DataFrame:
    if not isinstance(columns["name"], pd.Categorical) and columns["name"].ndim > 1:
        raise InputError(f"{path}: column name: expected one name a row, found lists")
    rows = len(columns["name"])
    out: dict[str, Any] = {"name": pd.Series(text_of(columns["name"]), dtype="str")}
    for label in EXPOSURE_COLUMNS:
        if label in WHOLE_COLUMNS:
            column = columns.get(label, np.full(rows, WHOLE_COLUMNS[label]))
            out[label] = _whole(path, label, column)
        elif label in columns:
            out[label] = np.asarray(score_of(path, label, columns[label], 0), dtype=np.float64)
        else:
            missing = {"defocus_v": out.get("defocus_u"), "defocus_angle": 0.0, "phase_shift": 0.0}
            out[label] = missing.get(label, np.nan)
    return pd.DataFrame(out)


def _whole(path: Path, label: str, column: Column) -> NDArray[np.integer]:
    kind, low = (np.uint64, 0) if label == "uid" else (np.int64, -(2**53))
    if not isinstance(column, pd.Categorical) and column.dtype.kind in "iu" and not (column < low).any():
        return column.astype(kind)
    values = score_of(path, label, column, 0).astype(np.float64)
    values = np.where(np.isnan(values), WHOLE_COLUMNS[label], values)
    bad = np.flatnonzero((values != np.round(values)) | (values < low) | (np.abs(values) > 2**53))
    if len(bad):
        found = values[bad[0]]
        raise InputError(f"{path}: column {label}: row {bad[0] + 1}: expected a whole number, found {found}")
    return values.astype(kind)


def write_picks(out: Path, blocks: Iterable[ExportBlock], *, format: TableFormat = "csv") -> list[Path]:
    """Write picks as CSV or Parquet, block by block, whole or not at all.

    Parameters
    ----------
    out
        File to write.
    blocks
        The picks. Columns are `micrograph`, `x_px`, `y_px`, `x`, `y` (Å; NaN without a pixel size), those that came
        in, and ours. A column that came in under one of our names gets the prefix `source_`; one of several numbers a
        row is written as `name[0]`, `name[1]`, ...
    format
        `"csv"` (default): floats with the fewest digits that read back to the same value, NaN empty. `"parquet"`
        keeps the types.

    Returns
    -------
    list of Path
        `out`.

    Raises
    ------
    InputError
        If the format is none of these, or a block has other columns than the first.
    """
    _check_format(format)
    if format == "csv":
        with TableWriter(out, ",", BASE) as table:
            for block in blocks:
                table.write(_export(block))
    else:
        with atomic_path(out) as temporary:
            _write_parquet(out, temporary, blocks)
    return [out]


def _export(block: ExportBlock) -> dict[str, Column]:
    names = categorical(block.micrographs["name"])
    pixel = block.micrographs["pixel_size"].to_numpy(np.float64)[block.index]
    base: dict[str, Column] = {"micrograph": names[block.index], "x_px": block.x, "y_px": block.y}
    base |= {"x": block.x * pixel, "y": block.y * pixel}
    return base | sources_beside(base, block.ours, block.source)


def _write_parquet(out: Path, temporary: Path, blocks: Iterable[ExportBlock]) -> None:
    writer = None
    try:
        for block in blocks:
            arrays = {name: _arrow(column) for name, column in _export(block).items()}
            table = pa.table(arrays)
            if writer is None:
                writer = pyarrow.parquet.ParquetWriter(temporary, table.schema)
            try:
                writer.write_table(table.cast(writer.schema))
            except (pa.ArrowException, ValueError) as error:
                raise InputError(f"{out}: expected the same columns for all picks ({error})") from None
        if writer is None:
            kinds = [pa.string()] + [pa.float64()] * (len(BASE) - 1)
            writer = pyarrow.parquet.ParquetWriter(temporary, pa.schema(zip(BASE, kinds, strict=True)))
    finally:
        if writer is not None:
            writer.close()


def _arrow(column: Column) -> Any:
    if isinstance(column, pd.Categorical):
        return pa.array(column).cast(pa.string())
    if column.dtype.kind in "iufb":
        return pa.array(column.astype(np.float32) if column.dtype == np.float16 else column)
    return pa.array([str(value) for value in column], pa.string())


def _check_format(format: str) -> None:
    if format not in get_args(TableFormat):
        raise InputError(f"format: expected one of {', '.join(get_args(TableFormat))}, got {format!r}")
