"""The imported project: what is stored, how, and that neither batches nor executors change it."""

import hashlib
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import xarray as xr
import zarr
from handmade import noise, write_mrc, write_set, write_star
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from pickcal.engine.executors import SerialExecutor
from pickcal.engine.progress import Silent
from pickcal.errors import InputError, ProjectError
from pickcal.formats import exposures, relion
from pickcal.project import Project
from pickcal.schema import STATIC
from pickcal.settings import ImportSettings
from pickcal.stages import ingest as ingest_stage
from pickcal.stages import sources
from pickcal.stages.ingest import ingest


class Notes(Silent):
    """Keeps what a user would read."""

    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


def run(star, path, executor=None, reporter=None, **values):
    return ingest([star], path, ImportSettings(**values), executor or SerialExecutor(), reporter or Silent())


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_table_without_positions_leads_to_its_images(tmp_path, kind):
    """CSV and Parquet, as the same table in RELION's words does."""
    star = write_set(tmp_path, [noise(seed=1), noise(seed=2)])
    run(star, tmp_path / "star.zarr")
    columns = {"name": ["mics/m1.mrc", "mics/m2.mrc"], "defocus_u": [10000.0, 10500.0], "defocus_angle": [30.0, 30.0]}
    columns |= {"voltage": [300.0] * 2, "spherical_aberration": [2.7] * 2, "amplitude_contrast": [0.1] * 2}
    path = tmp_path / f"mics.{kind}"
    frame = pd.DataFrame(columns)
    frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path, index=False)
    run(path, tmp_path / "table.zarr")
    one, other = (Project.open(tmp_path / f"{name}.zarr") for name in ("star", "table"))
    for n in range(2):
        np.testing.assert_array_equal(one.image(n), other.image(n))
    for name in ("name", "defocus_u", "defocus_v", "defocus_angle", "voltage", "pixel_size"):
        np.testing.assert_array_equal(one.read("micrographs", name), other.read("micrographs", name))


def test_project_opens_with_xarray_alone(picked):
    """Dimensions, types and units of the store, read without pickcal."""
    tree = xr.open_datatree(picked, engine="zarr", consolidated=False)
    micrographs, picks = tree["micrographs"], tree["picks/template"]
    assert micrographs["image"].dims == ("micrograph", "y", "x")
    assert micrographs["image"].dtype == np.float16
    assert picks["ncc"].dims == ("micrograph", "pick")
    assert picks["decoy_ncc"].dims == ("micrograph", "decoy")
    assert set(tree.children) == {"micrographs", "picks", "calibration", "selection", "control"}
    assert tree.attrs["format_version"] == 4
    units = {name: micrographs[name].attrs["units"] for name in ("pixel_size", "defocus_u", "voltage", "height")}
    assert units == {"pixel_size": "Å", "defocus_u": "Å", "voltage": "kV", "height": "px"}
    assert picks["x"].attrs["units"] == picks["y"].attrs["units"] == "Å"
    described = [*micrographs.data_vars.values(), *picks.data_vars.values()]
    assert all(variable.attrs["long_name"] for variable in described)
    assert list(micrographs["name"].values) == [f"micrographs/mic_{i:04d}.mrc" for i in range(1, 7)]
    np.testing.assert_allclose(micrographs["pixel_size"], 5.0, rtol=0.01)


def test_consolidated_metadata_is_never_written(picked):
    """It would go stale and hide new groups; xarray without `consolidated=False` says so and reads all the same."""
    with pytest.warns(RuntimeWarning, match="consolidated"):
        groups = xr.open_datatree(picked, engine="zarr").groups
    assert {"/picks/template", "/micrographs"} <= set(groups)


def test_chunks_along_micrographs_equal_the_batch(picked):
    """What two tasks write is never in one chunk; an image is a chunk; what no task writes is in few chunks."""
    root = zarr.open_group(picked, mode="r")
    for group in ("micrographs", "picks/template"):
        chunks = {name: array.chunks[0] for name, array in root[group].arrays()}
        assert chunks.pop("image", 1) == 1
        if group == "micrographs":
            assert {chunks.pop(name) for name in STATIC if name in chunks} == {4096}
        assert set(chunks.values()) == {2}
    image = root["micrographs/image"]
    assert image.chunks == (1, *image.shape[1:])
    assert image.metadata.zarr_format == 3


def test_uncropped_image_is_the_source(tmp_path):
    """At the working pixel nothing but mean, deviation and float16 changes; rows stay rows."""
    source = noise((160, 200))
    source[30, 50] += 30.0
    star = write_set(tmp_path, [source])
    run(star, tmp_path / "p.zarr")
    stored = xr.open_zarr(tmp_path / "p.zarr", group="micrographs", consolidated=False).isel(micrograph=0)
    expected = (source - source.mean()) / source.std()
    np.testing.assert_allclose(stored["image"].values, expected, atol=4e-3)
    assert float(stored["image_mean"]) == pytest.approx(source.mean(), rel=1e-5)
    assert float(stored["image_std"]) == pytest.approx(source.std(), rel=1e-4)
    assert stored["pixel_size"] == stored["source_pixel_size"] == 5.0


def test_outliers_are_clipped(tmp_path):
    """A hot pixel must not set the grey scale."""
    source = noise()
    source[80, 80] = 1e7
    run(write_set(tmp_path, [source]), tmp_path / "p.zarr", clip=6.0)
    image = Project.open(tmp_path / "p.zarr").image(0)
    # one pixel of 25600 at 1e7 makes the deviation 62500, so the limit is far above all other pixels
    assert np.unravel_index(np.argmax(image), image.shape) == (80, 80)
    stored = Project.open(tmp_path / "p.zarr").read("micrographs", "image_mean")[0]
    assert stored < source.mean()


def test_different_shapes_in_one_project(tmp_path):
    """The stack has the largest shape; height and width say what is valid, the rest is NaN."""
    images = [noise((160, 120)), noise((100, 200)), noise((128, 128))]
    result = run(write_set(tmp_path, images), tmp_path / "p.zarr", batch=2)
    assert (result.done, result.failed) == (3, 0)
    data = xr.open_zarr(tmp_path / "p.zarr", group="micrographs", consolidated=False).load()
    assert data["image"].shape == (3, 160, 200)
    assert list(zip(data["height"].values, data["width"].values, strict=True)) == [(160, 120), (100, 200), (128, 128)]
    for i, (height, width) in enumerate([(160, 120), (100, 200), (128, 128)]):
        image = data["image"].values[i]
        assert np.isfinite(image[:height, :width]).all()
        assert np.isnan(image[height:]).all()
        assert np.isnan(image[:, width:]).all()
        assert abs(image[:height, :width].astype(np.float64).mean()) < 1e-3


def test_sources_are_only_read(small_set, tmp_path):
    """Contents and times of every source file stay as they were."""

    def state():
        files = sorted(path for path in small_set.folder.rglob("*") if path.is_file())
        return {path.name: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in files}

    before = state()
    run(small_set.micrographs, tmp_path / "p.zarr")
    assert state() == before


def test_the_folder_taken_for_the_names_is_said(tmp_path, monkeypatch):
    """`--root` wins over the current folder, which wins over the STAR file's parents."""
    star = write_set(tmp_path / "data", [noise()])
    elsewhere = tmp_path / "elsewhere"
    write_mrc(elsewhere / "mics/m1.mrc", noise(seed=5), 5.0)
    for current, root, expected in (
        (tmp_path, None, tmp_path / "data"),
        (elsewhere, None, elsewhere),
        (tmp_path, elsewhere, elsewhere),
    ):
        monkeypatch.chdir(current)
        notes = Notes()
        path = tmp_path / f"{len(list(tmp_path.iterdir()))}.zarr"
        run(star, path, reporter=notes, root=root)
        assert any(note.endswith(f"relative to {expected}") for note in notes.notes)
        assert str(Project.open(path).read("micrographs", "source")[0]) == str(expected / "mics/m1.mrc")


@settings(max_examples=2, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batch=st.integers(1, 6), on_dask=st.booleans())
@example(batch=1, on_dask=True)
@example(batch=4, on_dask=False)
def test_batch_and_executor_do_not_change_a_bit(batch, on_dask, small_set, imported, dask_executor, tmp_path_factory):
    """Any batch size on any executor stores what batches of 2 in this process stored."""
    path = tmp_path_factory.mktemp("any") / "p.zarr"
    run(small_set.micrographs, path, dask_executor if on_dask else None, batch=batch)
    expected, found = (xr.open_zarr(p, group="micrographs", consolidated=False).load() for p in (imported, path))
    xr.testing.assert_equal(found, expected)
    assert found["image"].values.tobytes() == expected["image"].values.tobytes()


def test_finished_import_does_nothing_again(imported, small_set, own):
    """The same command a second time runs nothing and leaves the files alone."""
    path = own(imported)
    chunk = next((path / "micrographs/image/c").rglob("0"))
    before = chunk.stat().st_mtime_ns
    result = run(small_set.micrographs, path, batch=2)
    assert (result.ran, result.done, result.pending) == (0, 6, 0)
    assert chunk.stat().st_mtime_ns == before


def test_a_finished_import_looks_at_no_image_again(imported, small_set, own, monkeypatch):
    """For very many micrographs, on a disk that is far, that takes long."""

    def gone(*_):
        raise InputError("looked at")

    monkeypatch.setattr(sources, "image_info", gone)
    assert run(small_set.micrographs, own(imported), batch=2).done == 6


def test_another_pixel_size_in_the_table_is_told(tmp_path):
    """Of micrographs that are imported, as another defocus is."""
    names = ["mics/m1.mrc", "mics/m2.mrc"]
    star = write_set(tmp_path, [noise(seed=1), noise(seed=2)])
    run(star, tmp_path / "p.zarr")
    write_star(star, names, 5.02)
    with pytest.raises(ProjectError, match=r"m1\.mrc: source_pixel_size stored 5, now 5\.02"):
        run(star, tmp_path / "p.zarr")
    write_star(star, names, 5.0, drop=("rlnMicrographPixelSize", "rlnMicrographOriginalPixelSize"))
    assert run(star, tmp_path / "p.zarr").done == 2


def test_headers_that_are_waited_for_are_read_at_once(tmp_path, monkeypatch):
    """Several files of a slow disk at a time, and each header stands beside its name."""
    at_once, found = looked_at(tmp_path, monkeypatch, slow=lambda number: True)
    assert max(at_once[: sources.AT_ONCE]) == 1
    assert max(at_once) > 1
    assert found.read("micrographs", "source_width").tolist() == [40 + 2 * i for i in range(48)]
    assert [Path(str(source)).name for source in found.read("micrographs", "source")] == [
        f"m{i + 1}.mrc" for i in range(48)
    ]


def test_a_few_slow_files_do_not_call_for_threads(tmp_path, monkeypatch):
    """Threads that look at files at hand wait for one another: four times as long for each header."""
    at_once, found = looked_at(tmp_path, monkeypatch, slow=lambda number: number % 5 == 2)
    assert max(at_once) == 1
    assert found.read("micrographs", "source_width").tolist() == [40 + 2 * i for i in range(48)]


def looked_at(tmp_path, monkeypatch, slow):
    """Import 48 micrographs of different widths of which some open slowly; how many were looked at at once."""
    star = write_set(tmp_path, [noise((40, 40 + 2 * i), i) for i in range(48)])
    image_info, lock, at_work, most = sources.image_info, threading.Lock(), [], []

    def slowly(*given):
        with lock:
            at_work.append(given)
            most.append(len(at_work))
            number = len(most) - 1
        time.sleep(0.02 if slow(number) else 0)
        found = image_info(*given)
        with lock:
            at_work.remove(given)
        return found

    monkeypatch.setattr(sources, "image_info", slowly)
    monkeypatch.setattr(sources, "QUICK", 0.01)
    run(star, tmp_path / "p.zarr")
    return most, Project.open(tmp_path / "p.zarr")


def test_other_settings_for_an_existing_project_are_named(imported, small_set):
    """The setting and both its values; nothing is mixed."""
    with pytest.raises(ProjectError, match=r"pixel_size: stored 5\.0, asked 6\.0") as error:
        run(small_set.micrographs, imported, batch=2, pixel_size=6.0)
    assert str(imported) in str(error.value)


def test_other_micrographs_for_an_existing_project_are_refused(imported, small_set, tmp_path):
    """A table of the same name that lists other micrographs does not slip in."""
    star = write_star(tmp_path / "micrographs_ctf.star", list(small_set.names[:4]), 4.0)
    with pytest.raises(ProjectError, match="sources: stored"):
        run(star, imported, batch=2, root=small_set.folder)


def test_a_long_table_is_taken_in_part_by_part(tmp_path, monkeypatch):
    """Two rows at a time the project is the same, what failed is mended, and what differs is told."""
    shapes = [(160, 120), (100, 200), (128, 128), (90, 90), (128, 100)]
    star = write_set(tmp_path / "set", [noise(shape, seed) for seed, shape in enumerate(shapes)])
    torn = sorted((tmp_path / "set").rglob("*.mrc"))[3]
    content = torn.read_bytes()
    torn.write_bytes(content[:2000])
    run(star, tmp_path / "whole.zarr", batch=1)
    monkeypatch.setattr(relion, "LARGE", 0)
    for module in (exposures, relion, sources, ingest_stage):
        monkeypatch.setattr(module, "PART", 2)
    monkeypatch.setattr(ingest_stage, "ROWS_PER_CHUNK", 2)
    assert run(star, tmp_path / "parts.zarr", batch=1).failed == 1
    torn.write_bytes(content)
    results = [run(star, tmp_path / f"{name}.zarr", batch=1) for name in ("whole", "parts")]
    assert [(result.ran, result.done, result.failed) for result in results] == [(1, 5, 0)] * 2
    whole, parts = (
        xr.open_zarr(tmp_path / f"{name}.zarr", group="micrographs", consolidated=False).load()
        for name in ("whole", "parts")
    )
    xr.testing.assert_identical(parts, whole.assign_attrs(parts.attrs))
    assert parts["image"].shape == (5, 160, 200)
    text = star.read_text()
    star.write_text(text.replace(torn.name, "other.mrc"))
    with pytest.raises(ProjectError, match="micrographs: stored 5, asked 5 or others"):
        run(star, tmp_path / "parts.zarr", batch=1)
    row = next(line for line in text.splitlines() if torn.name in line)
    defocus = next(word for word in row.split() if word.replace(".", "").isdigit() and float(word) > 1000)
    star.write_text(text.replace(row, row.replace(defocus, "7777")))
    with pytest.raises(ProjectError, match=rf"{torn.name}: defocus_u stored {float(defocus):g}, now 7777"):
        run(star, tmp_path / "parts.zarr", batch=1)


def test_a_table_that_is_written_meanwhile_makes_no_project(tmp_path, monkeypatch):
    star = write_set(tmp_path / "set", [noise(seed=seed) for seed in range(3)])
    monkeypatch.setattr(relion, "LARGE", 0)
    lines = star.read_text().rstrip("\n").split("\n")
    root_of = sources.root_of

    def shorter(*given, **named):
        star.write_text("\n".join(lines[:-1]) + "\n")
        return root_of(*given, **named)

    monkeypatch.setattr(sources, "root_of", shorter)
    with pytest.raises(InputError, match="table was written meanwhile"):
        run(star, tmp_path / "p.zarr")
    assert not list(tmp_path.glob("*.zarr*"))
