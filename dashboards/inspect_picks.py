"""Target of `panel serve dashboards/inspect_picks.py --args PROJECT.zarr [--truth FILE] [--read-only]`."""

import argparse
from pathlib import Path

from pickcal.dashboard.views.page import inspect_page

parser = argparse.ArgumentParser(prog="panel serve dashboards/inspect_picks.py --args", description=__doc__)
parser.add_argument("project", type=Path)
parser.add_argument("--truth", type=Path)
parser.add_argument("--read-only", action="store_true")
given = parser.parse_args()
inspect_page(given.project, given.truth, given.read_only).servable()
