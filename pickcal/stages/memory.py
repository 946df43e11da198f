"""How much memory a batch needs on a worker: from shapes, with factors measured by tests/benchmarks/scaling.py."""

from __future__ import annotations

import numpy as np

from pickcal.project import Project

PROCESS = 250e6
"""Bytes of a worker process that has imported everything."""
PER_SOURCE_PIXEL = 14.0
"""Reading, clipping and cropping a source micrograph: bytes per pixel of it."""
PER_WORKING_PIXEL = 12.0
"""The same, bytes per pixel of the working image."""
PER_STORED_PIXEL = 2.0
"""Working images of the whole batch, float16."""
PER_SEARCHED_PIXEL = 120.0
"""Searching a working image: bytes per pixel of it."""
PER_BASIS_PIXEL = 5.0
"""The same, for every image of the bank's basis."""


def import_memory(project: Project) -> int:
    """Bytes that a worker needs to import a batch of the largest micrographs."""
    source = _pixels(project, "source_height", "source_width")
    working = _pixels(project, "height", "width")
    return int(PROCESS + source * PER_SOURCE_PIXEL + working * (PER_WORKING_PIXEL + project.batch * PER_STORED_PIXEL))


def search_memory(project: Project, name: str) -> int:
    """Bytes that a worker needs to search or score a batch of the largest micrographs with the bank of some picks."""
    basis = int(project.dataset(f"picks/{name}/bank").sizes["basis"])
    return int(PROCESS + _pixels(project, "height", "width") * (PER_SEARCHED_PIXEL + basis * PER_BASIS_PIXEL))


def _pixels(project: Project, height: str, width: str) -> float:
    """Pixels of the largest micrograph."""
    sides = [project.read("micrographs", name).astype(np.float64) for name in (height, width)]
    return float(np.max(sides[0] * sides[1], initial=0.0))
