"""Expectation-maximisation of the mixture over a data set, and of the fractions of single micrographs.

Dempster, Laird & Rubin (1977), J. R. Stat. Soc. B 39, 1-38.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_ndtr

from pickcal.calibration.mixture.components import JUNK, LEAST_SPREAD, NOISE, PARTICLE, Junk, Mixture, Particles
from pickcal.calibration.mixture.noise import GAUSS, Noise, damped
from pickcal.calibration.mixture.observations import Observations

Floats = NDArray[np.floating]
Indices = NDArray[np.intp]

PRIOR = 2.0
"""Weight of the data set's mean fractions in those of a micrograph, in picks."""
RIDGE = 1.0
"""Particles' worth of pull of slopes towards zero, in deviations of the term: two micrographs do not make a trend."""
SPREAD_RIDGE = 0.6
"""Pull of the slopes of the logarithm of the spread towards zero, as a share of the particles' own say."""
CORRELATION = 0.4
"""Largest correlation of particles' NCC score and log power; beyond, one Gaussian covers noise and particles."""
TAIL_SCALE, LEAST_TAIL_SCALE = 2.0, 1.5
"""Mean of the particles' tail in their deviations: to begin with, and at least."""
MOST_TAIL = 0.2
"""Share of the particles in their tail at most."""


@dataclass(frozen=True)
class Fitted:
    """A mixture as EM left it.

    Attributes
    ----------
    mixture
        The components.
    fractions
        Of every micrograph, shape `(micrograph, 3)`.
    log_likelihood
        Of all picks.
    iterations, converged
        How EM ended.
    """

    mixture: Mixture
    fractions: Floats
    log_likelihood: float
    iterations: int
    converged: bool

    def shares(self, data: Observations) -> Floats:
        """Probability of each component for each pick of the micrographs it was fitted to, shape `(3, n)`."""
        cells = np.vstack([self.fractions, self.mixture.shadow])
        return shares_of(self.mixture.log_densities(data), cells[data.cell])[0]


def shares_of(log_densities: Floats, fractions: Floats) -> tuple[Floats, float]:
    """Probability of each component for each pick `(3, n)`, and the log likelihood.

    Parameters
    ----------
    log_densities
        Shape `(3, n)`.
    fractions
        Fractions that hold for each pick, shape `(n, 3)`.
    """
    with np.errstate(divide="ignore"):
        joint = log_densities + np.log(fractions).T
    top = joint.max(axis=0)
    joint -= top
    np.exp(joint, out=joint)
    total = joint.sum(axis=0)
    joint /= total
    return joint, float((np.log(total) + top).sum())


def micrograph_fractions(
    log_densities: Floats, index: Indices, start: Floats, mean: Floats, iterations: int = 100, tolerance: float = 2e-4
) -> Floats:
    """Fractions of every micrograph for given densities, shape `(micrograph, 3)`.

    Parameters
    ----------
    log_densities
        Shape `(3, n)`, picks in the shadow of others left out.
    index
        Micrograph of each pick, rising.
    start
        Fractions to begin with, `(micrograph, 3)`.
    mean
        Mean fractions of the data set, their prior with the weight of `PRIOR` picks.
    iterations, tolerance
        Most EM steps, and the largest change of a fraction at which they end.
    """
    count = len(start)
    picks = np.bincount(index, minlength=count)
    densities = np.exp(log_densities - log_densities.max(axis=0, initial=-np.inf))
    filled = np.flatnonzero(picks)
    bounds = np.cumsum(picks[filled]) - picks[filled]
    fractions = np.tile(mean, (count, 1))
    fractions[filled] = start[filled]
    going = np.ones(len(filled), dtype=bool)
    for _ in range(iterations if len(filled) else 0):
        joint = densities * np.repeat(fractions[filled].T, picks[filled], axis=1)
        joint /= joint.sum(axis=0)
        sums = np.add.reduceat(joint, bounds, axis=1).T
        updated = (sums + PRIOR * mean) / (picks[filled] + PRIOR)[:, None]
        change = np.abs(updated - fractions[filled]).max(axis=1)
        # each stops by itself: what a micrograph gets must not hang on the others of its block
        fractions[filled[going]] = updated[going]
        going &= change >= tolerance
        if not going.any():
            break
    return fractions


def expectation_maximisation(
    data: Observations, start: Mixture, *, free_noise: bool = False, iterations: int = 300, tolerance: float = 1e-6
) -> Fitted:
    """Refine particles, junk and fractions; noise stays as the decoys gave it.

    Parameters
    ----------
    data
        Scores of picks.
    start
        Where to begin.
    free_noise
        Fit the noise as well, as a Gaussian: for picks without decoys.
    iterations
        Most steps.
    tolerance
        Gain in log likelihood per pick below which it has converged.
    """
    count, cell = len(data.design) + 1, data.cell
    picks = np.bincount(cell, minlength=count)[:, None]
    mixture = start
    fractions = np.vstack([np.tile(start.fractions, (count - 1, 1)), start.shadow])
    fixed = np.stack([mixture.noise.log_density(data), np.zeros(len(cell)), mixture.junk_log_density(data)])
    last, step = -np.inf, 0
    for step in range(1, iterations + 1):
        fixed[PARTICLE] = mixture.particles.log_density(data, mixture.noise)
        shares, likelihood = shares_of(fixed, fractions[cell])
        if likelihood - last < tolerance * len(cell):
            return Fitted(mixture, fractions[:-1], likelihood, step, True)
        last = likelihood
        sums = np.stack([np.bincount(cell, part, minlength=count) for part in shares], axis=1)
        mean = sums[:-1].sum(axis=0) / max(float(sums[:-1].sum()), 1.0)
        fractions = (sums + PRIOR * mean) / (picks + PRIOR)
        noise = mixture.noise
        if free_noise:
            noise = gaussian_noise(data, shares[NOISE], noise)
        if free_noise or data.shadowed.any():
            noise = shadowed_noise(data, shares[NOISE], noise)
            fixed[NOISE] = noise.log_density(data)
        if mixture.particles.tail_scale:
            noise, particles = maximised_alone(data, shares, mixture.particles, noise)
            fixed[NOISE] = noise.log_density(data)
        else:
            particles = maximised(data, shares[PARTICLE], mixture.particles, noise)
        mixture = Mixture(noise, particles, _scaled_junk(data, shares[JUNK], mixture), mean, fractions[-1])
        fixed[JUNK] = mixture.junk_log_density(data)
    return Fitted(mixture, fractions[:-1], last, step, False)


def _scaled_junk(data: Observations, weight: Floats, mixture: Mixture) -> Junk | None:
    """Junk with its scale fitted, pulled to the usual one by ten picks' worth."""
    if mixture.junk is None or data.power is None:
        return mixture.junk
    usual = Junk().scale
    known = np.isfinite(data.power)
    above = float((weight * mixture.junk.above(data, mixture.noise))[known].sum()) / 3.0
    return Junk(float(np.clip((above + 10.0 * usual) / (weight[known].sum() + 10.0), 0.2, 1.5)))


def shadowed_noise(data: Observations, weight: Floats, noise: Noise) -> Noise:
    """Noise with the scores in the shadow of strong picks fitted, where there are at least 50."""
    here = data.shadowed
    total = float(weight[here].sum())
    if total < 50:
        return noise
    share = weight[here]
    mean, spread = _moments(noise.standardised(data)[here], share)
    found = replace(noise, shadow_mean=min(mean, 0.0), shadow_deviation=float(np.clip(spread, 0.5, 1.5)))
    if data.power is None:
        return found
    known = data.plain[here]
    if share[known].sum() < 50:
        return found
    level, width = _moments(data.power[here][known], share[known])
    width = float(np.clip(width, noise.power_deviation, 2 * noise.power_deviation))
    return replace(found, shadow_power_mean=level, shadow_power_deviation=width)


def _moments(values: Floats, weight: Floats) -> tuple[float, float]:
    """Weighted mean and standard deviation."""
    mean = float(np.average(values, weights=weight))
    return mean, float(np.sqrt(np.average((values - mean) ** 2, weights=weight)))


def gaussian_noise(data: Observations, weight: Floats, noise: Noise) -> Noise:
    """Noise with mean, spread and power fitted to picks, each as far as it is noise."""
    lit = weight * ~data.shadowed
    total = data.per_micrograph(lit)
    below, centre_below, variance_below = _below_floor(data.design, total, noise)
    sums = data.per_micrograph(lit * data.ncc) + below * centre_below
    mean = _line(data.design, sums, total + below, noise.scale(data.design) ** -2)
    residual = data.ncc - (data.design @ mean)[data.index]
    squares = data.per_micrograph(lit * residual**2)
    squares += below * (variance_below + (centre_below - data.design @ mean) ** 2)
    deviation = _log_deviation(data.design, squares, total + below, noise.deviation)
    deviation[0] = max(deviation[0], float(np.log(max(noise.least, 1e-300))))
    fitted = replace(noise, mean=mean, deviation=deviation)
    if data.power is None:
        return fitted
    power, lit = np.nan_to_num(data.power), lit * np.isfinite(data.power)
    z, whole = fitted.standardised(data), max(float(lit.sum()), 1e-9)
    centre, level = float((lit * z).sum()) / whole, float((lit * power).sum()) / whole
    slope = float((lit * (z - centre) * power).sum()) / max(float((lit * (z - centre) ** 2).sum()), 1e-9)
    rest = power - level - slope * (z - centre)
    spread = float(np.sqrt((lit * rest**2).sum() / whole))
    return replace(fitted, power_mean=level - slope * centre, power_slope=slope, power_deviation=max(spread, 1e-3))


def _below_floor(design: Floats, total: Floats, noise: Noise) -> tuple[Floats, Floats, Floats]:
    """Noise that the picker did not keep: expected number, mean score and variance in every micrograph.

    The expectation step for a truncated Gaussian; at most twice as many as were kept.
    """
    mean, scale = design @ noise.mean, noise.scale(design)
    edge = (noise.floor - mean) / scale
    number = total * np.minimum(np.exp(np.minimum(log_ndtr(edge) - log_ndtr(-edge), 0.7)), 2.0)
    hazard = np.exp(-0.5 * edge**2 - GAUSS - log_ndtr(np.maximum(edge, -30.0)))
    hazard = np.where(edge > -30, hazard, 0.0)
    variance = scale**2 * np.maximum(1 - np.maximum(edge, -30.0) * hazard - hazard**2, 0.0)
    return number, mean - scale * hazard, variance


def maximised(data: Observations, weight: Floats, last: Particles, noise: Noise) -> Particles:
    """Particles that fit best where each pick counts with its weight."""
    design, index = data.design, data.index
    total = data.per_micrograph(weight)
    # a micrograph that is held at the least separation from the noise tells nothing of the trend
    free = design @ last.ncc >= last.mean(design, noise)
    ncc = last.ncc
    if (total * free).sum() > 1:
        sums = data.per_micrograph(weight * (data.ncc - last.template_offset(data)))
        ncc = _line(design, sums * free, total * free, np.exp(-2 * design @ last.deviation))
    found = replace(last, ncc=ncc)
    found = replace(found, offsets=_offsets(data, weight, found, noise))
    residual = found.residual(data, noise)
    deviation = _log_deviation(design, data.per_micrograph(weight * residual**2), total, last.deviation)
    deviation[0] = max(deviation[0], noise.deviation[0] + np.log(LEAST_SPREAD))
    if data.power is None:
        return replace(found, deviation=deviation)
    observed, weight = np.nan_to_num(data.power), weight * data.plain
    total = data.per_micrograph(weight)
    square, cross = float((weight * residual**2).sum()), float((weight * residual * observed).sum())
    centred, summed = data.per_micrograph(weight * residual), data.per_micrograph(weight * observed)
    count = max(float(total.sum()), 1e-12)
    power, slope = last.power, last.slope
    for _ in range(3):
        power = _line(design, summed - slope * centred, total, np.ones(len(design)))
        above = observed - (design @ power)[index]
        whole = float(np.sqrt((weight * above**2).sum() / count))
        most = CORRELATION * whole / max(float(np.sqrt(square / count)), 1e-12)
        slope = (cross - float((centred * (design @ power)).sum())) / max(square, 1e-12)
        slope = float(np.clip(slope, -most, most))
    rest = observed - (design @ power)[index] - slope * residual
    spread = float(np.sqrt((weight * rest**2).sum() / count))
    return Particles(ncc, power, deviation, slope, max(spread, LEAST_SPREAD * noise.power_deviation), found.offsets)


def maximised_alone(data: Observations, shares: Floats, last: Particles, noise: Noise) -> tuple[Noise, Particles]:
    """Noise and particles of picks that have one score and nothing else.

    Particles have a tail above their mean, which else the wider component would have to hold; and noise is not wider
    than particles at the reference, so that a higher score never makes a pick less of a particle. Where it would be,
    both get the deviation that is likeliest for the two together.
    """
    weight = shares[PARTICLE]
    log_deviation = (data.design @ last.deviation)[data.index]
    z = last.residual(data, noise) * np.exp(-log_deviation)
    core, beyond = last.parts(z)
    of_tail = weight * np.exp(beyond - np.logaddexp(core, beyond))
    found = maximised(data, weight - of_tail, last, noise)
    total = float(of_tail.sum())
    tail = (total + 1e-3) / (float(weight.sum()) + 1.0)
    scale = (float((of_tail * z).sum()) + TAIL_SCALE) / (total + 1.0)
    found = replace(
        found, tail=float(np.clip(tail, 1e-4, MOST_TAIL)), tail_scale=float(np.clip(scale, LEAST_TAIL_SCALE, 20.0))
    )
    wide, narrow = noise.deviation[0], found.deviation[0]
    if wide > narrow:
        part = float(shares[NOISE].sum()) / max(float(shares[NOISE].sum() + (weight - of_tail).sum()), 1e-9)
        both = 0.5 * np.log(part * np.exp(2 * wide) + (1 - part) * np.exp(2 * narrow))
        noise = replace(noise, deviation=np.r_[both, noise.deviation[1:]])
        found = replace(found, deviation=np.r_[both, found.deviation[1:]])
    return noise, found


def _offsets(data: Observations, weight: Floats, particles: Particles, noise: Noise) -> Floats:
    """Mean score of each template's particles above the trend, pulled to 0 by twenty particles' worth."""
    if data.template is None or not len(particles.offsets):
        return particles.offsets
    size = len(particles.offsets)
    known = (data.template >= 0) & (data.template < size)
    residual = replace(particles, offsets=np.zeros(0)).residual(data, noise)[known]
    sums = np.bincount(data.template[known], weight[known] * residual, minlength=size)
    counts = np.bincount(data.template[known], weight[known], minlength=size)
    return np.asarray(sums / (counts + 20.0))


def _line(design: Floats, sums: Floats, total: Floats, weight: Floats) -> Floats:
    """Weighted least squares from sums over micrographs."""
    normal = (design * (total * weight)[:, None]).T @ design
    pull = np.mean(weight) * np.diag(RIDGE * np.minimum(design.var(axis=0), 1.0) + 1e-9)
    return np.asarray(np.linalg.solve(normal + pull, design.T @ (sums * weight)))


def _log_deviation(design: Floats, squares: Floats, total: Floats, last: Floats) -> Floats:
    """One scoring step for a log-linear standard deviation of Gaussian residuals."""
    variance = np.exp(2 * design @ last)
    pull = np.diag(SPREAD_RIDGE * float(total.sum()) * np.minimum(design.var(axis=0), 1.0) + 1e-9)
    # derivative of the likelihood, and its expected information
    score = design.T @ (squares / variance - total) - np.where(np.arange(len(last)) > 0, pull @ last, 0.0)
    information = 2 * (design * total[:, None]).T @ design + pull
    return np.asarray(last + damped(np.linalg.solve(information, score), design))
