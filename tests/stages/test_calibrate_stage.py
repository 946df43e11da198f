"""The stage that calibrates: blocks, interruptions, reasons, and micrographs that nothing is known of."""

import json
import subprocess
import sys
import threading

import numpy as np
import pytest
import xarray as xr
from planted import NOISE, PARTICLE, plant, planted_project, straight

import pickcal.stages.calibrate as stage
from pickcal.engine.one_job import only_job
from pickcal.errors import InputError, ProjectError
from pickcal.project import Project
from pickcal.schema import Status
from pickcal.settings import CalibrateSettings, SelectSettings
from pickcal.stages.calibrate import calibrate
from pickcal.stages.calibrate_result import probability_summary
from pickcal.stages.select import likelihoods, select

FAST = CalibrateSettings(bootstrap=0)


def chances(project):
    """Probability and q-value of every pick, as stages read them."""
    dataset = project.dataset("picks/template").load()
    return likelihoods(project, "template", dataset, project.micrographs().drop_vars("image").load())


def odd(planted):
    """One micrograph each without defocus, power, decoys, picks, and one that failed."""
    planted.micrographs["defocus_u"].values[2] = np.nan
    planted.picks["power"].values[5] = planted.picks["decoy_power"].values[5] = np.nan
    planted.picks["decoy_count"].values[8] = 0
    planted.picks["count"].values[11] = planted.picks["decoy_count"].values[11] = 0
    planted.picks["status"].values[14] = Status.FAILED
    planted.picks["count"].values[14] = planted.picks["decoy_count"].values[14] = 0
    return planted


SETTINGS = {
    "plain": FAST,
    "covariates": CalibrateSettings(bootstrap=0, covariates=("dose", "time", "template")),
    "all": CalibrateSettings(bootstrap=0, median_of="all"),
}


@pytest.mark.parametrize(("kind", "places"), [("plain", 1), ("covariates", 1000), ("all", 500)])
def test_several_blocks_are_one_block(tmp_path, monkeypatch, kind, places):
    """Every number of a calibration, and every probability, whatever is read at a time."""
    stamps = np.array([f"mics/m_20240301_{i:02d}4500.mrc" for i in range(16)], dtype=object)
    columns = {"image_mean": np.linspace(90.0, 110.0, 16), "name": stamps}
    planted = odd(plant(micrographs=16, columns=columns, template_offsets=(0.01, -0.01)))
    one, other = (planted_project(tmp_path / name, planted) for name in ("one.zarr", "other.zarr"))
    calibrate(one, "template", SETTINGS[kind])
    monkeypatch.setattr(stage, "BLOCK_PLACES", places)
    assert len(stage.PickTable(other, "template").blocks()) > 2
    calibrate(other, "template", SETTINGS[kind])
    for ours, theirs in (
        (one.calibration("template"), other.calibration("template")),
        (one.mixture("template"), other.mixture("template")),
        (chances(one), chances(other)),
    ):
        assert set(ours.variables) == set(theirs.variables)
        for name in ours.variables:
            if ours[name].dtype.kind == "f":
                np.testing.assert_allclose(theirs[name].values, ours[name].values, rtol=1e-6, atol=1e-9, err_msg=name)
            else:
                np.testing.assert_array_equal(theirs[name].values, ours[name].values, str(name))


def test_odd_micrographs_are_calibrated_as_far_as_they_can_be(tmp_path):
    planted = odd(plant(micrographs=24))
    project = planted_project(tmp_path / "p.zarr", planted)
    calibrate(project, "template", FAST)
    found = chances(project)["probability"].values
    there = np.isfinite(found)
    assert not there[[11, 14]].any()
    expected = planted.kind >= 0
    expected[[11, 14]] = False
    np.testing.assert_array_equal(there, expected)
    mixture = project.mixture("template")
    assert np.isfinite(mixture["fraction"].values).all() and np.isfinite(mixture["expected"].values).all()
    # without defocus and without power they are judged less well, not wrongly
    for i in (2, 5, 8):
        particles = (planted.kind[i] == PARTICLE).sum()
        assert mixture["expected"].values[i, PARTICLE] == pytest.approx(particles, abs=0.4 * particles)


class Stopped(Exception):
    """As if the process had been killed."""


def test_an_interrupted_calibration_does_not_count(tmp_path, monkeypatch):
    """It stops between two blocks: neither lines nor probabilities are there, and the same command finishes."""
    planted = plant(micrographs=12)
    project = planted_project(tmp_path / "p.zarr", planted)
    whole = planted_project(tmp_path / "whole.zarr", planted)
    calibrate(whole, "template", FAST)
    calibrate(project, "template", CalibrateSettings(bootstrap=0, probability="none"))
    select(project, "template", "s", SelectSettings(min_ncc=0.3))
    monkeypatch.setattr(stage, "BLOCK_PLACES", 1000)
    columns, blocks = stage.mixture_columns, []

    def stopping(*arguments):
        blocks.append(arguments)
        if len(blocks) == 2:
            raise Stopped
        return columns(*arguments)

    monkeypatch.setattr(stage, "mixture_columns", stopping)
    with pytest.raises(Stopped):
        calibrate(project, "template", FAST)
    again = Project.open(project.path, "r+")
    assert again.names("calibration") == []
    assert again.calibration("template") is None and again.mixture("template") is None
    with pytest.raises(InputError, match="no probabilities"):
        select(again, "template", "t", SelectSettings(probability=0.5))
    monkeypatch.setattr(stage, "mixture_columns", columns)
    calibrate(again, "template", FAST)
    np.testing.assert_array_equal(chances(again)["probability"], chances(whole)["probability"])


def test_a_new_calibration_leaves_nothing_of_the_old(tmp_path):
    planted = plant(micrographs=12)
    project = planted_project(tmp_path / "p.zarr", planted)
    calibrate(project, "template", FAST)
    assert project.mixture("template") is not None
    found = calibrate(project, "template", CalibrateSettings(bootstrap=0, probability="none"))
    assert project.mixture("template") is None
    assert found.attrs["probability"] == "turned off"
    assert probability_summary(found, None) == {"verdict": "turned off"}


def test_too_few_picks_say_so_and_lines_stay(tmp_path):
    planted = plant(micrographs=6)
    planted.picks["count"].values[:] = 20
    project = planted_project(tmp_path / "p.zarr", planted)
    found = calibrate(project, "template", CalibrateSettings(bootstrap=0, median_of="all"))
    assert project.mixture("template") is None
    assert found.attrs["probability"] == "not fitted: 120 picks, at least 200 are needed"
    assert found["applied"].values.any()


def test_nothing_finished_is_refused(tmp_path):
    planted = plant(micrographs=6)
    planted.picks["status"].values[:] = Status.PENDING
    project = planted_project(tmp_path / "p.zarr", planted)
    with pytest.raises(InputError, match="no finished micrograph"):
        calibrate(project, "template", FAST)
    with pytest.raises(ProjectError, match="no picks named 'blob'; it has: template"):
        calibrate(project, "blob", FAST)


def test_a_large_data_set_is_fitted_on_some_and_laid_on_all(tmp_path, monkeypatch):
    """Fits on a fifth, spread over defocus: all micrographs get columns, and probabilities as good as from all."""
    planted = plant(micrographs=100, particle_count=straight(45.0, 25.0), noise_count=straight(90.0, -30.0))
    project = planted_project(tmp_path / "p.zarr", planted)
    monkeypatch.setattr(stage, "MIXTURE_PICKS", 3000)
    monkeypatch.setattr(stage, "LEAST_MIXTURE", 10)
    monkeypatch.setattr(stage, "LINE_SAMPLE", 50)
    monkeypatch.setattr(stage, "BLOCK_PLACES", 8000)
    found = calibrate(project, "template", FAST)
    mixture = project.mixture("template")
    report = json.loads(mixture.attrs["report"])
    assert found.attrs["micrographs_fitted"] == 50 and 15 < report["micrographs"] < 30
    assert found["shift"].shape == (2, 100) and mixture["fraction"].shape == (100, 3)
    chance = chances(project)["probability"].values
    there = planted.kind >= 0
    assert np.abs(chance[there] - planted.oracle[there]).mean() < 0.03
    per_micrograph = [(planted.kind == kind).sum(axis=1) for kind in (NOISE, PARTICLE)]
    for kind, true in enumerate(per_micrograph):
        assert mixture["expected"].values[:, kind].sum() == pytest.approx(true.sum(), rel=0.06)


BY_GROUP = {
    "covariate": CalibrateSettings(bootstrap=0, covariates=("exposure_group",)),
    "per group": CalibrateSettings(bootstrap=0, per_group=True),
}


@pytest.mark.parametrize("kind", BY_GROUP)
def test_a_sample_holds_some_of_every_exposure_group(tmp_path, monkeypatch, kind):
    """A group of few micrographs that a sample would miss, with scores that lie 0.1 higher."""
    group = np.where(np.isin(np.arange(100), [3, 17, 31, 45, 59, 73, 87]), 8, 1).astype(np.int32)
    planted = plant(micrographs=100, columns={"exposure_group": group})
    for name in ("ncc", "decoy_ncc"):
        planted.picks[name].values[group == 8] += np.float32(0.1)
    project = planted_project(tmp_path / "p.zarr", planted)
    for name, value in (("LINE_SAMPLE", 24), ("MIXTURE_PICKS", 1300), ("LEAST_MIXTURE", 10)):
        monkeypatch.setattr(stage, name, value)
    found = calibrate(project, "template", BY_GROUP[kind])
    assert 24 < found.attrs["micrographs_fitted"] < 40
    shift = found["shift"].sel(score="ncc").values
    assert np.median(shift[group == 8]) - np.median(shift[group == 1]) == pytest.approx(0.1, abs=0.03)
    chance = chances(project)["probability"].values
    there = planted.kind[group == 8] >= 0
    assert np.abs(chance[group == 8][there] - planted.oracle[group == 8][there]).mean() < 0.04


@pytest.mark.parametrize("kind", ["plain", *BY_GROUP])
@pytest.mark.parametrize("groups", [(1, 4), (1,)])
def test_a_fit_is_not_laid_on_a_group_that_it_has_not_seen(tmp_path, kind, groups):
    """Where groups are told apart; a fit that takes all for one is laid on any."""
    group = np.resize(groups, 24).astype(np.int32)
    project = planted_project(tmp_path / "p.zarr", plant(micrographs=24, columns={"exposure_group": group}))
    calibrate(project, "template", {"plain": FAST, **BY_GROUP}[kind])
    assert stage.lay_on_more(project, "template", 20)
    group[22] = 9
    project.write_blocks("micrographs", 0, 24, {"exposure_group": group})
    assert stage.lay_on_more(project, "template", 20) == (kind == "plain")
    assert stage.lay_on_more(project, "template", 23)


@pytest.mark.parametrize("kind", BY_GROUP)
def test_a_group_that_had_no_picks_when_it_was_fitted_was_not_seen(tmp_path, kind):
    """Its micrograph failed: nothing new has to be known of it, until it has picks."""
    group = np.r_[np.resize([1, 4], 24), 9].astype(np.int32)
    planted = plant(micrographs=25, columns={"exposure_group": group})
    planted.picks["status"].values[24] = Status.FAILED
    project = planted_project(tmp_path / "p.zarr", planted)
    calibrate(project, "template", BY_GROUP[kind])
    assert stage.lay_on_more(project, "template", 20)
    project.write_blocks("picks/template", 0, 25, {"status": np.full(25, Status.DONE, np.int8)})
    assert not stage.lay_on_more(project, "template", 20)


def test_picks_without_power(tmp_path):
    """Calibrated on the NCC score alone; the automatic power maximum is left out, and says nothing worse."""
    from pickcal.stages.select import automatic

    planted = plant(micrographs=24, power=False)
    project = planted_project(tmp_path / "p.zarr", planted)
    calibrate(project, "template", FAST)
    chance = chances(project)["probability"].values
    there = planted.kind >= 0
    assert np.isfinite(chance[there]).all()
    assert np.abs(chance[there] - planted.oracle[there]).mean() < 0.03
    chosen = automatic(project, "template", SelectSettings())
    assert chosen.probability == 0.5 and chosen.max_power is None


def test_the_store_is_readable_without_pickcal(tmp_path):
    """By xarray alone, parameters and columns, with lengths that agree."""
    project = planted_project(tmp_path / "p.zarr", plant(micrographs=12))
    calibrate(project, "template", FAST)
    tree = xr.open_datatree(project.path, engine="zarr", consolidated=False)
    mixture = tree["calibration/template/mixture"]
    assert mixture["fraction"].dims == ("micrograph", "component") and mixture["fraction"].shape == (12, 3)
    assert [str(name) for name in mixture["component"].values] == ["noise", "particle", "junk"]
    assert mixture["q_value"].dims == ("stratum", "level")


def test_two_fits_at_once_come_one_after_the_other(tmp_path):
    """Two processes that begin together both end well, and the fit is that of one."""
    planted = plant(micrographs=12)
    for name in ("one.zarr", "two.zarr"):
        planted_project(tmp_path / name, planted)
    command = [sys.executable, "-m", "pickcal", "calibrate", "--picks", "template", "--quiet"]
    subprocess.run([*command, "one.zarr"], cwd=tmp_path, check=True, capture_output=True)
    both = [subprocess.Popen([*command, "two.zarr"], cwd=tmp_path, stderr=subprocess.PIPE, text=True) for _ in "ab"]
    said = [process.communicate(timeout=120)[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    alone, twice = (Project.open(tmp_path / name) for name in ("one.zarr", "two.zarr"))
    xr.testing.assert_identical(alone.calibration("template").load(), twice.calibration("template").load())
    xr.testing.assert_identical(alone.mixture("template").load(), twice.mixture("template").load())


def test_a_fit_that_another_keeps_from_beginning_says_who_and_changes_nothing(tmp_path, monkeypatch):
    project = planted_project(tmp_path / "p.zarr", plant(micrographs=12))
    calibrate(project, "template", FAST)
    before = project.calibration("template").load()
    monkeypatch.setattr(stage, "LONGEST_WAIT", 0.5)
    begun, over = threading.Event(), threading.Event()

    def other():
        with only_job(project.path, "calibration/template"):
            begun.set()
            over.wait(60)

    thread = threading.Thread(target=other)
    thread.start()
    try:
        assert begun.wait(30)
        with pytest.raises(ProjectError, match="calibration/template"):
            calibrate(project, "template", CalibrateSettings(bootstrap=0, degree=2))
    finally:
        over.set()
        thread.join()
    xr.testing.assert_identical(project.calibration("template").load(), before)
