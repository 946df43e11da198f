"""Numbers of picks per bin, and sums of them under thresholds.

`Tables` are filled block by block. `Sums` hold, for every bin, all picks from that bin on, so that what thresholds
leave is the difference of a few entries, whatever the number of picks.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pickcal.dashboard.binned.cells import Axes, Cells, Limits, strongest
from pickcal.dashboard.methods import Method
from pickcal.selection import REASONS

Floats = NDArray[np.floating]
Ints = NDArray[np.integer]
Numbers = NDArray[np.int32] | NDArray[np.float64]
Table = TypeVar("Table", NDArray[np.int32], NDArray[np.float64])

EDGE, SCORE, LOW, HIGH, PROBABILITY, RATE = (
    REASONS.index(name)
    for name in ("edge", "low score", "low power", "high power", "probability", "false discovery rate")
)
ORDER = (EDGE, SCORE, LOW, HIGH, PROBABILITY, RATE)
"""Reasons in the order in which thresholds are looked at."""
EXPECTED = ("sure", "junk", "counted", "true")
"""What is summed over accepted picks."""


@dataclass(frozen=True)
class Total:
    """What thresholds make of some picks.

    Attributes
    ----------
    reasons
        Picks per reason, shape `(len(REASONS),)`.
    accepted
        Accepted picks per bin of defocus.
    expected
        Sums over the accepted picks, by the names of `EXPECTED`.
    """

    reasons: Floats
    accepted: Floats
    expected: dict[str, float]


class Part(Protocol):
    """Some picks that can be summed up under thresholds."""

    def total(self, limits: Limits) -> Total:
        """Count picks per reason, per bin of defocus, and expected false ones."""
        ...

    def along(self, limits: Limits) -> Floats:
        """Count accepted picks from every main bin on, under the other limits, shape `(main bins, defocus bins)`."""
        ...

    def plane(self, limits: Limits | None) -> Floats:
        """Count picks (accepted ones under limits) per power and main score; see `plane_shape`."""
        ...


def main_reason(method: Method) -> int:
    """Reason of the main threshold."""
    return {"probability": PROBABILITY, "fdr": RATE}.get(method, SCORE)


def plane_shape(axes: Axes) -> tuple[int, int]:
    """Rows and columns of a score plane: power unknown, below the even edges, between them, above; score likewise.

    There is no row of its own for an unknown main score: it lies below all edges.
    """
    return (0 if axes.power is None else len(axes.power.regular)) + 2, len(axes.ncc) + 1


def plane_rows(axes: Axes) -> NDArray[np.intp]:
    """Row of the score plane of every bin of power."""
    bins = np.arange(axes.shape[1])
    regular = np.zeros(0, dtype=np.intp) if axes.power is None else axes.power.regular
    return np.where(bins == 0, 0, 1 + np.searchsorted(regular, bins // 2))


@dataclass
class Tables:
    """Numbers of picks per bin.

    Attributes
    ----------
    axes
        The grids.
    deep
        Picks that pass the fixed thresholds, int32 (main, power, border, defocus).
    expected
        Sums over these, by the names of `EXPECTED`, float64 (border, main, power); only what there is.
    failed
        Picks that a fixed threshold rejects, by reason, int32 (border, main, power).
    seen
        Where the main score is not what the score plane has: int32 (main, row, column of the plane).
    """

    axes: Axes
    deep: NDArray[np.int32]
    expected: dict[str, NDArray[np.float64]]
    failed: dict[int, NDArray[np.int32]] = field(default_factory=dict)
    seen: NDArray[np.int32] | None = None

    @classmethod
    def empty(cls, axes: Axes, bins: int, mixed: bool, labelled: bool) -> Tables:
        """Make tables without picks.

        Parameters
        ----------
        axes
            The grids.
        bins
            Bins of defocus.
        mixed, labelled
            Whether there are probabilities, and truth.
        """
        main, power, border = axes.shape
        names = (*(("sure", "junk") if mixed else ()), *(("counted", "true") if labelled else ()))
        seen = None if axes.method in ("raw", "line") else np.zeros((main, *plane_shape(axes)), np.int32)
        return cls(
            axes,
            np.zeros((main, power, border, bins), np.int32),
            {name: np.zeros((border, main, power)) for name in names},
            seen=seen,
        )

    def add(self, cells: Cells) -> None:
        """Count more picks."""
        for reason in np.unique(cells.failed[cells.failed > 0]):
            if int(reason) not in self.failed:
                main, power, border = self.axes.shape
                self.failed[int(reason)] = np.zeros((border, main, power), np.int32)
            some = cells.at(cells.failed == reason)
            _count(self.failed[int(reason)], (some.border, some.main, some.power))
        if cells.failed.any():
            cells = cells.at(cells.failed == 0)
        _count(self.deep, (cells.main, cells.power, cells.border, cells.defocus))
        for name, table in self.expected.items():
            _count(table, (cells.border, cells.main, cells.power), getattr(cells, name))
        if self.seen is not None:
            _count(self.seen, (cells.main, plane_rows(self.axes)[cells.power], cells.ncc))

    def sums(self, keep: bool = True) -> Sums:
        """Sum up from every bin on; the tables are used up unless they are to be kept."""
        deep = self.deep.copy() if keep else self.deep
        for axis in (0, 1, 2):
            _from_each(deep, axis)
        flat = np.ascontiguousarray(deep.sum(axis=3, dtype=np.int32).transpose(2, 0, 1))
        expected = {name: _all_axes(table.copy()) for name, table in self.expected.items()}
        failed = {reason: _all_axes(table.copy()) for reason, table in self.failed.items()}
        seen = None
        if self.seen is not None:
            seen = self.seen.copy() if keep else self.seen
            _from_each(seen, 0)
        return Sums(self.axes, deep, flat, expected, failed, seen)


def _count(table: Ints | Floats, where: tuple[Ints, ...], weights: NDArray[np.generic] | None = None) -> None:
    flat = np.ravel_multi_index(where, table.shape)
    np.add.at(table.reshape(-1), flat, table.dtype.type(1) if weights is None else weights.astype(table.dtype))


def _from_each(table: Numbers, axis: int) -> None:
    """Sum up along an axis, in place, from each entry to the last."""
    rows = np.moveaxis(table, axis, 0)
    for i in range(len(rows) - 2, -1, -1):
        rows[i] += rows[i + 1]


def _all_axes(table: Table) -> Table:
    for axis in range(table.ndim):
        _from_each(table, axis)
    return table


@dataclass(frozen=True)
class Sums:
    """Picks from every bin on: `Tables` summed up along main, power and border; `flat` is `deep` of all defoci."""

    axes: Axes
    deep: NDArray[np.int32]
    flat: NDArray[np.int32]
    expected: dict[str, NDArray[np.float64]]
    failed: dict[int, NDArray[np.int32]]
    seen: NDArray[np.int32] | None

    def added(self, more: Sums, sign: int = 1) -> Sums:
        """Add the sums over other picks, or with the sign -1 take them off."""
        none = np.zeros((), np.int32)
        return replace(
            self,
            deep=self.deep + sign * more.deep,
            flat=self.flat + sign * more.flat,
            expected={name: table + sign * more.expected[name] for name, table in self.expected.items()},
            failed={
                reason: self.failed.get(reason, none) + sign * more.failed.get(reason, none)
                for reason in {*self.failed, *more.failed}
            },
            seen=None if self.seen is None or more.seen is None else self.seen + sign * more.seen,
        )

    @property
    def picks(self) -> int:
        """Number of all picks."""
        return int(self.flat[0, 0, 0]) + sum(int(table[0, 0, 0]) for table in self.failed.values())

    def total(self, limits: Limits) -> Total:
        """See `Part`."""
        reasons = np.zeros(len(REASONS))
        main = main_reason(self.axes.method)
        for fixed, table in ((0, self.flat), *self.failed.items()):
            passed, known = Limits(), float(table[0, 0, 0])
            for reason in ORDER:
                if reason == fixed:
                    break
                passed = _also(passed, limits, reason, main)
                left = _left(table, passed)
                reasons[reason] += known - left
                known = left
            reasons[fixed] += known
        accepted = sum(
            (wb * wm * _between(self.deep[m, :, b], limits) for b, wb in limits.border for m, wm in limits.main),
            start=np.zeros(self.deep.shape[3]),
        )
        return Total(reasons, accepted, {name: _left(table, limits) for name, table in self.expected.items()})

    def along(self, limits: Limits) -> Floats:
        """See `Part`."""
        table = self.deep.transpose(1, 2, 0, 3)
        return np.asarray(
            sum(
                (wb * _between(table[:, b], limits) for b, wb in limits.border),
                start=np.zeros((self.deep.shape[0], self.deep.shape[3])),
            )
        )

    def plane(self, limits: Limits | None) -> Floats:
        """See `Part`; of a threshold between edges the nearer one is taken."""
        limits = limits or Limits()
        main, low, high, border = (strongest(s) for s in (limits.main, limits.low, limits.high, limits.border))
        shape = plane_shape(self.axes)
        if None in (main, low, border):
            return np.zeros(shape)
        if self.seen is None:
            return self._parts(int(border or 0), int(main or 0), int(low or 0), high, self._columns())
        rows = self._parts(int(border or 0), int(main or 0), int(low or 0), high, [0]).sum(axis=1)
        seen = self.seen[int(main or 0)].astype(np.float64)
        # border and limits of power are not among what was seen: its rows are scaled to what they leave
        return np.asarray(seen * (rows / np.maximum(seen.sum(axis=1), 1))[:, None])

    def _columns(self) -> list[int]:
        """First main bin of every column of the plane."""
        return [0, *(2 + int(k) for k in np.searchsorted(self.axes.main.edges, self.axes.ncc))]

    def _parts(self, border: int, main: int, low: int, high: int | None, columns: list[int]) -> Floats:
        """Count accepted picks in rows of the plane and some ranges of main bins."""
        regular = np.zeros(0, np.intp) if self.axes.power is None else self.axes.power.regular
        bounds = np.array([1, *(2 + 2 * regular)])
        bounds = np.clip(bounds, low, self.axes.shape[1] if high is None else high)
        table = self.flat[border][np.maximum(columns, main)].astype(np.float64)
        # what lies beyond the last bin is nothing; the last row ends where the upper limit does
        ends = np.append(bounds, self.axes.shape[1] if high is None else high)
        padded = np.column_stack([table, np.zeros(len(table))])
        known = padded[:, ends[:-1]] - padded[:, ends[1:]]
        per_row = np.column_stack([padded[:, 0] - padded[:, 1], known])
        return np.asarray((per_row - np.vstack([per_row[1:], np.zeros(per_row.shape[1])])).T)


def _also(passed: Limits, limits: Limits, reason: int, main: int) -> Limits:
    """Add the limit of one reason to those passed so far."""
    if reason == main:
        return replace(passed, main=limits.main)
    name = {EDGE: "border", LOW: "low", HIGH: "high"}.get(reason)
    return passed if name is None else replace(passed, **{name: getattr(limits, name)})


def _left(table: Ints | Floats, limits: Limits) -> float:
    """Count the picks that limits leave, of a table (border, main, power)."""
    return float(sum(wb * wm * _between(table[b, m], limits) for b, wb in limits.border for m, wm in limits.main))


def _between(line: Ints | Floats, limits: Limits) -> Floats:
    """Take what lies within the limits of power, or has none, of sums along power, which is the first axis."""
    out = line[0].astype(np.float64) - line[1]
    for bin_, weight in limits.low:
        out = out + weight * line[bin_]
    for bin_, weight in limits.high:
        out = out - weight * line[bin_]
    return np.asarray(out)
