"""Fixtures shared by all tests: a small simulated set with its picked project, executors, the command line."""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from ran import Ran, in_this_process

from pickcal.engine.executors import SerialExecutor, open_executor
from pickcal.engine.progress import Silent
from pickcal.project import Project
from pickcal.settings import ClusterSettings, ImportSettings, SimulateSettings, TemplateSettings
from pickcal.simulation import simulate
from pickcal.stages.ingest import ingest
from pickcal.stages.pick import pick

SMALL = {
    "micrographs": 6,
    "seed": 1,
    "height": 512,
    "width": 512,
    "pixel_size": 4.0,
    "particles_min": 15,
    "particles_max": 30,
    "templates": 3,
    "empty": 0,
    "crowded": 0,
    "carbon": 0,
    "ice_crystals": 0.0,
    "aggregates": 0.0,
}
DIAMETER = 150.0

# no example fails for being slow: this machine may be busy, and no test asserts a time
settings.register_profile("pickcal", deadline=None)
settings.load_profile("pickcal")

LONGEST = ("test_whole_job.py", "test_cli.py", "test_fuzz.py", "test_report.py", "test_foreign_jobs.py")


def pytest_collection_modifyitems(items):
    """Begin with the files that take longest: two processes share the suite file by file, and would end far apart."""
    last = len(LONGEST)
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else last)


@pytest.fixture(scope="session")
def data():
    """Folder of the real data, or skip."""
    folder = Path(os.environ.get("PICKCAL_TEST_DATA", Path(__file__).parents[2] / "shared" / "data")).resolve()
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}; set PICKCAL_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def cli():
    """Run `pickcal` as a user does, in a process of its own."""

    def run(*arguments, cwd=None, code=None):
        command = [sys.executable, "-m", "pickcal", *map(str, arguments)]
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=300, check=False)
        assert "Traceback" not in done.stderr, done.stderr
        assert code is None or done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return Ran(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def apoferritin(data, cli, tmp_path_factory):
    """Project of eight real micrographs of EMPIAR-10146, as commands make it: blobs of 130 Å, calibrated, and `auto`.

    The processes of a run share one, made by the first that wants it. Read only: copy it to write.
    """
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "apoferritin"
    folder.mkdir(exist_ok=True)
    path, made = folder / "apoferritin.zarr", folder / "made"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            cli("import", data / "apoferritin_10146" / "micrographs_ctf.star", "--project", path, code=0)
            cli("pick", "blob", path, "--diameter-min", 130, "--diameter-max", 130, code=0)
            cli("calibrate", path, "--picks", "blob", code=0)
            cli("select", path, "--picks", "blob", "--auto", "--name", "auto", "--overwrite", code=0)
            made.touch()
    return path


@pytest.fixture(scope="session")
def small_set(tmp_path_factory):
    """Six simulated micrographs of 512 x 512 pixels at 4 Å, particles of 150 Å, no junk."""
    return simulate(tmp_path_factory.mktemp("small") / "sim", SimulateSettings(**SMALL))


@pytest.fixture(scope="session")
def small_settings(small_set):
    """Settings that pick the small set."""
    return TemplateSettings(templates=small_set.templates, diameter=DIAMETER, rotation_step=30.0)


@pytest.fixture(scope="session")
def imported(small_set, tmp_path_factory):
    """Project of the small set, imported in batches of 2. Read only: copy it to write."""
    path = tmp_path_factory.mktemp("imported") / "p.zarr"
    result = ingest([small_set.micrographs], path, ImportSettings(batch=2), SerialExecutor(), Silent())
    assert result.done == 6
    return path


@pytest.fixture(scope="session")
def picked(imported, small_settings, tmp_path_factory):
    """Project of the small set with picks `template`. Read only: copy it to write."""
    path = tmp_path_factory.mktemp("picked") / "p.zarr"
    shutil.copytree(imported, path)
    result = pick(Project.open(path, "r+"), "template", small_settings, SerialExecutor(), Silent())
    assert result.done == 6
    return path


@pytest.fixture
def own(tmp_path):
    """Copy of a project, to write to."""

    def copy(path: Path, name: str = "own.zarr") -> Path:
        return shutil.copytree(path, tmp_path / name)

    return copy


@pytest.fixture
def in_process():
    """Run a command in this process; gives its exit code, and what it said on standard output and standard error."""

    def run(*words):
        ran = in_this_process(*words, code=None)
        return ran.code, ran.out, ran.err

    return run


@pytest.fixture(scope="module")
def dask_executor():
    """One local cluster of two processes for all tests of a file that only need a cluster.

    Not for all files: one that nobody uses takes 3 % of a core until the session ends.
    """
    with open_executor(ClusterSettings(workers=2)) as executor:
        yield executor.started


@pytest.fixture(scope="session")
def _s3_server():
    pytest.importorskip("moto", reason="moto is not installed: no S3-compatible server to test with")
    from object_store import S3

    server = S3()
    yield server
    server.close()


@pytest.fixture
def s3(_s3_server, monkeypatch):
    """A running S3-compatible server, with its address and keys in the environment."""
    for name, value in _s3_server.environment.items():
        monkeypatch.setenv(name, value)
    yield _s3_server
    _s3_server.faults(0)
