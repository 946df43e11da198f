"""Expected: how many picks a threshold on probability or false discovery rate accepts, and how many of them are false.

Probabilities of all picks are sorted within each micrograph once, with running sums of what is expected to be noise
and junk; any threshold is then a binary search over all micrographs at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pickcal.calibration.mixture import PICK_VARIABLES, probabilities
from pickcal.calibration.mixture.observations import valid_places
from pickcal.project import Project
from pickcal.stages.calibrate import blocks_of

Floats = NDArray[np.floating]

RATES = (0.01, 0.05, 0.1)
PROBABILITIES = (0.5, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class SortedProbabilities:
    """Probabilities of all picks, micrograph after micrograph, the likeliest of each first.

    Attributes
    ----------
    start
        Place of the first pick of every micrograph, and the number of all picks; shape `(micrograph + 1,)`.
    probability, q_value
        Of being a particle, falling, and rising with it; float32 `(n,)`.
    noise, junk
        Expected number among the picks of the micrograph up to and with this one, float32 `(n,)`.
    """

    start: NDArray[np.int64]
    probability: NDArray[np.float32]
    q_value: NDArray[np.float32]
    noise: NDArray[np.float32]
    junk: NDArray[np.float32]

    def accepted(self, probability: float | None = None, fdr: float | None = None) -> NDArray[np.int64]:
        """Count per micrograph the picks that `select` accepts with these thresholds; None does not reject."""
        low, high = self.start[:-1].copy(), self.start[1:].copy()
        last = max(len(self.probability) - 1, 0)
        if not len(self.probability):
            return np.zeros(len(low), dtype=np.int64)
        for _ in range(int(np.diff(self.start).max()).bit_length()):
            middle = (low + high) // 2
            place = np.minimum(middle, last)
            good = middle < high
            if probability is not None:
                good &= self.probability[place] >= probability
            if fdr is not None:
                good &= self.q_value[place] <= fdr
            low = np.where(good, middle + 1, low)
            high = np.where(good, high, middle)
        return np.asarray(low - self.start[:-1])

    def false_picks(self, accepted: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """Give the expected noise and junk among the first so many picks of each micrograph."""
        some = accepted > 0
        out = []
        for sums in (self.noise, self.junk):
            values = np.zeros(len(accepted))
            values[some] = sums[self.start[:-1][some] + accepted[some] - 1]
            out.append(values)
        return out[0], out[1]


def sorted_probabilities(project: Project, picks: str) -> SortedProbabilities | None:
    """Sort the probabilities of some picks, read in blocks of micrographs; None where there is no mixture.

    Raises
    ------
    ProjectError
        If there are no such picks.
    """
    project.require("picks", picks)
    mixture = project.mixture(picks)
    if mixture is None:
        return None
    table = project.picks(picks)[list(PICK_VARIABLES)]
    micrographs = project.table()
    counts, parts = [np.zeros(1, dtype=np.int64)], []
    for first, last in blocks_of(project.count, int(table.sizes["pick"])):
        rows = slice(first, last)
        part = table.isel(micrograph=rows).load()
        found = probabilities(part, micrographs.isel(micrograph=rows), mixture.isel(micrograph=rows))
        valid = valid_places(part)
        index = np.repeat(np.arange(len(valid)), valid.sum(axis=1))
        probability, junk, q_value = (found[name].values[valid] for name in ("probability", "junk", "q_value"))
        order = np.lexsort((q_value, -probability, index))
        counts.append(valid.sum(axis=1))
        noise = 1.0 - probability.astype(np.float64) - junk
        sums = [_running(values[order], counts[-1]) for values in (noise, junk.astype(np.float64))]
        parts.append((probability[order], q_value[order], *sums))
    columns = [np.concatenate(column).astype(np.float32) for column in zip(*parts, strict=True)]
    return SortedProbabilities(np.cumsum(np.concatenate(counts)), *columns)


def _running(values: Floats, counts: NDArray[np.int64]) -> Floats:
    """Sum values up to each place within its own row."""
    sums = np.cumsum(values)
    before = np.concatenate([[0.0], sums])[np.cumsum(counts) - counts]
    return np.asarray(sums - np.repeat(before, counts))


def threshold_table(found: SortedProbabilities) -> list[dict[str, float | str]]:
    """List what usual thresholds accept, and how many of it are expected to be false.

    Returns
    -------
    list of dict
        `kind` ("false discovery rate" or "probability"), `value` (fraction), `accepted`, `noise`, `junk`, `rate`
        (expected false picks over accepted ones; 0 where nothing is accepted).
    """
    rows: list[dict[str, float | str]] = []
    thresholds = [("false discovery rate", value) for value in RATES] + [
        ("probability", value) for value in PROBABILITIES
    ]
    for kind, value in thresholds:
        accepted = found.accepted(fdr=value) if kind == "false discovery rate" else found.accepted(probability=value)
        noise, junk = (float(part.sum()) for part in found.false_picks(accepted))
        total = int(accepted.sum())
        rate = (noise + junk) / total if total else 0.0
        rows.append({"kind": kind, "value": value, "accepted": total, "noise": noise, "junk": junk, "rate": rate})
    return rows
