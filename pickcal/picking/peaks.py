"""Peaks of score maps: local maxima, sub-pixel positions, least distance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pickcal.picking.filters import Float32
from pickcal.picking.kernels import keep_apart, mark_maxima

_OFFSETS = np.array([(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)], dtype=np.float64)
_DESIGN = np.stack(
    [
        np.ones(9),
        _OFFSETS[:, 0],
        _OFFSETS[:, 1],
        _OFFSETS[:, 0] ** 2,
        _OFFSETS[:, 1] ** 2,
        _OFFSETS[:, 0] * _OFFSETS[:, 1],
    ],
    axis=1,
)
_FIT = np.linalg.pinv(_DESIGN)


def local_maxima(scores: Float32) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pixels that are at least as high as their eight neighbours, `(y, x)` indices in row order; -inf is no pixel."""
    marked = np.empty(scores.shape, dtype=np.bool_)
    mark_maxima(np.asarray(scores, dtype=np.float32), marked)
    y, x = np.nonzero(marked)
    return y, x


def quadratic_peak(patches: Float32) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Peak of the least-squares paraboloid through 3 x 3 values.

    Parameters
    ----------
    patches
        `(n, 3, 3)`, the highest value at the centre.

    Returns
    -------
    dy, dx, height
        Offsets from the centre in pixels, within [-1, 1]; where the paraboloid has no maximum near by, 0 and the
        central value.
    """
    values = patches.reshape(len(patches), 9).astype(np.float64)
    constant, by, bx, ayy, axx, axy = (values @ _FIT.T).T
    determinant = 4 * ayy * axx - axy**2
    safe = np.where(determinant > 0, determinant, 1.0)
    dy = (axy * bx - 2 * axx * by) / safe
    dx = (axy * by - 2 * ayy * bx) / safe
    good = (determinant > 0) & (ayy < 0) & (np.abs(dy) <= 1) & (np.abs(dx) <= 1)
    dy, dx = np.where(good, dy, 0.0), np.where(good, dx, 0.0)
    height = np.where(good, constant + 0.5 * (by * dy + bx * dx), values[:, 4])
    return dy, dx, np.maximum(height, values[:, 4])


def thin_out(
    y: NDArray[np.number], x: NDArray[np.number], scores: NDArray[np.floating], distance: float
) -> NDArray[np.intp]:
    """Keep the best of any points nearer to each other than a distance, greedily from the best down.

    Parameters
    ----------
    y, x
        Positions, any one unit.
    scores
        Higher is better; equal scores keep their order.
    distance
        Least distance of two points kept, in the unit of the positions.

    Returns
    -------
    ndarray
        Indices of the points kept, best first.
    """
    order = np.argsort(-scores, kind="stable")
    if len(order) == 0:
        return order
    alive = np.empty(len(order), dtype=np.bool_)
    keep_apart(y[order].astype(np.float64), x[order].astype(np.float64), distance * (1 - 1e-9), alive)
    return order[alive]
