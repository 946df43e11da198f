import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pickcal.calibration.robust import robust_fit


def line(n, seed, slope=0.05, level=0.3, sigma=0.01):
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, n)
    return x, level + slope * x + sigma * rng.standard_normal(n), rng


def design_of(x, degree=1):
    return np.column_stack([x**power for power in range(degree + 1)])


@pytest.mark.parametrize("seed", range(10))
def test_gross_outliers_do_not_move_the_line(seed):
    """A quarter of the points far above, where least squares goes astray."""
    x, y, rng = line(40, seed)
    y[rng.choice(40, 10, replace=False)] += rng.uniform(0.2, 2, 10)
    found = robust_fit(design_of(x), y)
    assert found.coefficients == pytest.approx([0.3, 0.05], abs=0.011)
    assert abs(np.polyfit(x, y, 1)[1] - 0.3) > 0.1
    assert 0.007 < found.scale < 0.025
    theil = stats.theilslopes(y, x, alpha=0.95)
    assert abs(found.coefficients[1] - 0.05) < abs(theil.slope - 0.05) + 0.005


def test_outliers_on_one_side_at_the_far_end():
    """Leverage within reason: the quarter with the highest x lies far off."""
    x, y, _ = line(40, 1)
    y[np.argsort(x)[-8:]] += 1.0
    found = robust_fit(design_of(x), y)
    assert found.coefficients == pytest.approx([0.3, 0.05], abs=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_clean_normal_data_give_nearly_least_squares(seed):
    x, y, _ = line(200, seed)
    found = robust_fit(design_of(x), y)
    reference = stats.linregress(x, y)
    error = reference.stderr
    assert found.coefficients[1] == pytest.approx(reference.slope, abs=error)
    assert np.sqrt(found.covariance[1, 1]) == pytest.approx(error, rel=0.15)
    assert found.degrees_of_freedom == pytest.approx(198, rel=0.15)


@pytest.mark.parametrize("outliers", [0, 3])
@pytest.mark.parametrize("n", [12, 30])
def test_intervals_cover_the_truth_as_often_as_they_say(n, outliers):
    covered = np.zeros(2)
    for seed in range(300):
        x, y, rng = line(n, seed)
        y[rng.choice(n, outliers, replace=False)] += 0.5
        low, high = robust_fit(design_of(x), y).interval(0.95)
        covered += (low <= [0.3, 0.05]) & (high >= [0.3, 0.05])
    assert (covered / 300 >= 0.90).all() and (covered / 300 <= 0.99).all()


def test_higher_confidence_means_wider_intervals_by_students_t():
    x, y, _ = line(12, 0)
    found = robust_fit(design_of(x), y)
    half = [0.5 * np.diff(found.interval(level), axis=0)[0] for level in (0.8, 0.99)]
    ratio = stats.t.ppf(0.995, found.degrees_of_freedom) / stats.t.ppf(0.9, found.degrees_of_freedom)
    np.testing.assert_allclose(half[1] / half[0], ratio)


def test_band_is_the_interval_of_the_fitted_mean():
    x, y, _ = line(20, 2)
    found = robust_fit(design_of(x), y)
    low, high = found.interval(0.95)
    assert found.band(np.array([[1.0, 0.0]]), 0.95)[0] == pytest.approx(0.5 * (high[0] - low[0]))
    ends = found.band(design_of(np.array([-1.0, 0.0, 1.0])), 0.95)
    assert ends[0] > ends[1] < ends[2]


@pytest.mark.parametrize("degree", [1, 2, 3])
def test_covariance_is_square_symmetric_and_positive(degree):
    x, y, _ = line(25, 3)
    found = robust_fit(design_of(x, degree), y)
    assert found.covariance.shape == (degree + 1, degree + 1)
    np.testing.assert_allclose(found.covariance, found.covariance.T)
    assert np.linalg.eigvalsh(found.covariance).min() > 0


@given(level=st.floats(-5, 5), slope=st.floats(-2, 2), factor=st.floats(0.01, 100), seed=st.integers(0, 1000))
@settings(max_examples=50, deadline=None)
def test_adding_a_line_and_scaling_change_the_fit_alike(level, slope, factor, seed):
    x, y, rng = line(15, seed)
    y[:3] += rng.uniform(-1, 1, 3)
    plain = robust_fit(design_of(x), y)
    other = robust_fit(design_of(x), factor * (y + level + slope * x))
    expected = factor * (plain.coefficients + np.array([level, slope]))
    tolerance = 1e-4 * factor * max(1, abs(level), abs(slope))
    np.testing.assert_allclose(other.coefficients, expected, atol=tolerance)


@pytest.mark.parametrize("values", [np.full(8, 0.4), np.linspace(0.1, 0.8, 8), np.zeros(8)])
def test_points_exactly_on_a_line(values):
    found = robust_fit(design_of(np.linspace(-1, 1, 8)), values)
    expected = np.polynomial.polynomial.polyfit(np.linspace(-1, 1, 8), values, 1)
    np.testing.assert_allclose(found.coefficients, expected, atol=1e-8)
    assert np.isfinite(found.covariance).all() and found.scale > 0
