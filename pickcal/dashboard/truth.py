"""Truth, when given: which picks are true particles, so that precision and recall follow the thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from pickcal.project import Project
from pickcal.settings import EvaluateSettings
from pickcal.stages.evaluate import Truth, labels_of, read_truth


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


class TrueRows(Protocol):
    """Truth of some picks, by row of the project's table."""

    def get(self, row: int, /) -> TrueRow | None:
        """Truth of a finished micrograph; None where truth tells nothing of it."""


class LiveTruth:
    """True particles or hand picks beside a project, which may grow.

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
        self._project, self._path = project, path
        self._truth = read_truth(project, path)
        self._matched: dict[str, MatchedRows] = {}

    def of(self, picks: str) -> TrueRows:
        """Truth of some picks, matched as it is asked for and kept until they are forgotten."""
        return self._matched.setdefault(picks, MatchedRows(self, self._project, picks))

    def forget(self, picks: str) -> None:
        """Forget what was matched with picks that have changed."""
        self._matched.pop(picks, None)

    def of_row(self, row: int) -> Truth:
        """Truth of all micrographs; read again where a row has been added to the project since."""
        if row >= len(self._truth.positions):
            self._truth = read_truth(self._project, self._path)
        return self._truth


class MatchedRows:
    """Truth of some picks; all that are finished are matched when the first of them is asked for.

    Parameters
    ----------
    truth, project, picks
        What is matched with what.
    settings
        How far a pick may be from a particle to count as it.
    """

    def __init__(
        self, truth: LiveTruth, project: Project, picks: str, settings: EvaluateSettings = EvaluateSettings()
    ) -> None:
        self._truth, self._project, self._picks, self._settings = truth, project, picks, settings
        self._known: dict[int, TrueRow] = {}

    def get(self, row: int, /) -> TrueRow | None:
        """Truth of a finished micrograph; None where truth tells nothing of it."""
        if row not in self._known:
            truth = self._truth.of_row(row)
            if truth.positions[row] is None:
                return None
            self._match(truth)
        return self._known.get(row)

    def _match(self, truth: Truth) -> None:
        left = [None if row in self._known else positions for row, positions in enumerate(truth.positions)]
        labels, order = labels_of(self._project, self._picks, Truth(left), self._settings)
        places = int(self._project.picks(self._picks).sizes["pick"])
        for entry, row in zip(labels, order, strict=True):
            counted, true = np.zeros(places, dtype=bool), np.zeros(places, dtype=bool)
            counted[entry.counted] = True
            true[entry.counted] = entry.true
            self._known[int(row)] = TrueRow(counted, true, entry.particles)
