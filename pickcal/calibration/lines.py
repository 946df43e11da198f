"""Lines through per-micrograph medians: how NCC score and power run with defocus over a data set.

What cryoSPARC's Inspect Picks does from v2.13 on, made robust and honest: intervals, verdicts in words, outlying
micrographs, optional further covariates and exposure groups.

A line through the medians aligns whatever population dominates, and noise and particles run differently with
defocus. Where decoys tell them apart, the NCC score is therefore calibrated by two lines: one through the scores of
the particles, one through the scores at which particles and noise break even. Both are laid on their values at the
reference defocus, so that one threshold means the same odds everywhere.

Parameters and columns are apart: `fit_lines` takes the micrographs that fit into memory, all of a data set or a sample
of it, and `line_columns` lays the fit on any block of micrographs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import fdtri

from pickcal.calibration.apply import calibrated
from pickcal.calibration.bootstrap import bootstrap_covariance, percentile_interval, resampled_coefficients
from pickcal.calibration.medians import Medians, medians_above_decoys, medians_of_all
from pickcal.calibration.robust import OUTLIER, Fit, robust_fit
from pickcal.calibration.trends import Trend, mean_defocus
from pickcal.calibration.verdicts import Findings, refusal, verdict
from pickcal.schema import Status
from pickcal.settings import CalibrateSettings

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]
Groups = NDArray[np.integer]

SCORES = ("ncc", "power")
LARGEST_GAIN = 3.0


def micrograph_medians(picks: xr.Dataset, median_of: str) -> xr.Dataset:
    """Median scores of every micrograph.

    Parameters
    ----------
    picks
        A picks group, or a block of its micrographs: `ncc`, `power`, `count`, `decoy_ncc`, `decoy_power`,
        `decoy_count`, `status`.
    median_of
        "particles" for what stands above the decoys, "all" for all picks; also where there are no decoys.

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
        if median_of == "all" or not decoys[i]:
            found.append(medians_of_all(ncc, power))
            continue
        decoy_ncc, decoy_power = (picks[f"decoy_{name}"][i, : decoys[i]].values for name in SCORES)
        found.append(medians_above_decoys(ncc, power, decoy_ncc, decoy_power))
    return xr.Dataset(
        {
            "median": (("score", "micrograph"), np.array([[m.ncc for m in found], [m.power for m in found]])),
            "particles": ("micrograph", np.array([m.particles for m in found])),
            "break_even": ("micrograph", np.array([m.break_even for m in found])),
        },
        coords={"score": list(SCORES)},
    )


def fit_lines(medians: xr.Dataset, micrographs: xr.Dataset, settings: CalibrateSettings) -> xr.Dataset:
    """Fit both scores against defocus.

    The NCC score is fitted as it is, the power score as its logarithm: its calibration is a factor.

    Parameters
    ----------
    medians
        From `micrograph_medians`, of all micrographs or of a sample of them.
    micrographs
        The same rows of the project's table. Those with finite medians and defocus are used.
    settings
        Which scores, which model. "template" among the covariates is a matter of single picks and is ignored here;
        "exposure_group" is ignored where every group has its own fit.

    Returns
    -------
    Dataset
        Parameters alone, for `line_columns`: `coefficients` (score, group, term), `covariance` (score, group, term,
        term_); `scale`, `degrees_of_freedom`, `slope`, `slope_low`, `slope_high` (per µm, at the reference defocus),
        `verdict`, `applied` over (score, group); `break_even_coefficients` (group, term); `rho_before`, `rho_after`
        (score). Attributes: `reference_defocus` (Å), `confidence`, `degree`, `pivot`, `median_of`, `per_group`, `trend`
        (`Trend.to_json`).
    """
    defocus, median = mean_defocus(micrographs), medians["median"].values
    usable = np.isfinite(defocus) & np.isfinite(median).any(axis=0)
    reference = settings.reference_defocus or (float(np.median(defocus[usable])) if usable.any() else None)
    left_out = {"template", "exposure_group"} if settings.per_group else {"template"}
    covariates = [name for name in settings.covariates if name not in left_out]
    spline = settings.trend == "spline"
    trend = Trend.of(micrographs, reference, settings.degree, covariates, spline=spline, scored=usable)
    design, group_of = trend.design(micrographs), _group_of(micrographs, settings.per_group)
    out = _empty(np.unique(group_of), trend)
    out.attrs.update(
        reference_defocus=trend.reference if reference is not None else float("nan"),
        confidence=settings.confidence,
        degree=settings.degree,
        pivot=0.0,
        median_of=settings.median_of,
        per_group=int(settings.per_group),
        trend=trend.to_json(),
    )
    for s, score in enumerate(SCORES):
        response = _response(median[s], score)
        wanted = (settings.ncc if score == "ncc" else settings.power) == "line"
        for g, group in enumerate(out["group"].values):
            members = (group_of == group) & np.isfinite(design).all(axis=1)
            use = members & np.isfinite(response)
            rows = _Rows(design[use], response[use], defocus[use], micrographs["exposure_group"].values[use])
            _fit_group(out, s, g, rows, trend, wanted, settings)
            if score == "ncc" and out["applied"].values[s, g]:
                _fit_break_even(out, g, members, design, medians["break_even"].values, defocus)
    _, pivot = _resting_places(out)
    out.attrs["pivot"] = 0.0 if pivot is None else pivot
    _correlations(out, medians, micrographs)
    return out


def line_columns(lines: xr.Dataset, medians: xr.Dataset, micrographs: xr.Dataset) -> xr.Dataset:
    """Lay a fit on micrographs.

    Parameters
    ----------
    lines
        From `fit_lines`.
    medians, micrographs
        Medians and table of any block of micrographs, whether they were fitted or not.

    Returns
    -------
    Dataset
        `median`, `fitted`, `band` (half-width of the confidence band), `residual` (in standard deviations), `used`,
        `outlier`, `shift` over (score, micrograph); `particles`, `break_even`, `break_even_fitted`, `gain`, `defocus`
        (Å) over (micrograph). Calibrated NCC = pivot + (ncc - shift - pivot) gain, `pivot` among the attributes of
        `lines`; calibrated power = power / exp(shift). NaN, and shift 0 and gain 1, where there is no fit.
    """
    trend = Trend.from_json(str(lines.attrs["trend"]))
    design, group_of = trend.design(micrographs), _group_of(micrographs, bool(lines.attrs["per_group"]))
    out = _blank(micrographs.sizes["micrograph"])
    for name in ("median", "particles", "break_even"):
        out[name] = medians[name]
    out["defocus"] = ("micrograph", mean_defocus(micrographs))
    known = np.isfinite(design).all(axis=1)
    break_even = lines["break_even_coefficients"].values
    for g, group in enumerate(lines["group"].values):
        members = np.flatnonzero(known & (group_of == group))
        for s, score in enumerate(SCORES):
            response = _response(medians["median"].values[s, members], score)
            _lay_group(out, s, members, lines.isel(score=s, group=g), design[members], response)
        out["break_even_fitted"].values[members] = _expected(design[members], break_even[g])
    _lay_on_reference(out, lines, group_of)
    return out


@dataclass(frozen=True)
class _Rows:
    """The micrographs that one fit uses."""

    design: Floats
    response: Floats
    defocus: Floats
    exposure_groups: Groups


def _group_of(micrographs: xr.Dataset, per_group: bool) -> Groups:
    if per_group:
        return np.asarray(micrographs["exposure_group"].values)
    return np.zeros(micrographs.sizes["micrograph"], dtype=int)


def _expected(design: Floats, coefficients: Floats) -> Floats:
    # a sum per row: a product of matrices may round differently in another block
    return np.asarray((design * coefficients).sum(axis=1))


def _response(median: Floats, score: str) -> Floats:
    known = np.where(median > 0, median, np.nan) if score == "power" else median
    return np.asarray(np.log(known) if score == "power" else known)


def _empty(groups: Groups, trend: Trend) -> xr.Dataset:
    per_group, small = ("score", "group"), (len(SCORES), len(groups))
    p = len(trend.terms)
    return xr.Dataset(
        {
            "break_even_coefficients": (("group", "term"), np.full((len(groups), p), np.nan)),
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
        coords={"score": list(SCORES), "group": groups, "term": trend.terms},
    )


def _blank(count: int) -> xr.Dataset:
    per_micrograph, shape = ("score", "micrograph"), (len(SCORES), count)
    return xr.Dataset(
        {
            **{name: (per_micrograph, np.full(shape, np.nan)) for name in ("fitted", "band", "residual")},
            **{name: (per_micrograph, np.zeros(shape, dtype=np.int8)) for name in ("used", "outlier")},
            "shift": (per_micrograph, np.zeros(shape)),
            "gain": ("micrograph", np.ones(count)),
            "break_even_fitted": ("micrograph", np.full(count, np.nan)),
        },
        coords={"score": list(SCORES)},
    )


def _fit_group(
    out: xr.Dataset, s: int, g: int, rows: _Rows, trend: Trend, wanted: bool, settings: CalibrateSettings
) -> None:
    refused = refusal(rows.defocus, rows.design.shape[1])
    if refused:
        out["verdict"].values[s, g] = refused
        return
    fit = robust_fit(rows.design, rows.response)
    contrast = trend.slope_at_reference()
    slope = float(contrast @ fit.coefficients)
    fit, low, high = _with_interval(fit, rows, contrast, settings)
    findings = Findings(
        slope,
        low,
        high,
        settings.confidence,
        _depends(fit, low, high, trend, settings.confidence),
        wanted,
        (rows.response - rows.design @ fit.coefficients) / fit.scale,
        rows.defocus,
        rows.exposure_groups,
    )
    for name, value in (
        ("coefficients", fit.coefficients),
        ("covariance", fit.covariance),
        ("scale", fit.scale),
        ("degrees_of_freedom", fit.degrees_of_freedom),
        ("slope", slope),
        ("slope_low", low),
        ("slope_high", high),
        ("applied", int(wanted)),
        ("verdict", verdict(findings)),
    ):
        out[name].values[s, g] = value


def _with_interval(fit: Fit, rows: _Rows, contrast: Floats, settings: CalibrateSettings) -> tuple[Fit, float, float]:
    """Fit with the covariance, and interval of a combination of coefficients, by bootstrap where it is wanted."""
    slope = float(contrast @ fit.coefficients)
    if not settings.bootstrap:
        half = float(fit.band(contrast[None], settings.confidence)[0])
        return fit, slope - half, slope + half
    n, p = rows.design.shape
    resampled = resampled_coefficients(rows.design, rows.response, fit, settings.bootstrap)
    low, high = percentile_interval(resampled @ contrast, slope, n, p, settings.confidence)
    return replace(fit, covariance=bootstrap_covariance(resampled, n)), low, high


def _depends(fit: Fit, low: float, high: float, trend: Trend, confidence: float) -> bool:
    """Whether the interval of the slope excludes 0, or for curves, whether all terms in defocus together do."""
    if not np.isfinite([low, high]).all():  # it claims nothing
        return False
    count = len(replace(trend, covariates=(), centres=(), groups=()).terms) - 1
    if count == 1:
        return not low <= 0 <= high
    terms = slice(1, 1 + count)
    found = fit.coefficients[terms]
    statistic = float(found @ np.linalg.pinv(fit.covariance[terms, terms]) @ found) / count
    return statistic > float(fdtri(count, fit.degrees_of_freedom, confidence))


def _fit_break_even(out: xr.Dataset, g: int, members: Bools, design: Floats, values: Floats, defocus: Floats) -> None:
    """Fit the scores at which particles and noise break even, where enough micrographs have one."""
    use = members & np.isfinite(values)
    if not refusal(defocus[use], design.shape[1]):
        out["break_even_coefficients"].values[g] = robust_fit(design[use], values[use]).coefficients


def _resting_places(lines: xr.Dataset) -> tuple[Floats, float | None]:
    """Values on which the lines of all groups are laid: of each score's fit, and of the break-even scores."""
    applied = lines["applied"].values == 1
    constants = lines["coefficients"].values[..., 0]
    levels = np.array([np.median(c[a]) if a.any() else np.nan for c, a in zip(constants, applied, strict=True)])
    of_ncc = applied[SCORES.index("ncc")]
    break_even = lines["break_even_coefficients"].values[of_ncc, 0]
    return levels, float(np.median(break_even)) if of_ncc.any() and np.isfinite(break_even).all() else None


def _lay_group(
    out: xr.Dataset, s: int, members: NDArray[np.intp], line: xr.Dataset, design: Floats, response: Floats
) -> None:
    scale = float(line["scale"])
    if not np.isfinite(scale):
        return
    fit = Fit(line["coefficients"].values, line["covariance"].values, scale, float(line["degrees_of_freedom"]))
    fitted = _expected(design, fit.coefficients)
    residual = (response - fitted) / scale
    out["fitted"].values[s, members] = fitted
    out["band"].values[s, members] = fit.band(design, float(line.attrs["confidence"]))
    out["residual"].values[s, members] = residual
    out["used"].values[s, members] = np.isfinite(residual)
    out["outlier"].values[s, members] = np.abs(residual) > OUTLIER


def _lay_on_reference(out: xr.Dataset, lines: xr.Dataset, group_of: Groups) -> None:
    """Set shift and gain so that the lines of all groups lie on one value, as at the reference defocus."""
    levels, pivot = _resting_places(lines)
    for s, level in enumerate(levels):
        applied = lines["group"].values[lines["applied"].values[s] == 1]
        fitted = out["fitted"].values[s]
        members = np.isfinite(fitted) & np.isin(group_of, applied)
        out["shift"].values[s, members] = (fitted - level)[members]
        if s != SCORES.index("ncc") or pivot is None:
            continue
        break_even = out["break_even_fitted"].values
        out["shift"].values[s, members] = (break_even - pivot)[members]
        if level > pivot:
            ratio = np.maximum(fitted - break_even, 0.0)[members] / (level - pivot)
            out["gain"].values[members] = 1 / np.clip(ratio, 1 / LARGEST_GAIN, LARGEST_GAIN)


def _correlations(out: xr.Dataset, medians: xr.Dataset, micrographs: xr.Dataset) -> None:
    laid = out.assign(line_columns(out, medians, micrographs))
    for s, score in enumerate(SCORES):
        before = medians["median"].sel(score=score, drop=True)
        after = calibrated(before, laid, score).values
        out["rho_before"].values[s] = spearman(laid["defocus"].values, before.values)
        out["rho_after"].values[s] = spearman(laid["defocus"].values, after)


def spearman(defocus: Floats, values: Floats) -> float:
    """Spearman's rank correlation over finite pairs; NaN for fewer than three or constant values."""
    good = np.isfinite(defocus) & np.isfinite(values)
    if good.sum() < 3 or np.ptp(defocus[good]) == 0 or np.ptp(values[good]) == 0:
        return float("nan")
    from scipy.stats import spearmanr  # takes long to import, for a few numbers of a fit

    return float(spearmanr(defocus[good], values[good]).statistic)
