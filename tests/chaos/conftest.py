"""Two hundred small micrographs, picked once in quiet; and the means to disturb another picking of them."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from disturb import BATCH, COMMAND, COUNT, QUICK_START, SABOTAGE, WORKERS
from handmade import noise, write_set
from lab import Lab

from pickcal.engine.executors import SerialExecutor
from pickcal.engine.progress import Silent
from pickcal.project import Project
from pickcal.settings import BlobSettings, ImportSettings
from pickcal.stages.ingest import ingest
from pickcal.stages.pick import pick

BLOBS = BlobSettings(diameter_min=70.0, diameter_max=70.0, shapes=("disc",))
FORKED = {"DASK_DISTRIBUTED__WORKER__MULTIPROCESSING_METHOD": "forkserver"}


@pytest.fixture(scope="session")
def quiet(tmp_path_factory):
    """A project with its images alone, and one that was picked without any trouble."""
    folder = tmp_path_factory.mktemp("quiet")
    star = write_set(folder, [noise((64, 64), seed) for seed in range(COUNT)])
    ingest([star], folder / "images.zarr", ImportSettings(batch=BATCH), SerialExecutor(), Silent())
    shutil.copytree(folder / "images.zarr", folder / "picked.zarr")
    assert pick(Project.open(folder / "picked.zarr", "r+"), "blob", BLOBS, SerialExecutor(), Silent()).done == COUNT
    return folder


@pytest.fixture
def project(quiet, tmp_path):
    """Images to pick, in a folder of the test's own."""
    return Path(shutil.copytree(quiet / "images.zarr", tmp_path / "p.zarr"))


@pytest.fixture
def sabotaged(tmp_path):
    """Start a cluster of four workers that do what a plan says."""
    labs = []

    def start(workers=WORKERS, **plan):
        env = {**os.environ, **FORKED, "SABOTAGE": json.dumps({**plan, "folder": str(tmp_path)})}
        lab = Lab(env, folder=tmp_path).start_scheduler()
        labs.append(lab)
        for _ in range(workers):
            preloads = ["--preload", "pickcal.engine.worker", "--preload", SABOTAGE, "--preload-nanny", QUICK_START]
            lab.start_worker(*preloads)
        return lab

    yield start
    for lab in labs:
        lab.close()


@pytest.fixture
def job(project, tmp_path):
    """Start `pickcal pick` on a cluster; several times, as a user does whose job was killed."""
    started = []

    def start(lab, *more):
        command = [sys.executable, "-m", "pickcal", "pick", "blob", project, *COMMAND, "--cluster", lab.address, *more]
        started.append(
            subprocess.Popen(
                [*map(str, command), "--wait", "240", "--json"],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
        )
        return started[-1]

    yield start
    for process in started:
        if process.poll() is None:
            process.kill()
        process.communicate()
