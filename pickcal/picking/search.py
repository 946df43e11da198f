"""One micrograph from image to picks and decoys."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pickcal.picking.bank import Bank
from pickcal.picking.ctf import Ctf
from pickcal.picking.filters import Float32, RadialFilter, band_pass
from pickcal.picking.fourier import Workspace, rfft2
from pickcal.picking.grid import cropped_spectrum, finer_grid, padded, plan_padding, to_grid
from pickcal.picking.matching import Responses, match
from pickcal.picking.peaks import local_maxima, thin_out
from pickcal.picking.power import FINE, PowerMaps, peak_power, power_maps, sample
from pickcal.picking.refine import best_at, highest_near
from pickcal.picking.screening import Extremes, extreme_scores, worth_a_look

CLOSE = 0.45
"""Coarse peaks nearer than this share of the least distance are one."""


@dataclass(frozen=True)
class SearchParameters:
    """What a search needs beside image and bank; lengths in Å.

    Attributes
    ----------
    diameter, diameter_min, diameter_max
        Mean, smallest and largest particle diameter.
    low_pass, high_pass
        Band-pass.
    sign
        -1 for particles darker than the ice, +1 for lighter ones.
    min_distance
        Least distance of two picks.
    max_picks
        Most picks kept.
    """

    diameter: float
    diameter_min: float
    diameter_max: float
    low_pass: float
    high_pass: float
    sign: float
    min_distance: float
    max_picks: int


@dataclass(frozen=True)
class Picks:
    """Picks of one micrograph, best first; positions in Å from the centre of the first pixel."""

    x: Float32
    y: Float32
    ncc: Float32
    power: Float32
    peak_power: Float32
    background: Float32
    background_variance: Float32
    template: NDArray[np.int32]
    angle: Float32
    capped: bool


@dataclass(frozen=True)
class Prepared:
    """Maps of one micrograph, mirrored at its borders.

    Attributes
    ----------
    responses
        All NCC scores.
    maps
        Power score and its companions.
    valid
        The part `(y, x)` of the maps that is micrograph rather than padding; its first pixel is the image's.
    pixel_size
        Å per pixel of the maps.
    working
        Å per pixel of the image.
    last
        Centre of the image's last pixel, `(y, x)`, pixels of the maps from its first.
    """

    responses: Responses
    maps: PowerMaps
    valid: tuple[slice, slice]
    pixel_size: float
    working: float
    last: tuple[float, float]


def search(
    image: Float32,
    pixel_size: float,
    bank: Bank,
    parameters: SearchParameters,
    ctf: Ctf | None = None,
    whitening: RadialFilter | None = None,
    workspace: Workspace | None = None,
) -> tuple[Picks, Picks]:
    """Find picks and decoys of one micrograph.

    Decoys are the minima of the same score maps: the picks of the same search on the contrast-inverted micrograph.

    Parameters
    ----------
    image
        Working image `(y, x)`, any grey scale.
    pixel_size
        Å per pixel of the image; the bank's is `bank.ratio` times that.
    bank
        Templates or blobs.
    parameters
        Filters and distances.
    ctf
        The micrograph's CTF to give to the templates, or None.
    whitening
        Filter that makes the noise white, or None.
    workspace
        Memory for one micrograph after the other; by default new.

    Returns
    -------
    picks, decoys
        Decoys' `ncc` is the score on the inverted micrograph.
    """
    prepared = prepare(image, pixel_size, bank, parameters, ctf, whitening, screened=True, workspace=workspace)
    # a peak may be refined back inside from one step beyond the border
    border = max(0, int(np.floor(0.5 * parameters.diameter / prepared.pixel_size)) - 1)
    window = tuple(slice(part.start + border, max(part.stop - border, part.start + border)) for part in prepared.valid)
    at, diameter = (window[0], window[1]), parameters.diameter / prepared.pixel_size
    # of blobs, which are few, the energy tells what their scores tell
    looked = worth_a_look(prepared.responses, at, diameter) if bank.pairs else None
    highest, lowest = extreme_scores(prepared.responses, at, looked)
    corner = (window[0].start, window[1].start)
    picks = _collect(highest, 1.0, corner, prepared, bank, parameters)
    return picks, _collect(lowest, -1.0, corner, prepared, bank, parameters)


def prepare(
    image: Float32,
    pixel_size: float,
    bank: Bank,
    parameters: SearchParameters,
    ctf: Ctf | None = None,
    whitening: RadialFilter | None = None,
    screened: bool = False,
    workspace: Workspace | None = None,
) -> Prepared:
    """Make the maps of one micrograph from which its scores are read; parameters as of `search` and `match`."""
    padding = plan_padding(
        (image.shape[0], image.shape[1]), int(np.ceil(2 * bank.mask_radius / pixel_size)), bank.ratio
    )
    shape, step = padding.search, pixel_size * bank.ratio[0] / bank.ratio[1]
    raw = cropped_spectrum(rfft2(padded(image, padding)), padding)
    filtered = raw * _band(shape, step, parameters.low_pass, parameters.high_pass)
    maps = power_maps(
        to_grid(filtered, shape),
        to_grid(raw - raw * _band(shape, step, step, parameters.high_pass), shape),
        padding.valid,
        step,
        parameters.diameter_min,
        parameters.diameter_max,
    )
    if bank.ratio != (1, 1):
        maps = replace(maps, fine=finer_grid(filtered, shape, FINE) / np.float32(maps.deviation))
    if whitening is not None:
        filtered = filtered * _gain(whitening, shape, step)
    responses = match(
        filtered,
        shape,
        bank,
        parameters.low_pass,
        sign=parameters.sign,
        ctf=ctf,
        whitening=whitening,
        screened=screened,
        workspace=workspace,
    )
    last = tuple((n - 1) * pixel_size / step for n in image.shape)
    return Prepared(responses, maps, padding.valid, step, pixel_size, (last[0], last[1]))


@lru_cache(maxsize=8)
def _band(shape: tuple[int, int], pixel_size: float, low_pass: float, high_pass: float) -> Float32:
    """Band-pass on a grid; micrographs of a data set have one shape."""
    return band_pass(shape, pixel_size, low_pass, high_pass)


@lru_cache(maxsize=4)
def _gain(whitening: RadialFilter, shape: tuple[int, int], pixel_size: float) -> Float32:
    return whitening.on_grid(shape, pixel_size)


def _collect(
    best: Extremes, sign: float, corner: tuple[int, int], prepared: Prepared, bank: Bank, parameters: SearchParameters
) -> Picks:
    """Turn the peaks of a score map, whose first pixel is `corner` of the maps, into picks."""
    responses, valid, pixel_size = prepared.responses, prepared.valid, prepared.pixel_size
    distance = parameters.min_distance / pixel_size
    y, x = local_maxima(best.score)
    kept = thin_out(y, x, best.score[y, x], CLOSE * distance)
    fine_y, fine_x, score = highest_near(responses, best, corner, y[kept], x[kept], sign)
    py, px = fine_y - valid[0].start, fine_x - valid[1].start
    border = 0.5 * parameters.diameter / pixel_size
    last = [end - border for end in prepared.last]
    inside = np.flatnonzero((py >= border) & (px >= border) & (py <= last[0]) & (px <= last[1]))
    kept = inside[thin_out(py[inside], px[inside], score[inside], distance)]
    ncc, entry, angle = best_at(responses, bank, fine_y[kept], fine_x[kept], sign)
    first = np.argsort(-ncc, kind="stable")[: parameters.max_picks]
    capped, kept = len(kept) > parameters.max_picks, kept[first]
    peaks = (fine_y[kept], fine_x[kept], ncc[first], entry[first])
    return picks_at(prepared, bank, *peaks, angle=angle[first], capped=capped)


def picks_at(
    prepared: Prepared,
    bank: Bank,
    y: NDArray[np.float64],
    x: NDArray[np.float64],
    ncc: NDArray[np.float64],
    entry: NDArray[np.intp],
    *,
    angle: Float32 | None = None,
    capped: bool = False,
) -> Picks:
    """Complete positions and scores to picks: what the power maps say there, template and angle.

    Parameters
    ----------
    prepared, bank
        The micrograph's maps and the bank they were made with.
    y, x
        Positions on the maps (padding included), pixels.
    ncc, entry
        Score, and entry of the bank it is of.
    angle
        In-plane rotation, degrees; None (default) for the entry's own.
    capped
        Whether more were found.
    """
    maps, valid, pixel_size = prepared.maps, prepared.valid, prepared.pixel_size
    return Picks(
        x=((x - valid[1].start) * pixel_size).astype(np.float32),
        y=((y - valid[0].start) * pixel_size).astype(np.float32),
        ncc=ncc.astype(np.float32),
        power=sample(maps.power, y, x),
        peak_power=peak_power(maps, y, x),
        background=sample(maps.background, y, x),
        background_variance=sample(maps.background_variance, y, x),
        template=bank.template[entry],
        angle=bank.angle[entry] if angle is None else angle,
        capped=capped,
    )
