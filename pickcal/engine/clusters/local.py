"""Worker processes on this machine, which end with the process that started them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from pickcal.engine.clusters._dask import PRELOAD, WORKER_ENVIRONMENT, configured, executor_of, security
from pickcal.engine.executors import Executor, OnDemand
from pickcal.settings import ClusterSettings


@contextmanager
def opened(settings: ClusterSettings, note: Callable[[str], None]) -> Iterator[Executor]:
    """Start workers as soon as there is something to run.

    Unlike a queue or an address, this machine refuses nobody: a command with nothing left to do need not wait for them.
    """
    security(settings)
    with ExitStack() as stack:
        yield OnDemand(lambda: stack.enter_context(_started(settings, note)))


@contextmanager
def _started(settings: ClusterSettings, note: Callable[[str], None]) -> Iterator[Executor]:
    """Start a scheduler in this process and its workers, all on the loopback interface."""
    from dask.system import CPU_COUNT
    from distributed import LocalCluster
    from distributed.system import MEMORY_LIMIT

    workers = settings.workers or CPU_COUNT
    with (
        configured(),
        LocalCluster(
            n_workers=workers if settings.workers_min is None else settings.workers_min,
            threads_per_worker=1,
            processes=True,
            memory_limit=settings.memory or MEMORY_LIMIT // workers,
            host=settings.listen or "127.0.0.1",
            dashboard_address="127.0.0.1:0",
            env=WORKER_ENVIRONMENT,
            preload=[PRELOAD],
            silence_logs=logging.CRITICAL,
            security=security(settings),
        ) as cluster,
        executor_of(cluster, settings, note) as executor,
    ):
        yield executor
