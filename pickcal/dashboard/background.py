"""What takes longer than a move, done step by step in one thread that stays out of the way of moves."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Generator, Hashable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")

QUIET = 0.25
LONGEST = 2.0
ENDING = 5.0
LOGGER = logging.getLogger(__name__)


@dataclass(eq=False)
class _Task:
    """A job on its way."""

    key: Hashable
    job: Callable[[], Generator[float, None, Any]]
    done: Callable[[Any], None] | None
    progress: Callable[[float], None] | None
    failed: Callable[[Exception], None] | None
    priority: int
    turn: int = 0
    steps: Generator[float, None, Any] | None = field(default=None, repr=False)


class Background:
    """One thread for the jobs of one project.

    A job is a function that makes a generator; the generator yields its progress, 0 to 1, after every step of some
    20 to 100 ms, and returns its result. The thread is a daemon and starts with the first job. Callbacks run in it:
    callers hand on what they are given to their own documents.

    Parameters
    ----------
    quiet
        Seconds without an interaction (`touch`) before the next step; what somebody waits for (priority 0 or lower,
        such as pictures) waits no longer than that for anybody's moves.
    longest
        Longest time that any step waits for that, seconds: progress never starves.
    """

    def __init__(self, quiet: float = QUIET, longest: float = LONGEST) -> None:
        self._quiet, self._longest = quiet, longest
        self._changed = threading.Condition()
        self._tasks: dict[Hashable, _Task] = {}
        self._dropped: list[_Task] = []
        self._turns = itertools.count(1)
        self._touched = -float("inf")
        self._thread: threading.Thread | None = None
        self._busy = self._closed = False

    def submit(
        self,
        key: Hashable,
        job: Callable[[], Generator[float, None, T]],
        done: Callable[[T], None] | None = None,
        progress: Callable[[float], None] | None = None,
        failed: Callable[[Exception], None] | None = None,
        priority: int = 0,
    ) -> None:
        """Add a job, in place of an older one under the same key, which stops at its next yield.

        Parameters
        ----------
        key
            What the job is for.
        job
            Called in the thread; gives the generator.
        done
            Takes what the generator returned.
        progress
            Takes what it yields.
        failed
            Takes the exception that ended it; by default that is logged.
        priority
            Lower is sooner; jobs of the same priority take turns, step by step. Default 0.

        Notes
        -----
        After `close` nothing is done. A job that was replaced or cancelled calls nothing back any more.
        """
        with self._changed:
            if self._closed:
                return
            self._drop(key)
            self._tasks[key] = _Task(key, job, done, progress, failed, priority)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="pickcal background", daemon=True)
                self._thread.start()
            self._changed.notify_all()

    def touch(self) -> None:
        """Say that somebody is moving something, so that the next steps wait a moment."""
        self._touched = time.monotonic()

    def cancel(self, key: Hashable) -> None:
        """Stop a job at its next yield; nothing happens if there is none under this key."""
        with self._changed:
            self._drop(key)
            self._changed.notify_all()

    def running(self, key: Hashable) -> bool:
        """Tell whether a job under this key waits or runs."""
        with self._changed:
            return key in self._tasks

    def wait(self, timeout: float) -> bool:
        """Wait until all jobs have ended and all callbacks returned; False if that took longer (seconds)."""
        with self._changed:
            return self._changed.wait_for(self._idle, timeout)

    def close(self) -> None:
        """Stop all jobs at their next yield, then the thread; waits for it for at most 5 s."""
        with self._changed:
            self._closed = True
            for key in list(self._tasks):
                self._drop(key)
            self._changed.notify_all()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(ENDING)

    def _idle(self) -> bool:
        return not (self._tasks or self._dropped or self._busy)

    def _drop(self, key: Hashable) -> None:
        task = self._tasks.pop(key, None)
        if task is not None:
            self._dropped.append(task)

    def _run(self) -> None:
        while True:
            with self._changed:
                self._busy = False
                if not (self._tasks or self._dropped):
                    self._changed.notify_all()
                    if self._closed:
                        return
                    self._changed.wait_for(lambda: bool(self._tasks or self._dropped or self._closed))
                self._wait_for_quiet()
                dropped, self._dropped = self._dropped, []
                task = min(self._tasks.values(), key=lambda task: (task.priority, task.turn), default=None)
                self._busy = True
            for old in dropped:
                self._guarded(partial(_close, old))
            if task is not None:
                self._step(task)

    def _wait_for_quiet(self) -> None:
        began = time.monotonic()
        while self._tasks and not self._dropped:
            urgent = any(task.priority <= 0 for task in self._tasks.values())
            longest = min(self._quiet, self._longest) if urgent else self._longest
            delay = remaining(time.monotonic(), self._touched, began, self._quiet, longest)
            if delay <= 0:
                return
            self._changed.wait(delay)

    def _step(self, task: _Task) -> None:
        try:
            if task.steps is None:
                task.steps = task.job()
            value = next(task.steps)
        except StopIteration as end:
            if self._finished(task) and task.done is not None:
                self._guarded(partial(task.done, end.value))
        except Exception as error:
            if self._finished(task):
                self._failed(task, error)
        else:
            task.turn = next(self._turns)
            if task.progress is not None and self._is_current(task):
                self._guarded(partial(task.progress, value))

    def _is_current(self, task: _Task) -> bool:
        with self._changed:
            return self._tasks.get(task.key) is task

    def _finished(self, task: _Task) -> bool:
        """Take a task off the list; False if it was replaced or cancelled meanwhile."""
        with self._changed:
            current = self._tasks.get(task.key) is task
            if current:
                del self._tasks[task.key]
            return current

    def _failed(self, task: _Task, error: Exception) -> None:
        if not threading.main_thread().is_alive():
            return  # the program ends, and takes what jobs need away from them
        if task.failed is None:
            LOGGER.error("job %r failed", task.key, exc_info=error)
            return
        self._guarded(partial(task.failed, error))

    def _guarded(self, call: Callable[[], object]) -> None:
        """Call something of others, whose exceptions are logged: the thread serves all visitors."""
        try:
            call()
        except Exception:
            LOGGER.exception("a callback of a background job failed")


def _close(task: _Task) -> None:
    if task.steps is not None:
        task.steps.close()


def remaining(now: float, touched: float, began: float, quiet: float, longest: float) -> float:
    """Seconds until the next step may be made.

    Parameters
    ----------
    now
        Time, seconds.
    touched
        When somebody last moved something.
    began
        When the step began to wait.
    quiet, longest
        Seconds without a move that it waits for, and for how long at most.

    Returns
    -------
    float
        0 or less if it may be made now.
    """
    return min(touched + quiet, began + longest) - now
