"""One micrograph from image to picks and decoys."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft as sf
from numpy.typing import NDArray

from pickcal.picking.bank import Bank
from pickcal.picking.ctf import Ctf
from pickcal.picking.filters import Float32, RadialFilter, band_pass
from pickcal.picking.matching import Responses, extreme_scores, match
from pickcal.picking.peaks import local_maxima, quadratic_peak, thin_out
from pickcal.picking.power import PowerMaps, peak_power, power_maps, sample

REFINE_BYTES = 64 * 2**20


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
        The part `(y, x)` of the maps that is micrograph rather than padding.
    pixel_size
        Å per pixel.
    """

    responses: Responses
    maps: PowerMaps
    valid: tuple[slice, slice]
    pixel_size: float


def search(
    image: Float32,
    pixel_size: float,
    bank: Bank,
    parameters: SearchParameters,
    ctf: Ctf | None = None,
    whitening: RadialFilter | None = None,
) -> tuple[Picks, Picks]:
    """Find picks and decoys of one micrograph.

    Decoys are the minima of the same score maps: the picks of the same search on the contrast-inverted micrograph.

    Parameters
    ----------
    image
        Working image `(y, x)`, any grey scale.
    pixel_size
        Å per pixel, that of the bank.
    bank
        Templates or blobs.
    parameters
        Filters and distances.
    ctf
        The micrograph's CTF to give to the templates, or None.
    whitening
        Filter that makes the noise white, or None.

    Returns
    -------
    picks, decoys
        Decoys' `ncc` is the score on the inverted micrograph.
    """
    prepared = prepare(image, pixel_size, bank, parameters, ctf, whitening)
    border = 0.5 * parameters.diameter / pixel_size
    stride = max(1, int(parameters.low_pass / (2 * pixel_size) + 1e-6))
    grid = (
        _grid(prepared.valid[0].start, image.shape[0], border, stride),
        _grid(prepared.valid[1].start, image.shape[1], border, stride),
    )
    highest, lowest = extreme_scores(prepared.responses, *grid)
    picks = _collect(highest, 1.0, grid, prepared, bank, parameters)
    return picks, _collect(-lowest, -1.0, grid, prepared, bank, parameters)


def prepare(
    image: Float32,
    pixel_size: float,
    bank: Bank,
    parameters: SearchParameters,
    ctf: Ctf | None = None,
    whitening: RadialFilter | None = None,
) -> Prepared:
    """Make the maps of one micrograph from which all its scores are read; parameters as of `search`."""
    padded, valid = _pad(image, int(np.ceil(2 * bank.mask_radius / pixel_size)))
    shape = (padded.shape[0], padded.shape[1])
    raw = sf.rfft2(padded)
    filtered = raw * band_pass(shape, pixel_size, parameters.low_pass, parameters.high_pass)
    band = sf.irfft2(filtered, shape)
    level = padded - sf.irfft2(raw * band_pass(shape, pixel_size, pixel_size, parameters.high_pass), shape)
    maps = power_maps(band, level, valid, pixel_size, parameters.diameter_min, parameters.diameter_max)
    if whitening is not None:
        filtered = filtered * whitening.on_grid(shape, pixel_size)
    responses = match(filtered, shape, bank, parameters.low_pass, sign=parameters.sign, ctf=ctf, whitening=whitening)
    return Prepared(responses, maps, valid, pixel_size)


def _pad(image: Float32, margin: int) -> tuple[Float32, tuple[slice, slice]]:
    """Mirror the image at its borders so that the Fourier transform sees no edges."""
    sizes = [sf.next_fast_len(n + margin, real=True) for n in image.shape]
    pads = [((size - n) // 2, size - n - (size - n) // 2) for n, size in zip(image.shape, sizes, strict=True)]
    padded = np.pad(np.asarray(image, dtype=np.float32), pads, mode="symmetric")
    padded -= image.mean(dtype=np.float64).astype(np.float32)
    valid = tuple(slice(pad[0], pad[0] + n) for n, pad in zip(image.shape, pads, strict=True))
    return padded, (valid[0], valid[1])


def _grid(start: int, length: int, border: float, stride: int) -> NDArray[np.intp]:
    """Lay a coarse grid one step beyond the border, where a peak may be refined back inside."""
    first = start + max(2, int(np.floor(border)) - stride)
    last = start + length - 1 - max(2, int(np.floor(border)) - stride)
    return np.arange(first, last + 1, stride, dtype=np.intp)


def _collect(
    scores: Float32,
    sign: float,
    grid: tuple[NDArray[np.intp], NDArray[np.intp]],
    prepared: Prepared,
    bank: Bank,
    parameters: SearchParameters,
) -> Picks:
    rows, columns = grid
    valid, pixel_size = prepared.valid, prepared.pixel_size
    coarse_y, coarse_x = local_maxima(scores)
    reach = max(1, int(rows[1] - rows[0])) if len(rows) > 1 else 1
    y, x, ncc, entry = refine(prepared.responses, rows[coarse_y], columns[coarse_x], sign, reach)
    py, px = y - valid[0].start, x - valid[1].start
    border = 0.5 * parameters.diameter / pixel_size
    height, width = (part.stop - part.start for part in valid)
    inside = np.flatnonzero((py >= border) & (px >= border) & (py <= height - 1 - border) & (px <= width - 1 - border))
    kept = inside[thin_out(y[inside], x[inside], ncc[inside], parameters.min_distance / pixel_size)]
    capped = len(kept) > parameters.max_picks
    kept = kept[: parameters.max_picks]
    return picks_at(prepared, bank, y[kept], x[kept], ncc[kept], entry[kept], capped)


def picks_at(
    prepared: Prepared,
    bank: Bank,
    y: NDArray[np.float64],
    x: NDArray[np.float64],
    ncc: NDArray[np.float64],
    entry: NDArray[np.intp],
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
        angle=bank.angle[entry],
        capped=capped,
    )


def refine(
    responses: Responses, y: NDArray[np.intp], x: NDArray[np.intp], sign: float, reach: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64], NDArray[np.intp]]:
    """Refine coarse peaks: best entry, best working pixel near by, best entry there, sub-pixel position.

    Parameters
    ----------
    responses
        From `match`.
    y, x
        Coarse peaks, pixels.
    sign
        +1 for maxima, -1 for minima of the scores.
    reach
        How far from the coarse peak to look, pixels.

    Returns
    -------
    y, x, score, entry
        Sub-pixel positions, the score at the peak of the fitted paraboloid (times `sign`), the bank entry.
    """
    count, height, width = responses.maps.shape
    out_y, out_x = y.astype(np.float64), x.astype(np.float64)
    score, entry = np.empty(len(y)), np.empty(len(y), dtype=np.intp)
    side = 2 * reach + 1
    block = max(1, REFINE_BYTES // (4 * max(len(responses.weights), count * side * side)))
    offset_y, offset_x = np.mgrid[-reach : reach + 1, -reach : reach + 1]
    for start in range(0, len(y), block):
        part = slice(start, start + block)
        best = np.argmax(sign * responses.scores(y[part], x[part]), axis=1)
        near_y = np.clip(y[part][:, None, None] + offset_y, 1, height - 2)
        near_x = np.clip(x[part][:, None, None] + offset_x, 1, width - 2)
        near = sign * responses.scores_of(best, near_y, near_x)
        peak = near.reshape(len(near), -1).argmax(axis=1)
        fine_y = near_y.reshape(len(near), -1)[np.arange(len(near)), peak]
        fine_x = near_x.reshape(len(near), -1)[np.arange(len(near)), peak]
        best = np.argmax(sign * responses.scores(fine_y, fine_x), axis=1)
        ring_y, ring_x = np.mgrid[-1:2, -1:2]
        patch = sign * responses.scores_of(best, fine_y[:, None, None] + ring_y, fine_x[:, None, None] + ring_x)
        dy, dx, top = quadratic_peak(patch)
        out_y[part], out_x[part] = fine_y + dy, fine_x + dx
        score[part], entry[part] = np.minimum(top, 1.0), best
    return out_y, out_x, score, entry
