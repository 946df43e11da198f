"""Bad input: each kind has its own words, names the file or the row, and stops nothing else."""

import mrcfile
import numpy as np
import pytest
import xarray as xr
from handmade import noise, write_mrc, write_set, write_star

from pickcal.engine.executors import SerialExecutor
from pickcal.engine.progress import Silent
from pickcal.errors import InputError, MissingFileError, ProjectError
from pickcal.project import Project
from pickcal.settings import ImportSettings
from pickcal.stages.ingest import ingest
from pickcal.stages.status import status


def run(sources, path, **values):
    sources = sources if isinstance(sources, list) else [sources]
    return ingest(sources, path, ImportSettings(**values), SerialExecutor(), Silent())


def truncate(path):
    path.write_bytes(path.read_bytes()[:40_000])


def cut_header(path):
    path.write_bytes(path.read_bytes()[:500])


def not_numbers(path):
    with pytest.warns(RuntimeWarning, match="NaN"):
        write_mrc(path, np.full((160, 160), np.nan, np.float32), 5.0)


def constant(path):
    write_mrc(path, np.full((160, 160), 7.0, np.float32), 5.0)


def too_large(path):
    content = path.read_bytes()
    pixels = np.frombuffer(content[1024:], "<f4").astype(float)
    path.write_bytes(content[:1024] + (pixels / np.abs(pixels).max() * 1e37).astype("<f4").tobytes())


def complex_mode(path):
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(np.ones((160, 160), np.complex64))
        file.voxel_size = 5.0


def movie(path):
    write_mrc(path, noise((4, 160, 160)), 5.0)


def other_voxel(path):
    write_mrc(path, noise(), 1.35)


def text(path):
    path.write_text("this is no image\n" * 100)


BREAKAGES = {
    "missing": (lambda path: path.unlink(), ["no such file"]),
    "truncated": (truncate, ["truncated", "40000", "103424"]),
    "shorter than a header": (cut_header, ["truncated"]),
    "NaN only": (not_numbers, ["no finite pixel"]),
    "constant": (constant, ["7 in every pixel"]),
    "too large": (too_large, ["with a mean and a variance", "e+37", "single precision"]),
    "mode 4": (complex_mode, ["expected MRC mode", "found 4"]),
    "movie": (movie, ["movie of 4 images", "motion correction"]),
    "voxel size": (other_voxel, ["1.35 Å in its header", "5 Å in the STAR file", "--source-pixel-size"]),
    "text": (text, ["expected an MRC or TIFF file"]),
    "folder": (lambda path: (path.unlink(), path.mkdir()), ["folder"]),
}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The import of four good files."""
    folder = tmp_path_factory.mktemp("whole")
    run(write_set(folder, [noise(seed=i) for i in range(4)]), folder / "p.zarr", batch=2)
    return xr.open_zarr(folder / "p.zarr", group="micrographs", consolidated=False).load()


@pytest.mark.parametrize("kind", BREAKAGES)
def test_one_bad_file_is_named_and_the_others_go_on(tmp_path, kind, undisturbed):
    """Status and reason for it; repaired, the same command completes the project as if nothing had been."""
    spoil, words = BREAKAGES[kind]
    star = write_set(tmp_path, [noise(seed=i) for i in range(4)])
    bad = tmp_path / "mics/m2.mrc"
    whole = bad.read_bytes()
    spoil(bad)
    result = run(star, tmp_path / "p.zarr", batch=2)
    assert (result.done, result.failed, result.pending) == (3, 1, 0)
    [(name, reason)] = result.errors
    assert name == "mics/m2.mrc"
    assert [word for word in [str(bad), *words] if word not in reason] == []
    project = Project.open(tmp_path / "p.zarr")
    assert status(project)["failures"] == [{"micrograph": name, "stage": "micrographs", "error": reason}]
    with pytest.raises(ProjectError, match="exists and was imported otherwise"):
        run(star, tmp_path / "p.zarr", batch=2, clip=4.0)
    if bad.is_dir():
        bad.rmdir()
    bad.write_bytes(whole)
    again = run(star, tmp_path / "p.zarr", batch=2)
    assert (again.ran, again.done, again.failed, again.errors) == (1, 4, 0, ())
    found = xr.open_zarr(tmp_path / "p.zarr", group="micrographs", consolidated=False).load()
    xr.testing.assert_equal(found.drop_vars("source"), undisturbed.drop_vars("source"))


@pytest.mark.parametrize("listed", [True, False], ids=["table", "images"])
def test_a_file_that_the_system_refuses_to_look_at_fails_alone(tmp_path, listed):
    """By a name that no file can have: as for a folder that may not be searched, it cannot even be said what it is."""
    star = write_set(tmp_path, [noise(seed=i) for i in range(3)])
    refused = "mics/" + "m" * 300 + ".mrc"
    with pytest.raises(OSError, match="name too long"):
        (tmp_path / refused).is_file()
    star.write_text(star.read_text().replace("mics/m2.mrc", refused))
    images = [tmp_path / name for name in ("mics/m1.mrc", refused, "mics/m3.mrc")]
    for ran in (3, 1):  # the second time only that one is tried
        result = run(star if listed else images, tmp_path / "p.zarr", without_ctf=not listed, batch=1)
        assert (result.done, result.failed) == (2, 1) and result.ran <= ran
        [(name, reason)] = result.errors
        assert name.endswith(refused) and "cannot be read (File name too long)" in reason


def test_row_with_a_senseless_defocus_fails_alone(tmp_path):
    """The value and the micrograph are named."""
    star = write_set(tmp_path, [noise(seed=i) for i in range(3)])
    star.write_text(star.read_text().replace("10500.0", "-3.0"))
    result = run(star, tmp_path / "p.zarr")
    assert (result.done, result.failed) == (2, 1)
    [(name, reason)] = result.errors
    assert name == "mics/m2.mrc"
    assert "defocus" in reason.lower()
    assert "-3" in reason


def test_all_bad_files_leave_no_project(tmp_path):
    """Nothing to import is an error at once, with the first reason."""
    star = write_set(tmp_path, [noise((3, 160, 160)), noise((3, 160, 160))])
    with pytest.raises(InputError, match=r"none of 2 .*m1\.mrc.*movie of 3 images"):
        run(star, tmp_path / "p.zarr")
    assert not (tmp_path / "p.zarr").exists()


@pytest.mark.parametrize(
    ("drop", "words"),
    [
        (("rlnDefocusU", "rlnDefocusV", "rlnDefocusAngle"), "no defocus.*run CTF estimation.*--without-ctf"),
        (("rlnDefocusAngle",), "rlnDefocusAngle"),
        (("rlnVoltage",), "rlnVoltage"),
        (("rlnSphericalAberration", "rlnAmplitudeContrast"), "rlnSphericalAberration, rlnAmplitudeContrast"),
        (("rlnMicrographName",), "rlnMicrographName"),
    ],
)
def test_missing_columns_are_named(tmp_path, drop, words):
    """The file and every column; nothing is made."""
    write_set(tmp_path, [noise()])
    star = write_star(tmp_path / "less.star", ["mics/m1.mrc"], 5.0, drop=drop)
    with pytest.raises(InputError, match=words) as error:
        run(star, tmp_path / "p.zarr")
    assert str(star) in str(error.value)
    assert not (tmp_path / "p.zarr").exists()


def test_without_ctf_takes_what_has_no_defocus(tmp_path):
    """The advice of the error works."""
    write_set(tmp_path, [noise()])
    star = write_star(tmp_path / "less.star", ["mics/m1.mrc"], 5.0, drop=("rlnDefocusU", "rlnDefocusV"))
    assert run(star, tmp_path / "p.zarr", without_ctf=True).done == 1
    assert np.isnan(Project.open(tmp_path / "p.zarr").read("micrographs", "defocus_u")).all()


def test_no_pixel_size_anywhere(tmp_path):
    """Header 0 and no column: refused with the option that helps, which works."""
    write_mrc(tmp_path / "mics/m1.mrc", noise(), 0.0)
    star = write_star(tmp_path / "m.star", ["mics/m1.mrc"], 5.0, drop=("rlnMicrographPixelSize",))
    with pytest.raises(InputError, match=r"m1\.mrc: no pixel size in the header.*--source-pixel-size"):
        run(star, tmp_path / "p.zarr")
    assert run(star, tmp_path / "p.zarr", source_pixel_size=4.0).done == 1
    assert Project.open(tmp_path / "p.zarr").read("micrographs", "source_pixel_size").tolist() == [4.0]


def test_header_without_voxel_size_takes_that_of_the_table(tmp_path):
    """Many programs leave it 0; that alone is no error."""
    write_mrc(tmp_path / "mics/m1.mrc", noise(), 0.0)
    star = write_star(tmp_path / "m.star", ["mics/m1.mrc"], 5.0)
    assert run(star, tmp_path / "p.zarr").done == 1


def test_same_micrograph_twice(tmp_path):
    """Both rows are named."""
    write_set(tmp_path, [noise(), noise()])
    star = write_star(tmp_path / "m.star", ["mics/m1.mrc", "mics/m2.mrc", "mics/m1.mrc"], 5.0)
    with pytest.raises(InputError, match=r"mics/m1\.mrc is in row 1 and again in row 3"):
        run(star, tmp_path / "p.zarr")


def test_same_image_twice(tmp_path):
    """Named; also when the sources are plain files."""
    write_set(tmp_path, [noise()])
    file = tmp_path / "mics/m1.mrc"
    with pytest.raises(InputError, match=r"m1\.mrc: given twice"):
        run([file, file], tmp_path / "p.zarr", without_ctf=True)


def test_images_alone_have_no_defocus(tmp_path):
    """Refused unless asked for."""
    write_set(tmp_path, [noise()])
    with pytest.raises(InputError, match=r"m1\.mrc: no defocus is known.*--without-ctf"):
        run(tmp_path / "mics/m1.mrc", tmp_path / "p.zarr")


def test_no_micrograph_on_disk(tmp_path):
    """The folders looked in, and the option that helps."""
    star = write_star(tmp_path / "m.star", ["gone/m1.mrc"], 5.0)
    with pytest.raises(MissingFileError, match=r"gone/m1\.mrc; looked in .*--root") as error:
        run(star, tmp_path / "p.zarr")
    assert str(tmp_path) in str(error.value)


@pytest.mark.parametrize("content", ["", "no table here\n", "data_\n\nloop_\n_rlnMicrographName #1\n\n"])
def test_star_file_without_micrographs(tmp_path, content):
    """Empty files and tables are said to be so."""
    (tmp_path / "m.star").write_text(content)
    with pytest.raises(InputError, match=r"m\.star"):
        run(tmp_path / "m.star", tmp_path / "p.zarr")


def test_something_else_at_the_projects_place(tmp_path):
    """It stays as it is."""
    star = write_set(tmp_path, [noise()])
    (tmp_path / "p.zarr").write_text("mine")
    with pytest.raises(ProjectError, match=r"p\.zarr: expected a pickcal project"):
        run(star, tmp_path / "p.zarr")
    assert (tmp_path / "p.zarr").read_text() == "mine"


def test_micrograph_of_another_size_after_repair(tmp_path):
    """What no longer fits the project is told; the rest is not lost."""
    star = write_set(tmp_path, [noise(seed=i) for i in range(3)])
    truncate(tmp_path / "mics/m2.mrc")
    run(star, tmp_path / "p.zarr")
    write_mrc(tmp_path / "mics/m2.mrc", noise((200, 160)), 5.0)
    again = run(star, tmp_path / "p.zarr")
    assert (again.done, again.failed) == (2, 1)
    assert "does not fit" in again.errors[0][1]
