"""All plots of one set of picks of a project, for report, command line and dashboard alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import xarray as xr
from matplotlib.figure import Figure

from pickcal.calibration.mixture import PICK_VARIABLES, power_limit, probabilities
from pickcal.calibration.verdicts import ScoreWords, heading
from pickcal.plots.discovery import false_discovery_figure
from pickcal.plots.fits import medians_figure, residuals_figure, scores_of
from pickcal.plots.images import micrographs_figure
from pickcal.plots.probability import components_figure, plane_figure, trends_figure
from pickcal.plots.scores import scores_figure, threshold_figure
from pickcal.project import Project
from pickcal.settings import SelectSettings
from pickcal.stages.select_result import stored_selection, thresholds_of

MOST_SCORES = 5_000_000
"""Places for picks that the plots of scores are drawn from; of more, every n-th micrograph is taken."""
COLUMNS = ("ncc", "power", "decoy_ncc", "decoy_power", "count", "decoy_count", "status")
MOST_PROBABILITIES = 2_000_000
"""The same for the plots of the mixture."""
MIXTURE_FIGURES = {
    "components": "What the mixture expects at low, middle and high defocus, component by component.",
    "plane": "Both calibrated scores, picks coloured by their probability of being a particle.",
    "false_discovery": "Expected false picks and accepted picks against the least probability.",
    "probability_trends": "Mean scores of particles and noise, and the fraction of particles, against defocus.",
}


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
        settings hold a particle diameter and the project images; residuals only where a line was fitted; those of the
        mixture only where there is one, and its plane only where there is a power score.

    Raises
    ------
    ProjectError
        If there are no such picks or no such selection of them, or the selection is stale.
    """
    project.require("picks", picks)
    thresholds = drawn_thresholds(project, picks, selection)
    calibration = project.calibration(picks)
    if calibration is not None:
        names = [str(name) for name in project.read("micrographs", "name")]
        yield (
            "medians",
            "Medians of every micrograph against defocus, with the fit.",
            medians_figure(calibration, names),
        )
        if (calibration["used"] == 1).any():
            yield "residuals", "Distance of every micrograph from the fit.", residuals_figure(calibration, names)
        scores, fit = thinned_scores(project, picks, calibration)
        yield "scores", scores_caption(scores, fit), scores_figure(scores, fit)
        yield (
            "thresholds",
            "What one threshold accepts at low, middle and high defocus.",
            threshold_figure(scores, fit),
        )
    if calibration is not None and project.mixture(picks) is not None:
        data = MixtureData.of(project, picks)
        for key in mixture_figures(calibration):
            yield key, MIXTURE_FIGURES[key], data.figure(key)
    diameter = picks_diameter(project.settings(f"picks/{picks}"))
    if diameter is not None and project.has_images:
        what = f"accepted by selection {selection}" if selection else "the best picks"
        caption = f"Low, middle and high defocus: {what}."
        yield "micrographs", caption, micrographs_figure(project, picks, calibration, thresholds, diameter)


def drawn_thresholds(project: Project, picks: str, selection: str | None) -> SelectSettings | None:
    """Thresholds of the selection whose accepted picks are drawn; None for none.

    Raises
    ------
    ProjectError
        If there is no such selection of these picks, or it is stale: it would accept others than it says.
    """
    if selection is None:
        return None
    thresholds = thresholds_of(project, selection, picks)
    stored_selection(project, selection)
    return thresholds


def scores_caption(picks: xr.Dataset, calibration: xr.Dataset) -> str:
    """Say in one sentence what `scores_figure` shows of these picks."""
    words = ScoreWords.of(calibration.attrs)
    of = "picks and decoys" if int(picks["decoy_count"].sum()) else "picks"
    if len(scores_of(calibration)) > 1:
        return f"{heading(words.score)} and {words.power} of {of}, before and after calibration."
    return f"{heading(words.score)} of {of}, before and after calibration."


def mixture_figures(calibration: xr.Dataset) -> tuple[str, ...]:
    """Names of the plots that a mixture supports: all of `MIXTURE_FIGURES`, without a power score not the plane."""
    plane = "power" in scores_of(calibration)
    return tuple(key for key in MIXTURE_FIGURES if key != "plane" or plane)


@dataclass(frozen=True)
class MixtureData:
    """What the plots of the mixture take.

    Attributes
    ----------
    picks, part, likelihood
        Scores and positions, table of micrographs and probabilities: of all micrographs, or of every n-th where there
        are more than two million places for picks.
    part_lines, part_mixture
        Lines and mixture of the same micrographs.
    micrographs, lines, mixture
        Of all micrographs.
    """

    picks: xr.Dataset
    part: xr.Dataset
    likelihood: xr.Dataset
    part_lines: xr.Dataset
    part_mixture: xr.Dataset
    micrographs: xr.Dataset
    lines: xr.Dataset
    mixture: xr.Dataset

    @classmethod
    def of(cls, project: Project, picks: str) -> MixtureData:
        """Read it for calibrated picks that have a mixture."""
        lines, mixture = project.calibration(picks), project.mixture(picks)
        assert lines is not None and mixture is not None
        micrographs = project.table()
        dataset = project.picks(picks)
        names = dict.fromkeys((*COLUMNS, *PICK_VARIABLES, "decoy_x", "decoy_y"))
        dataset = dataset[[name for name in names if name in dataset]]
        rows = slice(None, None, max(1, -(-dataset["ncc"].size // MOST_PROBABILITIES)))
        scores = dataset.isel(micrograph=rows).load()
        part, part_mixture = micrographs.isel(micrograph=rows), mixture.isel(micrograph=rows)
        likelihood = probabilities(scores, part, part_mixture)
        part_lines = lines.isel(micrograph=rows)
        return cls(scores, part, likelihood, part_lines, part_mixture, micrographs, lines, mixture)

    def figure(self, key: str) -> Figure:
        """Draw one of `MIXTURE_FIGURES`."""
        if key == "components":
            return components_figure(self.picks, self.part, self.part_mixture, self.likelihood)
        if key == "plane":
            limit = power_limit(self.mixture, self.lines, self.micrographs)
            return plane_figure(self.picks, self.part_lines, self.part_mixture, self.likelihood, limit)
        if key == "false_discovery":
            return false_discovery_figure(self.picks, self.part_mixture, self.likelihood)
        names = [str(name) for name in self.micrographs["name"].values]
        return trends_figure(self.micrographs, self.lines, self.mixture, names)


def thinned_scores(project: Project, picks: str, calibration: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """Scores and fit of all micrographs, or of every n-th where there are more than five million places for picks."""
    dataset = project.picks(picks)[list(COLUMNS)]
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
