"""Structured logs: one JSON object a line, for machines that watch many jobs.

Nothing is logged unless `open_log` was called (`pickcal --log FILE`); the text for people is the reporter's.
"""

from __future__ import annotations

import datetime
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

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
        return json.dumps({**head, **getattr(record, "facts", {})}, default=str)


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
    LOGGER.addHandler(handler)
    LOGGER.setLevel(logging.INFO)
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        handler.close()
