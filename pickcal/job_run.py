"""Run a whole job file: every section in turn, on one cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from pickcal.engine.executors import Executor
from pickcal.engine.progress import Reporter
from pickcal.errors import InputError
from pickcal.job_file import EvaluateJob, Job, SelectJob
from pickcal.project import Project, differing
from pickcal.report import write_report
from pickcal.selection import read_thresholds
from pickcal.settings import CalibrateSettings, ImportSettings, SelectSettings, SimulateSettings
from pickcal.simulation import simulate
from pickcal.simulation.writing import resolved, simulated_with
from pickcal.stages.calibrate import calibrate
from pickcal.stages.calibrate_result import summary
from pickcal.stages.evaluate import evaluate_picks, evaluate_selection
from pickcal.stages.export import export
from pickcal.stages.import_picks import import_picks
from pickcal.stages.ingest import ingest
from pickcal.stages.pick import pick
from pickcal.stages.score import score
from pickcal.stages.select import automatic, select
from pickcal.stages.select_result import selection_counts
from pickcal.stages.watch import Session, watch
from pickcal.stores.places import Url


def run(job: Job, executor: Executor, reporter: Reporter, stop: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """Do what a job file asks for; stages that are done already do nothing.

    Parameters
    ----------
    job
        The job.
    executor, reporter
        Where tasks run and who is told.
    stop
        Ends a `[watch]` section once it says so, after the round that is being worked on; default: never.

    Returns
    -------
    dict
        What each section gave, as its command prints with `--json`.

    Raises
    ------
    InputError, MissingFileError, ProjectError
        As the stages; what earlier sections have made stays.
    """
    out: dict[str, Any] = {"project": str(job.project)}
    if job.simulate is not None:
        out["simulate"] = _simulate(job, executor, reporter)
    if job.watch is not None:
        out["watch"] = _watch(job, executor, reporter, stop)
    elif job.import_ is not None:
        out["import"] = ingest(job.import_.sources, job.project, job.import_, executor, reporter).as_json()
    project = Project.open(job.project, mode="r+")
    picks = job.picks_name
    if job.pick is not None and job.watch is None:
        out["pick"] = pick(project, picks, job.pick, executor, reporter).as_json()
    if job.import_picks is not None:
        out["import_picks"] = import_picks(project, job.import_picks.files, picks, job.import_picks, reporter)
    if job.score is not None:
        out["score"] = score(project, picks, job.scored_name, job.score, executor, reporter).as_json()
        picks = job.scored_name
    for title, function in _later(project, job, picks):
        reporter.start(title, 1)
        out[title] = function()
        reporter.advance(1)
        reporter.finish()
    return out


def _later(project: Project, job: Job, picks: str) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Yield the sections that follow once there are picks, by name, in the order in which they run."""
    if job.calibrate is not None and job.watch is None:  # a watch calibrates as it goes
        yield "calibrate", partial(_calibrate, project, picks, job.calibrate)
    if job.select is not None:
        yield "select", partial(_select, project, picks, job.select)
        if job.export is not None:
            yield "export", partial(export, project, job.select.name, job.export, job.export.path)
    if job.evaluate is not None:
        yield "evaluate", partial(_evaluate, project, job, job.evaluate)
    if job.report is not None:
        yield "report", partial(_report, project, job.report)


def _watch(job: Job, executor: Executor, reporter: Reporter, stop: Callable[[], bool]) -> dict[str, Any]:
    """Follow the source of the import; the job's selection is kept up to date."""
    assert job.watch is not None and job.import_ is not None and job.pick is not None
    importing = ImportSettings(**job.import_.model_dump(exclude={"sources"}))
    session = Session(
        job.import_.sources[0],
        job.project,
        job.watch,
        importing,
        job.pick,
        executor,
        reporter,
        name=job.picks,
        stop=stop,
    )
    if job.calibrate is not None:
        session.fitting = job.calibrate
    found = watch(session)
    if not found["micrographs"]:
        raise InputError(f"{session.source}: no micrograph has arrived; there is nothing to go on with")
    return found


def _simulate(job: Job, executor: Executor, reporter: Reporter) -> dict[str, Any]:
    """Simulate into the folder of the import's STAR file, unless it is there already and was made alike."""
    assert job.simulate is not None and job.import_ is not None
    star = job.import_.sources[0]
    if isinstance(star, Url):
        raise InputError(f"{star}: micrographs are simulated into a folder; give a path as import.sources")
    if star.exists():
        _check_alike(star.parent, job.simulate)
    else:
        reporter.start("simulate", job.simulate.micrographs)
        simulate(star.parent, job.simulate, executor, lambda _: reporter.advance(1))
        reporter.finish()
    return {"folder": str(star.parent)}


def _check_alike(folder: Path, settings: SimulateSettings) -> None:
    """Refuse micrographs that were simulated with other settings; older sets do not tell theirs."""
    made = simulated_with(folder)
    lines = [] if made is None else differing(made, resolved(settings).stored())
    if lines:
        raise InputError(
            f"{folder}: holds micrographs that were simulated otherwise:\n"
            + "".join(f"  {line}\n" for line in lines)
            + "give another folder in import.sources (and another project), or remove this one"
        )


def _calibrate(project: Project, picks: str, settings: CalibrateSettings) -> dict[str, Any]:
    calibrate(project, picks, settings)
    return summary(project, picks)


def _select(project: Project, picks: str, section: SelectJob) -> dict[str, Any]:
    if section.thresholds is not None:
        settings = read_thresholds(section.thresholds)
    else:
        settings = SelectSettings(**section.model_dump(exclude={"name", "thresholds", "auto"}))
    if section.auto:
        settings = automatic(project, picks, settings)
    return selection_counts(project, select(project, picks, section.name, settings, overwrite=True), section.name)


def _evaluate(project: Project, job: Job, section: EvaluateJob) -> dict[str, Any]:
    if job.select is not None:
        return evaluate_selection(project, job.select.name, section.truth, section)
    return evaluate_picks(project, job.scored_name, section.truth, section)


def _report(project: Project, path: Path) -> dict[str, Any]:
    report, *plots = write_report(project, path, path.parent / "plots")
    return {"report": str(report), "plots": [str(plot) for plot in plots]}
