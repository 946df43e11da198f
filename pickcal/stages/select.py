"""Select: apply thresholds to calibrated scores and store what they leave, with reasons."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pickcal.errors import ProjectError
from pickcal.project import Project
from pickcal.selection import REASONS, reason_counts, rejection_reasons, write_thresholds
from pickcal.settings import SelectSettings, validated
from pickcal.stages.calibrate import fingerprint, read_calibration


def select(
    project: Project,
    picks: str,
    name: str,
    settings: SelectSettings,
    save: Path | None = None,
    overwrite: bool = False,
) -> xr.Dataset:
    """Store a selection: thresholds and counts per rejection reason; picks are judged again on reading.

    Parameters
    ----------
    project
        Opened for writing.
    picks, name
        Names of the picks and of the selection.
    settings
        Thresholds.
    save
        Thresholds file to write as well.
    overwrite
        Replace a selection of this name that holds other thresholds.

    Raises
    ------
    ProjectError
        If there are no such picks, or the name is taken by other thresholds.
    """
    project.require("picks", picks)
    stored = {"picks": picks, **settings.stored()}
    if name in project.names("selection") and not overwrite:
        project.check_same(f"selection/{name}", stored, "choose another --name, or give --overwrite to replace it")
    reasons = judge(project, picks, settings)
    counts = xr.Dataset(
        {"counts": (("reason", "micrograph"), reason_counts(reasons))},
        coords={"reason": list(REASONS)},
        attrs={
            "picks": picks,
            "calibrated": read_calibration(project, picks) is not None and not settings.raw,
            "fingerprint": fingerprint(project, picks),
        },
    )
    project.write_whole("selection", name, counts, stored)
    if save is not None:
        write_thresholds(save, settings, picks)
    return counts


def judge(project: Project, picks: str, settings: SelectSettings) -> NDArray[np.int8]:
    """Reason for every pick, int8 (micrograph, pick); see `selection.rejection_reasons`."""
    dataset = project.dataset(f"picks/{picks}")[["x", "y", "ncc", "power", "count", "status"]].load()
    micrographs = project.micrographs().drop_vars("image").load()
    return rejection_reasons(dataset, read_calibration(project, picks), micrographs, settings)


def is_stale(project: Project, name: str) -> bool:
    """Whether the picks of a selection, or their calibration, have changed since it was made."""
    attributes = project.dataset(f"selection/{name}").attrs
    picks = str(attributes["picks"])
    return picks in project.names("picks") and attributes.get("fingerprint") != fingerprint(project, picks)


def stored_selection(project: Project, name: str) -> tuple[str, SelectSettings]:
    """Name of the picks and the thresholds of a stored selection.

    Raises
    ------
    ProjectError
        If there is no such selection, or its picks are gone or were picked or calibrated anew since.
    """
    project.require("selection", name)
    if is_stale(project, name):
        raise ProjectError(
            f"{project.path}: selection {name!r} was made before its picks were picked or calibrated anew, and would "
            "now accept others; give the same select command again"
        )
    values = project.settings(f"selection/{name}")
    picks = str(values.pop("picks"))
    if picks not in project.names("picks"):
        raise ProjectError(f"{project.path}: selection {name!r} is of picks {picks!r}, which are gone; pick them again")
    return picks, validated(SelectSettings, values, f"selection {name}")
