"""Plots of scores, fits and picks as `matplotlib.figure.Figure`.

No pyplot: figures hold no global state, so threads (a web server's) can draw at the same time.
"""

from pickcal.plots.fits import medians_figure, residuals_figure
from pickcal.plots.images import micrographs_figure
from pickcal.plots.scores import scores_figure, threshold_figure
from pickcal.plots.style import png

__all__ = [
    "medians_figure",
    "micrographs_figure",
    "png",
    "residuals_figure",
    "scores_figure",
    "threshold_figure",
]
