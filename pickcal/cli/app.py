"""The command line's root: groups of commands, what they have in common, and what its help says."""

from __future__ import annotations

from typing import Annotated

from cyclopts import App, Group, Parameter

import pickcal
from pickcal.cli.help import RequiredFirst, example
from pickcal.cli.output import EXIT_CODES
from pickcal.settings import ClusterSettings
from pickcal.stores.places import PlaceField

TAKE_IN = Group("Take in", sort_key=1)
PICK = Group("Pick and score", sort_key=2)
DECIDE = Group("Calibrate and select", sort_key=3)
PASS_ON = Group("Look and pass on", sort_key=4)
WHOLE = Group("Whole jobs and sessions", sort_key=5)
ABOUT = Group("About pickcal", sort_key=6)
CLUSTER = Group("Where tasks run", sort_key=90)


def _root_help() -> str:
    first = (
        "pickcal simulate sim --micrographs 12 --seed 1",
        "pickcal import sim/micrographs_ctf.star --project p.zarr",
        "pickcal pick template p.zarr --templates sim/templates.mrcs --diameter 150",
        "pickcal calibrate p.zarr --picks template",
        "pickcal select p.zarr --picks template --auto --name auto",
        "pickcal inspect p.zarr",
        "pickcal export p.zarr --selection auto --format relion out/",
    )
    codes = [f"  {code:<5}{meaning}" for code, meaning in EXIT_CODES]
    more = "'pickcal COMMAND --help' tells every setting of a command, with examples."
    return "\n".join(
        ["A first run, on simulated micrographs", *map(example, first), "", "Exit codes", *codes, "", more]
    )


app = App(
    name="pickcal",
    help="Pick particles, calibrate their scores against defocus, and keep picks you can trust.",
    help_format="plaintext",  # Markdown would take the * and the < of our words for its own
    help_epilogue=_root_help(),
    help_formatter=RequiredFirst(),
    version=pickcal.__version__,
    # --defocus 8000 14000 20000; no flag --empty-defocus beside it
    default_parameter=Parameter(consume_multiple=True, negative_iterable=()),
    suppress_keyboard_interrupt=False,  # else cyclopts exits in silence
)
for flag in ("--help", "--version"):
    app[flag].group = (ABOUT,)

Cluster = Annotated[ClusterSettings, Parameter(name="*", group=CLUSTER)]
ProjectPlace = Annotated[
    PlaceField, Parameter(help="The project store: a folder ending in .zarr, or s3://BUCKET/NAME.zarr.")
]
Overwrite = Annotated[bool, Parameter(help="Replace what has this name.", negative="")]
PicksName = Annotated[str, Parameter(help="Name of the picks.")]

DEFAULT_CLUSTER = ClusterSettings()
SERIAL = ClusterSettings(kind="serial")
