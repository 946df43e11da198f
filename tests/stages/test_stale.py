"""Nothing changes under the user: moved inputs and newer fits are noticed, not mixed in."""

import shutil

import numpy as np
import pytest

from pickcal.engine.executors import SerialExecutor
from pickcal.engine.progress import Silent
from pickcal.errors import ProjectError
from pickcal.formats.images import image_info, read_measured, read_stack, write_mrc
from pickcal.project import Project
from pickcal.settings import CalibrateSettings, ExportSettings, ImportSettings, SelectSettings
from pickcal.stages.calibrate import calibrate
from pickcal.stages.export import export
from pickcal.stages.ingest import ingest, working_image
from pickcal.stages.pick import pick
from pickcal.stages.select import select
from pickcal.stages.status import status


def test_changed_defocus_is_not_ignored(small_set, tmp_path):
    """The same table with another defocus is another import: named with both values."""
    folder = shutil.copytree(small_set.folder, tmp_path / "sim")
    star = folder / "micrographs_ctf.star"
    ingest([star], tmp_path / "p.zarr", ImportSettings(), SerialExecutor(), Silent())
    first = float(Project.open(tmp_path / "p.zarr").read("micrographs", "defocus_u")[0])
    text = star.read_text()
    word = next(word for word in text.split() if word.startswith(str(int(first))))
    star.write_text(text.replace(word, "31000.0"))
    with pytest.raises(ProjectError, match=r"mic_0001.*defocus_u stored .* now 31000"):
        ingest([star], tmp_path / "p.zarr", ImportSettings(), SerialExecutor(), Silent())


def test_changed_templates_are_other_settings(picked, small_set, small_settings, own, tmp_path):
    """Another stack under the same path: refused without --overwrite, searched anew with it."""
    project = Project.open(own(picked), "r+")
    stack, pixel_size = read_stack(small_set.templates)
    path = tmp_path / "t.mrcs"
    write_mrc(path, stack, pixel_size, stack=True)
    settings = small_settings.model_copy(update={"templates": path})
    pick(project, "again", settings, SerialExecutor(), Silent())
    assert pick(project, "again", settings, SerialExecutor(), Silent()).ran == 0
    assert pick(project, "again", settings, SerialExecutor(), Silent(), overwrite=True).ran == 0
    write_mrc(path, stack[:, ::-1], pixel_size, stack=True)
    with pytest.raises(ProjectError, match="templates_sha256"):
        pick(project, "again", settings, SerialExecutor(), Silent())
    assert pick(project, "again", settings, SerialExecutor(), Silent(), overwrite=True).ran == 6


def test_a_selection_does_not_outlive_its_fit(picked, own, tmp_path):
    """After another calibration the old selection is refused, listed as left, and made again by the same words."""
    project = Project.open(own(picked), "r+")
    calibrate(project, "template", CalibrateSettings())
    select(project, "template", "first", SelectSettings(min_ncc=0.4))
    export(project, "first", ExportSettings(), tmp_path / "before")
    calibrate(project, "template", CalibrateSettings(ncc="none"))
    with pytest.raises(ProjectError, match="calibrated anew"):
        export(project, "first", ExportSettings(), tmp_path / "after")
    assert not (tmp_path / "after").exists()
    assert any(line.startswith("select first") for line in status(project)["left"])
    select(project, "template", "first", SelectSettings(min_ncc=0.4))
    export(project, "first", ExportSettings(), tmp_path / "after")
    assert not any("select" in line for line in status(project)["left"])


@pytest.mark.parametrize("fitted", [True, False])
def test_a_selection_does_not_outlive_fewer_micrographs(picked, small_settings, own, tmp_path, fitted):
    """One micrograph fails, the rest is selected; mended, the same command picks it: its picks were never selected."""
    project = Project.open(own(picked), "r+")
    voltage = project.read("micrographs", "voltage")

    def repeated(value):
        project.write_blocks("micrographs", 0, project.count, {"voltage": np.r_[value, voltage[1:]]})
        return pick(project, "again", small_settings, SerialExecutor(), Silent())

    assert (repeated(np.nan).done, repeated(np.nan).failed) == (5, 1)
    if fitted:
        calibrate(project, "again", CalibrateSettings())
    select(project, "again", "first", SelectSettings(min_ncc=0.4))
    before = export(project, "first", ExportSettings(), tmp_path / "before")
    assert repeated(voltage[0]).done == 6
    with pytest.raises(ProjectError, match="made before more micrographs were picked"):
        export(project, "first", ExportSettings(), tmp_path / "after")
    assert any(line.startswith("select first") for line in status(project)["left"])
    select(project, "again", "first", SelectSettings(min_ncc=0.4))
    after = export(project, "first", ExportSettings(), tmp_path / "after")
    assert (before["micrographs"], after["micrographs"]) == (5, 6) and after["picks"] > before["picks"]
    assert not any("select" in line for line in status(project)["left"])


def test_missing_voltage_is_not_zero(picked, small_settings, own):
    """A CTF parameter that the table lacks fails the micrograph, by name; the others go on."""
    project = Project.open(own(picked), "r+")
    voltage = project.read("micrographs", "voltage")
    voltage[0] = np.nan
    project.write_blocks("micrographs", 0, project.count, {"voltage": voltage})
    result = pick(project, "again", small_settings, SerialExecutor(), Silent())
    assert (result.done, result.failed) == (5, 1)
    assert "voltage" in result.errors[0][1]


def test_a_hot_pixel_leaves_no_trace(tmp_path):
    """One pixel at a million in noise of deviation 3: nothing in the working image stands out."""
    noise = np.random.default_rng(0).normal(100, 3, (600, 600)).astype(np.float32)
    noise[300, 300] = 1e6
    write_mrc(tmp_path / "hot.mrc", noise, 1.0)
    pixels, found = read_measured(image_info(tmp_path / "hot.mrc"))
    image, mean, _ = working_image(pixels, found, "hot.mrc", 1.0, 5.0, 6.0)
    assert np.abs(image).max() < 6
    assert mean == pytest.approx(100, abs=0.1)
