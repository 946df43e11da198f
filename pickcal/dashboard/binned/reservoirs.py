"""Random picks kept per bin while all of them go by, so that examples can be shown without looking for them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pickcal.dashboard.binned.cells import Limits, reaches
from pickcal.dashboard.binned.flat import FlatColumns


@dataclass(frozen=True)
class Kept(FlatColumns):
    """Picks that were kept, shape `(n,)`.

    Attributes
    ----------
    row, place
        Micrograph and place in its table.
    main, power, border
        Bins of each.
    value
        Main value, with its sign turned where low is good.
    key
        Random number: those with the lowest of their bin are kept.
    """

    row: NDArray[np.int32]
    place: NDArray[np.int32]
    main: NDArray[np.int16]
    power: NDArray[np.int16]
    border: NDArray[np.int16]
    value: NDArray[np.float64]
    key: NDArray[np.float32]

    @classmethod
    def nothing(cls) -> Kept:
        """No picks."""
        integers = (np.zeros(0, np.int32),) * 2 + (np.zeros(0, np.int16),) * 3
        return cls(*integers, np.zeros(0), np.zeros(0, np.float32))

    def passing(self, limits: Limits) -> NDArray[np.bool_]:
        """Which picks pass border and power."""
        unknown = self.power == 0
        powers = (reaches(self.power, limits.low) | unknown) & ~reaches(self.power, limits.high)
        return np.asarray(reaches(self.border, limits.border) & powers)

    def without(self, rows: Collection[int], picks: Collection[tuple[int, int]]) -> Kept:
        """Leave out some micrographs, and single picks by micrograph and place."""
        left = ~np.isin(self.row, list(rows))
        for row, place in picks:
            left &= (self.row != row) | (self.place != place)
        return self.at(left)

    def places(self) -> list[tuple[int, int]]:
        """Micrograph and place of each."""
        return [(int(row), int(place)) for row, place in zip(self.row, self.place, strict=True)]


class Reservoir:
    """So many random picks of every bin of the main value, each set of them as likely as any other.

    Parameters
    ----------
    bins, each
        Number of bins, and of picks kept in each.
    """

    def __init__(self, bins: int, each: int) -> None:
        self._each = each
        self._highest = np.full(bins, np.inf, dtype=np.float32)
        self.kept = Kept.nothing()

    def add(self, picks: Kept) -> None:
        """Let more picks go by."""
        near = picks.at(picks.key < self._highest[picks.main])
        if not len(near.key):
            return
        both = Kept.joined([self.kept, near])
        bins = both.main
        order = np.lexsort((both.key, bins))
        ordered = bins[order]
        rank = np.arange(len(order)) - np.searchsorted(ordered, ordered, side="left")
        chosen = order[rank < self._each]
        self.kept = both.at(chosen)
        # a full bin takes no higher number than its last
        last = order[rank == self._each - 1]
        self._highest[bins[last]] = both.key[last]
