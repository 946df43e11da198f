"""From a coarse peak to position, template and angle, all finer than their grids."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pickcal.picking.bank import Bank
from pickcal.picking.entries import Entries
from pickcal.picking.filters import Float32
from pickcal.picking.interpolation import RADIUS, parabola_top, peak_of_patch, value_of_patch
from pickcal.picking.kernels import patch_products
from pickcal.picking.matching import Responses
from pickcal.picking.peaks import quadratic_peak, thin_out

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


def refine(
    responses: Responses, bank: Bank, y: Indices, x: Indices, weights: Float32, sign: float, apart: float = 0.0
) -> Refined:
    """Refine peaks: the highest place near by of what they are peaks of, the best entry there, its place and angle.

    Parameters
    ----------
    responses, bank
        The micrograph's scores and the bank they are of.
    y, x
        Coarse peaks, pixels.
    weights
        float32 `(points, k)`: the combination of images whose score has the peak: an entry's, or like one.
    sign
        +1 for maxima, -1 for minima of the score.
    apart
        Of peaks whose best entries score nearer to each other than this, pixels, only the best goes on. Default 0:
        all do, in their order.
    """
    height, width = responses.spread.shape
    reach = RADIUS + 1
    y, x = np.clip(y, reach, height - 1 - reach), np.clip(x, reach, width - 1 - reach)
    rough_y, rough_x, _ = quadratic_peak(_patches(responses, y, x, weights, sign, 1))
    judge = responses.whole or responses
    values = judge.values_between(y + rough_y, x + rough_x)
    product, entry = judge.entries.best_of(values, sign)
    there = product / responses.spread_between(y + rough_y, x + rough_x)
    if apart > 0:
        best = thin_out(y + rough_y, x + rough_x, there, apart)
        y, x, entry, there, values = y[best], x[best], entry[best], there[best], values[best]
        rough_y, rough_x = rough_y[best], rough_x[best]
    turn, gain = _between_angles(judge.entries, bank, values, entry, sign)
    patches = _patches(responses, y, x, responses.entries.weights[entry], sign, RADIUS)
    fine_y, fine_x, score = peak_of_patch(patches)
    if responses.whole is not None:  # what all images say there, and what the maps say of the last step
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
    weights = responses.entries.weights[entry[roomy]]
    out[:, roomy] = peak_of_patch(_patches(responses, y[roomy], x[roomy], weights, sign, RADIUS))
    out[2, ~roomy] = sign * responses.scores_of(entry[~roomy], y[~roomy], x[~roomy])
    return out[0], out[1], out[2]


def _patches(responses: Responses, y: Indices, x: Indices, weights: Float32, sign: float, radius: int) -> Float32:
    """Scores of one combination of images per point on a square around it, times the sign."""
    out = np.empty((len(y), 2 * radius + 1, 2 * radius + 1), dtype=np.float32)
    patch_products(responses.maps, np.float32(sign) * weights, y, x, out)
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
