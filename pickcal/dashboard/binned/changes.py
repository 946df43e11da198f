"""Excluded micrographs and picks decided by hand: what they add up to, so that counts can be put right."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator, Sequence, Set
from contextlib import suppress
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
    Sums,
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
"""Picks of single micrographs that are kept in memory, some 30 bytes each."""
MOST_SUMS = 2
"""Sets of many excluded micrographs whose sums are kept, some 100 MB each."""
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


@dataclass(frozen=True)
class Excluded:
    """Excluded micrographs with the sums over their picks, which stay when the picks themselves are no longer kept."""

    rows: frozenset[int] = frozenset()
    picks: int = 0
    sums: Sums | None = None


class Rows:
    """Bins of the picks of single micrographs, and sums over excluded ones, kept for all visitors.

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
        self._picked: dict[tuple[int, int], Cells] = {}
        self._excluded: list[Excluded] = []
        self._cells, self._lock = 0, RLock()

    def has(self, row: int) -> bool:
        """Whether the picks of a micrograph are kept."""
        return row in self._kept

    def cells(self, row: int) -> Cells:
        """Bins of the picks of a micrograph; those that were asked for last are kept."""
        found = self._kept.get(row)
        if found is None:
            found = self._read(row)
        with self._lock:
            if row not in self._kept:
                self._cells += len(found.row)
            self._kept[row] = found
            self._kept.move_to_end(row)
            while self._cells > MOST_CELLS and len(self._kept) > 1:
                self._cells -= len(self._kept.popitem(last=False)[1].row)
        return found

    def knows(self, hands: Sequence[HandPick]) -> bool:
        """Whether the picks that were decided on by hand were found before."""
        return all(hand in self._found for hand in hands)

    def places(self, row: int, hands: Sequence[HandPick]) -> set[int]:
        """Places of the picks of a micrograph that were decided on by hand; their bins are kept, see `pick`."""
        for hand in hands:
            if hand not in self._found:
                place, cells = self._place(row, hand), self.cells(row)
                self._picked[row, place] = cells.at(cells.place == place)
                self._found[hand] = place
        return {self._found[hand] for hand in hands}

    def pick(self, row: int, place: int) -> Cells:
        """Bins of one pick that `places` has found."""
        return self._picked[row, place]

    def nearest(self, wanted: frozenset[int]) -> Excluded:
        """Find the sums from which the fewest micrographs are to be taken in or left out to have the wanted ones."""
        with self._lock:
            return min((Excluded(), *self._excluded), key=lambda found: len(found.rows ^ wanted))

    def keep(self, found: Excluded) -> None:
        """Keep sums over excluded micrographs."""
        with self._lock:
            self._excluded = [*self._excluded, found][-MOST_SUMS:]


@dataclass(frozen=True)
class Changes:
    """Decisions on single micrographs and picks.

    Attributes
    ----------
    excluded
        Picks of the excluded micrographs, as parts with the sign with which they are to be added.
    picks, rows
        Their number, and the micrographs.
    accepted, rejected
        Picks that were decided by hand, None for none.
    missing
        Whether the picks of more micrographs are still to be read.
    """

    excluded: tuple[tuple[Part, int], ...]
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

    def missing(self, settings: SelectSettings) -> list[int]:
        """Micrographs whose picks are to be read, as they are excluded, taken back in or have decisions by hand."""
        wanted = self._excluded(settings)
        rows = [row for row in sorted(wanted ^ self._rows.nearest(wanted).rows) if not self._rows.has(row)]
        for row, hands in self._decisions(settings.accept + settings.reject).items():
            if self._binned[row] and not (row in wanted or self._rows.has(row) or self._rows.knows(hands)):
                rows.append(row)
        return list(dict.fromkeys(rows))

    def prepare(self, settings: SelectSettings) -> Generator[float, None, None]:
        """Read what is missing; the picks of many micrographs are summed up, not kept. Gives the progress, 0 to 1."""
        wanted = self._excluded(settings)
        start = self._rows.nearest(wanted)
        steps, listed = sorted(wanted ^ start.rows), 0
        hands = [item for item in self._decisions(settings.accept + settings.reject).items() if item[0] not in wanted]
        for i, (row, some) in enumerate(hands):
            if self._binned[row]:
                # a decision on a pick that is gone is refused when the counts are asked for
                with suppress(InputError):
                    self._rows.places(row, some)
            yield (i + 1) / (len(hands) + len(steps))
        for i, row in enumerate(steps):
            listed += len(self._rows.cells(row).row)
            yield (len(hands) + i + 1) / (len(hands) + len(steps))
            if listed > MOST_LISTED:
                self._rows.keep((yield from self._summed(start, wanted)))
                return

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
        wanted = self._excluded(settings)
        later = set(self.missing(settings)[AT_ONCE:])
        start = self._rows.nearest(wanted)
        cells = {row: self._rows.cells(row) for row in sorted((wanted ^ start.rows) - later)}
        if sum(len(found.row) for found in cells.values()) > MOST_LISTED:
            if later:
                # while they are still being read
                later, cells = later.union(cells), {}
            else:
                start, cells = _at_once(self._summed(start, wanted)), {}
                self._rows.keep(start)
        places = [self._places(hands, later | wanted) for hands in (settings.accept, settings.reject)]
        for row, place in sorted(places[0] & places[1]):
            raise InputError(
                f"accept, reject: pick {place} of {self._rows.names[row]!r} is in both; take it out of one"
            )
        accepted, rejected = (self._few([self._rows.pick(*place) for place in sorted(found)]) for found in places)
        more = self._few([found for row, found in cells.items() if row in wanted])
        back = self._few([found for row, found in cells.items() if row not in wanted])
        parts = ((start.sums, -1), (more, -1), (back, 1))
        picks = start.picks + sum(len(found.row) * (1 if row in wanted else -1) for row, found in cells.items())
        rows = np.array(sorted(start.rows ^ cells.keys()), dtype=np.intp)
        known = tuple((part, sign) for part, sign in parts if part is not None)
        return Changes(known, picks, rows, accepted, rejected, bool(later))

    def _excluded(self, settings: SelectSettings) -> frozenset[int]:
        """Binned micrographs that settings exclude."""
        numbers = self._rows.numbers
        rows = (numbers[name] for name in settings.exclude if name in numbers)
        return frozenset(row for row in rows if self._binned[row])

    def _summed(self, start: Excluded, wanted: frozenset[int]) -> Generator[float, None, Excluded]:
        """Sum up the picks of excluded micrographs, from sums over others that are near to these."""
        tables: dict[bool, Tables] = {}
        steps, picks, sums = sorted(wanted ^ start.rows), start.picks, start.sums
        for i, row in enumerate(steps):
            more, cells = row in wanted, self._rows.cells(row)
            if more not in tables:
                tables[more] = Tables.empty(self._axes, self._bins, "sure" in self._sums, "true" in self._sums)
            tables[more].add(cells)
            picks += len(cells.row) * (1 if more else -1)
            yield (i + 1) / len(steps)
        for more, table in tables.items():
            found = table.sums(keep=False)
            sums = found if sums is None else sums.added(found, 1 if more else -1)
        return Excluded(wanted, picks, sums)

    def _decisions(self, hands: Sequence[HandPick]) -> dict[int, list[HandPick]]:
        """Decisions by hand per micrograph."""
        out: dict[int, list[HandPick]] = {}
        for hand in hands:
            if hand.micrograph not in self._rows.numbers:
                raise InputError(f"accept, reject: no micrograph named {hand.micrograph!r} in this project")
            out.setdefault(self._rows.numbers[hand.micrograph], []).append(hand)
        return out

    def _places(self, hands: Sequence[HandPick], left_out: Set[int]) -> set[tuple[int, int]]:
        return {
            (row, place)
            for row, some in self._decisions(hands).items()
            if row not in left_out and self._binned[row]
            for place in self._rows.places(row, some)
        }

    def _few(self, cells: Sequence[Cells]) -> Few | None:
        return Few(self._axes, Cells.joined(cells), self._bins) if cells else None


def _at_once(steps: Generator[float, None, Excluded]) -> Excluded:
    """Take all steps, and give what comes out of them."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            found: Excluded = end.value
            return found
