"""Excluded micrographs and picks decided by hand: what they add up to, so that counts can be put right."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from threading import RLock

import numpy as np
from numpy.typing import NDArray

from pickcal.dashboard.binned.cells import ALL, Axes, Cells, Limits, reaches
from pickcal.dashboard.binned.tables import (
    EDGE,
    EXPECTED,
    HIGH,
    LOW,
    ORDER,
    Part,
    Tables,
    Total,
    main_reason,
    plane_rows,
    plane_shape,
)
from pickcal.errors import InputError
from pickcal.selection import ACCEPTED, REASONS
from pickcal.settings import HandPick, SelectSettings

Floats = NDArray[np.floating]

AT_ONCE = 4
"""Micrographs whose picks are read during a move; more are read in the background, see `Cube.prepare`."""
MOST_LISTED = 100_000
"""Picks in a list that is summed up one by one; more are binned."""
MOST_CELLS = 4_000_000
MOST_CHANGES = 6


@dataclass(frozen=True)
class Few:
    """A few picks in a list, summed up one by one; `bins` of defocus."""

    axes: Axes
    cells: Cells
    bins: int

    def reasons(self, limits: Limits) -> NDArray[np.int8]:
        """Reason for every pick; of a threshold between edges the nearer one is taken."""
        cells, main = self.cells, main_reason(self.axes.method)
        fails = {
            EDGE: ~reaches(cells.border, limits.border),
            main: ~reaches(cells.main, limits.main),
            LOW: ~reaches(cells.power, limits.low) & (cells.power > 0),
            HIGH: reaches(cells.power, limits.high),
        }
        out = np.zeros(len(cells.row), dtype=np.int8)
        for reason in ORDER:
            failing = cells.failed == reason
            if reason in fails:
                failing = failing | fails[reason]
            out[(out == ACCEPTED) & failing] = reason
        return out

    def total(self, limits: Limits) -> Total:
        """See `Part`."""
        reasons = self.reasons(limits)
        accepted = reasons == ACCEPTED
        return Total(
            np.bincount(reasons, minlength=len(REASONS)).astype(np.float64),
            np.bincount(self.cells.defocus[accepted], minlength=self.bins).astype(np.float64),
            {name: float(getattr(self.cells, name)[accepted].sum(dtype=np.float64)) for name in EXPECTED},
        )

    def along(self, limits: Limits) -> Floats:
        """See `Part`."""
        accepted = self.reasons(replace(limits, main=ALL)) == ACCEPTED
        bins = self.axes.shape[0]
        flat = self.cells.main[accepted].astype(np.intp) * self.bins + self.cells.defocus[accepted]
        counts = np.bincount(flat, minlength=bins * self.bins).reshape(bins, self.bins)
        return np.asarray(counts[::-1].cumsum(axis=0)[::-1], dtype=np.float64)

    def plane(self, limits: Limits | None) -> Floats:
        """See `Part`."""
        chosen = self.cells.failed == 0 if limits is None else self.reasons(limits) == ACCEPTED
        shape = plane_shape(self.axes)
        where = plane_rows(self.axes)[self.cells.power[chosen]], self.cells.ncc[chosen].astype(np.intp)
        counts = np.bincount(np.ravel_multi_index(where, shape), minlength=shape[0] * shape[1])
        return np.asarray(counts.reshape(shape), dtype=np.float64)


class Rows:
    """Bins of the picks of single micrographs, kept for all visitors.

    Parameters
    ----------
    read
        Gives the cells of a micrograph.
    place
        Gives the place of the pick nearest to a decision by hand on a micrograph; an InputError where there is none.
    names
        Of the micrographs.
    """

    def __init__(
        self, read: Callable[[int], Cells], place: Callable[[int, HandPick], int], names: Sequence[str]
    ) -> None:
        self._read, self._place = read, place
        self.names = names
        self.numbers = {name: row for row, name in enumerate(names)}
        self._kept: OrderedDict[int, Cells] = OrderedDict()
        self._found: dict[HandPick, int] = {}
        self._cells, self._lock = 0, RLock()

    def has(self, row: int) -> bool:
        """Whether a micrograph was read."""
        return row in self._kept

    def cells(self, row: int) -> Cells:
        """Bins of the picks of a micrograph, read once."""
        found = self._kept.get(row)
        if found is None:
            found = self._read(row)
            with self._lock:
                if row not in self._kept:
                    self._cells += len(found.row)
                self._kept[row] = found
                while self._cells > MOST_CELLS and len(self._kept) > 1:
                    self._cells -= len(self._kept.popitem(last=False)[1].row)
        return found

    def places(self, row: int, hands: Sequence[HandPick]) -> set[int]:
        """Places of the picks of a micrograph that were decided on by hand."""
        for hand in hands:
            if hand not in self._found:
                self._found[hand] = self._place(row, hand)
        return {self._found[hand] for hand in hands}


@dataclass(frozen=True)
class Changes:
    """Decisions on single micrographs and picks.

    Attributes
    ----------
    excluded
        Picks of the excluded micrographs, as parts to take off.
    picks, rows
        Their number, and the micrographs.
    accepted, rejected
        Picks that were decided by hand, None for none.
    missing
        Whether the picks of more micrographs are still to be read.
    """

    excluded: tuple[Part, ...]
    picks: int
    rows: NDArray[np.intp]
    accepted: Few | None
    rejected: Few | None
    missing: bool

    def hands(self) -> list[tuple[Few, bool]]:
        """List the picks decided by hand, with whether they were accepted."""
        both = ((self.rejected, False), (self.accepted, True))
        return [(few, chosen) for few, chosen in both if few is not None]


class Finder:
    """Finds the changes that settings make to what was binned.

    Parameters
    ----------
    axes, bins
        The grids, and the number of bins of defocus.
    binned
        Which micrographs were binned, bool `(micrograph,)`.
    rows
        Bins of single micrographs.
    sums
        Names of what is summed over accepted picks.
    """

    def __init__(
        self, axes: Axes, bins: int, binned: NDArray[np.bool_], rows: Rows, sums: frozenset[str] = frozenset()
    ) -> None:
        self._axes, self._bins, self._binned, self._rows, self._sums = axes, bins, binned, rows, sums
        self._known: OrderedDict[object, Changes] = OrderedDict()
        self._lock = RLock()

    def excluded(self, settings: SelectSettings) -> list[int]:
        """Micrographs that settings exclude."""
        numbers = self._rows.numbers
        return [numbers[name] for name in settings.exclude if name in numbers]

    def missing(self, settings: SelectSettings) -> list[int]:
        """Micrographs, excluded or with decisions by hand, whose picks were not read yet."""
        rows = dict.fromkeys([*self.excluded(settings), *self._decisions(settings.accept + settings.reject)])
        return [row for row in rows if self._binned[row] and not self._rows.has(row)]

    def of(self, settings: SelectSettings) -> Changes:
        """Find the changes, or remember them.

        Raises
        ------
        InputError
            If there is no pick where one was decided on by hand, or one was both accepted and rejected.
        """
        key = (settings.exclude, settings.accept, settings.reject)
        with self._lock:
            known = self._known.get(key)
            if known is None or known.missing:
                known = self._known[key] = self._find(settings)
                while len(self._known) > MOST_CHANGES:
                    self._known.popitem(last=False)
            return known

    def _find(self, settings: SelectSettings) -> Changes:
        excluded = self.excluded(settings)
        later = set(self.missing(settings)[AT_ONCE:])
        rows = np.array([row for row in excluded if self._binned[row] and row not in later], dtype=np.intp)
        lists = [self._rows.cells(int(row)) for row in rows]
        left_out = later.union(excluded)
        places = [self._places(hands, left_out) for hands in (settings.accept, settings.reject)]
        for row, place in sorted(places[0] & places[1]):
            raise InputError(
                f"accept, reject: pick {place} of {self._rows.names[row]!r} is in both; take it out of one"
            )
        hands = [self._few(found) for found in places]
        parts = (self._part(lists),) if lists else ()
        picks = sum(len(cells.row) for cells in lists)
        return Changes(parts, picks, rows, hands[0], hands[1], bool(later))

    def _decisions(self, hands: Sequence[HandPick]) -> dict[int, list[HandPick]]:
        """Decisions by hand per micrograph."""
        out: dict[int, list[HandPick]] = {}
        for hand in hands:
            if hand.micrograph not in self._rows.numbers:
                raise InputError(f"accept, reject: no micrograph named {hand.micrograph!r} in this project")
            out.setdefault(self._rows.numbers[hand.micrograph], []).append(hand)
        return out

    def _places(self, hands: Sequence[HandPick], left_out: Collection[int]) -> set[tuple[int, int]]:
        return {
            (row, place)
            for row, some in self._decisions(hands).items()
            if row not in left_out and self._binned[row]
            for place in self._rows.places(row, some)
        }

    def _few(self, places: set[tuple[int, int]]) -> Few | None:
        cells = []
        for row, place in sorted(places):
            found = self._rows.cells(row)
            cells.append(found.at(found.place == place))
        return Few(self._axes, Cells.joined(cells), self._bins) if cells else None

    def _part(self, lists: list[Cells]) -> Part:
        cells = Cells.joined(lists)
        if len(cells.row) <= MOST_LISTED:
            return Few(self._axes, cells, self._bins)
        tables = Tables.empty(self._axes, self._bins, "sure" in self._sums, "true" in self._sums)
        tables.add(cells)
        return tables.sums(keep=False)
