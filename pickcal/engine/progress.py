"""Progress of long work: a bar on a terminal, a few plain lines elsewhere, always on standard error."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Reporter(Protocol):
    """Anything that can be told how far a stage is."""

    def start(self, title: str, total: int) -> None:
        """Begin a stage of `total` steps."""
        ...

    def advance(self, steps: int) -> None:
        """Count finished steps."""
        ...

    def note(self, text: str) -> None:
        """Say something that the user should see at once."""
        ...

    def finish(self) -> None:
        """End the stage."""
        ...


class Silent:
    """Says nothing."""

    def start(self, title: str, total: int) -> None:
        """See `Reporter.start`."""

    def advance(self, steps: int) -> None:
        """See `Reporter.advance`."""

    def note(self, text: str) -> None:
        """See `Reporter.note`."""

    def finish(self) -> None:
        """See `Reporter.finish`."""


class TerminalReporter:
    """Shows a bar with rate and time left on a terminal; elsewhere a line at the end of each stage."""

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._title, self._total, self._done, self._began = "", 0, 0, 0.0

    def __enter__(self) -> TerminalReporter:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the bar off the terminal, also after an error."""
        self._close()

    def start(self, title: str, total: int) -> None:
        """See `Reporter.start`."""
        self._close()
        self._title, self._total, self._done, self._began = title, total, 0, time.monotonic()
        if self.console.is_terminal and sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description:<18}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
                console=self.console,
            )
            self._bar.start()
            self._bar.add_task(title, total=total)

    def advance(self, steps: int) -> None:
        """See `Reporter.advance`."""
        self._done += steps
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0], steps)

    def note(self, text: str) -> None:
        """See `Reporter.note`."""
        self.console.print(text, markup=False)

    def finish(self) -> None:
        """See `Reporter.finish`."""
        shown = self._bar is not None
        self._close()
        if not shown and self._title:
            seconds = time.monotonic() - self._began
            self.console.print(f"{self._title}: {self._done} of {self._total} in {seconds:.1f} s", markup=False)
        self._title = ""

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
