"""How fast a stage goes and how long it will take, from when its steps were finished."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

REMEMBERED = 40
"""Latest steps that the rate is taken from: a cluster that grows or shrinks shows in it soon."""


class Pace:
    """Rate of a stage.

    Parameters
    ----------
    total
        Steps there are.
    clock
        Gives seconds; default: the system's monotonic clock.
    """

    def __init__(self, total: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.total, self.done = total, 0
        self._clock = clock
        self.began = clock()
        self._points: deque[tuple[float, int]] = deque([(self.began, 0)], maxlen=REMEMBERED + 1)

    def advance(self, steps: int) -> None:
        """Count finished steps."""
        self.done += steps
        self._points.append((self._clock(), self.done))

    @property
    def elapsed(self) -> float:
        """Seconds since the stage began."""
        return self._clock() - self.began

    @property
    def rate(self) -> float | None:
        """Steps a second of late; None before any is finished."""
        (first, before), (last, now) = self._points[0], self._points[-1]
        return (now - before) / (last - first) if last > first and now > before else None

    @property
    def left(self) -> float | None:
        """Seconds that the rest will take; None where nobody knows."""
        rate = self.rate
        if rate is None:
            return None
        since = self._clock() - self._points[-1][0]
        return max((self.total - self.done) / rate - since, 0.0)

    def in_words(self) -> str:
        """Rate and time left, such as "35/min, 4 min left", in the end the time it took; "" where nobody knows."""
        rate, left = self.rate, self.left
        if rate is None or left is None:
            return ""
        left_text = f"{seconds_text(left)} left" if self.done < self.total else f"in {seconds_text(self.elapsed)}"
        return f"{rate_text(rate)}, {left_text}"


def rate_text(rate: float) -> str:
    """Rate in the unit in which it is a plain number.

    Examples
    --------
    >>> rate_text(12.0), rate_text(0.5), rate_text(0.01)
    ('12/s', '30/min', '36/h')
    """
    for unit, seconds in (("s", 1), ("min", 60), ("h", 3600)):
        if rate * seconds >= 2 or unit == "h":
            break
    return f"{rate * seconds:.2g}/{unit}" if rate * seconds < 10 else f"{rate * seconds:.0f}/{unit}"


def seconds_text(seconds: float) -> str:
    """Duration in words, as exact as one needs it.

    Examples
    --------
    >>> seconds_text(8.2), seconds_text(170), seconds_text(8000)
    ('8 s', '3 min', '2 h 13 min')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"
