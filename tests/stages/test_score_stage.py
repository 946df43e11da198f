"""Scores at other programs' coordinates: what they are, whose they are, and that nothing else changes them."""

import re
import shutil

import numpy as np
import pytest
import starfile
import xarray as xr
from alike import assert_identical
from handmade import noise, write_set

from pickcal.engine.executors import SerialExecutor
from pickcal.engine.progress import Silent
from pickcal.errors import InputError, MissingFileError, ProjectError
from pickcal.project import Project
from pickcal.schema import PICKS, Status
from pickcal.settings import BlobSettings, CalibrateSettings, ImportSettings, ScoreSettings, validated
from pickcal.stages.calibrate import calibrate
from pickcal.stages.ingest import ingest
from pickcal.stages.pick import pick
from pickcal.stages.score import score

DIAMETER = 150.0
FALSE = 25
"""Random coordinates per micrograph beside the true ones, of which the first is outside."""


class Notes(Silent):
    """Keeps what is said."""

    def __init__(self):
        self.said = []

    def note(self, text):
        self.said.append(text)


def run(path, settings, picks="topaz", name="scored", executor=None, reporter=None, **values):
    project = Project.open(path, "r+")
    return score(project, picks, name, settings, executor or SerialExecutor(), reporter or Silent(), **values)


def group(path, name="picks/scored"):
    return xr.open_zarr(path, group=name, consolidated=False).load()


def same_bits(one, other):
    assert set(one) == set(other)
    for name in one:
        if one[name].dtype.kind in "fi":
            assert one[name].values.tobytes() == other[name].values.tobytes(), name


def add_picks(path, coordinates, name="topaz", status=None):
    """Write coordinates (per micrograph x and y, Å) as picks without scores, as an import of them does."""
    project = Project.open(path, "r+")
    places = max(len(x) for x, _ in coordinates)
    project.create_picks(name, places, {"method": "import"}, {}, {"bank": name, "diameter": DIAMETER})
    for start, stop in project.batches():
        values = {key: project.read(f"picks/{name}", key, start, stop) for key in PICKS}
        for i in range(start, stop):
            x, y = coordinates[i]
            values["x"][i - start, : len(x)], values["y"][i - start, : len(x)] = x, y
            values["count"][i - start] = len(x)
            values["status"][i - start] = Status.DONE if status is None else status[i]
        project.write_batch(f"picks/{name}", start, stop, values)


@pytest.fixture(scope="module")
def coordinates(small_set):
    """Like Topaz's: particles, some Å off, and false ones anywhere, in no order; x and y in Å, and which are true."""
    found = starfile.read(small_set.truth)
    table = found["particles"] if isinstance(found, dict) else found
    rng = np.random.default_rng(0)
    out = []
    for name in small_set.names:
        here = table[table["rlnMicrographName"] == name]
        true = 4.0 * here[["rlnCoordinateX", "rlnCoordinateY"]].to_numpy()
        places = np.concatenate([true + rng.normal(0, 4, true.shape), rng.uniform(0, 2040, (FALSE, 2))])
        places[len(true)] = (2300.0, 100.0)
        order = rng.permutation(len(places))
        out.append((places[order, 0].astype(np.float32), places[order, 1].astype(np.float32), order < len(true)))
    return out


@pytest.fixture(scope="module")
def with_picks(imported, coordinates, tmp_path_factory):
    """The small set with picks `topaz`. Read only: copy it to write."""
    path = shutil.copytree(imported, tmp_path_factory.mktemp("topaz") / "p.zarr")
    add_picks(path, [(x, y) for x, y, _ in coordinates])
    return path


@pytest.fixture(scope="module")
def with_templates(small_set):
    return ScoreSettings(templates=small_set.templates, diameter=DIAMETER, rotation_step=30.0)


@pytest.fixture(scope="module")
def scored(with_picks, with_templates, tmp_path_factory):
    """The same with picks `scored`, and what was said."""
    path = shutil.copytree(with_picks, tmp_path_factory.mktemp("scored") / "p.zarr")
    notes = Notes()
    result = run(path, with_templates, reporter=notes)
    assert (result.done, result.failed, result.ran) == (6, 0, 6)
    return path, notes.said


def test_every_pick_is_there_once_best_first_and_near_where_it_was(scored, coordinates):
    """`source_pick` leads back; the one outside comes last, without scores, and is reported."""
    path, said = scored
    data, source = group(path), group(path, "picks/topaz")
    for i, (x, y, _) in enumerate(coordinates):
        n = len(x)
        assert int(data["count"][i]) == n
        back = data["source_pick"].values[i]
        assert sorted(back[:n]) == list(range(n))
        assert (back[n:] == -1).all()
        moved = np.hypot(data["x"].values[i, :n] - x[back[:n]], data["y"].values[i, :n] - y[back[:n]])
        assert moved.max() <= 15 + 1e-3
        assert (moved > 1).mean() > 0.5
        ncc = data["ncc"].values[i, :n]
        assert (np.diff(ncc[:-1]) <= 0).all()
        assert np.isnan(ncc[-1]) and x[back[n - 1]] == 2300 and np.isfinite(ncc[:-1]).all()
        for name in ("power", "peak_power", "background", "background_variance", "angle"):
            np.testing.assert_array_equal(np.isfinite(data[name].values[i]), np.isfinite(data["ncc"].values[i]))
        assert np.isnan(data["x"].values[i, n:]).all()
    assert said[-1] == "6 picks lie outside their micrographs and got no scores"
    assert_identical(source, group(path, "picks/topaz"))


def test_picks_without_scores_become_calibrated_ones(scored, coordinates, own):
    """Particles score above random places, random places like decoys, and calibration runs on the new group."""
    path = own(scored[0])
    data = group(path)
    true, false = [], []
    for i, (x, _, particle) in enumerate(coordinates):
        ncc, back = data["ncc"].values[i, : len(x) - 1], data["source_pick"].values[i, : len(x) - 1]
        true.append(ncc[particle[back]])
        false.append(ncc[~particle[back]])
    true, false, decoys = np.concatenate(true), np.concatenate(false), data["decoy_ncc"].values
    decoys = decoys[np.isfinite(decoys)]
    assert np.mean(true > np.quantile(decoys, 0.99)) > 0.9
    assert abs(np.median(false) - np.median(decoys)) < 0.05 < np.median(true) - np.median(decoys)
    fit = calibrate(Project.open(path, "r+"), "scored", CalibrateSettings(bootstrap=0))
    assert np.isfinite(fit["median"].sel(score=["ncc", "power"]).values).all()
    assert np.isfinite(fit["slope"].values).all()


def test_decoys_are_as_many_as_picks_and_at_least_fifty(scored, coordinates):
    data = group(scored[0])
    for i, (x, _, _) in enumerate(coordinates):
        n = max(50, len(x))
        assert int(data["decoy_count"][i]) == n
        for name in ("x", "y", "ncc", "power"):
            assert np.isfinite(data[f"decoy_{name}"].values[i]).sum() == n
        assert (np.diff(data["decoy_ncc"].values[i, :n]) <= 0).all()


def test_the_searchs_own_picks_get_its_scores(picked, with_templates, own):
    """With the same templates, exactly there: positions to the bit, power the same, NCC as near as documented."""
    path = own(picked)
    run(path, with_templates.model_copy(update={"radius": 0.0}), "template")
    data, before = group(path), group(path, "picks/template")
    np.testing.assert_array_equal(data["count"], before["count"])
    differences = []
    for i, n in enumerate(data["count"].values):
        back = data["source_pick"].values[i, :n]
        for name in ("x", "y"):
            assert data[name].values[i, :n].tobytes() == before[name].values[i, back].tobytes()
        np.testing.assert_allclose(data["power"].values[i, :n], before["power"].values[i, back], rtol=1e-3)
        differences.append(data["ncc"].values[i, :n] - before["ncc"].values[i, back])
    differences = np.concatenate(differences)
    # a pick's angle lies between two of the bank, whose scores are given here: up to 0.02 lower at 5 degrees, and peaks
    # between pixels are interpolated in another way
    assert -0.006 < differences.mean() < 0.001 and np.abs(differences).max() < 0.05
    starts = [data["decoy_x"].values[i, : int(data["decoy_count"][i])] for i in range(6)]
    assert len(np.unique(np.concatenate(starts))) > 0.99 * sum(map(len, starts)), "every micrograph has its own"


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """Five micrographs of noise, points on four; their picks failed on the second, are pending on the third."""
    folder = tmp_path_factory.mktemp("noisy")
    star = write_set(folder, [noise((160, 160), i) for i in range(5)])
    ingest([star], folder / "p.zarr", ImportSettings(batch=2), SerialExecutor(), Silent())
    rng = np.random.default_rng(0)
    points = [tuple(rng.uniform(0, 795, (2, 10 * (i != 4)))) for i in range(5)]
    add_picks(folder / "p.zarr", points, status=[Status.DONE, Status.FAILED, Status.PENDING, Status.DONE, Status.DONE])
    return folder / "p.zarr", points


BLOBS = ScoreSettings(diameter=120.0)


@pytest.fixture(scope="module")
def whole(noisy, tmp_path_factory):
    """The noise with all its points scored without any interruption, in batches of 2 in this process."""
    path = shutil.copytree(noisy[0], tmp_path_factory.mktemp("whole") / "p.zarr")
    add_picks(path, noisy[1])
    assert run(path, BLOBS).done == 5
    return path


@pytest.mark.parametrize(("batch", "on_dask"), [(1, True), (4, False)])
def test_batch_and_executor_do_not_change_a_bit(batch, on_dask, noisy, whole, dask_executor, tmp_path):
    path = tmp_path / "p.zarr"
    star = noisy[0].parent / "micrographs_ctf.star"
    ingest([star], path, ImportSettings(batch=batch), SerialExecutor(), Silent())
    add_picks(path, noisy[1])
    run(path, BLOBS, executor=dask_executor if on_dask else None)
    same_bits(group(path), group(whole))


class Interrupted(SerialExecutor):
    """Ctrl-C after the first task."""

    def run(self, function, tasks):
        yield from super().run(function, tasks[:1])
        raise KeyboardInterrupt


def test_an_interrupted_run_goes_on_and_gives_the_same_bits(noisy, whole, own):
    path = own(noisy[0])
    add_picks(path, noisy[1])
    with pytest.raises(KeyboardInterrupt):
        run(path, BLOBS, executor=Interrupted())
    assert Project.open(path).done("picks/scored").tolist() == [1, 1, 0, 0, 0]
    result = run(path, BLOBS)
    assert (result.ran, result.done) == (3, 5)
    same_bits(group(path), group(whole))
    before = {file: file.stat().st_mtime_ns for file in (path / "picks").rglob("*") if file.is_file()}
    assert run(path, BLOBS).ran == 0
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_one_bad_micrograph_stops_nothing_and_what_was_missing_is_made_up(noisy, own):
    """No defocus: failed with the reason. Picks not made: skipped until they are. No picks: done, with decoys."""
    imported, points = noisy
    path = own(imported)
    project = Project.open(path, "r+")
    project._array("micrographs", "defocus_u")[3] = np.nan
    settings = BLOBS.model_copy(update={"ctf": True})
    result = run(path, settings)
    assert (result.done, result.failed, result.skipped) == (2, 2, 1)
    reasons = dict(result.errors)
    assert "picks 'topaz' failed here" in reasons["mics/m2.mrc"]
    assert "defocus" in reasons["mics/m4.mrc"]
    data = group(path)
    assert "not made here yet" in str(data["error"].values[2])
    assert data["count"].values.tolist() == [10, 0, 0, 0, 0]
    assert data["decoy_count"].values.tolist() == [50, 0, 0, 0, 50]
    project._array("micrographs", "defocus_u")[3] = 11000.0
    project._array("picks/topaz", "status")[:] = Status.DONE
    result = run(path, settings)
    assert (result.ran, result.done) == (3, 5)
    fresh = own(imported, "fresh.zarr")
    Project.open(fresh, "r+")._array("micrographs", "defocus_u")[3] = 11000.0
    add_picks(fresh, points)
    run(fresh, settings)
    same_bits(group(path), group(fresh))


def test_the_diameter_alone_scores_as_blob_picking_does(noisy, own):
    """Discs and rings of that diameter: what `pick blob` finds gets its scores; the default name."""
    path = own(noisy[0])
    settings = BlobSettings(diameter_min=120.0, diameter_max=120.0)
    pick(Project.open(path, "r+"), "blob", settings, SerialExecutor(), Silent())
    result = run(path, BLOBS.model_copy(update={"radius": 0.0}), "blob", None)
    assert result.group == "picks/blob-scored"
    data, before = group(path, "picks/blob-scored"), group(path, "picks/blob")
    back = data["source_pick"].values[0, : int(data["count"][0])]
    np.testing.assert_allclose(data["ncc"].values[0, : len(back)], before["ncc"].values[0, back], atol=0.02)
    for name in ("basis", "coefficients", "whitening"):
        bank, other = (group(path, f"picks/{picks}/bank")[name].values for picks in ("blob", "blob-scored"))
        np.testing.assert_array_equal(bank, other)


def test_other_settings_and_other_picks_under_a_name_are_refused(noisy, own):
    """The setting with both values; picks replaced since are seen; overwriting scores anew and drops the fit."""
    path = own(noisy[0])
    run(path, BLOBS)
    assert run(path, BLOBS.model_copy(update={"radius": 12.0})).group == "picks/scored"
    with pytest.raises(ProjectError, match=r"radius: stored 12\.0, asked 5\.0"):
        run(path, BLOBS.model_copy(update={"radius": 5.0}))
    project = Project.open(path, "r+")
    project.write_whole("calibration", "scored", xr.Dataset(), {})
    result = run(path, BLOBS.model_copy(update={"radius": 5.0}), overwrite=True)
    assert result.ran == 5 and project.names("calibration") == []
    project._group("picks/topaz").attrs["bank"] = "others"
    with pytest.raises(ProjectError, match="picks_made_with"):
        run(path, BLOBS.model_copy(update={"radius": 5.0}))


def test_a_project_without_images_is_refused(small_set, tmp_path):
    settings = ImportSettings(tables_only=True, size=(512, 512))
    ingest([small_set.micrographs], tmp_path / "p.zarr", settings, SerialExecutor(), Silent())
    add_picks(tmp_path / "p.zarr", [(np.ones(3), np.ones(3))] * 6)
    with pytest.raises(ProjectError, match="score needs the images, and this project holds tables only"):
        run(tmp_path / "p.zarr", BLOBS)
    assert Project.open(tmp_path / "p.zarr").names("picks") == ["topaz"]


@pytest.mark.parametrize(
    ("settings", "picks", "name", "error", "words"),
    [
        (BLOBS, "none", "scored", ProjectError, "no picks named 'none'; it has: topaz"),
        (BLOBS, "topaz", "topaz", InputError, "expected another name"),
        (BLOBS, "topaz", "../out", InputError, "expected a name"),
        (ScoreSettings(diameter=4000), "topaz", "scored", InputError, "side of 800 Å, got 4000 Å"),
        (ScoreSettings(diameter=120, low_pass=8), "topaz", "scored", InputError, "at least twice the working pixel"),
        (
            ScoreSettings(diameter=120, templates="no.mrcs"),
            "topaz",
            "scored",
            MissingFileError,
            "no.mrcs: no such file",
        ),
    ],
)
def test_what_cannot_be_scored_is_refused_before_any_work(noisy, settings, picks, name, error, words):
    with pytest.raises(error, match=re.escape(words)):
        run(noisy[0], settings, picks, name)
    assert Project.open(noisy[0]).names("picks") == ["topaz"]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"diameter": 150, "radius": 151}, "radius: expected at most the diameter of 150 Å, got 151 Å"),
        ({"diameter": 150, "radius": -1}, "radius: expected greater than or equal to 0"),
        ({"diameter": 150, "rotation_step": 10}, "rotation_step: expected only with templates; give --templates too"),
        ({"diameter": 150, "templates": "t.mrcs", "shapes": ["disc"]}, "shapes: expected only without templates"),
        ({"diameter": 150, "max_picks": 10}, "max_picks: no such setting"),
        ({"diameter": 150, "low_pas": 10}, "low_pas: no such setting; did you mean 'low_pass'?"),
        ({"templates": "t.mrcs"}, "diameter: expected a value, got none"),
    ],
)
def test_settings_that_do_not_fit_are_refused(values, words):
    with pytest.raises(InputError, match=re.escape(words)):
        validated(ScoreSettings, values, "here")


def test_the_radius_is_a_tenth_of_the_diameter_unless_given():
    assert [ScoreSettings(diameter=150, radius=radius).reach for radius in (None, 0, 20)] == [15, 0, 20]
    assert [BLOBS.as_pick().ctf, ScoreSettings(diameter=120, templates="t").as_pick().ctf] == [False, True]
