"""Counts of accepted picks under any threshold, quick enough to follow a slider.

Picks are stored best first and calibration keeps the order within a micrograph, so the number of accepted picks is
the place of the threshold in each row: a binary search over all rows at once, whose cost hardly grows with the picks.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

MOST_SAMPLED = 1_000_000


@dataclass(frozen=True)
class SortedScores:
    """Main scores of all micrographs, best first, with what calibrates them.

    Attributes
    ----------
    ncc
        Raw scores, `(micrograph, pick)`, falling along rows.
    count
        Places with a score per row.
    shift, gain, pivot
        Calibrated = pivot + (ncc - shift - pivot) gain.
    """

    ncc: Floats
    count: NDArray[np.integer]
    shift: Floats
    gain: Floats
    pivot: float

    def accepted(self, threshold: float) -> NDArray[np.int64]:
        """Count per micrograph the picks whose calibrated score is not below the threshold."""
        rows = np.arange(len(self.count))
        low, high = np.zeros(len(rows), dtype=np.int64), self.count.astype(np.int64)
        last = max(self.ncc.shape[1] - 1, 0)
        for _ in range(int(self.count.max(initial=0)).bit_length()):
            middle = (low + high) // 2
            good = self.at(rows, np.minimum(middle, last)) >= threshold
            good &= middle < high
            low = np.where(good, middle + 1, low)
            high = np.where(good, high, middle)
        return low

    def at(self, rows: NDArray[np.intp], places: NDArray[np.integer]) -> Floats:
        """Calibrated scores at places of rows, by the very operations of `calibration.calibrated`."""
        values = self.ncc[rows, places] - self.shift[rows] - self.pivot
        return np.asarray(self.pivot + values * self.gain[rows])

    def sample(self) -> Floats:
        """Calibrated scores of all picks, or of evenly spaced ones of every micrograph, at most about a million.

        The best and the last of every micrograph are always among them.
        """
        step = max(1, int(self.count.sum()) // MOST_SAMPLED)
        found = []
        for row in np.flatnonzero(self.count > 0):
            places = np.append(np.arange(0, self.count[row] - 1, step), self.count[row] - 1)
            found.append(self.at(np.full(len(places), row), places))
        return np.concatenate(found) if found else np.empty(0)


@dataclass(frozen=True)
class Likely:
    """What thresholds on probability and false discovery rate accept, per micrograph.

    Attributes
    ----------
    accepted
        Number of picks.
    noise, junk
        Expected number of either among them.
    """

    accepted: NDArray[np.int64]
    noise: Floats
    junk: Floats
