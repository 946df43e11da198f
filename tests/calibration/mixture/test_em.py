"""Expectation-maximisation against loops over picks, against labelled data, and its invariances."""

import warnings
from dataclasses import replace

import numpy as np
import pytest
from planted import DIAMETER, JUNK, PARTICLE, plant, straight
from scipy.optimize import minimize_scalar
from scipy.stats import gamma, norm

from pickcal.calibration.mixture.components import SEPARATION, Junk, Mixture, Particles
from pickcal.calibration.mixture.em import (
    CORRELATION,
    PRIOR,
    RIDGE,
    SPREAD_RIDGE,
    expectation_maximisation,
    micrograph_fractions,
    shares_of,
)
from pickcal.calibration.mixture.noise import GRID, Noise, fit_noise, gaussian_shape
from pickcal.calibration.mixture.observations import SHADOW, Observations, flattened, power_levels
from pickcal.calibration.trends import Trend

NOISE_DENSITY = Noise(
    np.array([0.2, 0.01]), np.array([-3.5, 0.1]), gaussian_shape(), 0.02, 0.03, 0.15, -0.3, 0.9, 0.05, 0.2
)
START = Mixture(
    NOISE_DENSITY,
    Particles(
        np.array([0.29, 0.02]), np.array([0.3, 0.0]), np.array([-3.4, 0.0]), 1.0, 0.25, np.array([0.0, 0.005, 0.0])
    ),
    Junk(0.4),
    np.array([0.6, 0.3, 0.1]),
    np.array([0.9, 0.06, 0.04]),
)


def two_hundred(seed=0):
    """Picks of eight micrographs, one of them empty: noise, particles, junk, some in the shadow, three templates.

    The columns of the design have deviation 1, so that it does not matter what a ridge is measured in.
    """
    rng = np.random.default_rng(seed)
    um = rng.normal(size=8)
    design = np.column_stack([np.ones(8), (um - um.mean()) / um.std()])
    index = np.sort(rng.choice([0, 1, 2, 3, 5, 6, 7], 200))
    kind = rng.choice(3, 200, p=[0.55, 0.35, 0.1])
    ncc = np.choose(kind, [rng.normal(0.2, 0.03, 200), rng.normal(0.29, 0.035, 200), rng.normal(0.2, 0.07, 200)])
    power = np.choose(kind, [rng.normal(0, 0.15, 200), rng.normal(0.35, 0.25, 200), rng.gamma(3, 0.5, 200)])
    shadowed = (rng.random(200) < 0.5) & (kind != PARTICLE)
    template = rng.integers(-1, 3, 200)
    return Observations(ncc, power, index, design, np.zeros((200, 2)), template, shadowed, np.ones(200), np.zeros(200))


def densities_by_loop(data, mixture, i):
    """Densities of noise, particle and junk at one pick, by scipy."""
    row, noise, particles = data.design[data.index[i]], mixture.noise, mixture.particles
    mean, scale = row @ noise.mean, np.exp(row @ noise.deviation)
    z, power = (data.ncc[i] - mean) / scale, None if data.power is None else data.power[i]
    if data.shadowed[i]:
        of_noise = norm.pdf(z, noise.shadow_mean, noise.shadow_deviation) / scale
        of_noise *= 1 if power is None else norm.pdf(power, noise.shadow_power_mean, noise.shadow_power_deviation)
    else:
        of_noise = np.exp(np.interp(z, GRID, noise.shape)) / scale
        level = noise.power_mean + noise.power_slope * z
        of_noise *= 1 if power is None else norm.pdf(power, level, noise.power_deviation)
    residual = residual_by_loop(data, particles, noise, i)
    of_particle = norm.pdf(residual, 0, np.exp(row @ particles.deviation))
    of_junk = 0.0
    if power is not None:
        if data.shadowed[i]:
            level, spread = noise.shadow_power_mean, noise.shadow_power_deviation
        else:
            spread = noise.power_deviation
        of_power = norm(row @ particles.power + particles.slope * residual, particles.power_deviation)
        of_particle *= falling(of_power, norm(level, spread), power)
        if mixture.junk is not None:
            of_junk = norm.pdf(z, 0, 2.5) / scale * gamma.pdf(power - noise.power_mean, 3, scale=mixture.junk.scale)
    return np.array([of_noise, of_particle, of_junk])


def falling(particles, noise, power):
    """Density of particles at a power, held at its least share of the noise's below where that is: found by search."""
    if particles.std() <= noise.std():
        return particles.pdf(power)
    far = 60 * noise.std()
    least = minimize_scalar(
        lambda at: particles.logpdf(at) - noise.logpdf(at),
        bounds=(noise.mean() - far, noise.mean() + far),
        method="bounded",
        options={"xatol": 1e-9},
    )
    return noise.pdf(power) * np.exp(least.fun) if power < least.x else particles.pdf(power)


def residual_by_loop(data, particles, noise, i):
    row = data.design[data.index[i]]
    mean = max(row @ particles.ncc, row @ noise.mean + SEPARATION * np.exp(row @ noise.deviation))
    offset = 0.0
    if len(particles.offsets) and data.template is not None and data.template[i] >= 0:
        offset = particles.offsets[data.template[i]]
    return data.ncc[i] - mean - offset


def expectation_by_loop(data, mixture, fractions):
    """Shares `(3, n)` and the log likelihood; the last row of the fractions holds in the shadow."""
    shares, likelihood = np.zeros((3, len(data.ncc))), 0.0
    for i in range(len(data.ncc)):
        cell = len(data.design) if data.shadowed[i] else data.index[i]
        joint = densities_by_loop(data, mixture, i) * fractions[cell]
        shares[:, i] = joint / joint.sum()
        likelihood += np.log(joint.sum())
    return shares, likelihood


def ridged(rows, targets, weights, pull):
    """Least squares over picks, every coefficient but the constant pulled to 0."""
    root = np.sqrt(weights)
    more = np.sqrt(pull) * np.eye(rows.shape[1])[1:]
    left = np.vstack([rows * root[:, None], more])
    return np.linalg.lstsq(left, np.r_[targets * root, np.zeros(len(more))], rcond=None)[0]


def maximisation_by_loop(data, shares, mixture):
    """One M step from the definitions, pick by pick."""
    n, noise, old = len(data.ncc), mixture.noise, mixture.particles
    cells = [len(data.design) if data.shadowed[i] else data.index[i] for i in range(n)]
    fractions = np.zeros((len(data.design) + 1, 3))
    lit = ~data.shadowed
    mean = shares[:, lit].sum(axis=1) / lit.sum()
    for cell in range(len(data.design) + 1):
        mine = [i for i in range(n) if cells[i] == cell]
        fractions[cell] = (shares[:, mine].sum(axis=1) + PRIOR * mean) / (len(mine) + PRIOR)
    dark = np.flatnonzero(data.shadowed)
    share = shares[0, dark]
    z = np.array([(data.ncc[i] - row @ noise.mean) / np.exp(row @ noise.deviation)
                  for i, row in zip(dark, data.design[data.index[dark]], strict=True)])  # fmt: skip
    assert share.sum() > 50
    centre, level = np.average(z, weights=share), np.average(data.power[dark], weights=share)
    width = np.sqrt(np.average((data.power[dark] - level) ** 2, weights=share))
    noise = replace(
        noise,
        shadow_mean=min(centre, 0),
        shadow_deviation=np.clip(np.sqrt(np.average((z - centre) ** 2, weights=share)), 0.5, 1.5),
        shadow_power_mean=level,
        shadow_power_deviation=np.clip(width, noise.power_deviation, 2 * noise.power_deviation),
    )
    weight, rows = shares[1], data.design[data.index]
    deviation = np.exp(data.design @ old.deviation)
    held = data.design @ old.ncc < data.design @ noise.mean + SEPARATION * np.exp(data.design @ noise.deviation)
    offset = np.array([old.offsets[t] if t >= 0 else 0.0 for t in data.template])
    counts = weight * ~held[data.index] / deviation[data.index] ** 2
    ncc = ridged(rows, data.ncc - offset, counts, RIDGE * np.mean(deviation**-2.0))
    found = replace(old, ncc=ncc, offsets=np.zeros(3))
    offsets = np.zeros(3)
    for t in range(3):
        mine = [i for i in range(n) if data.template[i] == t]
        above = sum(weight[i] * residual_by_loop(data, found, noise, i) for i in mine)
        offsets[t] = above / (weight[mine].sum() + 20)
    found = replace(found, offsets=offsets)
    residual = np.array([residual_by_loop(data, found, noise, i) for i in range(n)])
    score, information = np.zeros(2), np.zeros((2, 2))
    for i in range(n):
        score += weight[i] * (residual[i] ** 2 / deviation[data.index[i]] ** 2 - 1) * rows[i]
        information += 2 * weight[i] * np.outer(rows[i], rows[i])
    score[1] -= SPREAD_RIDGE * weight.sum() * old.deviation[1]
    information[1, 1] += SPREAD_RIDGE * weight.sum()
    step = np.linalg.solve(information, score)
    assert np.abs(data.design @ step).max() < 0.5 and np.abs(step).max() < 0.5
    slope = old.slope
    for _ in range(3):
        power = ridged(rows, data.power - slope * residual, weight, RIDGE)
        above = data.power - rows @ power
        slope = (weight * residual * above).sum() / (weight * residual**2).sum()
        most = CORRELATION * np.sqrt((weight * above**2).sum() / (weight * residual**2).sum())
        slope = min(max(slope, -most), most)
    rest = data.power - rows @ power - slope * residual
    spread = np.sqrt((weight * rest**2).sum() / weight.sum())
    total = shares[2].sum()
    above = (shares[2] * (data.power - noise.power_mean)).sum() / 3
    junk = Junk(float(np.clip((above + 10 * 0.5) / (total + 10), 0.2, 1.5)))
    particles = Particles(ncc, power, old.deviation + step, slope, spread, offsets)
    return Mixture(noise, particles, junk, mean, fractions[-1]), fractions


def starting_fractions(data, mixture):
    return np.vstack([np.tile(mixture.fractions, (len(data.design), 1)), mixture.shadow])


@pytest.mark.parametrize("seed", range(3))
def test_one_step_is_that_of_a_loop_over_picks(seed):
    data = two_hundred(seed)
    shares, _ = expectation_by_loop(data, START, starting_fractions(data, START))
    expected, fractions = maximisation_by_loop(data, shares, START)
    found = expectation_maximisation(data, START, iterations=1)
    assert found.iterations == 1 and not found.converged
    for part in ("ncc", "power", "deviation", "slope", "power_deviation", "offsets"):
        ours, theirs = getattr(found.mixture.particles, part), getattr(expected.particles, part)
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6, err_msg=part)
    for part in ("shadow_mean", "shadow_deviation", "shadow_power_mean", "shadow_power_deviation"):
        assert getattr(found.mixture.noise, part) == pytest.approx(getattr(expected.noise, part), rel=1e-9), part
    assert found.mixture.junk.scale == pytest.approx(expected.junk.scale)
    np.testing.assert_allclose(found.mixture.fractions, expected.fractions)
    np.testing.assert_allclose(found.mixture.shadow, expected.shadow)
    np.testing.assert_allclose(found.fractions, fractions[:-1])


def test_shares_and_likelihood_are_those_of_a_loop():
    data = two_hundred(5)
    fractions = starting_fractions(data, START)
    expected, likelihood = expectation_by_loop(data, START, fractions)
    shares, total = shares_of(START.log_densities(data), fractions[data.cell])
    np.testing.assert_allclose(shares, expected, rtol=1e-3, atol=1e-6)
    assert total == pytest.approx(likelihood, abs=0.05)


def test_less_power_never_makes_a_pick_more_of_a_particle():
    """Particles' power is three times as wide as that of noise: far below both, their Gaussian alone would prevail."""
    wide = replace(START.particles, power_deviation=0.45)
    data = replace(two_hundred(2), power=np.full(200, 0.3))
    odds = []
    for power in np.linspace(0.6, -3.0, 60):
        data = replace(data, power=np.full(200, power))
        odds.append(wide.log_density(data, NOISE_DENSITY) - NOISE_DENSITY.log_density(data))
    assert (np.diff(odds, axis=0) <= 1e-9).all()
    assert (odds[0] - odds[-1] > 1).all()


def observed(planted, degree=1, covariates=(), with_template=False):
    trend = Trend.of(planted.micrographs, 17_500.0, degree, covariates)
    level, decoys = power_levels(planted.picks, planted.plan.decoys, SHADOW * DIAMETER), None
    design = trend.design(planted.micrographs)
    if planted.plan.decoys:
        decoys = flattened(planted.picks, design, level, "decoy_")
    return flattened(planted.picks, design, level, with_template=with_template), decoys


def start_for(noise, offset=2.5, junk=True, templates=0):
    first = np.eye(len(noise.mean))[0]
    particles = Particles(
        noise.mean + first * offset * np.exp(noise.deviation[0]),
        first * 0.3,
        noise.deviation * first,
        0.0,
        0.3,
        np.zeros(templates),
    )
    fractions = np.array([0.7, 0.25, 0.05 * junk])
    return Mixture(noise, particles, Junk() if junk else None, fractions, fractions)


def likelihood_of(data, fitted):
    """Of all picks, from normal distributions."""
    cells = np.vstack([fitted.fractions, fitted.mixture.shadow])
    logs = fitted.mixture.log_densities(data)
    with np.errstate(divide="ignore"):
        return float(np.logaddexp.reduce(logs + np.log(cells[data.cell]).T, axis=0).sum())


@pytest.mark.parametrize(
    ("changes", "free"),
    [
        ({}, False),
        ({"junk_count": straight(6.0, 2.0), "particle_count": straight(40.0, 25.0)}, False),
        ({"power": False, "particle_mean": straight(0.27, 0.03)}, False),
        ({"decoys": False}, True),
        ({"decoys": False, "power": False}, True),
    ],
)
def test_the_likelihood_never_falls(changes, free):
    """Recomputed after every step. Priors and ridges may cost it a hundredth of what convergence is judged by."""
    planted = plant(micrographs=20, seed=2, **changes)
    data, decoys = observed(planted)
    low = Noise(np.array([0.19, 0.0]), np.array([-3.5, 0.0]), gaussian_shape(), 0.0, 0.0, 0.2)
    start = start_for(low if free else fit_noise(decoys), junk=planted.plan.power)
    path = [
        likelihood_of(data, expectation_maximisation(data, start, free_noise=free, iterations=k, tolerance=-np.inf))
        for k in range(1, 40)
    ]
    assert np.diff(path).min() > -1e-4 * len(data.ncc)
    assert path[-1] > path[0] + 1
    done = expectation_maximisation(data, start, free_noise=free)
    assert done.converged
    assert done.log_likelihood == pytest.approx(likelihood_of(data, done), abs=1e-6)
    assert done.log_likelihood > max(path) - 1e-4 * len(data.ncc)


def test_planted_parameters_come_back():
    """Well apart: within four standard errors of what the labels give, which are within four of what was planted."""
    planted = plant(
        micrographs=120,
        particle_mean=straight(0.34, 0.04),
        particle_power=straight(0.8, 0.2),
        slope=2.0,
        junk_count=straight(8.0),
        junk_scale=0.7,
    )
    data, decoys = observed(planted)
    fitted = expectation_maximisation(data, start_for(fit_noise(decoys), 4.0))
    found, label = fitted.mixture.particles, planted.kind[planted.kind >= 0]
    mine = label == PARTICLE
    n, um = mine.sum(), planted.um[data.index[mine]]
    of_labels = np.polynomial.polynomial.polyfit(um, data.ncc[mine], 1)
    error = 0.034 / np.sqrt(n) * np.array([1.0, 1 / um.std()])
    assert (np.abs(found.ncc - of_labels) < 4 * error).all()
    assert (np.abs(found.ncc - [0.34, 0.04]) < 4 * error).all()
    error = 0.22 / np.sqrt(n) * np.array([1.0, 1 / um.std()])
    assert (np.abs(found.power - np.polynomial.polynomial.polyfit(um, data.power[mine], 1)) < 4 * error).all()
    assert found.power[1] == pytest.approx(0.2, abs=4 * error[1])
    error = 1 / np.sqrt(2 * n) * np.array([1.0, 1 / um.std()])
    # the trend of the spread is pulled to nothing, by less than half
    assert found.deviation[0] == pytest.approx(np.log(0.032), abs=4 * error[0] + 0.01)
    assert 0.5 * 0.15 - 4 * error[1] < found.deviation[1] < 0.15 + 4 * error[1]
    assert found.slope == pytest.approx(2.0, abs=4 * 0.2 / 0.033 / np.sqrt(n))
    assert found.power_deviation == pytest.approx(0.2, rel=4 / np.sqrt(2 * n))
    assert fitted.mixture.junk.scale == pytest.approx(0.7, rel=4 / np.sqrt(3 * (label == JUNK).sum()))
    for component in range(3):
        true = np.array([(planted.kind[i] == component).sum() for i in range(120)])
        expected = fitted.fractions[:, component] * (planted.kind >= 0).sum(axis=1)
        assert np.abs(expected - true).mean() < 2
        assert fitted.mixture.fractions[component] == pytest.approx((label == component).mean(), abs=0.01)


def test_template_offsets_come_back():
    planted = plant(micrographs=80, particle_mean=straight(0.34, 0.04), template_offsets=(0.03, 0.0, -0.03))
    data, decoys = observed(planted, with_template=True)
    found = expectation_maximisation(data, start_for(fit_noise(decoys), 4.0, templates=3)).mixture.particles
    n = (planted.kind == PARTICLE).sum() / 3
    np.testing.assert_allclose(
        found.offsets - found.offsets.mean(), [0.03, 0, -0.03], atol=4 * 0.035 / np.sqrt(n) + 0.03 * 20 / n
    )
    assert found.ncc[0] + found.offsets.mean() == pytest.approx(0.34, abs=0.003)


def test_a_bent_deviation_trend_comes_back():
    planted = plant(
        micrographs=120, particle_mean=straight(0.36, 0.03), particle_deviation=straight(np.log(0.03), 0.3, -0.1)
    )
    data, decoys = observed(planted, degree=2)
    found = expectation_maximisation(data, start_for(fit_noise(decoys), 4.0)).mixture.particles
    assert found.deviation[0] == pytest.approx(np.log(0.03), abs=0.1)
    assert 0.15 < found.deviation[1] < 0.35 and -0.15 < found.deviation[2] < 0


@pytest.mark.parametrize("junk", [True, False])
def test_the_order_of_micrographs_does_not_matter(junk):
    planted = plant(micrographs=25, seed=3, junk_count=straight(4.0))
    data, decoys = observed(planted)
    start = start_for(fit_noise(decoys), junk=junk)
    order = np.random.default_rng(0).permutation(25)
    one, other = (expectation_maximisation(d, start) for d in (data, data.taken(order)))
    np.testing.assert_allclose(other.fractions, one.fractions[order], atol=1e-6)
    np.testing.assert_allclose(other.mixture.particles.ncc, one.mixture.particles.ncc, rtol=1e-6)
    assert other.log_likelihood == pytest.approx(one.log_likelihood, rel=1e-9)


def test_fractions_of_single_micrographs_are_those_of_a_loop():
    """EM with the prior, one micrograph after the other; one of them is empty."""
    rng = np.random.default_rng(0)
    index = np.sort(rng.choice([0, 1, 3], 60))
    logs = rng.normal(size=(3, 60)) * 2
    mean = np.array([0.6, 0.3, 0.1])
    found = micrograph_fractions(logs, index, np.tile(mean, (4, 1)), mean, iterations=500, tolerance=0.0)
    for m in range(4):
        mine, fractions = np.exp(logs[:, index == m]), mean.copy()
        for _ in range(500):
            joint = mine * fractions[:, None]
            fractions = ((joint / joint.sum(axis=0)).sum(axis=1) + PRIOR * mean) / (mine.shape[1] + PRIOR)
        np.testing.assert_allclose(found[m], fractions, atol=1e-9)


def test_scores_far_from_everything_break_nothing():
    """A score of a billion, and a micrograph of which all picks are junk."""
    data = two_hundred(1)
    ncc, power = data.ncc.copy(), data.power.copy()
    ncc[3], power[5] = 1e9, 50.0
    power[data.index == 2] = 30.0
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fitted = expectation_maximisation(replace(data, ncc=ncc, power=power), START, iterations=20)
    assert np.isfinite(fitted.log_likelihood) and np.isfinite(fitted.fractions).all()


def test_equal_scores_are_no_population_of_width_nothing():
    """A quarter of the scores saturates at one value, as confidences of networks do: no infinite likelihood there."""
    planted = plant(micrographs=20)
    data, decoys = observed(planted)
    top = float(np.quantile(data.ncc, 0.75))
    capped = replace(data, ncc=np.minimum(data.ncc, top))
    noise = fit_noise(decoys)
    fitted = expectation_maximisation(capped, start_for(noise))
    narrowest = np.exp(capped.design @ fitted.mixture.particles.deviation).min()
    assert narrowest > 0.02 * float(noise.scale(capped.design).min())
