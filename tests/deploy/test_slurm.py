"""`pickcal run` on a real SLURM: workers are jobs in the queue, which go away with the work."""

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from handmade import noise, write_set
from slurm import LIMITED, Slurm, missing

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


def test_workers_that_stay_in_the_queue_are_not_waited_for_for_ever(slurm, work):
    """No worker ever comes: said so after the wait, naming what to look at; nothing is left in the queue."""
    command = [sys.executable, "-m", "pickcal", "run", "job.toml"]
    command += ["--set", 'cluster.options.job_extra_directives=["--begin=now+1hour"]', "--set", "cluster.wait=3"]
    done = subprocess.run(command, cwd=work, env=slurm.env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert "no worker for 3 s" in done.stderr and "queued or failing" in done.stderr
    assert slurm.run("squeue", "-h").strip() == ""


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (["cluster.options.queue=nowhere"], "invalid partition specified: nowhere"),
        (["cluster.options.queue=nowhere", "cluster.workers_min=0"], "invalid partition specified: nowhere"),
        (["cluster.memory=64 GB"], "Memory specification can not be satisfied"),
    ],
    ids=["partition", "partition, scaling", "memory"],
)
def test_what_sbatch_says_when_it_refuses_is_shown(slurm, work, asked, said):
    """At once, in its own words, with what to do; the user waits for no worker, nor for a cluster that cannot close."""
    command = [sys.executable, "-m", "pickcal", "run", "job.toml", "--log", "log.jsonl"]
    command += [word for one in asked for word in ("--set", one)]
    done = subprocess.run(command, cwd=work, env=slurm.env, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert f"sbatch: error: {said}" in done.stderr and "[cluster.options]" in done.stderr
    assert "no worker for" not in done.stderr and "cluster.not_closed" not in (work / "log.jsonl").read_text()
    assert slurm.run("squeue", "-h").strip() == ""


def test_workers_that_the_queue_takes_do_the_work_of_those_that_it_refuses(slurm, work):
    """A limit of submitted jobs, for one: the user is told in SLURM's words, and the work is done."""
    command = [sys.executable, "-m", "pickcal", "run", "job.toml", "--log", "log.jsonl"]
    command += ["--set", f'cluster.options.job_extra_directives=["--comment={LIMITED}"]']
    done = subprocess.run(command, cwd=work, env=slurm.env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    assert "Job violates accounting/QOS policy" in done.stderr and "; the job goes on with the workers" in done.stderr
    logged = (work / "log.jsonl").read_text()
    assert "job.refused" in logged and "cluster.not_closed" not in logged
    slurm._wait(lambda: slurm.run("squeue", "-h").strip() == "")
    assert slurm.run("scontrol", "show", "jobs", "-o").count(f"Comment={LIMITED}") == 1


def test_the_script_for_one_node_runs_a_job_that_is_made_for_the_queue(work):
    """With processes of its own: the queue, its network and its number of workers do not matter."""
    env = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    command = ["bash", DEPLOY / "slurm" / "one_node.sh", "job.toml"]
    done = subprocess.run(command, cwd=work, env=env, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert Project.open(work / "p.zarr").done("picks/blob").tolist() == [1] * 8


def test_scripts_of_the_folder_are_accepted(slurm):
    """`sbatch --test-only` reads their directives and finds a node for them."""
    lines = [line for line in (DEPLOY / "README.md").read_text().splitlines() if line.startswith("sbatch --test-only")]
    assert len(lines) == len(list((DEPLOY / "slurm").glob("*.sh")))
    for line in lines:
        said = slurm.run("bash", "-c", line, cwd=DEPLOY.parent)
        assert "to start at" in said, f"{line}: {said}"
    with (DEPLOY / "slurm" / "slurm.toml").open("rb") as file:
        assert tomllib.load(file)["cluster"]["kind"] == "slurm"
