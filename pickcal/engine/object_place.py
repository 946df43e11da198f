"""A place in an object store, where nothing can be appended to: what is added is kept, and written anew as a whole."""

from __future__ import annotations

import time

from pickcal.errors import MissingFileError
from pickcal.stores import objects
from pickcal.stores.objects import Changed, Stat
from pickcal.stores.places import Url

FLUSH_SECONDS = 5.0
"""Seconds between two writings of an object that is added to; a process that is killed loses no more than these."""


class ObjectPlace:
    """A place under a prefix of an object store.

    Parameters
    ----------
    url
        The prefix.
    """

    def __init__(self, url: Url) -> None:
        self.url = url
        self._open, self._content = "", b""
        self._flushed = 0.0

    def names(self) -> list[str]:
        """See `Place.names`."""
        return sorted(name for name in objects.listed(self.url) if "/" not in name)

    def read(self, name: str) -> tuple[bytes, str] | None:
        """See `Place.read`."""
        found = objects.stat(self.url / name)
        if found is None:
            return None
        try:
            return objects.read(self.url / name), _tag(found)
        except MissingFileError:
            return None

    def create(self, name: str, content: bytes) -> bool:
        """See `Place.create`."""
        try:
            objects.write(self.url / name, content, "none")
        except Changed:
            return False
        return True

    def replace(self, name: str, content: bytes, tag: str) -> bool:
        """See `Place.replace`."""
        mark, _, version = tag.partition("\n")
        try:
            objects.write(self.url / name, content, Stat(0, mark, version or None, 0.0))
        except Changed:
            return False
        return True

    def remove(self, name: str, tag: str | None = None) -> bool:
        """See `Place.remove`; between the look and the removal somebody might come, who then begins anew."""
        found = objects.stat(self.url / name)
        if found is None or (tag is not None and _tag(found) != tag):
            return False
        objects.remove(self.url / name)
        return True

    def append(self, name: str, content: bytes) -> None:
        """See `Place.append`; seen by others after `FLUSH_SECONDS` or `flush`."""
        if name != self._open:
            self.flush()
            self._open, self._content = name, b""
        self._content += content
        if time.monotonic() - self._flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """See `Place.flush`."""
        if self._open and self._content:
            objects.write(self.url / self._open, self._content)
            self._flushed = time.monotonic()


def _tag(found: Stat) -> str:
    return f"{found.mark}\n{found.version or ''}"
