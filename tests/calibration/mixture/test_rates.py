"""False discovery rates against sorting and counting."""

import numpy as np
import pytest
from planted import DIAMETER, PARTICLE, plant, straight
from scipy.special import expit

from pickcal.calibration.mixture import fit_mixture, mixture_columns, probabilities
from pickcal.calibration.mixture.model import LEVELS
from pickcal.calibration.mixture.rates import false_discovery_rates, log_odds, q_values
from pickcal.settings import CalibrateSettings


def shares_drawn(n, seed=0, junk=0.1):
    rng = np.random.default_rng(seed)
    particle = expit(rng.normal(-1, 4, n))
    return np.stack([(1 - particle) * (1 - junk), particle, (1 - particle) * junk])


def rates_of(shares, defocus, micrograph):
    return false_discovery_rates(shares, defocus, micrograph, np.zeros(0), np.zeros(0))


def naive(probability):
    """For each pick the mean chance of being false among those at least as probable."""
    return np.array([np.mean(1 - probability[probability >= p]) for p in probability])


def test_q_values_are_those_of_counting():
    """To within a step of the table, a tenth in log odds; and never below the rate by more than that step."""
    shares = shares_drawn(2000)
    p = shares[PARTICLE]
    table = rates_of(shares, np.array([15_000.0]), np.zeros(2000, int))
    found = q_values(p, np.full(2000, 15_000.0), table)
    expected = naive(p)
    inside = np.abs(log_odds(p)) < 11.9
    order = np.sort(p)
    # rates of the picks accepted at most a step of the table above and below
    above = np.array([np.mean(1 - order[order >= expit(log_odds(q) + 0.1)]) if (order >= expit(log_odds(q) + 0.1)).any()
                      else 0.0 for q in p])  # fmt: skip
    below = np.array([np.mean(1 - order[order >= expit(log_odds(q) - 0.1)]) for q in p])
    assert (found[inside] >= above[inside] - 1e-6).all()
    assert (found[inside] <= below[inside] + 1e-6).all()
    np.testing.assert_allclose(found[inside], expected[inside], atol=0.01)


def test_q_values_fall_with_probability():
    rng = np.random.default_rng(1)
    table = rates_of(shares_drawn(8000, 1), rng.uniform(8000, 25_000, 60), np.sort(rng.integers(0, 60, 8000)))
    assert table.sizes["stratum"] > 1
    grid = np.linspace(0, 1, 3001)
    for defocus in (5000.0, 12_345.0, 17_000.0, 30_000.0):
        values = q_values(grid, np.full(3001, defocus), table)
        assert (np.diff(values) <= 1e-12).all()
        assert values.min() >= 0 and values.max() <= 1


def test_the_table_counts_what_is_above():
    """By a loop over levels, decoys by their weight."""
    rng = np.random.default_rng(2)
    shares = shares_drawn(500, 2)
    decoys, weight = expit(rng.normal(-3, 3, 300)), rng.random(300)
    table = false_discovery_rates(shares, np.linspace(1e4, 2e4, 5), np.sort(rng.integers(0, 5, 500)), decoys, weight)
    for k in range(0, 241, 24):
        level = LEVELS[k]
        above = (log_odds(shares[PARTICLE]) >= level) | (k == 0)
        assert table["picks_above"].values[k] == above.sum()
        assert table["noise_above"].values[k] == pytest.approx(shares[0, above].sum())
        assert table["junk_above"].values[k] == pytest.approx(shares[2, above].sum())
        counted = weight[(log_odds(decoys) >= level) | (k == 0)].sum() * shares[0].sum() / weight.sum()
        assert table["decoys_above"].values[k] == pytest.approx(counted)


def test_rates_are_those_of_the_picks_of_one_defocus():
    """Strata of whole micrographs by defocus: each has the rate of its own picks at its middle."""
    rng = np.random.default_rng(3)
    defocus = rng.permutation(np.linspace(8000, 24_000, 10))
    micrograph = np.sort(rng.integers(0, 10, 6000))
    particle = expit(rng.normal(-1, 3, 6000) + np.where(defocus > 16_000, 2.0, 0.0)[micrograph])
    shares = np.stack([1 - particle, particle, np.zeros(6000)])
    table = rates_of(shares, defocus, micrograph)
    strata = table.sizes["stratum"]
    assert strata == 3
    order = np.argsort(defocus)
    split = [order[i * 10 // strata : (i + 1) * 10 // strata] for i in range(strata)]
    starts = [np.flatnonzero(np.arange(10) * strata // 10 == s) for s in range(strata)]
    for s in range(strata):
        mine = order[starts[s]]
        assert len(mine) in (3, 4) and len(split[s]) in (3, 4)
        chance = particle[np.isin(micrograph, mine)]
        middle = float(table["stratum_defocus"][s])
        assert middle == pytest.approx(defocus[mine].mean())
        for p in (0.2, 0.5, 0.9):
            expected = np.mean(1 - chance[chance >= p])
            assert q_values(np.array([p]), np.array([middle]), table)[0] == pytest.approx(expected, abs=0.01)


def test_one_defocus_for_all():
    """Equal defocus everywhere: the rate of all picks together."""
    shares = shares_drawn(8000, 4)
    table = rates_of(shares, np.full(40, 15_000.0), np.sort(np.random.default_rng(0).integers(0, 40, 8000)))
    p = np.array([0.2, 0.5, 0.9, 0.99])
    expected = [np.mean(1 - shares[PARTICLE][shares[PARTICLE] >= q]) for q in p]
    np.testing.assert_allclose(q_values(p, np.full(4, 15_000.0), table), expected, atol=0.01)


def test_the_nominal_rate_holds_at_every_defocus():
    """Four times as much noise, and closer to the particles, at low defocus: 5 % and 10 % hold in every quarter."""
    planted = plant(
        micrographs=160,
        seed=12,
        noise_count=lambda um: 160.0 - 100.0 * um,
        particle_mean=straight(0.285, 0.025),
        particle_count=straight(40.0, 15.0),
    )
    model = fit_mixture(planted.picks, planted.micrographs, DIAMETER, CalibrateSettings(bootstrap=0))
    held = model.to_dataset()
    held = held.merge(mixture_columns(planted.picks, planted.micrographs, model)).assign_attrs(held.attrs)
    q = probabilities(planted.picks, planted.micrographs, held)["q_value"].values
    for quarter in np.array_split(np.argsort(planted.um), 4):
        for nominal in (0.05, 0.1):
            accepted = q[quarter] <= nominal
            false = (planted.kind[quarter] != PARTICLE) & accepted
            n = accepted.sum()
            assert n > 300
            assert false.sum() / n == pytest.approx(nominal, abs=3 * np.sqrt(nominal / n) + 0.01)


def test_without_picks_above_a_level_nothing_is_free():
    """All picks improbable: a later, surer pick gets at least the rate of one of its own probability."""
    particle = np.full(300, 0.1)
    table = rates_of(np.stack([1 - particle, particle, 0 * particle]), np.full(3, 1e4), np.repeat(np.arange(3), 100))
    assert q_values(np.array([0.1]), np.array([1e4]), table)[0] == pytest.approx(0.9, abs=0.01)
    for p in (0.5, 0.9, 0.99):
        assert q_values(np.array([p]), np.array([1e4]), table)[0] >= (1 - p) - 1e-6
