"""How micrographs are searched: with blobs, or with templates."""

from __future__ import annotations

from typing import Annotated, Literal

from cyclopts import Parameter
from pydantic import Field, model_validator

from pickcal.settings.base import Settings, ordered
from pickcal.stores.places import PlaceField

TemplatePixelSize = Annotated[float | None, Field(gt=0, description="Pixel size of the templates, Å; default: header.")]
RotationStep = Annotated[float, Field(ge=0.5, le=90, description="In-plane rotation step of the templates, degrees.")]
ProjectionStep = Annotated[float, Field(ge=3, le=90, description="Angle between projections of a 3D map, degrees.")]
Shapes = Annotated[tuple[Literal["disc", "ring", "ellipse"], ...], Field(min_length=1)]


class FilterSettings(Settings):
    """Filters of the micrographs before anything is correlated with them."""

    low_pass: float = Field(20.0, ge=5, le=200, description="Low-pass filter, Å.")
    high_pass: float | None = Field(None, gt=0, description="High-pass filter, Å; default: three particle diameters.")
    contrast: Literal["dark", "light"] = Field("dark", description="Particles are darker or lighter than the ice.")


class SearchSettings(FilterSettings):
    """Filters and peak search shared by all pickers."""

    max_picks: int = Field(4000, ge=1, le=100_000, description="Most picks kept per micrograph, best first.")


class BlobSettings(SearchSettings):
    """Picking with discs, rings or ellipses of several sizes."""

    method: Annotated[Literal["blob"], Parameter(show=False)] = Field("blob", description="Kind of picking.")
    diameter_min: float = Field(ge=20, le=5000, description="Smallest particle diameter, Å.")
    diameter_max: float = Field(ge=20, le=5000, description="Largest particle diameter, Å.")
    sizes: int | None = Field(None, ge=1, le=20, description="Number of sizes; default: 1 for equal diameters, else 3.")
    shapes: Shapes = Field(("disc", "ring"), description="Shapes to search with.")
    min_distance: float = Field(0.7, gt=0, le=5, description="Least distance of two picks, in mean diameters.")
    whiten: bool = Field(False, description="Divide by the noise spectrum of the data set.")
    ctf: bool = Field(False, description="Give the blobs the micrograph's CTF.")

    @model_validator(mode="after")
    def _ranges(self) -> BlobSettings:
        ordered(self, "diameter_min", "diameter_max")
        return self

    @property
    def diameter(self) -> float:
        """Mean particle diameter, Å."""
        return 0.5 * (self.diameter_min + self.diameter_max)


class TemplateSettings(SearchSettings):
    """Picking with 2D images or with projections of a 3D map."""

    method: Annotated[Literal["template"], Parameter(show=False)] = Field("template", description="Kind of picking.")
    templates: PlaceField = Field(
        description="Stack of 2D templates (.mrcs), or a 3D map (.mrc) to project; white particles."
    )
    diameter: float = Field(ge=20, le=5000, description="Particle diameter, Å; sets mask, distances and borders.")
    template_pixel_size: TemplatePixelSize = None
    rotation_step: RotationStep = 5.0
    projection_step: ProjectionStep = 20.0
    min_distance: float = Field(0.5, gt=0, le=5, description="Least distance of two picks, in diameters.")
    whiten: bool = Field(True, description="Divide by the noise spectrum of the data set.")
    ctf: bool = Field(True, description="Give the templates the micrograph's CTF.")

    @property
    def diameter_min(self) -> float:
        """Inner diameter of the power disc, Å."""
        return self.diameter

    @property
    def diameter_max(self) -> float:
        """Outer diameter of the power disc, Å."""
        return self.diameter


PickSettings = BlobSettings | TemplateSettings
