import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pickcal.evaluation import (
    Labelled,
    average_precision,
    f1_curve,
    false_discovery,
    label_picks,
    reliability,
    summarise,
)

EXTENT = (1000.0, 800.0)
coordinates = st.tuples(st.integers(0, 20), st.integers(0, 16))


def brute_force(picks, scores, truth, extent, radius, border):
    """One after the other by score, each takes the nearest free particle within the radius."""

    def inside(p):
        return all(border <= v <= e - border for v, e in zip(p, extent, strict=True))

    labels, free = {}, set(range(len(truth)))
    for i in sorted(range(len(picks)), key=lambda i: (-scores[i], i)):
        if not inside(picks[i]):
            continue
        near = [(np.hypot(*(truth[j] - picks[i])), j) for j in free]
        near = [pair for pair in near if pair[0] <= radius]
        if near:
            j = min(near)[1]
            free.remove(j)
            if inside(truth[j]):
                labels[i] = True
        else:
            labels[i] = False
    return labels, sum(inside(t) for t in truth)


@given(
    picks=st.lists(st.tuples(coordinates, st.integers(0, 6)), max_size=25),
    truth=st.lists(coordinates, max_size=20),
    radius=st.sampled_from([30.0, 75.0, 160.0]),
    border=st.sampled_from([0.0, 75.0, 120.0]),
)
@settings(max_examples=200)
def test_labels_are_those_of_greedy_matching(picks, truth, radius, border):
    """On a coarse lattice, where equal scores and equal distances are common."""
    positions = np.array([p for p, _ in picks], float).reshape(-1, 2) * 50
    scores = np.array([s for _, s in picks], float)
    particles = np.array(truth, float).reshape(-1, 2) * 50
    found = label_picks(positions, scores, particles, EXTENT, radius, border)
    labels, count = brute_force(positions, scores, particles, EXTENT, radius, border)
    assert found.particles == count
    assert dict(zip(found.counted.tolist(), found.true.tolist(), strict=True)) == labels


def test_a_particle_is_found_once():
    picks = np.array([[500.0, 400], [505, 400], [500, 410]])
    found = label_picks(picks, np.array([0.2, 0.9, 0.5]), np.array([[500.0, 400]]), EXTENT, 50, 0)
    assert found.counted.tolist() == [1, 2, 0] and found.true.tolist() == [True, False, False]


def test_the_nearest_free_particle_is_taken():
    truth = np.array([[500.0, 400], [500, 430]])
    picks = np.array([[500.0, 418], [500, 421]])
    found = label_picks(picks, np.array([0.9, 0.5]), truth, EXTENT, 25, 0)
    # the first takes the particle at 430, 12 away; the second must go 21 to the one at 400
    assert found.true.tolist() == [True, True]
    assert label_picks(picks, np.array([0.9, 0.5]), truth, EXTENT, 20, 0).true.tolist() == [True, False]


def test_the_border_counts_neither_way():
    truth = np.array([[50.0, 400], [500, 400]])
    picks = np.array([[50.0, 400], [60, 700], [500, 400], [105, 400]])
    found = label_picks(picks, np.array([0.9, 0.8, 0.7, 0.6]), truth, EXTENT, 60, 100)
    # two picks lie in the border; the last found a particle that does not count, so it is no error either
    assert found.particles == 1 and found.counted.tolist() == [2] and found.true.tolist() == [True]


def test_exactly_on_the_border_counts():
    at = np.array([[100.0, 100.0], [900.0, 700.0]])
    found = label_picks(at.astype(np.float32), np.ones(2), at, EXTENT, 10, 100.0)
    assert found.particles == 2 and found.true.tolist() == [True, True]


@pytest.mark.parametrize("count", [0, 3])
def test_without_truth_every_pick_is_false(count):
    picks = np.full((count, 2), 400.0)
    found = label_picks(picks, np.arange(count, dtype=float), np.zeros((0, 2)), EXTENT, 50, 0)
    assert found.particles == 0 and found.true.tolist() == [False] * count
    curve = f1_curve(np.arange(count, dtype=float), found.true, 0)
    assert curve.best() == 0 and average_precision(curve) == 0


def naive_curve(scores, true, particles):
    rows = []
    for threshold in sorted(set(scores), reverse=True):
        accepted = [t for s, t in zip(scores, true, strict=True) if s >= threshold]
        found = sum(accepted)
        precision, recall = found / len(accepted), found / particles if particles else 0.0
        f1 = 2 * precision * recall / (precision + recall) if found else 0.0
        rows.append((threshold, f1, precision, recall))
    return np.array(rows).reshape(-1, 4).T


@given(picks=st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=40), missed=st.integers(0, 10))
@settings(max_examples=200)
def test_curve_and_average_precision_equal_a_loop_over_thresholds(picks, missed):
    scores, true = np.array([s for s, _ in picks], float), np.array([t for _, t in picks], bool)
    particles = int(true.sum()) + missed
    curve = f1_curve(scores, true, particles)
    thresholds, f1, precision, recall = naive_curve(scores.tolist(), true.tolist(), particles)
    np.testing.assert_allclose(curve.thresholds, thresholds)
    np.testing.assert_allclose(curve.f1, f1, atol=1e-12)
    np.testing.assert_allclose(curve.precision, precision)
    np.testing.assert_allclose(curve.recall, recall)
    area, last = 0.0, 0.0
    for p, r in zip(precision, recall, strict=True):
        area, last = area + (r - last) * p, r
    assert average_precision(curve) == pytest.approx(area)
    for threshold in [-1.0, 0.5, 3.0, 8.7, 20.0]:
        above = np.flatnonzero(thresholds >= threshold)
        assert curve.at(threshold) == pytest.approx(f1[above[-1]] if len(above) else 0.0)


def test_curve_by_hand():
    """Five picks of which 1, 2 and 5 are true, four particles."""
    curve = f1_curve(np.array([0.5, 0.9, 0.8, 0.7, 0.6]), np.array([True, True, True, False, False]), 4)
    assert curve.thresholds.tolist() == [0.9, 0.8, 0.7, 0.6, 0.5]
    assert curve.f1 == pytest.approx([2 / 5, 4 / 6, 4 / 7, 4 / 8, 6 / 9])
    assert curve.precision == pytest.approx([1, 1, 2 / 3, 2 / 4, 3 / 5])
    assert curve.recall == pytest.approx([1 / 4, 2 / 4, 2 / 4, 2 / 4, 3 / 4])
    assert average_precision(curve) == pytest.approx(0.25 + 0.25 + 0.25 * 0.6)
    assert curve.best() == pytest.approx(2 / 3)
    assert curve.best_threshold() == pytest.approx(0.75)
    assert curve.at(0.75) == pytest.approx(4 / 6) and curve.at(0.7) == pytest.approx(4 / 7)


def test_equal_scores_are_accepted_together():
    curve = f1_curve(np.array([0.5, 0.5, 0.5]), np.array([True, False, True]), 2)
    assert curve.thresholds.tolist() == [0.5] and curve.f1 == pytest.approx([0.8])


def test_picks_without_a_score_are_accepted_together_and_last():
    """Four particles: two scored picks are true, one is not; of three without a score two are true."""
    scores, true = np.array([0.9, np.nan, 0.8, np.nan, 0.7, np.nan]), np.array([1, 1, 0, 0, 1, 1], bool)
    curve = f1_curve(scores, true, 4)
    assert curve.thresholds.tolist() == [0.9, 0.8, 0.7, -np.inf]
    assert curve.f1 == pytest.approx([2 / 5, 2 / 6, 4 / 7, 8 / 10])
    assert curve.best_threshold() == -np.inf
    again = f1_curve(scores[::-1], true[::-1], 4)
    np.testing.assert_array_equal(again.f1, curve.f1)
    # where all particles have a score, the threshold lies at one
    best = f1_curve(scores, np.array([1, 0, 1, 0, 1, 0], bool), 3)
    assert best.best() == 1 and best.best_threshold() == best.careful_threshold(tolerance=0.0) == pytest.approx(0.7)
    found = summarise([labelled(true, 4)] * 2, [scores] * 2, np.array([8000.0, 20000.0]))
    assert found["f1"] == found["per_micrograph_best_f1"] == pytest.approx(0.8)
    assert found["transfer_loss"] == {"from_lowest_defocus": 0, "from_highest_defocus": 0}


def test_without_any_score_there_are_no_figures_of_thresholds():
    """Of six picks four are true, of five particles."""
    nothing = [np.full(3, np.nan)] * 2
    found = summarise([labelled([1, 1, 0], 2), labelled([1, 0, 1], 3)], nothing, np.array([8000.0, 20000.0]))
    assert found["precision"] == pytest.approx(4 / 6) and found["recall"] == pytest.approx(4 / 5)
    assert found["f1"] == pytest.approx(8 / 11)
    assert found["transfer_loss"] == {"from_lowest_defocus": None, "from_highest_defocus": None}
    for name in ("threshold", "average_precision", "per_micrograph_best_f1", "rho_defocus"):
        assert found[name] is None


def test_a_careful_threshold_is_the_middle_of_a_flat_top():
    scores = np.arange(1000.0, 0, -1)
    true = scores > 400
    # from 403 to 396 the F1 stays within 0.005 of 1: 2 (600 - k) / (1200 - k) and 2 600 / (1200 + k)
    curve = f1_curve(scores, true, 600)
    assert curve.best_threshold() == pytest.approx(400.5)
    low, high = (
        min(t for t, f in zip(scores, curve.f1, strict=True) if f >= 0.995),
        max(t for t, f in zip(scores, curve.f1, strict=True) if f >= 0.995),
    )
    assert curve.careful_threshold() == pytest.approx(0.5 * (high + low - 0.5))
    assert curve.careful_threshold(tolerance=0.0) == pytest.approx(0.5 * (401 + 400.5))
    assert f1_curve(np.zeros(0), np.zeros(0, bool), 5).careful_threshold() == np.inf


def labelled(true, particles):
    true = np.array(true, bool)
    return Labelled(true, np.arange(len(true)), particles)


def test_transfer_loss_by_hand():
    """Two micrographs, each perfectly separable, but not by the other's threshold.

    The first separates at 0.55 and the second at 0.75. At 0.75, the first keeps one of its four particles: F1 2/5.
    At 0.55, the second keeps four particles and three false picks: F1 8/11.
    """
    scores = [np.array([0.8, 0.7, 0.65, 0.6, 0.5, 0.4]), np.array([0.95, 0.9, 0.85, 0.8, 0.7, 0.65, 0.6])]
    entries = [labelled([1, 1, 1, 1, 0, 0], 4), labelled([1, 1, 1, 1, 0, 0, 0], 4)]
    found = summarise(entries, scores, np.array([8000.0, 20000.0]))
    assert found["transfer_loss"]["from_lowest_defocus"] == pytest.approx(1 - 8 / 11)
    assert found["transfer_loss"]["from_highest_defocus"] == pytest.approx(1 - 2 / 5)
    swapped = summarise(entries, scores, np.array([20000.0, 8000.0]))
    assert swapped["transfer_loss"]["from_lowest_defocus"] == pytest.approx(1 - 2 / 5)
    assert found["per_micrograph_best_f1"] == 1
    # pooled, from the top: picks and particles among them at every distinct score
    pooled = max(2 * t / (n + 8) for n, t in [(1, 1), (2, 2), (3, 3), (5, 5), (7, 6), (9, 7), (11, 8)])
    assert found["f1"] == pytest.approx(pooled)


def test_equal_micrographs_lose_nothing():
    scores = [np.array([0.9, 0.8, 0.3])] * 3
    found = summarise([labelled([1, 1, 0], 2)] * 3, scores, np.array([8000.0, 15000.0, 20000.0]))
    assert found["transfer_loss"] == {"from_lowest_defocus": 0, "from_highest_defocus": 0}
    assert found["f1"] == found["precision"] == found["recall"] == found["average_precision"] == 1


def test_an_empty_micrograph_is_no_source_but_counts():
    """At the threshold carried over, its picks are false; at its own best it would accept none."""
    scores = [np.array([0.9, 0.8]), np.array([0.9, 0.5]), np.array([0.9, 0.8, 0.3])]
    entries = [labelled([0, 0], 0), labelled([1, 0], 1), labelled([1, 1, 0], 2)]
    found = summarise(entries, scores, np.array([5000.0, 10000.0, 20000.0]))
    # from the second (0.7): the last keeps 2 of 2, the empty one 2 false picks
    assert found["transfer_loss"]["from_lowest_defocus"] == pytest.approx(1 - 2 * 2 / (4 + 2))
    assert found["per_micrograph_best_f1"] == 1
    assert summarise(entries[:2], scores[:2], np.array([5e3, 1e4]))["transfer_loss"]["from_lowest_defocus"] is None


def test_rho_is_that_of_the_particles_alone():
    scores = [np.array([0.5, 0.9]), np.array([0.6, 0.8]), np.array([0.7, 0.7])]
    entries = [labelled([1, 0], 1)] * 3
    found = summarise(entries, scores, np.array([8000.0, 15000.0, 20000.0]))
    assert found["rho_defocus"] == pytest.approx(1)


def test_nothing_picked():
    found = summarise([labelled([], 5)] * 2, [np.zeros(0)] * 2, np.array([8000.0, 20000.0]))
    assert found["f1"] == found["precision"] == found["recall"] == found["average_precision"] == 0
    assert found["threshold"] == np.inf


def drawn(seed, micrographs=4, levels=None):
    """Picks with probabilities (coarse ones if levels are given), labels drawn accordingly, particles missed."""
    rng = np.random.default_rng(seed)
    entries, q_values, chances = [], [], []
    for _ in range(micrographs):
        n = int(rng.integers(0, 60))
        chance = rng.random(n) if levels is None else rng.integers(0, levels + 1, n) / levels
        true = rng.random(n) < chance
        entries.append(labelled(true, int(true.sum()) + int(rng.integers(0, 5))))
        chances.append(chance)
        q_values.append(rng.random(n) * (1 - chance))
    return entries, q_values, chances


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("levels", [None, 10])
def test_false_discovery_is_that_of_a_loop(seed, levels):
    entries, q_values, chances = drawn(seed, levels=levels)
    picks = [(q, p, t) for qs, ps, e in zip(q_values, chances, entries, strict=True)
             for q, p, t in zip(qs, ps, e.true, strict=True)]  # fmt: skip
    particles = sum(e.particles for e in entries)
    found = false_discovery(entries, q_values, chances)
    assert [row["nominal"] for row in found] == [0.01, 0.05, 0.1]
    for row in found:
        accepted = [t for q, _, t in picks if q <= row["nominal"]]
        assert row["rate"] == pytest.approx(1 - sum(accepted) / len(accepted) if accepted else 0.0)
        assert row["recall"] == pytest.approx(sum(accepted) / particles)
        best = 0.0
        for threshold in {p for _, p, _ in picks}:
            kept = [t for _, p, t in picks if p >= threshold]
            if 1 - sum(kept) / len(kept) <= row["nominal"] + 1e-12:
                best = max(best, sum(kept) / particles)
        assert row["oracle_recall"] == pytest.approx(best)


@pytest.mark.parametrize("seed", range(4))
def test_reliability_is_that_of_a_loop(seed):
    entries, _, chances = drawn(seed, levels=20)
    picks = [(p, t) for ps, e in zip(chances, entries, strict=True) for p, t in zip(ps, e.true, strict=True)]
    expected = []
    for tenth in range(10):
        here = [(p, t) for p, t in picks if tenth <= 10 * p + 1e-9 < tenth + 1 or (tenth == 9 and p == 1)]
        if here:
            mean = [sum(values) / len(here) for values in zip(*here, strict=True)]
            expected.append({"probability": mean[0], "true": mean[1], "share": len(here) / len(picks)})
    found = reliability(entries, chances)
    assert len(found) == len(expected)
    # 0.3 and its like are a hair below or above the edge of a tenth in binary
    assert sum(row["share"] for row in found) == pytest.approx(1)
    for ours, theirs in zip(found, expected, strict=True):
        assert ours == pytest.approx(theirs)


def test_probabilities_of_zero_and_one_are_in_the_outer_tenths():
    found = reliability([labelled([0, 1, 1], 2)], [np.array([0.0, 1.0, 1.0], np.float32)])
    assert found == [
        {"probability": 0.0, "true": 0.0, "share": pytest.approx(1 / 3)},
        {"probability": 1.0, "true": 1.0, "share": pytest.approx(2 / 3)},
    ]


def test_picks_without_a_probability_are_in_no_tenth():
    found = reliability([labelled([0, 1, 1], 2)], [np.array([0.25, np.nan, 0.25], np.float32)])
    assert found == [{"probability": 0.25, "true": 0.5, "share": 1.0}]


def test_no_pick_has_no_false_discovery():
    nothing = [labelled([], 5)] * 2, [np.zeros(0)] * 2
    assert reliability(*nothing) == []
    for row in false_discovery(*nothing, nothing[1]):
        assert row["rate"] == row["recall"] == row["oracle_recall"] == 0
