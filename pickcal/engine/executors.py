"""Executors: run one function over many tasks, serially or on Dask, and hand outcomes back as they complete."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, Protocol, TypeVar

import psutil

from pickcal.engine.calls import Failed, Measure, explain, measured, too_small, whoami
from pickcal.errors import InputError
from pickcal.settings import ClusterSettings

T = TypeVar("T")
R = TypeVar("R")

__all__ = ["Executor", "Outcome", "SerialExecutor", "explain", "open_executor"]


@dataclass(frozen=True)
class Outcome(Generic[T, R]):
    """What became of one task: its result, or the reason why there is none; and where and when it ran, if known."""

    task: T
    result: R | None = None
    error: str | None = None
    measure: Measure | None = None


class Executor(Protocol):
    """Anything that runs tasks."""

    @property
    def workers(self) -> int:
        """Worker processes there are now, at least 1."""
        ...

    def require(self, memory: int) -> None:
        """Refuse to run tasks that need this memory in bytes, unless every worker has it.

        Raises
        ------
        InputError
            Naming the worker that has less. Workers that come later are held to it too.
        """
        ...

    def run(self, function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[Outcome[T, R]]:
        """Call `function` on every task and yield outcomes in the order of completion.

        `function` and tasks must pickle. An exception in a task is its outcome's `error`; it does not stop the others.
        """
        ...


class SerialExecutor:
    """Runs tasks one after the other in this process, with one BLAS thread like a worker."""

    workers = 1

    def require(self, memory: int) -> None:
        """See `Executor.require`; this machine's memory counts."""
        total = psutil.virtual_memory().total
        if memory > total:
            raise InputError(too_small(whoami(), total, total, memory))

    def run(self, function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[Outcome[T, R]]:
        """See `Executor.run`."""
        for task in tasks:
            try:
                done = measured(function, task)
            except Failed as error:
                yield Outcome(task, error=error.text, measure=error.measure)
            else:
                yield Outcome(task, done.result, measure=done.measure)


class OnDemand:
    """Opens an executor when it is first needed.

    Parameters
    ----------
    start
        Opens it; called once, by the first task, requirement or question for its workers.
    """

    def __init__(self, start: Callable[[], Executor]) -> None:
        self._start = start

    @cached_property
    def started(self) -> Executor:
        """The executor, opened if it was not."""
        return self._start()

    @property
    def workers(self) -> int:
        """See `Executor.workers`."""
        return self.started.workers

    def require(self, memory: int) -> None:
        """See `Executor.require`."""
        self.started.require(memory)

    def run(self, function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[Outcome[T, R]]:
        """See `Executor.run`; without tasks nothing is opened."""
        return self.started.run(function, tasks) if tasks else iter(())


def _silent(_: str) -> None:
    """Say nothing."""


@contextmanager
def open_executor(settings: ClusterSettings, note: Callable[[str], None] = _silent) -> Iterator[Executor]:
    """Open the executor that the settings ask for and close it afterwards.

    Parameters
    ----------
    settings
        Kind of cluster, workers, limits.
    note
        Told the address of Dask's dashboard, and what a user should know of the cluster.

    Raises
    ------
    InputError
        If the cluster cannot be had: nothing answers at the address, a package is missing, options are wrong, no
        worker comes in time, or workers have another version of pickcal.
    """
    from pickcal.engine.clusters import opened

    with opened(settings, note) as executor:
        yield executor
