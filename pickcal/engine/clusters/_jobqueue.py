"""Batch systems of compute clusters through dask-jobqueue: every worker is a job in the queue."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pickcal.engine.clusters._dask import (
    DEFAULT_MEMORY,
    PRELOAD,
    WORKER_THREADS,
    first_workers,
    known_options,
    optional,
    running,
    security,
)
from pickcal.engine.executors import Executor
from pickcal.errors import InputError
from pickcal.settings import ClusterSettings

OURS = (
    "n_workers", "cores", "memory", "processes", "host", "interface", "security", "scheduler_options", "scheduler",
    "worker_extra_args", "name", "job_cls", "scheduler_cls", "dashboard_address", "config_name", "death_timeout",
    "silence_logs",
)  # fmt: skip


@contextmanager
def opened(name: str, settings: ClusterSettings, note: Callable[[str], None]) -> Iterator[Executor]:
    """Start a scheduler in this process and submit worker jobs.

    Parameters
    ----------
    name
        Class of dask-jobqueue, such as "SLURMCluster".
    settings
        `listen` must say where the nodes reach this machine; `options` go to the class: queue, account, walltime,
        job_extra_directives, job_script_prologue, python, local_directory, log_directory.
    note
        Told the dashboard's address.

    Raises
    ------
    InputError
        If dask-jobqueue is missing, an option is unknown, or `listen` is not given.
    """
    jobqueue = optional("dask_jobqueue", "jobqueue", settings.kind)
    kind = getattr(jobqueue, name)
    options = known_options(settings, (kind, kind.job_cls), OURS)
    if settings.listen is None:
        raise InputError(
            f"cluster: {settings.kind!r} expects listen, the address or network interface at which nodes reach "
            'this machine, such as listen = "ib0" (127.0.0.1 if they are this machine). Who reaches the scheduler can '
            "run programs as you: give tls_ca, tls_cert and tls_key where others share that network"
        )
    with running(settings, note, lambda: kind(**arguments(settings), **options)) as executor:
        yield executor


def arguments(settings: ClusterSettings) -> dict[str, Any]:
    """Arguments of dask-jobqueue's classes that follow from the settings."""
    listen = str(settings.listen)
    place = {"host": listen} if "." in listen or ":" in listen else {"interface": listen}
    scheduler = {"dashboard_address": "127.0.0.1:0", **place}
    prologue = [f"export {name}=1" for name in WORKER_THREADS]
    out: dict[str, Any] = {
        "n_workers": first_workers(settings),
        "cores": 1,
        "processes": 1,
        "memory": settings.memory or DEFAULT_MEMORY,
        "scheduler_options": scheduler,
        "security": security(settings),
        "worker_extra_args": ["--preload", PRELOAD],
        "death_timeout": max(60, round(settings.wait)),
        "silence_logs": "critical",
    }
    if "python" not in settings.options:
        out["python"] = sys.executable
    if "job_script_prologue" not in settings.options:
        out["job_script_prologue"] = prologue
    return out
