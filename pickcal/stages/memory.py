"""How much memory a batch needs on a worker: from shapes, with factors fitted to measured peaks.

Measured at 4096 x 4096 and 8192 x 8192 source pixels of 1 Å, with blobs and 1 to 50 templates, picking and scoring, on
the search's coarse grid and on the working one: estimates are 4 to 13 % above the peaks. `tests/stages/test_memory.py`
holds them to that.
"""

from __future__ import annotations

import numpy as np

from pickcal.project import Project

PROCESS = 345e6
"""Bytes of a worker process that has imported everything."""
PER_SOURCE_PIXEL = 5.6
"""Reading, clipping and cropping a source micrograph: bytes per pixel of it."""
PER_WORKING_PIXEL = 12.0
"""The same, bytes per pixel of the working image."""
PER_STORED_PIXEL = 2.0
"""Working images of the whole batch, float16."""
PER_FILTERED_PIXEL = 30.0
"""Filtering a working image: bytes per pixel of it."""
PER_SEARCHED_PIXEL = {False: (125.0, 4.8), True: (185.0, 3.3)}
"""Searching: bytes per pixel of the grid that is searched, which is coarser where the low-pass allows it, and the same
for every image of the bank's basis; with all maps, and with the leading ones, on which groups of alike entries are
looked for."""
PER_COEFFICIENT = 40.0
"""The bank as a micrograph shows it: bytes per entry and image of the basis."""


def import_memory(project: Project) -> int:
    """Bytes that a worker needs to import a batch of the largest micrographs."""
    source = _pixels(project, "source_height", "source_width")
    working = _pixels(project, "height", "width")
    return int(PROCESS + source * PER_SOURCE_PIXEL + working * (PER_WORKING_PIXEL + project.batch * PER_STORED_PIXEL))


def search_memory(project: Project, name: str, screened: bool = True) -> int:
    """Bytes that a worker needs to search a batch of the largest micrographs with the bank of some picks.

    Parameters
    ----------
    project, name
        Project, and picks that have their bank.
    screened
        As of `pickcal.picking.search.prepare`: False for scoring positions that are given.
    """
    group, sizes = project.dataset(f"picks/{name}"), project.dataset(f"picks/{name}/bank").sizes
    coarser, finer = (int(part) for part in group.attrs["bank_ratio"])
    working = _pixels(project, "height", "width")
    searched = working * (finer / coarser) ** 2
    plain, by_basis = PER_SEARCHED_PIXEL[screened and sizes["group_entry"] > 0]
    return int(
        PROCESS
        + working * PER_FILTERED_PIXEL
        + searched * (plain + sizes["basis"] * by_basis)
        + sizes["entry"] * sizes["basis"] * PER_COEFFICIENT
    )


def _pixels(project: Project, height: str, width: str) -> float:
    """Pixels of the largest micrograph."""
    sides = [project.read("micrographs", name).astype(np.float64) for name in (height, width)]
    return float(np.max(sides[0] * sides[1], initial=0.0))
