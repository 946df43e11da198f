"""Seconds of each micrograph within a batch: a stage says when it begins one, and knows nothing of who listens."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Laps:
    """When each micrograph of a batch began."""

    def __init__(self) -> None:
        self._began: list[tuple[int, float]] = []
        self._end = 0.0

    def begin(self, index: int) -> None:
        """Note that a micrograph begins, and the one before it ends."""
        self._began.append((index, time.perf_counter()))

    def end(self) -> None:
        """Note that the last one ends."""
        self._end = time.perf_counter()

    def slowest(self) -> tuple[int, float]:
        """Micrograph that took longest, and its seconds; (-1, 0.0) if none began."""
        ends = [when for _, when in self._began[1:]] + [self._end]
        spans = (
            [(index, end - when) for (index, when), end in zip(self._began, ends, strict=True)] if self._began else []
        )
        return max(spans, key=lambda span: span[1], default=(-1, 0.0))


_current: ContextVar[Laps | None] = ContextVar("pickcal_laps", default=None)


def begin(index: int) -> None:
    """Say that work on a micrograph, by its index in the project, begins."""
    current = _current.get()
    if current is not None:
        current.begin(index)


@contextmanager
def laps() -> Iterator[Laps]:
    """Listen to `begin` until the block ends."""
    found = Laps()
    token = _current.set(found)
    try:
        yield found
    finally:
        found.end()
        _current.reset(token)
