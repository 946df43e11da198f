"""pickcal: cryo-EM picking scores, calibrated against defocus, and picks that can be trusted."""

__version__ = "0.1.0"
