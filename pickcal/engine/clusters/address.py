"""A Dask scheduler that somebody else started, with TLS if the settings name certificates."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Literal

from pickcal.engine.calls import explain
from pickcal.engine.clusters._dask import client_of, executor_of, security
from pickcal.engine.executors import Executor
from pickcal.errors import InputError
from pickcal.settings import ClusterSettings

ANSWER_SECONDS = 20
"""Seconds in which a scheduler that is just starting may begin to answer."""
STEP_SECONDS = 5.0
"""Seconds of one attempt."""
SPEAKS_WITHIN = 1.0
"""A scheduler without TLS speaks first, as soon as somebody connects; one with TLS says nothing until it is greeted."""
GREETED_SECONDS = 3.0
HANDSHAKE, ALERT = 0x16, 0x15
"""First byte of what a server with TLS answers to a greeting."""


@contextmanager
def opened(settings: ClusterSettings, note: Callable[[str], None]) -> Iterator[Executor]:
    """Connect to a scheduler; its workers are not ours to scale, and stay when we leave.

    Raises
    ------
    InputError
        If the scheduler's address does not answer within `ANSWER_SECONDS`, certificates are missing or refused, or
        it speaks with TLS and the address is without or the reverse.
    """
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
    encrypted = settings.kind.startswith("tls://")
    if settings.kind.startswith("tcp://") and spoken(settings.kind) == "tls":
        raise InputError(_other_protocol(settings))
    while True:
        try:
            return client_of(settings.kind, STEP_SECONDS, security=security(settings))
        except (OSError, TimeoutError, ValueError, RuntimeError) as error:
            if encrypted and spoken(settings.kind) == "plain":
                raise InputError(_other_protocol(settings)) from None
            # one that is just starting drops the connection; one whose certificates are others' never takes it
            if time.monotonic() > end or not isinstance(error, OSError) or isinstance(error, FatalCommClosedError):
                raise InputError(_no_scheduler(settings, error)) from None
        time.sleep(0.2)


def spoken(address: str) -> Literal["plain", "tls"] | None:
    """How whoever listens at an address speaks, found out within four seconds; None where that cannot be told.

    Dask's own client keeps trying instead: to it a scheduler that says nothing is one that is busy.

    Parameters
    ----------
    address
        `tcp://HOST:PORT` or `tls://HOST:PORT`; only host and port matter.

    Returns
    -------
    str or None
        "plain" if it speaks first, "tls" if it answers a greeting as TLS prescribes.
    """
    from distributed.comm.addressing import parse_address, parse_host_port

    try:
        host, port = parse_host_port(parse_address(address)[1])
        with socket.create_connection((host, port), timeout=STEP_SECONDS) as connection:
            connection.settimeout(SPEAKS_WITHIN)
            try:
                return "plain" if connection.recv(1) else None
            except TimeoutError:
                connection.settimeout(GREETED_SECONDS)
            connection.sendall(_greeting())
            answer = connection.recv(1)
    except (OSError, ValueError):
        return None
    return "tls" if answer and answer[0] in (HANDSHAKE, ALERT) else None


def _greeting() -> bytes:
    """First message of a client that speaks TLS; nothing is verified, since nothing is said."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    outgoing = ssl.MemoryBIO()
    greeter = context.wrap_bio(ssl.MemoryBIO(), outgoing)
    with suppress(ssl.SSLWantReadError):
        greeter.do_handshake()
    return outgoing.read()


def _other_protocol(settings: ClusterSettings) -> str:
    scheme, _, where = settings.kind.partition("://")
    if scheme == "tls":
        return (
            f"{settings.kind}: expected a scheduler with TLS, found one without; give tcp://{where} and no "
            "certificates (--tls-ca, --tls-cert, --tls-key), or start the scheduler with --tls-ca-file, --tls-cert and "
            "--tls-key"
        )
    return (
        f"{settings.kind}: expected a Dask scheduler without TLS, found one that wants certificates; give an address "
        f"with tls://, that is --cluster tls://{where}, with --tls-ca, --tls-cert and --tls-key, or kind, tls_ca, "
        "tls_cert and tls_key in [cluster] of a job file"
    )


def _no_scheduler(settings: ClusterSettings, error: Exception) -> str:
    if settings.kind.startswith("tls://"):
        return (
            f"{settings.kind}: expected a running Dask scheduler that takes these certificates, found none "
            f"({explain(error)}); is tls_ca the authority of the scheduler's certificate, and is tls_cert signed by "
            "the one that the scheduler was started with (--tls-ca-file)?"
        )
    return (
        f"{settings.kind}: expected a running Dask scheduler, found none ({explain(error)}); start one with 'dask "
        "scheduler', or leave --cluster out to use this machine"
    )
