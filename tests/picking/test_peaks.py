import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from pickcal.picking.peaks import local_maxima, thin_out


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
@settings(max_examples=200)
def test_maxima_are_those_of_a_maximum_filter(shape, seed, holes):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 6, shape).astype(np.float32)  # few values: plateaus
    image[rng.random(shape) < holes] = -np.inf
    highest = ndimage.maximum_filter(image, size=3, mode="constant", cval=-np.inf)
    expected = np.nonzero((image == highest) & np.isfinite(image))
    for found, wanted in zip(local_maxima(image), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


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
@settings(max_examples=200)
def test_thinning_is_greedy_from_the_best_down(points, distance):
    """Whole numbers make equal scores, equal places and exact distances common."""
    y, x, scores = (np.array([p[i] for p in points], dtype=float) for i in range(3))
    assert thin_out(y, x, scores, distance).tolist() == naive_thinning(y, x, scores, distance)


@given(seed=st.integers(0, 10**6))
@settings(max_examples=30)
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
