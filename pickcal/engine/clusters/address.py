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
        If the scheduler's address does not answer within `ANSWER_SECONDS`, certificates are missing or refused, or
        settings of another kind are given.
    """
    refuse_options(settings)
    for name in ("workers_min", "memory", "listen"):
        if getattr(settings, name) is not None:
            raise InputError(f"{name}: expected none with the address of a running scheduler, whose workers are there")
    _check_tls(settings)
    with executor_of(settings.kind, settings, note, lambda: _client(settings)) as executor:
        yield executor


def _check_tls(settings: ClusterSettings) -> None:
    """Refuse an address with TLS without certificates, here or in Dask's own configuration, and the reverse."""
    from distributed.security import Security

    encrypted, given = settings.kind.startswith("tls://"), security(settings)
    if encrypted and given is None and Security().get_connection_args("client").get("ssl_context") is None:
        raise InputError(
            f"{settings.kind}: a scheduler with TLS expects certificates, found none: give --tls-ca, --tls-cert and "
            "--tls-key, or tls_ca, tls_cert and tls_key in [cluster] of a job file"
        )
    if given is not None and not encrypted:
        raise InputError(f"{settings.kind}: expected an address that begins with tls:// together with certificates")


def _client(settings: ClusterSettings) -> Any:
    from distributed.comm.core import FatalCommClosedError

    end = time.monotonic() + ANSWER_SECONDS
    while True:
        try:
            return client_of(settings.kind, STEP_SECONDS, security=security(settings))
        except (OSError, TimeoutError, ValueError, RuntimeError) as error:
            # one that is just starting drops the connection; one whose certificates are others' never takes it
            if time.monotonic() > end or not isinstance(error, OSError) or isinstance(error, FatalCommClosedError):
                raise InputError(_no_scheduler(settings, error)) from None
        time.sleep(0.2)


def _no_scheduler(settings: ClusterSettings, error: Exception) -> str:
    if settings.kind.startswith("tls://"):
        return (
            f"{settings.kind}: expected a running Dask scheduler that takes these certificates, found none "
            f"({explain(error)}); is tls_ca the authority of the scheduler's certificate, and is tls_cert signed by "
            "the one that the scheduler was started with (--tls-ca-file)?"
        )
    return (
        f"{settings.kind}: expected a running Dask scheduler, found none ({explain(error)}); start one with 'dask "
        "scheduler', or leave --cluster out to use this machine. One that wants certificates has an address with tls://"
    )
