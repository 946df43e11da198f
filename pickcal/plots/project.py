"""All plots of one set of picks of a project, for report, command line and dashboard alike."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import xarray as xr
from matplotlib.figure import Figure

from pickcal.errors import ProjectError
from pickcal.plots.fits import medians_figure, residuals_figure
from pickcal.plots.images import micrographs_figure
from pickcal.plots.scores import scores_figure, threshold_figure
from pickcal.project import Project
from pickcal.settings import SelectSettings, validated

MOST_SCORES = 5_000_000
COLUMNS = ("ncc", "power", "decoy_ncc", "decoy_power", "count", "decoy_count", "status")


def project_figures(project: Project, picks: str, selection: str | None = None) -> Iterator[tuple[str, str, Figure]]:
    """Draw every plot that a set of picks supports.

    Parameters
    ----------
    project
        Open project.
    picks
        Name of the picks.
    selection
        Name of the selection whose accepted picks are drawn on micrographs; default: the best picks.

    Yields
    ------
    key, caption, figure
        Short name, one sentence, plot. Without a calibration only the micrographs, and those only where the picks'
        settings hold a particle diameter.

    Raises
    ------
    ProjectError
        If there are no such picks or no such selection of them.
    """
    project.require("picks", picks)
    thresholds = None if selection is None else selection_settings(project, picks, selection)
    calibration = stored_calibration(project, picks)
    if calibration is not None:
        names = [str(name) for name in project.read("micrographs", "name")]
        yield (
            "medians",
            "Medians of every micrograph against defocus, with the fit.",
            medians_figure(calibration, names),
        )
        yield "residuals", "Distance of every micrograph from the fit.", residuals_figure(calibration, names)
        scores, fit = thinned_scores(project, picks, calibration)
        yield "scores", "Both scores of picks and decoys.", scores_figure(scores, fit)
        yield (
            "thresholds",
            "What one threshold accepts at low, middle and high defocus.",
            threshold_figure(scores, fit),
        )
    diameter = picks_diameter(project.settings(f"picks/{picks}"))
    if diameter is not None:
        what = f"accepted by selection {selection}" if selection else "the best picks"
        caption = f"Low, middle and high defocus: {what}."
        yield "micrographs", caption, micrographs_figure(project, picks, calibration, thresholds, diameter)


def stored_calibration(project: Project, picks: str) -> xr.Dataset | None:
    """Return the fit of some picks, or None where they were not calibrated."""
    return project.dataset(f"calibration/{picks}").load() if picks in project.names("calibration") else None


def thinned_scores(project: Project, picks: str, calibration: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """Scores and fit of all micrographs, or of every n-th where there are more than five million places for picks."""
    dataset = project.dataset(f"picks/{picks}")[list(COLUMNS)]
    step = max(1, -(-dataset["ncc"].size // MOST_SCORES))
    part = slice(None, None, step)
    return dataset.isel(micrograph=part).load(), calibration.isel(micrograph=part)


def picks_diameter(settings: dict[str, Any]) -> float | None:
    """Particle diameter of the settings of some picks, Å; None where they hold none."""
    if settings.get("diameter"):
        return float(settings["diameter"])
    if settings.get("diameter_min") and settings.get("diameter_max"):
        return 0.5 * (float(settings["diameter_min"]) + float(settings["diameter_max"]))
    return None


def selections_of(project: Project, picks: str) -> list[str]:
    """Names of the selections of some picks."""
    return [name for name in project.names("selection") if _picks_of(project, name) == picks]


def selection_settings(project: Project, picks: str, selection: str) -> SelectSettings:
    """Thresholds of a stored selection of some picks.

    Raises
    ------
    ProjectError
        If there is no such selection, or it is of other picks.
    """
    project.require("selection", selection)
    of = _picks_of(project, selection)
    if of != picks:
        raise ProjectError(f"{project.path}: selection {selection!r} is of picks {of!r}, not of {picks!r}")
    values = {key: value for key, value in project.settings(f"selection/{selection}").items() if key != "picks"}
    return validated(SelectSettings, values, f"selection {selection}")


def _picks_of(project: Project, selection: str) -> str:
    return str(project.dataset(f"selection/{selection}").attrs["picks"])
