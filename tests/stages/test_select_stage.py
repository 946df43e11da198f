"""The stage that selects: thresholds on probabilities, automatic ones, what is expected to be false."""

import re

import numpy as np
import pytest
from planted import JUNK, NOISE, PARTICLE, plant, planted_project, straight

from pickcal.calibration import calibrated_scores
from pickcal.errors import InputError
from pickcal.selection import ACCEPTED, REASONS, read_thresholds
from pickcal.settings import CalibrateSettings, SelectSettings
from pickcal.stages.calibrate import calibrate
from pickcal.stages.select import Judge, automatic, judge, select
from pickcal.stages.select_result import expected_false, is_stale, selection_counts, stored_selection

FAST = CalibrateSettings(bootstrap=0)
PLANTED = plant(micrographs=60, seed=21, junk_count=straight(6.0), junk_scale=0.8, particle_power=straight(0.5, 0.1))


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A calibrated project with junk; tests write selections of their own names only."""
    project = planted_project(tmp_path_factory.mktemp("select") / "p.zarr", PLANTED)
    calibrate(project, "template", FAST)
    return project


def test_what_is_expected_to_be_false_is_what_is(shared):
    """Noise and junk apart, as stored with the selection, against what was planted."""
    select(shared, "template", "half", SelectSettings(probability=0.5))
    accepted = judge(shared, "template", SelectSettings(probability=0.5)) == ACCEPTED
    found = expected_false(shared, "half")
    for kind, name in ((NOISE, "expected_noise"), (JUNK, "expected_junk")):
        true = (accepted & (PLANTED.kind == kind)).sum()
        assert found[name] == pytest.approx(true, abs=4 * np.sqrt(true + 1) + 0.02 * accepted.sum())
    total = found["expected_noise"] + found["expected_junk"]
    assert found["expected_false_rate"] == pytest.approx(total / accepted.sum())
    likelihood = Judge(shared, "template", SelectSettings()).block(0, shared.count).likelihood
    assert total == pytest.approx((1 - likelihood["probability"].values[accepted]).sum(dtype=float), rel=1e-5)


def test_a_selection_by_probability_tells_what_the_calibration_doubts(shared, tmp_path):
    """Ice among noise, and no particle: not silently accepted as particles; nor are particles cautioned of."""
    ice = {"particle_mean": straight(0.85), "particle_power": straight(np.log(60.0)), "slope": 0.0}
    project = planted_project(tmp_path / "p.zarr", plant(micrographs=20, particle_count=straight(6.0), **ice))
    calibrate(project, "template", FAST)
    found = select(project, "template", "auto", automatic(project, "template", SelectSettings()))
    told = selection_counts(project, found, "auto")["caution"]
    assert re.fullmatch(r"particles would have (5\d|6\d) times the power of the noise \(1\d\d of \d+ picks\), .*", told)
    assert "caution" in select(project, "template", "fdr", SelectSettings(fdr=0.01)).attrs
    assert "caution" not in select(project, "template", "scores", SelectSettings(min_ncc=0.2)).attrs
    assert "caution" not in select(shared, "template", "sure", SelectSettings(probability=0.5)).attrs


@pytest.mark.parametrize("rate", [0.05, 0.1])
def test_a_false_discovery_rate_is_kept(shared, rate):
    accepted = judge(shared, "template", SelectSettings(fdr=rate)) == ACCEPTED
    false = (accepted & (PLANTED.kind != PARTICLE)).sum() / accepted.sum()
    assert false == pytest.approx(rate, abs=0.02)
    assert accepted.sum() > 0.5 * (PLANTED.kind == PARTICLE).sum()


def test_automatic_thresholds_replay_from_their_file(shared, tmp_path):
    """The file that `select --auto` writes accepts the same picks, without asking the mixture for thresholds."""
    chosen = automatic(shared, "template", SelectSettings(edge=300.0))
    assert chosen.probability == 0.5 and chosen.max_power > 1 and chosen.edge == 300.0 and chosen.fdr is None
    first = select(shared, "template", "auto", chosen, save=tmp_path / "auto.toml")
    again = read_thresholds(tmp_path / "auto.toml")
    assert again == chosen
    second = select(shared, "template", "replayed", again)
    np.testing.assert_array_equal(second["counts"], first["counts"])
    np.testing.assert_array_equal(judge(shared, "template", again), judge(shared, "template", chosen))
    assert stored_selection(shared, "auto") == ("template", chosen)


def test_what_is_given_stays(shared):
    given = SelectSettings(fdr=0.05, max_power=77.0, exclude=("mics/m_0003.mrc",))
    assert automatic(shared, "template", given) == given
    only = automatic(shared, "template", SelectSettings(probability=0.9))
    assert only.probability == 0.9 and only.max_power is not None


def test_the_automatic_power_maximum_rejects_junk_and_hardly_a_particle(shared):
    chosen = automatic(shared, "template", SelectSettings())
    picks = shared.dataset("picks/template").load()
    power = calibrated_scores(picks, shared.calibration("template"))["power"].values
    above = power > chosen.max_power
    assert (above & (PLANTED.kind == PARTICLE)).sum() <= 0.01 * (PLANTED.kind == PARTICLE).sum()
    strong = (PLANTED.kind == JUNK) & (picks["power"].values > np.exp(0.5 + 1.5))
    assert strong.sum() > 150 and (above & strong).sum() > 0.75 * strong.sum()
    accepted = judge(shared, "template", chosen) == ACCEPTED
    assert (accepted & (PLANTED.kind == JUNK)).sum() < 0.1 * (PLANTED.kind == JUNK).sum()


def test_automatic_refuses_what_makes_no_sense(shared, tmp_path):
    with pytest.raises(InputError, match="raw"):
        automatic(shared, "template", SelectSettings(raw=True))
    bare = planted_project(tmp_path / "p.zarr", plant(micrographs=8))
    with pytest.raises(InputError, match="not calibrated"):
        automatic(bare, "template", SelectSettings())
    calibrate(bare, "template", CalibrateSettings(bootstrap=0, probability="none"))
    with pytest.raises(InputError, match="turned off"):
        automatic(bare, "template", SelectSettings())


def test_a_power_minimum_above_the_maximum_it_finds(shared):
    """An error in words, naming the setting, not one of the settings' library."""
    with pytest.raises(InputError, match="min_power"):
        automatic(shared, "template", SelectSettings(min_power=5000.0))


@pytest.mark.parametrize("settings", [SelectSettings(probability=0.5), SelectSettings(fdr=0.05)])
def test_probabilities_that_are_not_there_are_refused_with_the_reason(tmp_path, settings):
    """Too few picks: the reason is the calibration's."""
    planted = plant(micrographs=6)
    planted.picks["count"].values[:] = 20
    project = planted_project(tmp_path / "p.zarr", planted)
    calibrate(project, "template", CalibrateSettings(bootstrap=0, median_of="all"))
    with pytest.raises(InputError, match="120 picks, at least 200"):
        select(project, "template", "s", settings)
    assert project.names("selection") == []
    select(project, "template", "s", SelectSettings(min_ncc=0.2))
    assert expected_false(project, "s") == {}


def test_another_mixture_makes_a_selection_stale(tmp_path):
    planted = plant(micrographs=12)
    project = planted_project(tmp_path / "p.zarr", planted)
    calibrate(project, "template", FAST)
    select(project, "template", "s", SelectSettings(probability=0.9))
    calibrate(project, "template", FAST)
    assert not is_stale(project, "s")
    calibrate(project, "template", CalibrateSettings(bootstrap=0, junk=False))
    assert is_stale(project, "s")


def test_every_pick_has_its_reason(shared):
    """By a loop over picks, in the order in which reasons are given."""
    settings = SelectSettings(probability=0.6, fdr=0.03, max_power=20.0, min_ncc=0.25)
    found = Judge(shared, "template", settings).block(0, shared.count)
    reasons, likelihood = found.reasons, found.likelihood
    picks = shared.dataset("picks/template").load()
    scores = calibrated_scores(picks, shared.calibration("template"))
    seen = set()
    for i in range(10):
        for k in range(picks.sizes["pick"]):
            if PLANTED.kind[i, k] < 0:
                assert reasons[i, k] == -1
                continue
            if scores["ncc"].values[i, k] < 0.25:
                expected = "low score"
            elif scores["power"].values[i, k] > 20:
                expected = "high power"
            elif likelihood["probability"].values[i, k] < 0.6:
                expected = "probability"
            elif likelihood["q_value"].values[i, k] > 0.03:
                expected = "false discovery rate"
            else:
                expected = "accepted"
            assert REASONS[reasons[i, k]] == expected
            seen.add(expected)
    assert {"accepted", "low score", "probability", "false discovery rate"} <= seen
