"""Picks, particles and exposures of cryoSPARC: `.cs` files of both forms, passthrough files joined by uid.

Field names as cryoSPARC writes them (location/*, pick_stats/*, ctf/*, micrograph_blob/*). A `>` before a path, which
cryoSPARC puts there when a job is exported, says that the path is relative to the file (pyem issue 102); it is no part
of a micrograph's name. The writer lives in `cryosparc_write`, the two forms in `cryosparc_files`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pickcal.errors import InputError
from pickcal.formats.cryosparc_files import CsFile, file_fraction, file_rows, is_cs, open_cs
from pickcal.formats.cryosparc_write import write_picks
from pickcal.formats.foreign import EXPOSURE_COLUMNS, EXPOSURE_RANGES, ROWS, Column, ForeignPicks, text_of

__all__ = [
    "file_fraction",
    "file_rows",
    "read_columns",
    "read_exposures",
    "read_picks",
    "recognise",
    "write_picks",
]

X, Y, PATH = "location/center_x_frac", "location/center_y_frac", "location/micrograph_path"
SCORES = {"ncc": "pick_stats/ncc_score", "power": "pick_stats/power"}
DEGREES = frozenset(["defocus_angle", "phase_shift"])
CTF = {
    "defocus_u": ("ctf/df1_A",),
    "defocus_v": ("ctf/df2_A",),
    "defocus_angle": ("ctf/df_angle_rad",),
    "phase_shift": ("ctf/phase_shift_rad",),
    "voltage": ("ctf/accel_kv", "mscope_params/accel_kv"),
    "spherical_aberration": ("ctf/cs_mm", "mscope_params/cs_mm"),
    "amplitude_contrast": ("ctf/amp_contrast",),
}
OF_PICKS = CTF | {
    "pixel_size": ("location/micrograph_psize_A",),
    "exposure_group": ("ctf/exp_group_id", "location/exp_group_id"),
}
OF_EXPOSURES = CTF | {
    "pixel_size": ("micrograph_blob/psize_A",),
    "exposure_group": ("mscope_params/exp_group_id", "ctf/exp_group_id"),
    "ctf_fit_resolution": ("ctf_stats/ctf_fit_to_A", "ctf/ctf_fit_to_A"),
    "ice_thickness": ("ctf_stats/ice_thickness_rel",),
    "dose": ("mscope_params/total_dose_e_per_A2",),
}

Order = NDArray[np.intp] | None
Group = list[tuple[CsFile, Order]]
"""Files of the same uids; for every file the row of each row of the first one, None if it is the same row."""


def recognise(path: Path, head: bytes) -> bool:
    """Tell whether a file is a `.cs` file, by its content.

    Parameters
    ----------
    path
        The file; not opened.
    head
        Its first `foreign.HEAD` bytes.

    Returns
    -------
    bool
        True for a NumPy file of rows with a field `uid`, and for cryoSPARC's stream form.
    """
    return is_cs(head)


def read_columns(path: Path) -> dict[str, Column]:
    """Read all fields of any `.cs` file.

    Parameters
    ----------
    path
        The file, of either form.

    Returns
    -------
    dict
        Numbers in the file's type (byte order aside), text as categories; in the order of the file.

    Raises
    ------
    MissingFileError, InputError
        As `cryosparc_files.open_cs`, and if a text is not UTF-8.
    """
    file = open_cs(path)
    return file.take(slice(0, file.rows))


def read_picks(paths: Sequence[Path]) -> Iterator[ForeignPicks]:
    """Read picks or particles with their places in micrographs.

    Parameters
    ----------
    paths
        `.cs` files. Those of the same uids (particles and their passthrough) are joined, in the row order of the
        first; those without a common uid follow one another.

    Returns
    -------
    iterator of ForeignPicks
        At most `foreign.ROWS` rows each. `y` is location/center_y_frac, see `file_rows`. Without ncc_score and
        power, the scores are the other numbers with decimals under pick_stats/. All angles hold for the micrograph
        file that was picked, from x towards rising rows: `exposure["defocus_angle"]` is ctf/df_angle_rad in degrees,
        which csparc2star.py hands to RELION as it is; `angle` is minus pick_stats/angle_rad, because cryoSPARC counts
        y from the last row (no public source states the sense; `write_picks` undoes it exactly). For a mirrored
        micrograph (`file_rows` with flip False) both change their sign.

    Raises
    ------
    MissingFileError, InputError
        As `cryosparc_files.open_cs`; if files share some uids but not all, a file holds a uid twice, a field of two
        joined files differs, location/* is missing or is not of numbers, a place is not finite, or a micrograph has no
        name. Named with file, field, and row or uid.
    """
    groups = _groups(paths)
    for group in groups:
        _check_location(group)
    return _picks(groups)


def read_exposures(paths: Sequence[Path]) -> pd.DataFrame:
    """Read micrographs with their CTF.

    Parameters
    ----------
    paths
        Exposures `.cs` files, joined as by `read_picks`.

    Returns
    -------
    DataFrame
        One row per exposure: `name` (micrograph_blob/path without `>`, else movie_blob/path), the columns of
        `foreign.EXPOSURE_COLUMNS`, NaN where the files have nothing, and `problem` (what is wrong with a value that
        they have, else empty). Pixel size and shape are those of the micrograph, never of the movie. Units and angles
        as for `read_picks`; `uid` is uint64.

    Raises
    ------
    MissingFileError, InputError
        As `read_picks`; if no path is there, or a name is empty or comes twice.
    """
    frames = []
    for group in _groups(paths):
        name = next((f for f in ("micrograph_blob/path", "movie_blob/path") if f in _fields(group)), None)
        if name is None:
            raise InputError(
                f"{_named(group)}: expected exposures (micrograph_blob/path), found {', '.join(_fields(group))}; give "
                "the exposures file of the job, and its passthrough file too"
            )
        frames += [_exposures(group, name, start, columns) for start, columns in _blocks(group)]
    table = pd.concat(frames, ignore_index=True)
    twice = table["name"].duplicated().to_numpy()
    if twice.any():
        first = table["name"].iloc[int(np.flatnonzero(twice)[0])]
        raise InputError(f"{', '.join(map(str, paths))}: micrograph {first} comes twice; keep one of them")
    return table


def _groups(paths: Sequence[Path]) -> list[Group]:
    if not paths:
        raise InputError("expected at least one .cs file, found none")
    groups: list[Group] = []
    known: list[tuple[NDArray[np.uint64], NDArray[np.intp]]] = []
    for file in map(open_cs, paths):
        uids = file.uids()
        order = np.argsort(uids, kind="stable")
        ordered = uids[order]
        twice = np.flatnonzero(ordered[1:] == ordered[:-1])
        if len(twice):
            rows = ", ".join(str(row + 1) for row in order[twice[0] : twice[0] + 2])
            raise InputError(f"{file.path}: field uid: {ordered[twice[0]]} is in the rows {rows}; expected it once")
        for group, (others, rows_of_others) in zip(groups, known, strict=True):
            if np.array_equal(others, ordered):
                place = np.empty(len(order), np.intp)
                place[rows_of_others] = order
                group.append((file, None if np.array_equal(place, np.arange(len(place))) else place))
                break
            common = len(np.intersect1d(others, ordered, assume_unique=True))
            if common:
                raise InputError(
                    f"{file.path}: {common} of its {len(ordered)} uids are also in {group[0][0].path}, which has "
                    f"{len(others)}; expected all (a passthrough file) or none, give files of the same job"
                )
        else:
            groups.append([(file, None)])
            known.append((ordered, order))
    return groups


def _fields(group: Group) -> list[str]:
    return list(dict.fromkeys(name for file, _ in group for name in file.fields))


def _named(group: Group) -> str:
    return ", ".join(str(file.path) for file, _ in group)


def _blocks(group: Group) -> Iterator[tuple[int, dict[str, Column]]]:
    """Rows of joined files with the row that they begin at; at least one block, that may be empty."""
    first = group[0][0]
    for start in range(0, max(first.rows, 1), ROWS):
        rows = slice(start, min(start + ROWS, first.rows))
        columns = first.take(rows)
        for file, order in group[1:]:
            more = file.take(rows if order is None else order[rows])
            for name in more.keys() & columns.keys():
                _check_same(first, file, name, columns, more)
            columns |= {name: values for name, values in more.items() if name not in columns}
        yield start, columns


def _check_same(
    first: CsFile, other: CsFile, name: str, columns: Mapping[str, Column], more: Mapping[str, Column]
) -> None:
    ours, theirs = columns[name], more[name]
    texts = isinstance(ours, pd.Categorical), isinstance(theirs, pd.Categorical)
    if texts[0] != texts[1] or ours.shape != theirs.shape:
        raise InputError(f"{other.path}: field {name}: of another kind than in {first.path}; give files of one job")
    # what differs from itself is NaN, and NaN agrees with NaN
    both_nan = False if texts[0] else (ours != ours) & (theirs != theirs)
    differ = (text_of(ours) != text_of(theirs) if texts[0] else ours != theirs) & ~np.asarray(both_nan)
    rows = np.flatnonzero(np.asarray(differ).reshape(len(ours), -1).any(axis=1))
    if len(rows):
        raise InputError(
            f"{other.path}: field {name}: uid {columns['uid'][rows[0]]}: expected {ours[rows[0]]} as in {first.path}, "
            f"found {theirs[rows[0]]}; give files of the same job"
        )


def _check_location(group: Group) -> None:
    fields = _fields(group)
    missing = [name for name in (X, Y, PATH) if name not in fields]
    if not missing:
        return
    if "micrograph_blob/path" in fields and "blob/path" not in fields:
        advice = "this is a file of exposures, give the particles or picks"
    else:
        advice = (
            "give the passthrough file of the same job too (…_passthrough_particles.cs), which holds them; particles "
            "that were imported without their micrographs have none"
        )
    raise InputError(f"{_named(group)}: expected {', '.join(missing)}, found {', '.join(fields)}; {advice}")


def _picks(groups: list[Group]) -> Iterator[ForeignPicks]:
    for group in groups:
        for start, columns in _blocks(group):
            yield _foreign(_named(group), group[0][0].path, start, columns)


def _foreign(where: str, path: Path, start: int, columns: dict[str, Column]) -> ForeignPicks:
    template = "pick_stats/template_idx"
    angle = "pick_stats/angle_rad"
    return ForeignPicks(
        program="cryosparc",
        path=path,
        columns=columns,
        x=_place(where, start, columns, X),
        y=_place(where, start, columns, Y),
        unit="fraction",
        y_from="last row",
        micrograph=_names(where, start, columns, PATH),
        scores=_scores(where, columns),
        template=_numbers(where, columns, template, kinds="iu").astype(np.int64) if template in columns else None,
        angle=-np.degrees(_numbers(where, columns, angle).astype(np.float64)) if angle in columns else None,
        uid=np.asarray(columns["uid"], dtype=np.uint64),
        exposure=_exposure(where, columns, OF_PICKS, "location/micrograph_shape", "location/micrograph_uid"),
    )


def _numbers(where: str, columns: Mapping[str, Column], name: str, width: int = 0, kinds: str = "iuf") -> NDArray[Any]:
    values = columns[name]
    shape = (width,) if width else ()
    if isinstance(values, pd.Categorical) or values.shape[1:] != shape or values.dtype.kind not in kinds:
        found = "text" if isinstance(values, pd.Categorical) else f"{values.dtype} {values.shape[1:] or ''}".strip()
        wanted = f"{width or 'one'} {'number' if 'f' in kinds else 'whole number'}{'s' if width else ''}"
        raise InputError(f"{where}: field {name}: expected {wanted} per row, found {found}; is it cryoSPARC's file?")
    return values


def _place(where: str, start: int, columns: Mapping[str, Column], name: str) -> NDArray[np.float64]:
    values = _numbers(where, columns, name).astype(np.float64)
    bad = np.flatnonzero(~np.isfinite(values))
    if len(bad):
        uid = columns["uid"][bad[0]]
        raise InputError(
            f"{where}: field {name}: row {start + bad[0] + 1} (uid {uid}): expected a fraction, found {values[bad[0]]}"
        )
    return values


def _names(where: str, start: int, columns: Mapping[str, Column], name: str) -> pd.Categorical:
    values = columns[name]
    if not isinstance(values, pd.Categorical):
        raise InputError(f"{where}: field {name}: expected text, found {values.dtype}; is it cryoSPARC's file?")
    codes, unique = pd.factorize(np.array([text.removeprefix(">") for text in values.categories], dtype=object))
    names = codes[values.codes] if len(values) else np.empty(0, np.intp)
    if "" in unique and (empty := np.flatnonzero(names == list(unique).index(""))).size:
        raise InputError(
            f"{where}: field {name}: row {start + empty[0] + 1} (uid {columns['uid'][empty[0]]}): expected the path of "
            "a micrograph, found none; link the particles to their micrographs in cryoSPARC and export them again"
        )
    return pd.Categorical.from_codes(names, categories=pd.Index(unique, dtype="str"))


def _scores(where: str, columns: Mapping[str, Column]) -> dict[str, NDArray[np.floating]]:
    named = {score: field for score, field in SCORES.items() if field in columns}
    if not named:
        for field, values in columns.items():
            if field.startswith("pick_stats/") and field != "pick_stats/angle_rad":
                if isinstance(values, pd.Categorical) or values.dtype.kind != "f" or values.ndim > 1:
                    continue
                named[field.removeprefix("pick_stats/").lower()] = field
    scores = {score: _numbers(where, columns, field) for score, field in named.items()}
    with np.errstate(all="ignore"):
        return {
            score: values if values.dtype.kind == "f" else values.astype(np.float64) for score, values in scores.items()
        }


def _exposure(
    where: str, columns: Mapping[str, Column], sources: Mapping[str, Sequence[str]], shape: str, uid: str
) -> dict[str, NDArray[Any]]:
    found: dict[str, NDArray[Any]] = {}
    for name, fields in sources.items():
        field = next((field for field in fields if field in columns), None)
        if field is None:
            continue
        values = _numbers(where, columns, field)
        with np.errstate(all="ignore"):
            values = values.astype(np.int64 if name == "exposure_group" and values.dtype.kind in "iu" else np.float64)
            found[name] = np.degrees(values) if name in DEGREES else values
    if shape in columns:
        sizes = _numbers(where, columns, shape, 2, "iu").astype(np.int64)
        found |= {"source_height": sizes[:, 0], "source_width": sizes[:, 1]}
    if uid in columns:
        found["uid"] = _numbers(where, columns, uid, kinds="iu").astype(np.uint64)
    return found


def _exposures(group: Group, name: str, start: int, columns: Mapping[str, Column]) -> pd.DataFrame:
    where = _named(group)
    found = _exposure(where, columns, OF_EXPOSURES, "micrograph_blob/shape", "uid")
    names = pd.Series(text_of(_names(where, start, columns, name)), dtype="str")
    nothing = np.full(len(names), np.nan)
    table = pd.DataFrame({"name": names} | {column: found.get(column, nothing) for column in EXPOSURE_COLUMNS})
    problem = np.full(len(names), "", dtype=object)
    for column, (low, high, expected) in EXPOSURE_RANGES.items():
        if column not in found:
            continue
        values = found[column]
        for row in np.flatnonzero(~((values > low) & (values < high)) & (problem == "")):
            problem[row] = f"{column}: expected a number {expected}, found {values[row]:g}"
    return table.assign(problem=pd.Series(problem, dtype="str"))
