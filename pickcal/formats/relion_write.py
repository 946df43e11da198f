"""Tables of micrographs that RELION reads, and its rule for the names of files; picks are in `relion_export`.

Source: RELION 3.1 and 4 as installed and as their tutorial writes them; positions are 0-based pixels of the
micrograph, like pickcal's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from pickcal.errors import InputError
from pickcal.formats.images import STACK_NAME
from pickcal.formats.star import write_star

JOB_FOLDER = re.compile(r".*?/job\d{3}[^/]*/")
OPTICS = {
    "voltage": "rlnVoltage",
    "spherical_aberration": "rlnSphericalAberration",
    "amplitude_contrast": "rlnAmplitudeContrast",
}
CTF = {"defocus_u": "rlnDefocusU", "defocus_v": "rlnDefocusV", "defocus_angle": "rlnDefocusAngle"}
FIT = {"ctf_fit_resolution": "rlnCtfMaxResolution", "ice_thickness": "rlnCtfIceRingDensity"}


def pipeline_stem(name: str) -> str:
    """Name of a micrograph's output files by RELION's rule.

    Parameters
    ----------
    name
        Micrograph name. A leading `JobType/jobNNN/` and the extension are dropped; a slice of a stack is told by
        its number; a leading `/` and `..` are dropped, so that the file stays in its output folder.

    Examples
    --------
    >>> pipeline_stem("MotionCorr/job002/Movies/a.mrc")
    'Movies/a'
    >>> pipeline_stem("3@dir/s.mrcs")
    'dir/s_000003'
    """
    match = STACK_NAME.fullmatch(name)
    slice_number, file = (int(match[1]), match[2]) if match else (None, name)
    parts = [part for part in PurePosixPath(JOB_FOLDER.sub("", file, count=1)).parts if part not in ("/", "..")]
    stem = PurePosixPath(*parts).with_suffix("").as_posix() if parts else "micrograph"
    return stem if slice_number is None else f"{stem}_{slice_number:06d}"


def write_micrographs_star(path: Path, micrographs: pd.DataFrame) -> None:
    """Write a RELION 3.1 micrographs file.

    Parameters
    ----------
    path
        File to write.
    micrographs
        Table as `relion.open_micrographs_star` gives it. Columns without a finite value are left out.

    Raises
    ------
    InputError
        If a micrograph has no pixel size.
    """
    optics, rows = micrograph_tables(path, micrographs)
    write_star(path, {"optics": optics, "micrographs": rows})


def micrograph_tables(path: Path, micrographs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Tables of optics groups and of micrographs as RELION 3.1 and later have them."""
    frame = micrographs.reset_index(drop=True)
    pixel_size = frame["pixel_size"].to_numpy(dtype=float) if "pixel_size" in frame else np.full(len(frame), np.nan)
    bad = ~(np.isfinite(pixel_size) & (pixel_size > 0))
    if bad.any():
        name = frame["name"].iloc[int(np.flatnonzero(bad)[0])]
        raise InputError(f"{path}: micrograph {name}: expected a pixel size, found none; give --source-pixel-size")
    group = _optics_groups(frame)
    first = frame.assign(number=group).drop_duplicates("number").sort_values("number")
    number = first["number"].to_numpy()
    optics = {
        "rlnOpticsGroupName": [f"opticsGroup{n}" for n in number],
        "rlnOpticsGroup": number,
        "rlnMicrographPixelSize": first["pixel_size"].to_numpy(dtype=float),
        "rlnMicrographOriginalPixelSize": first["pixel_size"].to_numpy(dtype=float),
    }
    rows = {"rlnMicrographName": frame["name"].to_numpy(), "rlnOpticsGroup": group}
    return pd.DataFrame(optics | _present(first, OPTICS)), pd.DataFrame(rows | _row_columns(frame))


def _row_columns(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    columns = _present(frame, CTF)
    phase = _present(frame, {"phase_shift": "rlnPhaseShift"})
    if any(np.nan_to_num(shift).any() for shift in phase.values()):
        columns |= phase
    return columns | _present(frame, FIT)


def _present(frame: pd.DataFrame, labels: Mapping[str, str]) -> dict[str, np.ndarray]:
    columns = {label: frame[name].to_numpy(dtype=float) for name, label in labels.items() if name in frame}
    return {label: values for label, values in columns.items() if np.isfinite(values).any()}


def _optics_groups(frame: pd.DataFrame) -> np.ndarray:
    """Exposure groups, or new numbers if micrographs of one group differ in what an optics group must share."""
    given = frame["exposure_group"] if "exposure_group" in frame else pd.Series(1, index=frame.index)
    keys = frame[["pixel_size", *(name for name in OPTICS if name in frame)]].assign(group=given)
    number = keys.groupby(["group", *keys.columns.drop("group")], dropna=False, sort=True).ngroup().to_numpy() + 1
    if len(np.unique(number)) == given.nunique():
        return given.to_numpy(dtype=int)
    return np.asarray(number)
