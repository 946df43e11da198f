"""Fit the mixture over a data set: several starts, several rounds, line or spline, intervals, a verdict in words.

Rounds, because which decoys lie off the particles, and which picks lie in the shadow of one, follows from the
probabilities that are to be found.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.special import ndtri

from pickcal.calibration.mixture.apply import decoy_probabilities
from pickcal.calibration.mixture.components import JUNK, PARTICLE, SEPARATION, Mixture
from pickcal.calibration.mixture.em import (
    PRIOR,
    Fitted,
    expectation_maximisation,
    micrograph_fractions,
)
from pickcal.calibration.mixture.humps import (
    GAIN,
    LEAST_GAIN,
    LEAST_PARTICLES,
    Valley,
    gain_over_one_hump,
    score_limit,
    valley,
)
from pickcal.calibration.mixture.model import NOISE_NUMBERS, Model
from pickcal.calibration.mixture.noise import fit_noise
from pickcal.calibration.mixture.observations import (
    LEAK,
    SHADOW,
    Observations,
    flattened,
    has_decoys,
    in_shadow,
    off_particles,
    power_levels,
    valid_places,
)
from pickcal.calibration.mixture.rates import false_discovery_rates
from pickcal.calibration.mixture.starts import astride, from_starts, some_micrographs
from pickcal.calibration.trends import Trend, mean_defocus
from pickcal.settings import CalibrateSettings

Floats = NDArray[np.floating]

LEAST_PICKS = 200
ROUNDS = 3
VALIDATION_PICKS = 60_000
FOLDS = 4
LEAST_FOR_SPLINE = 20
LEAST_OFF = 200
"""Decoys that the noise is fitted to at least."""
MOST_POWER = 10.0
"""Power of particles over that of the noise beyond which it is doubted that they are particles: simulated ones and
apoferritin have 1.2 to 3 behind a low-pass of 20 Å, ice far more."""
RESAMPLES = 30
RESAMPLE_PICKS = 40_000


class NotFitted(Exception):
    """Why no mixture can be fitted, in words."""


@dataclass(frozen=True)
class Table:
    """What a fit needs of a data set, whatever the trend."""

    picks: xr.Dataset
    micrographs: xr.Dataset
    level: Floats
    decoys: bool
    with_template: bool
    radius: float
    junk: bool

    @property
    def leak(self) -> float:
        """Share of the variance around a pick that reaches it; 0 where that variance is not told."""
        return LEAK if "background_variance" in self.picks else 0.0

    @property
    def alone(self) -> bool:
        """Whether there is a score and nothing else: neither decoys nor power."""
        return not self.decoys and not np.isfinite(self.level).any()

    def observed(self, trend: Trend, prefix: str = "") -> Observations:
        """Give picks or decoys the design of a trend; scores alone up to their limit."""
        design = trend.design(self.micrographs)
        found = flattened(
            self.picks, design, self.level, prefix, self.with_template and not prefix, 0.0 if prefix else self.leak
        )
        if not self.alone or not len(found.ncc):
            return found
        return replace(found, ncc=np.minimum(found.ncc, score_limit(found.ncc)))


@dataclass(frozen=True)
class Found:
    """A fit with one trend: EM's result, the picks with their shadows, the decoys with their weights."""

    fitted: Fitted
    data: Observations
    shares: Floats
    decoys: Observations | None
    starts: list[dict[str, Any]]
    between: Valley | None = None


def fit_mixture(picks: xr.Dataset, micrographs: xr.Dataset, diameter: float, settings: CalibrateSettings) -> Model:
    """Fit noise, particles and junk over a data set.

    Parameters
    ----------
    picks
        Padded table of the micrographs to fit: `PICK_VARIABLES`, and decoys if there are any; `template` only if
        it is among the covariates.
    micrographs
        Their rows of the table of micrographs.
    diameter
        Of the particle, Å.
    settings
        Trend, covariates, junk.

    Raises
    ------
    NotFitted
        If there are too few picks to tell two populations apart, or, without decoys and power, if their scores make
        one hump; the message says so with numbers.
    """
    decoys = has_decoys(picks)
    table = Table(
        picks,
        micrographs,
        power_levels(picks, decoys, SHADOW * diameter),
        decoys,
        "template" in settings.covariates,
        SHADOW * diameter,
        settings.junk,
    )
    covariates = [name for name in settings.covariates if name not in {"template", "exposure_group"}]
    covariates += ["exposure_group"] if settings.by_group else []
    reference, degree = settings.reference_defocus, settings.degree
    scored = np.asarray(valid_places(picks).any(axis=1))
    trends = [
        Trend.of(micrographs, reference, degree, covariates, spline=kind == "spline", scored=scored)
        for kind in (["line", "spline"] if settings.trend == "auto" else [settings.trend])
    ]
    data = table.observed(trends[0])
    count = len(data.ncc)
    if count < LEAST_PICKS:
        raise NotFitted(f"not fitted: {count} picks, at least {LEAST_PICKS} are needed")
    if np.ptp(data.ncc) == 0:
        raise NotFitted(f"not fitted: all {count} picks have the NCC score {data.ncc[0]:g}")
    found, trend = _find(table, trends[0]), trends[0]
    populations = _told_apart(found) if table.alone else {}
    validation: dict[str, Any] = {}
    if len(trends) == 2 and _may_bend(found, trends):
        validation = _validated(table, found, trends)
        if validation["chosen"] == "spline":
            trend = trends[1]
            found = _find(table, trend)
    report = {
        "starts": found.starts,
        "iterations": found.fitted.iterations,
        "converged": found.fitted.converged,
        "log_likelihood": found.fitted.log_likelihood,
        "trend": "spline" if trend.knots else "line" if trend.degree == 1 else "parabola",
        "cross_validation": validation,
        "micrographs": int((found.data.per_micrograph() > 0).sum()),
        "picks": count,
        "particles": float(found.shares[PARTICLE].sum()),
        "junk": float(found.shares[JUNK].sum()),
        "slopes": _slopes(found, trend, settings),
    }
    report["doubts"] = doubts_of(found, report)
    if populations:
        report["populations"] = populations
    model = Model(found.fitted.mixture, trend, table.radius, decoys, verdict_of(found, report, decoys), report)
    known = table.level[np.isfinite(table.level)]
    level = float(np.median(known)) if len(known) else float("nan")
    return replace(model, rates=_rates(found, model, micrographs), level=level, leak=table.leak)


def _find(table: Table, trend: Trend) -> Found:
    """Noise from decoys, then EM, in rounds."""
    data = table.observed(trend)
    decoys = table.observed(trend, "decoy_") if table.decoys else None
    likely: Floats = np.zeros(len(data.ncc))
    if decoys is not None:
        # to begin with: what scores above 99 % of the decoys, the highest first
        certain = float(np.quantile(decoys.ncc, 0.99))
        likely = np.where(data.ncc > certain, 1 - np.exp(-data.ncc / certain), 0.0)
    between = valley(data.ncc) if decoys is None else None
    fitted: Fitted | None = None
    starts: list[dict[str, Any]] = []
    for _ in range(ROUNDS):
        data = replace(data, shadowed=in_shadow(data, likely, table.radius))
        if decoys is not None:
            decoys = replace(decoys, weight=_enough(off_particles(decoys, data, likely, table.radius)))
        if fitted is None:
            fitted, starts = from_starts(table.junk, data, decoys, between)
        else:
            fitted = expectation_maximisation(data, _with_noise(fitted.mixture, decoys), free_noise=decoys is None)
        shares = fitted.shares(data)
        likely = shares[PARTICLE]
    assert fitted is not None
    return Found(fitted, data, shares, decoys, starts, between)


def _enough(weight: Floats) -> Floats:
    """Raise the weights of decoys where hardly any is off the particles: biased noise is better than none."""
    least = min(LEAST_OFF, len(weight))
    return weight + max(0.0, least - float(weight.sum())) / max(len(weight), 1)


def _with_noise(mixture: Mixture, decoys: Observations | None) -> Mixture:
    """Give a mixture the noise of some decoys, where there are any; what holds in the shadow of picks stays."""
    if decoys is None:
        return mixture
    old = mixture.noise
    shadow = {name: getattr(old, name) for name in NOISE_NUMBERS if name.startswith("shadow")}
    return replace(mixture, noise=replace(fit_noise(decoys), **shadow))


def _told_apart(found: Found) -> dict[str, Any]:
    """Numbers by which scores alone hold two populations.

    Raises
    ------
    NotFitted
        If they do not: no valley between two humps, and two populations explain hardly more than one skewed hump.
    """
    mixture, data, between = found.fitted.mixture, found.data, found.between
    design, remedy = (
        data.design,
        "thresholds on the calibrated score remain; 'pickcal score' adds a power score, given the images",
    )
    near = design @ mixture.particles.ncc < mixture.particles.mean(design, mixture.noise)
    width = float(
        np.sqrt(0.5 * np.exp(2 * np.array([mixture.noise.deviation[0], mixture.particles.deviation[0]])).sum())
    )
    apart = float(mixture.particles.ncc[0] - mixture.noise.mean[0]) / width
    if apart < SEPARATION or near.mean() > 0.5:
        raise NotFitted(
            f"not fitted: one hump: two populations would lie {apart:.1f} deviations apart, less than {SEPARATION:g} "
            f"or nearly so on {int(near.sum())} of {len(design)} micrographs, and cannot be told apart; {remedy}"
        )
    if between is not None and astride(mixture, between):
        return {"valley": between.score, "depth": between.depth, "errors": between.errors, "apart": apart}
    part = float(found.shares[PARTICLE].mean())
    if part < LEAST_PARTICLES:
        raise NotFitted(
            f"not fitted: one hump with a tail: no valley between two humps, and only {part:.1%} of the picks would be "
            f"particles, which cannot be told from the tail of one population; {remedy}"
        )
    gain, least = gain_over_one_hump(data, mixture), max(GAIN, LEAST_GAIN / len(data.ncc))
    if gain < least:
        raise NotFitted(
            "not fitted: one hump: noise and particles cannot be told apart, or too few low scores were kept to know "
            f"the noise (two populations gain {gain:.4f} in log likelihood per pick over one skewed hump, "
            f"{least:.4f} are needed); {remedy}"
        )
    return {"gain": gain, "apart": apart}


def _may_bend(found: Found, trends: list[Trend]) -> bool:
    filled = int((found.data.per_micrograph() > 0).sum())
    return bool(trends[1].knots) and filled >= LEAST_FOR_SPLINE


def _validated(table: Table, found: Found, trends: list[Trend]) -> dict[str, Any]:
    """Hold line against spline on micrographs that neither has seen: gain in log likelihood per micrograph."""
    rows = some_micrographs(found.data, VALIDATION_PICKS)
    fold = np.random.default_rng(1).permutation(len(rows)) % FOLDS
    scores = []
    for trend in trends:
        data = replace(table.observed(trend), shadowed=found.data.shadowed)
        decoys = None
        if found.decoys is not None:
            decoys = replace(table.observed(trend, "decoy_"), weight=found.decoys.weight)
        held = np.zeros(len(rows))
        for k in range(FOLDS):
            train, test = rows[fold != k], rows[fold == k]
            mixture = _bent(found.fitted.mixture, trends[0].terms, trend.terms)
            mixture = _with_noise(mixture, None if decoys is None else decoys.taken(train))
            fitted = expectation_maximisation(data.taken(train), mixture, free_noise=decoys is None, iterations=40)
            held[fold == k] = _likelihood(data.taken(test), fitted.mixture)
        scores.append(held)
    gain = scores[1] - scores[0]
    error = float(gain.std(ddof=1) / np.sqrt(len(gain)))
    mean = float(gain.mean())
    return {"gain": mean, "error": error, "micrographs": len(gain), "chosen": "spline" if mean > 2 * error else "line"}


def _bent(mixture: Mixture, old: list[str], new: list[str]) -> Mixture:
    """Give a mixture the terms of another trend: those it has by name, the others begin at 0."""

    def longer(values: Floats) -> Floats:
        known = dict(zip(old, values, strict=True))
        return np.array([known.get(term, 0.0) for term in new])

    noise, particles = mixture.noise, mixture.particles
    return replace(
        mixture,
        noise=replace(noise, mean=longer(noise.mean), deviation=longer(noise.deviation)),
        particles=replace(
            particles,
            ncc=longer(particles.ncc),
            power=longer(particles.power),
            deviation=longer(particles.deviation),
        ),
    )


def _likelihood(data: Observations, mixture: Mixture) -> Floats:
    """Log likelihood of each micrograph at the fractions that suit it best."""
    densities = mixture.log_densities(data)
    start = np.tile(mixture.fractions, (len(data.design), 1))
    lit = ~data.shadowed
    fractions = micrograph_fractions(densities[:, lit], data.index[lit], start, mixture.fractions)
    with np.errstate(divide="ignore"):
        joint = densities + np.log(np.vstack([fractions, mixture.shadow])[data.cell]).T
    return data.per_micrograph(np.logaddexp.reduce(joint, axis=0))


def _slopes(found: Found, trend: Trend, settings: CalibrateSettings) -> dict[str, Any]:
    """Slope at the reference of both means of the particles, with intervals by bootstrap over micrographs."""
    particles, at = found.fitted.mixture.particles, trend.slope_at_reference()
    out: dict[str, Any] = {"ncc": {"slope": float(at @ particles.ncc)}, "power": {"slope": float(at @ particles.power)}}
    rows = some_micrographs(found.data, RESAMPLE_PICKS)
    if not settings.bootstrap or len(rows) < 4:
        return out
    rng = np.random.default_rng(2)
    drawn = []
    for _ in range(min(RESAMPLES, settings.bootstrap)):
        chosen = np.sort(rng.choice(rows, len(rows)))
        # of their own decoys as well: the noise is not known any better than the particles
        start = _with_noise(found.fitted.mixture, None if found.decoys is None else found.decoys.taken(chosen))
        part = found.data.taken(chosen)
        fitted = expectation_maximisation(part, start, free_noise=found.decoys is None, iterations=40)
        drawn.append([at @ fitted.mixture.particles.ncc, at @ fitted.mixture.particles.power])
    # the resamples hold some of the micrographs with picks only
    shrink = np.sqrt(len(rows) / max(int((found.data.per_micrograph() > 0).sum()), 1))
    half = ndtri(0.5 + 0.5 * settings.confidence) * np.std(drawn, axis=0, ddof=1) * shrink
    for name, width in zip(("ncc", "power"), half, strict=True):
        out[name]["interval"] = [out[name]["slope"] - float(width), out[name]["slope"] + float(width)]
    return out


def doubts_of(found: Found, report: dict[str, Any]) -> list[str]:
    """Why what was taken for particles may be none, in words."""
    words = []
    mixture, particles = found.fitted.mixture, report["particles"]
    if particles < 20 or particles < min(PRIOR * len(found.data.design), 200.0):
        words.append(f"hardly any particles ({particles:.0f} expected): probabilities rest on little")
    if found.data.power is not None:
        power = float(np.exp(mixture.particles.power[0] - mixture.noise.power_mean))
        if power > MOST_POWER:
            words.append(
                f"particles would have {power:.0f} times the power of the noise ({particles:.0f} of {report['picks']} "
                "picks), as ice, carbon and gold have: look at some of them before they are used"
            )
    return words


def verdict_of(found: Found, report: dict[str, Any], decoys: bool) -> str:
    """How the fit went, in words: its doubts first."""
    words = list(report["doubts"])
    mixture, design = found.fitted.mixture, found.data.design
    if not found.fitted.converged:
        words.append(f"EM did not converge in {found.fitted.iterations} steps")
    held = design @ mixture.particles.ncc < mixture.particles.mean(design, mixture.noise)
    if held.any():
        words.append(
            f"on {int(held.sum())} of {len(design)} micrographs particles score less than {SEPARATION:g} deviations "
            "above the noise and are hard to tell from it"
        )
    reached = [start["log_likelihood"] for start in found.starts]
    if max(reached) - min(reached) > 10:
        taken = "the likeliest is taken"
        if not all(start.get("astride", True) for start in found.starts):
            taken += " that has noise and particles on either side of the valley between two humps"
        words.append(f"not all starts led to one solution; {taken}")
    if not decoys:
        tied = float((found.data.ncc == found.data.ncc.min()).mean())
        if tied > 0.05:
            words.append(f"{tied:.0%} of the picks share the lowest score: the noise below it is unknown")
        if found.data.power is None:
            words.append(
                "no power score: junk cannot be told from particles ('pickcal score' adds one, given the images)"
            )
        words.append("no decoys: the noise is a Gaussian fitted to the low scores, false discovery rates are rough")
    return "; ".join(words) or "converged, all starts to one solution"


def _rates(found: Found, model: Model, micrographs: xr.Dataset) -> xr.Dataset:
    defocus = np.nan_to_num(mean_defocus(micrographs), nan=model.trend.reference)
    scores: Floats = np.zeros(0)
    weight: Floats = np.zeros(0)
    if found.decoys is not None:
        scores, weight = decoy_probabilities(found.decoys, model, found.fitted.fractions), found.decoys.weight
    return false_discovery_rates(found.shares, defocus, found.data.index, scores, weight)
