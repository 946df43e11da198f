"""What was binned, kept in a file, so that a hundred million picks need not be binned anew on another day."""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import pickcal
from pickcal.dashboard.binned.cells import Axes, Ranges
from pickcal.dashboard.binned.filling import Binned
from pickcal.dashboard.binned.grids import Grid
from pickcal.dashboard.binned.tables import Sums
from pickcal.dashboard.methods import MAIN, Method
from pickcal.errors import InputError
from pickcal.formats.atomic import atomic_path
from pickcal.project import Project
from pickcal.settings import SelectSettings
from pickcal.stages.calibrate_result import fingerprint

LAYOUT = 2
DAMAGED = (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, zlib.error)


def cache_name(
    project: Project,
    picks: str,
    method: Method,
    fixed: SelectSettings,
    finished: NDArray[np.bool_],
    counts: NDArray[np.int64],
) -> str:
    """File name for what was binned of some picks: another one when anything that counts has changed.

    Parameters
    ----------
    project, picks
        Where the picks are.
    method, fixed
        What the main threshold is on, and the fixed thresholds.
    finished, counts
        Which micrographs are finished, and their picks, 0 for the others.
    """
    made = hashlib.sha256(f"{LAYOUT} {pickcal.__version__} {method} {picks}".encode())
    made.update(json.dumps(fixed.stored(), sort_keys=True).encode())
    made.update(fingerprint(project, picks).encode())
    made.update(counts.tobytes())
    made.update(finished.tobytes())
    return f"cube_{method}_{made.hexdigest()[:24]}.npz"


def write_cache(path: Path, found: Binned) -> bool:
    """Write what was binned; False, and nothing, where the disk does not take it."""
    axes, sums = found.axes, found.sums
    arrays: dict[str, Any] = {
        "main": axes.main.edges,
        "main_regular": axes.main.regular,
        "border": axes.border.edges,
        "border_regular": axes.border.regular,
        "ncc": axes.ncc,
        "sized": np.array(axes.sized),
        "ranges": np.array([found.ranges.main, found.ranges.power, found.ranges.border]),
        "rows": found.rows,
        "total": np.array(found.total),
        "deep": sums.deep,
    }
    if axes.power is not None:
        arrays |= {"power": axes.power.edges, "power_regular": axes.power.regular}
    arrays |= {f"expected_{name}": table for name, table in sums.expected.items()}
    arrays |= {f"failed_{reason}": table for reason, table in sums.failed.items()}
    arrays |= {name: array for name, array in (("seen", sums.seen), ("frames", found.frames)) if array is not None}
    try:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **arrays)
    except (OSError, InputError):
        return False
    return True


def read_cache(
    path: Path, method: Method, defocus: NDArray[np.int8], extra: Mapping[str, Sequence[float]]
) -> Binned | None:
    """Read what was binned; None if there is no such file, it is damaged or lacks some of the extra edges.

    Parameters
    ----------
    path
        The file.
    method
        What the main threshold is on.
    defocus
        Bin of defocus of every micrograph.
    extra
        Values that must be edges, by the names of `SelectSettings`.
    """
    if not path.is_file():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            found = _binned({name: file[name] for name in file.files}, method, defocus)
    except DAMAGED:
        return None
    axes = found.axes
    grids = {MAIN[method]: axes.main, "edge": axes.border, "min_power": axes.power, "max_power": axes.power}
    for name, grid in grids.items():
        if grid is not None and not all(grid.holds(value) for value in extra.get(name, ())):
            return None
    return found


def _binned(arrays: dict[str, NDArray[Any]], method: Method, defocus: NDArray[np.int8]) -> Binned:
    power = Grid(arrays["power"], arrays["power_regular"]) if "power" in arrays else None
    axes = Axes(
        method,
        Grid(arrays["main"], arrays["main_regular"]),
        power,
        Grid(arrays["border"], arrays["border_regular"]),
        arrays["ncc"],
        defocus,
        bool(arrays["sized"]),
    )
    deep = arrays["deep"]
    main, powers, border = axes.shape
    if deep.shape[:3] != (main, powers, border) or deep.shape[3] <= int(defocus.max(initial=0)):
        raise ValueError("tables that do not fit the grids")
    sums = Sums(
        axes,
        deep,
        np.ascontiguousarray(deep.sum(axis=3, dtype=np.int32).transpose(2, 0, 1)),
        {name.removeprefix("expected_"): table for name, table in arrays.items() if name.startswith("expected_")},
        {int(name.removeprefix("failed_")): table for name, table in arrays.items() if name.startswith("failed_")},
        arrays.get("seen"),
    )
    ranges = Ranges(*((float(low), float(high)) for low, high in arrays["ranges"]))
    return Binned(axes, ranges, sums, arrays.get("frames"), arrays["rows"], int(arrays["total"]))
