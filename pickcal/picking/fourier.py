"""Fourier transforms on one thread, into memory that is there: what NumPy's `rfft2` and `irfft2` compute.

They are the largest part of a search. ducc0 computes them as SciPy does (by the same author), faster, and writes where
it is told, so that maps of hundreds of images are neither copied nor made anew for every micrograph.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ducc0 import fft as ducc
from numpy.typing import NDArray

Real = NDArray[np.floating]
Complex = NDArray[np.complexfloating]


def rfft2(image: Real) -> Complex:
    """Transform the last two axes of an image or of a stack, `(..., y, x)` to `(..., y, x // 2 + 1)`."""
    return np.asarray(ducc.r2c(image, axes=(image.ndim - 2, image.ndim - 1), nthreads=1))


def irfft2(spectrum: Complex, shape: tuple[int, int]) -> Real:
    """Transform the last two axes back to a shape `(y, x)`; the spectrum stays as it is."""
    axes = (spectrum.ndim - 2, spectrum.ndim - 1)
    return np.asarray(ducc.c2r(spectrum, axes=axes, lastsize=shape[1], forward=False, inorm=2, nthreads=1))


def rfft(image: Real, axis: int, out: Complex | None = None) -> Complex:
    """Transform one axis, into `out` where it is given."""
    return np.asarray(ducc.r2c(image, axes=(axis,), out=out, nthreads=1))


def transform(spectrum: Complex, axis: int) -> None:
    """Transform one axis of a complex array in place."""
    ducc.c2c(spectrum, axes=(axis,), out=spectrum, nthreads=1)


def transform_back(spectrum: Complex, out: Real) -> None:
    """Transform the first two axes of `(y, x // 2 + 1, k)` back into `out`, `(y, x, k)`; overwrites the spectrum."""
    ducc.c2c(spectrum, axes=(0,), forward=False, inorm=2, out=spectrum, nthreads=1)
    ducc.c2r(spectrum, axes=(1,), lastsize=out.shape[1], forward=False, inorm=2, out=out, nthreads=1)


class Workspace:
    """Memory in which one micrograph after the other is worked on.

    What is found there holds until the next one: copy what is to stay.
    """

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[Any]] = {}

    def array(self, name: str, shape: tuple[int, ...], dtype: type[np.generic]) -> NDArray[Any]:
        """Give an array, not cleared, in the memory of that name, which grows where it must."""
        size = int(np.prod(shape))
        held = self._arrays.get(name)
        if held is None or held.size < size or held.dtype != dtype:
            self._arrays.pop(name, None)  # gone before the larger one comes
            held = self._arrays[name] = np.empty(size, dtype=dtype)
        return held[:size].reshape(shape)
