"""Densities of particles and of junk, and the whole mixture."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pickcal.calibration.mixture.noise import GAUSS, Noise
from pickcal.calibration.mixture.observations import Observations, with_leak

Floats = NDArray[np.floating]

COMPONENTS = ("noise", "particle", "junk")
NOISE, PARTICLE, JUNK = range(3)

SEPARATION = 1.5
"""Standard deviations of the noise by which particles score above it at least: nearer they cannot be told apart."""
LEAST_SPREAD = 0.3
"""Spread of particles over that of noise, in either score, at least: a heap of equal scores is no population."""
JUNK_SPREAD = 2.5
"""Spread of the NCC score of junk, in standard deviations of the noise."""


@dataclass(frozen=True)
class Particles:
    """Density of particles in the plane of NCC score and log power: Gaussian, its means linear in the design.

    Less power never makes a pick more of a particle: where the Gaussian would rise against that of the noise, it falls
    as the noise does.

    Attributes
    ----------
    ncc, power
        Coefficients of the two means over the terms of the design.
    deviation
        Coefficients of the logarithm of the standard deviation of the NCC score, over the terms.
    slope, power_deviation
        Log power given the NCC score: slope on its residual, and standard deviation about that.
    offsets
        What each template's NCC score lies above the mean; empty where templates do not matter.
    tail, tail_scale
        Share of the particles whose score lies above the mean by an exponential, and its mean in deviations; 0 where
        decoys or power tell what scores so high.
    """

    ncc: Floats
    power: Floats
    deviation: Floats
    slope: float = 0.0
    power_deviation: float = 1.0
    offsets: Floats = field(default_factory=lambda: np.zeros(0))
    tail: float = 0.0
    tail_scale: float = 0.0

    def mean(self, design: Floats, noise: Noise) -> Floats:
        """Mean NCC score of every micrograph, not nearer to the noise than can be told from it."""
        return np.maximum(design @ self.ncc, design @ noise.mean + SEPARATION * noise.scale(design))

    def residual(self, data: Observations, noise: Noise) -> Floats:
        """NCC scores above the mean of particles."""
        return np.asarray(data.ncc - self.mean(data.design, noise)[data.index] - self.template_offset(data))

    def template_offset(self, data: Observations) -> Floats | float:
        """Give what the template of each pick adds to its NCC score; 0 where templates do not matter."""
        if not len(self.offsets) or data.template is None:
            return 0.0
        known = (data.template >= 0) & (data.template < len(self.offsets))
        return np.where(known, self.offsets[np.where(known, data.template, 0)], 0.0)

    def log_density(self, data: Observations, noise: Noise) -> Floats:
        """Log density at every pick."""
        log_deviation = (data.design @ self.deviation)[data.index]
        residual = self.residual(data, noise)
        out = -0.5 * (residual * np.exp(-log_deviation)) ** 2 - log_deviation - GAUSS
        if self.tail_scale:
            out = self._alone(data, noise, residual, log_deviation)
        if data.power is None:
            return np.asarray(out)
        mean = (data.design @ self.power)[data.index] + self.slope * residual
        mean, deviation = with_leak(mean, self.power_deviation, data.leak)
        centre, spread = noise.power_given(data, noise.standardised(data))
        at, fall = never_rising(data.power, mean, deviation**-2, centre, spread**-2)
        of_power = -0.5 * ((at - mean) / deviation) ** 2 - np.log(deviation) - GAUSS + fall
        return np.asarray(out + np.where(np.isfinite(data.power), of_power, 0.0))

    def parts(self, z: Floats) -> tuple[Floats, Floats]:
        """Log densities of core and tail, each with its share, at standardised residuals."""
        core = np.log1p(-self.tail) - 0.5 * z**2 - GAUSS
        with np.errstate(divide="ignore"):
            beyond = np.log(self.tail) - np.log(self.tail_scale) - np.maximum(z, 0.0) / self.tail_scale
        return core, np.where(z > 0, beyond, -np.inf)

    def _alone(self, data: Observations, noise: Noise, residual: Floats, log_deviation: Floats) -> Floats:
        """Log density with the tail; below where it would rise against the noise, it falls as the noise does."""
        precision = np.exp(-2 * np.stack([(data.design @ noise.deviation)[data.index], log_deviation]))
        mean = data.ncc - residual
        centre = (data.design @ noise.mean)[data.index]
        at, fall = never_rising(data.ncc, mean, precision[1], centre, precision[0])
        core, beyond = self.parts((at - mean) * np.exp(-log_deviation))
        return np.asarray(np.logaddexp(core, beyond) - log_deviation + fall)

    def power_spread(self, design: Floats) -> Floats:
        """Give the standard deviation of the log power of every micrograph, whatever the NCC score."""
        return np.asarray(np.hypot(self.power_deviation, self.slope * np.exp(design @ self.deviation)))


def never_rising(
    scores: Floats, mean: Floats, precision: Floats | float, centre: Floats, of_noise: Floats
) -> tuple[Floats, Floats]:
    """Keep a Gaussian of particles from rising, towards low scores, against a narrower one of noise.

    Parameters
    ----------
    scores
        Of the picks.
    mean, precision
        Of particles; precision is the inverse of the variance.
    centre, of_noise
        The same of noise.

    Returns
    -------
    at, fall
        Where to take the log density of particles, not below the point at which it would begin to rise, and what to
        add to it, so that it falls from there on as that of the noise does.
    """
    excess = np.asarray(of_noise - precision)
    with np.errstate(divide="ignore", invalid="ignore"):
        turn = np.where(excess > 0, (of_noise * centre - precision * mean) / excess, -np.inf)
    at = np.maximum(scores, turn)
    return at, 0.5 * of_noise * ((at - centre) ** 2 - (scores - centre) ** 2)


@dataclass(frozen=True)
class Junk:
    """Density of what has more power than its shape accounts for: ice, film, aggregates.

    Its NCC score is Gaussian about the noise's and 2.5 times as wide; its log power above the noise has a gamma
    density of shape 3, which is 0 at the noise and has a long tail.

    Attributes
    ----------
    scale
        Of the gamma density; a third of the mean log power of junk above the noise.
    """

    scale: float = 0.5

    def log_density(self, data: Observations, noise: Noise) -> Floats:
        """Log density at every pick; minus infinity below the power of the noise, or without power."""
        if data.power is None:
            return np.full(len(data.ncc), -np.inf)
        z = noise.standardised(data) / JUNK_SPREAD
        out = -0.5 * z**2 - (data.design @ noise.deviation)[data.index] - np.log(JUNK_SPREAD) - GAUSS
        above = np.maximum(self.above(data, noise), 1e-300)
        return np.asarray(out + np.where(np.isfinite(data.power), self.log_power_density(above), 0.0))

    def above(self, data: Observations, noise: Noise) -> Floats:
        """Log power of every pick above that of noise in its place; there must be power."""
        assert data.power is not None
        return np.asarray(data.power - with_leak(noise.power_mean, 0.0, data.leak)[0])

    def log_power_density(self, above: Floats) -> Floats:
        """Log density of the log power above the noise's mean, both natural logarithms."""
        return np.asarray(2 * np.log(above) - above / self.scale - 3 * np.log(self.scale) - np.log(2.0))


@dataclass(frozen=True)
class Mixture:
    """All components.

    Attributes
    ----------
    noise, particles
        Densities.
    junk
        None for a mixture of noise and particles only.
    fractions
        Mean fractions of noise, particles and junk over the data set, shape `(3,)`.
    shadow
        The same among picks in the shadow of a strong one.
    """

    noise: Noise
    particles: Particles
    junk: Junk | None
    fractions: Floats
    shadow: Floats

    def log_densities(self, data: Observations) -> Floats:
        """Log densities of the three components at every pick, shape `(3, n)`."""
        particles = self.particles.log_density(data, self.noise)
        return np.stack([self.noise.log_density(data), particles, self.junk_log_density(data)])

    def junk_log_density(self, data: Observations) -> Floats:
        """Log density of junk at every pick; minus infinity where there is no such component."""
        return np.full(len(data.ncc), -np.inf) if self.junk is None else self.junk.log_density(data, self.noise)
