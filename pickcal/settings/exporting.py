"""Where and how picks are written for other programs."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from pickcal.settings.base import Name, Settings


class ExportSettings(Settings):
    """Where and how picks are written."""

    format: Literal["relion", "cryosparc", "topaz", "cryolo", "eman", "csv", "parquet"] = Field(
        "relion", description="File format."
    )
    rejected: bool = Field(False, description="Write rejected picks as well, with their reasons, beside the others.")
    suffix: Name = Field("autopick", description="RELION: suffix of the per-micrograph files.")
    layout: Literal["both", "autopick", "particles"] = Field(
        "both",
        description="RELION: a file per micrograph, one file of particles, or both (of RELION's particles: one file).",
    )
    flip_y: bool = Field(
        True,
        description="cryoSPARC: count y from the last row, for the same micrograph files. --no-flip-y for micrographs "
        "that Patch Motion wrote, which are upside down against RELION's and MotionCor's.",
    )
    box: int | None = Field(
        None, ge=2, description="crYOLO, EMAN: side of the boxes, pixels; default: as they came, else 1.5 diameters."
    )
