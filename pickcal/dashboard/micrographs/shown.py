"""Picks of the few micrographs on the screen, judged exactly, by the very code that makes a selection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Lock
from typing import Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from pickcal.calibration import calibrated_scores
from pickcal.calibration.mixture import PICK_VARIABLES, probabilities
from pickcal.dashboard.micrographs.images import Recent
from pickcal.errors import InputError
from pickcal.project import Project
from pickcal.schema import Status
from pickcal.selection import ACCEPTED, Columns, check_names, reason_counts, settings_of
from pickcal.settings import SelectSettings

V = TypeVar("V")
Floats = NDArray[np.floating]

ROW_BYTES = 64 << 20
MOST_PICKS = 3
LIKELIHOOD = ("probability", "junk", "q_value")
PER_PICK = ("x", "y", "ncc", "power", "calibrated_ncc", "calibrated_power", *LIKELIHOOD)


class PickRows:
    """Picks of single micrographs, read when they are wanted; the latest are kept, for all visitors and threads.

    Calibration and table are read once: `SHARED_ROWS` makes a new one when they have changed.

    Parameters
    ----------
    project, picks
        Where the picks are.
    most
        Bytes to keep at most. Default 64 MB, some 200 micrographs of 5,000 picks.

    Raises
    ------
    ProjectError
        If there are no such picks.
    """

    def __init__(self, project: Project, picks: str, most: int = ROW_BYTES) -> None:
        project.require("picks", picks)
        self.calibration, self.mixture = project.calibration(picks), project.mixture(picks)
        self.micrographs = project.table()
        self.names = [str(name) for name in self.micrographs["name"].values]
        self.known = frozenset(self.names)
        pixel = self.micrographs["pixel_size"].values
        self.width = self.micrographs["width"].values
        self.last = np.stack([(self.micrographs[side].values - 1) * pixel for side in ("width", "height")])
        self._picks = project.picks(picks)[list(PICK_VARIABLES)]
        self.attributes = dict(self._picks.attrs)
        self._recent: Recent[dict[str, Any]] = Recent(most, _bytes)

    @property
    def why(self) -> str:
        """Why there are no probabilities, where there are none."""
        fit = self.calibration
        return "they are not calibrated" if fit is None else str(fit.attrs.get("probability", "no mixture"))

    def read(self, rows: Sequence[int]) -> list[dict[str, Any]]:
        """Columns of some micrographs, cut to their number of picks.

        Parameters
        ----------
        rows
            Rows of the project's table.

        Returns
        -------
        list of dict
            `x`, `y` (Å), `ncc`, `power`, `calibrated_ncc`, `calibrated_power`, and with a mixture `probability`,
            `junk`, `q_value`, each of shape `(pick,)`; `status`, a `schema.Status`.

        Raises
        ------
        InputError
            If there is no such row.
        """
        for row in rows:
            if not 0 <= row < len(self.names):
                raise InputError(f"micrograph: expected a row from 0 to {len(self.names) - 1}, got {row}")
        found = {row: columns for row in rows if (columns := self._recent.find(row)) is not None}
        missing = sorted(set(rows) - set(found))
        if missing:
            found |= zip(missing, self._read(missing), strict=True)
        for row in missing:
            # what is not done may be done the next time
            if found[row]["status"] == Status.DONE:
                self._recent.keep(row, found[row])
        return [found[row] for row in rows]

    def _read(self, rows: list[int]) -> list[dict[str, Any]]:
        picks = self._picks.isel(micrograph=rows).load()
        calibration = None if self.calibration is None else self.calibration.isel(micrograph=rows)
        scores = calibrated_scores(picks, calibration)
        picks = picks.assign({f"calibrated_{name}": scores[name] for name in ("ncc", "power")})
        if self.mixture is not None:
            table = self.micrographs.isel(micrograph=rows)
            picks = picks.merge(probabilities(picks, table, self.mixture.isel(micrograph=rows)))
        values = {name: picks[name].values for name in PER_PICK if name in picks}
        counts, status = picks["count"].values, picks["status"].values
        return [
            {
                **{name: np.ascontiguousarray(column[i, : counts[i]]) for name, column in values.items()},
                "status": Status(int(status[i])),
            }
            for i in range(len(rows))
        ]


class Shared(Generic[V]):
    """What all visitors of a project share, one for each set of picks, made anew when files have changed.

    Parameters
    ----------
    make
        Makes it for a project and the name of its picks. It must not hold on to the project.
    marks
        Files or folders in the project that tell by their time of change; `{}` stands for the name of the picks.
    """

    def __init__(self, make: Callable[[Project, str], V], *marks: str) -> None:
        self._make, self._marks = make, marks
        self._made: WeakKeyDictionary[Project, dict[str, tuple[tuple[object, ...], V]]] = WeakKeyDictionary()
        self._lock = Lock()

    def of(self, project: Project, picks: str) -> V:
        """Give what belongs to some picks.

        Raises
        ------
        ProjectError
            If there are no such picks.
        """
        stamp = tuple(project.home.mark(mark.format(picks)) for mark in self._marks)
        with self._lock:
            made = self._made.setdefault(project, {})
            if picks in made and made[picks][0] == stamp:
                return made[picks][1]
        found = self._make(project, picks)
        with self._lock:
            made.pop(picks, None)
            made[picks] = (stamp, found)
            while len(made) > MOST_PICKS:
                del made[next(iter(made))]
        return found


CALIBRATED = (
    "picks/{}/zarr.json",
    "calibration/{}/zarr.json",
    "calibration/{}/mixture/zarr.json",
    "micrographs/status/zarr.json",
)
SHARED_ROWS = Shared(PickRows, *CALIBRATED)
"""Rows of each project's picks, for all its visitors."""


class Shown:
    """Picks of the micrographs on the screen.

    Parameters
    ----------
    project, picks
        Where the picks are.
    rows
        Rows of the project's table, in the order of the screen.
    source
        Where rows are read; by default what all visitors of the project share.

    Attributes
    ----------
    rows
        As given.
    names
        Names of the micrographs.

    Raises
    ------
    InputError, ProjectError
        If there is no such row, or there are no such picks.
    """

    def __init__(self, project: Project, picks: str, rows: Sequence[int], source: PickRows | None = None) -> None:
        self.rows = tuple(int(row) for row in rows)
        self._source = SHARED_ROWS.of(project, picks) if source is None else source
        self._columns = self._source.read(self.rows)
        self.names = tuple(self._source.names[row] for row in self.rows)
        self._calibrated = self._stacked("calibrated_")
        self._raw = replace(self._calibrated, ncc=self._padded("ncc"), power=self._padded("power"))
        self.border = self._calibrated.border

    def judge(self, settings: SelectSettings) -> NDArray[np.int8]:
        """Give the reason for every pick, exactly as `stages.select.Judge` does.

        Parameters
        ----------
        settings
            Thresholds and decisions by hand, on these and other micrographs.

        Returns
        -------
        ndarray
            int8 `(row, pick)`: index into `selection.REASONS`, -1 where there is no pick. As wide as the most picks of
            a micrograph shown; a place is the same as in the stored picks.

        Raises
        ------
        InputError
            As `selection.rejection_reasons`; also for names that are not in the project.
        """
        check_names(settings, self._source.known)
        columns = self._raw if settings.raw else self._calibrated
        return columns.judge(settings_of(settings, set(self.names)))

    def counts(self, settings: SelectSettings) -> NDArray[np.int32]:
        """Count picks per reason and micrograph shown, int32 `(reason, row)`."""
        return reason_counts(self.judge(settings))

    def columns(self, i: int) -> dict[str, Floats]:
        """Columns of one micrograph's picks, for drawing and hovering.

        Parameters
        ----------
        i
            Position among the micrographs shown.

        Returns
        -------
        dict
            `x`, `y`, `border` (distance from the nearest border; all Å), `ncc` (main score, raw), `power` (raw),
            `calibrated_ncc`, `calibrated_power` (the raw ones where there is no calibration), and with a mixture
            `probability`, `junk`, `q_value`; each of shape `(pick,)`.
        """
        found = self._columns[i]
        columns = {name: found[name] for name in PER_PICK if name in found}
        return {**columns, "border": self.border[i, : len(found["x"])]}

    def nearest(self, i: int, x: float, y: float, reach: float) -> int | None:
        """Find the pick nearest to a place.

        Parameters
        ----------
        i
            Position among the micrographs shown.
        x, y
            Å.
        reach
            How far away it may be, Å.

        Returns
        -------
        int or None
            Its place among the micrograph's picks; None if there is none within reach, or the micrograph is not done.
        """
        found = self._columns[i]
        if found["status"] != Status.DONE or not len(found["x"]):
            return None
        away = np.hypot(found["x"] - x, found["y"] - y)
        if np.isnan(away).all():
            return None
        place = int(np.nanargmin(away))
        return place if away[place] <= reach else None

    def cycle(self, i: int, settings: SelectSettings) -> NDArray[np.intp]:
        """Order picks for a review: those nearest to the threshold on the main score first.

        Parameters
        ----------
        i
            Position among the micrographs shown.
        settings
            The main score is the probability or the q-value where there is a threshold on it, else calibrated or raw
            NCC. Without a threshold the lowest accepted scores come first, then the rejected ones.

        Returns
        -------
        ndarray
            Places, shape `(pick,)`; picks without a score are last. Empty where the micrograph is not done.
        """
        found = self._columns[i]
        if found["status"] != Status.DONE:
            return np.empty(0, dtype=np.intp)
        name, threshold = main_score(settings)
        values = found[name]
        if threshold is not None:
            return np.argsort(np.abs(values.astype(np.float64) - threshold), kind="stable")
        rejected = self.judge(settings)[i, : len(values)] != ACCEPTED
        return np.lexsort((values, rejected))

    def _padded(self, name: str, fill: float = np.nan) -> Floats:
        columns = [found[name] for found in self._columns]
        width = max((len(column) for column in columns), default=0)
        out = np.full((len(columns), width), fill, dtype=np.result_type(np.float32, *columns))
        for row, column in zip(out, columns, strict=True):
            row[: len(column)] = column
        return out

    def _stacked(self, prefix: str) -> Columns:
        counts = np.array([len(found["x"]) for found in self._columns], dtype=np.intp)
        done = np.array([found["status"] == Status.DONE for found in self._columns], dtype=bool)
        x, rows, source = self._padded("x"), list(self.rows), self._source
        likely = source.mixture is not None
        return Columns(
            names=self.names,
            counts=counts,
            valid=(np.arange(x.shape[1]) < counts[:, None]) & done[:, None],
            ncc=self._padded(f"{prefix}ncc"),
            power=self._padded(f"{prefix}power"),
            x=x,
            y=self._padded("y"),
            far=source.last[:, rows, None],
            sized=bool(((source.width[rows] > 0) | (counts == 0)).all()),
            probability=self._padded("probability") if likely else None,
            q_value=self._padded("q_value") if likely else None,
            why=source.why,
            attributes=source.attributes,
        )


def main_score(settings: SelectSettings) -> tuple[str, float | None]:
    """Name the column that the main threshold is on, and the threshold, None if there is none."""
    if settings.probability is not None:
        return "probability", settings.probability
    if settings.fdr is not None:
        return "q_value", settings.fdr
    return "ncc" if settings.raw else "calibrated_ncc", settings.min_ncc


def _bytes(columns: dict[str, Any]) -> int:
    return sum(value.nbytes for value in columns.values() if isinstance(value, np.ndarray))
