"""From a coarse peak to position, template and angle, all finer than their grids."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pickcal.picking.bank import Bank
from pickcal.picking.entries import Entries
from pickcal.picking.filters import Float32
from pickcal.picking.interpolation import RADIUS, TAPS, highest_of_patch, parabola_top, peak_of_patch
from pickcal.picking.kernels import best_around, patch_products
from pickcal.picking.matching import Responses
from pickcal.picking.screening import Extremes

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]

NEAR = 3
"""Pixels from a peak within which the best entries are looked for."""
LEAST_GROUP = 0.85
"""Pixels whose best group scores less than this share of the peak's are not looked at."""
TRIED, LEAST = 4, 0.9
"""So many of them have their own peaks compared, if they score at least this share of the best one."""
BLOCK = 1024
"""Peaks that are worked on at once: in noise there are tens of thousands."""


def highest_near(
    responses: Responses, peaks: Extremes, corner: tuple[int, int], y: Indices, x: Indices, sign: float
) -> tuple[Floats, Floats, Float32]:
    """Move coarse peaks to the places where single entries score best.

    Place and entry belong together: the entry that is best at a peak of the groups' means need not be the one whose own
    peak is the highest. The best entries of the pixels about are therefore compared at their own peaks.

    Parameters
    ----------
    responses
        The micrograph's scores.
    peaks, corner
        The score map, of a window whose first pixel `(y, x)` of the maps is `corner`.
    y, x
        Coarse peaks, pixels of the window.
    sign
        +1 for maxima, -1 for minima of the score.

    Returns
    -------
    y, x, score
        Places on the maps, pixels, and the score there times the sign, by what the maps hold.
    """
    found = np.empty((3, len(y)))
    for start in range(0, len(y), BLOCK):
        some = slice(start, start + BLOCK)
        found[:, some] = _highest_near(responses, peaks, corner, y[some], x[some], sign)
    return found[0], found[1], found[2].astype(np.float32)


def _highest_near(
    responses: Responses, peaks: Extremes, corner: tuple[int, int], y: Indices, x: Indices, sign: float
) -> tuple[Floats, Floats, Floats]:
    score, entry, *pixels = best_entries(responses, peaks, corner, y, x, sign)
    best = score[:, :1]
    tried = (entry >= 0) & (score >= best - (1 - LEAST) * np.abs(best))
    rows, columns = (
        np.clip(part[tried] + first, RADIUS, length - 1 - RADIUS)
        for part, first, length in zip(pixels, corner, responses.spread.shape, strict=True)
    )
    patches = _patches(responses, rows, columns, responses.entries.weights[entry[tried]], sign)
    which, heights = np.zeros(entry.shape, np.intp), np.full(entry.shape, -np.inf, np.float32)
    which[tried], heights[tried] = np.arange(len(rows)), highest_of_patch(patches)
    highest = which[np.arange(len(y)), heights.argmax(axis=1)]
    dy, dx, height = peak_of_patch(patches[highest])
    return rows[highest] + dy, columns[highest] + dx, height


def best_at(
    responses: Responses, bank: Bank, y: Floats, x: Floats, sign: float
) -> tuple[Floats, NDArray[np.intp], Float32]:
    """Best entry at places of the maps, between their pixels, and between the bank's angles.

    Returns
    -------
    score, entry, angle
        Whole score times the sign, at most 1; entry of the bank; in-plane rotation, between those of the bank's
        entries, degrees.
    """
    judge = responses.whole or responses
    values = judge.values_between(y, x)
    product, entry = judge.entries.best_of(values, sign)
    turn, gain = _between_angles(judge.entries, bank, values, entry, sign)
    score = np.minimum((product + gain) / responses.spread_between(y, x), 1.0)
    return score, entry, np.asarray((bank.angle[entry] + turn) % 360, dtype=np.float32)


def best_entries(
    responses: Responses, peaks: Extremes, corner: tuple[int, int], y: Indices, x: Indices, sign: float
) -> tuple[Float32, NDArray[np.int32], Indices, Indices]:
    """Best entries at the pixels about each peak, of each pixel the best one of its best group; see `highest_near`.

    Returns
    -------
    score, entry, row, column
        `(points, TRIED)`: the best first, no entry twice; -1 where there are fewer. Pixels are those of the window.
    """
    entries, shape = responses.entries, (len(y), TRIED)
    half = entries.weights[: entries.half]
    members, starts = (np.arange(n, dtype=np.int32) for n in (len(half), len(half) + 1))
    if entries.groups is not None:
        members, starts = entries.groups.members, entries.groups.starts
    score, entry = np.empty(shape, np.float32), np.empty(shape, np.int32)
    row, column = np.zeros(shape, np.intp), np.zeros(shape, np.intp)
    maps = (responses.maps, responses.spread, half, half.shape[1] - entries.odd, members, starts)
    best_around(*maps, peaks.score, peaks.row, corner, y, x, NEAR, LEAST_GROUP, sign, score, entry, row, column)
    if entries.half == len(entries.weights):  # there is no half-turn
        entry[entry >= 0] %= entries.half
    return score, entry, row, column


def peak_near(
    responses: Responses, y: Indices, x: Indices, entry: Indices, sign: float
) -> tuple[Floats, Floats, Floats]:
    """Highest place of one entry's score within a pixel of each point: offsets, pixels, and the score times the sign.

    Points need four pixels between them and the border of the maps; those that have fewer stay where they are.
    """
    height, width = responses.spread.shape
    roomy = (np.minimum(y, x) >= RADIUS) & (y < height - RADIUS) & (x < width - RADIUS)
    out = np.zeros((3, len(y)))
    weights = responses.entries.weights[entry[roomy]]
    out[:, roomy] = peak_of_patch(_patches(responses, y[roomy], x[roomy], weights, sign))
    out[2, ~roomy] = sign * responses.scores_of(entry[~roomy], y[~roomy], x[~roomy])
    return out[0], out[1], out[2]


def _patches(responses: Responses, y: Indices, x: Indices, weights: Float32, sign: float) -> Float32:
    """Scores of one combination of images per point on a square around it, times the sign."""
    out = np.empty((len(y), len(TAPS), len(TAPS)), dtype=np.float32)
    patch_products(responses.maps, np.float32(sign) * weights, y, x, out)
    out /= responses.spread[(y[:, None] + TAPS)[:, :, None], (x[:, None] + TAPS)[:, None, :]]
    return out


def _between_angles(
    entries: Entries, bank: Bank, values: Float32, entry: Indices, sign: float
) -> tuple[Floats, Floats]:
    """Angle from the entry's to the top of the parabola through it and its neighbours, and the rise of the product."""
    neighbours = bank.neighbours()[entry]
    known = (neighbours >= 0).all(axis=1)
    three = np.column_stack([neighbours[:, 0], entry, neighbours[:, 1]])[known]
    low, middle, high = (
        sign * np.einsum("pk,pk->p", values[known], entries.weights[column]).astype(np.float64) for column in three.T
    )
    turn, gain = np.zeros(len(entry)), np.zeros(len(entry))
    offset, gain[known] = parabola_top(low, middle, high)
    turn[known] = offset * bank.step()
    return turn, gain
