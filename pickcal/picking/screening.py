"""Where a look at every template is worth it.

All entries at all pixels would be most of a search's cost, and all but a few pixels hold nothing. Three steps leave
ever fewer of them: the energy of the maps, which is the mean square of all scores and costs one pass; the means of a
few groups of alike entries; and those of many. Whole scores are then computed at the peaks of what is left. Every step
keeps a share of each small tile, so that a bright corner does not take the places of all others, and treats both
signs alike, so that decoys are found as picks are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pickcal.picking.filters import Float32
from pickcal.picking.kernels import extremes, take_rows, weighted_squares
from pickcal.picking.matching import BLOCK_POINTS, Responses, products, unit

TILE = 24
"""Side of a tile, pixels of the search grid."""
SHARES = (0.4, 0.12)
"""Pixels of a tile that the energy, and then the coarse groups, leave."""
SURROUNDINGS = 9
"""Side of the square, pixels, whose mean a score is held against."""
ROUGH = 48
"""Images that the coarse groups are compared by."""

Window = tuple[slice, slice]


def extreme_scores(responses: Responses, window: Window) -> tuple[Float32, Float32]:
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
        float32, the window's shape; -inf and +inf at pixels where a bank with groups was not looked at.
    """
    shape = (window[0].stop - window[0].start, window[1].stop - window[1].start)
    looked, entries = np.ones(shape, dtype=bool), responses.entries
    if entries.groups is None:
        return _extremes_at(responses, entries.weights[: entries.half], window, looked)
    if 0 in shape:
        return np.empty(shape, np.float32), np.empty(shape, np.float32)
    looked = best_of_tiles(energy_map(responses, window), looked, SHARES[0])
    highest, lowest = _extremes_at(responses, entries.groups.coarse, window, looked, ROUGH)
    outstanding = np.maximum(_above_surroundings(highest, looked), _above_surroundings(-lowest, looked))
    looked = best_of_tiles(outstanding, looked, SHARES[1])
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


def _above_surroundings(scores: Float32, looked: NDArray[np.bool_]) -> Float32:
    """Scores less their mean about: near ice all are high, and yet a particle may stand out."""
    share = ndimage.uniform_filter(looked.astype(np.float32), SURROUNDINGS, mode="constant")
    total = ndimage.uniform_filter(np.where(looked, scores, np.float32(0)), SURROUNDINGS, mode="constant")
    return np.asarray(scores - total / np.maximum(share, np.float32(1e-6)), dtype=np.float32)


def _extremes_at(
    responses: Responses, weights: Float32, window: Window, looked: NDArray[np.bool_], images: int | None = None
) -> tuple[Float32, Float32]:
    """Extreme scores at some pixels of a window, by those of the images alone that count most, or by all (None)."""
    highest, lowest = np.full(looked.shape, -np.inf, np.float32), np.full(looked.shape, np.inf, np.float32)
    rows, columns = np.nonzero(looked)
    where = (rows + window[0].start) * responses.spread.shape[1] + columns + window[1].start
    flat, entries = responses.maps.reshape(-1, responses.maps.shape[2]), responses.entries
    even, odd = entries.leading(flat.shape[1] if images is None else images)
    weights = unit(weights[:, entries.columns(even, odd)])
    gap = flat.shape[1] - entries.odd - even
    spread = responses.spread.ravel()[where]
    high, low = np.empty(len(where), np.float32), np.empty(len(where), np.float32)
    step = 16 * BLOCK_POINTS
    values = np.empty((min(step, len(where)), even + odd), np.float32)
    for start in range(0, len(where), step):
        some = where[start : start + step]
        take_rows(flat, some, even, gap, values)
        for part, one, two in products(values[: len(some)], weights, odd):
            extremes(one, two, high[start:][part], low[start:][part])
    highest[rows, columns], lowest[rows, columns] = high / spread, low / spread
    return highest, lowest
