"""Batch systems of compute clusters through dask-jobqueue: every worker is a job in the queue."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pickcal.engine.calls import explain
from pickcal.engine.clusters._dask import (
    DEFAULT_MEMORY,
    PRELOAD,
    WORKER_ENVIRONMENT,
    first_workers,
    known_options,
    optional,
    running,
    security,
)
from pickcal.engine.executors import Executor
from pickcal.engine.logs import log
from pickcal.errors import InputError
from pickcal.settings import ClusterSettings
from pickcal.stores.credentials import redacted

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
        If dask-jobqueue is missing, an option is unknown, `listen` is not given, or the queue takes none of the jobs.
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
    queue = Queue(settings.kind, kind.job_cls.submit_command.split()[0], note)
    job = heard(kind.job_cls, queue)
    with running(settings, note, lambda: kind(job_cls=job, **arguments(settings), **options), queue.check) as executor:
        yield executor


class Queue:
    """What the queue says of the jobs that are submitted to it.

    Dask waits for workers whose jobs were refused as if they were queued.

    Parameters
    ----------
    kind
        As `ClusterSettings.kind`.
    command
        Name of the command that submits.
    note
        Told when some of the jobs are refused.
    """

    def __init__(self, kind: str, command: str, note: Callable[[str], None]) -> None:
        self.kind, self.command, self.note = kind, command, note
        self.accepted, self.said, self._told = 0, "", False

    def refuse(self, error: Exception) -> None:
        """Keep why a job could not be submitted: the command's own words, without those of dask-jobqueue."""
        said = str(error).rpartition("stderr:\n")[2] if isinstance(error, RuntimeError) else explain(error)
        self.said = redacted("; ".join(line.strip() for line in said.splitlines() if line.strip())) or explain(error)
        log("job.refused", level="warning", command=self.command, said=self.said)

    def check(self) -> None:
        """Say once that some jobs were refused.

        Raises
        ------
        InputError
            If all were.
        """
        if not self.said:
            return
        words = f"cluster {self.kind!r}: {self.command} refuses workers' jobs: {self.said}"
        if not self.accepted:
            raise InputError(
                f"{words}. Correct queue, account, walltime and the like in [cluster.options], or memory in [cluster], "
                "and give the same command again"
            )
        if not self._told:
            self._told = True
            self.note(f"{words}; the job goes on with the workers that it got")


def heard(job: type, queue: Queue) -> type:
    """Make a class of jobs that tell how their submission went."""

    class Heard(job):  # type: ignore[misc]
        async def start(self) -> None:
            try:
                await super().start()
            except Exception as error:
                queue.refuse(error)
                raise
            queue.accepted += 1

    return Heard


def arguments(settings: ClusterSettings) -> dict[str, Any]:
    """Arguments of dask-jobqueue's classes that follow from the settings."""
    listen = str(settings.listen)
    place = {"host": listen} if "." in listen or ":" in listen else {"interface": listen}
    scheduler = {"dashboard_address": "127.0.0.1:0", **place}
    prologue = [f"export {name}={value}" for name, value in WORKER_ENVIRONMENT.items()]
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
