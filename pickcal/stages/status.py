"""Status: what a project holds and what is left to do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pickcal.project import Project, mended, stage_counts
from pickcal.schema import Status
from pickcal.stages.batches import failures
from pickcal.stages.calibrate_result import summary
from pickcal.stages.control_result import stored_control
from pickcal.stages.history import History, history, statuses, totals, words
from pickcal.stages.select_result import is_stale, reason_totals


def status(project: Project) -> dict[str, Any]:
    """Count micrographs and picks per stage, list failures with reasons and what is left; plain values.

    `runs` says of every stage that ran in batches how fast it was, which micrographs were slowest, why some failed,
    and, while it runs, how long it will take.
    """
    first = history(project, "micrographs")
    imported = statuses(project, "micrographs", first)
    past = {"micrographs": (first, imported)}
    out: dict[str, Any] = {
        "project": str(project.path),
        "micrographs": {"total": project.count, **stage_counts(imported)},
        "picks": {},
        "calibration": {},
        "selection": {},
        "control": {},
        "failures": _failures(project, "micrographs", imported),
        "left": [],
        "runs": {},
    }
    if (imported == Status.PENDING).any():
        out["left"].append(f"import: {int((imported == Status.PENDING).sum())} micrographs")
    for name in project.names("picks"):
        ran = history(project, f"picks/{name}")
        past[f"picks/{name}"] = (ran, _picks(project, name, imported, ran, out))
    _selections(project, {group: done for group, (_, done) in past.items()}, out)
    for group, (found, done) in past.items():
        if found is not None:
            out["runs"][group] = words(project, group, found, done)
    return out


def _picks(
    project: Project, name: str, imported: NDArray[np.int8], past: History | None, out: dict[str, Any]
) -> NDArray[np.int8]:
    """Add what there is of some picks and what is left to do; return the status of every micrograph."""
    group = f"picks/{name}"
    found = statuses(project, group, past)
    out["picks"][name] = {
        **stage_counts(found),
        **totals(project, group, past, {"picks": "count", "decoys": "decoy_count"}),
    }
    out["failures"] += _failures(project, group, found)
    left = int(((found == Status.PENDING) | mended(found, imported)).sum())
    if left:
        out["left"].append(f"picks {name}: {left} micrographs")
    fit = project.stored_calibration(name)
    if fit is None:
        out["left"].append(f"calibrate {name}")
        return found
    out["calibration"][name] = summary(project, name)
    if fit.attrs.get("micrographs_done") != int((found == Status.DONE).sum()):
        out["left"].append(f"calibrate {name}: picks have changed since")
    return found


def _selections(project: Project, known: Mapping[str, NDArray[np.int8]], out: dict[str, Any]) -> None:
    """Add selections and controls, and which of them no longer hold; `known` is the status in groups of picks."""
    for name in project.names("selection"):
        counts = project.stored(f"selection/{name}")
        if is_stale(project, name, known.get(f"picks/{counts.attrs['picks']}")):
            out["left"].append(f"select {name}: its picks or their calibration have changed since")
        out["selection"][name] = {"picks": counts.attrs["picks"], **reason_totals(counts)}
    for name in project.names("control"):
        tried = stored_control(project, name, known.get(f"picks/{name}"))
        if tried is None:
            out["left"].append(f"control {name}: its picks, their calibration or its selection have changed since")
        else:
            out["control"][name] = {key: tried[key] for key in ("verdict", "warning") if tried[key]}


def _failures(project: Project, group: str, status: NDArray[np.int8]) -> list[dict[str, str]]:
    return [{"micrograph": name, "stage": group, "error": reason} for name, reason in failures(project, group, status)]
