"""What is filled while picks are binned, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pickcal.dashboard.binned.cells import Axes, Ranges
from pickcal.dashboard.binned.reading import Values
from pickcal.dashboard.binned.reservoirs import Kept, Reservoir
from pickcal.dashboard.binned.tables import Sums, Tables

PER_BIN = 24
"""Random picks that are kept of every bin of the main value."""


@dataclass(frozen=True)
class Binned:
    """What binning has found so far.

    Attributes
    ----------
    axes, ranges
        The grids, and the outermost values.
    sums
        The numbers of picks.
    near
        Random picks per main bin.
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
    near: Kept
    frames: NDArray[np.float32] | None
    rows: NDArray[np.bool_]
    total: int


class Filling:
    """What is filled block by block: tables, outermost values, random picks."""

    def __init__(self, axes: Axes, bins: int, mixed: bool, labelled: bool, before: Binned | None = None) -> None:
        self._axes, self._before = axes, before
        self._tables = Tables.empty(axes, bins, mixed, labelled)
        self._ranges = Ranges() if before is None else before.ranges
        self._near = Reservoir(axes.shape[0], PER_BIN)
        self._random = np.random.default_rng(0 if before is None else int(before.rows.sum()))
        if before is not None:
            self._near.add(before.near)

    def add(self, values: Values) -> None:
        """Bin a block."""
        cells = self._axes.cells(values)
        self._tables.add(cells)
        self._ranges = self._ranges.widened(values, self._axes.falling)
        picks = Kept(
            cells.row,
            cells.place,
            cells.main,
            cells.power,
            cells.border,
            (-values.main if self._axes.falling else values.main).astype(np.float64),
            self._random.random(len(cells.row), dtype=np.float32),
        )
        if cells.failed.any():
            picks = picks.at(cells.failed == 0)
        self._near.add(picks)

    def content(self, frames: NDArray[np.float32] | None, rows: NDArray[np.bool_], total: int, last: bool) -> Binned:
        """Give what was filled so far, with what was binned before; the tables are used up if this is the last."""
        sums = self._tables.sums(keep=not last)
        if self._before is not None:
            sums = self._before.sums.added(sums)
        return Binned(self._axes, self._ranges, sums, self._near.kept, frames, rows, total)
