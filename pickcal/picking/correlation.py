"""Correlation of a micrograph with small kernels by Fourier transforms, and the local spread of the micrograph."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from pickcal.picking.filters import Float32, centre_phase, kernel_spectrum
from pickcal.picking.fourier import Workspace, irfft2, rfft, rfft2, transform, transform_back
from pickcal.picking.kernels import correlate, correlate_both
from pickcal.pixels import median

TOGETHER, LEAST_TOGETHER = 2**21, 8
"""Values of spectra that are transformed at once, and the least number of maps that are."""


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
        float32 `(b, b, k)`, b odd.
    odd
        Kernels, the last ones, that are odd; where there are any, the others are even.
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
    phase = np.conj(centre_phase(kernels.shape[0], shape))
    even = kernels.shape[2] - odd
    together = max(LEAST_TOGETHER, TOGETHER // image.size)
    for start in range(0, even if odd == 0 else max(even, odd), together):
        first, second = slice(start, min(start + together, even)), slice(even + start, even + start + together)
        if odd == 0:
            product = _kernel_spectra(kernels[:, :, first], shape, workspace)
            correlate(image, product, phase)
            transform_back(product, maps[:, :, first])
            continue
        parts = [kernels[:, :, some] for some in (first, second)]
        counts = [part.shape[2] for part in parts]
        sums = np.zeros((*kernels.shape[:2], max(counts)), dtype=np.float32)
        for part, count in zip(parts, counts, strict=True):
            sums[:, :, :count] += part
        products = [
            workspace.array(name, (*image.shape, count), np.complex64)
            for name, count in zip(("even", "odd"), counts, strict=True)
        ]
        correlate_both(image, _kernel_spectra(sums, shape, workspace), phase, products[0], products[1])
        for some, product in zip((first, second), products, strict=True):
            if product.size:
                transform_back(product, maps[:, :, some])
    return maps


def _kernel_spectra(kernels: Float32, shape: tuple[int, int], workspace: Workspace) -> NDArray[np.complex64]:
    """`rfft2` of kernels `(b, b, k)`; transforming their few rows first saves half of the work."""
    box, _, count = kernels.shape
    rows = np.zeros((box, shape[1], count), dtype=np.float32)
    rows[:, :box] = kernels
    out = workspace.array("kernels", (shape[0], shape[1] // 2 + 1, count), np.complex64)
    out[:box], out[box:] = rfft(rows, axis=1), 0
    transform(out, axis=0)
    return out


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
