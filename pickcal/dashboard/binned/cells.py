"""Where picks lie on the grids: bin numbers, and thresholds as steps between bins.

Bins count the thresholds that a value passes, so that a threshold accepts all bins from one on. An unknown main value
passes none; an unknown power passes both limits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pickcal.dashboard.binned.flat import FlatColumns
from pickcal.dashboard.binned.grids import Grid
from pickcal.dashboard.binned.reading import Values
from pickcal.dashboard.methods import MAIN, Method
from pickcal.errors import InputError
from pickcal.settings import SelectSettings

Floats = NDArray[np.floating]
Steps = tuple[tuple[int, float], ...]
"""Bins from which on is accepted, with weights: one, or two between which a threshold lies."""

ALL: Steps = ((0, 1.0),)
KNOWN: Steps = ((1, 1.0),)


@dataclass(frozen=True)
class Cells(FlatColumns):
    """Bin numbers of picks, shape `(n,)`; see `Values` for the others."""

    row: NDArray[np.int32]
    place: NDArray[np.int32]
    main: NDArray[np.int16]
    power: NDArray[np.int16]
    border: NDArray[np.int16]
    ncc: NDArray[np.int16]
    defocus: NDArray[np.int8]
    failed: NDArray[np.int8]
    sure: Floats
    junk: Floats
    counted: NDArray[np.bool_]
    true: NDArray[np.bool_]


@dataclass(frozen=True)
class Limits:
    """Thresholds as steps along the axes.

    Attributes
    ----------
    main, border
        From which bin on is accepted.
    low, high
        From which bin of power on is accepted, and from which on no more; () for no upper limit.
    exact
        Whether every threshold lies on an edge.
    """

    main: Steps = ALL
    low: Steps = KNOWN
    high: Steps = ()
    border: Steps = ALL
    exact: bool = True


@dataclass(frozen=True, eq=False)
class Axes:
    """The grids of a cube with what they bin.

    Attributes
    ----------
    method
        What the main axis is.
    main, power, border
        Grids of the thresholds; power None where there is no power score.
    ncc
        Edges of the main score in the score plane, even.
    defocus
        Bin of defocus of every micrograph of the project, int8.
    sized
        Whether the sizes of the micrographs are known, without which there are no distances from the border.
    """

    method: Method
    main: Grid
    power: Grid | None
    border: Grid
    ncc: Floats
    defocus: NDArray[np.int8]
    sized: bool = True

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of bins of main, power and border."""
        powers = 0 if self.power is None else len(self.power.edges)
        return len(self.main.edges) + 2, 2 * powers + 2, len(self.border.edges) + 1

    @property
    def falling(self) -> bool:
        """Whether low main values are the good ones."""
        return self.method == "fdr"

    def cells(self, values: Values) -> Cells:
        """Find the bins of picks."""
        return Cells(
            values.row,
            values.place,
            self._main(values.main),
            self._power(values.power),
            np.searchsorted(self.border.edges, values.border, side="right").astype(np.int16),
            np.searchsorted(self.ncc, values.ncc, side="right").astype(np.int16),
            self.defocus[values.row],
            values.failed,
            values.sure,
            values.junk,
            values.counted,
            values.true,
        )

    def _main(self, values: Floats) -> NDArray[np.int16]:
        """Bins of the main axis: 0 unknown, 1 below all edges."""
        # thresholds are compared in the precision of the scores
        edges = self.main.edges.astype(values.dtype)
        values, edges = (-values, -edges[::-1]) if self.falling else (values, edges)
        bins = 1 + np.searchsorted(edges, values, side="right")
        return np.where(np.isnan(values), 0, bins).astype(np.int16)

    def _power(self, values: Floats) -> NDArray[np.int16]:
        """Bins of power: 0 unknown, 1 below all edges, then in turn what is equal to an edge and what lies above it."""
        if self.power is None:
            return np.where(np.isnan(values), 0, 1).astype(np.int16)
        edges = self.power.edges.astype(values.dtype)
        both = np.column_stack([edges, np.nextafter(edges, np.asarray(np.inf, edges.dtype))]).ravel()
        bins = 1 + np.searchsorted(both, values, side="right")
        return np.where(np.isnan(values), 0, bins).astype(np.int16)

    def limits(self, settings: SelectSettings, ranges: Ranges) -> Limits:
        """Thresholds as steps along the axes; between edges with weights.

        Raises
        ------
        InputError
            If a threshold is on power or on a distance from the border and there are none.
        """
        threshold = getattr(settings, MAIN[self.method])
        low, high, edge = settings.min_power, settings.max_power, settings.edge
        if self.power is None and (low, high) != (None, None):
            raise InputError("min_power, max_power: these picks have no power score; 'pickcal score' gives them one")
        if edge is not None and not self.sized:
            raise InputError(
                "edge: the size of some micrographs is not known; import the table with --size ROWS COLUMNS"
            )
        main, border = ALL, ALL
        if threshold is not None:
            sign = -1.0 if self.falling else 1.0
            edges = np.sort(sign * self.main.edges)
            main = _steps(edges, sign * float(threshold), ranges.main, 1, 1)
        if edge is not None:
            border = _steps(self.border.edges, edge, ranges.border, 0, 1)
        powers = np.zeros(0) if self.power is None else self.power.edges
        lows = KNOWN if low is None else _steps(powers, low, ranges.power, 1, 2)
        highs = () if high is None else _steps(powers, high, ranges.power, 1, 2, 1)
        exact = all(len(steps) < 2 and all(w == 1.0 for _, w in steps) for steps in (main, lows, highs, border))
        return Limits(main, lows, highs, border, exact)


@dataclass(frozen=True)
class Ranges:
    """Lowest and highest values that were binned: main (with its sign turned where low is good), power and border."""

    main: tuple[float, float] = (np.inf, -np.inf)
    power: tuple[float, float] = (np.inf, -np.inf)
    border: tuple[float, float] = (np.inf, -np.inf)

    def widened(self, values: Values, falling: bool) -> Ranges:
        """Ranges that hold these values too."""
        main = -values.main if falling else values.main
        return Ranges(
            *(_widened(*pair) for pair in ((self.main, main), (self.power, values.power), (self.border, values.border)))
        )


def _widened(known: tuple[float, float], values: Floats) -> tuple[float, float]:
    values = values[np.isfinite(values)]
    return (
        min(known[0], float(values.min(initial=np.inf))),
        max(known[1], float(values.max(initial=-np.inf))),
    )


def _steps(edges: Floats, value: float, seen: tuple[float, float], first: int, stride: int, beyond: int = 0) -> Steps:
    """Bins from which on a threshold accepts.

    Parameters
    ----------
    edges
        Ascending.
    value
        The threshold.
    seen
        Lowest and highest value that was binned.
    first, stride, beyond
        Passing edge k leads into bin `first + 1 + k stride + beyond`; `first` is the bin below all edges.
    """
    right = int(np.searchsorted(edges, value))
    if right < len(edges) and edges[right] == value:
        return ((first + 1 + right * stride + beyond, 1.0),)
    if value > seen[1]:
        return ()
    if value <= seen[0]:
        return ((first, 1.0),)
    start, below = (first, seen[0]) if right == 0 else (first + 1 + (right - 1) * stride + beyond, edges[right - 1])
    if right == len(edges):
        part = (value - below) / max(seen[1] - below, 1e-300)
        return ((start, 1.0 - part),)
    part = (value - below) / (edges[right] - below)
    return ((start, 1.0 - part), (first + 1 + right * stride + beyond, part))


def strongest(steps: Steps) -> int | None:
    """Bin from which on is accepted; of two the one nearer to the threshold. None where nothing is."""
    return max(steps, key=lambda step: step[1])[0] if steps else None


def reaches(bins: NDArray[np.integer], steps: Steps) -> NDArray[np.bool_]:
    """Which bins lie where steps begin, or above; see `strongest`."""
    first = strongest(steps)
    return np.zeros(len(bins), dtype=bool) if first is None else np.asarray(bins >= first)
