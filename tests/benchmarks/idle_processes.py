"""Measure the processor time that a local cluster takes without work, as Dask comes and as pickcal starts it.

python tests/benchmarks/idle_processes.py [--workers 2] [--seconds 20]

Prints percent of a core for this process, which holds scheduler and nannies, and for each worker.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import patch

import psutil

sys.path.insert(0, str(Path(__file__).parents[2]))

from pickcal.engine.clusters import _dask, local
from pickcal.settings import ClusterSettings

SETTLED = 3.0
"""Seconds until what the start of a cluster leaves behind is done."""


def shares(configuration: Mapping[str, object], workers: int, seconds: float) -> list[float]:
    """Percent of a core that this process and each worker take while there is nothing to do."""
    with (
        patch.object(_dask, "CONFIGURATION", configuration),
        local.opened(ClusterSettings(kind="local", workers=workers), lambda text: None) as executor,
    ):
        there = executor.started.client.run(os.getpid).values()
        processes = [psutil.Process(), *map(psutil.Process, there)]
        time.sleep(SETTLED)
        before, began = [_spent(process) for process in processes], time.monotonic()
        time.sleep(seconds)
        took = time.monotonic() - began
        return [100 * (_spent(process) - spent) / took for process, spent in zip(processes, before, strict=True)]


def _spent(process: psutil.Process) -> float:
    return sum(process.cpu_times()[:2])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=20.0)
    options = parser.parse_args()
    as_it_comes = {key: value for key, value in _dask.CONFIGURATION.items() if key not in _dask.SELDOM}
    for title, configuration in (("as Dask comes", as_it_comes), ("as pickcal starts it", _dask.CONFIGURATION)):
        scheduler, *each = shares(configuration, options.workers, options.seconds)
        told = ", ".join(f"{share:.1f} %" for share in each)
        print(f"{title}: scheduler and nannies {scheduler:.1f} %, workers {told} of a core")


if __name__ == "__main__":
    main()
