"""Probability of being a particle: a mixture of noise, particles and junk in NCC score and log power."""

from pickcal.calibration.mixture.apply import mixture_columns, power_limit, probabilities
from pickcal.calibration.mixture.fit import NotFitted, fit_mixture
from pickcal.calibration.mixture.model import Model
from pickcal.calibration.mixture.observations import PICK_VARIABLES

__all__ = ["PICK_VARIABLES", "Model", "NotFitted", "fit_mixture", "mixture_columns", "power_limit", "probabilities"]
