"""Progress of long work: a bar on a terminal, a few plain lines elsewhere, always on standard error."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn
from rich.text import Text

from pickcal.engine.pace import Pace, seconds_text

LINE_SECONDS = 30.0
"""Without a terminal: seconds between two lines of a stage that goes on."""


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
    """Shows a bar with rate and time left on a terminal; elsewhere a line now and then, and one for each stage.

    Parameters
    ----------
    quiet
        Say warnings alone.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self._warnings = Console(stderr=True, highlight=False, soft_wrap=True) if quiet else self.console
        self._bar: Progress | None = None
        self._title, self._pace, self._said = "", Pace(0), 0.0

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
        self._title, self._pace, self._said = title, Pace(total), 0.0
        if self.console.is_terminal and sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description:<14}"),
                BarColumn(bar_width=None),
                MofNCompleteColumn(),
                _PaceColumn(self._pace),
                console=self.console,
                expand=True,
            )
            self._bar.start()
            self._bar.add_task(title, total=total)

    def advance(self, steps: int) -> None:
        """See `Reporter.advance`."""
        self._pace.advance(steps)
        if self._bar is not None:
            self._bar.advance(self._bar.task_ids[0], steps)
        elif self._pace.elapsed - self._said >= LINE_SECONDS and self._pace.done < self._pace.total:
            self._said = self._pace.elapsed
            text = f"{self._title}: {self._pace.done} of {self._pace.total}, {self._pace.in_words()}"
            self.console.print(text, markup=False)

    def note(self, text: str) -> None:
        """See `Reporter.note`."""
        self.console.print(text, markup=False)

    def warn(self, text: str) -> None:
        """Say what the user must see, though quiet was asked for."""
        self._warnings.print(text, markup=False)

    def finish(self) -> None:
        """See `Reporter.finish`."""
        shown = self._bar is not None
        self._close()
        if not shown and self._title and self._pace.total:
            done, total, seconds = self._pace.done, self._pace.total, self._pace.elapsed
            self.console.print(f"{self._title}: {done} of {total} in {seconds:.1f} s", markup=False)
        self._title = ""

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


class _PaceColumn(ProgressColumn):
    """Rate and time left, from the last batches: rich's own forget a batch after half a minute."""

    def __init__(self, pace: Pace) -> None:
        super().__init__()
        self._pace = pace

    def render(self, task: Task) -> Text:
        """See `ProgressColumn.render`."""
        return Text(self._pace.in_words() or seconds_text(self._pace.elapsed), no_wrap=True)
