"""Shadows and decoys beside particles, against loops over all pairs."""

import numpy as np
import pytest
import xarray as xr
from planted import plant, straight

from pickcal.calibration.mixture.observations import (
    VAGUE,
    Observations,
    flattened,
    has_decoys,
    in_shadow,
    off_particles,
    power_levels,
    valid_places,
    with_leak,
)
from pickcal.schema import Status

RADIUS = 75.0


def scattered(n, micrographs, seed, side=600.0):
    rng = np.random.default_rng(seed)
    index = np.sort(rng.integers(0, micrographs, n))
    position = rng.uniform(0, side, (n, 2))
    design = np.ones((micrographs, 1))
    return Observations(
        rng.random(n), None, index, design, position, None, np.zeros(n, bool), np.ones(n), np.zeros(n)
    ), np.round(rng.random(n), 1)


@pytest.mark.parametrize("seed", range(4))
def test_shadows_are_those_of_a_loop_over_pairs(seed):
    """Probabilities in tenths, so that equal ones are common: of two equals, exactly one stands in the shadow."""
    data, probability = scattered(300, 4, seed)
    found = in_shadow(data, probability, RADIUS)
    for i in range(300):
        near = [
            j
            for j in range(300)
            if j != i
            and data.index[j] == data.index[i]
            and np.hypot(*(data.position[j] - data.position[i])) < RADIUS
            and probability[j] > 0.5
        ]
        if any(probability[j] > probability[i] for j in near):
            assert found[i]
        elif not any(probability[j] == probability[i] for j in near):
            assert not found[i]
    equal = [
        (i, j)
        for i in range(300)
        for j in range(i)
        if probability[i] == probability[j] > 0.5
        and data.index[i] == data.index[j]
        and np.hypot(*(data.position[i] - data.position[j])) < RADIUS
    ]
    assert equal and all(found[i] or found[j] for i, j in equal)


@pytest.mark.parametrize("seed", range(3))
def test_decoys_off_particles_are_those_of_a_loop(seed):
    data, probability = scattered(250, 3, seed)
    decoys, _ = scattered(150, 3, seed + 50)
    found = off_particles(decoys, data, probability, RADIUS)
    for i in range(150):
        expected = 1.0
        for j in range(250):
            near = np.hypot(*(data.position[j] - decoys.position[i])) <= RADIUS
            if data.index[j] == decoys.index[i] and near and probability[j] > 0.02:
                expected *= (1 - min(probability[j], 1 - 1e-6)) ** 2
        assert found[i] == pytest.approx(expected, rel=1e-6, abs=1e-300)


def test_micrographs_do_not_see_each_other():
    """The same place on two micrographs: a particle on one, a weak pick and a decoy on the other."""
    at = np.array([[300.0, 300.0], [300.0, 300.0]])
    data = Observations(
        np.ones(2), None, np.array([0, 1]), np.ones((2, 1)), at, None, np.zeros(2, bool), np.ones(2), np.zeros(2)
    )
    probability = np.array([0.99, 0.1])
    assert not in_shadow(data, probability, RADIUS).any()
    np.testing.assert_allclose(off_particles(data, data, probability, RADIUS), [1e-4, 0.81])
    together = Observations(
        np.ones(2), None, np.zeros(2, int), np.ones((1, 1)), at, None, np.zeros(2, bool), np.ones(2), np.zeros(2)
    )
    assert in_shadow(together, probability, RADIUS).tolist() == [False, True]


def test_nothing_has_no_shadow():
    data, probability = scattered(20, 2, 0)
    assert not in_shadow(data, np.zeros(20), RADIUS).any()
    np.testing.assert_array_equal(off_particles(data, data, np.zeros(20), RADIUS), 1)
    empty, _ = scattered(0, 2, 0)
    assert in_shadow(empty, np.zeros(0), RADIUS).shape == (0,)
    assert off_particles(empty, data, probability, RADIUS).shape == (0,)


def test_only_picks_of_finished_micrographs_are_taken():
    planted = plant(micrographs=5)
    picks = planted.picks
    picks["status"].values[1] = Status.FAILED
    picks["count"].values[2] = 0
    picks["ncc"].values[3, 4] = np.nan
    valid = valid_places(picks)
    expected = picks["count"].values * (picks["status"].values == Status.DONE)
    expected[3] -= 1
    assert valid.sum(axis=1).tolist() == expected.tolist() and not valid[3, 4]
    data = flattened(picks, np.ones((5, 1)), power_levels(picks, True, RADIUS))
    assert data.per_micrograph().tolist() == expected.tolist()
    row = data.index == 4
    count = int(picks["count"][4])
    np.testing.assert_array_equal(data.ncc[row], picks["ncc"].values[4, :count])
    np.testing.assert_array_equal(data.position[row, 0], picks["y"].values[4, :count])


def test_taking_micrographs_several_times():
    data, _ = scattered(40, 5, 1)
    rows = np.array([0, 2, 2, 4])
    found = data.taken(rows)
    for new, old in enumerate(rows):
        np.testing.assert_array_equal(found.ncc[found.index == new], data.ncc[data.index == old])


def test_the_level_of_the_noise_is_found_under_ice():
    """A tenth of the decoys lie on ice of ten times the power; levels differ between micrographs by known factors."""
    planted = plant(micrographs=12, noise_count=straight(200.0), noise_power_slope=0.0)
    rng = np.random.default_rng(0)
    factor = np.exp(rng.normal(0, 0.3, 12))
    plain = power_levels(planted.picks, True, RADIUS)
    picks = planted.picks.copy(deep=True)
    ice = rng.random(picks["decoy_power"].shape) < 0.1
    picks["decoy_power"].values[:] *= np.where(ice, 10, 1) * factor[:, None]
    np.testing.assert_allclose(power_levels(picks, True, RADIUS) - np.log(factor), plain, atol=0.06)


@pytest.mark.parametrize("particles", [0, 150, 400])
def test_the_level_of_the_noise_is_found_among_crowded_particles(particles):
    """Decoys within reach of a particle have up to three times the power of noise; on the crowded one, nine of ten."""
    rng = np.random.default_rng(particles)
    side, level, reach = 3000.0, -0.4, 112.0
    places = {"": rng.uniform(0, side, (particles + 600, 2)), "decoy_": rng.uniform(0, side, (800, 2))}
    true = places[""][:particles]
    columns = {}
    for prefix, points in places.items():
        away = np.full(len(points), np.inf)
        if particles:
            away = np.linalg.norm(points[:, None] - true[None], axis=2).min(axis=1)
        power = np.exp(level + rng.normal(0, 0.12, len(points)) + 1.1 * np.clip(1 - away / reach, 0, 1) ** 0.5)
        ncc = rng.normal(0.26, 0.05, len(points))
        if not prefix:
            ncc[:particles] = rng.normal(0.55, 0.08, particles)
        columns |= {"y": points[:, 0], "x": points[:, 1], "ncc": ncc, "power": power} if not prefix else {
            "decoy_y": points[:, 0], "decoy_x": points[:, 1], "decoy_ncc": ncc, "decoy_power": power
        }  # fmt: skip
    dims = {name: ("micrograph", "decoy" if name.startswith("decoy_") else "pick") for name in columns}
    picks = xr.Dataset({name: (dims[name], values[None]) for name, values in columns.items()})
    picks["count"] = "micrograph", [particles + 600]
    picks["decoy_count"] = "micrograph", [800]
    picks["status"] = "micrograph", np.array([Status.DONE], np.int8)
    assert power_levels(picks, True, reach)[0] == pytest.approx(level, abs=0.06)


def test_an_unknown_level_is_the_usual_one():
    planted = plant(micrographs=6)
    known = power_levels(planted.picks, True, RADIUS)
    planted.picks["decoy_count"].values[2] = 0
    found = power_levels(planted.picks, True, RADIUS)
    assert found[2] == pytest.approx(np.median(np.delete(known, 2)))
    assert np.isnan(power_levels(planted.picks.drop_vars(["decoy_power"]), True, RADIUS)).all()


def test_whether_there_are_decoys():
    planted = plant(micrographs=4)
    assert has_decoys(planted.picks)
    assert not has_decoys(planted.picks.drop_vars([name for name in planted.picks if str(name).startswith("decoy")]))
    failed = planted.picks.assign(status=xr.zeros_like(planted.picks["status"]))
    assert not has_decoys(failed)


def test_what_leaks_from_beside_a_pick_is_that_of_a_loop():
    """Beyond 1.2 times the micrograph's median, which is never less than the noise; nothing where it is not known."""
    rng = np.random.default_rng(3)
    around = rng.gamma(2.0, 1.5, (4, 9)).astype(np.float32)
    around[1] = 0.3 * rng.random(9)
    around[2, 4] = np.nan
    around[3] = np.nan
    count, level = np.array([9, 7, 8, 9]), np.array([0.1, 0.0, -0.2, 0.3])
    table = {name: (("micrograph", "pick"), np.ones((4, 9), np.float32)) for name in ("x", "y", "ncc", "power")}
    table["background_variance"] = (("micrograph", "pick"), around)
    table |= {"count": ("micrograph", count), "status": ("micrograph", np.full(4, Status.DONE, np.int8))}
    found = flattened(xr.Dataset(table), np.ones((4, 1)), level, leak=0.5).leak
    expected = []
    for i in range(4):
        ring = around[i, : count[i]].astype(float) / np.exp(level[i])
        known = np.sort(ring[np.isfinite(ring)])
        usual = max(known[(len(known) - 1) // 2], 1.0) if len(known) else 1.0
        expected += [0.5 * max(value - 1.2 * usual, 0.0) if np.isfinite(value) else 0.0 for value in ring]
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert (found > 0).sum() > 5
    assert not flattened(xr.Dataset(table), np.ones((4, 1)), level).leak.any()


def test_power_with_a_leak_is_the_sum_of_two():
    """Mean and deviation of the logarithm of a narrow log-normal and what is added to it, to first order."""
    rng = np.random.default_rng(4)
    mean, deviation, leak = np.array([0.0, 0.7, 0.7]), 0.05, np.array([0.0, 0.3, 2.0])
    own = np.exp(mean[:, None] + deviation * rng.standard_normal((3, 100_000)))
    drawn = np.log(own + leak[:, None])
    found = with_leak(mean, 0.05, leak)
    np.testing.assert_allclose(found[0], drawn.mean(axis=1), atol=2e-3)
    of_leak = VAGUE * leak / (np.exp(mean) + leak)
    np.testing.assert_allclose(found[1], np.hypot(drawn.std(axis=1), of_leak), rtol=0.02)
    assert found[1][0] == 0.05
