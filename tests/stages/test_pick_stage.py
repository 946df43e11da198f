"""Picks in the project: padding, order, and that neither batches nor executors change a bit of them."""

import re
import shutil

import mrcfile
import numpy as np
import pytest
import xarray as xr
from alike import assert_identical
from handmade import noise, write_mrc, write_set
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pickcal.engine.executors import SerialExecutor
from pickcal.engine.progress import Silent
from pickcal.errors import InputError, ProjectError
from pickcal.project import Project
from pickcal.settings import BlobSettings, CalibrateSettings, ImportSettings, TemplateSettings
from pickcal.stages.calibrate import calibrate
from pickcal.stages.ingest import ingest
from pickcal.stages.pick import pick
from pickcal.stages.status import status


def run(path, chosen, name="template", executor=None, **values):
    return pick(Project.open(path, "r+"), name, chosen, executor or SerialExecutor(), Silent(), **values)


def group(path, name="picks/template"):
    return xr.open_zarr(path, group=name, consolidated=False).load()


@pytest.fixture(scope="module")
def blobs():
    return BlobSettings(diameter_min=140.0, diameter_max=140.0, shapes=("disc",))


def test_picks_are_padded_with_nan_and_best_first(picked):
    """`count` values, then nothing; scores within their range and falling."""
    data = group(picked)
    for prefix, dim in (("", "pick"), ("decoy_", "decoy")):
        counts = data[f"{prefix}count"].values
        slot = np.arange(data.sizes[dim])
        filled = slot < counts[:, None]
        assert counts.min() > 10
        for name in ("x", "y", "ncc", "power"):
            np.testing.assert_array_equal(np.isfinite(data[prefix + name].values), filled)
        ncc = data[f"{prefix}ncc"].values
        assert np.nanmax(np.abs(ncc)) <= 1
        assert (np.diff(ncc, axis=1)[filled[:, 1:]] <= 0).all()
    assert (data["template"].values[np.isnan(data["ncc"].values)] == -1).all()


def test_picks_keep_their_distance_from_each_other_and_the_border(picked):
    """Half a diameter both ways."""
    data, micrographs = group(picked), group(picked, "micrographs")
    side = (micrographs["height"].values[0] - 1) * micrographs["pixel_size"].values[0]
    for i in range(data.sizes["micrograph"]):
        n = int(data["count"][i])
        y, x = data["y"].values[i, :n].astype(float), data["x"].values[i, :n].astype(float)
        assert min(y.min(), x.min()) >= 75.0 - 1e-3
        assert max(y.max(), x.max()) <= side - 75.0 + 1e-3
        apart = np.hypot(y[:, None] - y, x[:, None] - x) + 1e9 * np.eye(n)
        assert apart.min() >= 75.0 - 1e-3


@settings(max_examples=1, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.integers(1, 6), on_dask=st.booleans())
@example(batch=1, on_dask=True)
@example(batch=4, on_dask=False)
def test_batch_and_executor_do_not_change_a_bit(
    batch, on_dask, small_set, small_settings, picked, dask_executor, tmp_path_factory
):
    """Any batch size on any executor gives the picks that batches of 2 in this process gave."""
    path = tmp_path_factory.mktemp("any") / "p.zarr"
    executor = dask_executor if on_dask else SerialExecutor()
    ingest([small_set.micrographs], path, ImportSettings(batch=batch), executor, Silent())
    run(path, small_settings, executor=executor)
    expected, found = group(picked), group(path)
    assert set(found) == set(expected)
    for name in expected:
        if expected[name].dtype.kind in "fi":
            assert found[name].values.tobytes() == expected[name].values.tobytes(), name


def test_finished_picks_are_not_made_again(picked, small_settings, own):
    """The same command a second time runs nothing and leaves the files alone."""
    path = own(picked)
    before = {file: file.stat().st_mtime_ns for file in (path / "picks").rglob("*") if file.is_file()}
    result = run(path, small_settings)
    assert (result.ran, result.done) == (0, 6)
    assert {file: file.stat().st_mtime_ns for file in before} == before


def test_a_finished_job_reads_the_status_of_the_picks_once(picked, small_settings, own, monkeypatch):
    """It is in one file per batch, which takes seconds for 100,000 micrographs."""
    asked, done = [], Project.done
    monkeypatch.setattr(Project, "done", lambda project, group: asked.append(group) or done(project, group))
    assert run(own(picked), small_settings).ran == 0
    assert asked == ["picks/template"]


def test_other_settings_under_a_name_are_refused_and_named(picked, small_settings, own):
    """The setting with both values; the old picks stay."""
    path = own(picked)
    other = small_settings.model_copy(update={"diameter": 140.0})
    with pytest.raises(ProjectError, match=r"diameter: stored 150\.0, asked 140\.0") as error:
        run(path, other)
    assert "rotation_step" not in str(error.value)
    assert_identical(group(path), group(picked))


def test_overwriting_replaces_picks_and_their_calibration(picked, small_settings, own, blobs):
    """A fit of the old picks must not be applied to the new ones."""
    path = own(picked)
    calibrate(Project.open(path, "r+"), "template", CalibrateSettings())
    result = run(path, blobs, overwrite=True)
    project = Project.open(path)
    assert result.ran == 6
    assert project.settings("picks/template")["method"] == "blob"
    assert project.names("calibration") == []
    assert "calibrate template" in status(project)["left"]


def test_stored_bank_is_what_the_picks_refer_to(picked, small_set):
    """Templates and angles of the picks are those of the bank, and of the file."""
    bank, data = group(picked, "picks/template/bank"), group(picked)
    with mrcfile.open(small_set.templates) as file:
        count = len(file.data)
    assert set(np.unique(bank["template"])) == set(range(count))
    assert set(np.unique(data["template"])) <= {-1, *range(count)}
    angles = data["angle"].values[np.isfinite(data["angle"].values)]
    assert ((angles >= 0) & (angles < 360)).all()
    # between the steps of the bank, all over the turn
    away = np.abs((angles[:, None] - bank["angle"].values + 180) % 360 - 180).min(axis=1)
    step = np.diff(np.unique(bank["angle"].values)).min()
    assert away.max() <= step / 2 + 1e-3 and len(np.unique(angles)) > 0.9 * len(angles)


def test_cap_is_kept_and_reported(imported, own, blobs):
    """`max_picks` keeps the best and says that there were more."""
    path = own(imported)
    run(path, blobs, name="all")
    run(path, blobs.model_copy(update={"max_picks": 5}), name="few")
    few, full = group(path, "picks/few"), group(path, "picks/all")
    assert few["capped"].values.tolist() == [1] * 6
    assert full["capped"].values.tolist() == [0] * 6
    np.testing.assert_array_equal(few["ncc"].values, full["ncc"].values[:, :5])


def test_diameter_larger_than_the_micrographs(imported, blobs):
    """Refused before any work, with both lengths."""
    with pytest.raises(InputError, match=r"side of 20\d\d Å, got 4000 Å"):
        run(imported, BlobSettings(diameter_min=4000.0, diameter_max=4000.0))
    assert Project.open(imported).names("picks") == []


def test_diameter_larger_than_one_micrograph_fails_that_one_only(tmp_path):
    """The small micrograph has status and reason; the others go on."""
    images = [noise((160, 160), 1), noise((70, 160), 2), noise((160, 160), 3)]
    ingest([write_set(tmp_path, images)], tmp_path / "p.zarr", ImportSettings(), SerialExecutor(), Silent())
    result = run(tmp_path / "p.zarr", BlobSettings(diameter_min=400.0, diameter_max=400.0), name="blob")
    assert (result.done, result.failed) == (2, 1)
    name, reason = result.errors[0]
    assert name == "mics/m2.mrc"
    assert "diameter" in reason
    assert "350" in reason


def test_template_pixel_size_absent(imported, tmp_path):
    """The file and the option that helps."""
    write_mrc(tmp_path / "t.mrcs", noise((3, 40, 40)), 0.0)
    chosen = TemplateSettings(templates=tmp_path / "t.mrcs", diameter=150.0)
    with pytest.raises(InputError, match=r"t\.mrcs: no pixel size.*--template-pixel-size"):
        run(imported, chosen)
    assert Project.open(imported).names("picks") == []


def test_template_box_smaller_than_the_particle(imported, tmp_path):
    """A wrong template pixel size shows as a box smaller than the diameter."""
    write_mrc(tmp_path / "t.mrcs", noise((3, 40, 40)), 1.0)
    with pytest.raises(InputError, match=r"t\.mrcs: expected a box .* 150 Å, found 40 Å"):
        run(imported, TemplateSettings(templates=tmp_path / "t.mrcs", diameter=150.0))


@pytest.mark.parametrize("name", ["../out", "a/b", "", ".hidden"])
def test_names_that_would_leave_their_group_are_refused(picked, own, blobs, name):
    """A name is one word; it never becomes a path in the store."""
    path = own(picked)
    with pytest.raises(InputError, match=f"expected a name .*got '{re.escape(name)}'"):
        run(path, blobs, name=name)
    assert not (path / "out").exists()
    assert Project.open(path).names("picks") == ["template"]


def test_picking_goes_on_when_a_repaired_micrograph_is_imported(tmp_path, blobs):
    """Skipped for want of an image; picked once the image is there."""
    images = [noise(seed=i) for i in range(3)]
    star = write_set(tmp_path, images)
    broken = tmp_path / "mics/m2.mrc"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:5000])
    path = tmp_path / "p.zarr"

    def import_():
        return ingest([star], path, ImportSettings(), SerialExecutor(), Silent())

    assert import_().failed == 1
    first = run(path, blobs, name="blob")
    assert (first.done, first.skipped) == (2, 1)
    assert "truncated" in str(group(path, "picks/blob")["error"].values[1])
    broken.write_bytes(whole)
    assert (import_().ran, import_().ran) == (1, 0)
    assert "picks blob: 1 micrographs" in status(Project.open(path))["left"]
    second = run(path, blobs, name="blob")
    assert (second.ran, second.done, second.skipped) == (1, 3, 0)
    shutil.rmtree(path)
    import_()
    fresh = run(path, blobs, name="blob")
    assert fresh.done == 3
