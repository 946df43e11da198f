"""Picks drawn on micrographs at low, middle and high defocus, side by side."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from numpy.typing import NDArray
from scipy import ndimage

from pickcal.calibration import calibrated_scores
from pickcal.calibration.mixture import probabilities
from pickcal.calibration.trends import mean_defocus
from pickcal.plots.fits import scores_of
from pickcal.plots.style import ORANGE, SKY, UM, Floats, new_figure, nothing_figure, short_names
from pickcal.project import Project
from pickcal.schema import Status
from pickcal.selection import ACCEPTED, REASONS, rejection_reasons, settings_of
from pickcal.settings import SelectSettings

SMOOTHING = 1.5
"""Standard deviation of the Gaussian that images are smoothed by, working pixels."""
BY_SCORE = ("low score", "probability", "false discovery rate")
NM = 0.1
"""nm in an Å."""


def micrographs_figure(
    project: Project,
    picks_name: str,
    calibration: xr.Dataset | None,
    settings: SelectSettings | None,
    diameter: float,
) -> Figure:
    """Three micrographs at low, middle and high defocus with their accepted picks.

    Parameters
    ----------
    project
        Open project, with images.
    picks_name
        Name of the picks.
    calibration
        From `fit_lines`, or None for raw scores.
    settings
        Thresholds. None shows as many of the best picks as particles were estimated.
    diameter
        Diameter of the circles, Å.

    Returns
    -------
    Figure
        Working images smoothed by 1.5 working pixels, y downwards as in the file. Accepted picks are light blue
        circles, picks rejected by place or power, not by main score or probability, thin orange ones.
    """
    picks = project.picks(picks_name)
    chosen = low_middle_high(project, picks, calibration)
    if not len(chosen):
        return nothing_figure("no finished micrograph")
    table = project.micrographs().drop_vars("image").isel(micrograph=chosen).load()
    defocus = mean_defocus(table)
    aspect = float((table["height"] / table["width"]).max())
    figure = new_figure(4.6 * len(chosen), 4.6 * aspect + 0.6)
    part = picks.isel(micrograph=chosen).load()
    mixture = project.mixture(picks_name) if calibration is not None else None
    likelihood = None if mixture is None else probabilities(part, table, mixture.isel(micrograph=chosen))
    reasons = _judge(part, table, calibration, settings, chosen, likelihood)
    labels = short_names([str(name) for name in project.read("micrographs", "name")])
    for k, (axes, index) in enumerate(zip(np.ravel(figure.subplots(1, len(chosen))), chosen, strict=True)):
        pixel = float(table["pixel_size"].values[k])
        _draw_image(axes, project.image(int(index)), pixel)
        rejected = _draw_picks(axes, picks.isel(micrograph=int(index)), reasons[k], diameter)
        count = int((reasons[k] == ACCEPTED).sum())
        title = f"{labels[index]}\n{defocus[k] * UM:.2f} µm, {count} {'accepted' if settings else 'best'}"
        axes.set_title(title + (f", {rejected} rejected by place or power" if rejected else ""), fontsize=10)
    return figure


def low_middle_high(project: Project, picks: xr.Dataset, calibration: xr.Dataset | None) -> NDArray[np.intp]:
    """Find the finished, preferably not outlying micrographs of lowest, middle and highest defocus."""
    finished = picks["status"].values == Status.DONE
    order = ordinary_by_defocus(finished, mean_defocus(project.table()), calibration)
    return order if len(order) <= 3 else np.asarray(order[[0, len(order) // 2, -1]])


def ordinary_by_defocus(
    finished: NDArray[np.bool_], defocus: Floats, calibration: xr.Dataset | None
) -> NDArray[np.intp]:
    """Order finished micrographs by defocus.

    Parameters
    ----------
    finished, defocus
        Of all micrographs; the unit of the defocus does not matter.
    calibration
        The lines, or None.

    Returns
    -------
    ndarray
        Rows. Without micrographs that are outlying in a score that there is, or have no median of it, and those without
        a defocus, as long as three remain.
    """
    if calibration is not None:
        ordinary = finished & (calibration["outlier"].values == 0).all(axis=0)
        ordinary &= np.isfinite(calibration["median"].sel(score=list(scores_of(calibration))).values).all(axis=0)
        finished = ordinary if ordinary.sum() >= 3 else finished
    found = np.flatnonzero(finished)
    order = found[np.argsort(defocus[found], kind="stable")]
    known = order[np.isfinite(defocus[order])]
    return known if len(known) >= 3 else order


def _judge(
    picks: xr.Dataset,
    table: xr.Dataset,
    calibration: xr.Dataset | None,
    settings: SelectSettings | None,
    chosen: NDArray[np.intp],
    likelihood: xr.Dataset | None,
) -> NDArray[np.int8]:
    fit = None if calibration is None else calibration.isel(micrograph=chosen)
    if settings is not None:
        # a selection may speak of micrographs that are not among these three
        here = settings_of(settings, {str(name) for name in table["name"].values})
        return rejection_reasons(picks, fit, table, here, likelihood)
    ncc = calibrated_scores(picks, fit)["ncc"].values
    reasons = np.full(ncc.shape, -1, dtype=np.int8)
    for k, count in enumerate(picks["count"].values):
        particles = float(fit["particles"].values[k]) if fit is not None else np.nan
        best = int(count) if not np.isfinite(particles) else min(int(particles), int(count))
        reasons[k, :count] = REASONS.index(BY_SCORE[0])
        reasons[k, np.argsort(-ncc[k, :count], kind="stable")[:best]] = ACCEPTED
    return reasons


def _draw_image(axes: Any, image: Floats, pixel_size: float) -> None:
    smooth = ndimage.gaussian_filter(np.nan_to_num(image.astype(np.float32)), SMOOTHING)
    low, high = np.percentile(smooth, (0.5, 99.5))
    height, width = smooth.shape
    step = pixel_size * NM
    axes.imshow(
        smooth,
        cmap="gray",
        vmin=low,
        vmax=max(high, low + 1e-6),
        extent=(-0.5 * step, (width - 0.5) * step, (height - 0.5) * step, -0.5 * step),
        interpolation="antialiased",
    )
    axes.set(xticks=[], yticks=[], aspect="equal")
    _draw_scale_bar(axes, width * step, height * step)


def _draw_scale_bar(axes: Any, width: float, height: float) -> None:
    target = width / 4
    decade = 10 ** np.floor(np.log10(target))
    length = float(max(step * decade for step in (1, 2, 5) if step * decade <= target))
    x, y = 0.04 * width, 0.96 * height
    dark = [withStroke(linewidth=5, foreground="black")]
    axes.plot([x, x + length], [y, y], color="white", linewidth=3, solid_capstyle="butt", path_effects=dark)
    axes.annotate(
        f"{length:g} nm",
        (x + length / 2, y),
        textcoords="offset points",
        xytext=(0, 5),
        ha="center",
        fontsize=10,
        color="white",
        path_effects=[withStroke(linewidth=3, foreground="black")],
    )


def _draw_picks(axes: Any, picks: xr.Dataset, reasons: NDArray[np.int8], diameter: float) -> int:
    x, y = picks["x"].values * NM, picks["y"].values * NM
    rejected = (reasons > ACCEPTED) & ~np.isin(reasons, [REASONS.index(word) for word in BY_SCORE])
    for members, colour, thickness in ((rejected, ORANGE, 0.9), (reasons == ACCEPTED, SKY, 1.5)):
        if not members.any():
            continue
        size = np.full(int(members.sum()), diameter * NM)
        circles = EllipseCollection(
            size,
            size,
            np.zeros(len(size)),
            units="xy",
            offsets=np.column_stack([x[members], y[members]]),
            offset_transform=axes.transData,
            facecolors="none",
            edgecolors=colour,
            linewidths=thickness,
        )
        axes.add_collection(circles, autolim=False)
    return int(rejected.sum())
