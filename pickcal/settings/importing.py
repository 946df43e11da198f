"""How micrographs, and picks of other programs, come into a project."""

from __future__ import annotations

from pydantic import Field, model_validator

from pickcal.settings.base import PixelCount, Settings
from pickcal.stores.places import PlaceField


class ImportSettings(Settings):
    """How source micrographs become the project's working images."""

    pixel_size: float = Field(
        5.0, ge=1, le=20, description="Working pixel size, Å; met within 1 %, never finer than the source."
    )
    source_pixel_size: float | None = Field(
        None, gt=0, description="Pixel size of the source files, Å; overrules STAR file and headers."
    )
    root: PlaceField | None = Field(None, description="Folder that the names in the STAR file are relative to.")
    clip: float = Field(6.0, ge=3, description="Pixels further than this many standard deviations are clipped.")
    batch: int | None = Field(
        None,
        ge=1,
        description="Micrographs per task and chunk; default: a 64th of all, at least 4 (of fewer than 64 a "
        "sixteenth), at most 16.",
    )
    stacks: bool = Field(False, description="Files of several images are stacks of micrographs, not movies.")
    without_ctf: bool = Field(False, description="Take micrographs that have no defocus.")
    tables_only: bool = Field(
        False, description="Read the table of micrographs without its images: for picks that other programs made."
    )
    size: tuple[PixelCount, PixelCount] | None = Field(
        None, description="With --tables-only: rows and columns of the micrographs in pixels, if the table lacks them."
    )

    @model_validator(mode="after")
    def _fits(self) -> ImportSettings:
        if self.size is not None and not self.tables_only:
            raise ValueError("size: expected only with tables_only; images tell their size, leave it out")
        return self


class ImportPicksSettings(Settings):
    """How picks of other programs are taken into a project."""

    scale: float | None = Field(
        None,
        gt=0,
        description="Factor from the file's coordinates to pixels of the micrographs: 2 for coordinates binned by 2.",
    )
    flip_y: bool = Field(
        True,
        description="cryoSPARC: y counts from the last row. --no-flip-y for picks of Patch Motion's micrographs on "
        "those of RELION or MotionCor, which are upside down.",
    )
    swap_xy: bool = Field(False, description="The file has rows first, then columns.")
    diameter: float | None = Field(
        None, gt=0, description="Particle diameter, Å; default: the distance that neighbouring picks keep."
    )
    score: str | None = Field(
        None, description="Column of the file to take as the main score; default: what its program ranks by."
    )
    skip_unknown: bool = Field(False, description="Leave out picks on micrographs that the project does not hold.")
    drop_outside: bool = Field(False, description="Leave out picks outside of their micrographs.")
