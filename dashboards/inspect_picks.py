"""Target of `panel serve dashboards/inspect_picks.py --address 127.0.0.1 --args PROJECT.zarr [--truth FILE] ...`."""

import argparse
import sys
from pathlib import Path

import panel as pn

from pickcal.dashboard.serving.server import open_to_others
from pickcal.dashboard.views.page import inspect_page

parser = argparse.ArgumentParser(
    prog="panel serve dashboards/inspect_picks.py --address 127.0.0.1 --args", description=__doc__
)
parser.add_argument("project", type=Path)
parser.add_argument("--truth", type=Path)
parser.add_argument("--read-only", action="store_true")
given = parser.parse_args()
asked = bool(pn.config.basic_auth or pn.config.oauth_provider)
refusal = open_to_others(sys.orig_argv, asked and not (pn.config.oauth_optional or pn.config.oauth_guest_endpoints))
page = pn.pane.Markdown(refusal) if refusal else inspect_page(given.project, given.truth, given.read_only)
page.servable()
