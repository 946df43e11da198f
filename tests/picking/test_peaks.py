import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pickcal.picking.peaks import local_maxima, quadratic_peak, thin_out


def test_every_planted_peak_is_found_and_no_other():
    y, x = np.mgrid[:80, :90]
    places = [(10, 12), (11, 60), (40, 41), (70, 5), (66, 80)]
    image = np.zeros((80, 90), np.float32)
    for i, (py, px) in enumerate(places):
        image = np.maximum(image, (1 + 0.1 * i - 0.01 * np.hypot(y - py, x - px)).astype(np.float32))
    found = local_maxima(image)
    assert sorted(zip(*(axis.tolist() for axis in found), strict=True)) == sorted(places)


def test_peaks_on_the_rim_count():
    image = np.zeros((5, 6), np.float32)
    image[0, 0] = image[4, 5] = 1
    image[1:4, 1:5] = np.arange(12).reshape(3, 4) * -0.01 - 0.1
    found = set(zip(*(axis.tolist() for axis in local_maxima(image)), strict=True))
    assert {(0, 0), (4, 5)} <= found


@given(shape=st.tuples(st.integers(1, 9), st.integers(1, 9)), seed=st.integers(0, 10_000), holes=st.floats(0, 0.9))
@settings(max_examples=200, deadline=None)
def test_maxima_are_those_of_a_maximum_filter(shape, seed, holes):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 6, shape).astype(np.float32)  # few values: plateaus
    image[rng.random(shape) < holes] = -np.inf
    highest = ndimage.maximum_filter(image, size=3, mode="constant", cval=-np.inf)
    expected = np.nonzero((image == highest) & np.isfinite(image))
    for found, wanted in zip(local_maxima(image), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


@given(
    dy=st.floats(-0.5, 0.5),
    dx=st.floats(-0.5, 0.5),
    a=st.floats(0.2, 3),
    b=st.floats(0.2, 3),
    tilt=st.floats(-0.9, 0.9),
)
@settings(max_examples=100, deadline=None)
def test_a_sampled_paraboloid_is_found_exactly(dy, dx, a, b, tilt):
    y, x = np.mgrid[-1:2, -1:2]
    cross = tilt * np.sqrt(a * b)
    patch = 5 - (a * (y - dy) ** 2 + b * (x - dx) ** 2 + cross * (y - dy) * (x - dx))
    found_y, found_x, height = quadratic_peak(patch[None])
    assert found_y[0] == pytest.approx(dy, abs=1e-6) and found_x[0] == pytest.approx(dx, abs=1e-6)
    assert height[0] == pytest.approx(max(5.0, patch[1, 1]), abs=1e-9)


@given(dy=st.floats(-0.5, 0.5), dx=st.floats(-0.5, 0.5), sigma=st.floats(1.2, 5))
@settings(max_examples=100, deadline=None)
def test_a_sampled_gaussian_is_found_to_a_tenth_of_a_pixel(dy, dx, sigma):
    y, x = np.mgrid[-1:2, -1:2]
    patch = np.exp(-0.5 * ((y - dy) ** 2 + (x - dx) ** 2) / sigma**2)
    found_y, found_x, height = quadratic_peak(patch[None])
    assert found_y[0] == pytest.approx(dy, abs=0.1) and found_x[0] == pytest.approx(dx, abs=0.1)
    assert height[0] == pytest.approx(1, abs=0.08)


def test_without_a_maximum_the_centre_stands():
    saddle = np.array([[0, 1, 0], [-1, 0, -1], [0, 1, 0]], float)
    flat = np.zeros((3, 3))
    slope = np.tile([0.0, 1.0, 2.0], (3, 1))
    dy, dx, height = quadratic_peak(np.stack([saddle, flat, slope]))
    assert dy.tolist() == dx.tolist() == [0, 0, 0]
    assert height.tolist() == [0, 0, 1]


def naive_thinning(y, x, scores, distance):
    kept = []
    for i in sorted(range(len(y)), key=lambda i: (-scores[i], i)):
        if all(np.hypot(y[i] - y[j], x[i] - x[j]) >= distance for j in kept):
            kept.append(i)
    return kept


@given(
    points=st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30), st.integers(0, 8)), max_size=60),
    distance=st.floats(0.5, 12),
)
@settings(max_examples=200, deadline=None)
def test_thinning_is_greedy_from_the_best_down(points, distance):
    """Whole numbers make equal scores, equal places and exact distances common."""
    y, x, scores = (np.array([p[i] for p in points], dtype=float) for i in range(3))
    assert thin_out(y, x, scores, distance).tolist() == naive_thinning(y, x, scores, distance)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=30, deadline=None)
def test_points_kept_are_apart_and_points_dropped_have_a_better_neighbour(seed):
    rng = np.random.default_rng(seed)
    y, x = rng.uniform(0, 100, (2, 200))
    scores = rng.standard_normal(200)
    kept = thin_out(y, x, scores, 9.0)
    apart = np.hypot(y[kept][:, None] - y[kept], x[kept][:, None] - x[kept])
    assert apart[~np.eye(len(kept), dtype=bool)].min() >= 9
    assert (np.diff(scores[kept]) <= 0).all()
    for i in set(range(200)) - set(kept.tolist()):
        near = np.hypot(y[kept] - y[i], x[kept] - x[i]) < 9
        assert scores[kept][near].max() >= scores[i]


def test_points_exactly_the_distance_apart_both_stay():
    y = np.arange(5) * 0.1 * 3
    assert thin_out(y, np.zeros(5), -np.arange(5.0), 0.1 * 3).tolist() == [0, 1, 2, 3, 4]


def test_nothing_to_thin():
    empty = np.zeros(0)
    assert thin_out(empty, empty, empty, 3.0).tolist() == []
