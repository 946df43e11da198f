"""The plots of a workbench, each a `matplotlib.figure.Figure` that notebooks show."""

from __future__ import annotations

from typing import TYPE_CHECKING

import xarray as xr

from pickcal.api.reading import Reading
from pickcal.errors import ProjectError

if TYPE_CHECKING:
    from pickcal.plots import Figure


class Drawing(Reading):
    """Plots of a project; figures have `savefig`, and notebooks show them."""

    def plot_medians(self, picks: str, fit: xr.Dataset | None = None) -> Figure:
        """Draw medians of every micrograph against defocus with the fit, before and after calibration.

        Parameters
        ----------
        picks
            Name of the picks.
        fit
            A fit that `calibrate` gave and did not store; default: the stored one.
        """
        from pickcal.plots.fits import medians_figure

        return medians_figure(self._fit(picks, fit), self._names())

    def plot_residuals(self, picks: str, fit: xr.Dataset | None = None) -> Figure:
        """Draw the distance of every micrograph from the fit; parameters as for `plot_medians`."""
        from pickcal.plots.fits import residuals_figure

        return residuals_figure(self._fit(picks, fit), self._names())

    def plot_scores(self, picks: str, fit: xr.Dataset | None = None) -> Figure:
        """Draw both scores of picks and decoys, before and after calibration; parameters as for `plot_medians`."""
        from pickcal.plots.project import thinned_scores
        from pickcal.plots.scores import scores_figure

        return scores_figure(*thinned_scores(self.project, picks, self._fit(picks, fit)))

    def plot_thresholds(self, picks: str, fit: xr.Dataset | None = None) -> Figure:
        """Draw what one threshold accepts at low, middle and high defocus; parameters as for `plot_medians`."""
        from pickcal.plots.project import thinned_scores
        from pickcal.plots.scores import threshold_figure

        return threshold_figure(*thinned_scores(self.project, picks, self._fit(picks, fit)))

    def plot_components(self, picks: str) -> Figure:
        """Draw what the mixture expects at low, middle and high defocus, component by component."""
        return self._mixture_figure(picks, "components")

    def plot_plane(self, picks: str) -> Figure:
        """Draw both calibrated scores, picks coloured by their probability of being a particle."""
        return self._mixture_figure(picks, "plane")

    def plot_false_discovery(self, picks: str) -> Figure:
        """Draw expected false picks and accepted picks against the least probability."""
        return self._mixture_figure(picks, "false_discovery")

    def plot_trends(self, picks: str) -> Figure:
        """Draw mean scores of particles and noise, and the fraction of particles, against defocus."""
        return self._mixture_figure(picks, "probability_trends")

    def plot_micrographs(self, picks: str, selection: str | None = None) -> Figure:
        """Draw micrographs of low, middle and high defocus with their picks.

        Parameters
        ----------
        picks
            Name of the picks.
        selection
            Name of the selection whose accepted picks are drawn; default: the best picks.
        """
        from pickcal.plots.images import micrographs_figure
        from pickcal.plots.project import drawn_thresholds, picks_diameter

        self.project.require("picks", picks)
        self.project.require_images("a plot of micrographs")
        diameter = picks_diameter(self.project.settings(f"picks/{picks}"))
        if diameter is None:
            raise ProjectError(f"{self.project.path}: picks {picks!r} hold no particle diameter to draw")
        thresholds = drawn_thresholds(self.project, picks, selection)
        return micrographs_figure(self.project, picks, self.project.calibration(picks), thresholds, diameter)

    def _names(self) -> list[str]:
        return [str(name) for name in self.project.read("micrographs", "name")]

    def _fit(self, picks: str, fit: xr.Dataset | None) -> xr.Dataset:
        if fit is None:
            return self._calibration(picks)
        self.project.require("picks", picks)
        return fit

    def _mixture_figure(self, picks: str, key: str) -> Figure:
        from pickcal.plots.project import MixtureData, mixture_figures

        fit = self._fit(picks, None)
        if self.project.mixture(picks) is None:
            reason = fit.attrs.get("probability", "not fitted")
            raise ProjectError(f"{self.project.path}: picks {picks!r} have no probabilities ({reason})")
        if key not in mixture_figures(fit):
            raise ProjectError(f"{self.project.path}: picks {picks!r} have no power score, which this plot takes")
        return MixtureData.of(self.project, picks).figure(key)
