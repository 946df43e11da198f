"""Plots of the mixture: its components, picks by probability, trends in defocus."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pickcal.calibration import calibrated_scores
from pickcal.calibration.mixture import Model
from pickcal.calibration.mixture.observations import valid_places
from pickcal.calibration.trends import mean_defocus
from pickcal.calibration.verdicts import ScoreWords, heading, ranked_outliers
from pickcal.plots.densities import Expected, Plane, expected_numbers, means_at, reference_plane
from pickcal.plots.scores import plain_log_ticks
from pickcal.plots.style import (
    BLUE,
    DARK_GREEN,
    GREEN,
    GREY,
    NO_DEFOCUS,
    ORANGE,
    UM,
    YELLOW,
    Floats,
    enclosing_level,
    label_points,
    new_figure,
    note_beyond,
    nothing_figure,
    robust_limits,
    shared_legend,
    short_names,
    tidy,
)
from pickcal.schema import Status

MOST_DOTS = 20_000
"""Picks in the score plane."""
BINS = 70
"""Bins of the main score, about."""
POOLED_SHARE, MOST_POOLED = 0.25, 100
"""Part of the micrographs that one panel pools, and how many at most."""


def components_figure(
    picks: xr.Dataset, micrographs: xr.Dataset, mixture: xr.Dataset, likelihood: xr.Dataset
) -> Figure:
    """Draw main scores at low, middle and high defocus with what the mixture expects of noise, particles and junk.

    Parameters
    ----------
    picks
        `x`, `y`, `ncc`, `count`, `status` and decoys where there are any; `template` if the mixture has offsets.
    micrographs, mixture, likelihood
        The same micrographs of the table, of `Project.mixture` and of `calibration.mixture.probabilities`.

    Returns
    -------
    Figure
        Three panels: a quarter of the micrographs (at most 100) around the 10th, 50th and 90th percentile
        of defocus, pooled. Grey bars are picks, steps decoys away from particles, lines the components in expected
        picks per bin. The dotted line is where half the picks of one score are particles. Of scores with a few far out
        the middle 99 % are drawn.
    """
    groups = pooled_by_defocus(picks, mean_defocus(micrographs))
    if not groups:
        return nothing_figure(NO_DEFOCUS)
    edges = _edges(picks, np.concatenate([rows for _, rows in groups]))
    label = ScoreWords.of(mixture.attrs).score
    figure = new_figure(4.2 * len(groups) if len(groups) > 1 else 6.0, 4.6)
    panels = np.ravel(figure.subplots(1, len(groups), sharex=True, sharey=True))
    for axes, (title, rows) in zip(panels, groups, strict=True):
        part = [table.isel(micrograph=rows) for table in (picks, micrographs, mixture, likelihood)]
        found = expected_numbers(part[0], part[1], part[2], part[3], 0.5 * (edges[1:] + edges[:-1]))
        _draw_components(axes, found, edges)
        note_beyond(axes, found.picks, (edges[0], edges[-1]))
        ylabel = f"picks per {edges[1] - edges[0]:.3g} of {label}" if axes is panels[0] else ""
        tidy(axes, label, ylabel, heading(title))
    panels[0].set_yscale("symlog", linthresh=1)
    panels[0].set_ylim(bottom=0)
    panels[0].yaxis.set_major_formatter("{x:g}")
    shared_legend(figure, panels, 4)
    return figure


def pooled_by_defocus(picks: xr.Dataset, defocus: Floats) -> list[tuple[str, NDArray[np.intp]]]:
    """Finished micrographs around the 10th, 50th and 90th percentile of defocus.

    Returns
    -------
    list
        Title and indices; fewer than three where there are fewer micrographs.
    """
    usable = np.flatnonzero(
        (picks["status"].values == Status.DONE) & (picks["count"].values > 0) & np.isfinite(defocus)
    )
    order = usable[np.argsort(defocus[usable], kind="stable")]
    words = ("low", "middle", "high") if len(order) >= 3 else ("defocus",) * len(order)
    size = int(np.clip(POOLED_SHARE * len(order), 1, MOST_POOLED))
    out: list[tuple[str, NDArray[np.intp]]] = []
    for word, part in zip(words, (0.1, 0.5, 0.9), strict=False):
        centre = part * (len(order) - 1) if len(order) >= 3 else len(out)
        start = int(np.clip(round(centre - 0.5 * (size - 1)), 0, len(order) - size))
        rows = order[start : start + size]
        low, high = (f"{value * UM:.2f}" for value in (defocus[rows[0]], defocus[rows[-1]]))
        span = f"{low} µm" if low == high else f"{low} to {high} µm"
        number = f"{len(rows)} micrograph{'s' if len(rows) > 1 else ''}"
        out.append((f"{word}{' defocus' if word != 'defocus' else ''}, {span}\n{number}", np.sort(rows)))
    return out


def _edges(picks: xr.Dataset, rows: NDArray[np.intp]) -> Floats:
    part = picks.isel(micrograph=np.unique(rows))
    ncc = part["ncc"].values[valid_places(part)]
    low, high = robust_limits(ncc)
    width = float(high - low) / BINS or 1e-3
    decade = 10.0 ** np.floor(np.log10(width))
    width = decade * next(step for step in (1, 2, 5, 10) if step * decade >= width)
    return np.asarray(np.arange(np.floor(low / width) - 1, np.ceil(high / width) + 2) * width)


def _draw_components(axes: Any, found: Expected, edges: Floats) -> None:
    width = edges[1] - edges[0]
    axes.hist(found.picks, bins=edges, color=GREY, alpha=0.3, linewidth=0, label="picks")
    if len(found.decoys):
        counts = np.histogram(found.decoys, edges, weights=found.decoy_weight)[0]
        axes.stairs(counts, edges, color=BLUE, linewidth=1.0, label="decoys off particles")
    for values, colour, style, label in (
        (found.noise, ORANGE, "-", "noise"),
        (found.particle, GREEN, "-", "particles"),
        (found.junk, YELLOW, "-", "junk"),
        (found.noise + found.particle + found.junk, "black", "--", "all expected"),
    ):
        if values.any():
            axes.plot(found.grid, values * width, style, color=colour, linewidth=1.6, label=label)
    if np.isfinite(found.even_odds):
        axes.axvline(
            found.even_odds,
            color=DARK_GREEN,
            linestyle=":",
            linewidth=1.4,
            label="probability 0.5, by this score alone",
        )


def plane_figure(
    picks: xr.Dataset, lines: xr.Dataset, mixture: xr.Dataset, likelihood: xr.Dataset, limit: float | None = None
) -> Figure:
    """Calibrated main score against calibrated power score, picks coloured by probability.

    Parameters
    ----------
    picks
        `ncc`, `power`, `count`, `status`.
    lines, mixture, likelihood
        The same micrographs of the fit, of the stored mixture and of the probabilities.
    limit
        Power maximum to draw, in calibrated power: `calibration.mixture.power_limit`. None draws none.

    Returns
    -------
    Figure
        At most 20,000 picks, evenly taken. Contours enclose half and nine tenths of noise and of particles at the
        reference defocus.
    """
    scores = calibrated_scores(picks, lines)
    valid = valid_places(picks)
    ncc, power, probability = (
        table.values[valid] for table in (scores["ncc"], scores["power"], likelihood["probability"])
    )
    good = np.flatnonzero(np.isfinite(power) & (power > 0) & np.isfinite(probability))
    if not len(good):
        return nothing_figure("no picks with a power score")
    good = good[:: -(-len(good) // MOST_DOTS)]
    # in no particular order, so that none of both kinds always lies on top
    good = np.random.default_rng(0).permutation(good)
    figure = new_figure(9, 6)
    axes = figure.subplots()
    dots = axes.scatter(
        ncc[good], power[good], c=probability[good], s=6, cmap="cividis", vmin=0, vmax=1, linewidths=0, alpha=0.7
    )
    figure.colorbar(dots, ax=axes, label="probability of being a particle")
    axes.set_yscale("log")
    plain_log_ticks(axes)
    plane = reference_plane(mixture, lines)
    _draw_contours(axes, plane)
    bottom, top = np.quantile(power[good], (0.0005, 0.9995))
    if limit is not None:
        top = max(top, limit)
        axes.axhline(limit, color=ORANGE, linestyle="--", linewidth=1.3, label=f"power maximum of --auto: {limit:.3g}")
    axes.set_ylim(bottom / 1.15, top * 1.3)
    left, right = robust_limits(ncc[good])
    pad = 0.04 * max(right - left, 1e-3)
    axes.set_xlim(left - pad, right + pad)
    note_beyond(axes, ncc[good], (left, right))
    words = ScoreWords.of(lines.attrs)
    tidy(axes, words.axis("ncc", "calibrated"), words.axis("power", "calibrated"))
    figure.legend(*axes.get_legend_handles_labels(), loc="outside upper center", ncols=3, fontsize=9, frameon=False)
    return figure


def _draw_contours(axes: Any, plane: Plane) -> None:
    for density, colour, style, word in (
        (plane.noise, ORANGE, "-", "noise"),
        (plane.particle, "black", "-", "particles"),
    ):
        levels = np.unique([enclosing_level(density, part) for part in (0.9, 0.5)])
        axes.contour(plane.ncc, plane.power, density, levels=levels, colors=colour, linewidths=1.5, linestyles=style)
        axes.plot([], [], style, color=colour, label=f"half and nine tenths of the {word}")


def trends_figure(micrographs: xr.Dataset, lines: xr.Dataset, mixture: xr.Dataset, names: Sequence[str]) -> Figure:
    """Mean scores of particles and noise, and the fraction of particles, against defocus.

    Parameters
    ----------
    micrographs, lines, mixture
        Tables of the same micrographs.
    names
        Their names.

    Returns
    -------
    Figure
        Above the fitted means with the interval of the particles' slope, and the median score of every micrograph that
        the lines rest on. Below the fraction of particles among the picks of every micrograph; outlying micrographs,
        by score or by the share of junk, are ringed and the six furthest named.
    """
    model = Model.from_dataset(mixture)
    x = mean_defocus(micrographs) * UM
    fraction = np.where(
        mixture["expected"].values.sum(axis=1) > 0, mixture["fraction"].sel(component="particle"), np.nan
    )
    seen = np.isfinite(x) & np.isfinite(fraction)
    if not seen.any():
        return nothing_figure(NO_DEFOCUS)
    figure = new_figure(9, 7)
    upper, lower = figure.subplots(2, 1, sharex=True)
    size = float(np.clip(3000 / len(x), 6, 24))
    median = lines["median"].sel(score="ncc").values
    label, decoys = ScoreWords.of(lines.attrs).score, mixture.attrs["noise_from"] == "decoys"
    what = "median above the decoys" if decoys and lines.attrs["median_of"] != "all" else "median of all picks"
    upper.scatter(x[seen], median[seen], s=size, color=GREY, linewidths=0, alpha=0.6, label=what)
    _draw_means(upper, model, x[seen])
    tidy(upper, "", label, _slope_headline(model, label, float(lines.attrs["confidence"])))
    upper.legend(fontsize=9, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    lower.scatter(x[seen], fraction[seen], s=size, color=BLUE, linewidths=0, zorder=3, label="micrograph")
    top = max(1.12 * float(fraction[seen].max()), 0.1)
    lower.set_ylim(-0.04 * top, top)
    rows = ranked_outliers(lines, names, mixture["fraction"].sel(component="junk").values)
    which = np.array([row["index"] for row in rows if seen[row["index"]]], dtype=np.intp)
    if len(which):
        ring: dict[str, Any] = {"facecolors": "none", "edgecolors": ORANGE, "linewidths": 1.4, "zorder": 4}
        lower.scatter(x[which], fraction[which], s=size + 70, label="outlying", **ring)
    tidy(lower, "defocus (µm)", "fraction of particles\namong the picks")
    lower.legend(fontsize=9, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    labels = short_names(names)
    avoid = np.column_stack([x[seen], fraction[seen]])
    label_points(lower, x[which], fraction[which], [labels[i] for i in which], avoid)
    return figure


def _draw_means(axes: Any, model: Model, x: Floats) -> None:
    grid = np.linspace(x.min(), x.max(), 100) if np.ptp(x) else x[:1]
    particles, noise = means_at(model.trend, model.mixture.particles, model.mixture.noise, grid / UM)
    axes.plot(grid, particles, color=GREEN, linewidth=1.8, label="particles, mean")
    interval = model.report["slopes"]["ncc"].get("interval")
    if interval and not model.trend.knots and model.trend.degree == 1:
        slope, offset = model.report["slopes"]["ncc"]["slope"], grid - model.trend.reference * UM
        edges = [particles + (end - slope) * offset for end in interval]
        axes.fill_between(grid, *edges, color=GREEN, alpha=0.2, linewidth=0, label="interval of its slope")
    axes.plot(grid, noise, color=ORANGE, linewidth=1.8, label="noise, mean")


def _slope_headline(model: Model, label: str, confidence: float) -> str:
    slope = model.report["slopes"]["ncc"]
    if model.trend.knots or model.trend.degree != 1:
        return f"Particles' {label}: {model.report['trend']} in defocus"
    text = f"Particles' {label}: {slope['slope']:+.4f} per µm"
    if slope.get("interval"):
        low, high = slope["interval"]
        text += f" ({100 * confidence:g} % {low:+.4f} to {high:+.4f})"
    return text
