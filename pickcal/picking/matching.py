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
from pickcal.picking.correlation import correlated, local_spread
from pickcal.picking.ctf import Ctf, ctf_filter
from pickcal.picking.entries import BLOCK_POINTS, Entries, Groups, unit
from pickcal.picking.filters import Float32, RadialFilter, band_pass
from pickcal.picking.fourier import Workspace, irfft2, rfft2
from pickcal.picking.grid import to_grid
from pickcal.picking.groups import group_means
from pickcal.picking.interpolation import interpolate, patches_between
from pickcal.picking.kernels import take_rows

Floats = NDArray[np.float64]

KEPT = 0.9995
"""Share of the entries' energy, as the microscope and the filters show them, that the scores keep."""
LEADING = 0.99
"""Share of the energy that the maps of a screened search keep; whole scores follow at the peaks that they show."""


@dataclass(frozen=True)
class Whole:
    """What whole scores at a few places follow from: the micrograph itself and all images.

    Attributes
    ----------
    image
        float32 `(y, x)`: the filtered micrograph, periodic.
    kernels
        float32 `(k, b * b)`: the images times the mask.
    entries
        The entries by all images.
    """

    image: Float32
    kernels: Float32
    entries: Entries

    def values_between(self, y: Floats, x: Floats) -> Float32:
        """Products of the micrograph with all images at points between pixels, float32 `(points, k)`."""
        side = round(self.kernels.shape[1] ** 0.5)
        out = np.empty((len(y), len(self.kernels)), dtype=np.float32)
        for start in range(0, len(y), BLOCK_POINTS):
            part = slice(start, start + BLOCK_POINTS)
            patches = patches_between(self.image, y[part], x[part], side)
            np.matmul(patches.reshape(len(patches), -1), self.kernels.T, out=out[part])
        return out


@dataclass(frozen=True)
class Responses:
    """What all scores of one micrograph follow from.

    The score of entry n at pixel p is `entries.weights[n] @ maps[p] / spread[p]`.

    Attributes
    ----------
    maps
        float32 `(y, x, k)`: products of the micrograph with the images.
    entries
        The entries by those images.
    spread
        float32 `(y, x)`: root of the weighted sum of squares of the micrograph about its local mean.
    whole
        Where the maps are of the leading images alone: what the others add at a few places. None where the maps are
        all there is.
    """

    maps: Float32
    entries: Entries
    spread: Float32
    whole: Whole | None = None

    def scores(self, y: NDArray[np.intp], x: NDArray[np.intp]) -> Float32:
        """Scores of all entries at some pixels, float32 `(points, n)`."""
        return (self.maps[y, x] @ self.entries.weights.T) / self.spread[y, x][:, None]

    def scores_of(self, entry: NDArray[np.intp], y: NDArray[np.intp], x: NDArray[np.intp]) -> Float32:
        """Scores of one entry per point, float32; `y` and `x` have shape `(points, ...)`."""
        products = np.einsum("pk,p...k->p...", self.entries.weights[entry], self.maps[y, x])
        return np.asarray(products / self.spread[y, x], dtype=np.float32)

    def values(self, y: NDArray[np.intp], x: NDArray[np.intp]) -> Float32:
        """Values of the maps at some pixels, float32 `(points, k)`."""
        out = np.empty((len(y), self.maps.shape[2]), dtype=np.float32)
        take_rows(self.maps.reshape(-1, self.maps.shape[2]), y * self.maps.shape[1] + x, out)
        return out

    def values_between(self, y: Floats, x: Floats) -> Float32:
        """Values of the maps at points between pixels, float32 `(points, k)`."""
        return interpolate(self.maps, y, x)

    def spread_between(self, y: Floats, x: Floats) -> Float32:
        """Spread at points between pixels, float32 `(points,)`."""
        return np.maximum(interpolate(self.spread[:, :, None], y, x)[:, 0], np.float32(1e-12))


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
    seen = irfft2(rfft2(padded) * transfer, (size, size))
    seen = np.ascontiguousarray(seen[:, start : start + box, start : start + box], dtype=np.float32)
    mask = bank.mask()
    seen -= (seen * mask).sum(axis=(1, 2), keepdims=True) / mask.sum()
    return seen, mask


@dataclass(frozen=True)
class SeenBank:
    """A bank as one micrograph shows it.

    Attributes
    ----------
    images
        float32 `(k, b, b)`, orthonormal under the mask and of weighted mean 0; the last `odd` are odd.
    weights, energy, odd
        See `Entries`.
    mask
        float32 `(b, b)`.
    """

    images: Float32
    weights: Float32
    energy: Float32
    odd: int
    mask: Float32


def seen_bank(bank: Bank, low_pass: float, sign: float, ctf: Ctf | None, whitening: RadialFilter | None) -> SeenBank:
    """Give a bank what microscope and filters do, and find the images that its entries then need.

    CTF and filters change how much each basis image counts. Of either kind, even and odd, the images under which the
    entries' squared weights are uncorrelated are found, and of all together those that count most are kept.

    Parameters
    ----------
    bank, low_pass, sign, ctf, whitening
        See `filtered_basis`.
    """
    images, mask = filtered_basis(bank, low_pass, sign, ctf, whitening)
    flat = images.reshape(len(images), -1)
    split = len(flat) - bank.odd
    kinds = [kind for kind in (slice(0, split), slice(split, len(flat))) if kind.stop > kind.start]
    made, weights = [], []
    for kind in kinds:
        orthonormal, to_orthonormal = _orthonormal(flat[kind], mask.ravel())
        made.append(orthonormal)
        weights.append(bank.coefficients[: bank.half, kind] @ to_orthonormal)
    norms = np.sqrt(sum(np.square(part).sum(axis=1) for part in weights))
    scale = 1.0 / np.maximum(norms, max(1e-6 * float(norms.max()), 1e-30))
    energies = []
    for i, part in enumerate(weights):
        part *= scale[:, None]
        energy, turn = np.linalg.eigh((part.T @ part).astype(np.float64))
        energies.append(np.maximum(energy[::-1], 0))
        weights[i] = part @ turn[:, ::-1].astype(np.float32)
        made[i] = turn[:, ::-1].T.astype(np.float32) @ made[i]
    kept = _most_energy(energies)
    half = np.concatenate([part[:, :count] for part, count in zip(weights, kept, strict=True)], axis=1)
    odd = kept[1] if len(kept) == 2 else 0
    half = unit(half)
    partners = half.copy()
    partners[:, half.shape[1] - odd :] *= -1
    return SeenBank(
        images=np.concatenate([part[:count] for part, count in zip(made, kept, strict=True)]).reshape(-1, *mask.shape),
        weights=np.concatenate([half, partners]) if bank.pairs else half,
        energy=np.concatenate([e[:count] for e, count in zip(energies, kept, strict=True)]).astype(np.float32),
        odd=odd,
        mask=mask,
    )


def _orthonormal(flat: Float32, mask: Float32) -> tuple[Float32, Float32]:
    """Images that span the same and are orthonormal under the mask, and what turns coefficients into theirs."""
    gram = ((flat * mask) @ flat.T).astype(np.float64)
    values, vectors = np.linalg.eigh(gram)
    roots = np.sqrt(np.maximum(values, 1e-10 * max(float(values[-1]), 1e-30)))
    return ((vectors / roots).T.astype(np.float32) @ flat), (vectors * roots).astype(np.float32)


def _most_energy(energies: list[NDArray[np.float64]]) -> list[int]:
    """How many of each kind to keep, so that all together they have the share `KEPT`; at least one."""
    every = np.concatenate(energies)
    least = np.sort(every)[::-1][_share(every, KEPT) - 1]
    kept = [int(np.count_nonzero(energy >= least)) for energy in energies]
    return kept if sum(kept) else [1] * len(energies)


def _share(energy: NDArray[np.floating], share: float) -> int:
    """How many, the largest first, have a share of the sum."""
    sums = np.cumsum(np.sort(energy)[::-1])
    return min(int(np.searchsorted(sums, share * sums[-1])) + 1, len(sums))


def match(
    spectrum: NDArray[np.complexfloating],
    shape: tuple[int, int],
    bank: Bank,
    low_pass: float,
    *,
    sign: float = -1.0,
    ctf: Ctf | None = None,
    whitening: RadialFilter | None = None,
    screened: bool = False,
    workspace: Workspace | None = None,
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
    screened
        Make maps of the leading images alone, where the bank has groups: enough to see where something is.
    workspace
        Where to put the maps; by default they are new.
    """
    seen = seen_bank(bank, low_pass, sign, ctf, whitening)
    entries = Entries(seen.weights, bank.half, seen.odd, seen.energy, _groups(bank, seen))
    kernels = seen.images * seen.mask
    image = to_grid(spectrum, shape)
    whole = None
    if screened and entries.groups is not None:
        whole = Whole(image, kernels.reshape(len(kernels), -1), entries)
        first = entries.leading(_share(seen.energy, LEADING))
        kernels, entries = kernels[entries.columns(*first)], entries.by(*first)
    return Responses(
        maps=correlated(spectrum, shape, np.ascontiguousarray(kernels.transpose(1, 2, 0)), entries.odd, workspace),
        entries=entries,
        spread=local_spread(image, spectrum, seen.mask),
        whole=whole,
    )


def _groups(bank: Bank, seen: SeenBank) -> Groups | None:
    if bank.group is None or bank.turned is None:
        return None
    means = group_means(seen.weights[: bank.half], seen.odd, bank.group, bank.turned)
    members = np.argsort(bank.group, kind="stable").astype(np.int32)
    starts = np.searchsorted(bank.group[members], np.arange(len(means) + 1)).astype(np.int32)
    return Groups(means, members, starts)
