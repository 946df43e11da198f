"""Entries of a bank as one micrograph shows them, and which of them fits best.

A micrograph's images are orthonormal under the mask, so that the product with an entry is the sum over images of its
weights times the products with the images.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pickcal.picking.filters import Float32
from pickcal.picking.kernels import best_member, best_row

MANY, LIKELY = 1024, 4
"""Of more entries, half-turns not counted, a search looks only at the members of so many of the likeliest groups."""
MANY_GIVEN, LIKELY_GIVEN = 2048, 8
"""The same for scores at places that are given, of which there are fewer."""
BLOCK_POINTS, BLOCK_PRODUCTS = 256, 2**16
"""Points that are worked on at once: these at least, and as many as have so many products."""


@dataclass(frozen=True)
class Groups:
    """Groups of alike entries of a micrograph's bank.

    Attributes
    ----------
    means
        float32 `(groups, k)`, norm 1.
    members, starts
        int32: entries in the order of their groups, and where each group begins, and the last ends.
    """

    means: Float32
    members: NDArray[np.int32]
    starts: NDArray[np.int32]


@dataclass(frozen=True)
class Entries:
    """Entries of a bank as one micrograph shows them: combinations of images that are orthonormal under the mask.

    First come the even images, then the odd ones, of either kind those first that count most.

    Attributes
    ----------
    weights
        float32 `(n, k)`, of norm 1.
    half
        Entries that are not the half-turn of another; those come after them, in the same order.
    odd
        How many of the images half a turn changes into their opposite.
    energy
        float32 `(k,)`: sum of the squared weights of each image over the entries.
    groups
        Groups of alike entries, None for a bank without groups.
    """

    weights: Float32
    half: int
    odd: int
    energy: Float32
    groups: Groups | None

    def leading(self, count: int) -> tuple[int, int]:
        """How many even and how many odd images are among those that count most."""
        first = np.argsort(-self.energy, kind="stable")[:count]
        even = int(np.count_nonzero(first < len(self.energy) - self.odd))
        return even, len(first) - even

    def columns(self, even: int, odd: int) -> NDArray[np.intp]:
        """Return the indices of the first images of either kind."""
        split = len(self.energy) - self.odd
        return np.concatenate([np.arange(even), split + np.arange(odd)])

    def by(self, even: int, odd: int) -> Entries:
        """Entries compared by the first images of either kind alone."""
        columns, groups = self.columns(even, odd), self.groups
        if groups is not None:
            groups = Groups(unit(groups.means[:, columns]), groups.members, groups.starts)
        return Entries(unit(self.weights[:, columns]), self.half, odd, self.energy[columns], groups)

    def best_of(self, values: Float32, sign: float, given: bool = False) -> tuple[Float32, NDArray[np.intp]]:
        """Best entry for given products of the images; where there are groups, of the likeliest groups.

        Parameters
        ----------
        values
            float32 `(points, k)`.
        sign
            +1 for the highest, -1 for the lowest product.
        given
            The places are given, not found by a search: look at more entries.

        Returns
        -------
        product, entry
            Product times `sign`, not yet over the spread, float32 `(points,)`, and index into the bank.
        """
        product, entry = np.empty(len(values), np.float32), np.empty(len(values), np.int32)
        half = self.weights[: self.half]
        many, likely = (MANY_GIVEN, LIKELY_GIVEN) if given else (MANY, LIKELY)
        if self.groups is None or self.half <= many:
            for part, even, odd in products(values, half, self.odd):
                best_row(even, odd, sign, product[part], entry[part])
        else:
            split, members = half.shape[1] - self.odd, (self.groups.members, self.groups.starts)
            for part, even, odd in products(values, self.groups.means, self.odd):
                found = (product[part], entry[part])
                best_member(even, odd, sign, *members, half, values[part], split, likely, *found)
        if self.half == len(self.weights):  # there is no half-turn
            entry %= self.half
        return product, entry.astype(np.intp)


def unit(vectors: Float32) -> Float32:
    """Give rows the norm 1; rows of zeros stay."""
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6), dtype=np.float32)


def products(values: Float32, weights: Float32, odd_count: int) -> Iterator[tuple[slice, Float32, Float32]]:
    """Products of weights with values, block by block of points: even and odd part apart.

    Parameters
    ----------
    values
        float32 `(points, k)`.
    weights
        float32 `(n, k)`.
    odd_count
        Columns, the last ones, that are the odd part.

    Yields
    ------
    part, even, odd
        The points, and float32 `(n, points)` each; the buffers serve again for the next block.
    """
    split = weights.shape[1] - odd_count
    left, right = np.ascontiguousarray(weights[:, :split]), np.ascontiguousarray(weights[:, split:])
    block = max(BLOCK_POINTS, BLOCK_PRODUCTS // len(weights))
    even, odd = np.empty((2, len(weights), min(block, len(values))), np.float32)
    odd[:] = 0
    for start in range(0, len(values), block):
        part = slice(start, min(start + block, len(values)))
        if part.stop - start < even.shape[1]:
            even, odd = even[:, : part.stop - start].copy(), odd[:, : part.stop - start].copy()
        np.matmul(left, values[part, :split].T, out=even)
        if odd_count:
            np.matmul(right, values[part, split:].T, out=odd)
        yield part, even, odd
