"""Humps of scores alone: whether they show two populations, and where the valley between them is."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.optimize import minimize
from scipy.special import ndtr

from pickcal.calibration.mixture.components import NOISE, PARTICLE, Mixture
from pickcal.calibration.mixture.noise import GAUSS
from pickcal.calibration.mixture.observations import Observations

Floats = NDArray[np.floating]

TAIL_LIMIT = 6.0
"""Scores count up to this many times the 84th less the 50th percentile above the median, in fits to scores alone."""
VALLEY_ERRORS, VALLEY_DEPTH, VALLEY_SIDE = 4.0, 0.1, 0.05
"""A valley is that many standard errors and that part of the lower hump deep, with that part of the picks aside."""
GAIN, LEAST_GAIN = 0.002, 10.0
"""Log likelihood that two populations must gain over one hump, per pick and in all."""
LEAST_PARTICLES = 0.1
"""Part of the picks that must be particles where no valley shows them: fewer are as well the tail of one hump."""


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
    kept = (1 - share) * ndtr(-np.sinh(transformed(floor)[1]))
    kept += share * np.exp(-np.maximum(floor - centre, 0) / reach)
    whole = (weight * np.logaddexp(core, beyond)).sum() - (count * np.log(np.maximum(kept, 1e-300))).sum()
    return float(whole)
