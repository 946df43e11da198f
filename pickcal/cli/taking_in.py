"""Commands that take micrographs and picks into a project: simulate, import, import-picks."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

from cyclopts import CycloptsError, Parameter

from pickcal.cli.app import (
    DEFAULT_CLUSTER,
    SERIAL,
    TAKE_IN,
    Cluster,
    Overwrite,
    PicksName,
    ProjectPlace,
    app,
)
from pickcal.cli.help import examples
from pickcal.cli.output import DEFAULT_OUTPUT, Output, session
from pickcal.settings import ImportPicksSettings, ImportSettings, SimulateSettings
from pickcal.stores.places import Place, PlaceField, PlaceList


@app.command(
    group=TAKE_IN,
    sort_key=1,
    help_epilogue=examples(
        "pickcal simulate sim --micrographs 12 --seed 1",
        "# a hard data set: weak particles, carbon, more ice",
        "pickcal simulate hard --signal 0.6 --carbon 3 --ice-crystals 2",
    ),
)
def simulate(
    out: Path,
    *,
    settings: Annotated[SimulateSettings, Parameter(name="*")] = SimulateSettings(),
    cluster: Cluster = DEFAULT_CLUSTER,
    output: Output = DEFAULT_OUTPUT,
) -> None:
    """Make simulated micrographs with known particles.

    Parameters
    ----------
    out
        Folder to write: micrographs, micrographs_ctf.star, truth_particles.star, templates.mrcs.
    """
    from pickcal.engine.executors import open_executor
    from pickcal.simulation import simulate as make

    with session(output) as (reporter, show), open_executor(cluster, reporter.note) as executor:
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


@app.command(
    name="import",
    group=TAKE_IN,
    sort_key=2,
    help_epilogue=examples(
        "pickcal import CtfFind/job003/micrographs_ctf.star --project p.zarr",
        "# without the images, for picks that other programs made",
        "pickcal import CtfFind/job003/micrographs_ctf.star --tables-only --project q.zarr",
    ),
)
def import_(
    sources: PlaceList,
    *,
    project: Annotated[
        PlaceField | None,
        Parameter(help="The project store: a folder ending in .zarr, or s3://BUCKET/NAME.zarr. It may stand first."),
    ] = None,
    settings: Annotated[ImportSettings, Parameter(name="*")] = ImportSettings(),
    cluster: Cluster = DEFAULT_CLUSTER,
    output: Output = DEFAULT_OUTPUT,
) -> None:
    """Read micrographs into a project. Sources are only read.

    Parameters
    ----------
    sources
        Table of micrographs (RELION, cryoSPARC, CTFFIND, Gctf, CSV), or MRC and TIFF files.
    """
    from pickcal.engine.executors import open_executor
    from pickcal.stages.ingest import ingest

    project, sources = _project_and_sources(project, list(sources))
    with (
        session(output) as (reporter, show),
        open_executor(SERIAL if settings.tables_only else cluster, reporter.note) as executor,
    ):
        show(ingest(sources, project, settings, executor, reporter).as_json())


def _project_and_sources(project: Place | None, sources: list[Place]) -> tuple[Place, list[Place]]:
    """Tell the project from the sources: other commands have it first, without a flag, and so people type it here."""
    first = sources[0]
    if project is None and first.suffix == ".zarr" and len(sources) > 1:
        return first, sources[1:]
    if project is None and first.suffix == ".zarr":
        raise _usage(
            f"{first}: expected micrographs beside the project, got none; "
            f"type: pickcal import micrographs_ctf.star --project {shlex.quote(str(first))}"
        )
    if project is None:
        raise _usage(
            "--project: expected the project to make, got none; "
            f"type: pickcal import {' '.join(shlex.quote(str(one)) for one in sources)} --project p.zarr"
        )
    return project, sources


def _usage(text: str) -> CycloptsError:
    """Error in the command line of the import."""
    return CycloptsError(msg=text, command_chain=("import",))


@app.command(
    name="import-picks",
    group=TAKE_IN,
    sort_key=3,
    help_epilogue=examples(
        "pickcal import-picks p.zarr AutoPick/job004 --name relion",
        "pickcal import-picks p.zarr picked_particles.cs passthrough_particles.cs --name inspected",
        "pickcal import-picks p.zarr topaz/all.txt --name topaz --scale 8",
    ),
)
def import_picks(
    project: ProjectPlace,
    files: list[Path],
    *,
    name: PicksName,
    settings: Annotated[ImportPicksSettings, Parameter(name="*")] = ImportPicksSettings(),
    overwrite: Overwrite = False,
    output: Output = DEFAULT_OUTPUT,
) -> None:
    """Take picks of other programs into a project.

    RELION, cryoSPARC, Topaz, crYOLO, EMAN, Gautomatch, Warp, CSV and Parquet are known by their contents.

    Parameters
    ----------
    files
        Files or folders of picks, or RELION's index of them.
    """
    from pickcal.project import Project
    from pickcal.stages.import_picks import import_picks as stage

    with session(output) as (reporter, show):
        show(stage(Project.open(project, mode="r+"), files, name, settings, reporter, overwrite))
