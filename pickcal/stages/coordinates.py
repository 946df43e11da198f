"""Coordinates of other programs' picks as pixels of the project's micrographs, and what is wrong with them.

Mismatches are found and told, with what would mend them; nothing is guessed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pickcal.errors import InputError
from pickcal.formats.foreign import ForeignPicks
from pickcal.settings import ImportPicksSettings

TOLERANCE = 1.0
"""Pixels that a pick may lie beyond the border: programs count from the centre or the corner of the first pixel."""

SCALES = (0.125, 0.25, 1 / 3, 0.5)
"""Factors that coordinates beyond the border may lack: they were taken of larger micrographs."""
FITS = 0.995
"""Share of picks inside with which a remedy counts as fitting."""

HALF = 0.55
"""Picks of binned micrographs reach no further than this part of the columns and rows."""
LEAST_PICKS, LEAST_MICROGRAPHS = 200, 3
"""Fewer may all lie in one corner by chance."""
PIXEL_TOLERANCE = 0.01
"""Relative difference up to which two pixel sizes are one."""

Floats = NDArray[np.float64]
Index = NDArray[np.integer]


@dataclass(frozen=True)
class Frame:
    """Sizes of the project's micrographs.

    Attributes
    ----------
    names
        Their names.
    height, width
        Pixels of the source, float64 `(micrograph,)`, 0 where not known.
    pixel_size
        Å of the source's pixels.
    """

    names: NDArray[np.object_]
    height: Floats
    width: Floats
    pixel_size: Floats

    @classmethod
    def of(cls, micrographs: xr.Dataset) -> Frame:
        """Take them from the table of micrographs."""
        return cls(
            micrographs["name"].values.astype(object),
            micrographs["source_height"].values.astype(np.float64),
            micrographs["source_width"].values.astype(np.float64),
            micrographs["source_pixel_size"].values.astype(np.float64),
        )


def pixels(part: ForeignPicks, index: Index, frame: Frame, settings: ImportPicksSettings) -> tuple[Floats, Floats]:
    """Positions in pixels of the source micrographs, rows from the first.

    Parameters
    ----------
    part
        Picks as their file has them.
    index
        Micrograph of every row, in `frame`.
    frame
        Sizes of the micrographs.
    settings
        Scale, axes and direction of y.

    Returns
    -------
    x, y
        float64 `(row,)`.

    Raises
    ------
    InputError
        If fractions or a count from the last row need the size of a micrograph that is not known, or the file and
        the project are at odds about the pixel size.

    Notes
    -----
    cryoSPARC's y counts from the last row: y = height x (1 - fraction) on the same micrograph file. Its Patch Motion
    writes micrographs upside down relative to MotionCor's and RELION's, and then y = height x fraction.
    """
    x, y = (part.y, part.x) if settings.swap_xy else (part.x, part.y)
    height, width = (
        _side(part, name, sizes[index]) for name, sizes in (("height", frame.height), ("width", frame.width))
    )
    upward = part.y_from == "last row" and settings.flip_y
    if part.unit == "fraction" or upward:
        _need_size(part, index, frame, (height > 0) & (width > 0))
    if part.unit == "fraction":
        return x * width, (height * (1.0 - y) if upward else height * y)
    if part.unit == "angstrom":
        x, y = x / frame.pixel_size[index], y / frame.pixel_size[index]
    else:
        if settings.scale is None:
            _same_pixel(part, index, frame)
        factor = settings.scale or 1.0
        x, y = x * factor, y * factor
    return x, (height - y if upward else y)


def _side(part: ForeignPicks, name: str, known: Floats) -> Floats:
    """Size of every row's micrograph: the project's, else what the file itself tells (cryoSPARC's do)."""
    told = part.exposure.get(f"source_{name}")
    return known if told is None else np.where(known > 0, known, np.asarray(told, dtype=np.float64))


def _need_size(part: ForeignPicks, index: Index, frame: Frame, known: NDArray[np.bool_]) -> None:
    if not known.all():
        name = frame.names[index[int(np.argmin(known))]]
        raise InputError(
            f"{part.path}: its coordinates need the size of micrograph {name}, which is not known; import the table "
            "of micrographs with --size ROWS COLUMNS, or with the images"
        )


def _same_pixel(part: ForeignPicks, index: Index, frame: Frame) -> None:
    if "pixel_size" not in part.exposure or not len(index):
        return
    theirs = np.asarray(part.exposure["pixel_size"], dtype=np.float64)
    ours = frame.pixel_size[index]
    with np.errstate(invalid="ignore"):
        odd = np.abs(theirs / ours - 1) > PIXEL_TOLERANCE
    if odd.any():
        row = int(np.argmax(odd))
        ratio = theirs[row] / ours[row]
        raise InputError(
            f"{part.path}: row {row + 1}: pixel size {theirs[row]:g} Å in the file, {ours[row]:g} Å in the project for "
            f"micrograph {frame.names[index[row]]}; give --scale {ratio:.4g} if the coordinates count pixels of "
            f"{theirs[row]:g} Å, --scale 1 if they count pixels of {ours[row]:g} Å"
        )


def outside(x: Floats, y: Floats, index: Index, frame: Frame) -> NDArray[np.bool_]:
    """Find picks beyond the border of their micrograph by more than a pixel; False where its size is not known."""
    height, width = frame.height[index], frame.width[index]
    low, right, bottom = -0.5 - TOLERANCE, width - 0.5 + TOLERANCE, height - 0.5 + TOLERANCE
    beyond = (x < low) | (y < low) | (x > right) | (y > bottom)
    return np.asarray(beyond & (height > 0) & (width > 0))


def check_inside(x: Floats, y: Floats, index: Index, frame: Frame, settings: ImportPicksSettings, what: str) -> None:
    """Refuse coordinates that do not fit the micrographs, and say what would fit.

    Raises
    ------
    InputError
        With the number of picks outside, the first of them, and the remedies with which all but a few are inside; or
        if all picks lie in one quarter of their micrographs, as coordinates of binned micrographs do.
    """
    beyond = outside(x, y, index, frame)
    if beyond.any():
        row = int(np.argmax(beyond))
        at = index[row]
        raise InputError(
            f"{what}: {int(beyond.sum())} of {len(x)} picks lie outside of their micrographs, the first at "
            f"x {x[row]:.6g}, y {y[row]:.6g} of {frame.names[at]} ({frame.width[at]:.0f} columns, "
            f"{frame.height[at]:.0f} rows); "
            + (_remedies(x, y, index, frame, settings) or "nothing simple fits: are these picks of other micrographs?")
        )
    if settings.scale is None:
        _check_filled(x, y, index, frame, what)


def _remedies(x: Floats, y: Floats, index: Index, frame: Frame, settings: ImportPicksSettings) -> str:
    """Name what would bring nearly all picks inside."""
    factor = settings.scale or 1.0
    height, width = frame.height[index], frame.width[index]
    trials = {f"--scale {scale * factor:.4g}": (x * scale, y * scale) for scale in SCALES}
    swap = "leave out --swap-xy" if settings.swap_xy else "--swap-xy (rows first)"
    trials[swap] = (y, x)
    trials["y counted downwards from 0, upside down (-y)"] = (x, -y)
    fractions = (x * width / factor, y * height / factor)
    if np.nanmax(x) <= factor and np.nanmax(y) <= factor:
        trials["fractions of the micrograph's size"] = fractions
    fits = []
    for words, (u, v) in trials.items():
        filled = min(_filled(u, v, index, frame))
        if 1 - outside(u, v, index, frame).mean() >= FITS and (filled > HALF or not words.startswith("--scale")):
            fits.append(words)
    inside = 1 - outside(x, y, index, frame).mean()
    best = [words for words in fits if not words.startswith("--scale")]
    scales = [words for words in fits if words.startswith("--scale")]
    if scales:  # the largest factor that fits fills the micrographs; smaller ones fit as well and say nothing
        best.insert(0, scales[-1])
    if inside >= 0.9:
        best.append("--drop-outside leaves these out")
    return "what fits: " + "; ".join(best) if best else ""


def _filled(x: Floats, y: Floats, index: Index, frame: Frame) -> tuple[float, float]:
    """Part of the columns and of the rows that picks reach, of micrographs of known size."""
    known = (frame.height[index] > 0) & (frame.width[index] > 0)
    if not known.any():
        return 1.0, 1.0
    across, down = x[known] / frame.width[index][known], y[known] / frame.height[index][known]
    return float(np.max(across)), float(np.max(down))


def _check_filled(x: Floats, y: Floats, index: Index, frame: Frame, what: str) -> None:
    known = (frame.height[index] > 0) & (frame.width[index] > 0)
    if known.sum() < LEAST_PICKS or len(np.unique(index[known])) < LEAST_MICROGRAPHS:
        return
    right, bottom = _filled(x, y, index, frame)
    if right > HALF or bottom > HALF:
        return
    scale = int(1.0 / max(right, bottom, 1e-3))
    raise InputError(
        f"{what}: all {int(known.sum())} picks lie in the first {100 * right:.0f} % of the columns and the first "
        f"{100 * bottom:.0f} % of the rows of their micrographs, as coordinates of binned micrographs do; give "
        f"--scale {scale} if they are binned by {scale}, --scale 1 if they are right"
    )
