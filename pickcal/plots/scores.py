"""Plots of single picks: score against score, and accepted picks against the threshold."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import ndimage

from pickcal.calibration import calibrated_scores
from pickcal.calibration.verdicts import ScoreWords, heading
from pickcal.plots.style import (
    BLUE,
    GREEN,
    GREY,
    NO_DEFOCUS,
    ORANGE,
    UM,
    Floats,
    enclosing_level,
    new_figure,
    note_beyond,
    nothing_figure,
    robust_limits,
    shared_legend,
    tidy,
)
from pickcal.schema import Status

MOST_POINTS = 500_000
"""Picks, and decoys, that are drawn."""


def scores_figure(picks: xr.Dataset, calibration: xr.Dataset) -> Figure:
    """Draw main against power score of all picks, before and after calibration, and what noise gives.

    Parameters
    ----------
    picks
        `ncc`, `power`, `count`, `status` and, where there are any, `decoy_ncc`, `decoy_power`, `decoy_count`.
    calibration
        From `fit_lines`; its attributes name the scores.

    Returns
    -------
    Figure
        Two panels with the logarithm of the density of picks; lines enclose half and nine tenths of the decoys;
        above them histograms of the main score of picks and decoys. Without power scores the histograms alone. Of more
        than 500,000 picks an even part is drawn; of scores with a few far out the middle 99 %.
    """
    raw, calibrated = (flat_scores(picks, fit) for fit in (None, calibration))
    limits, words = _limits(raw, calibrated), ScoreWords.of(calibration.attrs)
    plane = bool(_with_power(raw).any())
    figure = new_figure(10, 6.2 if plane else 3.6)
    panels = figure.subplots(1 + plane, 2, sharex="col", squeeze=False, height_ratios=(1, 2.6)[: 1 + plane])
    for column, (values, word) in enumerate(((raw, "before"), (calibrated, "after"))):
        label = words.axis("ncc", "calibrated" if column else "")
        _draw_histogram(panels[0, column], values, limits[0])
        tidy(panels[0, column], "", "" if column else "picks", f"{heading(words.score)}, {word} calibration")
        panels[-1, column].set_xlabel(label, fontsize=10)
        if not plane:
            continue
        panels[0, column].tick_params(labelbottom=False)
        drawn = _draw_density(panels[1, column], values, limits)
        tidy(panels[1, column], label, "" if column else words.axis("power"))
        if drawn is not None:
            figure.colorbar(drawn, ax=panels[1, column], label="picks per cell" if column else "")
    if len(raw["decoy_ncc"]):
        shared_legend(figure, panels[:, 0], 3)
    return figure


def _with_power(values: dict[str, Floats], prefix: str = "") -> NDArray[np.bool_]:
    power = values[f"{prefix}power"]
    return np.asarray(np.isfinite(power) & (power > 0))


def flat_scores(picks: xr.Dataset, calibration: xr.Dataset | None) -> dict[str, Floats]:
    """Scores of all picks and decoys of finished micrographs, without padding.

    Returns
    -------
    dict
        `ncc`, `power` of the same length and `decoy_ncc`, `decoy_power` likewise (empty without decoys); at most
        500,000 each, evenly spaced.
    """
    scores = calibrated_scores(picks, calibration)
    done = (picks["status"].values == Status.DONE)[:, None]
    out: dict[str, Floats] = {}
    for prefix, count in (("", "count"), ("decoy_", "decoy_count")):
        if f"{prefix}ncc" not in scores:
            out |= {f"{prefix}ncc": np.empty(0), f"{prefix}power": np.empty(0)}
            continue
        ncc, power = scores[f"{prefix}ncc"].values, scores[f"{prefix}power"].values
        valid = done & (np.arange(ncc.shape[1]) < picks[count].values[:, None]) & np.isfinite(ncc)
        step = max(1, -(-int(valid.sum()) // MOST_POINTS))
        out[f"{prefix}ncc"], out[f"{prefix}power"] = ncc[valid][::step], power[valid][::step]
    return out


def _limits(*both: dict[str, Floats]) -> tuple[tuple[float, float], tuple[float, float]]:
    low, high = robust_limits(np.concatenate([values["ncc"] for values in both]))
    power = np.concatenate([values["power"][_with_power(values)] for values in both])
    bottom, top = np.quantile(power, (0.001, 0.999)) if len(power) else (0.1, 10.0)
    pad = 0.03 * max(high - low, 1e-3)
    return (low - pad, high + pad), (float(bottom / 1.1), float(top * 1.1))


def _draw_histogram(axes: Any, values: dict[str, Floats], limits: tuple[float, float]) -> None:
    bins = np.linspace(*limits, 81)
    axes.hist(values["ncc"], bins=bins, color=BLUE, alpha=0.75, linewidth=0, label="picks")
    if len(values["decoy_ncc"]):
        axes.hist(
            values["decoy_ncc"],
            bins=bins,
            histtype="step",
            color=ORANGE,
            linewidth=1.5,
            label="decoys (noise)",
        )
    axes.set_yscale("symlog", linthresh=10)
    axes.set_ylim(bottom=0)
    axes.set_xlim(*limits)
    note_beyond(axes, values["ncc"], limits)


def _draw_density(axes: Any, values: dict[str, Floats], limits: tuple[tuple[float, float], tuple[float, float]]) -> Any:
    good = _with_power(values)
    inside = good & (values["ncc"] >= limits[0][0]) & (values["ncc"] <= limits[0][1])
    axes.set(xlim=limits[0], ylim=limits[1], yscale="log")
    if not inside.any():
        axes.text(0.5, 0.5, "no picks with a power score", transform=axes.transAxes, ha="center", color=GREY)
        return None
    extent = (*limits[0], *np.log10(limits[1]))
    drawn = axes.hexbin(
        values["ncc"][inside],
        values["power"][inside],
        gridsize=(60, 30),
        yscale="log",
        bins="log",
        mincnt=1,
        cmap="cividis",
        linewidths=0,
        extent=extent,
    )
    plain_log_ticks(axes)
    _draw_decoys(axes, values, limits)
    return drawn


def plain_log_ticks(axes: Any) -> None:
    """Label a logarithmic power axis at 1, 2, 5, 10 and so on in plain numbers."""
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_formatter("")


def _draw_decoys(axes: Any, values: dict[str, Floats], limits: tuple[tuple[float, float], tuple[float, float]]) -> None:
    good = _with_power(values, "decoy_")
    if good.sum() < 50:
        return
    bottom, top = np.log10(limits[1])
    x, y = np.linspace(*limits[0], 81), np.linspace(float(bottom), float(top), 61)
    density, _, _ = np.histogram2d(values["decoy_ncc"][good], np.log10(values["decoy_power"][good]), bins=(x, y))
    density = ndimage.gaussian_filter(density, 1.5)
    levels = np.unique([enclosing_level(density, part) for part in (0.9, 0.5)])
    middles = 0.5 * (x[1:] + x[:-1]), 10 ** (0.5 * (y[1:] + y[:-1]))
    axes.contour(*middles, density.T, levels=levels, colors=ORANGE, linewidths=1.3)
    axes.plot([], [], color=ORANGE, label="half and nine tenths of the decoys")


def threshold_figure(picks: xr.Dataset, calibration: xr.Dataset) -> Figure:
    """Draw accepted picks per micrograph against the threshold on the main score at low, middle and high defocus.

    Parameters
    ----------
    picks
        A picks group, as for `scores_figure`.
    calibration
        From `fit_lines`.

    Returns
    -------
    Figure
        Raw scores left, calibrated right; one line per third of the micrographs by defocus, dotted for the decoys.
        Where calibration works the lines of the right panel lie together above the noise. Of scores with a few far out
        the middle 99 % are drawn.
    """
    thirds, words = terciles(picks, calibration["defocus"].values), ScoreWords.of(calibration.attrs)
    if not thirds:
        return nothing_figure(NO_DEFOCUS)
    figure = new_figure(10, 4.6)
    panels = figure.subplots(1, 2, sharey=True)
    for axes, fit, title in ((panels[0], None, "Raw scores"), (panels[1], calibration, "Calibrated scores")):
        scores = calibrated_scores(picks, fit)
        flat = flat_scores(picks, fit)
        limits = robust_limits(np.concatenate([flat["ncc"], flat["decoy_ncc"]]))
        for colour, (word, members) in zip((BLUE, GREEN, ORANGE), thirds, strict=False):
            _draw_accepted(axes, picks, scores, members, limits, colour, word)
        note_beyond(axes, flat["ncc"], limits)
        ylabel = "accepted picks per micrograph" if fit is None else ""
        tidy(axes, f"threshold on the {words.axis('ncc', '' if fit is None else 'calibrated')}", ylabel, title)
        axes.set_yscale("log")
        axes.set_ylim(bottom=0.3)
        axes.yaxis.set_major_formatter("{x:g}")
    handles, labels = panels[0].get_legend_handles_labels()
    if len(flat["decoy_ncc"]):
        handles, labels = [*handles, *panels[0].plot([], [], ":", color=GREY)], [*labels, "decoys (noise)"]
    figure.legend(handles, labels, loc="outside upper center", ncols=4, fontsize=9, frameon=False)
    return figure


def terciles(picks: xr.Dataset, defocus: Floats) -> list[tuple[str, NDArray[np.intp]]]:
    """Finished micrographs in three equal parts by defocus.

    Returns
    -------
    list
        Name with the range in µm, and indices; one part when there are fewer than three micrographs.
    """
    usable = np.flatnonzero((picks["status"].values == Status.DONE) & np.isfinite(defocus))
    order = usable[np.argsort(defocus[usable], kind="stable")]
    if not len(order):
        return []
    parts = np.array_split(order, 3) if len(order) >= 3 else [order]
    words = ("low", "middle", "high") if len(parts) == 3 else ("all",)
    return [
        (f"{word} defocus, {defocus[part].min() * UM:.2f} to {defocus[part].max() * UM:.2f} µm", part)
        for word, part in zip(words, parts, strict=True)
    ]


def _draw_accepted(
    axes: Any,
    picks: xr.Dataset,
    scores: xr.Dataset,
    members: NDArray[np.intp],
    limits: tuple[float, float],
    colour: str,
    label: str,
) -> None:
    for name, count, style in (("ncc", "count", "-"), ("decoy_ncc", "decoy_count", ":")):
        if name not in scores:
            continue
        rows = scores[name].values[members]
        valid = (np.arange(rows.shape[1]) < picks[count].values[members][:, None]) & np.isfinite(rows)
        values = np.sort(rows[valid])
        if not len(values):
            continue
        thresholds = np.linspace(max(values[0], limits[0]), min(values[-1], limits[1]), 300)
        accepted = (len(values) - np.searchsorted(values, thresholds, side="left")) / len(members)
        axes.plot(thresholds, accepted, style, color=colour, linewidth=1.6, label=label if name == "ncc" else None)
