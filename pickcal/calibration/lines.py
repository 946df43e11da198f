"""Lines through per-micrograph medians: how NCC score and power run with defocus over a data set.

What cryoSPARC's Inspect Picks does from v2.13 on, made robust and honest: intervals, verdicts in words, outlying
micrographs, optional further covariates and exposure groups.

A line through the medians aligns whatever population dominates, and noise and particles run differently with
defocus. Where decoys tell them apart, the NCC score is therefore calibrated by two lines: one through the scores of
the particles, one through the scores at which particles and noise break even. Both are laid on their values at the
reference defocus, so that one threshold means the same odds everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy import stats

from pickcal.calibration.apply import calibrated
from pickcal.calibration.medians import Medians, medians_above_decoys, medians_of_all
from pickcal.calibration.robust import OUTLIER, Fit, robust_fit
from pickcal.schema import Status
from pickcal.settings import CalibrateSettings

Floats = NDArray[np.floating]

SCORES = ("ncc", "power")
LEAST_MICROGRAPHS = 4
LEAST_RANGE = 2000.0
LARGEST_GAIN = 3.0
UM = 1e-4


def micrograph_medians(picks: xr.Dataset, median_of: str) -> xr.Dataset:
    """Median scores of every micrograph.

    Parameters
    ----------
    picks
        A picks group: `ncc`, `power`, `count`, `decoy_ncc`, `decoy_power`, `decoy_count`, `status`.
    median_of
        "particles" for what stands above the decoys, "all" for all picks.

    Returns
    -------
    Dataset
        `median` (score, micrograph), `particles` and `break_even` (micrograph); NaN where nothing can be said.
    """
    count, decoys = picks["count"].values, picks["decoy_count"].values
    status = picks["status"].values
    found: list[Medians] = []
    for i in range(picks.sizes["micrograph"]):
        if status[i] != Status.DONE:
            found.append(Medians(np.nan, np.nan, np.nan, np.nan))
            continue
        ncc, power = (picks[name][i, : count[i]].values for name in SCORES)
        if median_of == "all":
            found.append(medians_of_all(ncc, power))
            continue
        decoy_ncc, decoy_power = (picks[f"decoy_{name}"][i, : decoys[i]].values for name in SCORES)
        found.append(medians_above_decoys(ncc, power, decoy_ncc, decoy_power))
    return xr.Dataset(
        {
            "median": (("score", "micrograph"), [[m.ncc for m in found], [m.power for m in found]]),
            "particles": ("micrograph", [m.particles for m in found]),
            "break_even": ("micrograph", [m.break_even for m in found]),
        },
        coords={"score": list(SCORES)},
    )


def fit_lines(picks: xr.Dataset, micrographs: xr.Dataset, settings: CalibrateSettings) -> xr.Dataset:
    """Fit both scores against defocus over the whole data set.

    The NCC score is fitted as it is, the power score as its logarithm: its calibration is a factor.

    Parameters
    ----------
    picks, micrographs
        Groups of the project.
    settings
        Which scores, which model.

    Returns
    -------
    Dataset
        `median`, `fitted`, `residual` (in standard deviations), `used`, `outlier`, `shift` over (score, micrograph);
        `coefficients` (score, group, term), `covariance` (score, group, term, term_), `scale` (score, group);
        `slope`, `slope_low`, `slope_high` per µm, `verdict` over (score, group); `rho_before`, `rho_after` (score).
        `break_even`, `break_even_fitted` and `gain` over (micrograph), `break_even_coefficients` (group, term).
        Calibrated NCC = pivot + (ncc - shift - pivot) gain, `pivot` among the attributes; calibrated power =
        power / exp(shift).
    """
    defocus = 0.5 * (micrographs["defocus_u"].values + micrographs["defocus_v"].values)
    medians = micrograph_medians(picks, settings.median_of)
    usable = np.isfinite(defocus) & (picks["status"].values == Status.DONE)
    reference = settings.reference_defocus or (float(np.median(defocus[usable])) if usable.any() else np.nan)
    design, terms = design_matrix(micrographs, defocus, reference, settings)
    group_of = micrographs["exposure_group"].values if settings.per_group else np.zeros(len(defocus), dtype=int)
    groups = np.unique(group_of)
    out = _empty(len(defocus), groups, terms)
    for name in ("median", "particles", "break_even"):
        out[name] = medians[name]
    out.attrs.update(
        reference_defocus=reference,
        confidence=settings.confidence,
        degree=settings.degree,
        pivot=0.0,
        median_of=settings.median_of,
    )
    out["defocus"] = ("micrograph", defocus)
    for s, score in enumerate(SCORES):
        values = medians["median"].values[s]
        response = np.log(values) if score == "power" else values
        wanted = (settings.ncc if score == "ncc" else settings.power) == "line"
        for g, group in enumerate(groups):
            members = (group_of == group) & np.isfinite(design).all(axis=1)
            _fit_group(out, s, g, members, design, response, defocus, wanted, settings.confidence)
            if score == "ncc" and out["applied"].values[s, g]:
                _fit_break_even(out, g, members, design, defocus)
        _lay_on_reference(out, s, group_of)
        after = calibrated(medians["median"].sel(score=score, drop=True), out, score).values
        out["rho_before"].values[s] = spearman(defocus, response)
        out["rho_after"].values[s] = spearman(defocus, after)
    return out


def design_matrix(
    micrographs: xr.Dataset, defocus: Floats, reference: float, settings: CalibrateSettings
) -> tuple[Floats, list[str]]:
    """Build the design matrix; every column but the first is 0 at the reference.

    Returns
    -------
    design, terms
        Shape `(micrograph, term)`; defocus in µm about the reference, further covariates about their medians.
    """
    offset = (defocus - reference) * UM
    columns, terms = [np.ones(len(defocus)), offset], ["constant", "defocus"]
    if settings.degree == 2:
        columns.append(offset**2)
        terms.append("defocus^2")
    for name in settings.covariates:
        if name == "astigmatism":
            values = np.abs(micrographs["defocus_u"].values - micrographs["defocus_v"].values) * UM
        else:
            values = micrographs[name].values
        columns.append(values - np.nanmedian(values) if np.isfinite(values).any() else np.zeros(len(defocus)))
        terms.append(name)
    return np.column_stack(columns), terms


def _empty(count: int, groups: NDArray[np.integer], terms: Sequence[str]) -> xr.Dataset:
    per_micrograph, per_group = ("score", "micrograph"), ("score", "group")
    shape, small = (len(SCORES), count), (len(SCORES), len(groups))
    p = len(terms)
    return xr.Dataset(
        {
            **{name: (per_micrograph, np.full(shape, np.nan)) for name in ("fitted", "band", "residual")},
            "shift": (per_micrograph, np.zeros(shape)),
            "gain": ("micrograph", np.ones(count)),
            "break_even_fitted": ("micrograph", np.full(count, np.nan)),
            "break_even_coefficients": (("group", "term"), np.full((len(groups), p), np.nan)),
            **{name: (per_micrograph, np.zeros(shape, dtype=np.int8)) for name in ("used", "outlier")},
            "coefficients": (("score", "group", "term"), np.zeros((*small, p))),
            "covariance": (("score", "group", "term", "term_"), np.full((*small, p, p), np.nan)),
            "applied": (per_group, np.zeros(small, dtype=np.int8)),
            **{
                name: (per_group, np.full(small, np.nan))
                for name in ("scale", "degrees_of_freedom", "slope", "slope_low", "slope_high")
            },
            "verdict": (per_group, np.full(small, "", dtype=object)),
            "rho_before": ("score", np.full(len(SCORES), np.nan)),
            "rho_after": ("score", np.full(len(SCORES), np.nan)),
        },
        coords={"score": list(SCORES), "group": groups, "term": list(terms)},
    )


def _fit_group(
    out: xr.Dataset,
    s: int,
    g: int,
    members: NDArray[np.bool_],
    design: Floats,
    response: Floats,
    defocus: Floats,
    wanted: bool,
    confidence: float,
) -> None:
    use = members & np.isfinite(response)
    refusal = _refusal(use, design, defocus)
    if refusal:
        out["verdict"].values[s, g] = refusal
        return
    fit = robust_fit(design[use], response[use])
    fitted = design @ fit.coefficients
    residual = (response - fitted) / fit.scale
    out["used"].values[s, use] = 1
    out["fitted"].values[s, members] = fitted[members]
    out["band"].values[s, members] = fit.band(design[members], confidence)
    out["residual"].values[s, use] = residual[use]
    out["outlier"].values[s, use] = np.abs(residual[use]) > OUTLIER
    low, high = fit.interval(confidence)
    for name, value in (
        ("coefficients", fit.coefficients),
        ("covariance", fit.covariance),
        ("scale", fit.scale),
        ("degrees_of_freedom", fit.degrees_of_freedom),
        ("slope", fit.coefficients[1]),
        ("slope_low", low[1]),
        ("slope_high", high[1]),
        ("applied", int(wanted)),
        ("verdict", _verdict(fit, low[1], high[1], wanted, confidence)),
    ):
        out[name].values[s, g] = value


def _fit_break_even(out: xr.Dataset, g: int, members: NDArray[np.bool_], design: Floats, defocus: Floats) -> None:
    """Fit the scores at which particles and noise break even, where enough micrographs have one."""
    values = out["break_even"].values
    use = members & np.isfinite(values)
    if not _refusal(use, design, defocus):
        fit = robust_fit(design[use], values[use])
        out["break_even_fitted"].values[members] = (design @ fit.coefficients)[members]
        out["break_even_coefficients"].values[g] = fit.coefficients


def _lay_on_reference(out: xr.Dataset, s: int, group_of: NDArray[np.integer]) -> None:
    """Set shift and gain of one score so that the lines of all groups lie on one value, as at the reference defocus."""
    applied = out["applied"].values[s] == 1
    if not applied.any():
        return
    fitted = out["fitted"].values[s]
    level = float(np.median(out["coefficients"].values[s, applied, 0]))
    members = np.isfinite(fitted) & np.isin(group_of, out["group"].values[applied])
    out["shift"].values[s, members] = (fitted - level)[members]
    constants = out["break_even_coefficients"].values[:, 0]
    if s != SCORES.index("ncc") or not np.isfinite(constants[applied]).all():
        return
    pivot = float(np.median(constants[applied]))
    break_even = out["break_even_fitted"].values
    out["shift"].values[s, members] = (break_even - pivot)[members]
    out.attrs["pivot"] = pivot
    if level > pivot:
        ratio = np.maximum(fitted - break_even, 0.0)[members] / (level - pivot)
        out["gain"].values[members] = 1 / np.clip(ratio, 1 / LARGEST_GAIN, LARGEST_GAIN)


def _refusal(use: NDArray[np.bool_], design: Floats, defocus: Floats) -> str:
    count = int(use.sum())
    least = max(LEAST_MICROGRAPHS, design.shape[1] + 2)
    if count < least:
        return f"not fitted: {count} micrographs with a median, at least {least} are needed"
    span = float(np.ptp(defocus[use]))
    if span < LEAST_RANGE:
        return f"not fitted: defocus range only {span * UM:.2f} µm, at least {LEAST_RANGE * UM:.1f} µm is needed"
    return ""


def _verdict(fit: Fit, low: float, high: float, wanted: bool, confidence: float) -> str:
    percent = f"{100 * confidence:g} %"
    text = f"slope {fit.coefficients[1]:+.4f} per µm ({percent} interval {low:+.4f} to {high:+.4f})"
    if low <= 0 <= high:
        text += "; no dependence on defocus supported by these data"
    return text if wanted else f"{text}; turned off, not applied"


def spearman(defocus: Floats, values: Floats) -> float:
    """Spearman's rank correlation over finite pairs; NaN for fewer than three or constant values."""
    good = np.isfinite(defocus) & np.isfinite(values)
    if good.sum() < 3 or np.ptp(defocus[good]) == 0 or np.ptp(values[good]) == 0:
        return float("nan")
    return float(stats.spearmanr(defocus[good], values[good]).statistic)
