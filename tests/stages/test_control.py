"""Noise-only control: many picks accepted in reality, next to none on noise of the same spectrum."""

import shutil

import numpy as np
import pytest
import xarray as xr
from alike import assert_identical

from pickcal.engine.executors import SerialExecutor
from pickcal.engine.progress import Silent
from pickcal.errors import InputError, ProjectError
from pickcal.picking.surrogate import patched, phase_randomised
from pickcal.present import render
from pickcal.project import Project
from pickcal.schema import Status
from pickcal.selection import ACCEPTED
from pickcal.settings import CalibrateSettings, ControlSettings, HandPick, SelectSettings
from pickcal.stages import control as module
from pickcal.stages.calibrate import calibrate
from pickcal.stages.control import control
from pickcal.stages.control_result import stored_control
from pickcal.stages.pick import pick
from pickcal.stages.select import automatic, judge, select
from pickcal.stages.select_result import thresholds_of
from pickcal.stages.status import status


def run(path, picks="template", executor=None, selection=None, **values):
    project = Project.open(path, "r+")
    return control(project, picks, ControlSettings(**values), executor or SerialExecutor(), Silent(), selection)


def counted(result):
    """Counts per micrograph, without the names."""
    return [[value for key, value in row.items() if key != "micrograph"] for row in result["per_micrograph"]]


@pytest.fixture(scope="module")
def calibrated(picked, tmp_path_factory):
    """The picked small set, calibrated, with selections `auto` and `strict`. Read only: copy it to write."""
    path = shutil.copytree(picked, tmp_path_factory.mktemp("calibrated") / "p.zarr")
    project = Project.open(path, "r+")
    calibrate(project, "template", CalibrateSettings(bootstrap=0))
    select(project, "template", "auto", automatic(project, "template", SelectSettings()))
    select(project, "template", "strict", SelectSettings(probability=0.9, exclude=("micrographs/mic_0002.mrc",)))
    return path


@pytest.fixture(scope="module")
def controlled(calibrated, tmp_path_factory):
    """The calibrated set with its control of the automatic thresholds, and what the control said."""
    path = shutil.copytree(calibrated, tmp_path_factory.mktemp("controlled") / "p.zarr")
    return path, run(path)


def test_many_in_reality_next_to_none_on_noise(controlled, small_set):
    """Real numbers are those of the selection, and near the true ones; the copies' are few."""
    path, result = controlled
    project = Project.open(path)
    accepted = (judge(project, "template", thresholds_of(project, "auto")) == ACCEPTED).sum(axis=1)
    assert (result["micrographs"], result["of"]) == (6, 6)
    assert result["real_accepted"] == pytest.approx(accepted.mean())
    assert result["real_accepted"] > 0.6 * np.mean(small_set.particles)
    assert result["control_accepted"] < 0.1 * result["real_accepted"]
    assert result["control_found"] > 0.7 * result["real_found"] > 20
    assert result["warning"] == ""
    assert result["share"] == result["control_accepted"] / result["real_accepted"]


def test_means_and_terciles_follow_from_the_micrographs(controlled):
    """Counted again, with the defocus from the table."""
    path, result = controlled
    table = Project.open(path).micrographs()[["name", "defocus_u", "defocus_v"]].load()
    defocus = dict(zip(table["name"].values, (table["defocus_u"] + table["defocus_v"]).values / 2, strict=True))
    rows = sorted(result["per_micrograph"], key=lambda row: defocus[row["micrograph"]])
    values = [row["control_accepted"] for row in rows]
    assert [result["control_least"], result["control_most"]] == [min(values), max(values)]
    assert result["control_accepted"] == pytest.approx(np.mean(values))
    for i, part in enumerate(result["terciles"]):
        mine = rows[2 * i : 2 * i + 2]
        ends = [defocus[row["micrograph"]] for row in mine]
        assert [part["defocus_low"], part["defocus_high"]] == pytest.approx(ends)
        assert part["micrographs"] == 2
        for name in ("real_accepted", "control_accepted"):
            assert part[name] == pytest.approx(np.mean([row[name] for row in mine]))


def test_in_words(controlled):
    """The sentence with the numbers, and a line per tercile, within 80 columns."""
    result = controlled[1]
    text = render(result)
    noise, real = f"{result['control_accepted']:.1f}", f"{result['real_accepted']:.1f}"
    sentence = f"the automatic thresholds accept {noise} picks a micrograph ({result['control_least']} to"
    assert sentence in " ".join(text.split())
    assert f"in the real micrographs {real}" in " ".join(text.split())
    assert "copies of 6 of 6 micrographs" in text
    assert text.count("µm") == 3
    assert "warning" not in text
    assert max(len(line) for line in text.splitlines()) <= 80


def test_the_same_as_picking_the_copies(controlled, small_settings, own):
    """The copies put in the place of the images and picked as ever: as many are accepted by the same fit."""
    path = own(controlled[0])
    project = Project.open(path, "r+")
    thresholds = thresholds_of(project, "auto")
    images = project._array("micrographs", "image")
    for i in range(6):
        pixel_size = float(project.read("micrographs", "pixel_size", i, i + 1)[0])
        ice = patched(project.image(i), pixel_size, 20.0, 450.0, 0.25 * 150)
        copy = phase_randomised(ice, np.random.default_rng([0, i]))
        images[i, : copy.shape[0], : copy.shape[1]] = copy.astype(np.float16)
    for start, stop in project.batches():
        project.write_batch("picks/template", start, stop, {"status": np.zeros(stop - start, np.int8)})
    assert pick(project, "template", small_settings, SerialExecutor(), Silent()).ran == 6
    accepted = (judge(project, "template", thresholds) == ACCEPTED).sum(axis=1)
    found = project.read("picks/template", "count")
    mine = counted(controlled[1])
    names = [row["micrograph"] for row in controlled[1]["per_micrograph"]]
    order = [list(project.read("micrographs", "name")).index(name) for name in names]
    # images are stored with half the digits: a score at the threshold may fall to either side
    assert np.abs([row[0] for row in mine] - accepted[order]).max() <= 1
    assert np.abs([row[2] for row in mine] - found[order]).max() <= 2


def test_executor_does_not_change_a_bit(controlled, calibrated, own, dask_executor):
    """In this process or in two others: the same group."""
    path = own(calibrated)
    assert run(path, executor=dask_executor) == controlled[1]
    mine, theirs = (xr.open_zarr(p, group="control/template", consolidated=False).load() for p in (path, controlled[0]))
    assert_identical(mine, theirs)


def test_seed_changes_the_copies_and_nothing_else(controlled, calibrated, own):
    """The real counts stay; those on the copies come out differently."""
    other = run(own(calibrated), seed=1)
    for name in ("real_accepted", "real_found"):
        assert other[name] == controlled[1][name]
    assert [row[2] for row in counted(other)] != [row[2] for row in counted(controlled[1])]
    assert other["seed"] == 1


def test_only_reads_the_picks(controlled, calibrated):
    """Not a byte of picks, calibration and selections is touched."""
    for folder in ("picks", "calibration", "selection", "micrographs"):
        for file in (calibrated / folder).rglob("*"):
            if file.is_file():
                assert (controlled[0] / folder / file.relative_to(calibrated / folder)).read_bytes() == (
                    file.read_bytes()
                )


def test_some_micrographs_spread_over_defocus(calibrated, own):
    """Of six the ends and one of the middle; the rest is not counted."""
    path = own(calibrated)
    result = run(path, micrographs=3)
    table = Project.open(path).micrographs()[["name", "defocus_u"]].load()
    order = [str(name) for name in table["name"].values[np.argsort(table["defocus_u"].values)]]
    names = [row["micrograph"] for row in result["per_micrograph"]]
    assert (result["micrographs"], result["of"]) == (3, 6)
    assert names[0] == order[0]
    assert names[1] in order[2:4]
    assert names[2] == order[5]
    assert len(result["terciles"]) == 3


def test_a_selection_and_its_exclusions(calibrated, own):
    """Thresholds of the selection; the micrograph it excludes is not tried, and said so."""
    path = own(calibrated)
    result = run(path, selection="strict")
    project = Project.open(path)
    accepted = (judge(project, "template", thresholds_of(project, "strict")) == ACCEPTED).sum()
    assert result["selection"] == "strict"
    assert result["thresholds"] == {"probability": 0.9, "exclude": ["micrographs/mic_0002.mrc"]}
    assert (result["micrographs"], result["of"]) == (5, 5)
    assert result["real_accepted"] == pytest.approx(accepted / 5)
    assert result["skipped"] == [{"micrograph": "micrographs/mic_0002.mrc", "error": "excluded by the selection"}]
    assert "not tried: micrographs/mic_0002.mrc: excluded" in render(result)


def test_decisions_by_hand_count_on_the_real_micrographs_and_not_on_the_copies(calibrated, own):
    """One pick taken and one left by hand: as many are accepted as the selection says, and no copy fails over them."""
    path = own(calibrated)
    project = Project.open(path, "r+")
    plain, names = thresholds_of(project, "auto"), project.read("micrographs", "name")
    table = project.dataset("picks/template")[["x", "y"]].load()
    reasons = judge(project, "template", plain)
    hands = {}
    for word, rejected in (("accept", True), ("reject", False)):
        row, place = np.argwhere((reasons > ACCEPTED) if rejected else (reasons == ACCEPTED))[0]
        x, y = (float(table[axis].values[row, place]) for axis in ("x", "y"))
        hands[word] = (HandPick(micrograph=str(names[row]), x=x, y=y),)
    select(project, "template", "hands", plain.model_copy(update=hands))
    accepted = (judge(project, "template", thresholds_of(project, "hands")) == ACCEPTED).sum(axis=1)
    result = run(path, selection="hands", micrographs=0)
    assert result["errors"] == []
    of = {row["micrograph"]: row["real_accepted"] for row in result["per_micrograph"]}
    assert [of[str(name)] for name in names] == accepted.tolist()
    assert accepted.sum() == (reasons == ACCEPTED).sum()
    before = run(path, selection="auto", micrographs=0)
    assert [row[0] for row in counted(result)] == [row[0] for row in counted(before)]


def test_thresholds_that_accept_everything_are_warned_of(calibrated, own):
    """Raw scores above -1: as many on noise as in reality."""
    path = own(calibrated)
    select(Project.open(path, "r+"), "template", "all", SelectSettings(min_ncc=-1, raw=True))
    result = run(path, selection="all", micrographs=2)
    assert result["control_accepted"] == result["control_found"] > 20
    assert "as many picks as the real micrographs" in result["warning"]
    assert "warning: noise alone" in render(result)


def test_a_control_does_not_outlive_its_fit_or_its_selection(calibrated, own):
    """After another calibration, or other thresholds under the name, it is gone until made again; listed as left."""
    path = own(calibrated)
    project = Project.open(path, "r+")
    assert stored_control(project, "template") is None
    result = run(path, selection="auto", micrographs=2)
    assert stored_control(project, "template") == result
    assert status(project)["control"]["template"]["verdict"] == result["verdict"]
    select(project, "template", "auto", SelectSettings(probability=0.2), overwrite=True)
    assert stored_control(project, "template") is None
    assert any(line.startswith("control template") for line in status(project)["left"])
    assert run(path, selection="auto", micrographs=2) == stored_control(project, "template")
    calibrate(project, "template", CalibrateSettings(bootstrap=0, junk=False))
    assert stored_control(project, "template") is None
    assert status(project)["control"] == {}
    with pytest.raises(ProjectError, match="calibrated anew"):
        run(path, selection="auto")
    assert run(path, micrographs=2) == stored_control(project, "template")
    assert not any("control" in line for line in status(project)["left"])


def test_wrong_names_are_refused(calibrated, picked, own, small_settings):
    """Picks, selection, a selection of other picks, and picks without probabilities."""
    path = own(calibrated)
    with pytest.raises(ProjectError, match="no picks named 'none'; it has: template"):
        run(path, picks="none")
    with pytest.raises(ProjectError, match="no selection named 'none'; it has: auto, strict"):
        run(path, selection="none")
    pick(Project.open(path, "r+"), "other", small_settings, SerialExecutor(), Silent())
    with pytest.raises(ProjectError, match="selection 'auto' is of picks 'template', not of 'other'"):
        run(path, picks="other", selection="auto")
    with pytest.raises(InputError, match=r"'other' have no probabilities.*pickcal calibrate"):
        run(path, picks="other")
    assert Project.open(path).names("control") == []


def test_uncalibrated_picks_with_raw_thresholds(picked, own):
    """A selection needs no mixture, and so does its control."""
    path = own(picked)
    select(Project.open(path, "r+"), "template", "raw", SelectSettings(min_ncc=0.5, raw=True))
    result = run(path, selection="raw", micrographs=2)
    assert result["micrographs"] == 2
    assert result["real_accepted"] > result["control_accepted"]


def test_a_micrograph_without_picks_is_skipped_with_its_reason(picked, small_settings, own):
    """One that failed in reality; the others are tried."""
    project = Project.open(own(picked), "r+")
    voltage = project.read("micrographs", "voltage")
    voltage[1] = np.nan
    project.write_blocks("micrographs", 0, project.count, {"voltage": voltage})
    assert pick(project, "again", small_settings, SerialExecutor(), Silent()).failed == 1
    calibrate(project, "again", CalibrateSettings(bootstrap=0))
    result = run(project.path, picks="again")
    assert (result["micrographs"], result["of"], result["errors"]) == (5, 5, [])
    (skipped,) = result["skipped"]
    assert skipped["micrograph"] == str(project.read("micrographs", "name")[1])
    assert skipped["error"].startswith("not picked: ")
    assert "voltage" in skipped["error"]


def test_a_micrograph_that_fails_does_not_stop_the_others(calibrated, own, monkeypatch):
    """Its reason is kept; a batch that is lost as a whole has one for each of its micrographs."""
    path = own(calibrated)
    search = module.search_micrograph

    def failing(image, row, *rest):
        if "mic_0003" in str(row["name"].item()):
            raise OSError(5, "Input/output error")
        return search(image, row, *rest)

    monkeypatch.setattr(module, "search_micrograph", failing)
    result = run(path)
    assert (result["micrographs"], result["of"]) == (5, 6)
    assert result["errors"] == [{"micrograph": "micrographs/mic_0003.mrc", "error": "Input/output error"}]
    stored = xr.open_zarr(path, group="control/template", consolidated=False).load()
    assert (stored["status"].values == Status.FAILED).sum() == 1
    assert (stored["control_accepted"].values == -1).sum() == 1

    def broken(_):
        raise MemoryError("too large")

    monkeypatch.setattr(module, "load_bank", broken)
    lost = run(path)
    assert lost["micrographs"] == 0
    assert len(lost["errors"]) == 6
    assert "too large" in lost["errors"][0]["error"]
    assert lost["verdict"] == "no copy could be searched"
    assert "no copy could be searched" in render(lost)


def test_nothing_to_try(calibrated, own):
    """All micrographs excluded."""
    path = own(calibrated)
    project = Project.open(path, "r+")
    names = tuple(str(name) for name in project.read("micrographs", "name"))
    select(project, "template", "none", SelectSettings(min_ncc=0.3, exclude=names))
    with pytest.raises(InputError, match="no micrograph to try"):
        run(path, selection="none")


def test_a_project_from_before_controls(calibrated, own):
    """It has no group of controls: nothing breaks, and the first control makes it."""
    path = own(calibrated)
    shutil.rmtree(path / "control")
    project = Project.open(path, "r+")
    assert stored_control(project, "template") is None
    assert status(project)["control"] == {}
    run(path, micrographs=2)
    assert Project.open(path).names("control") == ["template"]
