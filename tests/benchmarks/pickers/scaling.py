"""How the cost grows: with workers, with the number of micrographs, and memory with their size."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pickcal.engine.journal import runs
from pickcal.formats.images import image_info, read_measured
from pickcal.formats.mrc import write_mrc
from pickcal.project import Project
from pickcal.settings import SimulateSettings
from pickcal.simulation import simulate

from .control import attainable
from .pickcal_runs import job, pickcal, picking
from .sets import COUNTS, DIAMETER, Half

SMALL = {
    "micrographs": 8,
    "seed": 7,
    "diameter": DIAMETER,
    "pixel_size": 5.0,
    "height": 384,
    "width": 384,
    "particles_min": 20,
    "particles_max": 40,
    "empty": 0,
    "crowded": 0,
    "templates": 10,
}
SMALL_NUMBERS = (10, 100, 1000, 10_000)


def local(workers: int) -> tuple[str, ...]:
    """Words that ask for a local cluster."""
    return ("--cluster", "local", "--workers", str(workers))


def measure_workers(half: Half, folder: Path, count: int, rounds: int = 5) -> dict[str, Any]:
    """Throughput of one and of two workers, import and picking with 50 templates, in turn and some times over.

    Start-up is told apart by the events of the stages: a worker's time counts from a stage's first batch, with which
    it loads kernels and templates, to the end of the last batch of all.

    Returns
    -------
    dict
        By number of workers, medians of the rounds: `wall` seconds of `count` micrographs as users see it;
        `throughput`, micrographs a second from first batch to last; `busy`, the share of that time in which its
        workers had a batch. `gain` of two workers in throughput, `gains` of each round, `gain_with_start` in wall
        time, and what was `attainable` meanwhile.
    """
    names = ("1", "2")
    measured: dict[str, list[dict[str, float]]] = {name: [] for name in names}
    controls = [attainable(folder)]
    for _ in range(rounds):
        for name in names:
            measured[name].append(_one_measurement(half, folder / f"workers-{name}", count, int(name)))
            controls.append(attainable(folder))
    gains = [two["throughput"] / one["throughput"] for one, two in zip(*measured.values(), strict=True)]
    starts = [one["wall"] / two["wall"] for one, two in zip(*measured.values(), strict=True)]
    return {
        "micrographs": count,
        **{
            name: {key: float(np.median([m[key] for m in found])) for key in found[0]}
            for name, found in measured.items()
        },
        "attainable": float(np.median(controls)),
        "gain": float(np.median(gains)),
        "gains": gains,
        "gain_with_start": float(np.median(starts)),
    }


def _one_measurement(half: Half, folder: Path, count: int, workers: int) -> dict[str, float]:
    """Import and pick, each a command on a cluster of its own."""
    made = job(half, count, folder, local(workers), default_batch=True)
    wall = made.imported.wall + made.pick(picking(half, "template"), "template", local(workers)).wall
    project = Project.open(folder / "p.zarr")
    stages = [
        batches_of(records)
        for group in ("micrographs", "picks/template")
        for records in runs(project.path, group, project.group_mark(group))
    ]
    made.remove()
    span = sum(span_of(batches) for batches in stages)
    working = sum(batch["ended"] - batch["began"] for batches in stages for batch in batches)
    return {"wall": wall, "throughput": count / span, "busy": working / (workers * span)}


def batches_of(records: Iterable[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Records of the batches of one run of a stage."""
    return [record for record in records if record["event"] == "batch"]


def span_of(batches: Sequence[Mapping[str, Any]]) -> float:
    """Seconds from the begin of the first batch to the end of the last."""
    return float(max(batch["ended"] for batch in batches) - min(batch["began"] for batch in batches))


def measure_numbers(folder: Path, numbers: Sequence[int]) -> dict[str, Any]:
    """Cost of jobs of more and more small micrographs, on two workers.

    Returns
    -------
    dict
        By number of micrographs, for `import`, `pick` (10 templates) and `calibrate`: CPU and wall seconds of the
        whole process and largest memory of a process in MB.
    """
    half = _small_half(folder)
    found: dict[str, Any] = {}
    for count in numbers:
        made = job(half, count, folder / f"small-{count}", local(2))
        costs = {
            "import": made.imported,
            "pick": made.pick(picking(half, "template", 10), "template", local(2)),
            "calibrate": pickcal(made.folder, "calibrate", "p.zarr", "--picks", "template"),
        }
        found[str(count)] = {
            stage: {"cpu": cost.cpu, "wall": cost.wall, "memory": cost.memory} for stage, cost in costs.items()
        }
        made.remove()
    return found


def measure_memory(half: Half, folder: Path) -> dict[str, float]:
    """Largest memory of a process while one worker imports and picks, MB, by side of the micrographs.

    Micrographs of 8192 x 8192 are made of four copies of one of 4096 x 4096.
    """
    found = {}
    large = folder / "large.mrc"
    info = image_info(half.files[0])
    write_mrc(large, np.tile(read_measured(info)[0], (2, 2)), float(info.pixel_size or 1.0))
    for side, files in ((info.height, None), (2 * info.height, [large] * len(half.files))):
        made = job(half, len(half.files), folder / f"memory-{side}", local(1), files)
        picked = made.pick(picking(half, "template"), "template", local(1))
        blobs = made.pick(picking(half, "blob"), "blob", local(1))
        found[str(side)] = max(made.imported.memory, picked.memory, blobs.memory)
        made.remove()
    large.unlink()
    return found


def _small_half(folder: Path) -> Half:
    place = folder / "small"
    shutil.rmtree(place, ignore_errors=True)
    made = simulate(place, SimulateSettings(**SMALL))
    files = tuple(place / name for name in made.names)
    return Half(made.micrographs, files, (), dict.fromkeys(COUNTS, made.templates))
