import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pickcal.calibration.robust import m_scale, robust_fit


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
        found = robust_fit(design_of(x), y)
        covered += np.abs(found.coefficients - [0.3, 0.05]) <= found.band(np.eye(2), 0.95)
    assert (covered / 300 >= 0.90).all() and (covered / 300 <= 0.99).all()


def test_higher_confidence_means_wider_intervals_by_students_t():
    x, y, _ = line(12, 0)
    found = robust_fit(design_of(x), y)
    half = [found.band(np.eye(2), level) for level in (0.8, 0.99)]
    ratio = stats.t.ppf(0.995, found.degrees_of_freedom) / stats.t.ppf(0.9, found.degrees_of_freedom)
    np.testing.assert_allclose(half[1] / half[0], ratio)


def test_band_is_the_interval_of_the_fitted_mean():
    x, y, _ = line(20, 2)
    found = robust_fit(design_of(x), y)
    error = stats.t.ppf(0.975, found.degrees_of_freedom) * np.sqrt(found.covariance[0, 0])
    assert found.band(np.array([[1.0, 0.0]]), 0.95)[0] == pytest.approx(error)
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
@settings(max_examples=50)
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


@pytest.mark.parametrize("share", [0.05, 0.15, 0.3])
@pytest.mark.parametrize("end", [-1, 1])
def test_bad_micrographs_at_one_end_do_not_draw_the_line(share, end):
    """They lie beyond the others, on a line of their own that least absolute deviations would follow."""
    misled = 0
    for seed in range(20):
        x, y, rng = line(60, seed)
        bad = np.arange(60) < round(share * 60)
        x[bad] = end * rng.uniform(1.5, 2.5, bad.sum())
        y[bad] = 0.3 - 0.05 * x[bad] + 0.01 * rng.standard_normal(bad.sum())
        found = robust_fit(design_of(x), y)
        assert found.coefficients == pytest.approx([0.3, 0.05], abs=0.016)
        misled += abs(least_absolute(x, y)[1] - 0.05) > 0.016
    assert misled >= 8 or share < 0.15


def least_absolute(x, y):
    """Least absolute deviations by trying all lines through two points, of which one is the best."""
    i, j = np.triu_indices(len(x), 1)
    slope = (y[i] - y[j]) / (x[i] - x[j])
    level = y[i] - slope * x[i]
    best = np.argmin(np.abs(y - level[:, None] - slope[:, None] * x).sum(axis=1))
    return level[best], slope[best]


def test_bad_micrographs_at_one_end_of_a_parabola_with_a_covariate():
    x, y, rng = line(80, 6)
    ice = rng.uniform(-1, 1, 80)
    y += 0.02 * ice - 0.03 * x**2
    y[np.argsort(x)[-12:]] -= 0.2
    found = robust_fit(np.column_stack([design_of(x, 2), ice]), y)
    assert found.coefficients == pytest.approx([0.3, 0.05, -0.03, 0.02], abs=0.015)


def test_efficiency_with_normal_errors():
    """Squared error of the slope against that of least squares: 95 % in theory, less for few points."""
    errors = []
    for seed in range(200):
        x, y, _ = line(30, seed)
        errors.append([robust_fit(design_of(x), y).coefficients[1] - 0.05, np.polyfit(x, y, 1)[0] - 0.05])
    robust, least = np.square(errors).mean(axis=0)
    assert least / robust > 0.85


def test_terms_that_depend_on_each_other_share_the_smallest_coefficients():
    x, y, _ = line(30, 7)
    plain = robust_fit(design_of(x), y)
    doubled = robust_fit(np.column_stack([design_of(x), x, np.zeros(30)]), y)
    assert doubled.coefficients == pytest.approx([plain.coefficients[0], *[plain.coefficients[1] / 2] * 2, 0])
    rows = np.column_stack([design_of(x), x, np.zeros(30)])
    np.testing.assert_allclose(doubled.band(rows, 0.95), plain.band(design_of(x), 0.95), rtol=0.05)


@pytest.mark.parametrize("kind", ["level", "spread"])
def test_m_scale_of_normal_values_is_their_deviation(kind):
    values = 3.0 * np.random.default_rng(0).standard_normal((2, 4000))
    if kind == "spread":
        values[:, ::4] = 500.0
    found = m_scale(values, 0)
    expected = 3.0 if kind == "level" else 4.6
    assert found == pytest.approx([expected] * 2, rel=0.06)
    loss = 1 - (1 - np.minimum(np.square(values / (1.5476 * found[:, None])), 1)) ** 3
    np.testing.assert_allclose(loss.mean(axis=1), 0.5, rtol=1e-4)


def test_many_values_are_fitted_like_few():
    """Above the size at which the start is sought in a sample."""
    x, y, rng = line(30_000, 8)
    y[rng.choice(30_000, 6_000, replace=False)] += 0.1
    found = robust_fit(design_of(x), y)
    error = np.sqrt(np.diag(found.covariance))
    assert (np.abs(found.coefficients - [0.3, 0.05]) < 4 * error).all() and (error < 3e-4).all()
