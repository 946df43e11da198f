"""Command lines that are wrong: which flag was probably meant, which command has it, what is missing."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Iterator, Sequence

from cyclopts import App, Argument

from pickcal.cli.help import example_commands

MOST_HOMES = 3
ALWAYS = ("--help", "-h", "--version")


def unknown_flags(app: App, tokens: Sequence[str], chain: Sequence[str]) -> Iterator[str]:
    """Say of every flag on a command line that its command does not have what was probably meant.

    Parameters
    ----------
    app
        The root of the command line.
    tokens
        All words of the command line.
    chain
        Those that name the command.

    Yields
    ------
    str
        One sentence for each flag.
    """
    known = _flags(_command(app, chain))
    for token in tokens:
        if token == "--":
            return
        name = token.split("=", 1)[0]
        if not name.startswith("--") or name in known or name in ALWAYS:
            continue
        homes = [" ".join(found) for found, command in _commands(app) if name in _flags(command)]
        close = difflib.get_close_matches(name, sorted(known), n=1)
        if homes:
            hint = f"it is a flag of {_listed([f'{home!r}' for home in homes])}"
        else:
            hint = f"did you mean {close[0]}?" if close else ""
        yield f"{name}: no such flag" + (f"; {hint}" if hint else "")


def unknown_command(app: App, name: str, chain: Sequence[str]) -> str:
    """Say that there is no command of a name, and which was probably meant.

    Parameters
    ----------
    app
        The root of the command line.
    name
        The word that is no command.
    chain
        Those before it, which name the command that it should belong to; none at the root.
    """
    groups = [f"'{' '.join(('pickcal', *found))}'" for found, _ in _commands(app) if found[-1] == name]
    here = [known for known in _command(app, chain) if not known.startswith("-")]
    close = difflib.get_close_matches(name, here, n=1)
    if groups:
        hint = f"did you mean {_listed(groups)}?"
    elif close:
        hint = f"did you mean '{' '.join(('pickcal', *chain, close[0]))}'?"
    else:
        hint = f"expected {', '.join(here)}"
    return f"{name}: no such command; {hint}"


def missing(app: App, argument: Argument, keyword: str | None, chain: Sequence[str]) -> str:
    """Say what a command line lacks, with a whole one to type.

    Parameters
    ----------
    app
        The root of the command line.
    argument
        What the command must be given.
    keyword
        The flag that was given without its value; None if it was not given.
    chain
        The words that name the command.
    """
    if keyword is not None:
        said = f"{keyword}: expected a value after it, got none"
    else:
        name = argument.name if argument.index is None else argument.name.lstrip("-").upper()
        said = f"{name} is missing"
    shown = example_commands(_command(app, chain).help_epilogue or "")
    return f"{said}; as in: {shlex.join(('pickcal', *shown[0]))}" if shown else said


def _command(app: App, chain: Sequence[str]) -> App:
    for name in chain:
        app = app[name]
    return app


def _flags(command: App) -> set[str]:
    """All flags of a command, those that negate others included."""
    if command.default_command is None:
        return set()
    return {
        name for argument in command.assemble_argument_collection() for name in (*argument.names, *argument.negatives)
    }


def _commands(app: App, chain: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], App]]:
    """All commands with something to do, and their names."""
    for name in app:
        if name.startswith("-"):
            continue
        command = app[name]
        if command.default_command is not None:
            yield (*chain, name), command
        yield from _commands(command, (*chain, name))


def _listed(words: list[str]) -> str:
    if len(words) > MOST_HOMES:
        words = [*words[:MOST_HOMES], "others"]
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
