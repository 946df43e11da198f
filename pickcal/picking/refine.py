"""From a coarse peak to position, template and angle, all finer than their grids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pickcal.picking.bank import Bank
from pickcal.picking.filters import Float32
from pickcal.picking.interpolation import RADIUS, parabola_top, peak_of_patch, value_of_patch
from pickcal.picking.kernels import patch_products
from pickcal.picking.matching import Entries, Responses
from pickcal.picking.peaks import quadratic_peak

Floats = NDArray[np.float64]
Indices = NDArray[np.intp]


@dataclass(frozen=True)
class Refined:
    """Peaks of the score.

    Attributes
    ----------
    y, x
        Positions on the maps, pixels.
    score
        Score there times the sign, at most 1.
    entry
        Entry of the bank.
    angle
        In-plane rotation, between those of the bank's entries, degrees.
    """

    y: Floats
    x: Floats
    score: Floats
    entry: Indices
    angle: Float32


def refine(responses: Responses, bank: Bank, y: Indices, x: Indices, entry: Indices, sign: float) -> Refined:
    """Refine peaks: the place of the entry's highest score near by, the best entry there, its place and its angle.

    Parameters
    ----------
    responses, bank
        The micrograph's scores and the bank they are of.
    y, x
        Coarse peaks, pixels.
    entry
        Best entry there.
    sign
        +1 for maxima, -1 for minima of the score.
    """
    height, width = responses.spread.shape
    reach = RADIUS + 1
    y, x = np.clip(y, reach, height - 1 - reach), np.clip(x, reach, width - 1 - reach)
    near = _patches(responses, y, x, entry, sign, 2)
    middle = near[:, 1:4, 1:4].reshape(len(y), 9).argmax(axis=1)
    dy, dx = middle // 3, middle % 3
    points, ring = np.arange(len(y))[:, None, None], np.arange(3)
    rough_y, rough_x, _ = quadratic_peak(
        near[points, (dy[:, None] + ring)[:, :, None], (dx[:, None] + ring)[:, None, :]]
    )
    y, x = y + dy - 1, x + dx - 1
    judge = responses.whole or responses
    values = judge.values_between(y + rough_y, x + rough_x)
    product, entry = judge.entries.best_of(values, sign)
    turn, gain = _between_angles(judge.entries, bank, values, entry, sign)
    patches = _patches(responses, y, x, entry, sign, RADIUS)
    fine_y, fine_x, score = peak_of_patch(patches)
    if responses.whole is not None:  # what all images say there, and what the maps say of the last step
        there = product / responses.spread_between(y + rough_y, x + rough_x)
        score += there - value_of_patch(patches, rough_y, rough_x)
    return Refined(
        y=y + fine_y,
        x=x + fine_x,
        score=np.minimum(score + gain / responses.spread[y, x], 1.0),
        entry=entry,
        angle=np.asarray((bank.angle[entry] + turn) % 360, dtype=np.float32),
    )


def peak_near(
    responses: Responses, y: Indices, x: Indices, entry: Indices, sign: float
) -> tuple[Floats, Floats, Floats]:
    """Highest place of one entry's score within a pixel of each point: offsets, pixels, and the score times the sign.

    Points need four pixels between them and the border of the maps; those that have fewer stay where they are.
    """
    height, width = responses.spread.shape
    roomy = (np.minimum(y, x) >= RADIUS) & (y < height - RADIUS) & (x < width - RADIUS)
    out = np.zeros((3, len(y)))
    out[:, roomy] = peak_of_patch(_patches(responses, y[roomy], x[roomy], entry[roomy], sign, RADIUS))
    out[2, ~roomy] = sign * responses.scores_of(entry[~roomy], y[~roomy], x[~roomy])
    return out[0], out[1], out[2]


def _patches(responses: Responses, y: Indices, x: Indices, entry: Indices, sign: float, radius: int) -> Float32:
    """Scores of one entry per point on a square around it, times the sign."""
    out = np.empty((len(y), 2 * radius + 1, 2 * radius + 1), dtype=np.float32)
    patch_products(responses.maps, np.float32(sign) * responses.entries.weights[entry], y, x, out)
    ring = np.arange(-radius, radius + 1)
    out /= responses.spread[(y[:, None] + ring)[:, :, None], (x[:, None] + ring)[:, None, :]]
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
