"""The project store: created whole or not at all, opened only when it is one, written in whole batches."""

import errno
import json

import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.storage import LocalStore

from pickcal.errors import InputError, MissingFileError, ProjectError
from pickcal.names import matching_names
from pickcal.project import Project, backing, differing, reading
from pickcal.schema import BANK, MICROGRAPHS, PICKS, Status


def create(path, count=5, batch=2, **columns):
    return Project.create(path, {"micrograph": count, "y": 8, "x": 12}, batch, columns, {"pixel_size": 5.0})


def test_new_project_holds_every_declared_variable(tmp_path):
    """Empty, with the declared types and fill values."""
    project = create(tmp_path / "p.zarr")
    root = zarr.open_group(tmp_path / "p.zarr", mode="r")
    arrays = dict(root["micrographs"].arrays())
    assert set(arrays) == set(MICROGRAPHS)
    assert arrays["image"].dtype == np.float16
    assert np.isnan(arrays["image"][...]).all()
    assert arrays["status"][:].tolist() == [Status.PENDING] * 5
    assert project.batches() == [(0, 2), (2, 4), (4, 5)]
    assert project.settings("micrographs") == {"pixel_size": 5.0}
    assert list(tmp_path.iterdir()) == [tmp_path / "p.zarr"]


def test_failed_creation_leaves_nothing(tmp_path):
    """A column that does not fit stops the creation; nothing half-made stays."""
    with pytest.raises(ValueError, match=r"shape|broadcast"):
        create(tmp_path / "p.zarr", height=np.zeros(3, np.int32))
    assert list(tmp_path.iterdir()) == []


def test_creation_never_replaces(tmp_path):
    """What exists stays, whatever it is."""
    (tmp_path / "p.zarr").mkdir()
    (tmp_path / "p.zarr/mine.txt").write_text("mine")
    with pytest.raises(ProjectError, match=r"p\.zarr: exists already"):
        create(tmp_path / "p.zarr")
    assert (tmp_path / "p.zarr/mine.txt").read_text() == "mine"


@pytest.mark.parametrize(
    ("make", "error", "words"),
    [
        (lambda path: None, MissingFileError, "no such project"),
        (lambda path: path.mkdir(), ProjectError, "expected a pickcal project"),
        (lambda path: path.write_text("text"), ProjectError, "expected a pickcal project"),
        (lambda path: zarr.open_group(path, mode="w"), ProjectError, "without format_version"),
        (lambda path: (path.mkdir(), (path / "zarr.json").write_text("{")), ProjectError, "zarr.json that is damaged"),
        (lambda path: (path.mkdir(), (path / "zarr.json").write_text("[]")), ProjectError, "zarr.json that is damaged"),
        (lambda path: (path.mkdir(), (path / "zarr.json").write_bytes(b"\xff")), ProjectError, "json that is damaged"),
        (
            lambda path: zarr.create_array(path, shape=(3,), dtype="f4"),
            ProjectError,
            "expected a pickcal project",
        ),
    ],
    ids=["missing", "folder", "file", "other group", "torn", "no object", "no text", "array"],
)
@pytest.mark.parametrize("mode", ["r", "r+"])
def test_what_is_no_project_is_refused(tmp_path, make, error, words, mode):
    """The message names the path and what was expected."""
    path = tmp_path / "p.zarr"
    make(path)
    with pytest.raises(error, match=words) as caught:
        Project.open(path, mode)
    assert str(path) in str(caught.value)


def test_project_of_another_version(tmp_path):
    """Both versions are said."""
    create(tmp_path / "p.zarr")
    file = tmp_path / "p.zarr/zarr.json"
    content = json.loads(file.read_text())
    content["attributes"].update(format_version=99, pickcal_version="7.5")
    file.write_text(json.dumps(content))
    with pytest.raises(ProjectError, match=r"expected project format 4, found 99 written by pickcal 7\.5"):
        Project.open(tmp_path / "p.zarr")


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (1, 3), (0, 4), (2, 5), (4, 6)])
def test_only_whole_batches_are_written(tmp_path, start, stop):
    """A region that is not one batch could share a chunk with another task."""
    project = create(tmp_path / "p.zarr")
    values = {"status": np.full(stop - start, Status.DONE, np.int8)}
    with pytest.raises(AssertionError, match=f"region {start}:{stop} is not a batch of 2"):
        project.write_batch("micrographs", start, stop, values)
    assert project.done("micrographs").tolist() == [0] * 5


def test_chunks_that_two_batches_share_are_not_written(tmp_path):
    """An array of another chunk size is refused even where the region is a batch."""
    project = create(tmp_path / "p.zarr")
    root = zarr.open_group(tmp_path / "p.zarr", mode="r+")
    root["micrographs"].create_array("odd", shape=(5,), chunks=(5,), dtype="i1")
    with pytest.raises(AssertionError, match="micrographs/odd: chunk 5 does not divide batch 2"):
        project.write_batch("micrographs", 0, 2, {"odd": np.ones(2, np.int8)})


def test_rows_are_the_same_however_many_chunks_are_read_at_once(tmp_path, monkeypatch):
    """Numbers and text, whole and from the middle of a chunk to the middle of another, five chunks and one at once."""
    names = np.array([f"m{i}.mrc" + "x" * i for i in range(9)], dtype=object)
    defocus = np.arange(9) * 1000.0
    columns = {"name": names, "defocus_u": defocus, "status": np.arange(9, dtype=np.int8)}
    sizes = {"micrograph": 9, "y": 8, "x": 12}
    project = Project.create(tmp_path / "p.zarr", sizes, 2, columns, {}, growing=True)
    for at_once in (5, 1):
        monkeypatch.setattr(reading, "CHUNKS", at_once)
        for start, stop in ((0, 9), (1, 8), (3, 4), (4, 4)):
            found = project.read_rows("micrographs", ("name", "defocus_u", "status"), start, stop)
            assert found["name"].tolist() == names[start:stop].tolist()
            assert found["defocus_u"].tolist() == defocus[start:stop].tolist()
            assert found["status"].tolist() == list(range(start, stop))
        assert project.done("micrographs").tolist() == list(range(9))


def test_status_is_written_last(tmp_path):
    """A batch whose other values could not be written stays pending, in whatever order they were given."""
    project = create(tmp_path / "p.zarr")
    values = {"status": np.full(2, Status.DONE, np.int8), "image_mean": np.ones(2), "image_std": np.array(["a", "b"])}
    with pytest.raises(ValueError, match="could not convert"):
        project.write_batch("micrographs", 0, 2, values)
    assert project.read("micrographs", "image_mean")[:2].tolist() == [1, 1]
    assert project.done("micrographs").tolist() == [0] * 5


def test_picks_without_settings_do_not_exist_yet(tmp_path):
    """A group whose creation was interrupted is not listed, and is made again."""
    project = create(tmp_path / "p.zarr")
    bank = {name: np.ones((2,) * len(variable.dims), variable.dtype) for name, variable in BANK.items()}
    zarr.open_group(tmp_path / "p.zarr", mode="r+").create_group("picks/half")
    assert project.names("picks") == []
    with pytest.raises(ProjectError, match="no picks named 'half'; it has: none"):
        project.require("picks", "half")
    project.create_picks("half", 7, {"a": 1}, bank, {"diameter": 150.0})
    assert project.names("picks") == ["half"]
    data = project.dataset("picks/half").load()
    assert set(data) == set(PICKS)
    assert data["ncc"].shape == (5, 7)


def test_names_are_read_while_another_process_writes(tmp_path):
    """Zarr writes metadata beside its place and renames it; the file in between is no reason for a warning."""
    project = create(tmp_path / "p.zarr")
    project.write_whole("picks", "whole", xr.Dataset({"a": ("row", np.arange(3))}), {})
    (tmp_path / "p.zarr" / "picks" / "zarr.json.0123.partial").write_text("{")
    assert Project.open(tmp_path / "p.zarr").names("picks") == ["whole"]


@pytest.mark.parametrize("name", ["", "a/b", "..", "../x", "-x", "a b"])
def test_names_never_become_paths(tmp_path, name):
    """Else an empty name would remove the whole kind."""
    project = create(tmp_path / "p.zarr")
    one = xr.Dataset({"counts": ("reason", [1, 2])})
    project.write_whole("selection", "kept", one, {"picks": "a"})
    with pytest.raises(InputError, match="selection: expected a name"):
        project.write_whole("selection", name, one, {"picks": "a"})
    assert project.names("selection") == ["kept"]


def test_small_results_come_back_as_they_were(tmp_path):
    """Values, text, units and attributes."""
    project = create(tmp_path / "p.zarr")
    result = xr.Dataset(
        {"slope": (("score", "term"), [[0.5, np.nan]], {"units": "1/µm"})},
        coords={"score": ["ncc"], "term": ["a", "longer"]},
        attrs={"reference": np.float64(2.0), "picks": "template"},
    )
    project.write_whole("calibration", "template", result, {"degree": 1})
    stored = project.dataset("calibration/template").load()
    np.testing.assert_array_equal(stored["slope"], result["slope"])
    assert stored["slope"].attrs == {"units": "1/µm"}
    assert stored["term"].values.tolist() == ["a", "longer"]
    assert stored.attrs["reference"] == 2.0
    assert project.settings("calibration/template") == {"degree": 1}


def test_differences_are_told_setting_by_setting():
    """Changed, gone and new ones; equal ones not."""
    old, new = {"a": 1, "b": 2, "same": 0}, {"a": 3, "c": 4, "same": 0}
    assert differing(old, new) == [
        "a: stored 1, asked 3",
        "b: stored 2, asked '(not set)'",
        "c: stored '(not set)', asked 4",
    ]


def test_names_match_in_full_or_by_stem():
    """Stems only where no full name fits; slices of a stack stay apart."""
    names = ["a/m1.mrc", "b/m2.mrc", "000001@s.mrcs", "000002@s.mrcs"]
    wanted = ["b/m2.mrc", "m1_not", "other/m1.star", "000002@x/s.mrc", "m2"]
    assert matching_names(wanted, names, "t").tolist() == [1, -1, 0, 3, 1]


def test_stem_of_two_micrographs_is_refused():
    """Both are named."""
    with pytest.raises(InputError, match=r"truth\.star: 'm1\.tif' fits 2 .*'a/m1\.mrc', 'b/m1\.mrc'"):
        matching_names(["m1.tif"], ["a/m1.mrc", "b/m1.mrc"], "truth.star")


@pytest.mark.parametrize(
    ("failure", "times", "read"), [("ESTALE", 2, True), ("EIO", 100, False), ("ENOSPC", 1, False), ("EACCES", 1, False)]
)
def test_a_file_system_that_falters_is_asked_again(tmp_path, monkeypatch, failure, times, read):
    """An error that may be gone a moment later is waited for, a few times; others, as a full disk, are told at once.

    The file system is a mock: none that falters can be had on one machine without rights.
    """
    create(tmp_path / "p.zarr")
    asked, get = [], LocalStore.get

    async def faltering(*given, **options):
        asked.append(given)
        if len(asked) <= times:
            raise OSError(getattr(errno, failure), failure)
        return await get(*given, **options)

    monkeypatch.setattr(LocalStore, "get", faltering)
    monkeypatch.setattr(backing, "FIRST_PAUSE", 0.001)
    if read:
        assert len(Project.open(tmp_path / "p.zarr").read("micrographs", "name")) > 0
        assert len(asked) > times
        return
    with pytest.raises(OSError, match=failure):
        Project.open(tmp_path / "p.zarr")
    assert len(asked) == (backing.FOLDER_ATTEMPTS if times > 1 else 1)


def test_a_stored_group_is_what_the_dataset_says(tmp_path):
    """Values, dimensions, units and attributes, read with xarray and without; what is read stays as it is."""
    project = create(tmp_path / "p.zarr")
    made = xr.Dataset(
        {
            "slope": (("score",), np.array([0.5, -2.0])),
            "residual": (("score", "micrograph"), np.arange(10, dtype=np.float32).reshape(2, 5)),
            "verdict": (("score",), np.array(["a line", ""], dtype=object)),
        },
        coords={"score": ["ncc", "power"]},
        attrs={"pivot": 1.5},
    )
    made["slope"].attrs["units"] = "1/um"
    project.write_whole("calibration", "a", made, {})
    found = Project.open(tmp_path / "p.zarr").stored_calibration("a")
    assert found["residual"].tolist() == made["residual"].values.tolist()
    assert found["residual"].dtype == np.float32
    assert [str(one) for one in found["verdict"]] == ["a line", ""]
    assert (found.attrs["pivot"], found.columns["slope"].attrs, "nothing" in found) == (1.5, {"units": "1/um"}, False)
    assert found.variables == ["residual", "slope", "verdict"]
    dataset, lazy = found.dataset(), Project.open(tmp_path / "p.zarr").dataset("calibration/a").load()
    xr.testing.assert_identical(dataset, lazy)
    assert dataset.indexes["score"].tolist() == ["ncc", "power"]
    dataset["slope"][:] = 0.0  # a dataset is its owner's
    assert found["slope"].tolist() == [0.5, -2.0]
    with pytest.raises(ValueError, match="read-only"):
        found["slope"][0] = 0.0


def test_the_table_is_what_the_dataset_says(tmp_path):
    """Without the images, and of what is shown of a project that grows; read again when something was written."""
    project = create(tmp_path / "p.zarr", height=np.arange(5, dtype=np.int32))
    xr.testing.assert_identical(project.table(), project.micrographs().drop_vars("image").load())
    assert project.table()["height"].values.tolist() == [0, 1, 2, 3, 4]
    project.write_batch("micrographs", 2, 4, {"status": np.array([1, 2], np.int8)})
    assert project.table()["status"].values.tolist() == [0, 0, 1, 2, 0]
