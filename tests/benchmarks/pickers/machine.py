"""The machine and the programs in general terms, as results name them: no host, no path."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from . import relion_runs, topaz_runs

PACKAGES = ("numpy", "scipy", "ducc0", "numba", "pyfftw", "dask", "zarr")


def describe() -> dict[str, Any]:
    """Processor family, cores, memory in GB, versions of Python, of libraries and of the other programs."""
    packages = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            continue
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": platform.system(),
        "python": platform.python_version(),
        "packages": packages,
        "relion": relion_runs.version(),
        "topaz": topaz_runs.version(),
    }


def _processor() -> str:
    """Model name as the processor tells it."""
    info = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", info.read_text(), re.M) if info.is_file() else None
    return found[1].strip() if found else platform.machine()
