"""Topaz with its pretrained network, on micrographs that its own command scales down."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pickcal.formats.topaz import read_picks

from .accuracy import Picked
from .processes import Cost, Slope, added, run, slope
from .sets import Half, repeated

PROGRAM = "topaz"
NO_GPU = {"CUDA_VISIBLE_DEVICES": ""}
APART = 100.0
"""Least distance of two picks, Å: that of RELION's, which serves Topaz better than half a diameter too."""


def version() -> str | None:
    """Tell the version of the Topaz on the PATH; None without."""
    if shutil.which(PROGRAM) is None:
        return None
    return run([PROGRAM, "--version"], Path.cwd()).output.split()[-1]


@dataclass(frozen=True)
class Extraction:
    """Costs of the two commands and the table they left."""

    preprocess: Cost
    extract: Cost
    table: Path


def pick(half: Half, binning: int, folder: Path, micrographs: int = 4) -> Extraction:
    """Scale down, normalise and pick, on one core."""
    shutil.rmtree(folder, ignore_errors=True)
    repeated(half, micrographs, folder)
    names = [f"m{i:05d}.mrc" for i in range(micrographs)]
    small = [f"small/{name}" for name in names]
    scale = ("preprocess", "-s", str(binning), "-d", "-1", "--num-workers", "0", "-o", "small/")
    first = run([PROGRAM, *scale, *names], folder, env=NO_GPU)
    radius = round(APART / binning)
    network = ("extract", "-d", "-1", "-j", "1", "-r", str(radius), "-x", str(binning), "-t", "-6", "-o", "picks.txt")
    return Extraction(first, run([PROGRAM, *network, *small], folder, env=NO_GPU), folder / "picks.txt")


def cost(short: Extraction, long: Extraction, counts: tuple[int, int]) -> Slope:
    """Cost of a micrograph from two jobs."""
    both = dict(zip(counts, (short, long), strict=True))
    return added([slope({n: e.preprocess for n, e in both.items()}), slope({n: e.extract for n, e in both.items()})])


def picked(table: Path, micrographs: int = 4, pixel_size: float = 1.0) -> list[Picked]:
    """Read Topaz's table with pickcal's own reader."""
    names, points, scores = [], [], []
    for part in read_picks(table):
        assert part.micrograph is not None
        names.append(np.asarray(part.micrograph))
        points.append(np.column_stack([part.y, part.x]) * pixel_size)
        scores.append(part.scores["score"])
    name, point, score = np.concatenate(names), np.concatenate(points), np.concatenate(scores)
    return [Picked(point[name == f"m{i:05d}"], score[name == f"m{i:05d}"]) for i in range(micrographs)]
