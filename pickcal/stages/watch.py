"""Watch: follow a running session; micrographs are taken in, picked and calibrated as they arrive.

Work goes in rounds. A round appends micrographs behind the others, where readers do not see them; it reads and picks
them, lays the calibration on them or fits it anew, and then shows them all at once. Whoever reads finds finished rounds
only, and an interrupted round goes on where it was.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from pickcal.engine.executors import Executor
from pickcal.engine.one_job import only_job
from pickcal.engine.progress import Reporter
from pickcal.errors import InputError, ProjectError
from pickcal.project import Project, differing
from pickcal.schema import Status
from pickcal.settings import (
    CalibrateSettings,
    ImportSettings,
    PickSettings,
    SelectSettings,
    WatchSettings,
    validated,
)
from pickcal.stages.arrivals import Arrivals
from pickcal.stages.batches import batches_left, run_batches
from pickcal.stages.calibrate import calibrate, lay_on_more
from pickcal.stages.ingest import IngestTask, columns_of, create, ingest_batch, too_large, working_shapes
from pickcal.stages.pick import identity_of, pick
from pickcal.stages.search import stored_picking
from pickcal.stages.select import automatic, select
from pickcal.stages.select_result import is_stale
from pickcal.stores.homes import home_of
from pickcal.stores.places import Place, place

BATCH = 8
"""Micrographs per task and chunk of a project that grows: they come in few at a time."""
STEP = 0.2
"""Seconds between two looks at whether to stop."""


@dataclass
class Session:
    """What is followed, and how.

    Attributes
    ----------
    source, path
        Table or folder that grows, and the project.
    watching, importing, picking, fitting
        Settings; `picking` None goes on with the picks that the project holds, `fitting` None with its fit.
    selecting
        Thresholds of the selection to keep up to date; default: what `--auto` fills in.
    name
        Name of the picks; default: the method of picking.
    executor, reporter
        Where tasks run and who is told.
    stop
        Says when to end, after the round that is being worked on; default: never.
    """

    source: Place
    path: Place
    watching: WatchSettings
    importing: ImportSettings
    picking: PickSettings | None
    executor: Executor
    reporter: Reporter
    fitting: CalibrateSettings | None = None
    selecting: SelectSettings = SelectSettings()
    name: str | None = None
    stop: Callable[[], bool] = lambda: False
    rounds: int = field(default=0, init=False)
    fits: int = field(default=0, init=False)


def watch(session: Session) -> dict[str, Any]:
    """Follow a session until it is told to stop, or nothing new comes.

    Returns
    -------
    dict
        `rounds`, `micrographs`, `done`, `failed` and their `errors` (micrograph, stage, error), `fits` of the
        calibration, and `waiting`: micrographs that are known of and not complete.

    Raises
    ------
    InputError, MissingFileError, ProjectError
        If source and settings do not fit each other, the project was made otherwise, or somebody else follows a
        session into it.
    """
    session.source, session.path = place(session.source).absolute(), place(session.path).absolute()
    with only_job(session.path, "watch"):
        return _watch(session)


def _watch(session: Session) -> dict[str, Any]:
    watching = session.watching
    if session.importing.tables_only:
        raise InputError(f"{session.source}: a session is followed by its images; leave --tables-only out")
    arrivals = Arrivals(session.source, session.importing, watching.settle, watching.ctf_table)
    project = _opened(session)
    known = set() if project is None else {str(name) for name in project.read("micrographs", "name")}
    if project is not None:
        if _in_work(project, session):
            _round(project, session)
        _as_asked(project, session)
    quiet, told = time.monotonic(), ""
    while not session.stop():
        last = watching.patience is not None and time.monotonic() - quiet > watching.patience
        found = arrivals.look(known, watching.most, last)
        told = _told(arrivals, told, session.reporter)
        if len(found) and (project is not None or last or len(found) >= watching.first):
            project = _taken_in(project, found, session)
            known.update(found["name"])
            quiet = time.monotonic()
            continue
        if last:
            break
        _sleep(session, watching.interval, quiet)
    return _summary(project, arrivals, session)


def _told(arrivals: Arrivals, before: str, reporter: Reporter) -> str:
    """Say why the source cannot be read, once; return what was said last."""
    if arrivals.trouble != before:
        reporter.note(f"waiting: {arrivals.trouble}" if arrivals.trouble else "the source can be read again")
    return arrivals.trouble


def _sleep(session: Session, seconds: float, quiet: float) -> None:
    """Wait for the next look; not longer than until the patience ends."""
    end = time.monotonic() + seconds
    if session.watching.patience is not None:
        end = min(end, max(quiet + session.watching.patience, time.monotonic()) + STEP)
    while time.monotonic() < end and not session.stop():
        time.sleep(min(STEP, max(0.0, end - time.monotonic())))


def _stored(session: Session) -> dict[str, Any]:
    return {**session.importing.stored(), "sources": [str(session.source)], "watch": True}


def _opened(session: Session) -> Project | None:
    """Project begun earlier, with all that has arrived; None where there is none yet.

    Raises
    ------
    ProjectError
        If it was imported otherwise.
    """
    if not home_of(session.path).exists():
        if session.picking is None:
            raise InputError(f"{session.path}: no such project yet; say what to pick with: --diameter, --templates")
        return None
    project = Project.open(session.path, "r+", whole=True)
    project.require_images("watch")
    stored, asked = project.settings("micrographs"), _stored(session)
    asked["batch"] = stored.get("batch")
    differences = [line for line in differing({**stored, "watch": True}, asked) if not line.startswith("sources")]
    if differences:
        lines = "\n".join(f"  {line}" for line in differences)
        raise ProjectError(f"{session.path}: exists and was imported otherwise:\n{lines}\nchoose another project")
    if session.picking is None:
        session.name, session.picking = _stored_picking(project, session.name)
    elif _name(session) in project.names("picks"):
        remedy = "choose another --name, or leave out what to pick with, to go on with these picks"
        project.check_same(f"picks/{_name(session)}", identity_of(session.picking), remedy)
    return project


def _stored_picking(project: Project, name: str | None) -> tuple[str, PickSettings]:
    """Name and settings of the picks that a project holds."""
    wanted = [known for known in project.names("picks") if name in (None, known)]
    ours = {known: found for known in wanted if (found := stored_picking(project, known)) is not None}
    if len(ours) != 1:
        have = ", ".join(ours) or "none"
        raise InputError(
            f"{project.path}: expected one set of picks to go on with, found {have}; give --name, or --diameter to "
            "pick anew"
        )
    return next(iter(ours.items()))


def _in_work(project: Project, session: Session) -> bool:
    """Whether an earlier call was interrupted within a round."""
    if project.arrived > Project.open(session.path).count:
        return True
    group = f"picks/{_name(session)}"
    if bool(batches_left(project, "micrographs", again=False)) or _name(session) not in project.names("picks"):
        return True
    return bool(batches_left(project, group, again=False)) or project.calibration(_name(session)) is None


def _as_asked(project: Project, session: Session) -> None:
    """Fit and select what is there as is asked now; an earlier call may have had other settings, or been killed."""
    name, selection = _name(session), session.watching.selection
    if project.calibration(name) is not None and not _fitted_as_asked(project, session):
        calibrate(project, name, _fitting(project, session), swap=True)
        session.fits += 1
    if selection is None or project.calibration(name) is None:
        return
    if selection not in project.names("selection") or is_stale(project, selection):
        _selected(project, name, selection, session)


def _fitted_as_asked(project: Project, session: Session) -> bool:
    """Whether the stored fit was made with the settings asked for; any will do where none are asked for."""
    if session.fitting is None:
        return True
    return not differing(project.settings(f"calibration/{_name(session)}"), session.fitting.stored())


def _fitting(project: Project, session: Session) -> CalibrateSettings:
    """Give the settings of the fit: those asked for, else those of the fit that is there."""
    if session.fitting is not None:
        return session.fitting
    group = f"calibration/{_name(session)}"
    if project.calibration(_name(session)) is None:
        return CalibrateSettings()
    return validated(CalibrateSettings, project.settings(group), group)


def _name(session: Session) -> str:
    assert session.picking is not None
    return session.name or session.picking.method


def _taken_in(project: Project | None, found: pd.DataFrame, session: Session) -> Project:
    """Take micrographs into the project and work on them."""
    if project is None:
        settings = session.importing.model_copy(update={"batch": session.importing.batch or BATCH})
        create(session.path, len(found), [found], _stored(session), settings, growing=True)
        project = Project.open(session.path, "r+", whole=True)
    else:
        shapes = working_shapes(found, session.importing.pixel_size)
        room = project.micrographs()["image"].shape[1:]
        for i, shape in enumerate(shapes):
            if not found.loc[i, "problem"]:
                found.loc[i, "problem"] = too_large(shape, room)
        project.extend(columns_of(found, shapes))
    _round(project, session)
    return project


def _round(project: Project, session: Session) -> None:
    """Read, pick and calibrate what has arrived, and show it."""
    name, shown = _name(session), Project.open(session.path).count
    importing = session.importing
    task_of = partial(IngestTask, str(session.path), pixel_size=importing.pixel_size, clip=importing.clip)
    executor, reporter = session.executor, session.reporter
    run_batches(project, "micrographs", "import", ingest_batch, task_of, executor, reporter, again=False)
    if not (project.done("micrographs") == Status.DONE).any():
        project.show()  # nothing to make a bank of
        return
    assert session.picking is not None
    result = pick(project, name, session.picking, executor, reporter, again=False)
    if result.done:
        _calibrated(project, name, shown, session)
    for other in project.names("calibration"):
        if other != name and not lay_on_more(project, other, shown):
            project.remove(f"calibration/{other}")
    project.show()
    session.rounds += 1
    if session.watching.selection is not None:
        _selected(project, name, session.watching.selection, session)


def _calibrated(project: Project, name: str, shown: int, session: Session) -> None:
    """Lay the fit on what is new, or fit anew when there is much more than it was made of."""
    fit = project.calibration(name)
    done = int((project.done(f"picks/{name}") == Status.DONE).sum())
    if fit is not None and done < session.watching.refit * int(fit.attrs.get("fitted_done", 0)):
        same = _fitted_as_asked(project, session)
        if same and lay_on_more(project, name, min(shown, fit.sizes["micrograph"])):
            return
    calibrate(project, name, _fitting(project, session), swap=True)
    session.fits += 1


def _selected(project: Project, name: str, selection: str, session: Session) -> None:
    try:
        settings = automatic(project, name, session.selecting) if session.selecting == SelectSettings() else None
        select(project, name, selection, settings or session.selecting, overwrite=True)
    except InputError as error:  # as long as there are too few micrographs for probabilities
        session.reporter.note(f"no selection yet: {error}")


def _summary(project: Project | None, arrivals: Arrivals, session: Session) -> dict[str, Any]:
    out: dict[str, Any] = {"project": str(session.path), "rounds": session.rounds, "waiting": arrivals.waiting}
    if project is None:
        return out | {"micrographs": 0, "done": 0, "failed": 0, "fits": 0, "errors": []}
    name = _name(session)
    groups = ["micrographs", *([f"picks/{name}"] if name in project.names("picks") else [])]
    names = project.read("micrographs", "name")
    errors = []
    for group in groups:
        failed = np.flatnonzero(project.done(group) == Status.FAILED)
        reasons = project.read(group, "error")
        errors += [{"micrograph": str(names[i]), "stage": group, "error": str(reasons[i])} for i in failed]
    return out | {
        "picks": name,
        "micrographs": project.arrived,
        "done": int((project.done(groups[-1]) == Status.DONE).sum()) if len(groups) > 1 else 0,
        "failed": len(errors),
        "fits": session.fits,
        "errors": errors,
    }
