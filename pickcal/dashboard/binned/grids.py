"""Thresholds that are counted exactly: round numbers along each axis, and exact values that were proposed or stored."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pickcal.plots.style import robust_limits

Floats = NDArray[np.floating]
Indices = NDArray[np.intp]

MOST_STEPS = 500
POWER_EDGES = 64
MOST_BEYOND = 16
"""Edges between the usual powers and the highest one, where a few picks lie far out."""
BORDER_PARTS, BORDER_DIAMETERS = 8, 2


@dataclass(frozen=True, eq=False)
class Grid:
    """Thresholds along one axis.

    Attributes
    ----------
    edges
        Float64, strictly ascending, shape `(n,)`, at least one.
    regular
        Indices into `edges` of those that are evenly spaced (logarithmically for power), for pictures.
    """

    edges: Floats
    regular: Indices

    @classmethod
    def of(cls, regular: Iterable[float], extra: Iterable[float] = (), beyond: Iterable[float] = ()) -> Grid:
        """Make a grid of evenly spaced edges, extra ones that are to be exact, and some beyond the even ones."""
        even = np.unique(np.asarray(list(regular), dtype=np.float64))
        others = np.asarray([*extra, *beyond], dtype=np.float64)
        edges = np.union1d(even, others[np.isfinite(others)])
        return cls(edges, np.searchsorted(edges, even))

    @property
    def even(self) -> Floats:
        """The evenly spaced edges."""
        return np.asarray(self.edges[self.regular], dtype=np.float64)

    def index(self, value: float) -> int:
        """Index of the edge nearest to a value."""
        right = int(np.clip(np.searchsorted(self.edges, value), 1, max(len(self.edges) - 1, 1)))
        if len(self.edges) == 1:
            return 0
        return right if self.edges[right] - value < value - self.edges[right - 1] else right - 1

    def snap(self, value: float) -> float:
        """Edge nearest to a value."""
        return float(self.edges[self.index(value)])

    def holds(self, value: float) -> bool:
        """Whether a value is an edge, so that a threshold there is counted exactly."""
        return self.snap(value) == value


def score_grid(values: Floats, extra: Iterable[float] = (), most: int = MOST_STEPS, coarse: int = MOST_STEPS) -> Grid:
    """Grid of scores by the smallest step of 1, 2 or 5 times a power of ten with which there are not too many.

    Parameters
    ----------
    values
        A sample of the scores; NaN do not count. The grid covers their robust limits.
    extra
        Exact edges besides.
    most
        Most steps, default 500: there are between 200 and 500.
    coarse
        Most steps of a coarser grid of every so many edges, see `every`: the grid ends where that does. Default 500.
    """
    low, high = robust_limits(np.asarray(values, dtype=np.float64))
    width = max(high - low, 1e-6 * max(abs(low), abs(high)), 1e-9)
    step, digits = round_step(width / most)
    first, steps = math.floor(low / step), math.ceil(high / step) - math.floor(low / step)
    stride = every(steps, coarse)
    steps = -(-steps // stride) * stride
    return Grid.of((float(f"{number * step:.{digits}f}") for number in range(first, first + steps + 1)), extra)


def every(steps: int, most: int) -> int:
    """Find the least stride that cuts a number of steps to at most so many."""
    return max(1, -(-steps // most))


def round_step(least: float) -> tuple[float, int]:
    """Smallest step of 1, 2 or 5 times a power of ten that is not below `least`, and its digits after the point."""
    exponent = math.floor(math.log10(least))
    for factor in (1, 2, 5, 10):
        step = factor * 10.0**exponent
        if step >= least * (1 - 1e-9):
            break
    return step, max(0, -exponent)


def probability_grid(extra: Iterable[float] = ()) -> Grid:
    """Probabilities from 0 to 1 by 0.005, from 0.99 on by 0.001."""
    return Grid.of((i / 200 for i in range(201)), extra, (i / 1000 for i in range(990, 1001)))


def rate_grid(extra: Iterable[float] = ()) -> Grid:
    """Grid of false discovery rates from 0.001 to 0.1 by 0.001, on to 0.5 by 0.005."""
    return Grid.of((i / 1000 for i in range(1, 101)), extra, (i / 200 for i in range(21, 101)))


def power_grid(values: Floats, extra: Iterable[float] = ()) -> Grid:
    """Grid of power scores: 64 edges of three digits, even on a logarithmic scale, and some up to the highest.

    Parameters
    ----------
    values
        A sample of the scores; NaN, 0 and less do not count. The even edges cover the robust limits of their logarithm.
    extra
        Exact edges besides.
    """
    values = np.asarray(values, dtype=np.float64)
    values = values[np.isfinite(values) & (values > 0)]
    low, high = (math.exp(limit) for limit in robust_limits(np.log(values)))
    if high < low * 1.01:
        low, high = low / 1.1, high * 1.1
    even = [_three_digits(value) for value in np.geomspace(low, high, POWER_EDGES)]
    even[0], even[-1] = _three_digits(low, math.floor), _three_digits(high, math.ceil)
    highest = float(values.max(initial=high))
    ratio = max(even[-1] / even[-2], (highest / even[-1]) ** (1 / MOST_BEYOND))
    beyond, value = [], even[-1]
    while value < highest:
        value = _three_digits(value * ratio, math.ceil)
        beyond.append(value)
    return Grid.of(even, extra, beyond)


def _three_digits(value: float, to: object = None) -> float:
    exponent = math.floor(math.log10(value)) - 2
    number = (to if callable(to) else round)(value / 10.0**exponent)
    return float(f"{number}e{exponent}")


def border_grid(diameter: float, extra: Iterable[float] = ()) -> Grid:
    """Distances from the border from 0 to two diameters by an eighth of the diameter, Å, rounded to 1 Å.

    Parameters
    ----------
    diameter
        Of the particle, Å.
    extra
        Exact edges besides, Å.
    """
    count = BORDER_PARTS * BORDER_DIAMETERS
    return Grid.of((float(round(diameter * i / BORDER_PARTS)) for i in range(count + 1)), extra)
