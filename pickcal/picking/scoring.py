"""Both scores at given coordinates: exactly there, or at the best place within a radius.

The maps are those of `search`, and so are the units: a pick that another program found gets the scores that ours get.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from pickcal.picking.bank import Bank
from pickcal.picking.ctf import Ctf
from pickcal.picking.filters import Float32, RadialFilter
from pickcal.picking.matching import Responses
from pickcal.picking.refine import peak_near
from pickcal.picking.search import Picks, Prepared, SearchParameters, picks_at, prepare

Floats = NDArray[np.float64]

LEAST_DECOYS = 50
BLOCK_POINTS, BLOCK_PLACES = 4096, 2**20
COLUMNS = ("x", "y", "ncc", "power", "peak_power", "background", "background_variance", "template", "angle")


def score_at(
    image: Float32,
    pixel_size: float,
    bank: Bank,
    parameters: SearchParameters,
    x: NDArray[np.floating],
    y: NDArray[np.floating],
    radius: float,
    ctf: Ctf | None = None,
    whitening: RadialFilter | None = None,
    *,
    seed: int | Sequence[int] = 0,
) -> tuple[Picks, Picks]:
    """Score given points of one micrograph, and decoys: what picks that know nothing would score.

    Every point moves to the best place within the radius and gets the score of the best entry exactly there (see
    `scores_at`). Places are the point itself, the best working pixel in the disc, and the peak of
    that entry's score within a pixel of it, approached no further than to the disc's edge: no score is below that of
    the point or of any pixel in the disc. With radius 0, or so small a radius (below 0.71 working
    pixels) that no pixel lies within it, points stay where they are.

    `search` also looks between the angles of the bank: at its own picks' positions the scores given here are lower, by
    0.003 in the mean and at most 0.04 on simulated micrographs (20 Å, 5 degrees).

    Parameters
    ----------
    image
        Working image `(y, x)`, any grey scale.
    pixel_size
        Å per pixel of the image; the bank's is `bank.ratio` times that.
    bank, parameters
        Templates or blobs; filters, sign and diameter. `min_distance` and `max_picks` do not matter.
    x, y
        Points, Å from the centre of the first pixel, shape `(n,)`.
    radius
        How far from its point a pick may lie, Å; 0 for exactly there.
    ctf, whitening
        See `search`.
    seed
        Of the decoys' positions.

    Returns
    -------
    points, decoys
        `points` are n, in the order given, best score and all that belongs to it at its place. A point outside the
        image, or without coordinates, keeps its position and gets NaN and template -1. Up to the border the scores
        are those of the image mirrored there. `decoys` are as many, at least 50, at random positions not nearer to
        the border than half a diameter, scored on the inverted micrograph within the same radius.
    """
    prepared = prepare(image, pixel_size, bank, parameters, ctf, whitening)
    count = max(len(x), LEAST_DECOYS)
    decoy_x, decoy_y = random_positions((image.shape[0], image.shape[1]), pixel_size, parameters.diameter, count, seed)
    return _scored(prepared, bank, x, y, radius, 1.0), _scored(prepared, bank, decoy_x, decoy_y, radius, -1.0)


def random_positions(
    shape: tuple[int, int], pixel_size: float, diameter: float, count: int, seed: int | Sequence[int]
) -> tuple[Float32, Float32]:
    """Draw `x` and `y` (Å) evenly over an image `(y, x)` less half a diameter (Å) at its borders."""
    rng = np.random.default_rng(seed)
    places = []
    for length in (shape[1], shape[0]):
        side = (length - 1) * pixel_size
        border = min(0.5 * diameter, 0.5 * side)
        places.append(rng.uniform(border, side - border, count).astype(np.float32))
    return places[0], places[1]


def _scored(
    prepared: Prepared, bank: Bank, x: NDArray[np.floating], y: NDArray[np.floating], radius: float, sign: float
) -> Picks:
    x, y = np.asarray(x, dtype=np.float32), np.asarray(y, dtype=np.float32)
    rows, columns = prepared.valid
    map_y = y.astype(np.float64) / prepared.pixel_size + rows.start
    map_x = x.astype(np.float64) / prepared.pixel_size + columns.start
    reach = radius / prepared.pixel_size
    out = _empty(x, y)
    unit = prepared.working / prepared.pixel_size
    inside = _inside(map_y - rows.start, prepared.last[0], unit) & _inside(
        map_x - columns.start, prepared.last[1], unit
    )
    for part in _blocks(np.flatnonzero(inside), reach):
        best = best_near(prepared.responses, map_y[part], map_x[part], sign, reach, prepared.valid)
        found = picks_at(prepared, bank, *best)
        stayed = (best[0] == map_y[part]) & (best[1] == map_x[part])
        for name in COLUMNS:
            getattr(out, name)[part] = getattr(found, name)
        out.x[part[stayed]], out.y[part[stayed]] = x[part[stayed]], y[part[stayed]]
    return out


def _inside(places: Floats, last: float, unit: float) -> NDArray[np.bool_]:
    """Whether positions lie in the image: the last working pixel may stand for up to a whole pixel of the source.

    Positions count from the image's first pixel; its last pixel and the size of a working pixel are in the same unit.
    """
    return np.asarray((places >= -0.5 * unit) & (places < last + unit))


def _empty(x: Float32, y: Float32) -> Picks:
    nothing = {
        name: np.full(len(x), np.nan, dtype=np.float32) for name in COLUMNS if name not in ("x", "y", "template")
    }
    return Picks(x=x.copy(), y=y.copy(), template=np.full(len(x), -1, dtype=np.int32), capped=False, **nothing)


def _blocks(rows: NDArray[np.intp], reach: float) -> Iterator[NDArray[np.intp]]:
    """Split points so that the discs of a block are not too many pixels."""
    size = min(BLOCK_POINTS, max(1, int(BLOCK_PLACES / (2 * reach + 2) ** 2)))
    return (rows[start : start + size] for start in range(0, len(rows), size))


def best_near(
    responses: Responses, y: Floats, x: Floats, sign: float, radius: float, valid: tuple[slice, slice]
) -> tuple[Floats, Floats, Floats, NDArray[np.intp]]:
    """Find the best score of any entry within a disc about each point.

    Parameters
    ----------
    responses
        From `match`.
    y, x
        Points on the maps, pixels, within the valid part.
    sign
        +1 for maxima, -1 for minima of the scores.
    radius
        Pixels.
    valid
        Part of the maps in which pixels and refined positions lie.

    Returns
    -------
    y, x, score, entry
        Positions (the point itself where no place is better), score there times `sign`, entry of the bank.
    """
    score, entry = scores_at(responses, y, x, sign)
    if radius == 0 or not len(y):
        return y, x, score, entry
    rows, fine_y, fine_x, best = _best_pixels(responses, y, x, sign, radius, valid)
    dy, dx, _ = peak_near(responses, fine_y, fine_x, best, sign)
    step = _step(fine_y - y[rows], fine_x - x[rows], dy, dx, radius)
    step = np.minimum(step, np.minimum(_step_within(fine_y, dy, valid[0]), _step_within(fine_x, dx, valid[1])))
    y, x = y.copy(), x.copy()
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        there_y, there_x = fine_y + share * step * dy, fine_x + share * step * dx
        top, best = scores_at(responses, there_y, there_x, sign)
        better = top > score[rows]
        chosen = rows[better]
        y[chosen], x[chosen] = there_y[better], there_x[better]
        score[chosen], entry[chosen] = top[better], best[better]
    return y, x, score, entry


def _best_pixels(
    responses: Responses, y: Floats, x: Floats, sign: float, radius: float, valid: tuple[slice, slice]
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.intp], NDArray[np.intp]]:
    """Best pixel in each disc that holds one: index of the point, `y` and `x` of the pixel, best entry there."""
    reach = int(radius + 0.5)
    offset_y, offset_x = (grid.ravel() for grid in np.mgrid[-reach : reach + 1, -reach : reach + 1])
    near = np.hypot(offset_y, offset_x) <= radius + np.sqrt(0.5)
    near_y = np.rint(y).astype(np.intp)[:, None] + offset_y[near]
    near_x = np.rint(x).astype(np.intp)[:, None] + offset_x[near]
    inside = np.hypot(near_y - y[:, None], near_x - x[:, None]) <= radius
    for places, part in ((near_y, valid[0]), (near_x, valid[1])):
        inside &= (places >= part.start) & (places < part.stop)
    rows = np.flatnonzero(inside.any(axis=1))
    near_y, near_x, inside = near_y[rows], near_x[rows], inside[rows]
    width = responses.spread.shape[1]
    pixels, which = np.unique(near_y[inside] * width + near_x[inside], return_inverse=True)
    scores, entries = _best_entries(responses, pixels // width, pixels % width, sign)
    values = np.full(inside.shape, -np.inf, dtype=np.float32)
    values[inside] = scores[which]
    place = (np.arange(len(rows)), values.argmax(axis=1))
    indices = np.zeros(inside.shape, dtype=np.intp)
    indices[inside] = which
    return rows, near_y[place], near_x[place], entries[indices[place]]


def _best_entries(
    responses: Responses, y: NDArray[np.intp], x: NDArray[np.intp], sign: float
) -> tuple[Float32, NDArray[np.intp]]:
    product, entry = responses.entries.best_of(responses.values(y, x), sign, given=True)
    return product / responses.spread[y, x], entry


def _step(from_y: Floats, from_x: Floats, dy: Floats, dx: Floats, radius: float) -> Floats:
    """How much of a step, at most 1, stays within the disc about the origin when it starts inside."""
    square = dy**2 + dx**2
    along = from_y * dy + from_x * dx
    short = np.maximum(radius**2 - from_y**2 - from_x**2, 0)
    reach = np.sqrt(along**2 + square * short) - along
    return np.asarray(np.where(square > 0, np.minimum(reach / np.where(square > 0, square, 1), 1), 1))


def _step_within(start: NDArray[np.intp], step: Floats, valid: slice) -> Floats:
    """How much of a step, at most 1, stays between the centres of the first and the last valid pixel."""
    room = np.where(step > 0, valid.stop - 1 - start, start - valid.start)
    return np.asarray(np.minimum(room / np.maximum(np.abs(step), 1e-12), 1))


def scores_at(responses: Responses, y: Floats, x: Floats, sign: float) -> tuple[Floats, NDArray[np.intp]]:
    """Best score over all entries exactly at some points, and the entry.

    The score map of each entry is interpolated (`pickcal.picking.interpolation`), which is linear and so done on the
    few maps of the basis. At the centre of a pixel that is the map's value.

    Parameters
    ----------
    responses
        From `match`.
    y, x
        Points on the maps, pixels.
    sign
        +1 for maxima, -1 for minima of the scores.

    Returns
    -------
    score, entry
        Score times `sign`, at most 1, and index into the bank.
    """
    score, entry = np.empty(len(y)), np.empty(len(y), dtype=np.intp)
    for start in range(0, len(y), BLOCK_POINTS):
        part = slice(start, start + BLOCK_POINTS)
        product, entry[part] = responses.entries.best_of(responses.values_between(y[part], x[part]), sign, given=True)
        score[part] = np.minimum(product / responses.spread_between(y[part], x[part]), 1.0)
    return score, entry
