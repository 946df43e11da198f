"""Ctrl-C in the middle of a stage: what is finished is kept, the same command finishes the rest, bit for bit."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import xarray as xr
from handmade import noise, write_set

from pickcal.engine.executors import SerialExecutor
from pickcal.engine.progress import Silent
from pickcal.project import Project
from pickcal.settings import BlobSettings, ImportSettings
from pickcal.stages.ingest import ingest
from pickcal.stages.pick import pick

COUNT = 80
SETTINGS = BlobSettings(diameter_min=120.0, diameter_max=160.0)


@pytest.fixture(scope="module")
def projects(tmp_path_factory):
    """A project with images only, and one picked without any interruption."""
    folder = tmp_path_factory.mktemp("interrupt")
    star = write_set(folder, [noise((200, 200), i) for i in range(COUNT)])
    ingest([star], folder / "p.zarr", ImportSettings(batch=1), SerialExecutor(), Silent())
    shutil.copytree(folder / "p.zarr", folder / "whole.zarr")
    pick(Project.open(folder / "whole.zarr", "r+"), "blob", SETTINGS, SerialExecutor(), Silent())
    return folder / "p.zarr", folder / "whole.zarr"


def done(path):
    """Micrographs that are picked, as another process sees it."""
    project = Project.open(path)
    return int((project.done("picks/blob") == 1).sum()) if "blob" in project.names("picks") else 0


def begun(path):
    """Batches that are written, looked at quickly: the project itself is opened too slowly on a busy machine."""
    return len(list((path / "picks" / "blob" / "status").glob("c/*")))


def interrupt(command, path, whole_group):
    """Run a command in a session of its own and press Ctrl-C once two micrographs are done."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # a shell has what it starts in the background, such as these tests, ignore Ctrl-C, and so would the command
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    deadline = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < deadline and begun(path) < 4:
        time.sleep(0.02)
    if whole_group:
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    try:
        _, err = process.communicate(timeout=60)
    finally:
        if process.poll() is None:
            process.kill()
    return process.returncode, err


@pytest.mark.parametrize(
    ("cluster", "whole_group"),
    [(["--cluster", "serial"], False), (["--workers", "2"], True)],
    ids=["serial", "local cluster, as from a terminal"],
)
def test_the_same_command_goes_on(projects, tmp_path, cluster, whole_group):
    """Exit code 130 and one line of words; then the rest is done and equals an uninterrupted run."""
    imported, whole = projects
    path = shutil.copytree(imported, tmp_path / "p.zarr")
    arguments = ["pick", "blob", str(path), "--diameter-min", "120", "--diameter-max", "160"]
    code, err = interrupt([sys.executable, "-m", "pickcal", *arguments, *cluster], path, whole_group)
    kept = done(path)
    assert code == 130, err
    assert 2 <= kept < COUNT
    assert "interrupted; what is finished is kept" in err
    assert "Traceback" not in err
    result = pick(Project.open(path, "r+"), "blob", SETTINGS, SerialExecutor(), Silent())
    assert (result.ran, result.done) == (COUNT - kept, COUNT)
    found, expected = (xr.open_zarr(p, group="picks/blob", consolidated=False).load() for p in (path, whole))
    for name in expected:
        assert found[name].equals(expected[name]), name
        if expected[name].dtype.kind == "f":
            assert found[name].values.tobytes() == expected[name].values.tobytes()
