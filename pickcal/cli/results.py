"""Commands that hand out what a project holds: status, report, export."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pickcal.cli.app import PASS_ON, ProjectPlace, app
from pickcal.cli.help import examples
from pickcal.cli.output import DEFAULT_OUTPUT, Output, session
from pickcal.settings import ExportSettings
from pickcal.stores.places import PlaceField


@app.command(
    group=PASS_ON,
    sort_key=2,
    help_epilogue=examples(
        "pickcal status p.zarr",
        "# for other programs: the last line is one JSON object",
        "pickcal status p.zarr --json",
    ),
)
def status(project: ProjectPlace, *, output: Output = DEFAULT_OUTPUT) -> None:
    """Say what a project holds and what is left to do."""
    from pickcal.project import Project
    from pickcal.stages.status import status as stage

    with session(output) as (_, show):
        show(stage(Project.open(project)))


@app.command(group=PASS_ON, sort_key=3, help_epilogue=examples("pickcal report p.zarr out/report.html"))
def report(project: ProjectPlace, out: Path, *, output: Output = DEFAULT_OUTPUT) -> None:
    """Write one HTML page with fits, plots, counts and failures; it opens offline.

    Parameters
    ----------
    out
        The page to write.
    """
    from pickcal.project import Project
    from pickcal.report import write_report

    with session(output) as (_, show):
        show({"report": str(write_report(Project.open(project), out)[0])})


@app.command(
    group=PASS_ON,
    sort_key=4,
    help_epilogue=examples(
        "pickcal export p.zarr --selection auto --format relion out/",
        "pickcal export p.zarr --selection auto --format cryosparc picks.cs --rejected",
        "pickcal export p.zarr --selection auto --format csv picks.csv",
    ),
)
def export(
    project: ProjectPlace,
    out: PlaceField,
    *,
    selection: Annotated[str, Parameter(help="Name of the selection.")],
    settings: Annotated[ExportSettings, Parameter(name="*")] = ExportSettings(),
    output: Output = DEFAULT_OUTPUT,
) -> None:
    """Write accepted picks for other programs; what came in with them goes out again untouched.

    Parameters
    ----------
    out
        Folder (RELION, crYOLO, EMAN) or file (cryoSPARC, Topaz, CSV, Parquet) to write.
    """
    from pickcal.project import Project
    from pickcal.stages.export import export as stage

    with session(output) as (_, show):
        show(stage(Project.open(project), selection, settings, out))
