"""Run a whole job file: every section in turn, on one cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pickcal.engine.executors import Executor
from pickcal.engine.progress import Reporter
from pickcal.errors import InputError
from pickcal.job_file import Job, SelectJob
from pickcal.project import Project
from pickcal.report import write_report
from pickcal.selection import read_thresholds
from pickcal.settings import CalibrateSettings, ImportSettings, SelectSettings
from pickcal.simulation import simulate
from pickcal.stages.calibrate import calibrate, summary
from pickcal.stages.evaluate import evaluate_picks, evaluate_selection
from pickcal.stages.export import export
from pickcal.stages.import_picks import import_picks
from pickcal.stages.ingest import ingest
from pickcal.stages.pick import pick
from pickcal.stages.score import score
from pickcal.stages.select import automatic, expected_false, select, thresholds_of
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
    """
    out: dict[str, Any] = {"project": str(job.project)}
    if job.simulate is not None and job.import_ is not None:
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
    later: list[tuple[str, bool, Callable[[], Any]]] = [
        (
            "calibrate",
            job.calibrate is not None and job.watch is None,
            lambda: _calibrate(project, picks, _given(job.calibrate)),
        ),
        ("select", job.select is not None, lambda: _select(project, picks, _given(job.select))),
        ("export", job.export is not None, lambda: _export(project, job)),
        ("evaluate", job.evaluate is not None, lambda: _evaluate(project, job)),
        ("report", job.report is not None, lambda: _report(project, job)),
    ]
    for title, wanted, function in later:
        if wanted:
            reporter.start(title, 1)
            out[title] = function()
            reporter.advance(1)
            reporter.finish()
    return out


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


def _given(section: Any) -> Any:
    assert section is not None
    return section


def _simulate(job: Job, executor: Executor, reporter: Reporter) -> dict[str, Any]:
    """Simulate into the folder of the import's STAR file, unless it is there already."""
    assert job.simulate is not None and job.import_ is not None
    star = job.import_.sources[0]
    if isinstance(star, Url):
        raise InputError(f"{star}: micrographs are simulated into a folder; give a path as import.sources")
    if not star.exists():
        reporter.start("simulate", job.simulate.micrographs)
        simulate(star.parent, job.simulate, executor, lambda _: reporter.advance(1))
        reporter.finish()
    return {"folder": str(star.parent)}


def _calibrate(project: Project, picks: str, settings: CalibrateSettings) -> dict[str, Any]:
    calibrate(project, picks, settings)
    return summary(project, picks)


def _select(project: Project, picks: str, section: SelectJob) -> dict[str, Any]:
    if section.thresholds is not None:
        given = section.model_fields_set - {"name", "thresholds"}
        if given:
            raise InputError(f"select: give thresholds = FILE or values, not both; found {', '.join(sorted(given))}")
        settings = read_thresholds(section.thresholds)
    else:
        settings = SelectSettings(**section.model_dump(exclude={"name", "thresholds", "auto"}))
    if section.auto:
        settings = automatic(project, picks, settings)
    return selection_counts(project, select(project, picks, section.name, settings, overwrite=True), section.name)


def selection_counts(project: Project, counts: Any, name: str) -> dict[str, Any]:
    """Totals per reason of a selection, as plain values."""
    totals = counts["counts"].values.sum(axis=1)
    reasons = [str(reason) for reason in counts["reason"].values]
    thresholds = {
        key: value
        for key, value in thresholds_of(project, name).stored().items()
        if value is not None and value not in ([], False)
    }
    for key in ("accept", "reject"):
        if key in thresholds:
            thresholds[key] = f"{len(thresholds[key])} by hand"
    return {
        "selection": name,
        "picks": counts.attrs["picks"],
        "calibrated": bool(counts.attrs["calibrated"]),
        "thresholds": thresholds,
        **{reason: int(total) for reason, total in zip(reasons, totals, strict=True)},
        **expected_false(project, name),
    }


def _export(project: Project, job: Job) -> dict[str, Any]:
    assert job.export is not None
    if job.select is None:
        raise InputError("export: a job that exports needs a [select] section")
    return export(project, job.select.name, job.export, job.export.path)


def _evaluate(project: Project, job: Job) -> dict[str, Any]:
    assert job.evaluate is not None
    if job.select is not None:
        return evaluate_selection(project, job.select.name, job.evaluate.truth, job.evaluate)
    return evaluate_picks(project, job.scored_name, job.evaluate.truth, job.evaluate)


def _report(project: Project, job: Job) -> dict[str, Any]:
    assert job.report is not None
    folder = Path(job.report).parent / "plots"
    report, *plots = write_report(project, job.report, folder)
    return {"report": str(report), "plots": [str(plot) for plot in plots]}
