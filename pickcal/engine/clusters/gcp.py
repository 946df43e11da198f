"""Workers on Google Compute Engine."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager

from pickcal.engine.clusters import _cloud
from pickcal.engine.executors import Executor
from pickcal.settings import ClusterSettings


def opened(settings: ClusterSettings, note: Callable[[str], None]) -> AbstractContextManager[Executor]:
    """See `_cloud.opened`."""
    return _cloud.opened("gcp", "GCPCluster", "docker_image", settings, note)
