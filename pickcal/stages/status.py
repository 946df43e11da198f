"""Status: what a project holds and what is left to do."""

from __future__ import annotations

from typing import Any

import numpy as np

from pickcal.project import Project, stage_counts
from pickcal.schema import Status
from pickcal.stages.batches import pending
from pickcal.stages.calibrate import summary
from pickcal.stages.control import stored_control
from pickcal.stages.select import is_stale


def status(project: Project) -> dict[str, Any]:
    """Count micrographs and picks per stage, list failures with reasons and what is left; plain values."""
    names = project.read("micrographs", "name")
    imported = project.done("micrographs")
    out: dict[str, Any] = {
        "project": str(project.path),
        "micrographs": {"total": project.count, **stage_counts(imported)},
        "picks": {},
        "calibration": {},
        "selection": {},
        "control": {},
        "failures": _failures(names, project, "micrographs"),
        "left": [],
    }
    if (imported == Status.PENDING).any():
        out["left"].append(f"import: {int((imported == Status.PENDING).sum())} micrographs")
    for name in project.names("picks"):
        found = project.done(f"picks/{name}")
        out["picks"][name] = {
            **stage_counts(found),
            "picks": int(project.read(f"picks/{name}", "count").sum()),
            "decoys": int(project.read(f"picks/{name}", "decoy_count").sum()),
        }
        out["failures"] += _failures(names, project, f"picks/{name}")
        left = int(pending(project, f"picks/{name}").sum())
        if left:
            out["left"].append(f"picks {name}: {left} micrographs")
        fit = project.calibration(name)
        if fit is None:
            out["left"].append(f"calibrate {name}")
        else:
            out["calibration"][name] = summary(project, name)
            if fit.attrs.get("micrographs_done") != int((found == Status.DONE).sum()):
                out["left"].append(f"calibrate {name}: picks have changed since")
    for name in project.names("selection"):
        counts = project.dataset(f"selection/{name}").load()
        reasons = [str(reason) for reason in counts["reason"].values]
        totals = counts["counts"].values.sum(axis=1)
        if is_stale(project, name):
            out["left"].append(f"select {name}: its picks or their calibration have changed since")
        out["selection"][name] = {
            "picks": counts.attrs["picks"],
            **{reason: int(total) for reason, total in zip(reasons, totals, strict=True)},
        }
    for name in project.names("control"):
        tried = stored_control(project, name)
        if tried is None:
            out["left"].append(f"control {name}: its picks, their calibration or its selection have changed since")
        else:
            out["control"][name] = {key: tried[key] for key in ("verdict", "warning") if tried[key]}
    return out


def _failures(names: Any, project: Project, group: str) -> list[dict[str, str]]:
    errors = project.read(group, "error")
    found = np.flatnonzero(project.done(group) == Status.FAILED)
    return [{"micrograph": str(names[i]), "stage": group, "error": str(errors[i])} for i in found]
