"""Commands that do several stages at once: run a job file, watch a session."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from pickcal.cli.app import DEFAULT_CLUSTER, SERIAL, WHOLE, Cluster, ProjectPlace, app
from pickcal.cli.help import examples
from pickcal.cli.output import DEFAULT_OUTPUT, Output, session
from pickcal.engine.progress import TerminalReporter
from pickcal.job_file import KEPT, load_job
from pickcal.settings import ImportSettings, WatchPickSettings, WatchSettings
from pickcal.stores.places import PlaceField

ANOTHER_CLUSTER = (
    "In place of kind in the job's [cluster]. From the [cluster] of another kind only "
    f"{' and '.join(KEPT)} are taken over, and workers except by 'local', nothing by 'serial'; workers_min, memory, "
    "listen, tls_ca, tls_cert, tls_key and options are left out: --set cluster.memory='4 GB' and the like give them."
)


@app.command(
    group=WHOLE,
    sort_key=1,
    help_epilogue=examples(
        "pickcal run jobs/demo.toml",
        "pickcal run jobs/templates.toml --set pick.diameter=150 --set project=p.zarr",
        "pickcal run jobs/templates.toml --cluster slurm --workers 32",
    ),
)
def run(
    job: Path,
    *,
    set_: Annotated[
        tuple[str, ...], Parameter(name="--set", consume_multiple=False, help="section.key=value; may be given again.")
    ] = (),
    cluster: Annotated[str | None, Parameter(help=ANOTHER_CLUSTER)] = None,
    workers: Annotated[int | None, Parameter(help="In place of workers in the job's [cluster].")] = None,
    output: Output = DEFAULT_OUTPUT,
) -> None:
    """Run a whole job file on one cluster: import, pick, calibrate, select, export, report.

    Parameters
    ----------
    job
        TOML file.
    """
    from pickcal.engine.executors import open_executor
    from pickcal.job_run import run as run_job

    extra = [f"cluster.workers={workers}"] if workers is not None else []
    with session(output) as (reporter, show):
        loaded = load_job(job, (*set_, *extra), cluster)
        with open_executor(loaded.cluster if loaded.has_tasks else SERIAL, reporter.note) as executor:
            if loaded.watch is None:
                show(run_job(loaded, executor, reporter))
                return
            with _told_to_stop(reporter) as stop:
                show(run_job(loaded, executor, reporter, stop))


@app.command(
    group=WHOLE,
    sort_key=2,
    help_epilogue=examples(
        "pickcal watch CtfFind/job003/micrographs_ctf.star p.zarr --templates templates.mrcs --diameter 150",
        "# a folder of images, and a selection that is kept up to date",
        'pickcal watch "frames/*.mrc" p.zarr --ctf-table ctf.star --diameter 150 --selection live',
        "# later, to go on",
        "pickcal watch CtfFind/job003/micrographs_ctf.star p.zarr",
    ),
)
def watch(
    source: PlaceField,
    project: ProjectPlace,
    *,
    watching: Annotated[WatchSettings, Parameter(name="*")] = WatchSettings(),
    picking: Annotated[WatchPickSettings, Parameter(name="*")] = WatchPickSettings(),
    settings: Annotated[ImportSettings, Parameter(name="*")] = ImportSettings(),
    name: Annotated[str | None, Parameter(help="Name of the picks; default: template or blob.")] = None,
    cluster: Cluster = DEFAULT_CLUSTER,
    output: Output = DEFAULT_OUTPUT,
) -> None:
    """Follow a running session: take in, pick and calibrate what arrives. Ctrl-C ends it.

    Parameters
    ----------
    source
        Table of micrographs that grows, or folder of images (or a name with *) with --ctf-table.
    """
    from pickcal.engine.executors import open_executor
    from pickcal.stages.watch import Session
    from pickcal.stages.watch import watch as stage

    with (
        session(output) as (reporter, show),
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
