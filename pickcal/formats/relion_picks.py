"""RELION's picks: files per micrograph, the indices that list them, and particles of whole data sets, 1.3 to 5.

Positions are pixels of the micrograph that was picked, from the centre of its first pixel, rows from the first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pickcal.errors import InputError, MissingFileError
from pickcal.formats.foreign import Column, ForeignPicks, rows_of
from pickcal.formats.relion import GROUP, NAME, Columns
from pickcal.formats.star import read_star
from pickcal.formats.star_rows import Loop, star_loops

X, Y = "rlnCoordinateX", "rlnCoordinateY"
COORDINATES = "rlnMicrographCoordinates"
FOM = "rlnAutopickFigureOfMerit"
POINTER = re.compile(r"coords_suffix_(.+)\.star")
EXPOSURE = {
    "defocus_u": "rlnDefocusU",
    "defocus_v": "rlnDefocusV",
    "defocus_angle": "rlnDefocusAngle",
    "phase_shift": "rlnPhaseShift",
    "voltage": "rlnVoltage",
    "spherical_aberration": "rlnSphericalAberration",
    "amplitude_contrast": "rlnAmplitudeContrast",
    "pixel_size": "rlnMicrographPixelSize",
    "ctf_fit_resolution": "rlnCtfMaxResolution",
}


def recognise(path: Path, head: bytes) -> bool:
    """Whether a file holds RELION's picks: a STAR table with coordinates."""
    return b"data_" in head and b"_rlnCoordinateX" in head and b"_rlnCoordinateY" in head


def recognise_index(path: Path, head: bytes) -> bool:
    """Whether a file lists files of picks: `autopick.star` of RELION 4 and later, `coords_suffix_*.star` up to 3.1."""
    if b"data_" in head:
        return b"_rlnMicrographCoordinates" in head
    return POINTER.fullmatch(path.name) is not None


def read_index(path: Path) -> list[tuple[str | None, Path]]:
    """Read which files of picks an index lists.

    Parameters
    ----------
    path
        `autopick.star` (rlnMicrographName, rlnMicrographCoordinates), or `coords_suffix_SUFFIX.star`, which stands
        for all files `*_SUFFIX.star` below its folder.

    Returns
    -------
    list of (str or None, Path)
        Micrograph, where the index names it, and file.

    Raises
    ------
    InputError, MissingFileError
        If it lists none, or a file is not there; names are tried from the working folder and from all folders above
        the index.
    """
    match = POINTER.fullmatch(path.name)
    if match and b"data_" not in path.read_bytes()[:4096]:
        files = sorted(file for file in path.parent.rglob(f"*_{match[1]}.star") if file != path)
        if not files:
            raise MissingFileError(f"{path}: expected files *_{match[1]}.star below {path.parent}, found none")
        return [(None, file) for file in files]
    table = next((t for t in read_star(path).values() if {NAME, COORDINATES} <= set(t.columns)), None)
    if table is None or table.empty:
        raise InputError(f"{path}: expected a table with {NAME} and {COORDINATES}, found none")
    folders = [Path.cwd(), *path.absolute().parents]
    first = Path(str(table[COORDINATES].iloc[0]))
    try:
        root = next((folder for folder in folders if (folder / first).is_file()), None)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: column {COORDINATES}: row 1: no name of a file ({error})") from None
    if root is None:
        looked = ", ".join(str(folder) for folder in folders)
        raise MissingFileError(f"{path}: its file {first} is not there; looked in {looked}")
    return [(str(name), root / str(file)) for name, file in zip(table[NAME], table[COORDINATES], strict=True)]


def read_picks(path: Path) -> Iterator[ForeignPicks]:
    """Read picks of one micrograph or particles of many, of RELION 1.3 to 5.

    Parameters
    ----------
    path
        STAR file with rlnCoordinateX and rlnCoordinateY in one of its tables.

    Yields
    ------
    ForeignPicks
        Main score "figure_of_merit" (rlnAutopickFigureOfMerit), where there is one. `template` is rlnClassNumber - 1
        (RELION's class 0 is none), `angle` -rlnAnglePsi: RELION turns from y towards x.

    Raises
    ------
    MissingFileError, InputError
        Naming file, block, column and row.
    """
    loops = star_loops(path)
    rows = next((loop for loop in loops if {X, Y} <= set(loop.labels)), None)
    if rows is None:
        found = "; ".join(f"data_{loop.name}: {', '.join(loop.labels)}" for loop in loops)
        raise InputError(f"{path}: expected a table with {X} and {Y}, found {found}")
    tables = {loop.name: _whole(loop) for loop in loops if loop is not rows}
    first = 0
    for columns in rows.rows():
        yield _picks(path, rows, columns, tables, first)
        first += len(columns[X])


def _whole(loop: Loop) -> pd.DataFrame:
    parts = [pd.DataFrame(dict(part.items())) for part in loop.rows()]
    return parts[0] if len(parts) == 1 else pd.concat(parts, ignore_index=True)


def _picks(
    path: Path, rows: Loop, columns: dict[str, Column], tables: dict[str, pd.DataFrame], first: int
) -> ForeignPicks:
    where = rows.where
    x, y = numbers(where, columns, X, first), numbers(where, columns, Y, first)
    scores: dict[str, NDArray[np.floating]] = {}
    if FOM in columns:
        scores["figure_of_merit"] = numbers(where, columns, FOM, first, finite=False)
    template = angle = None
    if "rlnClassNumber" in columns:
        given = numbers(where, columns, "rlnClassNumber", first, finite=False)
        template = np.nan_to_num(given, posinf=0, neginf=0).clip(0, 2**31 - 1).astype(np.int32) - 1
    if "rlnAnglePsi" in columns:
        psi = numbers(where, columns, "rlnAnglePsi", first, finite=False)
        angle = np.mod(-np.where(np.isfinite(psi), psi, np.nan), 360.0)
    micrograph = columns.get(NAME)
    if micrograph is not None and not isinstance(micrograph, pd.Categorical):
        raise InputError(f"{where}: column {NAME}: expected names, found numbers")
    return ForeignPicks(
        program="relion",
        path=path,
        columns=columns,
        x=x,
        y=y,
        micrograph=micrograph,
        stem=path.stem,
        scores=scores,
        template=template,
        angle=angle,
        exposure=_exposure(path, rows, columns, tables.get("optics")) if micrograph is not None and len(x) else {},
        block=rows.name,
        tables=tables,
    )


def _exposure(
    path: Path, rows: Loop, columns: dict[str, Column], optics: pd.DataFrame | None
) -> dict[str, NDArray[Any]]:
    """CTF of the micrographs as the rows and their optics groups tell it."""
    wanted = {NAME, GROUP, *EXPOSURE.values()}
    if optics is None and not wanted.intersection(columns) - {NAME}:
        return {}
    frame = pd.DataFrame(rows_of({label: columns[label] for label in columns if label in wanted}, slice(None)))
    joined = Columns(path, rows.name, frame, optics)
    out: dict[str, NDArray[Any]] = {name: joined.get(label) for name, label in EXPOSURE.items() if joined.has(label)}
    if joined.has(GROUP):
        out["exposure_group"] = joined.group
    if "pixel_size" not in out and "rlnImageName" not in columns and joined.has("rlnMagnification"):
        # of extracted particles it would be the pixel of the (binned) box, not of the micrograph
        with np.errstate(all="ignore"):
            out["pixel_size"] = joined.get("rlnDetectorPixelSize") * 1e4 / joined.get("rlnMagnification")
    return out


def numbers(
    where: str, columns: dict[str, Column], label: str, first: int = 0, *, finite: bool = True
) -> NDArray[np.float64]:
    """Take a column as numbers.

    Parameters
    ----------
    where
        File and block, for the message.
    columns, label
        The columns, and which one.
    first
        Rows before these, for the message.
    finite
        Refuse NaN and infinity; False: text alone is refused.

    Raises
    ------
    InputError
        Naming column, row and value.
    """
    column = columns[label]
    if isinstance(column, pd.Categorical):
        values = pd.to_numeric(pd.Series(column.categories), errors="coerce").to_numpy(np.float64)[column.codes]
        known = (column.categories == "") | pd.Series(column.categories).str.lower().isin(["nan", "-nan"]).to_numpy()
        bad = np.isnan(values) & ~known[column.codes]
    else:
        values = np.asarray(column, dtype=np.float64)
        bad = np.zeros(len(values), dtype=bool)
    if finite:
        bad |= ~np.isfinite(values)
    if bad.any():
        row = int(np.argmax(bad))
        found = str(column[row])[:60]
        raise InputError(f"{where}: column {label}: row {first + row + 1}: expected a finite number, found {found!r}")
    return np.asarray(values)
