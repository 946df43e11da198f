"""Commands that judge picks: calibrate, select, control, evaluate, inspect."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pickcal.cli.app import DECIDE, DEFAULT_CLUSTER, PASS_ON, Cluster, Overwrite, PicksName, ProjectPlace, app
from pickcal.cli.help import examples
from pickcal.cli.output import DEFAULT_OUTPUT, Output, session
from pickcal.dashboard.serving.settings import ServeSettings
from pickcal.settings import CalibrateSettings, ControlSettings, EvaluateSettings, SelectSettings

DEFAULT_CONTROL = ControlSettings()


@app.command(
    group=DECIDE,
    sort_key=1,
    help_epilogue=examples(
        "pickcal calibrate p.zarr --picks template --plots plots/",
        "# a parabola in defocus, and ice thickness as well",
        "pickcal calibrate p.zarr --picks template --degree 2 --covariates ice_thickness",
    ),
)
def calibrate(
    project: ProjectPlace,
    *,
    picks: PicksName,
    settings: Annotated[CalibrateSettings, Parameter(name="*")] = CalibrateSettings(),
    plots: Annotated[Path | None, Parameter(help="Folder to write the plots to, as PNG.")] = None,
    output: Output = DEFAULT_OUTPUT,
) -> None:
    """Fit both scores against defocus over the whole data set."""
    from pickcal.project import Project
    from pickcal.report import save_plots
    from pickcal.stages.calibrate import calibrate as stage
    from pickcal.stages.calibrate_result import summary

    with session(output) as (_, show):
        opened = Project.open(project, mode="r+")
        stage(opened, picks, settings)
        out = summary(opened, picks)
        if plots is not None:
            out["plots"] = [str(path) for path in save_plots(opened, picks, plots)]
        show(out)


@app.command(
    group=DECIDE,
    sort_key=2,
    help_epilogue=examples(
        "# particles with a probability of 50 %, no ice",
        "pickcal select p.zarr --picks template --auto --name auto",
        "# at most 5 % false picks",
        "pickcal select p.zarr --picks template --fdr 0.05 --name sure",
        "# thresholds of your own, kept in a file and replayed on other data",
        "pickcal select p.zarr --picks template --min-ncc 0.3 --name a --save t.toml",
        "pickcal select q.zarr --picks template --thresholds t.toml --name a",
    ),
)
def select(
    project: ProjectPlace,
    *,
    picks: PicksName,
    name: Annotated[str, Parameter(help="Name of the selection.")],
    settings: Annotated[SelectSettings, Parameter(name="*")] = SelectSettings(),
    thresholds: Annotated[Path | None, Parameter(help="Thresholds file to replay instead of giving values.")] = None,
    auto: Annotated[
        bool,
        Parameter(help="Fill in probability 0.5 (or --fdr) and the power maximum beyond which junk lies.", negative=""),
    ] = False,
    save: Annotated[Path | None, Parameter(help="Thresholds file to write.")] = None,
    overwrite: Overwrite = False,
    output: Output = DEFAULT_OUTPUT,
) -> None:
    """Accept picks by calibrated scores, probability or false discovery rate."""
    from pickcal.errors import InputError
    from pickcal.project import Project
    from pickcal.selection import read_thresholds
    from pickcal.stages.select import automatic
    from pickcal.stages.select import select as stage
    from pickcal.stages.select_result import selection_counts

    with session(output) as (_, show):
        if thresholds is not None:
            if settings.model_fields_set or auto:
                given = ", ".join(sorted({*settings.model_fields_set, *(["auto"] if auto else [])}))
                raise InputError(
                    f"--thresholds: expected a file or values, got both (also {given}); leave one of them out"
                )
            settings = read_thresholds(thresholds)
        opened = Project.open(project, mode="r+")
        if auto:
            settings = automatic(opened, picks, settings)
        show(selection_counts(opened, stage(opened, picks, name, settings, save, overwrite), name))


@app.command(
    group=DECIDE,
    sort_key=3,
    help_epilogue=examples(
        "pickcal control p.zarr --picks template --selection auto",
        "pickcal control p.zarr --picks template --micrographs 0 --seed 3",
    ),
)
def control(
    project: ProjectPlace,
    *,
    picks: PicksName,
    selection: Annotated[
        str | None, Parameter(help="Name of the selection to try; default: the thresholds that --auto fills in.")
    ] = None,
    settings: Annotated[ControlSettings, Parameter(name="*")] = DEFAULT_CONTROL,
    cluster: Cluster = DEFAULT_CLUSTER,
    output: Output = DEFAULT_OUTPUT,
) -> None:
    """Repeat the search on noise, and count what a selection accepts there.

    The noise has the spectra of the micrographs: copies of them with their phases drawn at random.
    """
    from pickcal.engine.executors import open_executor
    from pickcal.project import Project
    from pickcal.stages.control import control as stage

    with session(output) as (reporter, show):
        opened = Project.open(project, mode="r+")
        with open_executor(cluster, reporter.note) as executor:
            show(stage(opened, picks, settings, executor, reporter, selection))


@app.command(
    group=DECIDE,
    sort_key=4,
    help_epilogue=examples(
        "pickcal evaluate p.zarr --picks template --truth sim/truth_particles.star",
        "pickcal evaluate p.zarr --selection first --truth hand_picks.star",
    ),
)
def evaluate(
    project: ProjectPlace,
    *,
    truth: Annotated[Path, Parameter(help="STAR file of true particles or hand picks.")],
    picks: Annotated[str | None, Parameter(help="Name of the picks.")] = None,
    selection: Annotated[str | None, Parameter(help="Name of a selection, instead of picks.")] = None,
    settings: Annotated[EvaluateSettings, Parameter(name="*")] = EvaluateSettings(),
    output: Output = DEFAULT_OUTPUT,
) -> None:
    """Hold picks or a selection against truth or hand picks."""
    from pickcal.errors import InputError
    from pickcal.project import Project
    from pickcal.stages.evaluate import evaluate_picks, evaluate_selection

    with session(output) as (_, show):
        opened = Project.open(project)
        if selection is not None and picks is None:
            show(evaluate_selection(opened, selection, truth, settings))
        elif picks is not None and selection is None:
            show(evaluate_picks(opened, picks, truth, settings))
        else:
            got = "none" if picks is None else "both"
            raise InputError(f"evaluate: expected one of --picks NAME and --selection NAME, got {got}")


@app.command(
    group=PASS_ON,
    sort_key=1,
    help_epilogue=examples(
        "pickcal inspect p.zarr",
        "pickcal inspect p.zarr --truth hand_picks.star --read-only",
        "# reached by a tunnel: ssh -L 5006:127.0.0.1:5006 HOST",
        "pickcal inspect p.zarr --port 5006 --no-show",
    ),
)
def inspect(
    project: ProjectPlace,
    *,
    truth: Annotated[
        Path | None, Parameter(help="STAR file of true particles or hand picks, for precision and recall.")
    ] = None,
    settings: Annotated[ServeSettings, Parameter(name="*")] = ServeSettings(),
    output: Output = DEFAULT_OUTPUT,
) -> None:
    """Choose thresholds in the browser, once for every defocus."""
    from pickcal.dashboard.controller import close_shared
    from pickcal.dashboard.serving.server import serve
    from pickcal.dashboard.views.page import inspect_page, prepare

    with session(output) as (reporter, say):
        try:
            prepare(project, truth, settings.read_only)
            serve(
                lambda: inspect_page(project, truth, settings.read_only),
                project,
                settings,
                on_start=lambda url: say({"dashboard": url}),
                note=reporter.note,
            )
        finally:
            close_shared()
