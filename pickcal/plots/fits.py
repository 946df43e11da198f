"""Plots of a calibration: medians against defocus with the fit, and residuals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats

from pickcal.calibration.apply import calibrated
from pickcal.calibration.robust import OUTLIER
from pickcal.calibration.verdicts import ScoreWords, heading
from pickcal.plots.style import (
    BLUE,
    DARK_GREEN,
    GREEN,
    GREY,
    ORANGE,
    SERIES,
    UM,
    Floats,
    label_points,
    new_figure,
    shared_legend,
    short_names,
    tidy,
)

SCORES = ("ncc", "power")
LONG_TITLE = 62
"""Letters of a panel's title that fit beside the next one's."""


def scores_of(calibration: xr.Dataset) -> tuple[str, ...]:
    """Scores that a fit is about: "ncc" and, where some micrograph has a median of it, "power"."""
    return SCORES if np.isfinite(calibration["median"].sel(score="power").values).any() else SCORES[:1]


def medians_figure(calibration: xr.Dataset, names: Sequence[str]) -> Figure:
    """Medians of every micrograph against defocus with the fit and its band, before and after calibration.

    Parameters
    ----------
    calibration
        From `fit_lines`.
    names
        Names of all micrographs, in the order of the project.

    Returns
    -------
    Figure
        2 x 2 panels: NCC or other main score above, power score, if there is one, below; before left, after right.
        Outlying micrographs are ringed and the six furthest named; micrographs that were not used are hollow. The line
        is the fit's; with further covariates the fitted value of every micrograph is a dash instead. Crosses and the
        dashed line are the scores at which particles and noise break even, where they were fitted.
    """
    scores, words = scores_of(calibration), ScoreWords.of(calibration.attrs)
    figure = new_figure(10, 3.5 * len(scores) if len(scores) > 1 else 4.2)
    panels = figure.subplots(len(scores), 2, sharex=True, sharey="row", squeeze=False)
    labels = short_names(names)
    for row, score in zip(panels, scores, strict=True):
        fit = calibration.sel(score=score)
        for axes, after in zip(row, (False, True), strict=True):
            _draw_medians(axes, fit, score, after)
            tidy(
                axes,
                "defocus (µm)" if score == scores[-1] else "",
                "" if after else words.axis(score, "median").replace(" (", "\n("),
                _headline(fit, score, after, float(calibration.attrs["confidence"])),
            )
    shared_legend(figure, panels.flat, 5, last="break-even")
    _left_out(figure, calibration)
    for row, score in zip(panels, scores, strict=True):
        for axes, after in zip(row, (False, True), strict=True):
            _label_outliers(axes, calibration.sel(score=score), after, labels)
    return figure


def _medians(fit: xr.Dataset, after: bool) -> Floats:
    return _moved(fit["median"], fit, after)


def _moved(values: xr.DataArray, fit: xr.Dataset, after: bool) -> Floats:
    """Values of one score over micrographs, calibrated or as they are."""
    if not after:
        return np.asarray(values.values, dtype=float)
    score = str(fit["score"].item())
    parts = xr.Dataset({"shift": fit["shift"].expand_dims("score"), "gain": fit["gain"].drop_vars("score")})
    return np.asarray(calibrated(values, parts.assign_attrs(fit.attrs), score).values, dtype=float)


def _draw_medians(axes: Any, fit: xr.Dataset, score: str, after: bool) -> None:
    x, y = fit["defocus"].values * UM, _medians(fit, after)
    seen = np.isfinite(x) & np.isfinite(y)
    used, outlier = fit["used"].values == 1, fit["outlier"].values == 1
    size = float(np.clip(3000 / max(len(x), 1), 6, 24))
    hollow: dict[str, Any] = {"facecolors": "none", "zorder": 4}
    styles: list[tuple[NDArray[np.bool_], str, dict[str, Any]]] = [
        (seen & used, "micrograph", {"s": size, "color": BLUE, "linewidths": 0, "zorder": 3}),
        (seen & ~used, "not used in the fit", {"s": size, "edgecolors": GREY, **hollow}),
        (seen & outlier, "outlying", {"s": size + 70, "edgecolors": ORANGE, "linewidths": 1.4, **hollow}),
    ]
    for members, label, style in styles:
        if members.any():
            axes.scatter(x[members], y[members], label=label, **style)
    if score == "ncc" and np.isfinite(fit["break_even_fitted"].values).any():
        _draw_break_even(axes, fit, after)
    if _has_covariates(fit) or (after and fit.sizes["group"] > 1):
        _draw_fitted(axes, fit, after)
    else:
        for g in range(fit.sizes["group"]):
            _draw_line(axes, fit.isel(group=g), after, SERIES[(g + 1) % len(SERIES)])


def _has_covariates(fit: xr.Dataset) -> bool:
    return any(str(term) not in ("constant", "defocus", "defocus^2") for term in fit["term"].values)


def _draw_fitted(axes: Any, fit: xr.Dataset, after: bool) -> None:
    axes.scatter(
        fit["defocus"].values * UM,
        _moved(_fitted(fit), fit, after),
        s=40,
        marker="_",
        color=ORANGE,
        label="fit",
    )


def _fitted(fit: xr.Dataset, steps: float = 0.0) -> xr.DataArray:
    """Fitted median of every micrograph in units of the score, moved by so many half-widths of the band."""
    level = fit["fitted"] + steps * fit["band"]
    return np.exp(level) if str(fit["score"].item()) == "power" else level  # type: ignore[return-value]


def _draw_break_even(axes: Any, fit: xr.Dataset, after: bool) -> None:
    x = fit["defocus"].values * UM
    axes.scatter(
        x,
        _moved(fit["break_even"], fit, after),
        s=float(np.clip(3000 / max(len(x), 1), 4, 22)),
        marker="x",
        color=GREEN,
        linewidths=0.9,
        label="particles and noise break even",
    )
    line = _moved(fit["break_even_fitted"], fit, after)
    order = np.argsort(x)[np.isfinite(line[np.argsort(x)])]
    axes.plot(x[order], line[order], "--", color=DARK_GREEN, linewidth=1.4, zorder=3.5, label="its fit (break-even)")


def _draw_line(axes: Any, fit: xr.Dataset, after: bool, colour: str) -> None:
    x: Floats
    if after:
        x = fit["defocus"].values * UM
        order = np.flatnonzero(fit["used"].values == 1)
        order = order[np.argsort(x[order])]
        x = x[order]
        level, low, high = (_moved(_fitted(fit, steps), fit, True)[order] for steps in (0.0, -1.0, 1.0))
    else:
        x, level, half = fitted_line(fit)
        back = np.exp if str(fit["score"].item()) == "power" else np.asarray
        level, low, high = back(level), back(level - half), back(level + half)
    if len(x):
        axes.plot(x, level, color=colour, linewidth=1.5, label="fit", zorder=3.5)
        axes.fill_between(x, low, high, color=colour, alpha=0.2, linewidth=0, label="band")


def fitted_line(fit: xr.Dataset, points: int = 60) -> tuple[Floats, Floats, Floats]:
    """Fit of one score and one group on an even grid of defocus.

    Parameters
    ----------
    fit
        One score and group of the result of `fit_lines`, without further covariates.
    points
        Length of the grid, default 60.

    Returns
    -------
    x, level, half
        Defocus in µm; fitted median (NCC) or its natural logarithm (power); half-width of the confidence band.
        Empty where there was no fit.
    """
    covariance = fit["covariance"].values
    defocus = fit["defocus"].values[fit["used"].values == 1]
    if not np.isfinite(covariance).all() or not len(defocus):
        empty = np.empty(0)
        return empty, empty, empty
    grid = np.linspace(defocus.min(), defocus.max(), points)
    offset = (grid - float(fit.attrs["reference_defocus"])) * UM
    design = np.column_stack([offset**power for power in range(len(covariance))])
    quantile = stats.t.ppf(0.5 + 0.5 * float(fit.attrs["confidence"]), float(fit["degrees_of_freedom"]))
    half = quantile * np.sqrt(np.maximum(np.einsum("ij,jk,ik->i", design, covariance, design), 0))
    return grid * UM, design @ fit["coefficients"].values, half


def _headline(fit: xr.Dataset, score: str, after: bool, confidence: float) -> str:
    rho = float(fit["rho_after" if after else "rho_before"])
    tail = f"Spearman's ρ = {rho:+.2f}" if np.isfinite(rho) else "Spearman's ρ: none"
    title = heading(ScoreWords.of(fit.attrs).of_score(score))
    if after:
        applied = bool((fit["applied"].values == 1).any())
        return f"{title}, after{'' if applied else ' (not calibrated)'}\n{tail}"
    if fit.sizes["group"] > 1:
        return f"{title}, before: {fit.sizes['group']} groups\n{tail}"
    slope = slope_text(fit.isel(group=0), score, confidence)
    # on one line it would run into the title of the panel beside it
    between = " " if len(title) + len(slope) < LONG_TITLE else "\n"
    return f"{title}, before:{between}{slope}\n{tail}"


def slope_text(fit: xr.Dataset, score: str, confidence: float) -> str:
    """Say the slope of one score and group with its interval; that of the power score as a factor per µm."""
    slope, low, high = (float(fit[name]) for name in ("slope", "slope_low", "slope_high"))
    if not np.isfinite(slope):
        return "not fitted"
    if score == "power":
        return f"× {np.exp(slope):.3f} per µm ({100 * confidence:g} % {np.exp(low):.3f} to {np.exp(high):.3f})"
    return f"{slope:+.4f} per µm ({100 * confidence:g} % {low:+.4f} to {high:+.4f})"


def _left_out(figure: Figure, calibration: xr.Dataset) -> None:
    missing = int((~np.isfinite(calibration["median"].sel(score="ncc").values)).sum())
    unknown = int((~np.isfinite(calibration["defocus"].values)).sum())
    parts = [f"{missing} without a median"] if missing else []
    parts += [f"{unknown} without defocus"] if unknown else []
    if parts:
        figure.supxlabel(f"Micrographs not shown: {', '.join(parts)}.", fontsize=9, color=GREY)


def outliers(fit: xr.Dataset) -> NDArray[np.intp]:
    """Find the outlying micrographs of one score, the furthest first."""
    found = np.flatnonzero(fit["outlier"].values == 1)
    return np.asarray(found[np.argsort(-np.abs(fit["residual"].values[found]), kind="stable")])


def _label_outliers(axes: Any, fit: xr.Dataset, after: bool, labels: Sequence[str]) -> None:
    x, y = fit["defocus"].values * UM, _medians(fit, after)
    seen = np.isfinite(x) & np.isfinite(y)
    which = outliers(fit)
    label_points(axes, x[which], y[which], [labels[i] for i in which], np.column_stack([x[seen], y[seen]]))


def residuals_figure(calibration: xr.Dataset, names: Sequence[str]) -> Figure:
    """Residuals of the fits in standard deviations, micrographs in order of defocus.

    Parameters
    ----------
    calibration
        From `fit_lines`.
    names
        Names of all micrographs.

    Returns
    -------
    Figure
        One panel per score; those beyond four standard deviations are ringed and the six furthest named.
    """
    scores, words = scores_of(calibration), ScoreWords.of(calibration.attrs)
    figure = new_figure(10, 3 * len(scores) if len(scores) > 1 else 3.6)
    panels = figure.subplots(len(scores), 1, sharex=True, squeeze=False)[:, 0]
    labels = short_names(names)
    order = np.argsort(calibration["defocus"].values, kind="stable")
    rank = np.empty(len(order))
    rank[order] = np.arange(1, len(order) + 1)
    for axes, score in zip(panels, scores, strict=True):
        fit = calibration.sel(score=score)
        _draw_residuals(axes, fit, rank)
        xlabel = "micrograph, in order of defocus" if score == scores[-1] else ""
        title = f"{heading(words.of_score(score))}: {_count_outliers(fit)}"
        tidy(axes, xlabel, "residual (standard deviations)", title)
    for axes, score in zip(panels, scores, strict=True):
        fit = calibration.sel(score=score)
        which, residual = outliers(fit), fit["residual"].values
        seen = np.isfinite(residual)
        avoid = np.column_stack([rank[seen], residual[seen]])
        label_points(axes, rank[which], residual[which], [labels[i] for i in which], avoid)
    return figure


def _draw_residuals(axes: Any, fit: xr.Dataset, rank: Floats) -> None:
    residual, outlier = fit["residual"].values, fit["outlier"].values == 1
    axes.axhspan(-OUTLIER, OUTLIER, color=GREY, alpha=0.08, linewidth=0)
    axes.axhline(0, color=GREY, linewidth=0.8)
    if len(rank) <= 200:
        axes.vlines(rank, 0, residual, color=BLUE, linewidth=1)
    axes.scatter(rank, residual, s=float(np.clip(3000 / len(rank), 6, 24)), color=BLUE, linewidths=0, zorder=3)
    axes.scatter(rank[outlier], residual[outlier], s=90, facecolors="none", edgecolors=ORANGE, linewidths=1.4, zorder=4)
    reach = np.nanmax(np.abs(residual)) if np.isfinite(residual).any() else 0.0
    axes.set_ylim(-1.15 * max(reach, OUTLIER), 1.15 * max(reach, OUTLIER))


def _count_outliers(fit: xr.Dataset) -> str:
    used, found = int((fit["used"].values == 1).sum()), int((fit["outlier"].values == 1).sum())
    if not used:
        return "not fitted"
    return f"{found} of {used} micrographs beyond {OUTLIER:g} standard deviations"
