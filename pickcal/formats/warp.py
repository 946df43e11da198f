"""Warp's STAR files: `allparticles_*.star`, `goodparticles_*.star`, and `matching/<movie>_<model>.star`.

Format after Warp's `MainWindow.xaml.cs`: one table without optics groups, which begins with the position,
`_rlnMagnification` (always 10000) and `_rlnDetectorPixelSize`; names are those of the movies. Positions are pixels of
Warp's binned average, whose size is that detector pixel, and y counts from its first row. Conversion
scripts of Warp's users flip y for micrographs that RELION or MotionCor2 made of TIFF movies, which those read upside
down against Warp.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pickcal.errors import InputError
from pickcal.formats import relion_picks
from pickcal.formats.foreign import Column, ForeignPicks
from pickcal.formats.relion_picks import numbers

LABEL = re.compile(rb"^[ \t]*_(\S+)", re.MULTILINE)
POSITION = [b"rlnCoordinateX", b"rlnCoordinateY"]
TABLE = [*POSITION, b"rlnMagnification", b"rlnDetectorPixelSize"]
MATCHING = (
    [*POSITION, b"rlnMicrographName", b"rlnAutopickFigureOfMerit"],
    [*POSITION, b"rlnAutopickFigureOfMerit", b"rlnMicrographName"],
)
MAGNIFICATION, DETECTOR = "rlnMagnification", "rlnDetectorPixelSize"
NO_RESOLUTION = 999.0


def recognise(path: Path, head: bytes) -> bool:
    """Whether a file is a STAR with Warp's columns in Warp's order.

    Parameters
    ----------
    path
        The file; its name plays no part.
    head
        Its first `foreign.HEAD` bytes.
    """
    if b"data_" not in head or b"data_optics" in head:
        return False
    labels = LABEL.findall(head)
    return labels in MATCHING or (labels[:4] == TABLE and b"rlnMicrographName" in labels)


def read_picks(path: Path) -> Iterator[ForeignPicks]:
    """Read Warp's particles.

    Parameters
    ----------
    path
        One of the files above.

    Yields
    ------
    ForeignPicks
        As of `relion_picks.read_picks`; `exposure["pixel_size"]` is the pixel in which the positions are, in Å. What
        Warp fills in where it has not fitted the CTF (defocus 0, resolution 999) is NaN.

    Raises
    ------
    MissingFileError, InputError
        If the file is not there or damaged, or holds positions in a tomogram.
    """
    for part in relion_picks.read_picks(path):
        where = f"{path}: block data_{part.block}"
        if "rlnCoordinateZ" in part.columns:
            z = numbers(where, part.columns, "rlnCoordinateZ", finite=False)
            if len(np.unique(z)) > 1:
                raise InputError(
                    f"{where}: expected picks of micrographs, found positions in a tomogram (rlnCoordinateZ)"
                )
        yield replace(part, program="warp", exposure=_exposure(where, part.columns, part.exposure))


def _exposure(where: str, columns: dict[str, Column], found: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    out = dict(found)
    if MAGNIFICATION in columns and DETECTOR in columns:
        detector, magnification = (numbers(where, columns, label, finite=False) for label in (DETECTOR, MAGNIFICATION))
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            size = detector * 1e4 / magnification
        out["pixel_size"] = np.where(np.isfinite(size) & (size > 0), size, np.nan)
    if "defocus_u" in out and "defocus_v" in out:
        unfitted = (out["defocus_u"] == 0) & (out["defocus_v"] == 0)
        for name in ("defocus_u", "defocus_v"):
            out[name] = np.where(unfitted, np.nan, out[name])
    if "ctf_fit_resolution" in out:
        out["ctf_fit_resolution"] = np.where(
            out["ctf_fit_resolution"] == NO_RESOLUTION, np.nan, out["ctf_fit_resolution"]
        )
    return out
