"""How given coordinates are scored."""

from __future__ import annotations

from typing import Any

from pydantic import Field, model_validator

from pickcal.settings.picking import (
    BlobSettings,
    FilterSettings,
    PickSettings,
    ProjectionStep,
    RotationStep,
    Shapes,
    TemplatePixelSize,
    TemplateSettings,
)
from pickcal.stores.places import PlaceField


class ScoreSettings(FilterSettings):
    """Scoring at given coordinates: with templates, or without with a disc and a ring of the particle's diameter."""

    diameter: float = Field(ge=20, le=5000, description="Particle diameter, Å; sets mask, power disc and blobs.")
    templates: PlaceField | None = Field(
        None,
        description="Stack of 2D templates (.mrcs), or a 3D map (.mrc) to project; white particles; "
        "default: blobs of the diameter.",
    )
    radius: float | None = Field(
        None,
        ge=0,
        description="How far from its coordinates a pick may be refined, Å; 0 scores exactly there; "
        "default: 0.1 diameters.",
    )
    shapes: Shapes = Field(("disc", "ring"), description="Without templates: shapes to score with.")
    template_pixel_size: TemplatePixelSize = None
    rotation_step: RotationStep = 5.0
    projection_step: ProjectionStep = 20.0
    whiten: bool | None = Field(
        None, description="Divide by the noise spectrum of the data set; default: with templates yes, with blobs no."
    )
    ctf: bool | None = Field(
        None, description="Give templates or blobs the micrograph's CTF; default: templates yes, blobs no."
    )

    @model_validator(mode="after")
    def _fits(self) -> ScoreSettings:
        if self.radius is not None and self.radius > self.diameter:
            raise ValueError(f"radius: expected at most the diameter of {self.diameter:g} Å, got {self.radius:g} Å")
        idle = ("shapes",) if self.templates else ("template_pixel_size", "rotation_step", "projection_step")
        for name in idle:
            if getattr(self, name) != type(self).model_fields[name].default:
                remedy = "leave one of the two out" if self.templates else "give --templates too"
                raise ValueError(f"{name}: expected only {'without' if self.templates else 'with'} templates; {remedy}")
        return self

    @property
    def reach(self) -> float:
        """How far a pick may be refined, Å."""
        return 0.1 * self.diameter if self.radius is None else self.radius

    def as_pick(self) -> PickSettings:
        """Give the settings of the search whose maps hold the scores."""
        shared: dict[str, Any] = {name: getattr(self, name) for name in FilterSettings.model_fields}
        shared |= {name: given for name in ("whiten", "ctf") if (given := getattr(self, name)) is not None}
        if self.templates is None:
            return BlobSettings(diameter_min=self.diameter, diameter_max=self.diameter, shapes=self.shapes, **shared)
        return TemplateSettings(
            templates=self.templates,
            diameter=self.diameter,
            template_pixel_size=self.template_pixel_size,
            rotation_step=self.rotation_step,
            projection_step=self.projection_step,
            **shared,
        )
