"""RELION's tables of micrographs and particles, and where the files they name are.

Both layouts are read: 3.1 and later (a table of optics groups, joined by rlnOpticsGroup) and 3.0 and older (one table).
The writers live in `relion_write` and are offered here as well.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pickcal.errors import InputError, MissingFileError
from pickcal.formats.exposures import PART, Exposures, sampled, slices, survey
from pickcal.formats.foreign import CTF_RANGES
from pickcal.formats.images import split_stack_name
from pickcal.formats.relion_write import pipeline_stem, write_micrographs_star
from pickcal.formats.star import read_star
from pickcal.formats.star_rows import Loop, frame_of, plain_loops

__all__ = [
    "find_root",
    "open_micrographs_star",
    "pipeline_stem",
    "read_coordinates_star",
    "read_truth_micrographs",
    "write_micrographs_star",
]

NAME = "rlnMicrographName"
GROUP = "rlnOpticsGroup"
LARGE = 1_000_000
"""Bytes of a table of micrographs above which it is read in parts."""
CTF_ADVICE = "run CTF estimation first, or import with --without-ctf"


class Columns:
    """Columns of a micrographs table, each looked for in the table itself and then in its optics groups."""

    def __init__(self, path: Path, block: str, table: pd.DataFrame, optics: pd.DataFrame | None) -> None:
        self.where = f"{path}: block data_{block}"
        self.table = table.reset_index(drop=True)
        self.group = np.ones(len(table), dtype=np.int64)
        self.joined: pd.DataFrame | None = None
        if optics is not None:
            self._join(path, optics)
        elif GROUP in table:
            self.group = self._integers(GROUP)

    def _join(self, path: Path, optics: pd.DataFrame) -> None:
        if GROUP not in optics:
            raise InputError(f"{path}: block data_optics: {_lacks(GROUP, optics)}")
        known = [int(number) for number in _whole(f"{path}: block data_optics", optics, GROUP)]
        if len(set(known)) < len(known):
            raise InputError(f"{path}: block data_optics: column {GROUP}: expected each group once, found {known}")
        if GROUP in self.table:
            self.group = self._integers(GROUP)
        elif len(known) == 1:
            self.group[:] = known[0]
        else:
            raise InputError(f"{self.where}: {_lacks(GROUP, self.table)}")
        place = {number: row for row, number in enumerate(known)}
        for row, number in enumerate(self.group):
            if int(number) not in place:
                raise InputError(
                    f"{self.where}: column {GROUP}: row {row + 1} ({self.table[NAME].iloc[row]}): expected an optics "
                    f"group of block data_optics ({known}), found {number}"
                )
        self.joined = optics.iloc[[place[int(number)] for number in self.group]].reset_index(drop=True)

    def _integers(self, label: str) -> NDArray[np.int64]:
        return _whole(self.where, self.table, label)

    def has(self, label: str) -> bool:
        """Whether the table or its optics groups have a column."""
        return label in self.table or (self.joined is not None and label in self.joined)

    def get(self, label: str, default: float = np.nan) -> NDArray[np.float64]:
        """Numbers of a column, one a row, in the file's unit; the default where neither table has it."""
        if label in self.table:
            return numbers(self.where, self.table, label)
        if self.joined is not None and label in self.joined:
            return numbers(self.where, self.joined, label)
        return np.full(len(self.table), default)

    def found(self) -> str:
        """Name all columns there are, for messages."""
        optics = [] if self.joined is None else list(self.joined.columns)
        return ", ".join([*self.table.columns, *(f"{label} (optics)" for label in optics)])


def _whole(where: str, table: pd.DataFrame, label: str) -> NDArray[np.int64]:
    values = numbers(where, table, label)
    bad = np.flatnonzero(~(np.abs(values) <= 2**53) | (values != np.round(values)))
    if len(bad):
        name = f" ({table[NAME].iloc[bad[0]]})" if NAME in table else ""
        raise InputError(
            f"{where}: column {label}: row {bad[0] + 1}{name}: expected a whole number, found {values[bad[0]]}"
        )
    return values.astype(np.int64)


def open_micrographs_star(path: Path, *, require_ctf: bool = True) -> Exposures:
    """Check RELION's table of micrographs, and give it in parts.

    A long table is read twice, some rows at a time, and never held as a whole, unless it is not plain: has quotes, or
    is wrong somewhere. Then the strict reader says where.

    Parameters
    ----------
    path
        `micrographs_ctf.star` or the like, of RELION 1.3 to 5.
    require_ctf
        Refuse a table without defocus, voltage, Cs and amplitude contrast. False: what is missing is NaN.

    Returns
    -------
    Exposures
        Its parts have one row per micrograph: `name` (as in the file), `defocus_u`, `defocus_v` (Å), `defocus_angle`,
        `phase_shift` (degrees), `voltage` (kV), `spherical_aberration` (mm), `amplitude_contrast` (fraction),
        `exposure_group` (int), `pixel_size` (Å), `ctf_fit_resolution` (Å), `ice_thickness` (relative, from
        rlnCtfIceRingDensity), `problem` (what is wrong with this row, else empty). The pixel size comes from
        rlnMicrographPixelSize, else rlnMicrographOriginalPixelSize, else detector pixel over magnification. Missing:
        defocus V is U, angle and phase shift are 0, all else NaN.

    Raises
    ------
    MissingFileError
        If there is no such file.
    InputError
        Naming file, block, column and row, if the table is missing, empty, lacks columns, names a micrograph twice or
        an optics group that does not exist. A senseless value in a row is told in its `problem` instead.
    """
    if path.is_file() and path.stat().st_size > LARGE:
        try:
            loops = plain_loops(path)
            count, names, distinct = survey(_parts(path, loops, require_ctf, PART))
            if distinct:
                return Exposures(count, names, lambda rows: _parts(path, loops, require_ctf, rows))
        except InputError:
            pass
    blocks = read_star(path)
    block = _micrographs_block(path, _labels(blocks))
    return Exposures.of(_micrographs(path, block, blocks[block], blocks.get("optics"), require_ctf))


def _parts(path: Path, loops: dict[str, Loop], require_ctf: bool, rows: int) -> Iterator[pd.DataFrame]:
    block = _micrographs_block(path, {name: loop.labels for name, loop in loops.items()})
    optics = pd.concat(map(frame_of, loops["optics"].rows()), ignore_index=True) if "optics" in loops else None
    for part in loops[block].rows(rows):  # one with quotes comes as a whole
        for some in slices(frame_of(part), rows):
            yield _micrographs(path, block, some, optics, require_ctf)


def _micrographs(
    path: Path, block: str, table: pd.DataFrame, optics: pd.DataFrame | None, require_ctf: bool
) -> pd.DataFrame:
    """Table of micrographs as `open_micrographs_star` gives it, for rows of a STAR table."""
    _check_names(f"{path}: block data_{block}", table)
    columns = Columns(path, block, table, optics)
    if require_ctf:
        _check_ctf(columns)
    defocus_u = columns.get("rlnDefocusU")
    frame = pd.DataFrame(
        {
            "name": table[NAME].to_numpy(),
            "defocus_u": defocus_u,
            "defocus_v": columns.get("rlnDefocusV") if columns.has("rlnDefocusV") else defocus_u,
            "defocus_angle": columns.get("rlnDefocusAngle", 0.0 if columns.has("rlnDefocusU") else np.nan),
            "phase_shift": columns.get("rlnPhaseShift", 0.0),
            "voltage": columns.get("rlnVoltage"),
            "spherical_aberration": columns.get("rlnSphericalAberration"),
            "amplitude_contrast": columns.get("rlnAmplitudeContrast"),
            "exposure_group": columns.group,
            "pixel_size": _pixel_size(columns),
            "ctf_fit_resolution": columns.get("rlnCtfMaxResolution"),
            "ice_thickness": columns.get("rlnCtfIceRingDensity"),
        }
    )
    frame["problem"] = _problems(frame, require_ctf)
    return frame


def find_root(names: Sequence[str], star_path: Path, root: Path | None, cwd: Path) -> Path:
    """Find the folder that RELION's names are relative to.

    Parameters
    ----------
    names
        Micrograph names, also absolute ones and slices of stacks.
    star_path
        The STAR file they come from.
    root
        The folder, if known; nothing else is tried then.
    cwd
        Tried first without `root`, before the STAR file's folder and its parents.

    Returns
    -------
    Path
        The first folder that holds all of up to 50 evenly sampled names, else the first that holds any of them.

    Raises
    ------
    MissingFileError
        If no folder holds any, with the folders tried.
    """
    folders = [root] if root else list(dict.fromkeys([cwd.absolute(), *star_path.absolute().parents]))
    # absolute names are found from everywhere and say nothing about the folder
    telling = [name for name in names if not split_stack_name(name)[1].is_absolute()] or names
    sample = [split_stack_name(name)[1] for name in sampled(telling)]
    hits = [sum(_is_there(folder / file) for file in sample) for folder in folders]
    if not any(hits):
        looked = ", ".join(str(folder) for folder in folders)
        first = names[0] if names else "any micrograph"
        raise MissingFileError(
            f"{star_path}: none of its micrographs found, the first being {first}; looked in {looked}. Names are "
            "relative to RELION's project folder: give it with --root"
        )
    best = hits.index(len(sample)) if len(sample) in hits else next(i for i, hit in enumerate(hits) if hit)
    return folders[best]


def _is_there(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a folder that may not be searched, a server that does not answer
        return False


def read_coordinates_star(path: Path, micrograph: str | None = None) -> pd.DataFrame:
    """Read particle positions: a particles file, hand picks, simulated truth.

    Parameters
    ----------
    path
        STAR file with rlnCoordinateX and rlnCoordinateY in its block `particles`, or another one.
    micrograph
        Name to use when the file has no rlnMicrographName, as RELION's per-micrograph files. Default: refuse those.

    Returns
    -------
    DataFrame
        `micrograph`, `x_px`, `y_px` (0-based pixels of the micrograph), and every other column of the file untouched.

    Raises
    ------
    MissingFileError
        If there is no such file.
    InputError
        If no block has positions, or they are not finite numbers.
    """
    blocks = read_star(path)
    wanted = ("rlnCoordinateX", "rlnCoordinateY")
    order = sorted(blocks, key=lambda name: name != "particles")
    block = next((name for name in order if all(label in blocks[name] for label in wanted)), None)
    if block is None:
        raise InputError(f"{path}: expected a table with {' and '.join(wanted)}, found {_listing(_labels(blocks))}")
    table, where = blocks[block], f"{path}: block data_{block}"
    if NAME not in table and micrograph is None:
        raise InputError(f"{where}: {_lacks(NAME, table)}; expected a file that names the micrograph of each particle")
    names = table[NAME].to_numpy() if NAME in table else np.full(len(table), micrograph, dtype=object)
    frame = pd.DataFrame({"micrograph": pd.Series(names, dtype="str")})
    for label, column in zip(wanted, ("x_px", "y_px"), strict=True):
        frame[column] = numbers(where, table, label)
        bad = np.flatnonzero(~np.isfinite(frame[column].to_numpy()))
        if len(bad):
            raise InputError(f"{where}: column {label}: row {bad[0] + 1} ({names[bad[0]]}): expected a finite number")
    return frame.join(table.drop(columns=[NAME, *wanted], errors="ignore").reset_index(drop=True))


def read_truth_micrographs(path: Path) -> list[str] | None:
    """Read the names in a block `micrographs` beside the particles: all that were labelled, empty ones too.

    Parameters
    ----------
    path
        STAR file.

    Returns
    -------
    list of str or None
        None if the file has no such block.
    """
    table = read_star(path).get("micrographs")
    return None if table is None or NAME not in table else [str(name) for name in table[NAME]]


def numbers(where: str, table: pd.DataFrame, label: str) -> NDArray[np.float64]:
    """Take a column as numbers, NaN where a value is missing.

    Raises
    ------
    InputError
        Naming the row, if a value is not a number.
    """
    values = pd.to_numeric(table[label], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    for row in np.flatnonzero(np.isnan(values) & table[label].notna().to_numpy()):
        text = str(table[label].iloc[row])
        if text.strip().lower() not in ("nan", "-nan", ""):
            name = f" ({table[NAME].iloc[row]})" if NAME in table else ""
            raise InputError(f"{where}: column {label}: row {row + 1}{name}: expected a number, found {text[:60]!r}")
    return np.asarray(values)


def _micrographs_block(path: Path, blocks: Mapping[str, Collection[str]]) -> str:
    """Name of the table of micrographs among tables, or labels of tables."""
    order = sorted(blocks, key=lambda name: name != "micrographs")
    block = next((name for name in order if NAME in blocks[name]), None)
    if block is None:
        raise InputError(f"{path}: expected a table of micrographs (column {NAME}), found {_listing(blocks)}")
    if "rlnCoordinateX" in blocks[block] or "rlnMicrographCoordinates" in blocks[block]:
        raise InputError(
            f"{path}: block data_{block}: expected a table of micrographs, found one of particles or picks; give "
            "micrographs_ctf.star"
        )
    return block


def _check_names(where: str, table: pd.DataFrame) -> None:
    if table.empty:
        raise InputError(f"{where}: expected at least one micrograph, found none")
    names = table[NAME].reset_index(drop=True)
    for row in np.flatnonzero(names == ""):
        raise InputError(f"{where}: column {NAME}: row {row + 1}: expected a name, found none")
    for row in np.flatnonzero(names.duplicated()):
        first = int(np.flatnonzero(names == names[row])[0])
        raise InputError(f"{where}: column {NAME}: {names[row]} is in row {first + 1} and again in row {row + 1}")


def _check_ctf(columns: Columns) -> None:
    if not columns.has("rlnDefocusU"):
        raise InputError(f"{columns.where}: no defocus (rlnDefocusU): {CTF_ADVICE}; found {columns.found()}")
    missing = [
        label for label in ("rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast") if not columns.has(label)
    ]
    if columns.has("rlnDefocusV") and not columns.has("rlnDefocusAngle"):
        missing.append("rlnDefocusAngle")
    if missing:
        raise InputError(f"{columns.where}: expected the column {', '.join(missing)}, found {columns.found()}")


def _pixel_size(columns: Columns) -> NDArray[np.float64]:
    size = np.full(len(columns.table), np.nan)
    with np.errstate(all="ignore"):
        sources = (
            columns.get("rlnMicrographPixelSize"),
            columns.get("rlnMicrographOriginalPixelSize"),
            columns.get("rlnDetectorPixelSize") * 1e4 / columns.get("rlnMagnification"),
        )
    for source in sources:
        size = np.where(np.isnan(size) & np.isfinite(source) & (source > 0), source, size)
    return size


def _problems(frame: pd.DataFrame, require_ctf: bool) -> pd.Series[str]:
    """Say what is wrong with each row: the first of its values that makes no sense."""
    problems = np.full(len(frame), "", dtype=object)
    for name, (low, high, expected) in CTF_RANGES.items():
        values = frame[name].to_numpy(dtype=np.float64)
        bad = ~((low < values) & (values < high)) & (require_ctf | ~np.isnan(values))
        for row in np.flatnonzero(bad & (problems == "")):
            problems[row] = f"{name}: expected a number {expected}, found {values[row]:g}"
    return pd.Series(problems, dtype="str")


def _lacks(label: str, table: pd.DataFrame) -> str:
    return f"expected the column {label}, found {', '.join(table.columns)}"


def _labels(blocks: dict[str, pd.DataFrame]) -> dict[str, list[str]]:
    return {name: [str(label) for label in table] for name, table in blocks.items()}


def _listing(blocks: Mapping[str, Collection[str]]) -> str:
    return "; ".join(f"data_{name}: {', '.join(labels)}" for name, labels in blocks.items())


def recognise(path: Path, head: bytes) -> bool:
    """Whether a file is a table of micrographs: STAR with names, and without coordinates."""
    particles = (b"_rlnCoordinateX", b"_rlnMicrographCoordinates")
    return b"data_" in head and b"_rlnMicrographName" in head and not any(label in head for label in particles)
