"""How given coordinates are scored."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from pickcal.settings.base import Settings
from pickcal.settings.picking import BlobSettings, PickSettings, TemplateSettings
from pickcal.stores.places import PlaceField


class ScoreSettings(Settings):
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
    shapes: tuple[Literal["disc", "ring", "ellipse"], ...] = Field(
        ("disc", "ring"), min_length=1, description="Without templates: shapes to score with."
    )
    template_pixel_size: float | None = Field(
        None, gt=0, description="Pixel size of the templates, Å; default: header."
    )
    rotation_step: float = Field(5.0, ge=0.5, le=90, description="In-plane rotation step of the templates, degrees.")
    projection_step: float = Field(20.0, ge=3, le=90, description="Angle between projections of a 3D map, degrees.")
    ctf: bool | None = Field(
        None, description="Give templates or blobs the micrograph's CTF; default: templates yes, blobs no."
    )
    low_pass: float = Field(20.0, ge=5, le=200, description="Low-pass filter, Å.")
    high_pass: float | None = Field(None, gt=0, description="High-pass filter, Å; default: three particle diameters.")
    whiten: bool = Field(True, description="Divide by the noise spectrum of the data set.")
    contrast: Literal["dark", "light"] = Field("dark", description="Particles are darker or lighter than the ice.")

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
        shared: dict[str, Any] = {
            "low_pass": self.low_pass,
            "high_pass": self.high_pass,
            "whiten": self.whiten,
            "contrast": self.contrast,
            **({} if self.ctf is None else {"ctf": self.ctf}),
        }
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
