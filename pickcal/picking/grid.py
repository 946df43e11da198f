"""The grid on which a search runs: as coarse as the low-pass allows, and commensurate with the working pixel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pickcal.picking.filters import Float32
from pickcal.picking.fourier import irfft2

FINEST = 2.2
"""Search pixels per low-pass: the band-pass ends at 1.1 of its frequency, which must lie below Nyquist's."""
LARGEST_DENOMINATOR = 10


def search_ratio(pixel_size: float, low_pass: float) -> tuple[int, int]:
    """Search pixel over working pixel as a fraction, the largest that resolves the low-pass; at least 1.

    Parameters
    ----------
    pixel_size, low_pass
        Å.

    Examples
    --------
    >>> search_ratio(5.0, 20.0)
    (9, 5)
    """
    wanted = low_pass / (FINEST * pixel_size)
    best = (1, 1)
    for denominator in range(1, LARGEST_DENOMINATOR + 1):
        numerator = int(wanted * denominator)
        while numerator > denominator and not (_smooth(numerator) and _smooth(denominator)):
            numerator -= 1
        if numerator * best[1] > best[0] * denominator and _smooth(denominator):
            best = (numerator, denominator)
    return best


def _smooth(number: int) -> bool:
    for prime in (2, 3, 5):
        while number % prime == 0:
            number //= prime
    return number == 1


@dataclass(frozen=True)
class Padding:
    """How an image is mirrored at its borders and Fourier-cropped to the search grid.

    Attributes
    ----------
    working, search
        Shapes `(y, x)` of the padded image at the working pixel and on the search grid, pixels.
    before
        Working pixels added before the first row and column.
    valid
        The part `(y, x)` of the search grid that is micrograph. Its first pixel and the image's have the same centre.
    """

    working: tuple[int, int]
    search: tuple[int, int]
    before: tuple[int, int]
    valid: tuple[slice, slice]


@lru_cache(maxsize=8)
def plan_padding(shape: tuple[int, int], margin: int, ratio: tuple[int, int]) -> Padding:
    """Choose the padding of an image.

    Parameters
    ----------
    shape
        Shape `(y, x)` of the working image, pixels.
    margin
        Working pixels to add at least along each axis.
    ratio
        Search pixel over working pixel, numerator and denominator.
    """
    numerator, denominator = ratio
    working, search, before, valid = [], [], [], []
    for length in shape:
        multiple = -(-(length + margin) // numerator)
        while not (_smooth(multiple * numerator) and _smooth(multiple * denominator)):
            multiple += 1
        working.append(multiple * numerator)
        search.append(multiple * denominator)
        first = (working[-1] - length) // 2 // numerator
        before.append(first * numerator)
        start = first * denominator
        valid.append(slice(start, start + (length - 1) * denominator // numerator + 1))
    return Padding((working[0], working[1]), (search[0], search[1]), (before[0], before[1]), (valid[0], valid[1]))


def padded(image: Float32, padding: Padding) -> Float32:
    """Mirror an image at its borders, so that the Fourier transform sees no edges, and take away its mean."""
    pads = [
        (before, size - n - before)
        for n, size, before in zip(image.shape, padding.working, padding.before, strict=True)
    ]
    out = np.pad(np.asarray(image, dtype=np.float32), pads, mode="symmetric")
    out -= image.mean(dtype=np.float64).astype(np.float32)
    return out


def cropped_spectrum(spectrum: NDArray[np.complexfloating], padding: Padding) -> NDArray[np.complex64]:
    """Low frequencies of an `rfft2` of the padded working image, scaled to be that of the search grid.

    Frequencies at Nyquist's limit of a coarser grid are not kept apart: the band-pass must be 0 there.
    """
    (height, width), (rows, _) = padding.search, padding.working
    half = height // 2
    if height < rows:
        spectrum = np.concatenate([spectrum[: height - half], spectrum[rows - half :]])
    scale = np.float32(np.prod(padding.search) / np.prod(padding.working))
    return np.asarray(spectrum[:, : width // 2 + 1] * scale, dtype=np.complex64)


def to_grid(spectrum: NDArray[np.complexfloating], shape: tuple[int, int]) -> Float32:
    """Inverse of `scipy.fft.rfft2`, float32 of a shape `(y, x)`."""
    return np.asarray(irfft2(spectrum, shape), dtype=np.float32)


def finer_grid(spectrum: NDArray[np.complexfloating], shape: tuple[int, int], factor: int) -> Float32:
    """Image on a grid some times finer, of the same extent.

    Parameters
    ----------
    spectrum
        `rfft2` of the image, 0 at Nyquist's limit.
    shape
        Its shape `(y, x)`, pixels.
    factor
        Fine pixels per pixel along each axis.
    """
    height, width = shape[0] * factor, shape[1] * factor
    half = shape[0] // 2
    wide = np.zeros((height, width // 2 + 1), dtype=np.complex64)
    wide[: shape[0] - half, : spectrum.shape[1]] = spectrum[: shape[0] - half]
    wide[height - half :, : spectrum.shape[1]] = spectrum[shape[0] - half :]
    return to_grid(wide * np.float32(factor**2), (height, width))
