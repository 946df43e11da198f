"""`pickcal run` on a real SLURM: workers are jobs in the queue, which go away with the work."""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from handmade import noise, write_set
from slurm import Slurm, missing

from pickcal.project import Project

DEPLOY = Path(__file__).parents[2] / "deploy"


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    reason = missing()
    if reason:
        pytest.skip(reason)
    with Slurm(tmp_path_factory.mktemp("slurm")) as running:
        yield running


@pytest.fixture
def work(tmp_path):
    write_set(tmp_path, [noise(seed=i) for i in range(8)])
    (tmp_path / "job.toml").write_text(
        f"""
        project = "p.zarr"
        [cluster]
        kind = "slurm"
        listen = "127.0.0.1"
        workers = 2
        memory = "1500 MB"
        wait = 120
        [cluster.options]
        queue = "main"
        walltime = "00:10:00"
        log_directory = "{tmp_path}"
        [import]
        sources = ["micrographs_ctf.star"]
        batch = 1
        [pick]
        method = "blob"
        diameter_min = 140.0
        diameter_max = 140.0
        """
    )
    return tmp_path


def test_a_job_file_from_end_to_end(slurm, work):
    """The workers were jobs of SLURM; the queue is empty afterwards; the same command again does nothing."""
    command = [sys.executable, "-m", "pickcal", "run", "job.toml", "--json"]
    done = subprocess.run(command, cwd=work, env=slurm.env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr + "".join(p.read_text() for p in work.glob("*.out"))
    result = json.loads(done.stdout.splitlines()[-1])
    assert (result["import"]["done"], result["pick"]["done"]) == (8, 8)
    assert Project.open(work / "p.zarr").done("picks/blob").tolist() == [1] * 8
    assert "Dask dashboard: http://127.0.0.1:" in done.stderr
    jobs = slurm.run("scontrol", "show", "jobs", "-o")
    assert jobs.count("JobName=dask-worker") == 2 and "Partition=main" in jobs
    slurm._wait(lambda: slurm.run("squeue", "-h").strip() == "")


def test_workers_that_the_queue_refuses_are_not_waited_for_for_ever(slurm, work):
    """No worker ever comes: said so after the wait, naming what to look at; nothing is left in the queue."""
    command = [sys.executable, "-m", "pickcal", "run", "job.toml"]
    command += ["--set", "cluster.memory=64 GB", "--set", "cluster.wait=6"]
    done = subprocess.run(command, cwd=work, env=slurm.env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "no worker for 6 s" in done.stderr and "queued or failing" in done.stderr
    assert slurm.run("squeue", "-h").strip() == ""


def test_scripts_of_the_folder_are_accepted(slurm):
    """`sbatch --test-only` reads their directives and finds a node for them."""
    for script in sorted((DEPLOY / "slurm").glob("*.sh")):
        said = slurm.run("sbatch", "--test-only", str(script))
        assert "to start at" in said, f"{script}: {said}"
    with (DEPLOY / "slurm" / "slurm.toml").open("rb") as file:
        assert tomllib.load(file)["cluster"]["kind"] == "slurm"
