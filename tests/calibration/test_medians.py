import numpy as np
import pytest
from scipy import stats

from pickcal.calibration.medians import medians_above_decoys, medians_of_all


def mixture(particles, noise, seed, mean=0.45, sigma=0.04):
    """Noise N(0.2, 0.05) in picks and decoys alike, particles N(mean, sigma); power 1 and 4 with 10 % spread."""
    rng = np.random.default_rng(seed)
    ncc = np.r_[mean + sigma * rng.standard_normal(particles), 0.2 + 0.05 * rng.standard_normal(noise)]
    power = np.r_[4 * np.exp(0.1 * rng.standard_normal(particles)), np.exp(0.1 * rng.standard_normal(noise))]
    decoy_ncc = 0.2 + 0.05 * rng.standard_normal(noise)
    decoy_power = np.exp(0.1 * rng.standard_normal(noise))
    mixed = rng.permutation(len(ncc))
    return ncc[mixed], power[mixed], decoy_ncc, decoy_power


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("particles", "noise"), [(300, 100), (100, 600)])
def test_medians_are_those_of_the_particles_however_much_noise_there_is(particles, noise, seed):
    found = medians_above_decoys(*mixture(particles, noise, seed))
    assert found.ncc == pytest.approx(0.45, abs=4 * 0.04 * 1.2533 / np.sqrt(particles) + 0.005)
    assert found.power == pytest.approx(4, rel=0.06)
    assert found.particles == pytest.approx(particles, abs=4 * np.sqrt(2 * noise))
    everything = medians_of_all(*mixture(particles, noise, seed)[:2])
    if noise > particles:
        assert everything.ncc < 0.3 and everything.power < 2


def test_noise_that_overlaps_is_taken_off():
    """A third of the particles lie below where noise still is: the plain median above any cut would be biased."""
    found = [medians_above_decoys(*mixture(400, 800, seed, mean=0.3, sigma=0.05)) for seed in range(20)]
    assert np.mean([m.ncc for m in found]) == pytest.approx(0.3, abs=0.012)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("noise", [0, 5, 200, 2000])
def test_an_empty_micrograph_says_nothing(seed, noise):
    found = medians_above_decoys(*mixture(0, noise, seed))
    assert np.isnan([found.ncc, found.power, found.break_even]).all()
    assert found.particles < 0.2 * noise + 10


def test_few_particles_say_nothing():
    found = medians_above_decoys(*mixture(8, 0, 0))
    assert np.isnan(found.ncc) and found.particles == 8


def test_without_decoys_every_pick_counts():
    ncc, power, *_ = mixture(50, 0, 0)
    found = medians_above_decoys(ncc, power, np.zeros(0), np.zeros(0))
    assert found.ncc == pytest.approx(np.median(ncc), abs=0.01)
    assert found.power == pytest.approx(np.median(power), rel=0.05)
    assert found.particles == 50


def test_break_even_lies_where_the_densities_cross():
    """Averaged over many micrographs: there the picks are as dense in particles as in noise."""
    particles, noise = 400, 800
    found = [medians_above_decoys(*mixture(particles, noise, s, mean=0.42, sigma=0.06)).break_even for s in range(40)]
    grid = np.linspace(0.2, 0.42, 10_001)
    density = particles * stats.norm.pdf(grid, 0.42, 0.06) - noise * stats.norm.pdf(grid, 0.2, 0.05)
    crossing = grid[np.argmin(np.abs(density))]
    assert np.mean(found) == pytest.approx(crossing, abs=0.01)
    assert np.std(found) < 0.02


def test_break_even_falls_as_noise_gets_rarer():
    crowded = [medians_above_decoys(*mixture(400, 100, s, sigma=0.06)).break_even for s in range(20)]
    sparse = [medians_above_decoys(*mixture(200, 1000, s, sigma=0.06)).break_even for s in range(20)]
    assert np.nanmean(crowded) < np.nanmean(sparse) - 0.015


def test_ice_above_all_decoys_does_not_make_the_break_even():
    """Particles nowhere twice as dense as decoys, and a dozen pieces of ice at 0.9: the median is all there is."""
    rng = np.random.default_rng(0)
    for seed in range(10):
        ncc, power, decoys, of_decoys = mixture(120, 900, seed, mean=0.27, sigma=0.05)
        ice = 0.9 + 0.02 * rng.standard_normal(12)
        found = medians_above_decoys(np.r_[ncc, ice], np.r_[power, 15 + 0 * ice], decoys, of_decoys)
        assert np.isnan(found.break_even) or found.break_even <= found.ncc < 0.5


def test_particles_that_stand_clear_are_seen_among_much_noise():
    """A hundred particles five deviations above a thousand noise picks: the noise's own excess must not hide them."""
    found = [medians_above_decoys(*mixture(100, 1000, seed)) for seed in range(40)]
    assert np.isfinite([m.ncc for m in found]).mean() > 0.95
    assert np.nanmedian([m.ncc for m in found]) == pytest.approx(0.45, abs=0.01)


def test_by_hand():
    """Picks at 0.90, 0.88 ... 0.52 and 0.1; decoys at 0.61 and, with the last pick, at 0.2."""
    ncc = np.append(0.9 - 0.02 * np.arange(20), 0.1)
    decoys = np.array([0.61, 0.2, 0.2, 0.2])
    found = medians_above_decoys(ncc, np.arange(21.0), decoys, np.array([3.0, 100, 100, 100]))
    # at 0.52 there are 20 picks and 1 decoy above; half of 19 is reached by the tenth pick
    assert found.particles == 19
    assert found.ncc == pytest.approx(0.72)
    # powers 0 to 19 less one of 3: of the 19 left, the count reaches 9.5 at 10
    assert found.power == 10
    # picks - 2 decoys: 18 at 0.52, 17 and 16 at the two before; never so many again
    assert found.break_even == pytest.approx(0.54, abs=0.025)


def test_medians_of_all():
    found = medians_of_all(np.array([0.1, 0.5, 0.3]), np.array([1.0, 9.0, 2.0]))
    assert (found.ncc, found.power, found.particles) == (0.3, 2.0, 3.0)
    assert np.isnan(medians_of_all(np.zeros(0), np.zeros(0)).ncc)
    assert np.isnan(medians_above_decoys(*[np.zeros(0)] * 4).ncc)
