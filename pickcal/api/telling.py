"""Progress in notebooks and scripts: one line for a stage, written over while it runs."""

from __future__ import annotations

import sys

from pickcal.engine.pace import Pace

SECONDS = 3.0
"""Least time between two states of a line."""


class Lines:
    """A `pickcal.engine.progress.Reporter` that prints to standard output, which notebooks show below the cell.

    Parameters
    ----------
    quiet
        Say nothing; default False.
    """

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._title, self._pace, self._said, self._open = "", Pace(0), 0.0, False

    def start(self, title: str, total: int) -> None:
        """See `Reporter.start`."""
        self._title, self._pace, self._said = title, Pace(total), 0.0

    def advance(self, steps: int) -> None:
        """See `Reporter.advance`."""
        self._pace.advance(steps)
        if self._pace.elapsed - self._said >= SECONDS and self._pace.done < self._pace.total:
            self._said = self._pace.elapsed
            self._print(f"{self._title}: {self._pace.done} of {self._pace.total}, {self._pace.in_words()}", end="")

    def note(self, text: str) -> None:
        """See `Reporter.note`."""
        self._print(text)

    def finish(self) -> None:
        """See `Reporter.finish`."""
        if self._title and self._pace.total:
            done, total = self._pace.done, self._pace.total
            self._print(f"{self._title}: {done} of {total} in {self._pace.elapsed:.1f} s")
        self._title = ""

    def _print(self, text: str, end: str = "\n") -> None:
        if self._quiet:
            return
        over = "\r" if self._open else ""
        sys.stdout.write(f"{over}{text:<70}{end}" if self._open or not end else f"{text}{end}")
        sys.stdout.flush()
        self._open = not end
