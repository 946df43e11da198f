"""Names and units of what is computed on reading: stored arrays bring theirs along, see `pickcal.schema`."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import xarray as xr

from pickcal.calibration.verdicts import ScoreWords

FIT: dict[str, tuple[str, str]] = {
    "score": ("score that is fitted: ncc for the main score, or power", ""),
    "group": ("exposure group, 0 where one fit serves all", ""),
    "term": ("term of the fit", ""),
    "coefficients": ("coefficients of the fit; of power's natural logarithm", ""),
    "covariance": ("covariance of the coefficients", ""),
    "break_even_coefficients": ("coefficients of the scores at which particles and noise break even", ""),
    "applied": ("1 where the fit calibrates scores", ""),
    "scale": ("robust standard deviation of the micrographs about the fit", ""),
    "degrees_of_freedom": ("degrees of freedom of the fit", "1"),
    "slope": ("slope at the reference defocus; of power's natural logarithm", "1/µm"),
    "slope_low": ("lower end of the slope's interval", "1/µm"),
    "slope_high": ("upper end of the slope's interval", "1/µm"),
    "verdict": ("what the data support, in words", ""),
    "rho_before": ("Spearman's correlation of medians and defocus, raw", "1"),
    "rho_after": ("Spearman's correlation of medians and defocus, calibrated", "1"),
    "median": ("median score of a micrograph", ""),
    "fitted": ("value of the fit; of power's natural logarithm", ""),
    "band": ("half-width of the fit's confidence band", ""),
    "residual": ("distance of a micrograph from the fit", "standard deviations"),
    "used": ("1 where a micrograph counts for the fit", ""),
    "outlier": ("1 where a micrograph is outlying", ""),
    "shift": ("what calibration takes away; of power's natural logarithm", ""),
    "gain": ("what calibration stretches the main score by", "1"),
    "particles": ("estimated number of particles", "1"),
    "break_even": ("score at which particles and noise break even", ""),
    "break_even_fitted": ("fit of the score at which particles and noise break even", ""),
    "defocus": ("mean defocus, positive is underfocus", "Å"),
}
COUNTS: dict[str, tuple[str, str]] = {
    "counts": ("picks of a micrograph for each reason", "1"),
    "reason": ("accepted, or why a pick is not", ""),
}
DEFOCUS = {"long_name": FIT["defocus"][0], "units": "Å"}


def with_words(dataset: xr.Dataset, words: dict[str, tuple[str, str]]) -> xr.Dataset:
    """Return a copy whose variables have long names and units."""
    out = dataset.copy()
    for name, (meaning, units) in words.items():
        if name in out.variables:
            out[name].attrs = {"long_name": meaning, **({"units": units} if units else {}), **out[name].attrs}
    return out


def score_words(attributes: Mapping[Hashable, Any]) -> dict[str, tuple[str, str]]:
    """Names and units of the scores that are computed for picks with these attributes."""
    called = ScoreWords.of(attributes)
    return {
        "calibrated_ncc": (f"{called.score} as at the reference defocus", "1"),
        "calibrated_power": (f"{called.power} as at the reference defocus", called.unit or "1"),
        "probability": ("probability of being a particle", "1"),
        "junk": ("probability of being junk of high power: ice, film, aggregates", "1"),
        "q_value": ("least false discovery rate at which the pick is accepted", "1"),
        "reason": ("reason as of selection.REASONS, 0 accepted, -1 no pick", ""),
        "accepted": ("whether the selection accepts the pick", ""),
    }
