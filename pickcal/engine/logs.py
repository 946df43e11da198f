"""Structured logs: one JSON object a line, for machines that watch many jobs.

Nothing is logged unless `open_log` was called (`pickcal --log FILE`); the text for people is the reporter's, and with
`pickcal --verbose` the same events in words (`told`). No secret of this process leaves through either.
"""

from __future__ import annotations

import datetime
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pickcal.stores.credentials import redacted

LOGGER = logging.getLogger("pickcal")
LOGGER.addHandler(logging.NullHandler())
LOGGER.propagate = False

Level = Literal["debug", "info", "warning", "error"]


def log(event: str, *, level: Level = "info", **facts: Any) -> None:
    """Log an event and its facts, which must be plain values."""
    LOGGER.log(getattr(logging, level.upper()), event, extra={"facts": facts})


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object: time, level, event and the event's facts."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        time = datetime.datetime.fromtimestamp(record.created, datetime.UTC).isoformat(timespec="milliseconds")
        head = {"time": time, "level": record.levelname.lower(), "event": record.getMessage()}
        return redacted(json.dumps({**head, **getattr(record, "facts", {})}, default=str))


IDENTIFIERS = ("run", "mark")


class InWords(logging.Handler):
    """Hands every event to a function as one line for people: its name, then its facts without those that are empty."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self._say = say

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        facts = getattr(record, "facts", {})
        words = [
            f"{key} {f'{value:.4g}' if isinstance(value, float) else value}"
            for key, value in facts.items()
            if key not in IDENTIFIERS and value not in (None, "", {}, [], ())
        ]
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        said = f"{level}{record.getMessage()}"
        self._say(redacted(f"{said}: {', '.join(words)}" if words else said))


@contextmanager
def told(say: Callable[[str], None] | None) -> Iterator[None]:
    """Say every event in words until the block ends; None says nothing."""
    if say is None:
        yield
        return
    with _listening(InWords(say)):
        yield


@contextmanager
def _listening(handler: logging.Handler) -> Iterator[None]:
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        handler.close()


@contextmanager
def open_log(path: Path | None) -> Iterator[None]:
    """Append the log to a file until the block ends; None for no log.

    Raises
    ------
    OSError
        If the file cannot be written.
    """
    if path is None:
        yield
        return
    handler = logging.FileHandler(path, encoding="utf-8")
    handler.setFormatter(JsonLines())
    with _listening(handler):
        yield
