"""One job at a time on a group: others are refused, and a holder that is gone is not waited for longer than need be."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from pickcal.engine import one_job
from pickcal.engine.one_job import job_at_work, only_job
from pickcal.errors import ProjectError
from pickcal.stores import lease
from pickcal.stores.small_objects import beside

NAME = "picks.blob.lease"


@pytest.fixture
def project(tmp_path):
    return tmp_path / "p.zarr"


@pytest.fixture
def quick(monkeypatch):
    """Leases of a second instead of a minute."""
    monkeypatch.setattr(one_job, "LEASE_SECONDS", 1.0)
    monkeypatch.setattr(lease, "LOOK_SECONDS", 0.05)


def other(project):
    """Hold the lease in a process of its own until killed."""
    code = (
        "import sys, time; from pickcal.engine.one_job import only_job\n"
        "with only_job(sys.argv[1], 'picks/blob'): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(project)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def elsewhere(project, **changes):
    """Leave a lease as a process of another machine does."""
    record = {"owner": "x", "machine": "another", "host": "node7", "pid": 1, "since": time.time(), "command": "pickcal"}
    beside(project).create(NAME, json.dumps({**record, "renewed": time.time(), **changes}).encode())


def test_a_second_job_is_refused_at_once(project, monkeypatch):
    """The message says who, where and since when; nothing is left afterwards."""
    monkeypatch.setattr(lease, "LOOK_SECONDS", None)  # to wait before another look would raise
    process = other(project)
    try:
        said = rf"picks/blob: another job works on it.*process {process.pid}, since"
        with pytest.raises(ProjectError, match=said), only_job(project, "picks/blob"):
            pass
        assert job_at_work(project, "picks/blob")["pid"] == process.pid
        with only_job(project, "picks/template"):
            pass
    finally:
        process.kill()
        process.wait()


def test_a_killed_holder_on_this_machine_is_not_waited_for(project):
    """Its process is gone, which can be seen."""
    process = other(project)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert job_at_work(project, "picks/blob") is None
    with only_job(project, "picks/blob"):
        assert job_at_work(project, "picks/blob")["pid"] == os.getpid()
    assert not (project.parent / "p.zarr.events").exists()


def test_a_holder_elsewhere_that_renews_its_lease_is_respected(project, quick):
    """It is seen to renew while one looks."""
    elsewhere(project)
    place = beside(project)

    def renew():
        time.sleep(0.3)
        content, tag = place.read(NAME)
        place.replace(NAME, json.dumps({**json.loads(content), "count": 1}).encode(), tag)

    thread = threading.Thread(target=renew)
    thread.start()
    with pytest.raises(ProjectError, match="on node7, process 1"), only_job(project, "picks/blob"):
        pass
    thread.join()
    assert json.loads(place.read(NAME)[0])["owner"] == "x"


def test_a_holder_elsewhere_that_is_gone_is_waited_for_no_longer_than_a_lease(project, quick):
    """Whatever its clock says."""
    elsewhere(project, renewed=time.time() + 1e6)
    began = time.monotonic()
    with only_job(project, "picks/blob"):
        assert time.monotonic() - began > 0.9
        assert json.loads(beside(project).read(NAME)[0])["owner"] != "x"


def test_a_process_of_the_same_number_is_not_the_holder(project):
    """Process numbers come again: the start of the process counts too."""
    record = {**lease.this_process(), "owner": "x", "started": 1.0, "renewed": time.time()}
    beside(project).create(NAME, json.dumps(record).encode())
    with only_job(project, "picks/blob"):
        assert json.loads(beside(project).read(NAME)[0])["owner"] != "x"


def test_it_is_renewed_while_held(project, quick):
    with only_job(project, "picks/blob") as mine:
        time.sleep(1.5)
        mine.check()
        assert json.loads(beside(project).read(NAME)[0])["count"] >= 2


def test_a_lease_that_was_taken_away_is_noticed(project, quick):
    """As after a night's sleep of the machine: nothing more is written."""
    with only_job(project, "picks/blob") as mine:
        place = beside(project)
        place.replace(NAME, b'{"owner": "another"}', place.read(NAME)[1])
        end = time.monotonic() + 20
        while not mine.lost and time.monotonic() < end:
            time.sleep(0.05)
        with pytest.raises(ProjectError, match="could not renew its lease"):
            mine.check()
    assert place.read(NAME)[0] == b'{"owner": "another"}'


def test_it_may_be_nested_in_its_thread_and_in_no_other(project):
    refused = []

    def enter():
        try:
            with only_job(project, "picks/blob"):
                pass
        except ProjectError as error:
            refused.append(str(error))

    with only_job(project, "picks/blob") as outer:
        with only_job(project, "picks/blob") as inner:
            assert inner is outer
        thread = threading.Thread(target=enter)
        thread.start()
        thread.join(30)
        assert job_at_work(project, "picks/blob") is not None
    assert len(refused) == 1 and "another job works on it" in refused[0]
    assert job_at_work(project, "picks/blob") is None


def test_a_damaged_lease_is_waited_for_like_a_foreign_one(project, quick):
    beside(project).create(NAME, b"\xff not json")
    with only_job(project, "picks/blob"):
        assert json.loads(beside(project).read(NAME)[0])["count"] >= 0
