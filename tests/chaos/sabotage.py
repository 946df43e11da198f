"""What goes wrong on the workers of a chaos test; loaded by them as a Dask preload module.

The environment variable SABOTAGE holds a JSON object: `sleep` seconds for every batch, or until there is a file `calm`
in `folder`, `poison` the first micrograph of a batch that kills its worker, `fail` the share of store requests that
fail, `hang` how many of them hang for ever over all workers together (files in `folder` count them), `seed`.
"""

import errno
import json
import os
import random
import signal
import time
from pathlib import Path

from zarr.storage import LocalStore

from pickcal.stages import pick

PLAN = json.loads(os.environ.get("SABOTAGE", "{}"))
original = pick.pick_batch


def pick_batch(task):
    """Pick a batch, slowly, or die of it."""
    if task.start == PLAN.get("poison"):
        os.kill(os.getpid(), signal.SIGKILL)
    end = time.monotonic() + PLAN.get("sleep", 0.0)
    while time.monotonic() < end and not Path(PLAN["folder"], "calm").exists():
        time.sleep(0.05)
    return original(task)


def faulty(request, chance):
    """Let some requests of a store fail, and a few hang; below pickcal's own retries."""

    async def made(self, *arguments, **options):
        if chance.random() < PLAN["fail"]:
            if chance.random() < 0.2 and hangs_left():
                time.sleep(3600)
            raise OSError(errno.EIO, "Input/output error")
        return await request(self, *arguments, **options)

    return made


def hangs_left():
    """Take one of the hangs that are left, if any is."""
    for number in range(PLAN.get("hang", 0)):
        try:
            (Path(PLAN["folder"]) / f"hang{number}").touch(exist_ok=False)
        except FileExistsError:
            continue
        return True
    return False


def dask_setup(worker):
    """Begin, and say that this process is up."""
    Path(PLAN["folder"], f"up.{os.getpid()}").touch()
    pick.pick_batch = pick_batch
    pick_batch.__module__, pick_batch.__qualname__ = original.__module__, original.__qualname__
    if PLAN.get("fail"):
        chance = random.Random(f"{PLAN.get('seed')} {os.getpid()}")
        for name in ("get", "set", "exists"):
            setattr(LocalStore, name, faulty(getattr(LocalStore, name), chance))
