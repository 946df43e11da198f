"""What is filled while picks are binned, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pickcal.dashboard.binned.cells import Axes, Ranges
from pickcal.dashboard.binned.reading import Values
from pickcal.dashboard.binned.reservoirs import Highest, Kept, Reservoir
from pickcal.dashboard.binned.tables import Sums, Tables

PER_BIN, PER_POWER, STRONGEST = 24, 32, 200


@dataclass(frozen=True)
class Binned:
    """What binning has found so far.

    Attributes
    ----------
    axes, ranges
        The grids, and the outermost values.
    sums
        The numbers of picks.
    near, strong
        Random picks per main bin; those of the highest power with random ones per bin of power.
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
    strong: Kept
    frames: NDArray[np.float32] | None
    rows: NDArray[np.bool_]
    total: int


class Filling:
    """What is filled block by block: tables, outermost values, random picks."""

    def __init__(self, axes: Axes, bins: int, mixed: bool, labelled: bool, before: Binned | None = None) -> None:
        self._axes, self._before = axes, before
        self._tables = Tables.empty(axes, bins, mixed, labelled)
        self._ranges = Ranges() if before is None else before.ranges
        main, power, _ = axes.shape
        self._near = Reservoir(main, PER_BIN)
        self._powers, self._highest = Reservoir(power // 2 + 1, PER_POWER, by_power=True), Highest(STRONGEST)
        self._random = np.random.default_rng(0 if before is None else int(before.rows.sum()))
        if before is not None:
            self._near.add(before.near)
            for keeper in (self._powers, self._highest):
                keeper.add(before.strong)

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
            values.power.astype(np.float64),
            self._random.random(len(cells.row), dtype=np.float32),
        )
        if cells.failed.any():
            picks = picks.at(cells.failed == 0)
        for keeper in (self._near, self._powers, self._highest):
            keeper.add(picks)

    def content(self, frames: NDArray[np.float32] | None, rows: NDArray[np.bool_], total: int, last: bool) -> Binned:
        """Give what was filled so far, with what was binned before; the tables are used up if this is the last."""
        sums = self._tables.sums(keep=not last)
        if self._before is not None:
            sums = self._before.sums.added(sums)
        strong = self._powers.kept.with_these(self._highest.kept)
        _, first = np.unique(strong.row.astype(np.int64) << 32 | strong.place, return_index=True)
        return Binned(self._axes, self._ranges, sums, self._near.kept, strong.at(first), frames, rows, total)
