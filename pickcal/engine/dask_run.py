"""One run of tasks on a Dask cluster: a window of them in flight, and what is done about those that get lost."""

from __future__ import annotations

import itertools
import math
import queue
import time
import uuid
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from pickcal.engine.calls import Call, Failed, LostTask, Unsuitable, explain
from pickcal.engine.executors import Outcome
from pickcal.engine.logs import log
from pickcal.errors import InputError

if TYPE_CHECKING:
    from pickcal.engine.dask_executor import DaskExecutor

T = TypeVar("T")
R = TypeVar("R")

TICK = 1.0
"""Seconds between looks at the health of the cluster while nothing completes."""
ENDED = ("finished", "error", "cancelled")
PER_WORKER = 4
"""Tasks with the scheduler for every worker: one runs, the others wait at hand."""
LEAST_WINDOW = 32
"""Tasks with the scheduler however few workers there are."""
DEATHS_ALONE = 4
"""Workers that must have died of a task that ran alone before it is blamed."""
ATTEMPTS = 3
"""Times that a task is tried which fails, hangs or loses its turn. They are counted here and not by Dask, so that one
that was given up at its limit counts as progress: the workers are alive."""
KILLED = f"the worker process died on this batch, alone, {DEATHS_ALONE} times (out of memory?)"
MOST_KILLERS = 5
"""So many tasks in a row that kill their workers alone are no accident of a task."""


class Run(Generic[T, R]):
    """Runs tasks for a `DaskExecutor`; made anew for every run.

    Only a window of the tasks is with the scheduler at any time, so that neither it nor this process grows with
    their number.
    """

    def __init__(self, executor: DaskExecutor, call: Call[T, R]) -> None:
        self._executor, self._call = executor, call
        self._name, self._numbers = uuid.uuid4().hex[:8], itertools.count()
        self._flying: dict[str, tuple[T, Any, int]] = {}
        self._finished: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._strays: list[Any] = []
        self._bereaved: deque[T] = deque()
        self._deaths_per_try = 1
        self._progress = time.monotonic()
        self._workers_seen = time.monotonic()
        self._looked = 0.0
        self._window = LEAST_WINDOW

    def outcomes(self, tasks: Iterator[T]) -> Iterator[Outcome[T, R]]:
        """Yield the outcome of every task in the order of completion.

        Raises
        ------
        InputError
            If the cluster has no workers or no scheduler for too long, no batch ends, workers do not suit, or tasks
            kill their workers one after the other.
        """
        try:
            yield from self._together(tasks)
            yield from self._alone()
        finally:
            self._give_up()

    def _give_up(self) -> None:
        """Take back what is in flight; a task that is running already is refused when it comes to writing."""
        futures = [future for _, future, _ in self._flying.values()]
        if futures:
            with suppress(OSError, TimeoutError):
                self._executor.ask(self._executor.client.cancel, futures, asynchronous=True, seconds=10.0)

    def _together(self, tasks: Iterator[T]) -> Iterator[Outcome[T, R]]:
        self._look()
        waiting = True
        while waiting or self._flying:
            while waiting and len(self._flying) < self._window:
                task = next(tasks, None)
                waiting = task is not None
                if task is not None:
                    self._submit(task)
            yield from self._collected()

    def _alone(self) -> Iterator[Outcome[T, R]]:
        """Run what lost its workers again, one task at a time; a scheduler that allows few failures more often."""
        killers = 0
        while self._bereaved:
            task = self._bereaved.popleft()
            tries = math.ceil(DEATHS_ALONE / self._deaths_per_try)
            for _ in range(tries):
                log("batch.alone", level="warning", task=repr(task))
                self._submit(task)
                while self._flying:
                    yield from self._collected()
                if not self._bereaved or self._bereaved[-1] is not task:
                    killers = 0
                    break
                self._bereaved.pop()
            else:
                killers += 1
                yield Outcome(task, error=KILLED)
                if killers >= MOST_KILLERS and self._bereaved:
                    raise InputError(
                        f"{killers} batches in a row killed their workers, each running alone (out of memory?). "
                        f"{len(self._bereaved)} more are left. Expected enough memory for a batch; give more --memory "
                        "or fewer --workers, and the same command again"
                    )

    def _submit(self, task: T, attempt: int = 1) -> None:
        key = f"pickcal-{self._name}-{next(self._numbers)}"
        future = self._executor.client.submit(self._call, task, key=key, pure=False)
        self._flying[key] = (task, future, attempt)
        future.add_done_callback(self._finished.put)

    def _collected(self) -> Iterator[Outcome[T, R]]:
        """Wait a moment for tasks that end and yield what became of them."""
        ended = self._ended()
        if not ended or time.monotonic() - self._looked > 5 * TICK:
            self._look()
        if any(future.status == "cancelled" for future in ended):
            self._recover()
            return
        yield from self._results([future for future in ended if future.status == "finished"])
        for future in ended:
            if future.status == "error" and future.key in self._flying:
                task, _, attempt = self._flying.pop(future.key)
                yield from self._failure(task, future, attempt)

    def _ended(self) -> list[Any]:
        """Futures that ended, of those in flight; waits one tick for the first."""
        told = []
        try:
            told.append(self._finished.get(timeout=TICK))
            while True:
                told.append(self._finished.get_nowait())
        except queue.Empty:
            pass
        ours = {future.key: future for future in [*self._strays, *told] if future.key in self._flying}
        # a result that was lost with its worker ends a second time, of which Dask tells nobody
        self._strays = [future for future in ours.values() if future.status not in ENDED]
        return [future for future in ours.values() if future.status in ENDED]

    def _results(self, finished: list[Any]) -> Iterator[Outcome[T, R]]:
        """Fetch results, all at once; a result that went away with its worker is computed again."""
        if not finished:
            return
        gather = partial(self._executor.client.gather, finished, errors="skip", asynchronous=True)
        try:
            results = self._executor.ask(gather, seconds=30.0) if len(finished) > 1 else []
        except (OSError, TimeoutError):
            results = []
        if len(results) == len(finished):
            for future, done in zip(finished, results, strict=True):
                yield self._success(future, done)
            return
        for future in finished:
            try:
                done = future.result(timeout=10)
            except Exception:  # lost or erred meanwhile; looked at again after the next tick
                self._strays.append(future)
                continue
            yield self._success(future, done)

    def _success(self, future: Any, done: Any) -> Outcome[T, R]:
        task, _, _ = self._flying.pop(future.key)
        future.release()
        self._progress = time.monotonic()
        return Outcome(task, done.result, measure=done.measure)

    def _failure(self, task: T, future: Any, attempt: int) -> Iterator[Outcome[T, R]]:
        from distributed import KilledWorker

        error = future.exception(timeout=10)
        future.release()
        self._progress = time.monotonic()
        if not isinstance(error, (KilledWorker, Unsuitable)) and attempt < ATTEMPTS:
            self._submit(task, attempt + 1)
        elif isinstance(error, (KilledWorker, LostTask)):
            if isinstance(error, KilledWorker):
                self._deaths_per_try = int(getattr(error, "allowed_failures", 0)) + 1
            log("batch.bereaved", level="warning", task=repr(task), error=explain(error))
            self._bereaved.append(task)
        elif isinstance(error, Unsuitable):
            raise InputError(str(error)) from None
        elif isinstance(error, Failed):
            yield Outcome(task, error=error.text, measure=error.measure)
        else:
            yield Outcome(task, error=explain(error))

    def _recover(self) -> None:
        """Give everything that was in flight to a scheduler that came back, or to its successor."""
        lost = [task for task, _, _ in self._flying.values()]
        self._flying.clear()
        self._check_progress()
        self._executor.reconnect()
        self._looked, self._workers_seen = 0.0, time.monotonic()
        for task in lost:
            self._submit(task)

    def _look(self) -> None:
        """See that there are workers, and that anything completes at all."""
        self._looked = now = time.monotonic()
        if self._executor.client.status == "closed":
            self._recover()
            return
        self._executor.check()
        self._executor.heal()
        workers = self._executor.count_workers()
        if workers:
            self._workers_seen = now
        self._window = max(LEAST_WINDOW, PER_WORKER * max(workers, self._executor.most_workers))
        if now - self._workers_seen > self._executor.wait:
            raise InputError(self._executor.no_worker())
        self._check_progress()

    def _check_progress(self) -> None:
        longest = self._executor.batch_limit + self._executor.wait
        if time.monotonic() - self._progress > longest:
            raise InputError(
                f"{self._executor.address}: no batch ended for {longest:g} s, and workers that hang did not end "
                "themselves; what is finished is kept. Restart the workers and give the same command again"
            )
