"""Plots of scores, fits and picks as `matplotlib.figure.Figure`.

No pyplot: figures hold no global state, so threads (a web server's) can draw at the same time.
"""

from matplotlib.figure import Figure

from pickcal.plots.discovery import false_discovery_figure
from pickcal.plots.fits import medians_figure, residuals_figure
from pickcal.plots.images import micrographs_figure
from pickcal.plots.probability import components_figure, plane_figure, trends_figure
from pickcal.plots.scores import scores_figure, threshold_figure
from pickcal.plots.style import png

__all__ = [
    "Figure",
    "components_figure",
    "false_discovery_figure",
    "medians_figure",
    "micrographs_figure",
    "plane_figure",
    "png",
    "residuals_figure",
    "scores_figure",
    "threshold_figure",
    "trends_figure",
]
