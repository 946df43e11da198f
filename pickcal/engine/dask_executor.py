"""Runs tasks on a Dask cluster whose workers and scheduler may die, and waits for nothing without a bound."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import pickcal
from pickcal.engine.calls import Call, describe_worker, explain, libraries, too_small
from pickcal.engine.dask_run import Run
from pickcal.engine.executors import Outcome
from pickcal.engine.logs import log
from pickcal.errors import InputError

T = TypeVar("T")
R = TypeVar("R")

CALL_SECONDS = 60.0
"""Longest time to wait for an answer of the scheduler, or of all workers, to a small question."""
RETRY_SECONDS = 0.5


class DaskExecutor:
    """Runs tasks on a Dask cluster.

    A batch whose worker died too often is run once more when all others are done, alone: what kills its workers again
    is reported, and its neighbours are not blamed. A scheduler that goes away and comes back within `wait` seconds
    gets what was not finished once more.

    Parameters
    ----------
    connect
        Makes a client; called again when the scheduler was lost.
    wait
        Seconds without worker or scheduler after which work is given up.
    batch_limit
        Seconds after which a batch that does not end is taken from its worker.
    most_workers
        Workers that may come, where the cluster scales by itself: as many batches are handed out.
    note
        Told what a user should know.
    check
        Raises an `InputError` when it is known that no worker will come; called while workers are waited for, and now
        and then while work goes on.
    heal
        Starts again the workers that a cluster object has given up; called now and then while work goes on.
    """

    def __init__(
        self,
        connect: Callable[[], Any],
        *,
        wait: float,
        batch_limit: float,
        most_workers: int = 1,
        note: Callable[[str], None] = lambda _: None,
        check: Callable[[], None] = lambda: None,
        heal: Callable[[], None] = lambda: None,
    ) -> None:
        self._connect, self.wait, self.batch_limit = connect, wait, batch_limit
        self.most_workers, self.note, self.check, self.heal = most_workers, note, check, heal
        self._memory = 0
        self.client: Any = connect()

    @property
    def workers(self) -> int:
        """See `Executor.workers`."""
        return max(1, self.count_workers())

    def count_workers(self) -> int:
        """Workers that the scheduler knows now; 0 if it does not answer."""
        try:
            return len(self.ask(self.client.scheduler.ncores))
        except (OSError, TimeoutError, AttributeError):
            return 0

    def ask(self, method: Callable[..., Any], *arguments: Any, seconds: float = CALL_SECONDS, **options: Any) -> Any:
        """Wait for an asynchronous call of Dask, but not for ever; `TimeoutError` if it takes longer."""
        return self.client.sync(partial(method, *arguments, **options), callback_timeout=seconds)

    def wait_for_workers(self) -> None:
        """Wait for a worker, and compare what all that there are have installed.

        Raises
        ------
        InputError
            If none comes in time or is known to come, or one has another version of pickcal or none.
        """
        end = time.monotonic() + self.wait
        while not self.count_workers():
            self.check()
            if time.monotonic() > end:
                raise InputError(self.no_worker())
            time.sleep(RETRY_SECONDS)
        ours = libraries()
        notes = set()
        for address, found in self._described():
            if isinstance(found, BaseException):
                raise InputError(
                    f"worker {address}: expected pickcal {pickcal.__version__} there, found none that answers "
                    f"({explain(found)}); install it in the environment of the workers"
                )
            if found["pickcal"] != pickcal.__version__:
                raise InputError(
                    f"worker {found['worker']}: expected pickcal {pickcal.__version__} as in this process, found "
                    f"{found['pickcal']}; install the same version in both"
                )
            notes |= {f"{k} {found['libraries'][k]}, here {v}" for k, v in ours.items() if found["libraries"][k] != v}
        for text in sorted(notes):
            self.note(f"workers have {text}: results may differ in the last bits from those made here")

    def no_worker(self) -> str:
        """Words for a cluster without workers."""
        return (
            f"{self.address}: no worker for {self.wait:g} s; expected at least one. Are the workers' jobs queued or "
            "failing, and can they reach this address? What is finished is kept; the same command goes on, "
            "--wait gives workers more time"
        )

    @property
    def address(self) -> str:
        """Address of the scheduler."""
        return str(getattr(self.client.scheduler, "address", "the scheduler"))

    def require(self, memory: int) -> None:
        """See `Executor.require`."""
        self._memory = memory
        if not memory:
            return
        for _, found in self._described():
            limit, usable = (0, 0) if isinstance(found, BaseException) else found["memory"]
            if limit and usable < memory:
                raise InputError(too_small(found["worker"], limit, usable, memory))

    def run(self, function: Callable[[T], R], tasks: Sequence[T]) -> Iterator[Outcome[T, R]]:
        """See `Executor.run`."""
        call: Call[T, R] = Call(function, pickcal.__version__, self._memory, self.batch_limit)
        return Run(self, call).outcomes(iter(tasks))

    def reconnect(self) -> None:
        """Get a new client for a scheduler that was lost.

        Raises
        ------
        InputError
            If it does not come back in time.
        """
        log("scheduler.lost", level="warning", address=self.address)
        self.note(f"{self.address}: lost the scheduler; trying to reach it again for {self.wait:g} s")
        address, end = self.address, time.monotonic() + self.wait
        self.close()
        for attempt in itertools.count():
            try:
                self.client = self._connect()
                log("scheduler.found", address=address, attempts=attempt + 1)
                return
            except (OSError, TimeoutError, RuntimeError, InputError) as error:
                if time.monotonic() > end or isinstance(error, RuntimeError):  # our own cluster, closed
                    raise InputError(
                        f"{address}: the scheduler went away and did not come back for {self.wait:g} s "
                        f"({explain(error)}); what is finished is kept, the same command goes on from there"
                    ) from None
            time.sleep(RETRY_SECONDS)

    def close(self) -> None:
        """Close the client, whatever state it is in."""
        with suppress(Exception):
            self.client.close(timeout=5)

    def _described(self) -> list[tuple[str, Any]]:
        """Ask every worker about itself; what it says, or the error that it answered with."""
        try:
            found = self.ask(self.client.run, describe_worker, on_error="return", asynchronous=True)
        except (OSError, TimeoutError) as error:
            raise InputError(
                f"{self.address}: not all workers answered within {CALL_SECONDS:g} s ({explain(error)}); "
                "remove those that hang, and give the same command again"
            ) from None
        return list(found.items())
