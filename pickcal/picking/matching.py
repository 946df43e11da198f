"""NCC score: Pearson correlation within a mask between a filtered micrograph and the best template.

Masking, CTF and mean removal are linear in the template, so they act on the few basis images of the bank and the
scores stay exact for whatever the basis spans, at a cost that does not grow with the number of templates.
Definition of the score: Roseman (2003), Ultramicroscopy 94, 225-236.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.fft as sf
from numpy.typing import NDArray

from pickcal.picking.bank import Bank
from pickcal.picking.ctf import Ctf, ctf_filter
from pickcal.picking.filters import Float32, RadialFilter, band_pass, centre_phase, kernel_spectrum

BLOCK_BYTES = 32 * 2**20


@dataclass(frozen=True)
class Responses:
    """What all scores of one micrograph follow from.

    The score of entry n at pixel p is `weights[n] @ maps[:, p] / spread[p]`.

    Attributes
    ----------
    maps
        float32 `(k, y, x)`: weighted products of the micrograph with the basis images.
    weights
        float32 `(n, k)`: coefficients of the entries over their norms within the mask.
    spread
        float32 `(y, x)`: root of the weighted sum of squares of the micrograph about its local mean.
    """

    maps: Float32
    weights: Float32
    spread: Float32

    def scores(self, y: NDArray[np.intp], x: NDArray[np.intp]) -> Float32:
        """Scores of all entries at some pixels, float32 `(points, n)`."""
        return (self.maps[:, y, x].T @ self.weights.T) / self.spread[y, x][:, None]

    def scores_of(self, entry: NDArray[np.intp], y: NDArray[np.intp], x: NDArray[np.intp]) -> Float32:
        """Scores of one entry per point, float32; `y` and `x` have shape `(points, ...)`."""
        weights = self.weights[entry]
        products = np.einsum("pk,kp...->p...", weights, self.maps[:, y, x])
        return np.asarray(products / self.spread[y, x], dtype=np.float32)


def filtered_basis(
    bank: Bank, low_pass: float, sign: float, ctf: Ctf | None, whitening: RadialFilter | None
) -> tuple[Float32, Float32]:
    """Basis images as the microscope and the micrograph's filters would show them.

    Parameters
    ----------
    bank
        The templates.
    low_pass
        Å.
    sign
        +1 or -1; applied where no CTF gives the contrast.
    ctf
        CTF of the micrograph, or None for none.
    whitening
        The micrograph's whitening filter, or None.

    Returns
    -------
    images, mask
        float32 `(k, b, b)`, of weighted mean 0 within the mask and not yet multiplied with it; float32 `(b, b)`.
    """
    count, box, _ = bank.basis.shape
    size = sf.next_fast_len(2 * box + 1, real=True)
    start = (size - box) // 2
    padded = np.zeros((count, size, size), dtype=np.float32)
    padded[:, start : start + box, start : start + box] = bank.basis
    transfer = band_pass((size, size), bank.pixel_size, low_pass, None)
    transfer = transfer * (sign if ctf is None else -sign * ctf_filter(ctf, (size, size), bank.pixel_size))
    if whitening is not None:
        transfer = transfer * whitening.on_grid((size, size), bank.pixel_size)
    seen = sf.irfft2(sf.rfft2(padded) * transfer, (size, size))
    seen = np.ascontiguousarray(seen[:, start : start + box, start : start + box], dtype=np.float32)
    mask = bank.mask()
    seen -= (seen * mask).sum(axis=(1, 2), keepdims=True) / mask.sum()
    return seen, mask


def match(
    spectrum: NDArray[np.complexfloating],
    shape: tuple[int, int],
    bank: Bank,
    low_pass: float,
    *,
    sign: float = -1.0,
    ctf: Ctf | None = None,
    whitening: RadialFilter | None = None,
) -> Responses:
    """Correlate a filtered micrograph with the bank's basis.

    Parameters
    ----------
    spectrum
        `rfft2` of the micrograph, already band-passed and whitened.
    shape
        Its shape `(y, x)`, pixels.
    bank, low_pass, sign, ctf, whitening
        See `filtered_basis`.
    """
    images, mask = filtered_basis(bank, low_pass, sign, ctf, whitening)
    flat = images.reshape(len(images), -1)
    gram = (flat * mask.ravel()) @ flat.T
    norms = np.sqrt(np.maximum(np.einsum("nk,kl,nl->n", bank.coefficients, gram, bank.coefficients, optimize=True), 0))
    weights = bank.coefficients / np.maximum(norms, 1e-6 * norms.max())[:, None]
    maps = np.empty((len(images), *shape), dtype=np.float32)
    centred = np.asarray(spectrum * centre_phase(mask.shape[0], shape), dtype=np.complex64)
    for k, image in enumerate(images):
        maps[k] = sf.irfft2(centred * np.conj(sf.rfft2(image * mask, shape)), shape)
    return Responses(maps, np.asarray(weights, dtype=np.float32), local_spread(spectrum, shape, mask))


def local_spread(spectrum: NDArray[np.complexfloating], shape: tuple[int, int], mask: Float32) -> Float32:
    """Root of the weighted sum of squares about the weighted local mean, float32 `(y, x)`.

    Kept above a thousandth of its median, so that empty areas (no signal at all) cannot score high.
    """
    kernel = kernel_spectrum(mask, shape)
    image = sf.irfft2(spectrum, shape)
    total = float(mask.sum())
    mean = sf.irfft2(spectrum * kernel, shape) / total
    square = sf.irfft2(sf.rfft2(image * image) * kernel, shape)
    variance = square - total * mean * mean
    spread = np.sqrt(np.maximum(variance, 0))
    return np.asarray(
        np.maximum(spread, max(1e-3 * float(np.median(spread)), 1e-4 * float(spread.max()), 1e-12)), dtype=np.float32
    )


def extreme_scores(responses: Responses, rows: NDArray[np.intp], columns: NDArray[np.intp]) -> tuple[Float32, Float32]:
    """Highest and lowest score over all entries on a grid.

    Parameters
    ----------
    responses
        From `match`.
    rows, columns
        Indices of the grid's rows and columns, pixels.

    Returns
    -------
    highest, lowest
        float32 `(len(rows), len(columns))`.
    """
    highest = np.empty((len(rows), len(columns)), dtype=np.float32)
    lowest = np.empty_like(highest)
    block = max(1, BLOCK_BYTES // (4 * len(responses.weights) * max(1, len(columns))))
    for start in range(0, len(rows), block):
        part = rows[start : start + block]
        maps = responses.maps[:, part[:, None], columns[None, :]].reshape(len(responses.maps), -1)
        scores = maps.T @ responses.weights.T
        spread = responses.spread[part[:, None], columns[None, :]]
        highest[start : start + block] = scores.max(axis=1).reshape(spread.shape) / spread
        lowest[start : start + block] = scores.min(axis=1).reshape(spread.shape) / spread
    return highest, lowest
