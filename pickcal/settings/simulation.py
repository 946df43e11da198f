"""What a simulated data set is made of."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from pickcal.settings.base import Settings, ordered


class SimulateSettings(Settings):
    """What `pickcal simulate` makes."""

    micrographs: int = Field(12, ge=1, description="Number of micrographs.")
    seed: int = Field(0, ge=0, description="Seed of every random number, no unit; same seed, same files.")
    particle: Literal["asymmetric", "barrel", "shell"] = Field(
        "asymmetric",
        description="Particle: an asymmetric complex, a 20S-like barrel or an apoferritin-like shell.",
    )
    map: Path | None = Field(None, description="MRC file of a 3D map to use as the particle instead.")
    map_pixel_size: float | None = Field(None, gt=0, description="Voxel size of the map, Å; default: its header.")
    diameter: float = Field(150.0, ge=40, le=1000, description="Largest diameter of the particle, Å.")
    pixel_size: float = Field(2.0, ge=0.3, le=10, description="Pixel size of the micrographs, Å.")
    height: int = Field(2048, ge=256, le=16384, description="Rows of a micrograph, pixels.")
    width: int = Field(2048, ge=256, le=16384, description="Columns of a micrograph, pixels.")
    defocus: tuple[float, ...] = Field(
        (), description="Defocus of the micrographs in turn, Å, above 0; default: evenly over the range."
    )
    defocus_min: float = Field(5000.0, gt=0, description="Lowest defocus, Å (positive is underfocus).")
    defocus_max: float = Field(30000.0, gt=0, description="Highest defocus, Å.")
    astigmatism: float = Field(300.0, ge=0, description="Largest difference between defocus U and V, Å.")
    voltage: float = Field(300.0, gt=0, description="Acceleration voltage, kV.")
    spherical_aberration: float = Field(2.7, ge=0, description="Spherical aberration Cs, mm.")
    amplitude_contrast: float = Field(0.1, ge=0, lt=1, description="Amplitude contrast, fraction.")
    dose: float = Field(40.0, gt=0, description="Electrons per Å^2.")
    particles_min: int = Field(120, ge=0, description="Fewest particles on an ordinary micrograph.")
    particles_max: int = Field(280, ge=0, description="Most particles on an ordinary micrograph.")
    crowding: Literal["random", "defocus"] = Field(
        "random", description="Particles per micrograph: drawn at random, or from fewest to most with defocus."
    )
    signal: float = Field(
        1.5, gt=0, description="Factor on the contrast of the particles; 1.5 is an easy data set, 0.6 a hard one."
    )
    empty: int = Field(1, ge=0, description="Micrographs without particles.")
    crowded: int = Field(1, ge=0, description="Micrographs with as many particles as fit.")
    carbon: int = Field(0, ge=0, description="Micrographs that show the carbon edge of the hole.")
    ice_crystals: float = Field(0.7, ge=0, description="Ice crystals per micrograph, mean.")
    ice_blobs: float = Field(0.0, ge=0, description="Smooth blobs of ice per micrograph, mean.")
    aggregates: float = Field(0.3, ge=0, description="Aggregates per micrograph, mean.")
    ice_variation: float = Field(0.2, ge=0, le=0.8, description="Relative spread of ice thickness over micrographs.")
    gradient: float = Field(0.05, ge=0, le=0.5, description="Illumination gradient across a micrograph, fraction.")
    templates: int = Field(20, ge=1, description="Projections written to templates.mrcs.")
    template_pixel_size: float = Field(4.0, gt=0, description="Pixel size of the templates, Å.")

    @model_validator(mode="after")
    def _ranges(self) -> SimulateSettings:
        ordered(self, "defocus_min", "defocus_max")
        ordered(self, "particles_min", "particles_max")
        if any(d <= 0 for d in self.defocus):
            raise ValueError("defocus: expected values above 0 Å")
        return self
