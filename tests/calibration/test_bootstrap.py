import tracemalloc

import numpy as np
import pytest
from scipy import optimize, stats

from pickcal.calibration import bootstrap
from pickcal.calibration.bootstrap import (
    bootstrap_covariance,
    percentile_interval,
    resampled_coefficients,
)
from pickcal.calibration.robust import TUKEY, robust_fit


def simulated(n, seed, outliers=0, fan=False):
    """Line 0.3 + 0.05 x; with `fan` the errors grow fivefold towards both ends, where a slope is measured."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, n)
    error = 0.01 * rng.standard_normal(n)
    y = 0.3 + 0.05 * x + (error * (0.4 + 1.6 * x**2) if fan else error)
    y[rng.choice(n, outliers, replace=False)] += 0.5
    return np.column_stack([np.ones(n), x]), y


def slope_interval(design, y, resamples=400):
    fit = robust_fit(design, y)
    found = resampled_coefficients(design, y, fit, resamples)
    return percentile_interval(found[:, 1], fit.coefficients[1], *design.shape, 0.95)


@pytest.mark.parametrize(("n", "outliers", "fan"), [(12, 1, False), (30, 4, False), (30, 4, True), (60, 6, True)])
def test_intervals_hold_the_true_slope(n, outliers, fan):
    inside = sum(
        low < 0.05 < high for low, high in (slope_interval(*simulated(n, s, outliers, fan), 250) for s in range(200))
    )
    assert 180 <= inside <= 198


def test_uneven_errors_are_covered_better_than_asymptotically():
    """Errors that grow towards the ends of the range: a formula for even errors makes intervals too short."""
    inside = np.zeros(2)
    for seed in range(200):
        design, y = simulated(60, seed, 6, fan=True)
        low, high = slope_interval(design, y, 250)
        fit = robust_fit(design, y)
        inside += [low < 0.05 < high, abs(fit.coefficients[1] - 0.05) < fit.band(np.eye(2), 0.95)[1]]
    assert inside[0] >= 180 > 174 >= inside[1]


def test_a_resample_is_the_fit_to_it():
    """Against a general minimiser of Tukey's loss at the same scale, for the resamples drawn with the same seed."""
    design, y = simulated(40, 3, 4)
    fit = robust_fit(design, y)
    found = resampled_coefficients(design, y, fit, 8, seed=5)
    drawn = np.random.default_rng(5).integers(40, size=(8, 40))
    error = np.sqrt(np.diag(fit.covariance))
    for coefficients, rows in zip(found, drawn, strict=True):

        def loss(c, rows=rows):
            squares = np.square((y[rows] - design[rows] @ c) / (TUKEY * fit.scale))
            return (1 - np.maximum(1 - squares, 0) ** 3).sum()

        best = optimize.minimize(loss, fit.coefficients, method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-10})
        assert (np.abs(coefficients - best.x) < 0.05 * error).all()


def test_resamples_full_of_outliers_do_not_break_down():
    design, y = simulated(30, 1, 9)
    found = resampled_coefficients(design, y, robust_fit(design, y), 1000)
    assert np.abs(found - [0.3, 0.05]).max() < 0.05


def test_chunks_give_what_the_whole_gives(monkeypatch):
    design, y = simulated(50, 2)
    fit = robust_fit(design, y)
    whole = resampled_coefficients(design, y, fit, 101)
    monkeypatch.setattr(bootstrap, "CHUNK", 50 * 7)
    parts = resampled_coefficients(design, y, fit, 101)
    assert parts.shape == (101, 2) and np.ptp(parts[:, 1]) > 0.001
    np.testing.assert_allclose(parts, whole, atol=2e-3 * np.sqrt(fit.covariance[1, 1]) * 10)
    assert (resampled_coefficients(design, y, fit, 101, seed=1) != parts).any()


def test_memory_is_bounded_for_a_large_session():
    design, y = simulated(20_000, 0, 2000)
    fit = robust_fit(design, y)
    tracemalloc.start()
    found = resampled_coefficients(design, y, fit, 100)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6
    np.testing.assert_allclose(found.std(axis=0), np.sqrt(np.diag(fit.covariance)), rtol=0.3)


def test_a_group_missing_in_a_resample_keeps_its_coefficient():
    """One micrograph carries a term: a third of the resamples are without it."""
    design, y = simulated(30, 4)
    design = np.column_stack([design, np.arange(30) == 7])
    fit = robust_fit(design, y)
    found = resampled_coefficients(design, y, fit, 200)
    absent = ~(np.random.default_rng(0).integers(30, size=(200, 30)) == 7).any(axis=1)
    assert 40 < absent.sum() < 110 and np.isfinite(found).all()
    assert np.abs(found[absent, 2] - fit.coefficients[2]).max() < 0.02


def test_points_exactly_on_a_line_give_no_width():
    x = np.linspace(-1, 1, 12)
    design = np.column_stack([np.ones(12), x])
    y = 0.3 + 0.05 * x
    low, high = slope_interval(design, y)
    assert low == pytest.approx(0.05, abs=1e-6) and high == pytest.approx(0.05, abs=1e-6)


def test_percentiles_are_moved_outwards_by_students_t():
    """Hesterberg 2015: of normal values with deviation s (n - p)/n, the interval is that of Student's t."""
    n, p = 25, 2
    values = stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000) * np.sqrt((n - p) / n)
    low, high = percentile_interval(values, 0.0, n, p, 0.95)
    assert high == pytest.approx(stats.t.ppf(0.975, n - p), rel=0.01) and low == pytest.approx(-high)
    skewed = np.exp(values)
    low, high = percentile_interval(skewed, 1.0, n, p, 0.95)
    assert high - 1 > 2 * (1 - low)


def test_few_micrographs_get_an_even_interval_and_wild_resamples_are_drawn_in():
    values = np.append(np.linspace(-1, 1, 400), [1e6, -1e6])
    low, high = percentile_interval(values, 0.2, 6, 2, 0.95)
    assert high - 0.2 == pytest.approx(0.2 - low) and 1 < high - 0.2 < 5
    covariance = bootstrap_covariance(np.column_stack([values, values[::-1]]), 6)
    assert covariance[0, 0] == pytest.approx(6 / 4 / 3, rel=0.25)


def test_covariance_is_that_of_the_resamples():
    rng = np.random.default_rng(0)
    true = np.array([[1.0, 0.6], [0.6, 2.0]])
    found = bootstrap_covariance(rng.multivariate_normal([5, -3], true, 20_000), 1000)
    np.testing.assert_allclose(found, true, rtol=0.06)
