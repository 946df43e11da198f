"""Where a look at every template is worth it.

All entries at all pixels would be most of a search's cost, and all but a few pixels hold nothing. Three steps leave
ever fewer of them: the energy of the maps, which is the mean square of all scores and costs one pass; the means of a
few groups of alike entries; and those of many. Whole scores are then computed at the peaks of what is left. Every step
keeps a share of each small tile, so that a bright corner does not take the places of all others, and treats both
signs alike, so that decoys are found as picks are.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pickcal.picking.entries import BLOCK_POINTS, products, unit
from pickcal.picking.filters import Float32
from pickcal.picking.kernels import extremes, take_rows, weighted_squares
from pickcal.picking.matching import Responses

TILE = 16
"""Side of a tile, pixels of the search grid."""
SHARES = (0.2, 0.08)
"""Pixels of a tile that the energy, and then the coarse groups, leave."""
SURROUNDINGS = 9
"""Side of the square, pixels, whose mean a score is held against."""
ROUGH = 48
"""Images that the coarse groups are compared by."""

Window = tuple[slice, slice]


@dataclass(frozen=True)
class Extremes:
    """Best scores of one sign on a window.

    Attributes
    ----------
    score
        float32 `(y, x)`: score times the sign; -inf at pixels that were not looked at.
    row
        int32 `(y, x)`: whose it is: a fine group, or an entry of a bank without groups; numbers from their count on
        are half-turns of the first ones.
    """

    score: Float32
    row: NDArray[np.int32]


def extreme_scores(responses: Responses, window: Window) -> tuple[Extremes, Extremes]:
    """Highest and lowest score over all entries; over the means of groups for a bank that has groups.

    Parameters
    ----------
    responses
        From `match`.
    window
        Rows and columns to look at, pixels.

    Returns
    -------
    highest, lowest
        The second of scores times -1: what a search for the opposite contrast would see.
    """
    shape = (window[0].stop - window[0].start, window[1].stop - window[1].start)
    looked, entries = np.ones(shape, dtype=bool), responses.entries
    if entries.groups is None:
        return _extremes_at(responses, entries.weights[: entries.half], window, looked)
    if 0 not in shape:
        looked = best_of_tiles(energy_map(responses, window), looked, SHARES[0])
        both = _extremes_at(responses, entries.groups.coarse, window, looked, ROUGH)
        looked = best_of_tiles(_outstanding(both, looked), looked, SHARES[1])
    return _extremes_at(responses, entries.groups.fine, window, looked)


def energy_map(responses: Responses, window: Window) -> Float32:
    """Squared values of the maps over the squared spread, weighted by the root of what each image counts."""
    out = np.empty((window[0].stop - window[0].start, window[1].stop - window[1].start), np.float32)
    origin = (np.array([window[0].start]), np.array([window[1].start]))
    weighted_squares(responses.maps, np.sqrt(responses.entries.energy), *origin, out)
    return np.asarray(out / np.square(responses.spread[window]), dtype=np.float32)


def best_of_tiles(values: Float32, looked: NDArray[np.bool_], share: float) -> NDArray[np.bool_]:
    """Mark the highest pixels of each tile.

    Parameters
    ----------
    values
        float32 `(y, x)`.
    looked
        bool `(y, x)`: pixels that may be marked.
    share
        Of the pixels of a tile, in (0, 1].
    """
    height, width = values.shape
    pads = ((0, -height % TILE), (0, -width % TILE))
    filled = np.pad(np.where(looked, values, -np.inf), pads, constant_values=-np.inf)
    tiles = filled.reshape(filled.shape[0] // TILE, TILE, filled.shape[1] // TILE, TILE).swapaxes(1, 2)
    flat = tiles.reshape(-1, TILE * TILE)
    rank = TILE * TILE - max(1, round(share * TILE * TILE))
    least = np.partition(flat, rank, axis=1)[:, rank]
    marked = (flat >= least[:, None]).reshape(tiles.shape).swapaxes(1, 2).reshape(filled.shape)
    return np.asarray(marked[:height, :width] & looked)


def _outstanding(both: tuple[Extremes, Extremes], looked: NDArray[np.bool_]) -> Float32:
    """How far scores of either sign stand above their mean about: near ice all are high, a particle yet higher."""
    share = np.maximum(ndimage.uniform_filter(looked.astype(np.float32), SURROUNDINGS, mode="constant"), 1e-6)
    above = []
    for scores in (one.score for one in both):
        total = ndimage.uniform_filter(np.where(looked, scores, np.float32(0)), SURROUNDINGS, mode="constant")
        above.append(scores - total / share)
    return np.asarray(np.maximum(*above), dtype=np.float32)


def _extremes_at(
    responses: Responses, compared: Float32, window: Window, looked: NDArray[np.bool_], images: int | None = None
) -> tuple[Extremes, Extremes]:
    """Extreme scores at some pixels of a window, by those of the images alone that count most, or by all (None)."""
    flat, entries = responses.maps.reshape(-1, responses.maps.shape[2]), responses.entries
    even, odd = entries.leading(flat.shape[1] if images is None else images)
    weights = unit(compared[:, entries.columns(even, odd)])
    gap = flat.shape[1] - entries.odd - even
    signs, spread = np.array([[1], [-1]], np.float32), responses.spread.ravel()
    score, row = np.full((2, looked.size), -np.inf, np.float32), np.zeros((2, looked.size), np.int32)
    taken, step = np.flatnonzero(looked), 16 * BLOCK_POINTS
    values = np.empty((min(step, len(taken)), even + odd), np.float32)
    scores, rows = np.empty((2, len(values)), np.float32), np.zeros((2, len(values)), np.int32)
    for start in range(0, len(taken), step):
        some = taken[start : start + step]
        y, x = np.divmod(some, looked.shape[1])
        where = (y + window[0].start) * responses.spread.shape[1] + x + window[1].start
        take_rows(flat, where, even, gap, values)
        for part, one, two in products(values[: len(some)], weights, odd):
            extremes(one, two, *scores[:, part], *rows[:, part])
        score[:, some] = scores[:, : len(some)] * signs / spread[where]
        row[:, some] = rows[:, : len(some)]
    high, low = (Extremes(score[i].reshape(looked.shape), row[i].reshape(looked.shape)) for i in range(2))
    return high, low
