"""The noise component: tabulated densities against known ones, planted trends."""

import numpy as np
import pytest
from planted import DIAMETER, plant, straight
from scipy.stats import gamma, gumbel_r, laplace, norm

from pickcal.calibration.mixture.noise import GRID, Noise, fit_noise, gaussian_shape, log_shape, tabulated
from pickcal.calibration.mixture.observations import SHADOW, Observations, flattened, power_levels
from pickcal.calibration.trends import Trend


def standard(distribution):
    """The same distribution with mean 0 and deviation 1."""
    mean, deviation = distribution.mean(), distribution.std()
    kind, arguments = distribution.dist, distribution.args
    return kind(*arguments, loc=-mean / deviation, scale=1 / deviation)


DENSITIES = {"gaussian": norm(), "gumbel": standard(gumbel_r()), "skewed": standard(gamma(4))}


@pytest.mark.parametrize("name", DENSITIES)
def test_a_known_density_is_tabulated(name):
    """Within the wobble of 20,000 scores and the blur of the kernel; where it is high, within a tenth of itself."""
    known = DENSITIES[name]
    z = known.rvs(20_000, random_state=np.random.default_rng(3))
    found = np.exp(tabulated(z, np.ones(len(z))))
    expected = known.pdf(GRID)
    assert np.abs(found - expected).max() < 0.04
    high = expected > 0.06
    np.testing.assert_allclose(found[high], expected[high], rtol=0.2)
    # as far out as one score in 10,000, where the exponential tail stands for the density
    far = (known.ppf(0.99) < GRID) & (known.ppf(0.9999) > GRID)
    assert np.abs(np.log(found[far] / expected[far])).max() < 1.0


@pytest.mark.parametrize("name", DENSITIES)
def test_the_density_integrates_to_one(name):
    z = DENSITIES[name].rvs(3000, random_state=np.random.default_rng(4))
    shape = tabulated(z, np.ones(len(z)))
    fine = np.linspace(-30, 60, 900_001)
    assert np.trapezoid(np.exp(log_shape(fine, shape)), fine) == pytest.approx(1, abs=2e-3)


def test_weights_are_as_good_as_copies_and_zero_as_good_as_absence():
    rng = np.random.default_rng(5)
    z = rng.standard_normal(1000)
    twice = np.where(np.arange(1000) < 300, 2.0, 1.0)
    np.testing.assert_allclose(tabulated(z, twice), tabulated(np.r_[z, z[:300]], np.ones(1300)), rtol=1e-6, atol=1e-6)
    stray = np.r_[z, rng.normal(6, 0.1, 500)]
    np.testing.assert_allclose(tabulated(stray, np.r_[np.ones(1000), np.zeros(500)]), tabulated(z, np.ones(1000)))


@pytest.mark.parametrize(
    ("known", "upper", "lower"),
    [(DENSITIES["gumbel"], np.pi / np.sqrt(6), None), (standard(laplace()), 2**0.5, 2**0.5)],
)
def test_tails_fall_at_the_known_rate(known, upper, lower):
    """Of Gumbel and Laplace scores, whose tails are exponential; from 200 scores the rate is known to 7 %."""
    z = known.rvs(30_000, random_state=np.random.default_rng(6))
    shape = tabulated(z, np.ones(len(z)))
    step = GRID[1] - GRID[0]
    assert (shape[-20] - shape[-1]) / (19 * step) == pytest.approx(upper, rel=0.2)
    if lower:
        assert (shape[19] - shape[0]) / (19 * step) == pytest.approx(lower, rel=0.2)


def test_beyond_the_table_the_density_goes_on_without_a_step():
    shape = tabulated(DENSITIES["gumbel"].rvs(5000, random_state=np.random.default_rng(7)), np.ones(5000))
    np.testing.assert_allclose(log_shape(GRID, shape), shape, rtol=1e-12)
    middles = 0.5 * (GRID[1:] + GRID[:-1])
    np.testing.assert_allclose(log_shape(middles, shape), 0.5 * (shape[1:] + shape[:-1]), rtol=1e-9)
    for end, slope in ((GRID[-1], shape[-1] - shape[-2]), (GRID[0], shape[1] - shape[0])):
        near = log_shape(np.array([end - 1e-9, end, end + 1e-9]), shape)
        assert np.ptp(near) < 1e-6
        outward = np.sign(end)
        beyond = log_shape(end + outward * np.array([1.0, 2.0, 50.0]), shape)
        at = log_shape(np.array([end]), shape)
        np.testing.assert_allclose(beyond, at + outward * slope / 0.05 * np.array([1, 2, 50]), rtol=1e-6)
        assert (np.diff(beyond) < 0).all()


def test_a_gaussian_shape_is_gaussian():
    np.testing.assert_allclose(gaussian_shape(), -0.5 * GRID**2 - 0.5 * np.log(2 * np.pi))


def decoys_of(planted):
    trend = Trend.of(planted.micrographs, 17_500.0)
    level = power_levels(planted.picks, True, SHADOW * DIAMETER)
    return flattened(planted.picks, trend.design(planted.micrographs), level, "decoy_")


def test_planted_trends_come_back():
    """Mean and deviation of both scores; errors as counting statistics give them, four times."""
    planted = plant(micrographs=80, noise_mean=straight(0.2, 0.015), noise_deviation=straight(np.log(0.03), 0.2))
    decoys = decoys_of(planted)
    found = fit_noise(decoys)
    n = len(decoys.ncc)
    spread = np.std(planted.um)
    np.testing.assert_allclose(found.mean, [0.2, 0.015], atol=4 * 0.03 / np.sqrt(n) / spread)
    np.testing.assert_allclose(found.deviation, [np.log(0.03), 0.2], atol=4 / np.sqrt(2 * n) / spread)
    assert found.power_slope == pytest.approx(0.03, abs=4 * 0.15 / np.sqrt(n))
    assert found.power_deviation == pytest.approx(0.15, rel=0.05)


def test_decoys_without_weight_do_not_count():
    """A third of the decoys lie on particles' fringes: higher and stronger, but known to be there."""
    planted = plant(micrographs=60)
    decoys = decoys_of(planted)
    clean = fit_noise(decoys)
    rng = np.random.default_rng(0)
    bad = rng.random(len(decoys.ncc)) < 1 / 3
    ncc, power = np.where(bad, decoys.ncc + 0.1, decoys.ncc), np.where(bad, decoys.power + 0.5, decoys.power)
    soiled = Observations(
        ncc,
        power,
        decoys.index,
        decoys.design,
        decoys.position,
        None,
        decoys.shadowed,
        (~bad).astype(float),
        decoys.leak,
    )
    found = fit_noise(soiled)
    np.testing.assert_allclose(found.mean, clean.mean, atol=0.002)
    np.testing.assert_allclose(found.deviation, clean.deviation, atol=0.05)
    assert found.power_mean == pytest.approx(clean.power_mean, abs=0.02)


def test_few_decoys_a_micrograph_are_enough_if_there_are_many_micrographs():
    """Six on each of 500: as good as 30 on each of 100. Nothing may hang on ten in one."""
    planted = plant(micrographs=500, noise_count=straight(6.0), particle_count=straight(1.0))
    planted.picks["decoy_count"].values[:] = np.minimum(planted.picks["decoy_count"].values, 8)
    found = fit_noise(decoys_of(planted))
    np.testing.assert_allclose(found.deviation, [np.log(0.03), 0.1], atol=0.1)


def test_the_density_of_noise_over_both_scores_is_that_of_the_formula():
    """At picks in the light and in the shadow, by scipy."""
    rng = np.random.default_rng(1)
    design = np.column_stack([np.ones(3), [-1.0, 0.0, 1.0]])
    index = np.repeat(np.arange(3), 10)
    shadowed = rng.random(30) < 0.5
    noise = Noise(np.array([0.2, 0.01]), np.array([-3.5, 0.1]), gaussian_shape(), 0.02, 0.03, 0.15, -0.5, 0.9, 0.1, 0.2)
    data = Observations(
        0.2 + 0.05 * rng.standard_normal(30), rng.standard_normal(30) * 0.2, index, design, np.zeros((30, 2)),
        None, shadowed, np.ones(30), np.zeros(30),
    )  # fmt: skip
    for i, found in enumerate(noise.log_density(data)):
        mean, scale = 0.2 + 0.01 * (index[i] - 1), np.exp(-3.5 + 0.1 * (index[i] - 1))
        z = (data.ncc[i] - mean) / scale
        if shadowed[i]:
            expected = norm.pdf(z, -0.5, 0.9) / scale * norm.pdf(data.power[i], 0.1, 0.2)
        else:
            expected = norm.pdf(z) / scale * norm.pdf(data.power[i], 0.02 + 0.03 * z, 0.15)
        assert found == pytest.approx(np.log(expected), abs=2e-3)


@pytest.mark.parametrize("count", [1, 3, 40])
def test_a_handful_of_decoys_gives_no_nonsense(count):
    """Finite coefficients and no warning, whatever few decoys there are."""
    planted = plant(micrographs=10)
    planted.picks["decoy_count"].values[:] = 0
    planted.picks["decoy_count"].values[0] = count
    found = fit_noise(decoys_of(planted))
    for value in (found.mean, found.deviation, found.shape, found.power_mean, found.power_slope, found.power_deviation):
        assert np.isfinite(value).all()
