"""RELION's autopicking, as Debian packages it: templates with CTF at 5 degrees, and Laplacian of Gaussian."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np

from pickcal.formats.relion_picks import read_picks

from .accuracy import Picked
from .processes import Cost, Slope, run, slope
from .sets import DIAMETER, Half, repeated

PROGRAM = "relion_autopick"
STARTED = "Autopicking"
"""What it prints once its references are prepared."""
SHARED = ("--odir", "Auto/", "--pickname", "autopick", "--angpix", "1", "--shrink", "0", "--lowpass", "20")
TEMPLATES = (
    *("--angpix_ref", "4", "--particle_diameter", f"{DIAMETER:g}", "--ang", "5", "--ctf", "--invert"),
    # every pick is kept, as one threshold over all is sought; 100 Å serve it better than half a diameter
    *("--threshold", "0", "--min_distance", "100"),
)
LOG = (
    *("--LoG", "--LoG_diam_min", f"{0.87 * DIAMETER:.0f}", "--LoG_diam_max", f"{1.13 * DIAMETER:.0f}"),
    *("--LoG_adjust_threshold", "-3"),
)


def version() -> str | None:
    """Tell the version of the RELION that is installed; None without."""
    if shutil.which(PROGRAM) is None:
        return None
    found = re.search(r"RELION version:?\s*([\w.-]+)", run([PROGRAM, "--version"], Path.cwd()).output)
    return found[1] if found else "of unknown version"


def pick(half: Half, method: str, count: int, folder: Path, micrographs: int = 4) -> Cost:
    """Pick with LoG, or with `count` templates; `before` is the CPU of start-up."""
    shutil.rmtree(folder, ignore_errors=True)
    star = repeated(half, micrographs, folder)
    words = LOG if method == "log" else ("--ref", str(half.templates[count].resolve()), *TEMPLATES)
    return run([PROGRAM, "--i", star.name, *SHARED, *words], folder, mark=STARTED)


def after_start(cost: Cost, micrographs: int) -> Slope:
    """Cost of a micrograph where the program itself tells when it has started."""
    wall = (cost.wall - cost.wall_before) / micrographs
    return Slope((cost.cpu - cost.before) / micrographs, wall, cost.before, cost.memory)


def log_slope(half: Half, folder: Path, counts: tuple[int, int]) -> Slope:
    """Cost of LoG from two jobs: too little happens before the mark."""
    return slope({n: pick(half, "log", 0, folder / f"log-{n}", n) for n in counts})


def picked(folder: Path, micrographs: int = 4, pixel_size: float = 1.0) -> list[Picked]:
    """Read what RELION picked, with pickcal's own reader."""
    out = []
    for i in range(micrographs):
        parts = list(read_picks(folder / "Auto" / f"m{i:05d}_autopick.star"))
        points = np.concatenate([np.column_stack([part.y, part.x]) for part in parts]) * pixel_size
        out.append(Picked(points, np.concatenate([part.scores["figure_of_merit"] for part in parts])))
    return out
