"""What a command says: results on standard output, progress and notes on standard error, and the exit code."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from pickcal.engine.logs import open_log, told
from pickcal.engine.progress import TerminalReporter
from pickcal.errors import InputError
from pickcal.present import failure_lines, render

OK, REFUSED, USAGE, SOME_FAILED, INTERRUPTED = 0, 1, 2, 3, 130
EXIT_CODES = (
    (OK, "all well"),
    (REFUSED, "refused; the message says what was expected and what to do"),
    (USAGE, "wrong command line"),
    (SOME_FAILED, "finished, but some micrographs failed; 'pickcal status' names them"),
    (INTERRUPTED, "interrupted; the same command goes on where it stopped"),
)
VERBOSE = "pickcal --verbose"
"""Note on an error whose command is to say where it arose."""
SAYS = Group("What it says", sort_key=91)

Show = Callable[[dict[str, Any]], None]


@Parameter(name="*", group=SAYS)
@dataclass(frozen=True)
class Output:
    """How a command speaks.

    Attributes
    ----------
    json
        Print one JSON object as the last line of standard output.
    quiet
        Nothing but the result, failures and errors.
    verbose
        Every batch and event as it comes, and where in the program an error arose.
    log
        File to append a structured log to.
    """

    json: Annotated[bool, Parameter(help="Print one JSON object as the last line.", negative="")] = field(default=False)
    quiet: Annotated[bool, Parameter(alias="-q", help="Nothing but the result, failures and errors.", negative="")] = (
        field(default=False)
    )
    verbose: Annotated[
        bool,
        Parameter(alias="-v", help="Tell of every batch as it ends, and where an error arose.", negative=""),
    ] = field(default=False)
    log: Annotated[Path | None, Parameter(help="File to append a log to, one JSON object a line.")] = field(
        default=None
    )


DEFAULT_OUTPUT = Output()


class Exit(Exception):
    """Ends the command line with a code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@contextmanager
def session(output: Output) -> Iterator[tuple[TerminalReporter, Show]]:
    """Give one command its reporter and result printer; failed micrographs in the result set the exit code.

    Raises
    ------
    InputError
        If both quiet and verbose are asked for.
    """
    if output.quiet and output.verbose:
        raise InputError("--quiet and --verbose: expected at most one of them, got both; leave one out")
    code = OK

    def show(result: dict[str, Any]) -> None:
        nonlocal code
        failures = failures_of(result)
        for line in failure_lines(failures, "'pickcal status' lists them"):
            reporter.warn(line)
        if failures:
            code = SOME_FAILED
        print(json.dumps(finite(result), allow_nan=False, default=str) if output.json else render(result), flush=True)

    with (
        open_log(output.log),
        TerminalReporter(output.quiet) as reporter,
        told(reporter.note if output.verbose else None),
    ):
        try:
            yield reporter, show
        except Exception as error:
            if output.verbose:
                error.add_note(VERBOSE)
            raise
    if code:
        raise Exit(code)


def finite(value: Any) -> Any:
    """Figures that do not exist as null: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def failures_of(result: dict[str, Any]) -> list[dict[str, str]]:
    """Failed micrographs in the result of a command, those of its parts included."""
    parts = [result, *(part for part in result.values() if isinstance(part, dict))]
    lists = [part.get(key) for part in parts for key in ("errors", "failures")]
    return [failure for found in lists if isinstance(found, list) for failure in found]
