"""Defocus from the logs of Gctf, and of CTFFIND 3, whose layout Gctf took over.

Layout after real logs of Gctf 1.06 and 1.18 and after RELION's reader (`ctffind_runner.cpp`): the last line that ends
in `Final Values` under a line of column names counts, since refinements print one each. The table of micrographs that
Gctf writes as `micrographs_all_gctf.star` is a STAR file of RELION's kind.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from pickcal.errors import InputError
from pickcal.formats.ctffind import NUMBER, exposure_table, number, problem_of, read_text

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
TITLES = {
    "Defocus_U": "defocus_u",
    "Defocus_V": "defocus_v",
    "Angle": "defocus_angle",
    "Phase_shift": "phase_shift",
    "CCC": "",
    "DFMID1": "defocus_u",
    "DFMID2": "defocus_v",
    "ANGAST": "defocus_angle",
    "CC": "",
}
OPTICS = re.compile(r"^ *CS\[mm\], *HT\[kV\], *(?:AmpCnst|ac), *XMAG, *DStep\[um\].*\n+([^\n]*)", re.MULTILINE)
OPTION = re.compile(r"^[ \t]*--(apix|kv|cs|ac)[ \t]+(\S+)[ \t]*$", re.MULTILINE | re.IGNORECASE)
SOURCE = re.compile(r"^ *Input image file name[^\n]*\n\s*(\S[^\n]*)", re.MULTILINE)
RESOLUTION = re.compile(r"^.*Resolution limit estimated by EPA:[ \t]*(?:RES_LIMIT[ \t]+)?(\S+)", re.MULTILINE)
FINAL = re.compile(r"^(.*)\bFinal Values\b", re.MULTILINE)
FINISHED = "Processing done successfully"
CURVES = re.compile(r"^\s*Resolution\b.*CTFsim", re.IGNORECASE)
NAMES = {"apix": "pixel_size", "kv": "voltage", "cs": "spherical_aberration", "ac": "amplitude_contrast"}
SUFFIX = re.compile(r"(?:_gctf|_EPA|_ctffind3)$")
MARKS = (b"Final Values", b"Defocus_U", b"DFMID1", b"LAST CYCLE", b"Resolution limit estimated by EPA")


def recognise(path: Path, head: bytes) -> bool:
    """Whether a file is a log of Gctf or CTFFIND 3.

    Parameters
    ----------
    path
        The file; its name counts only for a log that broke off before any result.
    head
        Its first `foreign.HEAD` bytes.

    Returns
    -------
    bool
        False also for `_EPA.log` files of curves; `read_exposures` says so when given one.
    """
    if b"\x00" in head or head.lstrip().startswith((b"data_", b"{")):
        return False
    log = sum(mark in head for mark in MARKS) >= 2
    return log or (path.name.endswith("_gctf.log") and b"Gctf" in head)


def read_exposures(paths: Sequence[Path]) -> pd.DataFrame:
    """Read the results of Gctf, one log or thousands.

    Parameters
    ----------
    paths
        Logs, one per micrograph (`mic_gctf.log`). What a log does not say is NaN.

    Returns
    -------
    DataFrame
        One row per log. `name`: the input image if the log names it, else the log's own name without extension and
        without `_gctf`, `_EPA` or `_ctffind3`. All of `EXPOSURE_COLUMNS`: defocus in Å, angles in degrees, kV, mm, Å;
        `exposure_group` is 1, `uid` 0. Without a `Phase_shift` column the phase shift is 0. `problem`: what is wrong
        with the log, else empty.

    Raises
    ------
    MissingFileError
        If there is no such file.
    InputError
        If a file is not of this kind, a single one is empty, or two logs are about one micrograph.
    """
    rows = []
    for path in paths:
        text = ESCAPE.sub("", read_text(path, "a log of Gctf")).replace("\r\n", "\n").replace("\r", "\n")
        if text.strip():
            rows.append(_row(path, text))
        elif len(paths) == 1:
            raise InputError(f"{path}: expected a log of Gctf, found an empty file; run Gctf again")
        else:
            rows.append({"name": _stem(path), "path": path, "problem": f"{path}: empty file; run Gctf again"})
    return exposure_table(rows)


def _stem(path: Path) -> str:
    return SUFFIX.sub("", path.stem)


def _row(path: Path, text: str) -> dict[str, Any]:
    _refuse_other(path, text)
    row: dict[str, Any] = {"name": _stem(path), "path": path, **_optics(text)}
    source = SOURCE.search(text)
    problem = ""
    if source and source[1].isprintable() and "\ufffd" not in source[1]:
        row["name"] = source[1].strip()
    elif source:
        problem = f"expected the name of a micrograph in UTF-8, found {source[1][:60]!r}"
    resolution = RESOLUTION.findall(text)
    if resolution and 0 < number(resolution[-1]) < math.inf:
        row["ctf_fit_resolution"] = number(resolution[-1])
    if text.count(FINISHED) > 1:
        problem = "holds the results of several micrographs; give one log per micrograph, or micrographs_all_gctf.star"
    else:
        values, wrong = _final(text)
        row.update(values)
        problem = problem or wrong or problem_of(row, "Gctf")
    row["problem"] = f"{path}: {problem}" if problem else ""
    return row


def _refuse_other(path: Path, text: str) -> None:
    if recognise(path, text.encode()):
        return
    first = text.strip().splitlines()[0][:60]
    if CURVES.match(first):
        log = f"{_stem(path)}_gctf.log"
        raise InputError(f"{path}: expected a log of Gctf, found its equiphase averages (curves); give {log}")
    hint = "; read it as STAR" if re.search(r"^data_", text, re.MULTILINE) else ""
    raise InputError(f"{path}: expected a log of Gctf (a line ending in 'Final Values'), found {first!r}{hint}")


def _optics(text: str) -> dict[str, float]:
    """Microscope and pixel size as the log has them."""
    out = {NAMES[key.lower()]: number(word) for key, word in OPTION.findall(text)}
    match = OPTICS.search(text)
    if match:
        words = match[1].replace(",", " ").split()[:5]
        if len(words) == 5:
            cs, voltage, contrast, magnification, step = (number(word) for word in words)
            out |= {"spherical_aberration": cs, "voltage": voltage, "amplitude_contrast": contrast}
            if "pixel_size" not in out:
                out["pixel_size"] = step * 1e4 / magnification if magnification else math.nan
    return out


def _final(text: str) -> tuple[dict[str, float], str]:
    """Values of the last fit, and what is wrong with them."""
    fits = list(FINAL.finditer(text))
    if not fits:
        return {}, "no line of final values; Gctf did not finish"
    last = fits[-1]
    words = last[1].split()
    titles = next((found for line in reversed(text[: last.start()].splitlines()) if (found := _titles(line))), None)
    if titles is None:
        return {}, "expected a line of column names (Defocus_U Defocus_V Angle) before the final values, found none"
    if len(words) != len(titles):
        return {}, f"expected {len(titles)} final values ({' '.join(titles)}), found {last[1].strip()[:60]!r}"
    wrong = next((word for word in words if not NUMBER.fullmatch(word)), None)
    if wrong is not None:
        return {}, f"expected a number among the final values, found {wrong[:60]!r}"
    values = {TITLES[title]: number(word) for title, word in zip(titles, words, strict=True)}
    values.pop("", None)
    return {"phase_shift": 0.0, **values}, ""


def _titles(line: str) -> list[str] | None:
    """Column names, if a line is made of them."""
    words = line.split()
    return words if len(words) > 2 and all(word in TITLES for word in words) else None
