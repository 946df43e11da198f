"""Where expectation-maximisation starts: from the noise of decoys, or from quantiles of the scores without them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pickcal.calibration.mixture.components import PARTICLE, Junk, Mixture, Particles
from pickcal.calibration.mixture.em import TAIL_SCALE, Fitted, expectation_maximisation
from pickcal.calibration.mixture.humps import Valley
from pickcal.calibration.mixture.noise import Noise, fit_noise, gaussian_shape
from pickcal.calibration.mixture.observations import Observations

Floats = NDArray[np.floating]

STARTS = (2.0, 3.0, 4.5)
"""Where particles may begin, in deviations of the noise above it."""
BEYOND = 7.5
"""Deviations of the noise beyond which no start may have reached: see `_from_decoys`."""
START_FRACTIONS = (0.86, 0.12, 0.02)
LEAST_START = 20
"""Picks on either side of a start that its power scores are taken from."""

STARTS_ALONE = ((0.02, 0.6), (0.1, 0.6), (0.25, 0.75), (0.4, 0.9), (0.5, 0.98))
"""Where noise and particles may begin without decoys and power, as quantiles of the scores."""
START_PICKS = 50_000


def from_starts(
    junk: bool, data: Observations, decoys: Observations | None, between: Valley | None
) -> tuple[Fitted, list[dict[str, Any]]]:
    """EM from several starts on some of the micrographs, and on from the best on all."""
    if decoys is None:
        return _from_quantiles(junk, data, between)
    return _from_decoys(junk, data, fit_noise(decoys))


def _from_decoys(junk: bool, data: Observations, noise: Noise) -> tuple[Fitted, list[dict[str, Any]]]:
    """EM from where particles score some deviations above the noise, and from far above if these did not get there.

    They did not where they leave fewer particles than there are picks that far: those would all be junk. Else the
    likeliest might be one in which the highest scores are the particles and all others junk.
    """
    small = data.taken(some_micrographs(data, START_PICKS))

    def begun(offset: float) -> Fitted:
        return expectation_maximisation(small, _start_above(junk, data, noise, offset), free_noise=False)

    found = {offset: begun(offset) for offset in STARTS}
    best = max(found.values(), key=lambda fit: fit.log_likelihood)
    standardised = noise.standardised(small)
    far = standardised[standardised > BEYOND]
    if len(far) >= max(LEAST_START, best.shares(small)[PARTICLE].sum()):
        middle = float(np.median(far))
        found[middle] = begun(middle)
        best = max(best, found[middle], key=lambda fit: fit.log_likelihood)
    starts = [{"offset": offset, **_ended(fit)} for offset, fit in found.items()]
    return expectation_maximisation(data, best.mixture, free_noise=False), starts


def _ended(fit: Fitted) -> dict[str, Any]:
    """Give how EM ended from one of the starts, for the report of a fit."""
    return {"log_likelihood": fit.log_likelihood, "iterations": fit.iterations, "converged": fit.converged}


def _from_quantiles(junk: bool, data: Observations, between: Valley | None) -> tuple[Fitted, list[dict[str, Any]]]:
    """EM without decoys from several pairs of quantiles, and on from the likeliest that respects the valley.

    Two humps that are seen are the populations, even where a noise that covers both and particles in the upper tail
    are likelier: real humps are no Gaussians.
    """
    small = data.taken(some_micrographs(data, START_PICKS))
    found = [expectation_maximisation(small, _start_alone(junk, data, at), free_noise=True) for at in STARTS_ALONE]
    kept = [fit for fit in found if astride(fit.mixture, between)] or found
    best = max(kept, key=lambda fit: fit.log_likelihood)
    starts = [
        {"quantiles": list(at), **_ended(fit), "astride": astride(fit.mixture, between)}
        for at, fit in zip(STARTS_ALONE, found, strict=True)
    ]
    return expectation_maximisation(data, best.mixture, free_noise=True), starts


def _start_above(junk: bool, data: Observations, noise: Noise, offset: float) -> Mixture:
    """Particles have the power of the picks above the offset: else junk takes the strongest of them, and keeps them."""
    start = _start(junk, data, noise, offset)
    if data.power is None:
        return start
    above = data.ncc > (data.design @ start.particles.ncc)[data.index]
    values = data.power[above & np.isfinite(data.power)]
    if len(values) < LEAST_START:
        return start
    first, (power, width) = np.eye(data.design.shape[1])[0], _middle(values)
    return replace(start, particles=replace(start.particles, power=first * power, power_deviation=width))


def _start_alone(junk: bool, data: Observations, at: tuple[float, float]) -> Mixture:
    low, high = np.quantile(data.ncc, at)
    spread = max(float(high - low) / 3, 0.1 * float(np.std(data.ncc)))
    first = np.eye(data.design.shape[1])[0]
    noise = replace(_low_scores(data), mean=first * float(low), deviation=first * np.log(spread), least=spread / 10)
    start = _start(junk, data, noise, float(high - low) / spread)
    above = data.ncc > 0.5 * (low + high)
    part = float(above.mean())
    if data.power is None:
        fractions = np.array([1 - part, part, 0.0])
        particles = replace(start.particles, tail=0.02, tail_scale=TAIL_SCALE)
        return replace(start, particles=particles, fractions=fractions, shadow=fractions)
    parts = [data.power[chosen & np.isfinite(data.power)] for chosen in (~above, above)]
    if min(map(len, parts)) < LEAST_START:
        return start
    (noise_power, noise_width), (power, width) = map(_middle, parts)
    noise = replace(noise, power_mean=noise_power, power_deviation=noise_width)
    particles = replace(start.particles, power=first * power, power_deviation=width)
    fractions = np.array([1 - part, part, 0.05 * (start.junk is not None)])
    return replace(start, noise=noise, particles=particles, fractions=fractions / fractions.sum())


def _middle(values: Floats) -> tuple[float, float]:
    """Median, and standard deviation by the median distance from it, at least 0.001."""
    median = float(np.median(values))
    return median, max(1.4826 * float(np.median(np.abs(values - median))), 1e-3)


def astride(mixture: Mixture, between: Valley | None) -> bool:
    """Whether noise and particles at the reference lie on either side of a valley."""
    return between is None or bool(mixture.noise.mean[0] < between.score < mixture.particles.ncc[0])


def _start(junk: bool, data: Observations, noise: Noise, offset: float) -> Mixture:
    first = np.eye(data.design.shape[1])[0]
    scale = float(np.exp(noise.deviation[0]))
    offsets = np.zeros(int(data.template.max(initial=-1)) + 1 if data.template is not None else 0)
    particles = Particles(
        noise.mean + first * offset * scale,
        first * (noise.power_mean + 0.5 * offset * noise.power_deviation),
        noise.deviation * first,
        0.0,
        1.3 * noise.power_deviation,
        offsets,
    )
    third = Junk() if junk and data.power is not None else None
    fractions = np.array(START_FRACTIONS) * [1, 1, third is not None]
    return Mixture(noise, particles, third, fractions / fractions.sum(), fractions / fractions.sum())


def _low_scores(data: Observations) -> Noise:
    """Gaussian noise to begin with where there are no decoys: what the lower half of the scores looks like."""
    middle, low = np.quantile(data.ncc, [0.4, 0.1])
    first = np.eye(data.design.shape[1])[0]
    spread = max(float(middle - low) / 1.03, 1e-9)  # of a Gaussian from its 10th to its 40th percentile
    power = float(np.nanmedian(data.power)) if data.power is not None else 0.0
    width = 1.4826 * float(np.nanmedian(np.abs(data.power - power))) if data.power is not None else 1.0
    spread = max(spread, 0.1 * float(np.std(data.ncc)))  # where many picks share the lowest score
    start = Noise(first * float(middle), first * np.log(spread), gaussian_shape(), power, 0.0, max(width, 1e-3))
    return replace(start, floor=float(data.ncc.min()), least=spread / 3)


def some_micrographs(data: Observations, picks: int, seed: int = 0) -> NDArray[np.intp]:
    """Micrographs with picks, about so many together, drawn at random, in order."""
    counts = data.per_micrograph()
    order = np.random.default_rng(seed).permutation(np.flatnonzero(counts))
    enough = int(np.searchsorted(np.cumsum(counts[order]), picks)) + 1
    return np.sort(order[:enough])
