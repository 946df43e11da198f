"""Peaks of score maps: local maxima, least distance."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pickcal.picking.filters import Float32
from pickcal.picking.kernels import keep_apart, mark_maxima


def local_maxima(scores: Float32) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Pixels that are at least as high as their eight neighbours, `(y, x)` indices in row order; -inf is no pixel."""
    marked = np.empty(scores.shape, dtype=np.bool_)
    mark_maxima(np.asarray(scores, dtype=np.float32), marked)
    y, x = np.nonzero(marked)
    return y, x


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
