"""The fitted model as one small object and as the dataset that a project stores."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pickcal.calibration.mixture.components import COMPONENTS, Junk, Mixture, Particles
from pickcal.calibration.mixture.noise import GRID, Noise
from pickcal.calibration.trends import Trend

Floats = NDArray[np.floating]

LEVELS = np.linspace(-12.0, 12.0, 241)
"""Log odds at which false discovery rates are tabulated."""
NOISE_NUMBERS = (
    "power_mean",
    "power_slope",
    "power_deviation",
    "shadow_mean",
    "shadow_deviation",
    "shadow_power_mean",
    "shadow_power_deviation",
    "floor",
    "least",
)


@dataclass(frozen=True)
class Model:
    """A mixture with the trend that its coefficients belong to, and how it was found.

    Attributes
    ----------
    mixture, trend
        Components, and the terms they are linear in.
    radius
        Reach of a particle's fringes, Å.
    from_decoys
        Whether the noise was fitted to decoys; else to the low scores.
    verdict
        How the fit went, in words.
    report
        Plain values: log likelihood of every start, iterations, cross-validation, slopes with intervals.
    rates
        From `rates.false_discovery_rates`.
    level
        Usual log power of the noise, for micrographs of which it is not known; NaN for a model without power.
    leak
        Share of the variance around a pick that reaches it; 0 for a model that does not know of it.
    """

    mixture: Mixture
    trend: Trend
    radius: float
    from_decoys: bool
    verdict: str = ""
    report: Mapping[str, Any] = field(default_factory=dict)
    rates: xr.Dataset = field(default_factory=xr.Dataset)
    level: float = float("nan")
    leak: float = 0.0

    def to_dataset(self) -> xr.Dataset:
        """Pack the model into a few KB from which `from_dataset` makes the same."""
        noise, particles = self.mixture.noise, self.mixture.particles
        values = xr.Dataset(
            {
                "noise_ncc": ("term", noise.mean, {"long_name": "mean NCC score of noise"}),
                "noise_deviation": ("term", noise.deviation, {"long_name": "log deviation of the NCC score of noise"}),
                "noise_shape": ("standardised", noise.shape, {"long_name": "log density of standardised noise"}),
                "particle_ncc": ("term", particles.ncc, {"long_name": "mean NCC score of particles"}),
                "particle_power": ("term", particles.power, {"long_name": "mean log power of particles above noise"}),
                "particle_deviation": (
                    "term",
                    particles.deviation,
                    {"long_name": "log deviation of the NCC score of particles"},
                ),
                "template_offset": ("offset", particles.offsets, {"long_name": "NCC score a template adds"}),
                "fractions": ("component", self.mixture.fractions, {"long_name": "mean fractions over the data set"}),
                "shadow_fractions": ("component", self.mixture.shadow, {"long_name": "fractions next to strong picks"}),
            },
            coords={"term": self.trend.terms, "standardised": GRID, "component": list(COMPONENTS)},
        )
        values.attrs = {
            **{f"noise_{name}": float(getattr(noise, name)) for name in NOISE_NUMBERS},
            "particle_slope": float(particles.slope),
            "particle_power_deviation": float(particles.power_deviation),
            "junk_scale": float(self.mixture.junk.scale) if self.mixture.junk else 0.0,
            "trend": self.trend.to_json(),
            "radius": float(self.radius),
            "power_level": float(self.level) if np.isfinite(self.level) else "none",
            "power_leak": float(self.leak),
            "noise_from": "decoys" if self.from_decoys else "low scores",
            "verdict": self.verdict,
            "report": json.dumps(dict(self.report)),
        }
        if particles.tail_scale:
            values.attrs |= {"particle_tail": float(particles.tail), "particle_tail_scale": float(particles.tail_scale)}
        return values.merge(self.rates, combine_attrs="override")

    @classmethod
    def from_dataset(cls, stored: xr.Dataset) -> Model:
        """Read the model that `to_dataset` wrote."""
        attrs = stored.attrs
        value = {str(name): variable.values for name, variable in stored.data_vars.items()}
        noise = Noise(
            value["noise_ncc"],
            value["noise_deviation"],
            value["noise_shape"],
            *(float(attrs[f"noise_{name}"]) for name in NOISE_NUMBERS),
        )
        particles = Particles(
            value["particle_ncc"],
            value["particle_power"],
            value["particle_deviation"],
            float(attrs["particle_slope"]),
            float(attrs["particle_power_deviation"]),
            value["template_offset"],
            float(attrs.get("particle_tail", 0.0)),
            float(attrs.get("particle_tail_scale", 0.0)),
        )
        junk = Junk(float(attrs["junk_scale"])) if attrs["junk_scale"] else None
        mixture = Mixture(noise, particles, junk, value["fractions"], value["shadow_fractions"])
        rates = stored[[name for name in stored.data_vars if {"level", "stratum"} & set(stored[name].dims)]]
        return cls(
            mixture,
            Trend.from_json(attrs["trend"]),
            float(attrs["radius"]),
            attrs["noise_from"] == "decoys",
            str(attrs["verdict"]),
            json.loads(attrs["report"]),
            rates.drop_attrs(),
            float("nan") if attrs["power_level"] == "none" else float(attrs["power_level"]),
            float(attrs.get("power_leak", 0.0)),
        )
