"""Calibration of scores against defocus and other covariates: pure functions on arrays and xarray datasets.

Only what reads a stored fit is here at once: fitting takes SciPy, which a look at a project does without.
"""

from pickcal.calibration.apply import calibrated, calibrated_scores

__all__ = ["calibrated", "calibrated_scores"]
