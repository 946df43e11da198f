"""Control: repeat a search on noise with the spectra of the micrographs, and count what a selection accepts there.

The copies keep each micrograph's amplitude spectrum and get random phases (`picking.surrogate`); crystals of ice and
other pixels far outside the noise are patched first, or they would become noise all over the copy. What the search
finds there is structure that it makes itself out of noise. It is judged as the real picks are: by the stored
calibration and mixture, with the fractions and the noise level of the real micrograph.

What the control leaves open. The power of the particles stays in the spectrum, so the copies are noisier, and noisier
at just the frequencies that the templates look at, than the ice between the particles: the control counts too many
rather than too few, most of all at low defocus and where particles are crowded. It says nothing of ice, film and
aggregates, which the random phases dissolve like the particles, nor of wrong peaks next to particles, nor of places
that are noisier than others.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pickcal.calibration.mixture import PICK_VARIABLES, probabilities
from pickcal.engine.executors import Executor, explain
from pickcal.engine.one_job import only_job
from pickcal.engine.progress import Reporter
from pickcal.errors import InputError
from pickcal.picking.fourier import Workspace
from pickcal.picking.surrogate import patched, phase_randomised
from pickcal.project import Project
from pickcal.schema import Status
from pickcal.selection import ACCEPTED, rejection_reasons, settings_of
from pickcal.settings import ControlSettings, SelectSettings
from pickcal.stages.calibrate_result import fingerprint
from pickcal.stages.control_result import COUNTS, stored_defocus, summary
from pickcal.stages.search import Search, image_of, load_bank, search_micrograph, stored_search
from pickcal.stages.select import automatic
from pickcal.stages.select_result import stored_selection, thresholds_of

PER_PICK = tuple(name for name in PICK_VARIABLES if name not in {"count", "status"})
PATCH = 0.25
"""Reach of a patch around an outlying pixel, in diameters."""


@dataclass(frozen=True)
class ControlTask:
    """Some micrographs to copy and search.

    Attributes
    ----------
    search
        The search that made the real picks.
    rows
        Micrographs.
    seed
        Of the copies; each micrograph draws its own phases from it.
    fingerprint
        Of picks and calibration.
    thresholds
        The selection.
    """

    search: Search
    rows: tuple[int, ...]
    seed: int
    fingerprint: str
    thresholds: SelectSettings


@dataclass(frozen=True)
class Trial:
    """What became of one micrograph: counts by the names in `COUNTS`, or the reason why there are none."""

    index: int
    counts: dict[str, int] | None = None
    error: str = ""


def control(
    project: Project,
    picks: str,
    settings: ControlSettings,
    executor: Executor,
    reporter: Reporter,
    selection: str | None = None,
) -> dict[str, Any]:
    """Try a selection on phase-randomised copies of the micrographs, and store what it accepts.

    Parameters
    ----------
    project
        Opened for writing.
    picks
        Name of the picks, which is also that of the control.
    settings
        How many micrographs, and the seed.
    executor, reporter
        Where tasks run and who is told.
    selection
        Name of a selection of these picks; default: the thresholds that `stages.select.automatic` proposes.

    Returns
    -------
    dict
        As `stored_control`.

    Raises
    ------
    ProjectError, InputError
        If there are no such picks, or no such selection of them, or it is older than their calibration; without a
        selection, if the picks have no probabilities; if no micrograph is left to try; if another process tries them.
    """
    with only_job(project.path, f"control/{picks}"):
        return _control(project, picks, settings, executor, reporter, selection)


def _control(
    project: Project,
    picks: str,
    settings: ControlSettings,
    executor: Executor,
    reporter: Reporter,
    selection: str | None,
) -> dict[str, Any]:
    made = stored_search(project, picks)
    thresholds = _thresholds(project, picks, selection)
    status, errors = _not_to_try(project, picks, thresholds)
    rows = _spread(project, np.flatnonzero(status == Status.PENDING), settings.micrographs)
    if not len(rows):
        raise InputError(
            f"{project.path}: no micrograph to try: picks {picks!r} hold none that is finished and not excluded"
        )
    digest = fingerprint(project, picks)
    size = int(np.clip(len(rows) // (4 * executor.workers), 1, project.batch))
    tasks = [
        ControlTask(made, tuple(rows[i : i + size].tolist()), settings.seed, digest, thresholds)
        for i in range(0, len(rows), size)
    ]
    counts = {name: np.full(project.count, -1, dtype=np.int32) for name in COUNTS}
    for trial in _trials(tasks, f"control {picks}", executor, reporter):
        status[trial.index] = Status.FAILED if trial.counts is None else Status.DONE
        errors[trial.index] = trial.error
        for name, value in (trial.counts or {}).items():
            counts[name][trial.index] = value
    columns: dict[str, Any] = {
        name: ("micrograph", values, {"long_name": COUNTS[name]}) for name, values in counts.items()
    }
    columns |= {"status": ("micrograph", status), "error": ("micrograph", errors)}
    stored = {
        "picks": picks,
        "selection": selection or "",
        "thresholds": json.dumps(thresholds.stored()),
        **settings.stored(),
    }
    project.write_whole("control", picks, xr.Dataset(columns, attrs={"fingerprint": digest}), stored)
    return summary(project, picks)


def _trials(tasks: list[ControlTask], title: str, executor: Executor, reporter: Reporter) -> Iterator[Trial]:
    """Run tasks; the micrographs of one that was lost have its reason."""
    reporter.start(title, sum(len(task.rows) for task in tasks))
    for outcome in executor.run(control_batch, tasks):
        if outcome.result is None:
            yield from (Trial(i, error=outcome.error or "no result") for i in outcome.task.rows)
        else:
            yield from outcome.result
        reporter.advance(len(outcome.task.rows))
    reporter.finish()


def _thresholds(project: Project, picks: str, selection: str | None) -> SelectSettings:
    if selection is None:
        return automatic(project, picks, SelectSettings())
    stored_selection(project, selection)  # refuses one that is older than its calibration
    return thresholds_of(project, selection, picks)


def _not_to_try(
    project: Project, picks: str, thresholds: SelectSettings
) -> tuple[NDArray[np.int8], NDArray[np.object_]]:
    """Status and reasons with which a control begins: micrographs without real picks, or excluded, are skipped."""
    real = project.done(f"picks/{picks}")
    status = np.full(project.count, Status.PENDING, dtype=np.int8)
    errors = np.full(project.count, "", dtype=object)
    reasons = project.read(f"picks/{picks}", "error")
    names = project.read("micrographs", "name")
    for i in range(project.count):
        if real[i] != Status.DONE:
            errors[i] = f"not picked: {reasons[i] or Status(int(real[i])).name.lower()}"
        elif str(names[i]) in thresholds.exclude:
            errors[i] = "excluded by the selection"
        else:
            continue
        status[i] = Status.SKIPPED
    return status, errors


def _spread(project: Project, rows: NDArray[np.intp], most: int) -> NDArray[np.intp]:
    """At most so many micrographs (0: all), evenly spread over those sorted by defocus; in rising order."""
    if not most or len(rows) <= most:
        return rows
    defocus = stored_defocus(project)[rows]
    places = np.linspace(0, len(rows) - 1, most).round().astype(np.intp)
    return np.sort(rows[np.argsort(defocus, kind="stable")][places])


@lru_cache(maxsize=2)
def _fit(path: str, picks: str, fingerprint: str) -> tuple[xr.Dataset | None, xr.Dataset | None]:
    """Lines and mixture of some picks, once per process; the fingerprint tells a newer fit from an old one."""
    project = Project.open(path)
    return project.calibration(picks), project.mixture(picks)


def control_batch(task: ControlTask) -> list[Trial]:
    """Copy, search and judge some micrographs."""
    project = Project.open(task.search.project)
    real = project.dataset(f"picks/{task.search.name}")[[*PER_PICK, "count", "status"]]
    micrographs = project.micrographs().drop_vars("image")
    bank, whitening = load_bank(task.search)
    fit = _fit(task.search.project, task.search.name, task.fingerprint)
    trials, workspace = [], Workspace()
    for index in task.rows:
        place = slice(index, index + 1)
        row, picks = micrographs.isel(micrograph=place).load(), real.isel(micrograph=place).load()
        lines, mixture = (part if part is None else part.isel(micrograph=place) for part in fit)
        try:
            image, pixel_size = image_of(project, index, row), float(row["pixel_size"].item())
            copy = _copy(image, pixel_size, task.search, [task.seed, index])
            found = search_micrograph(copy, row.isel(micrograph=0), bank, whitening, task.search, workspace)
            counts = {}
            # decisions by hand were made on real picks, and say nothing of a copy
            for name, table, hands in (("real", picks, {str(row["name"].item())}), ("control", _table(found), set())):
                kept = settings_of(task.thresholds, hands)
                counts[f"{name}_found"] = int(table["count"].item())
                counts[f"{name}_accepted"] = _accepted(table, row, lines, mixture, kept)
        except Exception as error:
            trials.append(Trial(index, error=explain(error)))
        else:
            trials.append(Trial(index, counts))
    return trials


def _copy(image: NDArray[np.float32], pixel_size: float, made: Search, seed: list[int]) -> NDArray[np.float32]:
    """Noise with the spectrum of a micrograph, as the search sees it."""
    low_pass, high_pass = made.parameters.low_pass, made.parameters.high_pass
    ice = patched(image, pixel_size, low_pass, high_pass, PATCH * made.parameters.diameter)
    return phase_randomised(ice, np.random.default_rng(seed))


def _table(found: dict[str, NDArray[Any] | int]) -> xr.Dataset:
    """Lay out the picks of one copy as those of one micrograph are stored."""
    columns: dict[str, Any] = {name: (("micrograph", "pick"), np.atleast_2d(found[name])) for name in PER_PICK}
    columns |= {"count": ("micrograph", [found["count"]]), "status": ("micrograph", [Status.DONE])}
    return xr.Dataset(columns)


def _accepted(
    picks: xr.Dataset,
    row: xr.Dataset,
    lines: xr.Dataset | None,
    mixture: xr.Dataset | None,
    thresholds: SelectSettings,
) -> int:
    """Count the picks of one micrograph, or of its copy, that pass the thresholds."""
    likelihood = None if mixture is None else probabilities(picks, row, mixture)
    return int((rejection_reasons(picks, lines, row, thresholds, likelihood) == ACCEPTED).sum())
