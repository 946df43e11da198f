"""The reference of Python: which names stand on its pages. mkdocstrings writes what their docstrings say."""

from __future__ import annotations

import pickcal

INTRODUCTION = """# Python

Every command is one function of the package `pickcal`; settings are those of the [reference](settings.md), given as
objects of `pickcal.settings`. Functions raise errors of `pickcal.errors` where the command line refuses.

```python
import pickcal
from pickcal.settings import CalibrateSettings

project = pickcal.Project.open("p.zarr", mode="r+")
fit = pickcal.calibrate(project, "template", CalibrateSettings(degree=2))  # an xarray.Dataset
print(fit["verdict"].values)
```

These names are the public API.
"""

FUNCTIONS = """# Functions on arrays and tables

For developers of methods: functions that know nothing of projects, clusters or the web. They take arrays or xarray
datasets and return new ones. Names may still change between versions; those of the [public API](python.md) less so.
"""

ERRORS = ("pickcal.errors.PickcalError", "pickcal.errors.InputError", "pickcal.errors.MissingFileError",
          "pickcal.errors.ProjectError")  # fmt: skip

MODULES = {
    "Contrast transfer function": ("pickcal.picking.ctf",),
    "Search and scores": (
        "pickcal.picking.blobs",
        "pickcal.picking.bank",
        "pickcal.picking.matching",
        "pickcal.picking.entries",
        "pickcal.picking.search",
        "pickcal.picking.scoring",
        "pickcal.picking.power",
    ),
    "Lines": (
        "pickcal.calibration.lines",
        "pickcal.calibration.medians",
        "pickcal.calibration.trends",
        "pickcal.calibration.robust",
        "pickcal.calibration.apply",
    ),
    "Mixture and rates": (
        "pickcal.calibration.mixture.fit",
        "pickcal.calibration.mixture.components",
        "pickcal.calibration.mixture.noise",
        "pickcal.calibration.mixture.apply",
        "pickcal.calibration.mixture.rates",
    ),
    "Selection and evaluation": ("pickcal.selection", "pickcal.evaluation"),
    "Formats": ("pickcal.formats.foreign", "pickcal.formats.registry"),
}


def public() -> str:
    """Write the page of the public API, in the order of the project's life."""
    first = ["Project"]
    names = first + [name for name in pickcal.__all__ if name not in first]
    blocks = [f"::: pickcal.{name}" for name in names]
    errors = [f"::: {name}" for name in ERRORS]
    return "\n\n".join([INTRODUCTION, "## Names of the package", *blocks, "## Errors", *errors]) + "\n"


def functions() -> str:
    """Write the page of lower functions."""
    parts = [FUNCTIONS]
    for heading, modules in MODULES.items():
        parts.append(f"## {heading}")
        parts += [f"::: {module}" for module in modules]
    return "\n\n".join(parts) + "\n"
