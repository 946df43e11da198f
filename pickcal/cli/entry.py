"""The entry point: runs the command line and turns errors into words and exit codes."""

from __future__ import annotations

import errno
import logging
import sys
import traceback
from typing import NoReturn

from cyclopts import CycloptsError, MissingArgumentError, UnknownCommandError
from pydantic import ValidationError
from rich.console import Console
from rich.text import Text

from pickcal.cli.app import app
from pickcal.cli.output import INTERRUPTED, OK, REFUSED, USAGE, VERBOSE, Exit
from pickcal.cli.suggest import missing, unknown_command, unknown_flags
from pickcal.errors import PickcalError
from pickcal.refusals import describe
from pickcal.stores.credentials import redacted


def main(tokens: list[str] | None = None) -> NoReturn:
    """Run the command line and exit with its code."""
    # when one write fails, zarr leaves its sibling writes to asyncio's log, traceback and all
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    logging.getLogger("tifffile").setLevel(logging.CRITICAL)  # speaks of damaged files before we do
    code: int = OK
    try:
        app(tokens, exit_on_error=False, print_error=False, result_action="return_value")
    except Exit as ended:
        code = ended.code
    except KeyboardInterrupt:
        sys.unraisablehook = lambda _: None  # what zarr was about to read is dropped with its loop, and says so
        _say("interrupted; what is finished is kept, the same command goes on from there")
        code = INTERRUPTED
    except Exception as error:
        found = _words(error)
        if found is None:
            raise
        text, code = found
        if VERBOSE in getattr(error, "__notes__", ()):
            traceback.print_exception(error)
        _say(text)
    sys.exit(code)


def _say(text: str) -> None:
    """Print an error on standard error, with its first word in red where there are colours."""
    errors = Console(stderr=True, highlight=False, soft_wrap=True)
    errors.print(Text.assemble(("pickcal:", "bold red"), " ", redacted(text)))


def _words(error: Exception) -> tuple[str, int] | None:
    """Text and exit code of an error that the user can mend; None for others."""
    if isinstance(error, PickcalError):
        return str(error), REFUSED
    if isinstance(error, ValidationError):
        return describe(error, "command line"), USAGE
    if isinstance(error, CycloptsError):
        return _usage(error), USAGE
    if type(error).__module__.startswith("obstore"):
        from pickcal.stores.objects import plain_error

        return str(plain_error(error)), REFUSED
    if isinstance(error, OSError) and error.errno is not None:
        advice = "make room and give the same command again" if error.errno == errno.ENOSPC else ""
        return ": ".join(str(part) for part in (error.strerror, error.filename, advice) if part), REFUSED
    return None


def _usage(error: CycloptsError) -> str:
    """Say what is wrong with a command line, and where to look; a flag that is none before what is missing for it."""
    chain = tuple(error.command_chain or ())
    advice = f"'{' '.join(('pickcal', *chain))} --help' tells what it takes, with examples"
    if isinstance(error, UnknownCommandError) and error.unused_tokens:  # whose flags these are, nobody knows
        return f"{unknown_command(app, error.unused_tokens[0], chain)}\n{advice}"
    unknown = list(unknown_flags(app, error.root_input_tokens or (), chain))
    if unknown:
        return "\n".join([*unknown, advice])
    cause = error.__cause__
    if isinstance(cause, ValidationError):
        text = describe(cause, "command line")
    elif isinstance(error, MissingArgumentError) and error.argument is not None:
        text = missing(app, error.argument, error.keyword, chain)
    else:
        text = str(error)
    return f"{text}\n{advice}"
