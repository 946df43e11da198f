"""Small objects in an object store, where nothing can be appended to: what is added is kept, and written anew."""

from __future__ import annotations

import threading
import time
from contextlib import suppress

from pickcal.errors import MissingFileError, PickcalError
from pickcal.stores import objects
from pickcal.stores.objects import Changed, Stat
from pickcal.stores.places import Url

FLUSH_SECONDS = 5.0
"""Seconds between two writings of an object that is added to; a process that is killed loses no more than these."""


class BucketObjects:
    """`SmallObjects` under a prefix of an object store.

    Parameters
    ----------
    where
        The prefix.
    """

    def __init__(self, where: Url) -> None:
        self.where: Url = where
        self._open, self._content = "", b""
        self._flushed = 0.0
        self._lock = threading.Lock()
        self._later: threading.Timer | None = None

    def names(self) -> list[str]:
        """See `SmallObjects.names`."""
        return sorted(name for name in objects.listed(self.where) if "/" not in name)

    def read(self, name: str) -> tuple[bytes, str] | None:
        """See `SmallObjects.read`."""
        found = objects.stat(self.where / name)
        if found is None:
            return None
        try:
            return objects.read(self.where / name), _tag(found)
        except MissingFileError:
            return None

    def create(self, name: str, content: bytes) -> str | None:
        """See `SmallObjects.create`."""
        try:
            return _tag(objects.write(self.where / name, content, "none"))
        except Changed:
            return None

    def replace(self, name: str, content: bytes, tag: str) -> str | None:
        """See `SmallObjects.replace`."""
        mark, _, version = tag.partition("\n")
        try:
            return _tag(objects.write(self.where / name, content, Stat(0, mark, version or None, 0.0)))
        except Changed:
            return None

    def remove(self, name: str, tag: str | None = None) -> bool:
        """See `SmallObjects.remove`; between the look and the removal somebody might come, who then begins anew."""
        found = objects.stat(self.where / name)
        if found is None or (tag is not None and _tag(found) != tag):
            return False
        objects.remove(self.where / name)
        return True

    def append(self, name: str, content: bytes) -> None:
        """See `SmallObjects.append`; others see it after `FLUSH_SECONDS` at the latest, or after `flush`."""
        with self._lock:
            if name != self._open:
                self._flush()
                self._open, self._content = name, b""
            self._content += content
            wait = self._flushed + FLUSH_SECONDS - time.monotonic()
            if wait <= 0:
                self._flush()
            elif self._later is None:  # what comes next may be long in coming
                self._later = threading.Timer(wait, self._flush_later)
                self._later.daemon = True
                self._later.start()

    def flush(self) -> None:
        """See `SmallObjects.flush`."""
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self._open and self._content:
            objects.write(self.where / self._open, self._content)
            self._flushed = time.monotonic()

    def _flush_later(self) -> None:
        # a store that does not answer is for the next one to tell who adds something
        with self._lock, suppress(PickcalError):
            if self._later is threading.current_thread():
                self._flush()


def _tag(found: Stat) -> str:
    return f"{found.mark}\n{found.version or ''}"
