"""A Dask scheduler that somebody else started, with TLS if the settings name certificates."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from pickcal.engine.calls import explain
from pickcal.engine.clusters._dask import client_of, executor_of, refuse_options, security
from pickcal.engine.executors import Executor
from pickcal.errors import InputError
from pickcal.settings import ClusterSettings

ANSWER_SECONDS = 20
STEP_SECONDS = 5.0


@contextmanager
def opened(settings: ClusterSettings, note: Callable[[str], None]) -> Iterator[Executor]:
    """Connect to a scheduler; its workers are not ours to scale, and stay when we leave.

    Raises
    ------
    InputError
        If the scheduler's address does not answer within `ANSWER_SECONDS`, or settings of another kind are given.
    """
    refuse_options(settings)
    for name in ("workers_min", "memory", "listen"):
        if getattr(settings, name) is not None:
            raise InputError(f"{name}: expected none with the address of a running scheduler, whose workers are there")
    with executor_of(settings.kind, settings, note, lambda: _client(settings)) as executor:
        yield executor


def _client(settings: ClusterSettings) -> Any:
    end = time.monotonic() + ANSWER_SECONDS
    while True:
        try:
            return client_of(settings.kind, STEP_SECONDS, security=security(settings))
        except (OSError, TimeoutError, ValueError, RuntimeError) as error:
            # one that is just starting drops the connection
            if time.monotonic() > end or not isinstance(error, OSError):
                raise InputError(
                    f"{settings.kind}: expected a running Dask scheduler, found none ({explain(error)}); "
                    "start one with 'dask scheduler', or leave --cluster out to use this machine"
                ) from None
        time.sleep(0.2)
