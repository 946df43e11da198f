"""A disk that fills up: said so, nothing half-written, and the same command goes on when there is room."""

import os
import subprocess
from functools import partial

import pytest
import xarray as xr
from handmade import noise, write_set

from pickcal.engine.executors import SerialExecutor
from pickcal.engine.progress import Silent
from pickcal.errors import PickcalError, ProjectError
from pickcal.project import Project
from pickcal.settings import BlobSettings, ImportSettings
from pickcal.stages.batches import run_batches
from pickcal.stages.ingest import ingest
from pickcal.stages.pick import pick

BLOBS = BlobSettings(diameter_min=140.0, diameter_max=140.0, shapes=("disc",))


@pytest.fixture
def small_disk(tmp_path):
    """A disk of 4 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small disk here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(disk, leave):
    """Fill a disk up to `leave` bytes."""
    state = os.statvfs(disk)
    (disk / "ballast").write_bytes(b"x" * max(0, state.f_bavail * state.f_frsize - leave))


class Filling(SerialExecutor):
    """Fills the disk when the first task is about to run."""

    def __init__(self, disk, leave):
        self.disk, self.leave = disk, leave

    def run(self, function, tasks):
        fill(self.disk, self.leave)
        yield from super().run(function, tasks)


def assert_equal(found, expected, group):
    found, expected = (xr.open_zarr(path, group=group, consolidated=False).load() for path in (found, expected))
    for name in expected:
        if name != "source":
            assert found[name].equals(expected[name]), name


def test_images_that_cannot_fit_are_refused_at_once(small_disk, tmp_path):
    """Both sizes, before any work."""
    star = write_set(tmp_path, [noise((1000, 1000), i) for i in range(3)])
    with pytest.raises(ProjectError, match=r"3 working images need .* GB free; make room"):
        ingest([star], small_disk / "p.zarr", ImportSettings(), SerialExecutor(), Silent())
    assert list(small_disk.iterdir()) == []


@pytest.mark.parametrize("leave", [0, 300_000])
def test_import_goes_on_when_there_is_room_again(small_disk, tmp_path, leave):
    """Full from the start, or after some batches."""
    star = write_set(tmp_path, [noise((256, 256), i) for i in range(6)])
    arguments = ([star], small_disk / "p.zarr", ImportSettings(batch=1), SerialExecutor(), Silent())
    with pytest.raises(PickcalError, match=r"p\.zarr.*No space left on device.*same command again"):
        ingest(*arguments[:3], Filling(small_disk, leave), Silent())
    (small_disk / "ballast").unlink()
    project = Project.open(small_disk / "p.zarr")
    assert (project.done("micrographs") == 1).sum() < 6
    result = ingest(*arguments)
    assert (result.done, result.failed) == (6, 0)
    ingest([star], tmp_path / "whole.zarr", ImportSettings(batch=1), SerialExecutor(), Silent())
    assert_equal(small_disk / "p.zarr", tmp_path / "whole.zarr", "micrographs")


@pytest.mark.parametrize("leave", [0, 60_000])
def test_picking_goes_on_when_there_is_room_again(small_disk, tmp_path, leave):
    """Bit for bit what an undisturbed run gives."""
    star = write_set(tmp_path, [noise(seed=i) for i in range(4)])
    for path in (small_disk / "p.zarr", tmp_path / "whole.zarr"):
        ingest([star], path, ImportSettings(batch=1), SerialExecutor(), Silent())
    pick(Project.open(tmp_path / "whole.zarr", "r+"), "blob", BLOBS, SerialExecutor(), Silent())
    with pytest.raises(PickcalError, match=r"p\.zarr.*No space left on device.*same command again"):
        pick(Project.open(small_disk / "p.zarr", "r+"), "blob", BLOBS, Filling(small_disk, leave), Silent())
    (small_disk / "ballast").unlink()
    result = pick(Project.open(small_disk / "p.zarr", "r+"), "blob", BLOBS, SerialExecutor(), Silent())
    assert result.done == 4
    assert_equal(small_disk / "p.zarr", tmp_path / "whole.zarr", "picks/blob")


def test_full_before_picking_begins(small_disk, tmp_path, cli):
    """The command says what to do, and works once there is room."""
    star = write_set(tmp_path, [noise(seed=i) for i in range(2)])
    ingest([star], small_disk / "p.zarr", ImportSettings(), SerialExecutor(), Silent())
    fill(small_disk, 0)
    command = ["pick", "blob", small_disk / "p.zarr", "--diameter-min", 140, "--diameter-max", 140, "--cluster=serial"]
    refused = cli(*command, code=1)
    assert "No space left on device" in refused.err
    assert "same command again" in refused.err
    (small_disk / "ballast").unlink()
    assert cli(*command, "--json", code=0).json["done"] == 2


def test_lost_batches_are_marked_with_the_reason(tmp_path):
    """A batch that never reported gets status and reason; those done stay done."""
    from pickcal.stages.ingest import IngestTask

    star = write_set(tmp_path, [noise(seed=i) for i in range(4)])
    ingest([star], tmp_path / "p.zarr", ImportSettings(batch=2), SerialExecutor(), Silent())
    project = Project.open(tmp_path / "p.zarr", "r+")
    status = project.read("micrographs", "status")
    status[3] = 0
    project.write_batch("micrographs", 2, 4, {"status": status[2:]})

    def lost(task):
        raise RuntimeError("the node went away")

    task_of = partial(IngestTask, str(tmp_path / "p.zarr"), pixel_size=5.0, clip=6.0)
    result = run_batches(project, "micrographs", "import", lost, task_of, SerialExecutor(), Silent())
    assert (result.done, result.failed) == (3, 1)
    assert result.errors == (("mics/m4.mrc", "RuntimeError: the node went away"),)
