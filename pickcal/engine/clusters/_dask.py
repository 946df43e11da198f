"""What all kinds of Dask clusters share: configuration, TLS, scaling, options, the executor."""

from __future__ import annotations

import errno
import importlib
import inspect
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from pickcal.engine.calls import explain
from pickcal.engine.dask_executor import DaskExecutor
from pickcal.engine.executors import Executor
from pickcal.engine.logs import log
from pickcal.errors import InputError
from pickcal.settings import ClusterSettings
from pickcal.stores.credentials import redacted

ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")
SELDOM = {
    "distributed.admin.tick.interval": "500ms",
    "distributed.admin.system-monitor.interval": "2s",
    "distributed.worker.memory.monitor-interval": "500ms",
}
"""Dask's defaults, 20 to 500 ms, take 2 % of every worker's core and 4 % of the driver's from the work."""
WORKER_ENVIRONMENT = {
    **dict.fromkeys(ONE_THREAD, "1"),
    **{f"DASK_{key.upper().replace('.', '__').replace('-', '_')}": value for key, value in SELDOM.items()},
}
"""What the processes of workers find in their environment."""
PRELOAD = "pickcal.engine.worker"
DEFAULT_MEMORY = "4 GB"
"""Memory of a worker on other machines, where the settings name none."""
CONNECT_SECONDS = 20.0
"""Seconds for each step of connecting to a scheduler of our own."""
CLOSE_SECONDS = 30
"""Seconds in which a cluster of our own may close."""
CONFIGURATION = {
    # 0 would blame neighbours of a batch that kills its worker; measured
    "distributed.scheduler.allowed-failures": 3,
    "distributed.scheduler.worker-ttl": "2 minutes",
    # a cluster object gives up workers that were away for longer; restarting one takes half a minute on a busy machine
    "distributed.deploy.lost-worker-timeout": "60s",
    # a worker that comes late, or in the place of one that died, takes over what waits at others
    "distributed.scheduler.work-stealing": True,
    "distributed.worker.profile.enabled": False,
    **SELDOM,
}


@contextmanager
def configured() -> Iterator[None]:
    """Configure the schedulers and workers that are started within the block."""
    import dask

    with dask.config.set(CONFIGURATION):
        yield


@contextmanager
def executor_of(
    cluster: Any,
    settings: ClusterSettings,
    note: Callable[[str], None],
    connect: Callable[[], Any] | None = None,
    check: Callable[[], None] = lambda: None,
) -> Iterator[Executor]:
    """Make an executor on a cluster that is there, wait for its first worker, and say where its dashboard is.

    Parameters
    ----------
    cluster
        The Dask cluster object.
    settings
        Adaptive scaling and limits.
    note
        Told the dashboard's address.
    connect
        Makes a client; default: a client of the cluster object.
    check
        Raises an `InputError` when it is known that no worker will come.
    """
    importlib.import_module("distributed")  # which sets its levels when it is first imported
    for name in ("distributed", "distributed.client"):  # their tracebacks tell what we say in words
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if settings.workers_min is not None:
        cluster.adapt(minimum=settings.workers_min, maximum=settings.workers, interval="2s")
    executor = DaskExecutor(
        connect or partial(client_of, cluster, CONNECT_SECONDS),
        wait=settings.wait,
        batch_limit=settings.batch_limit,
        most_workers=settings.workers or 1,
        note=note,
        check=check,
        heal=partial(_heal, cluster),
    )
    try:
        link = executor.client.dashboard_link
        if link:
            note(f"Dask dashboard: {link}")
        if settings.workers_min != 0:
            executor.wait_for_workers()
        yield executor
    finally:
        executor.close()


@contextmanager
def started(kind: str, make: Callable[[], Any]) -> Iterator[Any]:
    """Start a cluster, and close it afterwards whatever state it is in.

    Raises
    ------
    InputError
        If it cannot be started, with what the queue or the service said.
    """
    import distributed  # noqa: F401 - sets its loggers' levels when it is first imported

    logging.getLogger("distributed").setLevel(logging.CRITICAL)
    try:
        cluster = make()
    except Exception as error:  # whatever the queue's or the service's own package raises
        said = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"cluster {kind!r}: expected workers to start, got: {redacted(said)}") from None
    try:
        yield cluster
    finally:
        try:
            if hasattr(cluster, "_created"):  # it starts its workers itself
                cluster.sync(_told_apart, cluster, callback_timeout=CLOSE_SECONDS)
            cluster.close(timeout=CLOSE_SECONDS)
        except Exception as error:
            log("cluster.not_closed", level="error", kind=kind, error=explain(error))


async def _told_apart(cluster: Any) -> None:
    """Have a cluster object close although some of its workers never began, such as jobs that a queue refuses.

    It expects those to have ended, and has lost sight of those that began together with them; and jobs of a queue, once
    they are cancelled, do not say that they are closed, which it finds where the refusal's traceback keeps them. It
    would fail to close, leave jobs running, and keep the process for ten seconds more when that exits.
    """
    from distributed.core import Status

    adaptive = getattr(cluster, "_adaptive", None)
    if adaptive is not None:
        adaptive.stop()
    async with cluster._lock:  # whoever starts workers holds it
        for worker in list(cluster._created):
            if worker.status == Status.created:
                worker.status = Status.failed
            elif worker.status == Status.running:
                if not any(worker is known for known in cluster.workers.values()):
                    await worker.close()
                cluster._created.discard(worker)  # those that it knows it closes all the same


@contextmanager
def running(
    settings: ClusterSettings,
    note: Callable[[str], None],
    make: Callable[[], Any],
    check: Callable[[], None] = lambda: None,
) -> Iterator[Executor]:
    """Start a cluster that others run, make an executor on it, and close both afterwards.

    Parameters
    ----------
    settings, note
        See `pickcal.engine.executors.open_executor`.
    make
        Starts it.
    check
        See `executor_of`.
    """
    with (
        configured(),
        started(settings.kind, make) as cluster,
        executor_of(cluster, settings, note, check=check) as executor,
    ):
        yield executor


def first_workers(settings: ClusterSettings) -> int:
    """Workers to begin with: the fewest where their number scales, else all."""
    return (settings.workers or 1) if settings.workers_min is None else settings.workers_min


def client_of(target: Any, seconds: float, **options: Any) -> Any:
    """Make a client, and wait for it no longer than twice `seconds`: Dask bounds each of its steps, not all of them.

    Parameters
    ----------
    target
        Address or cluster object.
    seconds
        Given to Dask as the time for each step.
    options
        Given to `distributed.Client`.

    Raises
    ------
    TimeoutError
        If there is no client after that time; one that comes later is closed.
    """
    from distributed import Client

    made: queue.SimpleQueue[Any] = queue.SimpleQueue()
    late = threading.Event()

    def make() -> None:
        try:
            client = Client(target, timeout=seconds, set_as_default=False, **options)
        except Exception as error:
            made.put(error)
            return
        made.put(client)
        if late.is_set():
            client.close()

    threading.Thread(target=make, name="pickcal-connect", daemon=True).start()
    try:
        found = made.get(timeout=2 * seconds)
    except queue.Empty:
        late.set()
        raise TimeoutError(errno.ETIMEDOUT, f"no answer for {2 * seconds:g} s") from None
    if isinstance(found, Exception):
        raise found
    return found


def _heal(cluster: Any) -> None:
    """Have a cluster object start again the workers that it should have and has given up."""
    wanted = getattr(cluster, "worker_spec", None)
    if wanted and len(cluster.workers) < len(wanted):
        log("workers.restarted", level="warning", wanted=len(wanted), had=len(cluster.workers))
        cluster.scale(len(wanted))


def security(settings: ClusterSettings) -> Any:
    """TLS settings as Dask takes them; None without TLS.

    Raises
    ------
    InputError
        If a file is not there, or the three are no authority, certificate and key of that certificate.
    """
    if settings.tls_ca is None or settings.tls_cert is None or settings.tls_key is None:
        return None
    from distributed.security import Security

    files = {"tls_ca": settings.tls_ca, "tls_cert": settings.tls_cert, "tls_key": settings.tls_key}
    for name, path in files.items():
        if not path.is_file():
            raise InputError(f"{name}: expected a file, found none at {path}")
    ca, cert, key = (str(path.absolute()) for path in files.values())
    made = Security(
        tls_ca_file=ca,
        tls_client_cert=cert,
        tls_client_key=key,
        tls_scheduler_cert=cert,
        tls_scheduler_key=key,
        tls_worker_cert=cert,
        tls_worker_key=key,
        require_encryption=True,
    )
    try:
        made.get_connection_args("client")
    except OSError as error:  # what ssl raises
        raise InputError(
            "tls: expected an authority in tls_ca, a certificate in tls_cert and its key in tls_key, as PEM files, "
            f"found others: {error.strerror or error}"
        ) from None
    return made


def optional(module: str, extra: str, kind: str) -> Any:
    """Import an optional package.

    Raises
    ------
    InputError
        Naming the extra that brings it, if it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InputError(
            f"cluster {kind!r} needs {module.partition('.')[0].replace('_', '-')}, which is not installed here "
            f"({error}); install it with: pip install 'pickcal[{extra}]'"
        ) from None


def known_options(settings: ClusterSettings, classes: tuple[type, ...], ours: tuple[str, ...]) -> dict[str, Any]:
    """Options that go to a cluster class as they are.

    Parameters
    ----------
    settings
        With the options.
    classes
        The class and others that take its arguments.
    ours
        Arguments that settings of pickcal stand for, and may not be among the options.

    Raises
    ------
    InputError
        For an option that no class takes, or that pickcal sets.
    """
    known: set[str] = set()
    for each in (parent for kind in classes for parent in kind.__mro__):
        parameters = inspect.signature(each.__init__).parameters.values()  # type: ignore[misc]
        known |= {p.name for p in parameters if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)}
    known -= {"self", "asynchronous", "loop", *ours}
    unknown = [name for name in settings.options if name not in known]
    if unknown:
        raise InputError(
            f"cluster.options: no such option of {settings.kind!r}: {', '.join(unknown)}; "
            f"expected some of {', '.join(sorted(known))}"
        )
    return dict(settings.options)
