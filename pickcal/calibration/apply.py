"""Calibrated scores from raw scores and a fit, computed on reading."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import xarray as xr


def calibrated_scores(picks: xr.Dataset, calibration: xr.Dataset | None) -> xr.Dataset:
    """Both scores relative to the fit, as at the reference defocus.

    Parameters
    ----------
    picks
        `ncc` and `power` over (micrograph, pick), and optionally `decoy_ncc` and `decoy_power`.
    calibration
        From `fit_lines`, or None to return raw scores.

    Returns
    -------
    Dataset
        The same variables, calibrated: pivot + (ncc - shift - pivot) gain, power / exp(shift). A micrograph without
        defocus keeps its raw scores.
    """
    import xarray as xr

    names = [name for name in ("ncc", "power", "decoy_ncc", "decoy_power") if name in picks]
    if calibration is None:
        return picks[names]
    return xr.Dataset(
        {name: calibrated(picks[name], calibration, "ncc" if name.endswith("ncc") else "power") for name in names}
    )


def calibrated(values: xr.DataArray, calibration: xr.Dataset, score: str) -> xr.DataArray:
    """Values of one score over (micrograph, ...), relative to the fit.

    Parameters
    ----------
    values
        Raw scores.
    calibration
        From `fit_lines`.
    score
        "ncc" or "power".
    """
    fit = calibration.sel(score=score, drop=True)
    shift = fit["shift"].where(np.isfinite(fit["shift"]), 0.0)
    if score == "power":
        return values / np.exp(shift)
    gain = calibration["gain"].where(np.isfinite(calibration["gain"]), 1.0)
    pivot = float(calibration.attrs["pivot"])
    return pivot + (values - shift - pivot) * gain
