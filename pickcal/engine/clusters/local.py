"""Worker processes on this machine, which end with the process that started them."""

from __future__ import annotations

import logging
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from pickcal.engine.clusters._dask import PRELOAD, WORKER_ENVIRONMENT, configured, executor_of, security
from pickcal.engine.executors import Executor, OnDemand
from pickcal.settings import ClusterSettings

BEGIN_BY = "forkserver" if sys.platform == "linux" else "spawn"
"""How workers begin: as copies of one process that has loaded what they need, or each loading all of it anew."""
LOADED = ("distributed", PRELOAD, "pickcal.stages.ingest", "pickcal.stages.pick", "pickcal.stages.score")
"""Modules that are in that process, by name: the engine knows no stage. None of them may start a thread of Python."""


@contextmanager
def opened(settings: ClusterSettings, note: Callable[[str], None]) -> Iterator[Executor]:
    """Start workers as soon as there is something to run.

    Unlike a queue or an address, this machine refuses nobody: a command with nothing left to do need not wait for them.
    """
    tls = security(settings)  # wrong files are refused before anything is written
    with ExitStack() as stack:
        yield OnDemand(lambda: stack.enter_context(_started(settings, note, tls)))


@contextmanager
def _copied() -> Iterator[None]:
    """Have the workers that are started within the block begin as copies, where the system can."""
    import dask
    from distributed.utils import get_mp_context

    with dask.config.set({"distributed.worker.multiprocessing-method": BEGIN_BY if _can_listen() else "spawn"}):
        get_mp_context().set_forkserver_preload(list(LOADED))  # in the place of those that Dask sets there once
        yield


def _can_listen() -> bool:
    """Whether the process that copies are made of can have its socket where temporary files are.

    It cannot under a path of more than some 70 characters, or on a disk that knows no sockets.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="pymp-") as folder, socket.socket(socket.AF_UNIX) as listener:
            listener.bind(f"{folder}/listener-12345678")
    except OSError:
        return False
    return True


@contextmanager
def _started(settings: ClusterSettings, note: Callable[[str], None], tls: Any) -> Iterator[Executor]:
    """Start a scheduler in this process and its workers, all on the loopback interface."""
    from dask.system import CPU_COUNT
    from distributed import LocalCluster
    from distributed.system import MEMORY_LIMIT

    workers = settings.workers or CPU_COUNT
    with (
        configured(),
        _copied(),
        LocalCluster(
            n_workers=workers if settings.workers_min is None else settings.workers_min,
            threads_per_worker=1,
            processes=True,
            memory_limit=settings.memory or MEMORY_LIMIT // workers,
            host=settings.listen or "127.0.0.1",
            dashboard_address="127.0.0.1:0",
            env={**os.environ, **WORKER_ENVIRONMENT},  # the process that they are copies of has that of its start
            preload=[PRELOAD],
            silence_logs=logging.CRITICAL,
            security=tls,
        ) as cluster,
        executor_of(cluster, settings, note) as executor,
    ):
        yield executor
