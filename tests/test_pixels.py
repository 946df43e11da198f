import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pickcal.pixels import median, summarise


@pytest.mark.parametrize("shape", [(1, 1), (3, 1000), (513, 65)])
@pytest.mark.parametrize("scale", [1e-20, 1.0, 1e15])
def test_summaries_are_those_of_numpy(shape, scale):
    pixels = (scale * np.random.default_rng(1).normal(-5, 2, shape)).astype(np.float32)
    pixels[0, 0] = -0.0
    found, exact = summarise(pixels), pixels.astype(np.float64)
    assert (found.low, found.high) == (pixels.min(), pixels.max()) and found.finite()
    assert found.mean == pytest.approx(exact.mean(), rel=1e-5)
    assert found.deviation == pytest.approx(exact.std(), rel=1e-4, abs=1e-30)


def test_a_deviation_far_smaller_than_the_mean_is_not_lost():
    pixels = np.random.default_rng(2).normal(1e4, 0.1, (300, 300)).astype(np.float32)
    assert summarise(pixels).deviation == pytest.approx(pixels.astype(np.float64).std(), rel=1e-3)


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("place", [(0, 0), (7, 31), (63, 63)])
def test_one_pixel_that_is_not_finite_shows(bad, place):
    pixels = np.random.default_rng(3).normal(0, 1, (64, 64)).astype(np.float32)
    pixels[place] = bad
    assert not summarise(pixels).finite()


def test_nothing_but_nan_shows():
    assert not summarise(np.full((8, 8), np.nan, np.float32)).finite()


@given(seed=st.integers(0, 1000), size=st.integers(1, 60))
@settings(max_examples=100)
def test_the_median_is_numpys(seed, size):
    values = np.random.default_rng(seed).integers(-4, 5, (size, 2)).astype(np.float32)[:, : 1 + seed % 2]
    before = values.copy()
    assert median(values) == np.median(values.astype(float))
    np.testing.assert_array_equal(values, before)
