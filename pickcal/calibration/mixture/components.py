"""Densities of particles and of junk, and the whole mixture."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import minimize
from scipy.stats import norm

from pickcal.calibration.mixture.noise import GAUSS, Noise
from pickcal.calibration.mixture.observations import Observations

Floats = NDArray[np.floating]

COMPONENTS = ("noise", "particle", "junk")
NOISE, PARTICLE, JUNK = range(3)

SEPARATION = 1.5
"""Standard deviations of the noise by which particles score above it at least: nearer they cannot be told apart."""
LEAST_SPREAD = 0.3
"""Spread of particles over that of noise, in either score, at least: a heap of equal scores is no population."""
JUNK_SPREAD = 2.5
"""Spread of the NCC score of junk, in standard deviations of the noise."""

TAIL_LIMIT = 6.0
"""Scores count up to this many times the 84th less the 50th percentile above the median, in fits to scores alone."""
VALLEY_ERRORS, VALLEY_DEPTH, VALLEY_SIDE = 4.0, 0.1, 0.05
"""A valley is that many standard errors and that part of the lower hump deep, with that part of the picks aside."""
GAIN, LEAST_GAIN = 0.002, 10.0
"""Log likelihood that two populations must gain over one hump, per pick and in all."""
LEAST_PARTICLES = 0.1
"""Part of the picks that must be particles where no valley shows them: fewer are as well the tail of one hump."""


@dataclass(frozen=True)
class Particles:
    """Density of particles in the plane of NCC score and log power: Gaussian, its means linear in the design.

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
        rest = data.power - (data.design @ self.power)[data.index] - self.slope * residual
        of_power = -0.5 * (rest / self.power_deviation) ** 2 - np.log(self.power_deviation) - GAUSS
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
        excess = precision[0] - precision[1]
        mean = data.ncc - residual
        centre = (data.design @ noise.mean)[data.index]
        with np.errstate(divide="ignore", invalid="ignore"):
            turn = np.where(excess > 0, (precision[0] * centre - precision[1] * mean) / excess, -np.inf)
        at = np.maximum(data.ncc, turn)
        core, beyond = self.parts((at - mean) * np.exp(-log_deviation))
        fall = 0.5 * precision[0] * ((at - centre) ** 2 - (data.ncc - centre) ** 2)
        return np.asarray(np.logaddexp(core, beyond) - log_deviation + fall)

    def power_spread(self, design: Floats) -> Floats:
        """Give the standard deviation of the log power of every micrograph, whatever the NCC score."""
        return np.asarray(np.hypot(self.power_deviation, self.slope * np.exp(design @ self.deviation)))


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
        above = np.maximum(data.power - noise.power_mean, 1e-300)
        return np.asarray(out + np.where(np.isfinite(data.power), self.log_power_density(above), 0.0))

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


def score_limit(scores: Floats) -> float:
    """Highest score that counts in a fit to scores alone: a thin tail of huge ones must not decide.

    Infinite where half of the picks or more share their score.
    """
    middle, high = np.quantile(scores, [0.5, 0.84])
    return float(middle + TAIL_LIMIT * (high - middle)) if high > middle else np.inf


@dataclass(frozen=True)
class Valley:
    """Least density between two humps of the scores.

    Attributes
    ----------
    score
        Where.
    depth
        Part of the lower hump's density that is missing.
    errors
        The same in standard errors.
    """

    score: float
    depth: float
    errors: float


def valley(scores: Floats) -> Valley | None:
    """Find the clearest valley in a kernel estimate of the density; None where there is none.

    The kernel is Silverman's (1986, Density Estimation, eq. 3.31), not narrower than twice the step of rounded scores;
    the scores are reflected at the lowest, where a picker's floor cuts them, so that a density that falls from there
    has a hump there.
    """
    limit = score_limit(scores)
    inside = np.sort(scores[scores < limit]) if np.isfinite(limit) else np.sort(scores)
    quarter, more = np.quantile(inside, [0.25, 0.75])
    spread = min(float(inside.std()), float(more - quarter) / 1.349) or float(inside.std())
    steps = np.diff(np.unique(inside))
    if not spread or not len(steps):
        return None
    width = max(0.9 * spread * len(inside) ** -0.2, 2 * float(np.median(steps)))
    bins = int(np.clip(8 * np.ptp(inside) / width, 16, 4096))
    counts, edges = np.histogram(inside, bins)
    kernel = width / (edges[1] - edges[0])
    density = gaussian_filter1d(counts.astype(np.float64), kernel, mode="reflect")
    lower = np.minimum(np.maximum.accumulate(density), np.maximum.accumulate(density[::-1])[::-1])
    errors = (lower - density) / np.sqrt((lower + density + 1e-9) / (2 * np.sqrt(np.pi) * kernel))
    depth = 1 - density / np.maximum(lower, 1e-9)
    below = np.cumsum(counts) / len(scores)
    errors[(below < VALLEY_SIDE) | (below > 1 - VALLEY_SIDE) | (depth < VALLEY_DEPTH)] = 0.0
    place = int(np.argmax(errors))
    if errors[place] < VALLEY_ERRORS:
        return None
    return Valley(float(edges[place : place + 2].mean()), float(depth[place]), float(errors[place]))


def gain_over_one_hump(data: Observations, mixture: Mixture) -> float:
    """Log likelihood per pick that noise and particles gain over one skewed hump with a tail and the same trends.

    The hump is a sinh-arcsinh normal (Jones & Pewsey 2009, Biometrika 96, 761-780) truncated at the picker's floor as
    the noise is, with an exponential tail above its centre: whatever two components gain over that is not skewness.
    Every micrograph has the mean fractions here, as one hump cannot gain from theirs.
    """
    noise, particles = mixture.noise, mixture.particles
    densities = mixture.log_densities(data)[[NOISE, PARTICLE]]
    share = mixture.fractions[[NOISE, PARTICLE]] / mixture.fractions[[NOISE, PARTICLE]].sum()
    for _ in range(30):
        joint = densities + np.log(np.maximum(share, 1e-12))[:, None]
        total = np.logaddexp(joint[0], joint[1])
        share = np.exp(joint - total).mean(axis=1)
    centre = share[0] * (data.design @ noise.mean) + share[1] * particles.mean(data.design, noise)
    log_scale = data.design @ (share[0] * noise.deviation + share[1] * particles.deviation)
    z = (data.ncc - centre[data.index]) * np.exp(-log_scale[data.index])
    count = data.per_micrograph()
    floor = (noise.floor - centre) * np.exp(-log_scale)
    one = _one_hump(z, floor[count > 0], count[count > 0]) - float((log_scale * count).sum())
    return (float(total.sum()) - one) / len(z)


def _one_hump(z: Floats, floor: Floats, count: Floats) -> float:
    """Largest log likelihood of one hump; scores binned for the search, not for the result."""
    filled, edges = np.histogram(z, 400)
    bins = (0.5 * (edges[1:] + edges[:-1]))[filled > 0]
    weight = filled[filled > 0].astype(np.float64)
    middle, spread = float(np.median(z)), float(np.log(max(z.std(), 1e-6)))
    bounds = [(z.min() - 3, z.max()), (-6, 6), (-3, 3), (-1.2, 1.2), (-8, -1), (0, 3)]
    starts = (
        [middle, spread, 0.0, 0.0, -3.0, 1.0],
        [middle, spread, -0.7, 0.0, -5.0, 1.0],
        [float(np.quantile(z, 0.1)), spread, 0.0, 0.0, -5.0, 1.0],
    )
    found = [
        minimize(
            lambda p: -_hump_likelihood(p, bins, weight, floor, count) / len(z),
            np.clip(start, *np.transpose(bounds)),
            method="L-BFGS-B",
            bounds=bounds,
        )
        for start in starts
    ]
    best = min(found, key=lambda result: float(result.fun)).x
    return _hump_likelihood(best, z, np.ones(len(z)), floor, count)


def _hump_likelihood(parameters: Floats, z: Floats, weight: Floats, floor: Floats, count: Floats) -> float:
    """Log likelihood of one hump: centre, log scale, skewness, log weight of tails; log share and scale of its tail."""
    centre, log_scale, skew, log_weight, log_share, log_reach = parameters
    share, reach = np.exp(log_share), np.exp(log_reach + log_scale)

    def transformed(at: Floats) -> tuple[Floats, Floats]:
        u = (at - centre) * np.exp(-log_scale)
        return u, np.clip(np.exp(log_weight) * np.arcsinh(u) - skew, -30, 30)

    u, v = transformed(z)
    core = np.log1p(-share) - 0.5 * np.sinh(v) ** 2 - GAUSS + np.log(np.cosh(v)) + log_weight - log_scale
    core -= 0.5 * np.log1p(u**2)
    beyond = np.where(u > 0, np.log(share) - (z - centre) / reach - np.log(reach), -np.inf)
    kept = (1 - share) * norm.sf(np.sinh(transformed(floor)[1]))
    kept += share * np.exp(-np.maximum(floor - centre, 0) / reach)
    whole = (weight * np.logaddexp(core, beyond)).sum() - (count * np.log(np.maximum(kept, 1e-300))).sum()
    return float(whole)
