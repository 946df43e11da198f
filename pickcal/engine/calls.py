"""What runs on a worker around a task: checks before it, a limit and a measure during it, a guard before it writes."""

from __future__ import annotations

import errno
import os
import platform
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from threadpoolctl import threadpool_limits

import pickcal
from pickcal.engine.memory import keep_freed_memory
from pickcal.errors import PickcalError
from pickcal.guard import guarded
from pickcal.stores.credentials import redacted

T = TypeVar("T")
R = TypeVar("R")

CONTACT_SECONDS = 15.0
"""A worker that has not heard from its scheduler for longer does not write: half of what Dask's connections allow."""
EXIT_SECONDS = 1.0
"""Between giving a task up that hangs and the end of the process that it hangs in: for the news to leave."""
PATIENCE = 60.0
"""Seconds that a worker waits to hear from its scheduler again before it gives a batch up."""


class LostTask(Exception):
    """The scheduler has given this task to another worker, or may have; nothing was written."""


class Unsuitable(PickcalError):
    """A worker cannot do the work: another version of pickcal, or too little memory."""


class Failed(Exception):
    """A task raised an error; its text and the measure of the attempt survive the way back."""

    def __init__(self, text: str, measure: Measure) -> None:
        super().__init__(text, measure)
        self.text, self.measure = text, measure


@dataclass(frozen=True)
class Measure:
    """Where and when a task ran.

    Attributes
    ----------
    worker
        Host and process.
    began, ended
        Seconds of the epoch, by the worker's clock.
    peak_memory
        Largest resident memory of the process during the task, bytes; 0 where the system does not tell.
    """

    worker: str
    began: float
    ended: float
    peak_memory: int


@dataclass(frozen=True)
class Done(Generic[R]):
    """What a call hands back."""

    result: R
    measure: Measure


@dataclass(frozen=True)
class Call(Generic[T, R]):
    """A function as it runs on a worker.

    Attributes
    ----------
    function
        What to call with a task.
    version
        Version of pickcal that the worker must have.
    memory
        Bytes that the worker must be allowed to use; 0 for no matter.
    limit
        Seconds after which the worker process ends itself, and with it whatever hangs.
    """

    function: Callable[[T], R]
    version: str
    memory: int
    limit: float

    def __call__(self, task: T) -> Done[R]:
        """Run the function on a task, with one BLAS thread.

        Raises
        ------
        Unsuitable, LostTask
            If this worker must not do it.
        Failed
            If the function raised.
        """
        worker = _dask_worker()
        self._check(worker)
        began = time.time()
        _forget_peak()
        try:
            result = self._alone(task) if worker is None else self._on_worker(worker, task)
        except (LostTask, Unsuitable):
            raise
        except Exception as error:
            raise Failed(explain(error), _measure(began)) from None
        return Done(result, _measure(began))

    def _alone(self, task: T) -> R:
        keep_freed_memory()
        with threadpool_limits(1):
            return self.function(task)

    def _on_worker(self, worker: Any, task: T) -> R:
        """Run in a thread of its own, which may be left behind; what it hangs in cannot be stopped otherwise.

        The process then ends itself, so that nothing in it can still write; its nanny starts another one.
        """
        key, heard, over = worker.get_current_task(), _last_heard(worker), threading.Event()
        results: list[R] = []
        errors: list[Exception] = []

        def question() -> None:
            if over.is_set():
                raise LostTask(f"worker {whoami()}: this task took too long and was given up")
            _still_mine(worker, key, heard)

        def run() -> None:
            try:
                with guarded(question):
                    results.append(self._alone(task))
            except Exception as error:
                errors.append(error)

        thread = threading.Thread(target=run, name="pickcal-task", daemon=True)
        thread.start()
        thread.join(self.limit)
        if thread.is_alive():
            over.set()
            end = threading.Timer(EXIT_SECONDS, os._exit, (1,))
            end.daemon = True
            end.start()
            raise TimeoutError(errno.ETIMEDOUT, f"it took longer than {self.limit:g} s (--batch-limit)")
        if errors:
            raise errors[0]
        return results[0]

    def _check(self, worker: Any) -> None:
        if self.version != pickcal.__version__:
            raise Unsuitable(
                f"worker {whoami()}: expected pickcal {self.version} as in the process that runs the job, found "
                f"{pickcal.__version__}; install the same version in both"
            )
        limit, usable = memory_of(worker) if worker is not None else (0, 0)
        if self.memory and limit and usable < self.memory:
            raise Unsuitable(too_small(whoami(), limit, usable, self.memory))


def too_small(who: str, limit: int, usable: int, needed: int) -> str:
    """Words for a worker whose memory a batch does not fit into; bytes, see `memory_of`."""
    held = f" ({limit / 1e9:.2f} GB; Dask holds it back above)" if usable < limit else ""
    return (
        f"worker {who}: a batch needs up to {needed / 1e9:.2f} GB of memory, the worker may use {usable / 1e9:.2f} GB"
        f"{held}; give fewer --workers on this machine, or more --memory to each"
    )


def measured(function: Callable[[T], R], task: T) -> Done[R]:
    """Call a function in this process, with one BLAS thread like a worker, and measure it; `Failed` if it raises."""
    began = time.time()
    _forget_peak()
    try:
        keep_freed_memory()
        with threadpool_limits(1):
            return Done(function(task), _measure(began))
    except Exception as error:
        raise Failed(explain(error), _measure(began)) from None


def explain(error: BaseException) -> str:
    """One line for an error: a user error's own words, else type and message."""
    if isinstance(error, PickcalError):
        return redacted(str(error))
    if type(error).__module__.startswith("obstore"):
        from pickcal.stores.objects import plain_error

        return plain_error(error)
    if isinstance(error, OSError) and error.strerror:
        name = f": {error.filename}" if error.filename else ""
        return redacted(f"{error.strerror}{name}")
    return redacted(f"{type(error).__name__}: {error}")


def whoami() -> str:
    """Host and process."""
    return f"{socket.gethostname()}:{os.getpid()}"


def describe_worker(dask_worker: Any) -> dict[str, Any]:
    """Tell what the driver compares before work starts; `Client.run` calls it, and names the argument."""
    return {
        "worker": whoami(),
        "pickcal": pickcal.__version__,
        "memory": memory_of(dask_worker),
        "libraries": libraries(),
    }


def libraries() -> dict[str, str]:
    """Versions in this process that results depend on in their last bits, and Dask's."""
    import distributed
    import numpy as np
    import scipy

    return {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "distributed": distributed.__version__,
    }


def memory_of(worker: Any) -> tuple[int, int]:
    """Bytes that a Dask worker is given, and that it may use and still begin new tasks; 0 for no limit.

    A worker that keeps more than the share at which Dask pauses it would never begin another batch.
    """
    limit = int(worker.memory_manager.memory_limit or 0)
    return limit, int(limit * (worker.memory_manager.memory_pause_fraction or 1.0))


def _dask_worker() -> Any:
    from distributed import get_worker

    try:
        return get_worker()
    except ValueError:
        return None


def _still_mine(worker: Any, key: Any, heard: Callable[[], float]) -> None:
    """Raise `LostTask` unless the scheduler is known to still count on this worker for the task.

    A scheduler gives the tasks of a worker that it cannot reach to others after 30 s at the earliest. Who has heard
    from it within half of that may write; who has not waits to hear, and gives the task up if that takes too long.
    """
    end = time.monotonic() + PATIENCE
    while True:
        state = worker.state.tasks.get(key)
        if worker.status.name not in ("running", "paused") or state is None or state.state in ("cancelled", "resumed"):
            raise LostTask(f"worker {whoami()}: the scheduler has taken this task back")
        slowest = 3 * worker.periodic_callbacks["heartbeat"].callback_time / 1000
        if heard() < max(CONTACT_SECONDS, slowest):
            return
        if time.monotonic() > end:
            raise LostTask(f"worker {whoami()}: heard nothing from the scheduler for {heard():.0f} s")
        time.sleep(0.1)


def _last_heard(worker: Any) -> Callable[[], float]:
    """How to ask for the seconds since the scheduler answered a worker's heartbeat; counted from the first call on."""
    if not hasattr(worker, "pickcal_heard"):
        worker.pickcal_heard = time.monotonic()
        update = worker._update_latency  # called with every answer; Dask keeps no time of it

        def heard(latency: float) -> None:
            worker.pickcal_heard = time.monotonic()
            update(latency)

        worker._update_latency = heard
    return lambda: time.monotonic() - worker.pickcal_heard


def _forget_peak() -> None:
    """Have Linux count the peak memory of this process anew."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak() -> int:
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration, ValueError):
        return 0


def _measure(began: float) -> Measure:
    return Measure(whoami(), began, time.time(), _peak())
