"""Whatever is killed, the picks are those of a quiet run, bit for bit; what kills is reported, alone; nothing hangs."""

import os
import subprocess
from contextlib import suppress

import pytest
from disturb import BATCH, COUNT, Killer, assert_same_picks, done, result_of, wait_for

from pickcal.engine.journal import runs
from pickcal.project import Project
from pickcal.stages.status import status

POISON, KILLS = 100, 20


def test_workers_killed_at_random_and_a_batch_that_kills(project, quiet, sabotaged, job):
    """The batch that kills its worker every time is reported failed; no batch that shared a worker with it is."""
    lab = sabotaged(sleep=1.5, poison=POISON)
    process = job(lab)
    wait_for(lambda: done(project) > 0, process)
    with Killer(lab, seed=7, every=0.8, most=KILLS) as killer:
        code, result, err = result_of(process, 240)
    assert killer.kills == KILLS
    assert (code, result["done"], result["failed"], result["pending"]) == (3, COUNT - BATCH, BATCH, 0), err
    poisoned = [f"mics/m{i + 1}.mrc" for i in range(POISON, POISON + BATCH)]
    assert [failure["micrograph"] for failure in result["errors"]] == poisoned
    assert all("the worker process died on this batch" in failure["error"] for failure in result["errors"])
    assert_same_picks(project, quiet, but=range(POISON, POISON + BATCH))
    opened = Project.open(project)
    ((_, *batches, _),) = runs(project, "picks/blob", opened.group_mark("picks/blob"))
    assert sorted(record["start"] for record in batches) == list(range(0, COUNT, BATCH))
    assert [record["start"] for record in batches if record["error"]] == [POISON]
    assert status(opened)["runs"]["picks/blob"]["failures_by_reason"] == {result["errors"][0]["error"]: BATCH}


def test_two_jobs_at_once_and_a_client_that_is_killed(project, quiet, sabotaged, job):
    """The second job is refused with words. The same command goes on at once when the first was killed: its lease does
    not outlive it. A finished job does nothing.
    """
    lab = sabotaged(2, sleep=0.3)
    first = job(lab)
    wait_for(lambda: done(project) >= 20, first)
    code, _, err = result_of(job(lab))
    assert code == 1 and "another job works on it, __main__.py on" in err and f"process {first.pid}" in err
    first.kill()
    first.communicate()
    kept = done(project)
    assert kept < COUNT
    code, result, err = result_of(job(lab))
    assert (code, result["done"], result["failed"]) == (0, COUNT, 0), err
    assert 0 < result["ran"] <= COUNT - kept
    assert_same_picks(project, quiet)
    code, result, _ = result_of(job(lab))
    assert (code, result["ran"], result["done"]) == (0, 0, COUNT)


def test_scheduler_killed_and_started_again(project, quiet, sabotaged, job):
    """The job waits for it and goes on; it says so."""
    lab = sabotaged(2, sleep=0.3)
    process = job(lab)
    wait_for(lambda: done(project) >= 20, process)
    lab.kill_scheduler()
    lab.close()
    lab.start_scheduler()
    for _ in range(2):
        lab.start_worker("--preload", "pickcal.engine.worker")
    code, result, err = result_of(process)
    assert (code, result["done"], result["failed"]) == (0, COUNT, 0), err
    assert "lost the scheduler" in err
    assert_same_picks(project, quiet)


def test_store_requests_that_fail_or_hang(project, quiet, sabotaged, job):
    """One in twenty fails, three hang for ever: asked again, or their worker is ended after the limit."""
    lab = sabotaged(3, fail=0.05, hang=3, seed=11)
    code, result, err = result_of(job(lab, "--batch-limit", "8"), 240)
    assert (code, result["done"], result["failed"]) == (0, COUNT, 0), err
    assert_same_picks(project, quiet)
    assert len(list(project.parent.glob("hang*"))) == 3


def test_the_disk_fills_up(quiet, sabotaged, job, project, tmp_path):
    """Said so; the same command finishes when there is room."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=40m,nr_inodes=200k", "tmpfs", str(project)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small disk here")
    try:
        subprocess.run(["cp", "-r", f"{quiet}/images.zarr/.", str(project)], check=True)
        lab = sabotaged(2, sleep=0.1)
        process = job(lab)
        wait_for(lambda: done(project) >= 12, process)
        with suppress(OSError), (project / "ballast").open("wb", buffering=0) as ballast:  # the job writes meanwhile
            while ballast.write(bytes(1 << 16)):
                pass
        code, _, err = result_of(process)
        assert code == 1 and "No space left on device" in err and "same command again" in err
        assert done(project) < COUNT
        (project / "ballast").unlink()
        code, result, err = result_of(job(lab))
        assert (code, result["done"], result["failed"]) == (0, COUNT, 0), err
        assert_same_picks(project, quiet)
    finally:
        subprocess.run(["umount", str(project)], check=True)
