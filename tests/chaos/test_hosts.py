"""Scheduler, client, two workers and an object store on hosts of their own; one worker is cut off for a while."""

import json
import os
import subprocess
import sys

import pytest
from disturb import BATCH, COMMAND, COUNT, SABOTAGE, assert_same_picks, done, result_of, wait_for
from hosts import Hosts, allowed
from lab import Lab
from object_store import ENVIRONMENT, S3

from pickcal.engine.journal import runs
from pickcal.project import Project

WHY_NOT = allowed()


@pytest.fixture
def hosts():
    with Hosts("scheduler", "desk", "one", "other", "store") as made:
        yield made


@pytest.mark.nightly
@pytest.mark.skipif(WHY_NOT is not None, reason=str(WHY_NOT))
def test_a_worker_that_is_cut_off_and_comes_back(hosts, quiet, tmp_path, monkeypatch):
    """The other worker goes on; what the lost one had is done again; the picks are those of a quiet run."""
    store = S3(hosts.on("store"), hosts.addresses["store"])
    for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": store.address}.items():
        monkeypatch.setenv(name, value)
    env = {**os.environ, "SABOTAGE": json.dumps({"sleep": 0.4, "folder": str(tmp_path)})}
    lab = Lab(env, host=hosts.addresses["scheduler"], folder=tmp_path)
    process = None
    try:
        url = store.bucket() / "p.zarr"
        store.send(quiet / "images.zarr", url)
        lab.start_scheduler(before=hosts.on("scheduler"))
        for name in ("one", "other"):
            lab.start_worker(
                *("--host", hosts.addresses[name], "--preload", "pickcal.engine.worker", "--preload", SABOTAGE),
                before=hosts.on(name),
            )
        command = [sys.executable, "-m", "pickcal", "pick", "blob", str(url), *COMMAND, "--cluster", lab.address]
        process = subprocess.Popen(
            [*hosts.on("desk"), *command, "--wait", "240", "--json"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        wait_for(lambda: done(url) >= 12, process)
        hosts.cut_off("one")
        before = done(url)
        wait_for(lambda: done(url) >= before + 40, process)  # far more than was on its way: the other one works
        hosts.connect("one")
        code, result, err = result_of(process, 300)
        assert (code, result["done"], result["failed"], result["pending"]) == (0, COUNT, 0, 0), err
        ((_, *batches, _),) = runs(url, "picks/blob", Project.open(url).group_mark("picks/blob"))
        assert sorted(batch["start"] for batch in batches) == list(range(0, COUNT, BATCH))
        assert len({batch["worker"] for batch in batches}) >= 2
        for name, content in store.content(url).items():
            copy = tmp_path / "copy.zarr" / name
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_bytes(content)
        assert_same_picks(tmp_path / "copy.zarr", quiet)
    finally:
        if process is not None and process.poll() is None:
            process.kill()
            process.communicate()
        lab.close()
        store.close()
