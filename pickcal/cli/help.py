"""How help is laid out: required settings first, no defaults that say nothing, and examples at the end."""

from __future__ import annotations

import re
import shlex
import textwrap
from typing import TYPE_CHECKING

from cyclopts.help import DefaultFormatter, HelpEntry, HelpPanel

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions

WIDTH = 80


class RequiredFirst(DefaultFormatter):
    """Lays out parameters with those that are required above the others."""

    def __call__(self, console: Console, options: ConsoleOptions, panel: HelpPanel) -> None:
        """Print one panel."""
        entries = panel.entries
        if panel.format == "parameter":
            entries = [_plain(entry) for entry in sorted(entries, key=lambda entry: not entry.required)]
        super().__call__(console, options, panel.copy(entries=entries))


def _plain(entry: HelpEntry) -> HelpEntry:
    """Leave out that a flag is off unless it is given, and how to turn it off; lists are as people type them."""
    default = None if entry.default is None else str(entry.default)
    if default == "False":
        return entry.copy(default=None, negative_names=(), negative_shorts=())
    if default is not None and default.startswith("("):
        return entry.copy(default=re.sub("[(),']", "", default) or None)
    return entry


def example(command: str) -> str:
    """Lay a command out in lines that fit 80 columns and can be pasted into a shell.

    Examples
    --------
    >>> print(example("pickcal status p.zarr"))
      pickcal status p.zarr
    """
    return "\n".join(
        textwrap.wrap(
            command,
            WIDTH - 2,
            initial_indent="  ",
            subsequent_indent="      ",
            break_long_words=False,
            break_on_hyphens=False,
        )
    ).replace("\n", " \\\n")


def examples(*commands: str) -> str:
    """Give the text that ends the help of a command: what people type, one example each.

    Parameters
    ----------
    commands
        Whole command lines. One that begins with "#" is a remark on those below it.
    """
    lines = [f"  {line}" if line.startswith("#") else example(line) for line in commands]
    return "\n".join(["Examples" if len(commands) > 1 else "Example", *lines])


def example_commands(epilogue: str) -> list[list[str]]:
    """Read the examples of a help text back as words, each without the leading `pickcal`."""
    joined = epilogue.replace(" \\\n", " ")
    lines = [line.strip() for line in joined.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("pickcal ")]
