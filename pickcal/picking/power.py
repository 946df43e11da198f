"""Power score: how much density a pick holds, in units of the micrograph's own noise variance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pickcal.picking.filters import Float32, kernel_spectrum, odd_box, soft_disc
from pickcal.picking.fourier import irfft2, rfft2
from pickcal.picking.kernels import largest_square
from pickcal.pixels import median

FINE = 2


@dataclass(frozen=True)
class PowerMaps:
    """Maps from which the power score and its companions are read.

    Attributes
    ----------
    signal
        Band-passed micrograph over its noise standard deviation, float32 `(y, x)`.
    power
        Mean of `signal` squared under the soft disc; 1 is noise.
    background
        Local level that the high-pass removed, in units of the micrograph's standard deviation.
    background_variance
        Variance of `signal` in the ring around the particle, up to twice its radius.
    radius_px
        Outer radius of the disc, pixels.
    deviation
        Noise standard deviation that `signal` is in units of.
    fine
        `signal` on a grid `FINE` times finer, on which narrow peaks show their height; None where its own grid does.
    """

    signal: Float32
    power: Float32
    background: Float32
    background_variance: Float32
    radius_px: float
    deviation: float
    fine: Float32 | None = None


def noise_deviation(image: Float32) -> float:
    """Estimate the noise from the median absolute deviation, which particles and ice hardly move."""
    return max(1.4826 * median(np.abs(image - np.float32(median(image)))), 1e-12)


def power_maps(
    filtered: Float32,
    level: Float32,
    valid: tuple[slice, slice],
    pixel_size: float,
    diameter_min: float,
    diameter_max: float,
) -> PowerMaps:
    """Compute the maps of one micrograph.

    Parameters
    ----------
    filtered
        Band-passed micrograph `(y, x)`, mean 0.
    level
        What the high-pass removed, same shape.
    valid
        The part that is micrograph rather than padding; noise is measured there.
    pixel_size
        Å per pixel.
    diameter_min, diameter_max
        Smallest and largest particle diameter, Å: the disc is 1 up to half the first, 0 from half the second on.
    """
    shape = (filtered.shape[0], filtered.shape[1])
    deviation = noise_deviation(filtered[valid])
    signal = filtered / np.float32(deviation)
    inner, outer = 0.5 * diameter_min, max(0.5 * diameter_max, 0.5 * diameter_min + pixel_size)
    disc, ring = _disc_and_ring(shape, pixel_size, inner, outer)
    square = rfft2(signal * signal)
    power = np.maximum(irfft2(square * disc, shape), 0)
    mean = irfft2(rfft2(signal) * ring, shape)
    variance = np.maximum(irfft2(square * ring, shape) - mean**2, 0)
    return PowerMaps(signal, power, level, variance, outer / pixel_size, deviation)


@lru_cache(maxsize=4)
def _disc_and_ring(
    shape: tuple[int, int], pixel_size: float, inner: float, outer: float
) -> tuple[NDArray[np.complex64], NDArray[np.complex64]]:
    """Spectra of the soft disc and of the ring about it, each of sum 1; one pair serves all micrographs."""
    disc = soft_disc(odd_box(outer, pixel_size), pixel_size, inner, outer)
    wide = odd_box(2 * outer, pixel_size)
    ring = soft_disc(wide, pixel_size, 2 * outer - pixel_size, 2 * outer)
    ring = ring - soft_disc(wide, pixel_size, outer, outer + pixel_size)
    return kernel_spectrum(disc / disc.sum(), shape), kernel_spectrum(ring / ring.sum(), shape)


def sample(image: Float32, y: NDArray[np.floating], x: NDArray[np.floating]) -> Float32:
    """Bilinear values of a map at positions in pixels, float32."""
    return np.asarray(ndimage.map_coordinates(image, np.stack([y, x]), order=1, mode="nearest"), dtype=np.float32)


def peak_power(maps: PowerMaps, y: NDArray[np.floating], x: NDArray[np.floating]) -> Float32:
    """Largest squared value of the signal within the disc of each position (pixels); finds gold and ice crystals."""
    image, factor = (maps.signal, 1) if maps.fine is None else (maps.fine, FINE)
    out = np.empty(len(y), dtype=np.float32)
    rows, columns = (np.rint(np.asarray(axis) * factor).astype(np.intp) for axis in (y, x))
    largest_square(image, rows, columns, maps.radius_px * factor, out)
    return out
