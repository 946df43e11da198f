"""pickcal: cryo-EM picking scores, calibrated against defocus, and picks that can be trusted.

The names below are the public API. `open` gives a `Workbench`, a project with its stages as methods, for notebooks;
beneath it each stage of the command line is one function.

Examples
--------
>>> import pickcal
>>> sorted(pickcal.__all__)[:3]
['Project', 'Workbench', 'calibrate']
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from pickcal.api import Workbench, import_micrographs, simulate_micrographs
    from pickcal.api import open as open
    from pickcal.engine.executors import open_executor
    from pickcal.job_file import load_job
    from pickcal.job_run import run
    from pickcal.project import Project
    from pickcal.report import write_report
    from pickcal.simulation import simulate
    from pickcal.stages.calibrate import calibrate
    from pickcal.stages.control import control
    from pickcal.stages.evaluate import evaluate_picks, evaluate_selection
    from pickcal.stages.export import export
    from pickcal.stages.ingest import ingest
    from pickcal.stages.pick import pick
    from pickcal.stages.select import select
    from pickcal.stages.status import status
    from pickcal.stages.watch import watch

_HOMES = {
    "Project": "pickcal.project",
    "Workbench": "pickcal.api",
    "calibrate": "pickcal.stages.calibrate",
    "control": "pickcal.stages.control",
    "evaluate_picks": "pickcal.stages.evaluate",
    "evaluate_selection": "pickcal.stages.evaluate",
    "export": "pickcal.stages.export",
    "import_micrographs": "pickcal.api",
    "ingest": "pickcal.stages.ingest",
    "load_job": "pickcal.job_file",
    "open": "pickcal.api",
    "open_executor": "pickcal.engine.executors",
    "pick": "pickcal.stages.pick",
    "run": "pickcal.job_run",
    "select": "pickcal.stages.select",
    "simulate": "pickcal.simulation",
    "simulate_micrographs": "pickcal.api",
    "status": "pickcal.stages.status",
    "watch": "pickcal.stages.watch",
    "write_report": "pickcal.report",
}

__all__ = [
    "Project",
    "Workbench",
    "calibrate",
    "control",
    "evaluate_picks",
    "evaluate_selection",
    "export",
    "import_micrographs",
    "ingest",
    "load_job",
    "open_executor",
    "pick",
    "run",
    "select",
    "simulate",
    "simulate_micrographs",
    "status",
    "watch",
    "write_report",
]
# not `open`: `from pickcal import *` would hide Python's own


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: the command line starts without zarr and matplotlib."""
    if name not in _HOMES:
        raise AttributeError(f"module 'pickcal' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """List the public names, imported or not: what completion in notebooks offers."""
    return sorted({*globals(), *_HOMES})
