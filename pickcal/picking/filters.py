"""Fourier filters: cropping to a working pixel, band-pass, whitening, correlation with small kernels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pickcal.picking.ctf import frequency_grid
from pickcal.picking.fourier import irfft2, rfft, rfft2, transform

Float32 = NDArray[np.float32]

ROWS = 128


@dataclass(frozen=True)
class CropPlan:
    """How an image is brought to the working pixel without moving or stretching it.

    The image is padded to a multiple of `numerator`, Fourier-cropped by `denominator / numerator` and trimmed. The
    working pixel is the same, exactly, in y and x, and the first pixel's centre stays the origin.

    Attributes
    ----------
    numerator, denominator
        Working pixel = source pixel x numerator / denominator.
    padded, cropped
        Shapes `(y, x)` of the padded source and of its Fourier crop, pixels.
    shape
        Valid part of the crop, `(y, x)`, pixels.
    """

    numerator: int
    denominator: int
    padded: tuple[int, int]
    cropped: tuple[int, int]
    shape: tuple[int, int]


def plan_crop(shape: tuple[int, int], source_pixel_size: float, pixel_size: float) -> CropPlan:
    """Choose padding and crop for one image shape.

    Parameters
    ----------
    shape
        Shape `(y, x)` of the source, pixels.
    source_pixel_size, pixel_size
        Source and wished working pixel, Å. The wish is met within 1 %; a coarser source keeps its own pixel.

    Examples
    --------
    >>> plan_crop((4096, 4096), 1.0, 5.0).shape
    (820, 820)
    """
    numerator, denominator = _ratio(pixel_size / source_pixel_size)
    padded = tuple(_padded_length(n, numerator) for n in shape)
    cropped = tuple(n // numerator * denominator for n in padded)
    valid = tuple(-(-n * denominator // numerator) for n in shape)
    return CropPlan(numerator, denominator, (padded[0], padded[1]), (cropped[0], cropped[1]), (valid[0], valid[1]))


def _ratio(wanted: float) -> tuple[int, int]:
    if wanted <= 1:
        return 1, 1
    for denominator in range(1, 51):
        numerator = round(wanted * denominator)
        if not _is_fast(denominator):
            continue
        if numerator >= denominator and abs(numerator / (wanted * denominator) - 1) < 0.01 and _is_fast(numerator):
            return numerator, denominator
    return round(wanted * 50), 50


def _is_fast(length: int) -> bool:
    for prime in (2, 3, 5, 7, 11):
        while length % prime == 0:
            length //= prime
    return length == 1


def _padded_length(length: int, numerator: int) -> int:
    multiple = -(-length // numerator)
    while not _is_fast(multiple) and multiple * numerator < 1.2 * length + 64:
        multiple += 1
    return multiple * numerator


def crop_to_working_pixel(image: Float32, plan: CropPlan) -> Float32:
    """Bring an image to the working pixel: mirror it at its last row and column, and keep its low frequencies.

    Of the mirrored image this is what `scipy.signal.resample` gives along each axis. The centre of the first pixel
    stays where it is, and means are kept.

    Parameters
    ----------
    image
        Source image `(y, x)`.
    plan
        From `plan_crop` for this image's shape.

    Returns
    -------
    ndarray
        float32 of shape `plan.shape`.
    """
    padded, (height, width) = plan.padded, plan.cropped
    rows = np.empty((image.shape[0], width // 2 + 1), dtype=np.complex64)
    # a few rows at a time stay in the processor's cache, and most of their frequencies are not kept
    length = image.shape[1]
    mirrored = np.pad(np.arange(length), (0, padded[1] - length), mode="symmetric")[length:]
    some = np.empty((ROWS, padded[1]), dtype=np.float32)
    found = np.empty((ROWS, padded[1] // 2 + 1), dtype=np.complex64)
    for start in range(0, image.shape[0], ROWS):
        count = min(ROWS, image.shape[0] - start)
        some[:count, :length] = image[start : start + count]
        some[:count, length:] = some[:count, mirrored]
        rfft(some[:count], axis=1, out=found[:count])
        rows[start : start + count] = found[:count, : width // 2 + 1]
    # the transform is linear: mirrored rows have the transforms of their originals
    if padded[0] > image.shape[0]:
        rows = np.pad(rows, ((0, padded[0] - image.shape[0]), (0, 0)), mode="symmetric")
    if width % 2 == 0 and width < padded[1]:
        rows[:, width // 2] *= 2
    transform(rows, axis=0)
    if height < padded[0]:
        half = height // 2
        kept = np.concatenate([rows[: height - half], rows[-half:]]) if half else rows[:1]
        if height % 2 == 0:
            kept[half] += rows[half]
        rows = kept
    out = irfft2(rows, (height, width))[: plan.shape[0], : plan.shape[1]]
    out *= (height * width) / (padded[0] * padded[1])
    return np.asarray(out, dtype=np.float32)


def band_pass(shape: tuple[int, int], pixel_size: float, low_pass: float, high_pass: float | None) -> Float32:
    """Band-pass on the grid of `scipy.fft.rfft2`.

    A raised cosine from 1 to 0 between 90 % and 110 % of the low-pass frequency, and 1 - exp(-(k high_pass)^2 / 2)
    for the high-pass.

    Parameters
    ----------
    shape
        Image shape `(y, x)`, pixels.
    pixel_size
        Å per pixel.
    low_pass, high_pass
        Å; `high_pass` None for no high-pass (the mean is then kept).

    Returns
    -------
    ndarray
        float32, shape `(y, x // 2 + 1)`, in [0, 1].
    """
    ky, kx = frequency_grid(shape, pixel_size)
    k = np.sqrt(ky * ky + kx * kx)
    edge = np.clip((k * low_pass - 0.9) / 0.2, 0, 1)
    out = 0.5 * (1 + np.cos(np.pi * edge))
    if high_pass is not None:
        out *= 1 - np.exp(-0.5 * (k * high_pass) ** 2)
    return np.asarray(out, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class RadialFilter:
    """A filter that depends on spatial frequency alone, as a table.

    Attributes
    ----------
    step
        Spacing of the table, 1/Å.
    gain
        Gain at `0, step, 2 step, ...`.
    """

    step: float
    gain: Float32

    def on_grid(self, shape: tuple[int, int], pixel_size: float) -> Float32:
        """Gain on the grid of `scipy.fft.rfft2` (linear interpolation, constant beyond the table's end)."""
        ky, kx = frequency_grid(shape, pixel_size)
        k = np.sqrt(ky * ky + kx * kx)
        return np.interp(k / self.step, np.arange(self.gain.size), self.gain).astype(np.float32)


def noise_spectrum(image: Float32, pixel_size: float, low_pass: float, tile_px: int) -> Float32:
    """Radial power spectrum of the noise of a micrograph, up to the low-pass.

    The mean over the quietest quarter of half-overlapping, tapered tiles, so that particles, ice and carbon count
    as little as possible.

    Parameters
    ----------
    image
        Working image `(y, x)`.
    pixel_size
        Å per pixel.
    low_pass
        Å; the last ring lies there.
    tile_px
        Side of a tile, pixels, at most the image's.

    Returns
    -------
    ndarray
        float32, rings at multiples of 1 / (tile_px pixel_size) from 0 on, mean 1; ring 0 repeats ring 1.
    """
    step = max(1, tile_px // 2)
    window = np.outer(np.hanning(tile_px), np.hanning(tile_px)).astype(np.float32)
    views = np.lib.stride_tricks.sliding_window_view(image, (tile_px, tile_px))[::step, ::step]
    tiles = views.reshape(-1, tile_px, tile_px)
    ky, kx = frequency_grid((tile_px, tile_px), pixel_size)
    ring = np.rint(np.sqrt(ky * ky + kx * kx) * tile_px * pixel_size).astype(np.int32).ravel()
    last = max(4, int(tile_px * pixel_size / low_pass))
    power = np.square(np.abs(rfft2((tiles - tiles.mean(axis=(1, 2), keepdims=True)) * window)))
    power = power.reshape(len(tiles), -1)
    inside = (ring >= 1) & (ring <= last)
    quiet = np.argsort(power[:, inside].sum(axis=1), kind="stable")[: max(1, len(tiles) // 4)]
    rings = np.bincount(ring, power[quiet].mean(axis=0)) / np.maximum(np.bincount(ring), 1)
    rings = rings[: last + 1]
    rings[0] = rings[1]
    return np.asarray(rings / rings.mean(), dtype=np.float32)


def whitening_filter(spectra: Sequence[Float32], step: float) -> RadialFilter:
    """Filter that makes the noise of a data set white.

    One filter serves all micrographs: a filter of each one's own would follow how crowded it is, and move its scores.

    Parameters
    ----------
    spectra
        From `noise_spectrum`, of some of the micrographs; the median of each ring counts.
    step
        Distance of the rings, 1/Å.

    Returns
    -------
    RadialFilter
        One over the noise amplitude, mean gain 1; constant beyond the last ring.
    """
    rings = np.median(np.stack(spectra), axis=0)
    gain = 1.0 / np.sqrt(np.maximum(rings, 1e-4 * rings.max()))
    return RadialFilter(step, (gain / gain.mean()).astype(np.float32))


def kernel_spectrum(kernel: Float32, shape: tuple[int, int]) -> NDArray[np.complex64]:
    """Conjugated spectrum of a small odd-sized kernel whose centre is the origin.

    Multiplying an image's `rfft2` with it and transforming back correlates the image with the kernel.

    Parameters
    ----------
    kernel
        Shape `(b, b)`, b odd, at most `shape`.
    shape
        Shape `(y, x)` of the images, pixels.
    """
    padded = np.zeros(shape, dtype=np.float32)
    padded[: kernel.shape[0], : kernel.shape[1]] = kernel
    return np.asarray(np.conj(rfft2(padded)) * centre_phase(kernel.shape[-1], shape), dtype=np.complex64)


@lru_cache(maxsize=16)
def centre_phase(box: int, shape: tuple[int, int]) -> NDArray[np.complex64]:
    """Phase that moves the origin from the corner of an odd-sized box to its centre, complex64 `(y, x // 2 + 1)`."""
    half = box // 2
    ky = np.exp(-2j * np.pi * half * np.fft.fftfreq(shape[0]))[:, None]
    kx = np.exp(-2j * np.pi * half * np.fft.rfftfreq(shape[1]))[None, :]
    phase = np.asarray(ky * kx, dtype=np.complex64)
    phase.flags.writeable = False  # it serves every micrograph
    return phase


def soft_disc(box: int, pixel_size: float, inner: float, outer: float) -> Float32:
    """Disc that falls from 1 to 0 as a raised cosine.

    Parameters
    ----------
    box
        Side of the odd-sized box, pixels; the disc's centre is the central pixel.
    pixel_size
        Å per pixel.
    inner, outer
        Radii where the fall begins and ends, Å.
    """
    axis = (np.arange(box) - box // 2) * pixel_size
    radius = np.hypot(axis[:, None], axis[None, :])
    edge = np.clip((radius - inner) / max(outer - inner, 1e-6), 0, 1)
    return np.asarray(0.5 * (1 + np.cos(np.pi * edge)), dtype=np.float32)


def odd_box(radius: float, pixel_size: float) -> int:
    """Side of the smallest odd box that holds a disc of a radius (Å), pixels."""
    return 2 * int(np.ceil(radius / pixel_size)) + 1
