"""Killing, waiting and comparing, for the chaos tests."""

import contextlib
import json
import random
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import xarray as xr

from pickcal.project import Project

SABOTAGE, QUICK_START = (str(Path(__file__).with_name(name)) for name in ("sabotage.py", "quick_start.py"))
COMMAND = ["--diameter-min", "70", "--diameter-max", "70", "--shapes", "disc"]
COUNT, BATCH, WORKERS = 200, 4, 4


class Killer:
    """Kills so many worker processes, at random but seeded; what starts workers keeps starting them.

    When the last is killed, the file `calm` says so to the others: batches are not slow any more.
    """

    def __init__(self, lab, seed, every, most):
        self.lab, self.random, self.every, self.most, self.kills = lab, random.Random(seed), every, most, 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self):
        while not self._over.wait(self.random.uniform(0.5, 1.5) * self.every):
            self.lab.supervise()
            alive = [p for p in self.lab.worker_processes() if (self.lab.folder / f"up.{p.pid}").exists()]
            if alive and self.kills < self.most:
                with contextlib.suppress(psutil.Error):
                    self.random.choice(alive).kill()
                    self.kills += 1
                if self.kills == self.most:
                    (self.lab.folder / "calm").touch()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._over.set()
        self._thread.join(30)


def done(path):
    """How many micrographs are picked, as another process sees it."""
    opened = Project.open(path)
    return int((opened.done("picks/blob") == 1).sum()) if "blob" in opened.names("picks") else 0


def result_of(process, seconds=150):
    """What a job that ended printed, and its exit code; a job that hangs fails the test."""
    out, err = process.communicate(timeout=seconds)
    assert "Traceback" not in err, err
    return process.returncode, (json.loads(out.splitlines()[-1]) if out.strip() else None), err


def assert_same_picks(path, quiet, but=()):
    """Bit for bit those of the quiet run, but for some micrographs."""
    found, expected = (
        xr.open_zarr(p, group="picks/blob", consolidated=False).load() for p in (path, quiet / "picked.zarr")
    )
    rows = np.setdiff1d(np.arange(COUNT), but)
    for name in expected:
        one, other = found[name].values[rows], expected[name].values[rows]
        same = one.tobytes() == other.tobytes() if other.dtype.kind in "fi" else (one == other).all()
        assert same, name


def wait_for(condition, process, seconds=120):
    """Wait for a condition while a job runs."""
    end = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.1)
