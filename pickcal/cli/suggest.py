"""Where a flag is at home that a command does not have."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cyclopts import App

MOST_HOMES = 3


def other_home(app: App, flag: str, chain: Sequence[str]) -> str:
    """Name the commands that have a flag, for one that does not.

    Parameters
    ----------
    app
        The root of the command line.
    flag
        As it was given, perhaps with "=value".
    chain
        Names of the command that was given.

    Returns
    -------
    str
        A sentence with a space before it; "" where no command has the flag.
    """
    name = flag.split("=", 1)[0]
    homes = [
        " ".join(found)
        for found, command in _commands(app)
        if tuple(found) != tuple(chain)
        and any(name in argument.names for argument in command.assemble_argument_collection())
    ]
    if not homes:
        return ""
    return f" It is a flag of {_listed([f'{home!r}' for home in homes])}."


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
