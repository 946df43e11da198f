"""No cluster: tasks run in this process, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pickcal.engine.executors import Executor, SerialExecutor
from pickcal.settings import ClusterSettings


@contextmanager
def opened(settings: ClusterSettings, note: Callable[[str], None]) -> Iterator[Executor]:
    """Open a `SerialExecutor`; there is nothing to set."""
    yield SerialExecutor()
