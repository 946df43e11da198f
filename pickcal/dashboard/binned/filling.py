"""What is filled while picks are binned, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pickcal.dashboard.binned.cells import Axes, Ranges
from pickcal.dashboard.binned.reading import Values
from pickcal.dashboard.binned.tables import Sums, Tables


@dataclass(frozen=True)
class Binned:
    """What binning has found so far.

    Attributes
    ----------
    axes, ranges
        The grids, and the outermost values.
    sums
        The numbers of picks.
    frames
        See `Cube`.
    rows
        Which micrographs were binned, bool `(micrograph,)`.
    total
        Number of picks of all finished micrographs.
    """

    axes: Axes
    ranges: Ranges
    sums: Sums
    frames: NDArray[np.float32] | None
    rows: NDArray[np.bool_]
    total: int


class Filling:
    """What is filled block by block: tables and outermost values."""

    def __init__(self, axes: Axes, bins: int, mixed: bool, labelled: bool, before: Binned | None = None) -> None:
        self._axes, self._before = axes, before
        self._tables = Tables.empty(axes, bins, mixed, labelled)
        self._ranges = Ranges() if before is None else before.ranges

    def add(self, values: Values) -> None:
        """Bin a block."""
        self._tables.add(self._axes.cells(values))
        self._ranges = self._ranges.widened(values, self._axes.falling)

    def content(self, frames: NDArray[np.float32] | None, rows: NDArray[np.bool_], total: int, last: bool) -> Binned:
        """Give what was filled so far, with what was binned before; the tables are used up if this is the last."""
        sums = self._tables.sums(keep=not last)
        if self._before is not None:
            sums = self._before.sums.added(sums)
        return Binned(self._axes, self._ranges, sums, frames, rows, total)
