"""Calibrate synthetic pick tables of growing size: time, and memory that must not grow with the micrographs.

python tests/benchmarks/large_tables.py FOLDER [--sizes 20000x500 10000x30 100000x30 1000000x30]

Prints a Markdown table: seconds and largest resident memory of `pickcal calibrate` in a process of its own, and of a
process that only imports what it needs. A table of n x k holds n micrographs of k picks and k decoys each.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
from datetime import date
from pathlib import Path

import numpy as np

from pickcal.project import Project
from pickcal.schema import BANK, MICROGRAPHS, PICKS, STATIC, Status

BATCH = 1024
SIZES = ("20000x500", "10000x30", "100000x30", "1000000x30")
MEASURED = """
import resource, sys, time
from pickcal.settings import CalibrateSettings
from pickcal.stages.calibrate import calibrate
from pickcal.project import Project
start = time.perf_counter()
if len(sys.argv) > 1:
    calibrate(Project.open(sys.argv[1], mode="r+"), "made", CalibrateSettings())
print(time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def make(path: Path, micrographs: int, picks: int) -> None:
    """Write a project of pick tables: noise, and particles whose scores rise with defocus."""
    if path.exists():
        return
    rng = np.random.default_rng(0)
    defocus = rng.uniform(5000, 30000, micrographs)
    columns = {
        name: np.full(micrographs, 1.0 if MICROGRAPHS[name].dtype == np.float64 else 1)
        for name in STATIC
        if MICROGRAPHS[name].dtype is not str
    }
    columns.update(defocus_u=defocus, defocus_v=defocus, status=np.full(micrographs, Status.DONE, dtype=np.int8))
    names = np.array([f"mic_{i:07d}.mrc" for i in range(micrographs)], dtype=object)
    columns.update(name=names, source=names)
    partial = path.with_suffix(".making.zarr")
    shutil.rmtree(partial, ignore_errors=True)
    project = Project.create(partial, {"micrograph": micrographs, "y": 1, "x": 1}, BATCH, columns, {})
    bank = {name: np.zeros((1,) * len(variable.dims), dtype=variable.dtype) for name, variable in BANK.items()}
    project.create_picks("made", picks, {}, bank, {"bank": "none", "diameter": 150.0})
    for start, stop in project.batches():
        project.write_batch("picks/made", start, stop, _batch(defocus[start:stop], picks, rng))
    partial.rename(path)


def _batch(defocus: np.ndarray, picks: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    shape = (len(defocus), picks)
    offset = (defocus[:, None] - 17000) * 1e-4
    particle = rng.random(shape) < rng.uniform(0, 0.6, (len(defocus), 1))
    ncc = np.where(particle, rng.normal(0.40 + 0.05 * offset, 0.05), rng.normal(0.24 + 0.01 * offset, 0.045))
    power = np.exp(np.where(particle, 0.3, 0.0) + 0.12 * rng.standard_normal(shape))
    order = np.argsort(-ncc, axis=1)
    values = {
        "ncc": np.take_along_axis(ncc, order, axis=1),
        "power": np.take_along_axis(power, order, axis=1),
        "decoy_ncc": -np.sort(-rng.normal(0.24 + 0.01 * offset, 0.045, shape), axis=1),
        "decoy_power": np.exp(0.12 * rng.standard_normal(shape)),
    }
    for name in ("x", "y", "decoy_x", "decoy_y"):
        values[name] = rng.uniform(0, 4000, shape)
    values = {name: value.astype(PICKS[name].dtype) for name, value in values.items()}
    full = np.full(len(defocus), picks, dtype=np.int32)
    return {**values, "count": full, "decoy_count": full, "status": np.full(len(defocus), Status.DONE, dtype=np.int8)}


def measure(*words: str) -> tuple[float, float]:
    """Seconds and MB of a fresh process."""
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "OPENBLAS_NUM_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *words], capture_output=True, text=True, check=True, env=environment
    )
    seconds, memory = done.stdout.split()[-2:]
    return float(seconds), float(memory)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES))
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    print(f"{date.today()}, {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}\n")
    print("| micrographs | picks each | seconds | memory, MB |\n|---|---|---|---|")
    print(f"| none, only started | | | {measure()[1]:.0f} |")
    for size in options.sizes:
        micrographs, picks = (int(number) for number in size.split("x"))
        path = options.folder / f"{size}.zarr"
        make(path, micrographs, picks)
        seconds, memory = measure(str(path))
        print(f"| {micrographs:,} | {picks} | {seconds:.0f} | {memory:.0f} |", flush=True)


if __name__ == "__main__":
    main()
