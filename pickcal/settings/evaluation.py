"""How picks and selections are tried: against truth, and on noise."""

from __future__ import annotations

from pydantic import Field

from pickcal.settings.base import Settings


class EvaluateSettings(Settings):
    """How picks are compared with truth."""

    radius: float = Field(0.35, gt=0, le=1, description="Largest distance of a match, in particle diameters.")


class ControlSettings(Settings):
    """How a selection is tried on noise."""

    micrographs: int = Field(24, ge=0, description="Most micrographs to copy, spread evenly over defocus; 0 for all.")
    seed: int = Field(0, ge=0, description="Seed of the copies' phases, no unit.")
