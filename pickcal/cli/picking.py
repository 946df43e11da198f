"""Commands that make scores: pick template, pick blob, score."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Parameter

from pickcal.cli.app import DEFAULT_CLUSTER, PICK, Cluster, Overwrite, PicksName, ProjectPlace, app
from pickcal.cli.help import examples
from pickcal.cli.output import DEFAULT_OUTPUT, Output, session
from pickcal.settings import BlobSettings, ClusterSettings, ScoreSettings, TemplateSettings
from pickcal.stores.places import Place

TEMPLATE_EXAMPLES = (
    "pickcal pick template p.zarr --templates templates.mrcs --diameter 150",
    "# projections of a 3D map",
    "pickcal pick template p.zarr --templates map.mrc --diameter 150 --name map",
)
BLOB_EXAMPLES = (
    "pickcal pick blob p.zarr --diameter-min 120 --diameter-max 160",
    "# particles that touch: let neighbours come closer",
    "pickcal pick blob p.zarr --diameter-min 130 --diameter-max 130 --min-distance 0.6",
)

pick_app = App(
    name="pick",
    help="Pick particles with blobs or templates.",
    help_epilogue=examples(TEMPLATE_EXAMPLES[0], BLOB_EXAMPLES[0]),
    group=PICK,
    sort_key=1,
)
app.command(pick_app)


@pick_app.command(help_epilogue=examples(*TEMPLATE_EXAMPLES))
def template(
    project: ProjectPlace,
    *,
    settings: Annotated[TemplateSettings, Parameter(name="*")],
    name: PicksName = "template",
    overwrite: Overwrite = False,
    cluster: Cluster = DEFAULT_CLUSTER,
    output: Output = DEFAULT_OUTPUT,
) -> None:
    """Pick with templates: 2D images, or projections of a 3D map."""
    _pick(project, name, settings, overwrite, cluster, output)


@pick_app.command(help_epilogue=examples(*BLOB_EXAMPLES))
def blob(
    project: ProjectPlace,
    *,
    settings: Annotated[BlobSettings, Parameter(name="*")],
    name: PicksName = "blob",
    overwrite: Overwrite = False,
    cluster: Cluster = DEFAULT_CLUSTER,
    output: Output = DEFAULT_OUTPUT,
) -> None:
    """Pick with discs, rings or ellipses."""
    _pick(project, name, settings, overwrite, cluster, output)


def _pick(
    project: Place,
    name: str,
    settings: TemplateSettings | BlobSettings,
    overwrite: bool,
    cluster: ClusterSettings,
    output: Output,
) -> None:
    from pickcal.engine.executors import open_executor
    from pickcal.project import Project
    from pickcal.stages.pick import pick

    with session(output) as (reporter, show):
        opened = Project.open(project, mode="r+")
        with open_executor(cluster, reporter.note) as executor:
            show(pick(opened, name, settings, executor, reporter, overwrite).as_json())


@app.command(
    group=PICK,
    sort_key=2,
    help_epilogue=examples(
        "pickcal score p.zarr --picks topaz --templates templates.mrcs --diameter 150",
        "# exactly at the coordinates, with a disc and a ring",
        "pickcal score p.zarr --picks topaz --diameter 150 --radius 0",
    ),
)
def score(
    project: ProjectPlace,
    *,
    picks: PicksName,
    settings: Annotated[ScoreSettings, Parameter(name="*")],
    name: Annotated[str | None, Parameter(help="Name of the new picks; default: that of the old with -scored.")] = None,
    overwrite: Overwrite = False,
    cluster: Cluster = DEFAULT_CLUSTER,
    output: Output = DEFAULT_OUTPUT,
) -> None:
    """Give NCC and power to the coordinates of some picks, whoever made them; with templates or with blobs."""
    from pickcal.engine.executors import open_executor
    from pickcal.project import Project
    from pickcal.stages.score import score as stage

    with session(output) as (reporter, show):
        opened = Project.open(project, mode="r+")
        with open_executor(cluster, reporter.note) as executor:
            show(stage(opened, picks, name, settings, executor, reporter, overwrite).as_json())
