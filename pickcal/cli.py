"""The command line: one command per stage. No logic: commands read settings, call a stage and show its result."""

from __future__ import annotations

import errno
import json
import logging
import math
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, NoReturn

from cyclopts import App, CycloptsError, Parameter
from pydantic import ValidationError
from rich.console import Console

import pickcal
from pickcal.dashboard.serving.settings import ServeSettings
from pickcal.engine.executors import open_executor
from pickcal.engine.logs import open_log
from pickcal.engine.progress import TerminalReporter
from pickcal.errors import PickcalError
from pickcal.job_file import load_job
from pickcal.present import render
from pickcal.settings import (
    BlobSettings,
    CalibrateSettings,
    ClusterSettings,
    ControlSettings,
    EvaluateSettings,
    ExportSettings,
    ImportPicksSettings,
    ImportSettings,
    ScoreSettings,
    SelectSettings,
    SimulateSettings,
    TemplateSettings,
    WatchPickSettings,
    WatchSettings,
    describe,
)
from pickcal.stores.places import Place, PlaceField, PlaceList

OK, REFUSED, USAGE, SOME_FAILED, INTERRUPTED = 0, 1, 2, 3, 130

app = App(
    name="pickcal",
    help="Pick particles, calibrate their scores against defocus, and keep picks you can trust.\n\n"
    "Exit codes: 0 all well; 1 refused (the message says why); 2 wrong command line; 3 finished, but some "
    "micrographs failed (named, and listed by 'pickcal status'); 130 interrupted, the same command goes on.",
    version=pickcal.__version__,
    default_parameter=Parameter(consume_multiple=True),  # --defocus 8000 14000 20000
    suppress_keyboard_interrupt=False,  # else cyclopts exits in silence
)
pick_app = App(name="pick", help="Pick particles with blobs or templates.")
app.command(pick_app)


@Parameter(name="*")
@dataclass(frozen=True)
class Output:
    """How a command speaks.

    Attributes
    ----------
    json
        Print one JSON object as the last line of standard output.
    quiet
        No progress.
    log
        File to append a structured log to.
    """

    json: Annotated[bool, Parameter(help="Print one JSON object as the last line.", negative="")] = field(default=False)
    quiet: Annotated[bool, Parameter(help="No progress.", negative="")] = field(default=False)
    log: Annotated[Path | None, Parameter(help="File to append a log to, one JSON object a line.")] = field(
        default=None
    )


Cluster = Annotated[ClusterSettings, Parameter(name="*")]
PROJECT = Annotated[
    PlaceField, Parameter(help="The project store: a folder ending in .zarr, or s3://BUCKET/NAME.zarr.")
]
Simulation = Annotated[SimulateSettings, Parameter(name="*")]
Import = Annotated[ImportSettings, Parameter(name="*")]
Template = Annotated[TemplateSettings, Parameter(name="*")]
Blob = Annotated[BlobSettings, Parameter(name="*")]
ImportPicks = Annotated[ImportPicksSettings, Parameter(name="*")]
Score = Annotated[ScoreSettings, Parameter(name="*")]
Calibrate = Annotated[CalibrateSettings, Parameter(name="*")]
Select = Annotated[SelectSettings, Parameter(name="*")]
Serve = Annotated[ServeSettings, Parameter(name="*")]
Control = Annotated[ControlSettings, Parameter(name="*")]
Export = Annotated[ExportSettings, Parameter(name="*")]
Evaluate = Annotated[EvaluateSettings, Parameter(name="*")]
Overwrite = Annotated[bool, Parameter(help="Replace what has this name.", negative="")]
PicksName = Annotated[str, Parameter(help="Name of the picks.")]

_DEFAULT_OUTPUT = Output()
_DEFAULT_CLUSTER = ClusterSettings()
_DEFAULT_CONTROL = ControlSettings()
SERIAL = ClusterSettings(kind="serial")


@app.command
def simulate(
    out: Path,
    *,
    settings: Simulation = SimulateSettings(),
    cluster: Cluster = _DEFAULT_CLUSTER,
    output: Output = _DEFAULT_OUTPUT,
) -> None:
    """Make simulated micrographs with known particles.

    Example: pickcal simulate sim --micrographs 12 --seed 1

    Parameters
    ----------
    out
        Folder to write: micrographs, micrographs_ctf.star, truth_particles.star, templates.mrcs.
    """
    from pickcal.simulation import simulate as make

    with _session(output) as (reporter, show), open_executor(cluster, reporter.note) as executor:
        reporter.start("simulate", settings.micrographs)
        made = make(out, settings, executor, lambda _: reporter.advance(1))
        reporter.finish()
        show(
            {
                "folder": str(made.folder),
                "micrographs": len(made.names),
                "particles": int(sum(made.particles)),
                "star": str(made.micrographs),
                "truth": str(made.truth),
                "templates": str(made.templates),
            }
        )


@app.command(name="import")
def import_(
    sources: PlaceList,
    *,
    project: PROJECT,
    settings: Import = ImportSettings(),
    cluster: Cluster = _DEFAULT_CLUSTER,
    output: Output = _DEFAULT_OUTPUT,
) -> None:
    """Read micrographs into a project. Sources are only read.

    Examples: pickcal import CtfFind/job003/micrographs_ctf.star --project p.zarr; without the images, for picks of
    other programs: pickcal import CtfFind/job003/micrographs_ctf.star --tables-only --project p.zarr

    Parameters
    ----------
    sources
        Table of micrographs (RELION, cryoSPARC, CTFFIND, Gctf, CSV), or MRC and TIFF files.
    """
    from pickcal.stages.ingest import ingest

    with (
        _session(output) as (reporter, show),
        open_executor(SERIAL if settings.tables_only else cluster, reporter.note) as executor,
    ):
        show(ingest(sources, project, settings, executor, reporter).as_json())


@app.command(name="import-picks")
def import_picks(
    project: PROJECT,
    files: list[Path],
    *,
    name: PicksName,
    settings: ImportPicks = ImportPicksSettings(),
    overwrite: Overwrite = False,
    output: Output = _DEFAULT_OUTPUT,
) -> None:
    """Take picks of RELION, cryoSPARC, Topaz, crYOLO, EMAN, Gautomatch, Warp, CSV or Parquet into a project.

    Examples: pickcal import-picks p.zarr AutoPick/job004 --name relion; pickcal import-picks p.zarr
    picked_particles.cs passthrough_particles.cs --name inspected

    Parameters
    ----------
    files
        Files or folders of picks, or RELION's index of them.
    """
    from pickcal.project import Project
    from pickcal.stages.import_picks import import_picks as stage

    with _session(output) as (reporter, show):
        show(stage(Project.open(project, mode="r+"), files, name, settings, reporter, overwrite))


@pick_app.command
def template(
    project: PROJECT,
    *,
    settings: Template,
    name: PicksName = "template",
    overwrite: Overwrite = False,
    cluster: Cluster = _DEFAULT_CLUSTER,
    output: Output = _DEFAULT_OUTPUT,
) -> None:
    """Pick with templates: 2D images, or projections of a 3D map.

    Example: pickcal pick template p.zarr --templates templates.mrcs --diameter 150
    """
    _pick(project, name, settings, overwrite, cluster, output)


@pick_app.command
def blob(
    project: PROJECT,
    *,
    settings: Blob,
    name: PicksName = "blob",
    overwrite: Overwrite = False,
    cluster: Cluster = _DEFAULT_CLUSTER,
    output: Output = _DEFAULT_OUTPUT,
) -> None:
    """Pick with discs, rings or ellipses.

    Example: pickcal pick blob p.zarr --diameter-min 120 --diameter-max 160
    """
    _pick(project, name, settings, overwrite, cluster, output)


def _pick(
    project: Place,
    name: str,
    settings: TemplateSettings | BlobSettings,
    overwrite: bool,
    cluster: ClusterSettings,
    output: Output,
) -> None:
    from pickcal.project import Project
    from pickcal.stages.pick import pick

    with _session(output) as (reporter, show):
        opened = Project.open(project, mode="r+")
        with open_executor(cluster, reporter.note) as executor:
            show(pick(opened, name, settings, executor, reporter, overwrite).as_json())


@app.command
def score(
    project: PROJECT,
    *,
    picks: PicksName,
    settings: Score,
    name: Annotated[str | None, Parameter(help="Name of the new picks; default: that of the old with -scored.")] = None,
    overwrite: Overwrite = False,
    cluster: Cluster = _DEFAULT_CLUSTER,
    output: Output = _DEFAULT_OUTPUT,
) -> None:
    """Give NCC and power to the coordinates of some picks, whoever made them; with templates or with blobs.

    Examples: pickcal score p.zarr --picks topaz --templates templates.mrcs --diameter 150; pickcal score p.zarr
    --picks topaz --diameter 150 --radius 0
    """
    from pickcal.project import Project
    from pickcal.stages.score import score as stage

    with _session(output) as (reporter, show):
        opened = Project.open(project, mode="r+")
        with open_executor(cluster, reporter.note) as executor:
            show(stage(opened, picks, name, settings, executor, reporter, overwrite).as_json())


@app.command
def calibrate(
    project: PROJECT,
    *,
    picks: PicksName,
    settings: Calibrate = CalibrateSettings(),
    plots: Annotated[Path | None, Parameter(help="Folder to write the plots to, as PNG.")] = None,
    output: Output = _DEFAULT_OUTPUT,
) -> None:
    """Fit both scores against defocus over the whole data set.

    Example: pickcal calibrate p.zarr --picks template --plots plots/
    """
    from pickcal.project import Project
    from pickcal.report import save_plots
    from pickcal.stages import calibrate as stage

    with _session(output) as (_, show):
        opened = Project.open(project, mode="r+")
        stage.calibrate(opened, picks, settings)
        out = stage.summary(opened, picks)
        if plots is not None:
            out["plots"] = [str(path) for path in save_plots(opened, picks, plots)]
        show(out)


@app.command
def select(
    project: PROJECT,
    *,
    picks: PicksName,
    name: Annotated[str, Parameter(help="Name of the selection.")],
    settings: Select = SelectSettings(),
    thresholds: Annotated[Path | None, Parameter(help="Thresholds file to replay instead of giving values.")] = None,
    auto: Annotated[
        bool,
        Parameter(help="Fill in probability 0.5 (or --fdr) and the power maximum beyond which junk lies.", negative=""),
    ] = False,
    save: Annotated[Path | None, Parameter(help="Thresholds file to write.")] = None,
    overwrite: Overwrite = False,
    output: Output = _DEFAULT_OUTPUT,
) -> None:
    """Accept picks by thresholds on their calibrated scores, their probability or the false discovery rate.

    Examples: pickcal select p.zarr --picks template --auto --name auto; pickcal select p.zarr --picks template
    --fdr 0.05 --name sure; pickcal select p.zarr --picks template --min-ncc 0.3 --name first
    """
    from pickcal.errors import InputError
    from pickcal.project import Project
    from pickcal.selection import read_thresholds
    from pickcal.stages.run import selection_counts
    from pickcal.stages.select import automatic
    from pickcal.stages.select import select as stage

    with _session(output) as (_, show):
        if thresholds is not None:
            if settings.model_fields_set or auto:
                given = ", ".join(sorted({*settings.model_fields_set, *(["auto"] if auto else [])}))
                raise InputError(f"--thresholds: expected a file or values, got both (also {given})")
            settings = read_thresholds(thresholds)
        opened = Project.open(project, mode="r+")
        if auto:
            settings = automatic(opened, picks, settings)
        show(selection_counts(opened, stage(opened, picks, name, settings, save, overwrite), name))


@app.command
def control(
    project: PROJECT,
    *,
    picks: PicksName,
    selection: Annotated[
        str | None, Parameter(help="Name of the selection to try; default: the thresholds that --auto fills in.")
    ] = None,
    settings: Control = _DEFAULT_CONTROL,
    cluster: Cluster = _DEFAULT_CLUSTER,
    output: Output = _DEFAULT_OUTPUT,
) -> None:
    """Repeat the search on noise with the spectra of the micrographs, and count what a selection accepts there.

    Example: pickcal control p.zarr --picks template --selection auto
    """
    from pickcal.project import Project
    from pickcal.stages.control import control as stage

    with _session(output) as (reporter, show):
        opened = Project.open(project, mode="r+")
        with open_executor(cluster, reporter.note) as executor:
            show(stage(opened, picks, settings, executor, reporter, selection))


@app.command
def export(
    project: PROJECT,
    out: PlaceField,
    *,
    selection: Annotated[str, Parameter(help="Name of the selection.")],
    settings: Export = ExportSettings(),
    output: Output = _DEFAULT_OUTPUT,
) -> None:
    """Write accepted picks for other programs; what came in with them goes out again untouched.

    Examples: pickcal export p.zarr --selection first --format relion out/; pickcal export p.zarr --selection first
    --format cryosparc picks.cs --rejected

    Parameters
    ----------
    out
        Folder (RELION, crYOLO, EMAN) or file (cryoSPARC, Topaz, CSV, Parquet) to write.
    """
    from pickcal.project import Project
    from pickcal.stages.export import export as stage

    with _session(output) as (_, show):
        show(stage(Project.open(project), selection, settings, out))


@app.command
def evaluate(
    project: PROJECT,
    *,
    truth: Annotated[Path, Parameter(help="STAR file of true particles or hand picks.")],
    picks: Annotated[str | None, Parameter(help="Name of the picks.")] = None,
    selection: Annotated[str | None, Parameter(help="Name of a selection, instead of picks.")] = None,
    settings: Evaluate = EvaluateSettings(),
    output: Output = _DEFAULT_OUTPUT,
) -> None:
    """Hold picks or a selection against truth or hand picks.

    Example: pickcal evaluate p.zarr --picks template --truth sim/truth_particles.star
    """
    from pickcal.errors import InputError
    from pickcal.project import Project
    from pickcal.stages.evaluate import evaluate_picks, evaluate_selection

    with _session(output) as (_, show):
        opened = Project.open(project)
        if selection is not None and picks is None:
            show(evaluate_selection(opened, selection, truth, settings))
        elif picks is not None and selection is None:
            show(evaluate_picks(opened, picks, truth, settings))
        else:
            raise InputError("evaluate: expected one of --picks NAME and --selection NAME")


@app.command
def status(project: PROJECT, *, output: Output = _DEFAULT_OUTPUT) -> None:
    """Say what a project holds and what is left to do.

    Example: pickcal status p.zarr
    """
    from pickcal.project import Project
    from pickcal.stages.status import status as stage

    with _session(output) as (_, show):
        show(stage(Project.open(project)))


@app.command
def report(project: PROJECT, out: Path, *, output: Output = _DEFAULT_OUTPUT) -> None:
    """Write one HTML page with fits, plots, counts and failures; it opens offline.

    Example: pickcal report p.zarr out/report.html

    Parameters
    ----------
    out
        The page to write.
    """
    from pickcal.project import Project
    from pickcal.report import write_report

    with _session(output) as (_, show):
        show({"report": str(write_report(Project.open(project), out)[0])})


@app.command
def run(
    job: Path,
    *,
    set_: Annotated[
        tuple[str, ...], Parameter(name="--set", consume_multiple=False, help="section.key=value; may be given again.")
    ] = (),
    cluster: Annotated[str | None, Parameter(help="As the job's [cluster] kind.")] = None,
    workers: Annotated[int | None, Parameter(help="As the job's [cluster] workers.")] = None,
    output: Output = _DEFAULT_OUTPUT,
) -> None:
    """Run a whole job file on one cluster: import, pick, calibrate, select, export, report.

    Example: pickcal run jobs/templates.toml --set pick.diameter=150

    Parameters
    ----------
    job
        TOML file.
    """
    from pickcal.stages.run import run as stage

    extra = [f'cluster.cluster="{cluster}"'] if cluster else []
    extra += [f"cluster.workers={workers}"] if workers else []
    with _session(output) as (reporter, show):
        loaded = load_job(job, (*set_, *extra))
        with open_executor(loaded.cluster if loaded.has_tasks else SERIAL, reporter.note) as executor:
            if loaded.watch is None:
                show(stage(loaded, executor, reporter))
                return
            with _told_to_stop(reporter) as stop:
                show(stage(loaded, executor, reporter, stop))


@app.command
def watch(
    source: PlaceField,
    project: PROJECT,
    *,
    watching: Annotated[WatchSettings, Parameter(name="*")] = WatchSettings(),
    picking: Annotated[WatchPickSettings, Parameter(name="*")] = WatchPickSettings(),
    settings: Import = ImportSettings(),
    name: Annotated[str | None, Parameter(help="Name of the picks; default: template or blob.")] = None,
    cluster: Cluster = _DEFAULT_CLUSTER,
    output: Output = _DEFAULT_OUTPUT,
) -> None:
    """Follow a running session: micrographs are taken in, picked and calibrated as they arrive. Ctrl-C ends it.

    Examples: pickcal watch CtfFind/job003/micrographs_ctf.star p.zarr --templates templates.mrcs --diameter 150;
    pickcal watch "frames/*.mrc" p.zarr --ctf-table ctf.star --diameter 150 --selection live; later, to go on:
    pickcal watch CtfFind/job003/micrographs_ctf.star p.zarr

    Parameters
    ----------
    source
        Table of micrographs that grows, or folder of images (or a name with *) with --ctf-table.
    """
    from pickcal.stages.watch import Session
    from pickcal.stages.watch import watch as stage

    with (
        _session(output) as (reporter, show),
        open_executor(cluster, reporter.note) as executor,
        _told_to_stop(reporter) as stop,
    ):
        show(
            stage(
                Session(
                    source, project, watching, settings, picking.as_pick(), executor, reporter, name=name, stop=stop
                )
            )
        )


@contextmanager
def _told_to_stop(reporter: TerminalReporter) -> Iterator[Callable[[], bool]]:
    """Let the first Ctrl-C (or SIGTERM) end a watch after its round; the second one interrupts."""
    told = threading.Event()

    def stop(number: int, _: Any) -> None:
        if told.is_set():
            raise KeyboardInterrupt
        told.set()
        reporter.note("ending after this round; once more to interrupt it")

    main_thread = threading.current_thread() is threading.main_thread()  # only it may ask for signals
    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM) if main_thread}
    try:
        yield told.is_set
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@app.command
def inspect(
    project: PROJECT,
    *,
    truth: Annotated[
        Path | None, Parameter(help="STAR file of true particles or hand picks, for precision and recall.")
    ] = None,
    settings: Serve = ServeSettings(),
    output: Output = _DEFAULT_OUTPUT,
) -> None:
    """Choose thresholds in the browser, once for every defocus.

    Examples: pickcal inspect p.zarr; pickcal inspect p.zarr --truth hand_picks.star --read-only
    """
    from pickcal.dashboard.controller import close_shared
    from pickcal.dashboard.serving.server import serve
    from pickcal.dashboard.views.page import inspect_page, prepare

    with _session(output) as (reporter, say):
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


class _Exit(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@contextmanager
def _session(output: Output) -> Iterator[tuple[TerminalReporter, Any]]:
    """Give one command its reporter and result printer; failed micrographs in the result set the exit code."""
    code = OK

    def show(result: dict[str, Any]) -> None:
        nonlocal code
        failures = _failures(result)
        for failure in failures[:10]:
            reporter.note(f"failed: {failure['micrograph']}: {failure['error']}")
        if len(failures) > 10:
            reporter.note(f"failed: {len(failures) - 10} more; 'pickcal status' lists them")
        if failures:
            code = SOME_FAILED
        print(json.dumps(_finite(result), allow_nan=False, default=str) if output.json else render(result), flush=True)

    with open_log(output.log), TerminalReporter(output.quiet) as reporter:
        yield reporter, show
    if code:
        raise _Exit(code)


def _finite(value: Any) -> Any:
    """Figures that do not exist as null: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _failures(result: dict[str, Any]) -> list[dict[str, str]]:
    parts = [result, *(part for part in result.values() if isinstance(part, dict))]
    lists = [part.get(key) for part in parts for key in ("errors", "failures")]
    return [failure for found in lists if isinstance(found, list) for failure in found]


def main(tokens: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code."""
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    # when one write fails, zarr leaves its sibling writes to asyncio's log, traceback and all
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # speaks of damaged files before we do
    code: int = OK
    try:
        app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except _Exit as ended:
        code = ended.code
    except PickcalError as error:
        errors.print(f"pickcal: {error}", markup=False)
        code = REFUSED
    except ValidationError as error:
        errors.print(f"pickcal: {describe(error, 'command line')}", markup=False)
        code = USAGE
    except CycloptsError as error:
        cause = error.__cause__
        text = describe(cause, "command line") if isinstance(cause, ValidationError) else str(error)
        errors.print(f"pickcal: {text}", markup=False)
        code = USAGE
    except KeyboardInterrupt:
        sys.unraisablehook = lambda _: None  # what zarr was about to read is dropped with its loop, and says so
        errors.print(
            "pickcal: interrupted; what is finished is kept, the same command goes on from there", markup=False
        )
        code = INTERRUPTED
    except Exception as error:
        if type(error).__module__.startswith("obstore"):
            from pickcal.stores.objects import plain_error

            errors.print(f"pickcal: {plain_error(error)}", markup=False)
            sys.exit(REFUSED)
        if not isinstance(error, OSError) or error.errno is None:
            raise
        advice = "make room and give the same command again" if error.errno == errno.ENOSPC else ""
        parts = (error.strerror, error.filename, advice)
        errors.print("pickcal: " + ": ".join(str(part) for part in parts if part), markup=False)
        code = REFUSED
    sys.exit(code)


if __name__ == "__main__":
    main()
