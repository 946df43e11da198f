"""All picks, binned once: what any thresholds leave of them, in the same short time for a million or a hundred million.

A cube is a finished picture of what was binned so far: binning replaces it by a fuller one. Decisions by hand and
excluded micrographs are put right exactly, from lists of the picks concerned.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pickcal.dashboard.binned.cells import Limits
from pickcal.dashboard.binned.changes import Changes, Few, Finder, Rows
from pickcal.dashboard.binned.filling import Binned
from pickcal.dashboard.binned.tables import EXPECTED, Total
from pickcal.dashboard.methods import Method, fixed_of
from pickcal.selection import ACCEPTED, BY_HAND, REASONS
from pickcal.settings import SelectSettings

Floats = NDArray[np.floating]

MICROGRAPH = REASONS.index("micrograph")


@dataclass(frozen=True)
class Counts:
    """What thresholds make of all picks.

    Attributes
    ----------
    reasons
        Picks per reason in the order of `selection.REASONS`, int64; the first are accepted.
    accepted, micrographs
        Accepted picks per bin of defocus, and the finished micrographs that they are on, excluded ones left out; the
        last bin is of micrographs without defocus.
    noise, junk
        Expected false picks among the accepted ones; NaN without a mixture.
    true, counted, particles
        Accepted picks that are true, accepted ones of which truth tells, and true particles; 0 without truth.
    exact
        Whether every number is exact: all picks are binned and the thresholds lie on edges of the grids. Otherwise
        they are estimates, linear between edges.
    """

    reasons: NDArray[np.int64]
    accepted: NDArray[np.int64]
    micrographs: NDArray[np.int64]
    noise: float
    junk: float
    true: int
    counted: int
    particles: int
    exact: bool


@dataclass(frozen=True)
class Plane:
    """Numbers of picks per main score and power: all that pass the fixed thresholds, and the accepted ones.

    Attributes
    ----------
    ncc, power
        Edges, shapes `(n + 1,)` and `(m + 1,)`; those of power are even on a logarithmic scale.
    all, accepted
        float32 `(m, n)`: rows are powers.
    ncc_all, ncc_accepted
        Numbers per main score whatever the power, shape `(n,)`.
    power_all, power_accepted
        Numbers per power whatever the main score, shape `(m,)`.
    beyond
        Picks that lie outside the plane, those without power included.
    """

    ncc: Floats
    power: Floats
    all: NDArray[np.float32]
    accepted: NDArray[np.float32]
    ncc_all: Floats
    ncc_accepted: Floats
    power_all: Floats
    power_accepted: Floats
    beyond: int


class Cube:
    """Numbers of picks under any thresholds of a method.

    Parameters
    ----------
    method, fixed
        What the main threshold is on, and the thresholds that were applied on binning.
    binned
        What was binned.
    defocus
        Edges of the bins of defocus, µm, shape `(bins + 1,)`: equal numbers of micrographs, at most 12. One more bin
        holds the micrographs without defocus.
    rows
        Bins of single micrographs.
    finished
        Which micrographs are finished, bool `(micrograph,)`.
    particles
        True particles; 0 without truth.

    Attributes
    ----------
    main, power, border
        Grids of the thresholds; power None without a power score.
    micrographs
        Finished micrographs per bin of defocus, the last without defocus; int64.
    classes
        Slices of the bins for low, middle and high defocus.
    binned, complete
        Number of micrographs that were binned, and whether these are all finished ones.
    frames
        float32 (9, power, score): densities on the way from raw to calibrated scores, of a sample scaled to all picks,
        on the edges of the plane; None without a fit.
    """

    def __init__(
        self,
        method: Method,
        fixed: SelectSettings,
        binned: Binned,
        defocus: Floats,
        rows: Rows,
        finished: NDArray[np.bool_],
        particles: int = 0,
    ) -> None:
        self.method, self.fixed, self.defocus = method, fixed, defocus
        axes = binned.axes
        self.main, self.power, self.border = axes.main, axes.power, axes.border
        self._content, self._particles, self._axes = binned, particles, axes
        self._bins = binned.sums.deep.shape[3]
        self._changes = Finder(axes, self._bins, binned.rows, rows, frozenset(binned.sums.expected))
        self.micrographs = np.bincount(axes.defocus[finished], minlength=self._bins).astype(np.int64)
        self._done = np.bincount(axes.defocus[binned.rows], minlength=self._bins)
        self.classes = _classes(self._bins - 1)
        self.binned = int(binned.rows.sum())
        self.complete = bool((binned.rows == finished).all())
        self.frames = binned.frames
        picks = binned.sums.picks
        self._scale = 1.0 if self.complete else binned.total / max(picks, 1)

    def counts(self, settings: SelectSettings) -> Counts:
        """Count picks per reason under thresholds.

        Parameters
        ----------
        settings
            Thresholds; their fixed part must be that of the cube.

        Raises
        ------
        InputError
            If there is no pick where one was decided on by hand, or a threshold is on something that these picks lack.
        """
        limits, changes = self._limits(settings), self._changes.of(settings)
        total = self._content.sums.total(limits)
        reasons, accepted = self._scale * total.reasons, self._scale * total.accepted
        expected = {name: self._scale * value for name, value in total.expected.items()}
        for part, sign in changes.excluded:
            _add(reasons, accepted, expected, part.total(limits), sign)
        reasons[MICROGRAPH] += changes.picks
        for few, chosen in changes.hands():
            _add(reasons, accepted, expected, few.total(limits), -1)
            _add(reasons, accepted, expected, _decided(few, ACCEPTED if chosen else BY_HAND), 1)
        sure, junk = expected.get("sure", np.nan), expected.get("junk", np.nan)
        whole = np.maximum(np.rint(reasons), 0).astype(np.int64)
        return Counts(
            whole,
            np.maximum(np.rint(accepted), 0).astype(np.int64),
            self.micrographs - self._excluded(changes),
            float(max(reasons[ACCEPTED] - sure - junk, 0.0)) if np.isfinite(sure) else np.nan,
            float(max(junk, 0.0)) if np.isfinite(junk) else np.nan,
            round(expected.get("true", 0)),
            round(expected.get("counted", 0)),
            self._particles,
            limits.exact and self.complete and not changes.missing,
        )

    def curve(self, settings: SelectSettings) -> Floats:
        """Count accepted picks per micrograph against the main threshold, at low, middle and high defocus.

        Parameters
        ----------
        settings
            The other limits.

        Returns
        -------
        ndarray
            Shape `(3, len(main.edges))`: with every edge of the main grid as threshold. NaN without micrographs.
        """
        limits, changes = self._limits(settings), self._changes.of(settings)
        along = self._content.sums.along(limits)
        for part, sign in changes.excluded:
            along = along + sign * part.along(limits)
        for few, chosen in changes.hands():
            along = along - few.along(limits)
            along += np.bincount(few.cells.defocus, minlength=self._bins) if chosen else 0
        micrographs = self._done - self._excluded(changes)
        edges = along[2:][::-1] if self._axes.falling else along[2:]
        out = np.full((len(self.classes), len(edges)), np.nan)
        for i, bins in enumerate(self.classes):
            if micrographs[bins].sum() > 0:
                out[i] = edges[:, bins].sum(axis=1) / micrographs[bins].sum()
        return np.asarray(out)

    def plane(self, settings: SelectSettings) -> Plane:
        """Density of the picks in the plane of main score and power, and of the accepted ones.

        Of a threshold between edges the nearer one is taken. For probabilities the accepted numbers of single cells
        assume that the distance from the border does not hang on the score.
        """
        limits, changes = self._limits(settings), self._changes.of(settings)
        both = []
        for wanted in (None, limits):
            table = self._scale * self._content.sums.plane(wanted)
            if wanted is not None:
                for part, sign in changes.excluded:
                    table = table + sign * part.plane(wanted)
                for few, chosen in changes.hands():
                    table = table - few.plane(wanted) + (few.plane(None) if chosen else 0)
            both.append(np.maximum(table, 0.0))
        every, accepted = both
        inside = slice(2, -1), slice(1, -1)
        power = np.zeros(0) if self.power is None else self.power.even
        return Plane(
            self._axes.ncc,
            power,
            every[inside].astype(np.float32),
            accepted[inside].astype(np.float32),
            every.sum(axis=0)[inside[1]],
            accepted.sum(axis=0)[inside[1]],
            every.sum(axis=1)[inside[0]],
            accepted.sum(axis=1)[inside[0]],
            round(float(every.sum() - every[inside].sum())),
        )

    def stepped(self, value: float | None, steps: int) -> float:
        """Edge of the main grid so many steps from a value; more is stricter. Without a value: from the laxest."""
        edges = self.main.edges
        sign = -1 if self._axes.falling else 1
        if value is None:
            place = (len(edges) if sign < 0 else -1) + sign * steps
        elif self.main.holds(value):
            place = self.main.index(value) + sign * steps
        else:
            right = int(np.searchsorted(edges, value))
            place = right + sign * steps - (1 if sign * steps > 0 else 0)
        return float(edges[int(np.clip(place, 0, len(edges) - 1))])

    def pending(self, settings: SelectSettings) -> int:
        """Count micrographs, excluded or with decisions by hand, that `prepare` is to read for exact counts."""
        return len(self._changes.missing(settings))

    def prepare(self, settings: SelectSettings) -> Generator[float, None, None]:
        """Read the picks of excluded micrographs and of those with decisions by hand, step by step.

        A few are read when they are first counted; the counts leave out more than that, and are not exact, until they
        are prepared.

        Yields
        ------
        float
            Progress, 0 to 1.
        """
        yield from self._changes.prepare(settings)

    def _excluded(self, changes: Changes) -> NDArray[np.int64]:
        """Count per bin of defocus the excluded micrographs whose picks are taken off."""
        return np.bincount(self._axes.defocus[changes.rows], minlength=self._bins).astype(np.int64)

    def _limits(self, settings: SelectSettings) -> Limits:
        if fixed_of(settings, self.method) != self.fixed:
            raise AssertionError(f"thresholds of a cube of other fixed ones: {settings!r}, {self.fixed!r}")
        return self._axes.limits(settings, self._content.ranges)


def _add(reasons: Floats, accepted: Floats, expected: dict[str, float], total: Total, sign: int) -> None:
    reasons += sign * total.reasons
    accepted += sign * total.accepted
    for name in expected:
        expected[name] += sign * total.expected[name]


def _decided(few: Few, reason: int) -> Total:
    """Sum up picks decided by hand."""
    cells = few.cells
    every = Total(np.zeros(len(REASONS)), np.zeros(few.bins), {})
    every.reasons[reason] = len(cells.row)
    chosen = reason == ACCEPTED
    if chosen:
        every.accepted[:] = np.bincount(cells.defocus, minlength=few.bins)
    sums = {name: float(getattr(cells, name).sum(dtype=np.float64)) if chosen else 0.0 for name in EXPECTED}
    return Total(every.reasons, every.accepted, sums)


def _classes(bins: int) -> tuple[slice, slice, slice]:
    """Slices of bins for low, middle and high defocus: thirds, or single bins where there are less than three."""
    if bins < 3:
        return slice(0, 1), slice(bins // 2, bins // 2 + 1), slice(max(bins - 1, 0), max(bins, 1))
    ends = [round(bins * i / 3) for i in range(4)]
    return slice(ends[0], ends[1]), slice(ends[1], ends[2]), slice(ends[2], ends[3])
