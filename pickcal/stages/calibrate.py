"""Calibrate: fit the scores of one set of picks against defocus over the whole data set."""

from __future__ import annotations

import hashlib

import numpy as np
import xarray as xr

from pickcal.calibration import fit_lines
from pickcal.errors import InputError
from pickcal.project import Project
from pickcal.schema import Status
from pickcal.settings import CalibrateSettings


def calibrate(project: Project, picks: str, settings: CalibrateSettings) -> xr.Dataset:
    """Fit both scores and store the fit under the name of the picks.

    Raises
    ------
    ProjectError, InputError
        If there are no such picks, or none of their micrographs is done.
    """
    project.require("picks", picks)
    dataset = project.dataset(f"picks/{picks}")
    if not (dataset["status"].values == Status.DONE).any():
        raise InputError(f"{project.path}: picks {picks!r} hold no finished micrograph; finish 'pickcal pick' first")
    wanted = ["ncc", "power", "decoy_ncc", "decoy_power", "count", "decoy_count", "status"]
    fit = fit_lines(dataset[wanted].load(), project.micrographs().drop_vars("image").load(), settings)
    stored = fit.assign_attrs(picks=picks, micrographs_done=int((dataset["status"].values == Status.DONE).sum()))
    project.write_whole("calibration", picks, stored, settings.stored())
    return stored


def read_calibration(project: Project, picks: str) -> xr.Dataset | None:
    """Return the stored fit of some picks, or None if they were not calibrated."""
    return project.dataset(f"calibration/{picks}").load() if picks in project.names("calibration") else None


def fingerprint(project: Project, picks: str) -> str:
    """Short digest of the picks and of the fit that calibrates them; "" for the fit where there is none."""
    fit = read_calibration(project, picks)
    made = str(project.dataset(f"picks/{picks}").attrs["bank"])
    if fit is None:
        return hashlib.sha256(made.encode()).hexdigest()[:16]
    values = (fit["shift"].values, fit["gain"].values, np.array([fit.attrs["pivot"]]))
    return hashlib.sha256(made.encode() + b"".join(value.tobytes() for value in values)).hexdigest()[:16]


def summary(fit: xr.Dataset) -> dict[str, object]:
    """Verdicts and correlations of a fit as plain values."""
    out: dict[str, object] = {"reference_defocus": float(fit.attrs["reference_defocus"])}
    for score in fit["score"].values:
        one = fit.sel(score=score)
        out[str(score)] = {
            "verdict": [str(v) for v in one["verdict"].values],
            "slope_per_um": [_plain(v) for v in one["slope"].values],
            "interval": [
                [_plain(low), _plain(high)]
                for low, high in zip(one["slope_low"].values, one["slope_high"].values, strict=True)
            ],
            "rho_before": _plain(one["rho_before"].item()),
            "rho_after": _plain(one["rho_after"].item()),
            "outliers": int(one["outlier"].sum()),
        }
    return out


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
