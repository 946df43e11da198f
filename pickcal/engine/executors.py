"""Executors: run one function over many tasks, serially or on Dask, and hand outcomes back as they complete."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

from threadpoolctl import threadpool_limits

from pickcal.errors import InputError, PickcalError
from pickcal.settings import ClusterSettings
from pickcal.stores.credentials import redacted

T = TypeVar("T")
R = TypeVar("R")

WORKER_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


@dataclass(frozen=True)
class Outcome(Generic[T, R]):
    """What became of one task: its result, or the reason why there is none."""

    task: T
    result: R | None = None
    error: str | None = None


class Executor(Protocol):
    """Anything that runs tasks."""

    workers: int

    def run(self, function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[Outcome[T, R]]:
        """Call `function` on every task and yield outcomes in the order of completion.

        `function` and tasks must pickle. An exception in a task is its outcome's `error`; it does not stop the others.
        """
        ...


class SerialExecutor:
    """Runs tasks one after the other in this process, with one BLAS thread like a worker."""

    workers = 1

    def run(self, function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[Outcome[T, R]]:
        """See `Executor.run`."""
        for task in tasks:
            try:
                result = single_threaded(function, task)
            except Exception as error:
                yield Outcome(task, error=explain(error))
            else:
                yield Outcome(task, result)


class DaskExecutor:
    """Runs tasks on a Dask cluster.

    A task whose worker died is submitted once more, alone, under a new key: what kills its worker again is
    reported, and its neighbours are not blamed.
    """

    def __init__(self, client: Any) -> None:
        self.client = client
        self.workers = max(1, len(client.scheduler_info(n_workers=-1)["workers"]))

    def run(self, function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[Outcome[T, R]]:
        """See `Executor.run`."""
        bereaved: list[T] = []
        for task, outcome in self._submit(function, list(tasks)):
            if outcome is None:
                bereaved.append(task)
            else:
                yield outcome
        for task in bereaved:
            for _, outcome in self._submit(function, [task]):
                yield outcome or Outcome(task, error="the worker process died on this batch, twice (out of memory?)")

    def _submit(self, function: Callable[[T], R], tasks: list[T]) -> Iterator[tuple[T, Outcome[T, R] | None]]:
        from distributed import KilledWorker, as_completed

        call = functools.partial(single_threaded, function)
        run = uuid.uuid4().hex[:8]
        futures = {
            self.client.submit(call, task, key=f"pickcal-{run}-{i}", pure=False, retries=2): task
            for i, task in enumerate(tasks)
        }
        try:
            for future in as_completed(list(futures)):
                task = futures.pop(future)
                error = future.exception()
                if error is None:
                    yield task, Outcome(task, future.result())
                elif isinstance(error, KilledWorker):
                    yield task, None
                else:
                    yield task, Outcome(task, error=explain(error))
                future.release()
        finally:
            for future in futures:
                future.cancel()


def single_threaded(function: Callable[[T], R], task: T) -> R:
    """Call `function(task)` with one BLAS thread: parallelism comes from tasks, and sums keep their order."""
    with threadpool_limits(1):
        return function(task)


def explain(error: BaseException) -> str:
    """One line for an error: a user error's own words, else type and message."""
    if isinstance(error, PickcalError):
        return redacted(str(error))
    if type(error).__module__.startswith("obstore"):
        from pickcal.stores.objects import plain_error

        return plain_error(error)
    if isinstance(error, OSError) and error.strerror:
        name = f": {error.filename}" if error.filename else ""
        return f"{error.strerror}{name}"
    return redacted(f"{type(error).__name__}: {error}")


@contextmanager
def open_executor(settings: ClusterSettings) -> Iterator[Executor]:
    """Open the executor that the settings ask for and close it afterwards.

    Parameters
    ----------
    settings
        Kind of cluster and number of workers.

    Raises
    ------
    InputError
        If the scheduler's address does not answer within 20 s.
    """
    if settings.cluster == "serial":
        yield SerialExecutor()
        return
    from distributed import Client

    if settings.cluster != "local":
        try:
            client = Client(settings.cluster, timeout="20s")
        except (OSError, TimeoutError, ValueError) as error:
            raise InputError(
                f"{settings.cluster}: expected a running Dask scheduler, found none ({explain(error)}); "
                "start one with 'dask scheduler', or leave --cluster out to use this machine"
            ) from None
        with client:
            yield DaskExecutor(client)
        return
    with _local_cluster(settings.workers) as cluster, Client(cluster) as client:
        yield DaskExecutor(client)


def _local_cluster(workers: int | None) -> Any:
    import logging

    from dask.system import CPU_COUNT
    from distributed import LocalCluster

    logging.getLogger("distributed").setLevel(logging.ERROR)
    return LocalCluster(
        n_workers=workers or CPU_COUNT,
        threads_per_worker=1,
        processes=True,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
        env=dict.fromkeys(WORKER_THREADS, "1"),
        preload=["pickcal.engine.worker"],
        silence_logs=logging.CRITICAL,
    )
