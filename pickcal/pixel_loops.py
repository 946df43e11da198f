"""Loops over the pixels of a source micrograph, compiled by numba; `pixels` calls them."""

from __future__ import annotations

import numba
import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]
Int32 = NDArray[np.int32]


@numba.njit(cache=True, nogil=True, fastmath={"contract", "reassoc", "nsz"})
def _row_sums(row: Float32, pivot: np.float32) -> tuple[np.float32, np.float32]:
    total, squares = np.float32(0), np.float32(0)
    for j in range(row.shape[0]):
        offset = row[j] - pivot
        total += offset
        squares += offset * offset
    return total, squares


@numba.njit(cache=True, nogil=True)
def _row_ends(row: Int32) -> tuple[np.int32, np.int32]:
    """Least and greatest of a row, given by its bits, as integers in the order of the numbers.

    The processor compares many integers at once; for floating point the compiler must mind NaN and does not.
    """
    low, high = np.int32(2**31 - 1), np.int32(-(2**31))
    for j in range(row.shape[0]):
        order = row[j] ^ ((row[j] >> np.int32(31)) & np.int32(0x7FFFFFFF))
        low = min(low, order)
        high = max(high, order)
    return low, high


@numba.njit(cache=True, nogil=True)
def measured(image: Float32, bits: Int32, pivot: np.float32) -> tuple[np.int32, np.int32, np.float64, np.float64]:
    """Least, greatest (see `_row_ends`), sum of offsets from a pivot and of their squares.

    Single precision within a row, double beyond. A row is still in the processor's cache when its second loop comes.
    Sums show pixels that are not finite.
    """
    total, squares = np.float64(0), np.float64(0)
    low, high = np.int32(2**31 - 1), np.int32(-(2**31))
    for i in range(image.shape[0]):
        row_total, row_squares = _row_sums(image[i], pivot)
        total += row_total
        squares += row_squares
        row_low, row_high = _row_ends(bits[i])
        low = min(low, row_low)
        high = max(high, row_high)
    return low, high, total, squares
