"""What a mixture expects, as curves and maps for plots: numbers of picks along a score, densities in its plane."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.stats import norm

from pickcal.calibration.mixture import Model
from pickcal.calibration.mixture.components import JUNK_SPREAD, Particles
from pickcal.calibration.mixture.noise import Noise
from pickcal.calibration.mixture.observations import (
    Observations,
    flattened,
    has_decoys,
    in_shadow,
    off_particles,
    valid_places,
)
from pickcal.calibration.trends import Trend

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Expected:
    """Expected picks per unit of the NCC score of some micrographs together, beside what was found.

    Attributes
    ----------
    grid
        NCC scores, rising, even steps.
    noise, particle, junk
        Expected picks per unit of the score at the grid; each integrates to its expected number.
    picks
        NCC scores of the picks.
    decoys, decoy_weight
        NCC scores of the decoys, and the probability that no particle is near each; empty without decoys.
    """

    grid: Floats
    noise: Floats
    particle: Floats
    junk: Floats
    picks: Floats
    decoys: Floats
    decoy_weight: Floats

    @property
    def even_odds(self) -> float:
        """NCC score above which a pick is a particle rather than not, by this score alone; NaN where there is none."""
        rest = self.noise + self.junk
        peak = int(np.argmax(self.particle))
        below = np.flatnonzero(self.particle[:peak] < rest[:peak])
        if self.particle[peak] <= rest[peak] or not len(below):
            return float("nan")
        i = int(below[-1])
        low, high = (float(self.particle[k] - rest[k]) for k in (i, i + 1))
        return float(self.grid[i] + (self.grid[i + 1] - self.grid[i]) * low / (low - high))


def expected_numbers(
    picks: xr.Dataset, micrographs: xr.Dataset, mixture: xr.Dataset, likelihood: xr.Dataset, grid: Floats
) -> Expected:
    """Find the expected picks of every component along the NCC score, whatever their power.

    Parameters
    ----------
    picks, micrographs, mixture, likelihood
        The same micrographs of the padded table, the table of micrographs, the stored mixture and the probabilities.
    grid
        NCC scores.
    """
    model = Model.from_dataset(mixture)
    design = np.nan_to_num(model.trend.design(micrographs))
    # positions and scores alone: the power is integrated over
    data = flattened(
        picks, design, np.full(len(design), np.nan), with_template=bool(len(model.mixture.particles.offsets))
    )
    valid = valid_places(picks)
    particle, junk = (likelihood[name].values[valid].astype(np.float64) for name in ("probability", "junk"))
    rest = 1.0 - particle - junk
    dark = in_shadow(data, particle, model.radius)
    noise = model.mixture.noise
    along = _along(design, grid)
    in_light = np.exp(noise.log_density(along)).reshape(len(design), -1)
    in_dark = np.exp(noise.log_density(replace(along, shadowed=np.ones(len(along.ncc), bool)))).reshape(len(design), -1)
    wide = norm.pdf(noise.standardised(along) / JUNK_SPREAD).reshape(len(design), -1)
    decoys: Floats = np.zeros(0)
    weight: Floats = np.zeros(0)
    if has_decoys(picks):
        found = flattened(picks, design, np.full(len(design), np.nan), "decoy_")
        decoys, weight = found.ncc, off_particles(found, data, particle, model.radius)
    return Expected(
        grid,
        data.per_micrograph(rest * ~dark) @ in_light + data.per_micrograph(rest * dark) @ in_dark,
        data.per_micrograph(particle) @ _particle_density(model, data, particle, along),
        (data.per_micrograph(junk) / (JUNK_SPREAD * noise.scale(design))) @ wide,
        data.ncc,
        decoys,
        weight,
    )


def _along(design: Floats, grid: Floats) -> Observations:
    """Every score of a grid on every micrograph."""
    size = len(design) * len(grid)
    return Observations(
        np.tile(grid, len(design)),
        None,
        np.repeat(np.arange(len(design)), len(grid)),
        design,
        np.zeros((size, 2)),
        None,
        np.zeros(size, dtype=bool),
        np.ones(size),
        np.zeros(size),
    )


def _particle_density(model: Model, data: Observations, particle: Floats, along: Observations) -> Floats:
    """Density of particles along the score on every micrograph, over the templates that they have."""
    particles, noise = model.mixture.particles, model.mixture.noise
    shape = (len(data.design), -1)
    if data.template is None:
        return np.exp(particles.log_density(along, noise)).reshape(shape)
    counts = np.bincount(np.maximum(data.template, 0), particle, minlength=len(particles.offsets))
    share = counts / max(float(counts.sum()), 1e-9)
    parts = [
        weight * np.exp(particles.log_density(replace(along, ncc=along.ncc - offset), noise))
        for weight, offset in zip(share, particles.offsets, strict=True)
        if weight
    ]
    return np.sum(parts, axis=0).reshape(shape) if parts else np.zeros((len(data.design), len(along.ncc)))


def design_at(trend: Trend, defocus: Floats) -> Floats:
    """Design of a trend at some defoci (Å), everything else as at its reference, shape `(defocus, term)`."""
    alone = replace(trend, covariates=(), centres=(), groups=())
    table = xr.Dataset({name: ("micrograph", defocus) for name in ("defocus_u", "defocus_v")})
    design = alone.design(table)
    rest = np.zeros((len(defocus), len(trend.terms) - design.shape[1]))
    return np.hstack([design, rest])


def means_at(trend: Trend, particles: Particles, noise: Noise, defocus: Floats) -> tuple[Floats, Floats]:
    """Mean NCC score of particles and of noise at some defoci (Å)."""
    design = design_at(trend, defocus)
    return particles.mean(design, noise), np.asarray(design @ noise.mean)


@dataclass(frozen=True)
class Plane:
    """Densities in the plane of calibrated NCC and power score at the reference defocus of the lines.

    Attributes
    ----------
    ncc, power
        The grid, lengths n and m; power in noise variances, even steps of its logarithm.
    noise, particle
        Probability per cell, shape `(m, n)`.
    """

    ncc: Floats
    power: Floats
    noise: Floats
    particle: Floats


def reference_plane(mixture: xr.Dataset, lines: xr.Dataset, points: int = 160) -> Plane:
    """Densities of noise and particles where calibrated equals raw score.

    Parameters
    ----------
    mixture, lines
        Stored mixture and lines of the same micrographs.
    points
        Length of either side of the grid, default 160.
    """
    model = Model.from_dataset(mixture)
    noise, particles = model.mixture.noise, model.mixture.particles
    reference = float(lines.attrs["reference_defocus"])
    design = design_at(model.trend, np.array([reference if np.isfinite(reference) else model.trend.reference]))
    mean, centre = float(particles.mean(design, noise)[0]), float((design @ noise.mean)[0])
    spread, width = float(np.exp(design @ particles.deviation)[0]), float(noise.scale(design)[0])
    ncc = np.linspace(min(centre - 5 * width, mean - 5 * spread), max(centre + 8 * width, mean + 5 * spread), points)
    level, reach = float((design @ particles.power)[0]), float(particles.power_spread(design)[0])
    power = np.linspace(
        min(noise.power_mean - 5 * noise.power_deviation, level - 5 * reach),
        max(noise.power_mean + 5 * noise.power_deviation, level + 5 * reach),
        points,
    )
    mesh = np.meshgrid(ncc, power)
    cells = replace(_along(design, mesh[0].ravel()), power=mesh[1].ravel())
    noise_density, particle_density = (
        np.exp(found).reshape(points, points)
        for found in (noise.log_density(cells), particles.log_density(cells, noise))
    )
    shift = np.nan_to_num(lines["shift"].sel(score="power").values)
    back = float(np.nanmedian(mixture["power_level"].values - shift))
    cell = (ncc[1] - ncc[0]) * (power[1] - power[0])
    return Plane(ncc, np.exp(power + back), noise_density * cell, particle_density * cell)
