"""Kinds of clusters, one module each: `pickcal.engine.clusters.KIND` has a function `opened(settings, note)`.

A new kind is one new module here; settings, job files and flags find it by its name.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pickcal.engine.executors import Executor
from pickcal.settings import ClusterSettings


@contextmanager
def opened(settings: ClusterSettings, note: Callable[[str], None]) -> Iterator[Executor]:
    """Open the executor of the kind that the settings name; see `pickcal.engine.executors.open_executor`."""
    name = "address" if "://" in settings.kind else settings.kind
    module = importlib.import_module(f"pickcal.engine.clusters.{name}")
    with module.opened(settings, note) as executor:
        yield executor
