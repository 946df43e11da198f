"""Where a look at templates is worth it.

All entries at all pixels would be most of a search's cost, and all but a few pixels hold nothing. The energy of the
maps tells where: the sum of their squares, each weighed by the root of its part in the entries. That is near the mean
square of all scores (whose weight is the part itself, and which finds no better), costs one pass, and treats both signs
alike, so that decoys are found as picks are. Noise rarely resembles many entries at once, particles do: of places where
a single entry scores high by chance, energy leaves out more than of particles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pickcal.picking.entries import BLOCK_POINTS, products
from pickcal.picking.filters import Float32
from pickcal.picking.kernels import extremes, take_rows, weighted_squares
from pickcal.picking.matching import Responses

SHARE = 0.1
"""Pixels of a tile, those of most energy, that are looked at."""
TILE, LEAST_TILE = 2.0, 16
"""Side of a tile, diameters, and pixels of the search grid at least."""
UNUSUAL, MOST_UNUSUAL = 1.5, 0.1
"""Where the variance is more than so many times the micrograph's median, every pixel is looked at, but at most at this
share of the micrograph: ice raises the variance about it, so that particles beside it have little energy."""

Window = tuple[slice, slice]


@dataclass(frozen=True)
class Extremes:
    """Best scores of one sign on a window.

    Attributes
    ----------
    score
        float32 `(y, x)`: score times the sign; -inf at pixels that were not looked at.
    row
        int32 `(y, x)`: whose it is: a group, or an entry of a bank without groups; numbers from their count on are
        half-turns of the first ones.
    """

    score: Float32
    row: NDArray[np.int32]


def worth_a_look(responses: Responses, window: Window, diameter: float) -> NDArray[np.bool_]:
    """Mark the pixels of a window where a particle or a decoy may be.

    Each tile keeps its share, so that a bright corner does not take the places of all others.

    Parameters
    ----------
    responses
        From `match`.
    window
        Rows and columns to look at, pixels.
    diameter
        Of the particle, pixels.
    """
    variance = np.square(responses.spread[window])
    if not variance.size:
        return np.zeros(variance.shape, dtype=bool)
    energy = np.empty(variance.shape, np.float32)
    origin = (np.array([window[0].start]), np.array([window[1].start]))
    weighted_squares(responses.maps, np.sqrt(responses.entries.energy), *origin, energy)
    energy /= variance
    median, largest = np.quantile(variance, (0.5, 1 - MOST_UNUSUAL))
    unusual = variance > max(UNUSUAL * median, largest)
    return np.asarray(best_of_tiles(energy, max(LEAST_TILE, round(TILE * diameter)), SHARE) | unusual)


def best_of_tiles(values: Float32, side: int, share: float) -> NDArray[np.bool_]:
    """Mark the highest pixels of each tile.

    Parameters
    ----------
    values
        float32 `(y, x)`.
    side
        Of a tile, pixels.
    share
        Of the pixels of a tile, in (0, 1].
    """
    height, width = values.shape
    filled = np.pad(values, ((0, -height % side), (0, -width % side)), constant_values=-np.inf)
    tiles = filled.reshape(filled.shape[0] // side, side, filled.shape[1] // side, side).swapaxes(1, 2)
    flat = tiles.reshape(-1, side * side)
    rank = side * side - max(1, round(share * side * side))
    least = np.partition(flat, rank, axis=1)[:, rank]
    marked = (flat >= least[:, None]).reshape(tiles.shape).swapaxes(1, 2).reshape(filled.shape)
    return np.asarray(marked[:height, :width] & np.isfinite(values))


def extreme_scores(
    responses: Responses, window: Window, looked: NDArray[np.bool_] | None = None
) -> tuple[Extremes, Extremes]:
    """Highest and lowest score over all entries; over the means of groups for a bank that has groups.

    Parameters
    ----------
    responses
        From `match`.
    window
        Rows and columns to look at, pixels.
    looked
        bool, of the shape of the window: pixels to look at. Default all.

    Returns
    -------
    highest, lowest
        The second of scores times -1: what a search for the opposite contrast would see.
    """
    flat, entries = responses.maps.reshape(-1, responses.maps.shape[2]), responses.entries
    compared = entries.weights[: entries.half] if entries.groups is None else entries.groups.means
    shape = (window[0].stop - window[0].start, window[1].stop - window[1].start)
    signs, spread = np.array([[1], [-1]], np.float32), responses.spread.ravel()
    size = shape[0] * shape[1]
    score, row = np.full((2, size), -np.inf, np.float32), np.zeros((2, size), np.int32)
    taken, step = np.arange(size) if looked is None else np.flatnonzero(looked), 16 * BLOCK_POINTS
    values = np.empty((min(step, len(taken)), flat.shape[1]), np.float32)
    scores, rows = np.empty((2, len(values)), np.float32), np.zeros((2, len(values)), np.int32)
    for start in range(0, len(taken), step):
        some = taken[start : start + step]
        y, x = np.divmod(some, shape[1])
        where = (y + window[0].start) * responses.spread.shape[1] + x + window[1].start
        take_rows(flat, where, values)
        for part, one, two in products(values[: len(some)], compared, entries.odd):
            extremes(one, two, *scores[:, part], *rows[:, part])
        score[:, some] = scores[:, : len(some)] * signs / spread[where]
        row[:, some] = rows[:, : len(some)]
    high, low = (Extremes(score[i].reshape(shape), row[i].reshape(shape)) for i in range(2))
    return high, low
