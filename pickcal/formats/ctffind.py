"""Defocus from the text files that CTFFIND 4 and 5 write beside their diagnostic images.

Layout after `NumericTextFile` and the header lines of CTFFIND 4.1 and 5.0 (`ctffind.cpp`): comment lines with the
input file and the microscope, then one row per micrograph of the input. Programs that write such a table without the
header (AreTomo, Scipion) are read as well. CTFFIND 5's tilt and its thickness in Å have no place among exposures: the
thickness is not the relative one that `ice_thickness` means.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from pickcal.errors import InputError, MissingFileError
from pickcal.formats.foreign import EXPOSURE_COLUMNS, EXPOSURE_RANGES, HEAD

NUMBER = re.compile(r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eEdD][-+]?\d+)?|[-+]?(?:nan|inf|infinity)", re.ASCII | re.IGNORECASE)
INPUT = re.compile(r"^# *Input file: (.*); *Number of micrographs: *(\d{1,9})\b", re.MULTILINE | re.ASCII)
COLUMNS = re.compile(r"^# *Columns: *#1 .*$", re.MULTILINE)
HEADER = {
    "pixel_size": re.compile(r"^#.*?\bPixel size: *([^\s;]+)", re.MULTILINE),
    "voltage": re.compile(r"^#.*?\bacceleration voltage: *([^\s;]+)", re.MULTILINE),
    "spherical_aberration": re.compile(r"^#.*?\bspherical aberration: *([^\s;]+)", re.MULTILINE),
    "amplitude_contrast": re.compile(r"^#.*?\bamplitude contrast: *([^\s;]+)", re.MULTILINE),
}
ROW = ("defocus_u", "defocus_v", "defocus_angle", "phase_shift", "cross correlation", "ctf_fit_resolution")
CURVES = "6 lines per micrograph"
POWER_SPECTRUM = "_PS"
MOST_SLICES = 100_000
FITTED = frozenset({"defocus_u", "defocus_v", "defocus_angle"})


def recognise(path: Path, head: bytes) -> bool:
    """Whether a file is CTFFIND's table of results.

    Parameters
    ----------
    path
        The file; its name plays no part.
    head
        Its first `foreign.HEAD` bytes.

    Returns
    -------
    bool
        False also for `_avrot.txt` files, which hold curves; `read_exposures` says so when given one.
    """
    text = head.decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
    return text.startswith("#") and CURVES not in text and _is_table(text)


def read_exposures(paths: Sequence[Path]) -> pd.DataFrame:
    """Read the results of CTFFIND, one file or thousands.

    Parameters
    ----------
    paths
        Text files of CTFFIND 4 or 5. What a header does not say is NaN.

    Returns
    -------
    DataFrame
        One row per micrograph. `name`: the input file that the header names, with `000001@` before it for a slice of
        a stack, else the text file's own name without extension. All of `EXPOSURE_COLUMNS`: defocus in Å, angles in
        degrees (the phase shift is in radians in the file), kV, mm, Å; `ctf_fit_resolution` is NaN where CTFFIND
        wrote `inf`, no ring fitted; `exposure_group` is 1, `uid` 0. `problem`: what is wrong with the row, else
        empty.

    Raises
    ------
    MissingFileError
        If there is no such file.
    InputError
        If a file is not of this kind, a single one holds nothing, or two files are about one micrograph.

    Notes
    -----
    RELION lets CTFFIND fit the power spectrum `mic_PS.mrc` of a micrograph. The row is then named `mic.mrc`, and the
    pixel size in the header, which is the spectrum's, is left out.
    """
    rows: list[dict[str, Any]] = []
    for path in paths:
        text = read_text(path, "CTFFIND's results")
        if text.strip():
            rows.extend(_rows(path, text))
        elif len(paths) == 1:
            raise InputError(f"{path}: expected CTFFIND's results, found an empty file; run CTFFIND again")
        else:
            rows.append({"name": path.stem, "path": path, "problem": f"{path}: empty file; run CTFFIND again"})
    return exposure_table(rows)


def read_text(path: Path, expected: str) -> str:
    """Read a small text file of any encoding.

    Parameters
    ----------
    path
        The file.
    expected
        What it should hold, for the message.

    Returns
    -------
    str
        Its text; bytes that are not UTF-8 become U+FFFD.

    Raises
    ------
    MissingFileError
        If there is no such file.
    InputError
        If it is a folder, or cannot be read.
    """
    try:
        return path.read_bytes().decode("utf-8-sig", "replace")
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: expected {expected}, found a folder; give the files in it") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def number(text: str) -> float:
    """Read a number as C and Fortran print it; NaN if it is none.

    Examples
    --------
    >>> number("-38.856349"), number("1.5D+04"), number("********")
    (-38.856349, 15000.0, nan)
    """
    return float(text.upper().replace("D", "E")) if NUMBER.fullmatch(text) else math.nan


def problem_of(row: Mapping[str, Any], program: str) -> str:
    """Say what is wrong with the values of a row.

    Parameters
    ----------
    row
        Values by name of `EXPOSURE_COLUMNS`; those that the file does not give are missing.
    program
        Which program wrote them, for the message.

    Returns
    -------
    str
        Empty if nothing is.
    """
    for name, (low, high, expected) in EXPOSURE_RANGES.items():
        value = row.get(name, math.nan if name in FITTED else None)
        if value is not None and not low < value < high:
            what = f"{name}: expected a number {expected}, found {value:g}"
            return f"{what}; {program} found no fit" if name in FITTED else what
    return ""


def exposure_table(rows: Sequence[Mapping[str, Any]]) -> pd.DataFrame:
    """Table of micrographs from rows of several files.

    Parameters
    ----------
    rows
        `name`, `path` (the file), `problem`, and what is known of `EXPOSURE_COLUMNS`.

    Returns
    -------
    DataFrame
        `name`, all of `EXPOSURE_COLUMNS`, `problem`; NaN where a row lacks a value.

    Raises
    ------
    InputError
        If two rows have one name.
    """
    seen: dict[str, Path] = {}
    for row in rows:
        if row["name"] in seen:
            raise InputError(
                f"{row['path']}: is about the micrograph {row['name']}, as is {seen[row['name']]}; give one file per "
                "micrograph"
            )
        seen[row["name"]] = row["path"]
    names = pd.Series([row["name"] for row in rows], dtype="str")
    columns = {name: np.array([row.get(name, math.nan) for row in rows], dtype=np.float64) for name in EXPOSURE_COLUMNS}
    fixed = {"exposure_group": np.ones(len(rows), np.int64), "uid": np.zeros(len(rows), np.uint64)}
    problems = pd.Series([row["problem"] for row in rows], dtype="str")
    return pd.DataFrame({"name": names, **columns, **fixed, "problem": problems})


def _is_table(text: str) -> bool:
    if text.startswith("# Output from CTFFind"):
        return True
    columns = COLUMNS.search(text)
    return columns is not None and "defocus 1" in columns[0]


def _rows(path: Path, text: str) -> list[dict[str, Any]]:
    _refuse_other(path, text[:HEAD])
    header, count, given = _header(path, text)
    name = header.pop("name")
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if count is None:
        count = len(lines)
    problem = ""
    if not lines:
        problem = "no values; CTFFIND did not finish"
    elif count < len(lines) or count > MOST_SLICES:
        problem = f"expected values of {count} micrographs, found {len(lines)}; run CTFFIND again"
    if problem:
        return [{"name": name, "path": path, "problem": f"{path}: {problem}"}]
    slices = {place: f"{place:06d}@{name}" if count > 1 else name for place in range(1, count + 1)}
    found: dict[int, dict[str, Any]] = {}
    strays: list[dict[str, Any]] = []
    for line in lines:
        words = line.split()
        place, values, bad = _values(words)
        row = {**header, **values}
        if place in slices and place not in found:
            bad = bad or given or problem_of(row, "CTFFIND")
            found[place] = {**row, "problem": f"{path}: {bad}" if bad else ""}
        else:
            strays.append({"problem": f"{path}: expected a number of a micrograph, found {words[0][:60]!r} (again)"})
    free = (place for place in slices if place not in found)
    found |= dict(zip(free, strays, strict=False))
    absent = {"problem": f"{path}: no values of this micrograph; CTFFIND did not finish"}
    return [{"name": slices[place], "path": path, **found.get(place, absent)} for place in slices]


def _refuse_other(path: Path, head: str) -> None:
    if CURVES in head:
        stem = path.stem.removesuffix("_avrot")
        raise InputError(
            f"{path}: expected CTFFIND's results, found its rotational averages (curves); give {stem}{path.suffix}"
        )
    if not recognise(path, head.encode()):
        first = head.strip().splitlines()[0][:60]
        raise InputError(
            f"{path}: expected CTFFIND's results (a line '# Output from CTFFind' or '# Columns: #1 ... defocus 1'), "
            f"found {first!r}"
        )


def _header(path: Path, text: str) -> tuple[dict[str, Any], int | None, str]:
    """Name and microscope, number of micrographs, and what is wrong with the header."""
    comments = "\n".join(line for line in text[:HEAD].splitlines() if line.startswith("#"))
    out: dict[str, Any] = {"name": path.stem}
    problem = ""
    for name, pattern in HEADER.items():
        match = pattern.search(comments)
        if match:
            out[name] = number(match[1])
    columns = COLUMNS.search(comments)
    if columns and "phase shift" in columns[0] and "[radian" not in columns[0]:
        problem = f"expected the phase shift in radians, found {columns[0][:200]!r}"
    source = INPUT.search(comments)
    if source is None:
        return out, None, problem
    name, count = source[1].strip(), int(source[2])
    if not name or not name.isprintable() or "\ufffd" in name:
        return out, count, f"expected the name of a micrograph in UTF-8, found {name[:60]!r}"
    out["name"] = name
    file = PurePosixPath(name)
    if file.stem.endswith(POWER_SPECTRUM) and file.stem != POWER_SPECTRUM:
        out["name"] = str(file.with_name(file.stem.removesuffix(POWER_SPECTRUM) + file.suffix))
        out.pop("pixel_size", None)
    return out, count, problem


def _values(words: list[str]) -> tuple[int, dict[str, float], str]:
    """Read the number of the micrograph (-1 if it is none), its values, and what is wrong."""
    place = number(words[0])
    index = int(place) if math.isfinite(place) and place == int(place) else -1
    if len(words) < 1 + len(ROW):
        return index, {}, f"expected {1 + len(ROW)} numbers, found {len(words)}: the file is truncated"
    values = {name: number(word) for name, word in zip(ROW, words[1:], strict=False)}
    wrong = next((word for word in words[1 : 1 + len(ROW)] if not NUMBER.fullmatch(word)), "")
    del values["cross correlation"]
    values["phase_shift"] = math.degrees(values["phase_shift"])
    if not 0 < values["ctf_fit_resolution"] < math.inf:
        values["ctf_fit_resolution"] = math.nan
    return index, values, f"expected a number, found {wrong!r}" if wrong else ""
