"""Correlation of a micrograph with small kernels by Fourier transforms, and the local spread of the micrograph."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from pickcal.picking.filters import Float32, kernel_spectrum
from pickcal.picking.fourier import Workspace, irfft2, rfft2, transform_back
from pickcal.picking.kernels import correlate
from pickcal.pixels import median

TOGETHER = 8
"""Maps that are transformed at once: the complex values of one place fill a line of the processor's cache."""


def correlated(
    spectrum: NDArray[np.complexfloating],
    shape: tuple[int, int],
    kernels: Float32,
    odd: int,
    workspace: Workspace | None = None,
) -> Float32:
    """Correlate an image with small kernels whose centres are the origin.

    Parameters
    ----------
    spectrum, shape
        `rfft2` of the image and its shape `(y, x)`, pixels.
    kernels
        float32 `(b, b, k)`, b odd: even ones, which half a turn does not change, and then odd ones, whose sign it does.
    odd
        Kernels, the last ones, that are odd.
    workspace
        Where to put the maps; by default they are new.

    Returns
    -------
    ndarray
        float32 `(y, x, k)`.
    """
    workspace = workspace or Workspace()
    maps = workspace.array("maps", (*shape, kernels.shape[2]), np.float32)
    image = np.asarray(spectrum, dtype=np.complex64)
    even = kernels.shape[2] - odd
    # the spectrum of an even kernel is real, that of an odd one imaginary; conjugated, that is i times a real one
    for kind, source, is_odd in ((range(even), image, False), (range(even, even + odd), image * 1j, True)):
        for start in range(kind.start, kind.stop, TOGETHER):
            some = slice(start, min(start + TOGETHER, kind.stop))
            halves = _half_spectra(kernels[:, :, some], is_odd, shape, workspace)
            product = workspace.array("products", (*image.shape, some.stop - some.start), np.complex64)
            correlate(source, *halves, product)
            transform_back(product, maps[:, :, some])
    return maps


def _half_spectra(kernels: Float32, odd: bool, shape: tuple[int, int], workspace: Workspace) -> tuple[Float32, Float32]:
    """Even and odd part along ky of the spectra of kernels `(b, b, k)`, float32 `(y // 2 + 1, x // 2 + 1, k)` each.

    The spectrum of an even kernel is the sum of its values times cos(ky y + kx x), that of an odd one, but for -i,
    times the sine; both are sums of products of a function of y and one of x. Kernels are small, so that matrix
    products of these cost less than Fourier transforms of their padded selves.
    """
    half, count = kernels.shape[0] // 2, kernels.shape[2]
    (cos_y, sin_y), (cos_x, sin_x) = (_waves(half, length) for length in shape)
    parts = []
    for name, along_y, along_x in (
        ("cosines", cos_y[:, half:], sin_x if odd else cos_x),
        ("sines", sin_y[:, half:], cos_x if odd else -sin_x),
    ):
        rows = 2 * np.matmul(along_x, kernels[half:])
        rows[0] /= 2  # rows above the middle are those below it turned by half a turn
        out = workspace.array(name, (len(along_y), len(along_x), count), np.float32)
        np.matmul(along_y, rows.reshape(half + 1, -1), out=out.reshape(len(along_y), -1))
        parts.append(out)
    return parts[0], parts[1]


@lru_cache(maxsize=8)
def _waves(half: int, length: int) -> tuple[Float32, Float32]:
    """Cosines and sines of the frequencies of an axis, from 0 on, at pixels -half to half: float32 each."""
    phase = 2 * np.pi * np.outer(np.fft.rfftfreq(length), np.arange(-half, half + 1))
    return np.cos(phase).astype(np.float32), np.sin(phase).astype(np.float32)


def local_spread(image: Float32, spectrum: NDArray[np.complexfloating], mask: Float32) -> Float32:
    """Root of the weighted sum of squares of an image, given with its `rfft2`, about the weighted local mean.

    Kept above a thousandth of its median, so that empty areas (no signal at all) cannot score high.
    """
    shape = (image.shape[0], image.shape[1])
    kernel = kernel_spectrum(mask, shape)
    total = float(mask.sum())
    mean = irfft2(spectrum * kernel, shape) / total
    square = irfft2(rfft2(image * image) * kernel, shape)
    variance = square - total * mean * mean
    spread = np.sqrt(np.maximum(variance, 0)).astype(np.float32, copy=False)
    return np.maximum(spread, np.float32(max(1e-3 * median(spread), 1e-4 * float(spread.max()), 1e-12)))
