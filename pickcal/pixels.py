"""Statistics of a source micrograph, in as few passes over its pixels as can be."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


@dataclass(frozen=True)
class Summary:
    """What the pixels of an image are.

    Attributes
    ----------
    low, high, mean, deviation
        Least and greatest value, mean and standard deviation.
    """

    low: float
    high: float
    mean: float
    deviation: float


def summarise(image: Float32) -> Summary:
    """Measure a float32 image `(y, x)` of finite pixels."""
    # squares of offsets from a value near the mean do not drown the deviation
    pivot = np.float32(np.median(image.ravel()[:: max(1, image.size // 1000)]))
    total, squares = _sums(image, pivot)
    offset = total / image.size
    deviation = float(np.sqrt(max(squares / image.size - offset * offset, 0.0)))
    return Summary(float(image.min()), float(image.max()), float(pivot) + offset, deviation)


@numba.njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def _sums(image: Float32, pivot: np.float32) -> tuple[float, float]:
    """Sum of offsets from a pivot and of their squares; single precision within a row, double beyond."""
    total, squares = np.float64(0), np.float64(0)
    for i in range(image.shape[0]):
        row_total, row_squares = np.float32(0), np.float32(0)
        for j in range(image.shape[1]):
            offset = image[i, j] - pivot
            row_total += offset
            row_squares += offset * offset
        total += row_total
        squares += row_squares
    return total, squares
