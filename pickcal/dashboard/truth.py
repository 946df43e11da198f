"""Truth, when given: which picks are true particles, so that precision and recall follow the thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pickcal.project import Project
from pickcal.schema import Status
from pickcal.settings import EvaluateSettings
from pickcal.stages.evaluate import labels_of, read_truth


@dataclass(frozen=True)
class TrueRow:
    """Truth of one micrograph.

    Attributes
    ----------
    counted
        Places of the picks that count: those at the rim of the labelled area do not; bool `(pick,)`.
    true
        Which picks are true, bool `(pick,)`.
    particles
        Number of true particles.
    """

    counted: NDArray[np.bool_]
    true: NDArray[np.bool_]
    particles: int


class LiveTruth:
    """True particles or hand picks beside a project.

    Parameters
    ----------
    project
        The project.
    path
        STAR file; see `stages.evaluate.read_truth`.

    Raises
    ------
    InputError
        If no micrograph of the file is in the project.
    """

    def __init__(self, project: Project, path: Path) -> None:
        self._project = project
        self._truth = read_truth(project, path)

    def of(self, picks: str, settings: EvaluateSettings = EvaluateSettings()) -> dict[int, TrueRow]:
        """Match some picks with truth: one entry for each finished micrograph that truth tells of."""
        told = np.array([positions is not None for positions in self._truth.positions])
        if not (told & (self._project.done(f"picks/{picks}") == Status.DONE)).any():
            return {}
        labels, order = labels_of(self._project, picks, self._truth, settings)
        places = int(self._project.picks(picks).sizes["pick"])
        out = {}
        for entry, row in zip(labels, order, strict=True):
            counted, true = np.zeros(places, dtype=bool), np.zeros(places, dtype=bool)
            counted[entry.counted] = True
            true[entry.counted] = entry.true
            out[int(row)] = TrueRow(counted, true, entry.particles)
        return out
