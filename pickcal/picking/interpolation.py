"""Values between pixels of maps that hold no frequency beyond the search's low-pass.

A sinc of nine taps under a window that is cheaper than Kaiser's and as good (exponential of a semicircle: Barnett et
al. 2019, SIAM J. Sci. Comput. 41, C479-C504). Exact at pixel centres.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pickcal.picking.kernels import cut_between, weighted_neighbourhood

Float32 = NDArray[np.float32]
Floats = NDArray[np.float64]

RADIUS = 4
"""Taps on either side of the nearest pixel."""
TAPS = np.arange(-RADIUS, RADIUS + 1)
SIGNS = np.where(TAPS % 2 == 0, np.float32(1), np.float32(-1))
BETA = np.float32(6.0)
STEPS = 8
"""Fine steps per pixel in which the peak of a patch is looked for."""


def taps(fraction: NDArray[np.floating]) -> Float32:
    """Weights of the nine taps about the nearest pixel, float32 `(points, 9)`.

    Parameters
    ----------
    fraction
        Offsets from the nearest pixel, pixels, within [-1, 1].
    """
    offset = np.asarray(fraction, dtype=np.float64)[:, None]
    distance = (offset - TAPS).astype(np.float32)
    window = np.exp(BETA * (np.sqrt(np.maximum(1 - np.square(distance / np.float32(RADIUS + 1)), 0)) - 1))
    # sin(pi (x - n)) is sin(pi x) but for the sign, and 0 at pixel centres
    angle, sines = np.float32(np.pi) * distance, np.sin(np.pi * offset).astype(np.float32) * SIGNS
    weights = window * np.divide(sines, angle, where=angle != 0, out=np.ones_like(angle))
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), dtype=np.float32)


def nearest(places: Floats, length: int) -> tuple[NDArray[np.intp], Floats]:
    """Nearest pixels that have all their taps within an axis of a length, and the offsets from them."""
    pixels = np.clip(np.rint(places).astype(np.intp), RADIUS, length - 1 - RADIUS)
    return pixels, np.clip(places - pixels, -RADIUS, RADIUS)


def interpolate(maps: Float32, y: Floats, x: Floats) -> Float32:
    """Values of all maps at points.

    Parameters
    ----------
    maps
        float32 `(height, width, k)`, at least nine pixels on a side.
    y, x
        Points, pixels; the four pixels at the border are extrapolated from the pixels within.

    Returns
    -------
    ndarray
        float32 `(points, k)`.
    """
    row, dy = nearest(y, maps.shape[0])
    column, dx = nearest(x, maps.shape[1])
    out = np.empty((len(y), maps.shape[2]), dtype=np.float32)
    weighted_neighbourhood(maps, taps(dy), taps(dx), row, column, out)
    return out


def patches_between(image: Float32, y: Floats, x: Floats, side: int) -> Float32:
    """Cut out squares of an image whose centres lie between its pixels.

    Parameters
    ----------
    image
        float32 `(height, width)`; it goes on periodically.
    y, x
        Centres, pixels.
    side
        Pixels, odd.

    Returns
    -------
    ndarray
        float32 `(points, side, side)`.
    """
    row, column = np.rint(y).astype(np.intp), np.rint(x).astype(np.intp)
    out = np.empty((len(y), side, side), dtype=np.float32)
    cut_between(image, taps(y - row), taps(x - column), row, column, out)
    return out


_FINE = np.arange(-STEPS - 1, STEPS + 2) / STEPS
_FINE_TAPS = taps(_FINE)
_ROUGH_TAPS = _FINE_TAPS[1:-1:2]


def highest_of_patch(patches: Float32) -> Float32:
    """Highest value of each patch within a pixel of its centre, at quarters of a pixel: enough to choose a patch by.

    Parameters
    ----------
    patches
        float32 `(points, 9, 9)`.
    """
    rough = _between(patches, _ROUGH_TAPS)
    return np.asarray(rough.reshape(len(patches), rough.shape[1] ** 2).max(axis=1))


def peak_of_patch(patches: Float32) -> tuple[Floats, Floats, Floats]:
    """Highest place of each patch, within a pixel of its centre.

    Parameters
    ----------
    patches
        float32 `(points, 9, 9)`.

    Returns
    -------
    dy, dx, value
        Offsets from the central pixel, pixels in [-1, 1], and the interpolated value there.
    """
    fine = _between(patches, _FINE_TAPS).swapaxes(1, 2)
    inner = fine[:, 1:-1, 1:-1]
    best = inner.reshape(len(patches), inner.shape[1] * inner.shape[2]).argmax(axis=1)
    row, column = best // inner.shape[2], best % inner.shape[2]
    ring = np.arange(3)
    near = fine[
        np.arange(len(patches))[:, None, None], row[:, None, None] + ring[:, None], column[:, None, None] + ring
    ]
    dy, dx, value = _parabola_tops(near.astype(np.float64))
    return _FINE[row + 1] + dy / STEPS, _FINE[column + 1] + dx / STEPS, value


def _between(patches: Float32, along: Float32) -> Float32:
    """Patches at the places whose taps are the rows of `along`, `(points, places along x, places along y)`."""
    count, side, places = len(patches), len(TAPS), len(along)
    along_x = (patches.reshape(count * side, side) @ along.T).reshape(count, side, places)
    both = along_x.swapaxes(1, 2).reshape(count * places, side) @ along.T
    return np.asarray(both.reshape(count, places, places), dtype=np.float32)


def _parabola_tops(near: Floats) -> tuple[Floats, Floats, Floats]:
    """Tops of one parabola along each axis through 3 x 3 values, offsets within half a step."""
    value = near[:, 1, 1]
    offsets = []
    gain = np.zeros(len(near))
    for low, high in ((near[:, 0, 1], near[:, 2, 1]), (near[:, 1, 0], near[:, 1, 2])):
        offset, above = parabola_top(low, value, high)
        offsets.append(offset)
        gain += above
    return offsets[0], offsets[1], value + gain


def parabola_top(low: Floats, middle: Floats, high: Floats) -> tuple[Floats, Floats]:
    """Top of the parabola through three equidistant values: offset from the middle, in [-0.5, 0.5], and rise above it.

    Where the middle is not the highest, the offset is 0.
    """
    curvature = 2 * middle - low - high
    peaked = (curvature > 0) & (middle >= low) & (middle >= high)
    safe = np.where(peaked, curvature, 1.0)
    offset = np.where(peaked, 0.5 * (high - low) / safe, 0.0)
    return offset, np.where(peaked, 0.125 * (high - low) ** 2 / safe, 0.0)
