"""How scores are fitted against defocus and other covariates."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

from pickcal.settings.base import Settings

Covariate = Literal[
    "ice_thickness", "astigmatism", "phase_shift", "ctf_fit_resolution", "dose", "time", "exposure_group", "template"
]

LEAST_RESAMPLES = 20
"""Resamples that tell a spread: of fewer, the interval would be a matter of luck."""


class CalibrateSettings(Settings):
    """How scores are fitted against defocus over the whole data set."""

    ncc: Literal["line", "none"] = Field("line", description="Calibration of the NCC score.")
    power: Literal["line", "none"] = Field("line", description="Calibration of the power score.")
    median_of: Literal["particles", "all"] = Field(
        "particles",
        description="Median of what stands above the decoys, or of all picks as in cryoSPARC.",
    )
    degree: int = Field(1, ge=1, le=2, description="1 a line, 2 a parabola in defocus; no unit.")
    trend: Literal["auto", "line", "spline"] = Field(
        "auto",
        description="Trends in defocus: of --degree, a spline, or for probabilities whichever predicts better.",
    )
    covariates: tuple[Covariate, ...] = Field((), description="Further covariates of the fits.")
    per_group: bool = Field(
        False, description="Every exposure group has lines of its own, and a constant of its own for probabilities."
    )
    reference_defocus: float | None = Field(
        None, gt=0, description="Defocus at which calibrated equals raw score, Å; default: the median."
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="Level of intervals and bands, fraction.")
    bootstrap: int = Field(
        400,
        ge=0,
        le=10_000,
        description="Resamples of the micrographs for the intervals, at least 20; 0: asymptotic ones.",
    )
    probability: Literal["mixture", "none"] = Field(
        "mixture", description="Model that gives every pick its probability of being a particle."
    )
    junk: bool = Field(True, description="Give the mixture a component of high power: ice, film, aggregates.")

    @property
    def by_group(self) -> bool:
        """Whether a fit tells exposure groups apart."""
        return self.per_group or "exposure_group" in self.covariates

    @model_validator(mode="after")
    def _enough_resamples(self) -> Self:
        if 0 < self.bootstrap < LEAST_RESAMPLES:
            raise ValueError(
                f"bootstrap: expected 0 for asymptotic intervals, or at least {LEAST_RESAMPLES} resamples, "
                f"got {self.bootstrap}"
            )
        return self
