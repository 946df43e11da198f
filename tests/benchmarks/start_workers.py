"""Measure what starting workers on this machine takes: each loads all of Dask, or they are copies of one that has.

python tests/benchmarks/start_workers.py [--workers 2 8] [--rounds 5]

A round is a process that opens a local cluster, has every worker load what picking takes, and ends. Prints wall
seconds and processor seconds of the whole machine, on which nothing else may run; medians over the rounds, which take
turns.
"""

from __future__ import annotations

import argparse
import importlib
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from unittest.mock import patch

import psutil

sys.path.insert(0, str(Path(__file__).parents[2]))

from pickcal.engine.clusters import local
from pickcal.settings import ClusterSettings

METHODS = ("spawn", "forkserver")
SETTLED = 1.0
"""Seconds until the processes of a round are gone."""


def loaded(name: str) -> str:
    """Load a module on a worker."""
    return importlib.import_module(name).__name__


def once(method: str, workers: int) -> None:
    """Start workers, have each load what it needs, and close them."""
    settings = ClusterSettings(kind="local", workers=workers)
    with patch.object(local, "BEGIN_BY", method), local.opened(settings, lambda text: None) as executor:
        outcomes = list(executor.run(loaded, ["pickcal.stages.pick"] * workers))
        assert [outcome.result for outcome in outcomes] == ["pickcal.stages.pick"] * workers


def measured(method: str, workers: int) -> tuple[float, float]:
    """Wall and processor seconds of a round."""
    before, began = _busy(), time.monotonic()
    subprocess.run([sys.executable, __file__, "--once", method, "--workers", str(workers)], check=True)
    took = time.monotonic() - began
    time.sleep(SETTLED)
    return took, _busy() - before


def _busy() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workers", type=int, nargs="+", default=[2, 8])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--once", choices=METHODS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        once(options.once, options.workers[0])
        return
    for workers in options.workers:
        rounds = [[measured(method, workers) for method in METHODS] for _ in range(options.rounds)]
        for i, method in enumerate(METHODS):
            wall, busy = (median(one[i][k] for one in rounds) for k in (0, 1))
            print(f"{workers} workers, {method}: {wall:.1f} s, {busy:.1f} CPU s", flush=True)
        ratios = [median(one[1][k] / one[0][k] for one in rounds) for k in (0, 1)]
        print(f"{workers} workers, forkserver / spawn: wall {ratios[0]:.2f}, CPU {ratios[1]:.2f}", flush=True)


if __name__ == "__main__":
    main()
