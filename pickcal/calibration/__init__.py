"""Calibration of scores against defocus and other covariates: pure functions on arrays and xarray datasets."""

from pickcal.calibration.apply import calibrated, calibrated_scores
from pickcal.calibration.lines import fit_lines

__all__ = ["calibrated", "calibrated_scores", "fit_lines"]
