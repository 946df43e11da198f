"""Workers as jobs of PBS."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from pickcal.engine.clusters import _jobqueue
from pickcal.engine.executors import Executor
from pickcal.settings import ClusterSettings


def opened(settings: ClusterSettings, note: Callable[[str], None]) -> AbstractContextManager[Executor]:
    """See `_jobqueue.opened`."""
    return _jobqueue.opened("PBSCluster", settings, note)
