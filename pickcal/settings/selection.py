"""Which picks are kept: thresholds, and decisions by hand."""

from __future__ import annotations

from typing import Annotated, Any

from cyclopts import Parameter
from pydantic import AliasChoices, Field, model_validator

from pickcal.settings.base import Settings, ordered


class HandPick(Settings):
    """A pick that somebody decided on by hand: the nearest one to this place."""

    micrograph: str = Field(description="Name of the micrograph.")
    x: float = Field(description="Position along columns from the centre of the first pixel, Å.")
    y: float = Field(description="Position along rows, Å.")


class SelectSettings(Settings):
    """Thresholds on calibrated scores; what is not given does not reject. Picks decided by hand come before them."""

    min_ncc: Annotated[float | None, Parameter(alias="--min-score")] = Field(
        None,
        validation_alias=AliasChoices("min_ncc", "min_score"),
        description="Least calibrated main score, no unit: NCC, or what the program that picked calls it.",
    )
    min_power: float | None = Field(
        None, ge=0, description="Least calibrated power score, noise variances; other programs' in their own unit."
    )
    max_power: float | None = Field(None, gt=0, description="Largest calibrated power score, likewise noise variances.")
    probability: float | None = Field(
        None, ge=0, le=1, description="Least probability of being a particle, fraction: 0.95 keeps surer picks."
    )
    fdr: float | None = Field(
        None, gt=0, lt=1, description="Largest false discovery rate, fraction: 0.05 accepts 5 % false picks."
    )
    edge: float | None = Field(None, ge=0, description="Least distance from the micrograph's border, Å.")
    exclude: tuple[str, ...] = Field((), description="Micrographs of which nothing is accepted, by name.")
    raw: bool = Field(False, description="Thresholds are on raw scores instead of calibrated ones.")
    accept: Annotated[tuple[HandPick, ...], Parameter(parse=False)] = Field(
        (), description="Picks accepted by hand, whatever their scores."
    )
    reject: Annotated[tuple[HandPick, ...], Parameter(parse=False)] = Field((), description="Picks rejected by hand.")

    def stored(self) -> dict[str, Any]:
        """Plain values as of all settings; without what was decided by hand where nothing was."""
        values = super().stored()
        return {key: value for key, value in values.items() if value or key not in ("accept", "reject")}

    @model_validator(mode="after")
    def _ranges(self) -> SelectSettings:
        if self.min_power is not None and self.max_power is not None:
            ordered(self, "min_power", "max_power")
        return self
