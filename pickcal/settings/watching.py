"""How a running session is followed, and what its micrographs are picked with."""

from __future__ import annotations

from pydantic import Field

from pickcal.errors import InputError
from pickcal.settings.base import Name, Settings
from pickcal.settings.picking import BlobSettings, PickSettings, RotationStep, TemplatePixelSize, TemplateSettings
from pickcal.stores.places import PlaceField


class WatchSettings(Settings):
    """How a running session is followed."""

    interval: float = Field(10.0, gt=0, le=3600, description="Seconds between two looks at the source.")
    settle: float = Field(
        5.0, ge=0, le=3600, description="Seconds for which a file and its row of the table must have been the same."
    )
    patience: float | None = Field(
        None, ge=0, description="End when nothing new came for so many seconds; default: not before Ctrl-C."
    )
    first: int = Field(
        8, ge=1, description="Begin when so many micrographs are there: they set filters and masks for the session."
    )
    most: int = Field(64, ge=1, description="Micrographs taken in at once before they are shown.")
    refit: float = Field(
        1.25,
        ge=1,
        description="Fit the calibration anew when there are so many times the micrographs that it was made of.",
    )
    ctf_table: PlaceField | None = Field(None, description="For a folder of images: table with their CTF.")
    selection: Name | None = Field(
        None, description="Selection to keep up to date, as 'pickcal select --auto' makes it."
    )


class WatchPickSettings(Settings):
    """What to pick with on the way; a job file has more to choose from."""

    diameter: float | None = Field(
        None, ge=20, le=5000, description="Particle diameter, Å; default: go on with the picks that the project holds."
    )
    templates: PlaceField | None = Field(
        None,
        description="Stack of 2D templates (.mrcs), or a 3D map (.mrc) to project; default: blobs of the diameter.",
    )
    template_pixel_size: TemplatePixelSize = None
    rotation_step: RotationStep = 5.0

    def as_pick(self) -> PickSettings | None:
        """Give the settings of the picking; None where no diameter is given.

        Raises
        ------
        InputError
            If there are templates without a diameter, or what only templates have a use for.
        """
        for name in ("template_pixel_size", "rotation_step"):
            if self.templates is None and getattr(self, name) != type(self).model_fields[name].default:
                raise InputError(f"{name}: expected only with templates; give --templates too, or leave it out")
        if self.diameter is None:
            if self.templates is not None:
                raise InputError("diameter: expected the particle diameter beside the templates, in Å; got none")
            return None
        if self.templates is None:
            return BlobSettings(diameter_min=self.diameter, diameter_max=self.diameter)
        return TemplateSettings(
            templates=self.templates,
            diameter=self.diameter,
            template_pixel_size=self.template_pixel_size,
            rotation_step=self.rotation_step,
        )
