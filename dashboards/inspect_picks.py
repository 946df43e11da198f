"""Target of `panel serve dashboards/inspect_picks.py --args PROJECT.zarr`."""

import sys

from pickcal.dashboard.views import inspect_page

if len(sys.argv) != 2:
    raise SystemExit("expected one project: panel serve dashboards/inspect_picks.py --args PROJECT.zarr")
inspect_page(sys.argv[1]).servable()
