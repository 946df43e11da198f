"""Small objects in a folder: files that are written aside and renamed, one change at a time under the folder's lock."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

LONGEST_WAIT = 10.0
"""Seconds to wait for another process that changes an object of the same folder."""


class FolderObjects:
    """`SmallObjects` of a folder, which is made when it is needed, and removed with the last of them.

    Parameters
    ----------
    where
        The folder.
    """

    def __init__(self, where: Path) -> None:
        self.where: Path = where

    def names(self) -> list[str]:
        """See `SmallObjects.names`."""
        try:
            return sorted(path.name for path in self.where.iterdir() if not path.name.startswith("."))
        except FileNotFoundError:
            return []

    def read(self, name: str) -> tuple[bytes, str] | None:
        """See `SmallObjects.read`."""
        try:
            content = (self.where / name).read_bytes()
        except FileNotFoundError:
            return None
        return content, _tag(content)

    def create(self, name: str, content: bytes) -> str | None:
        """See `SmallObjects.create`."""
        with self._locked():
            return None if (self.where / name).exists() else self._write(name, content)

    def replace(self, name: str, content: bytes, tag: str) -> str | None:
        """See `SmallObjects.replace`."""
        with self._locked():
            found = self.read(name)
            return self._write(name, content) if found is not None and found[1] == tag else None

    def remove(self, name: str, tag: str | None = None) -> bool:
        """See `SmallObjects.remove`; a folder with nothing left in it goes too."""
        if not self.where.exists():
            return False
        with self._locked():
            found = self.read(name)
            if found is None or (tag is not None and found[1] != tag):
                return False
            (self.where / name).unlink()
            if not self.names():
                shutil.rmtree(self.where, ignore_errors=True)
            return True

    def append(self, name: str, content: bytes) -> None:
        """See `SmallObjects.append`."""
        self.where.mkdir(parents=True, exist_ok=True)
        with (self.where / name).open("ab") as file:
            file.write(content)

    def flush(self) -> None:
        """See `SmallObjects.flush`; nothing is kept back."""

    def _write(self, name: str, content: bytes) -> str:
        temporary = self.where / f".{name}.{uuid.uuid4().hex[:8]}"
        try:
            temporary.write_bytes(content)
            temporary.replace(self.where / name)
        finally:
            temporary.unlink(missing_ok=True)
        return _tag(content)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep others from changing objects for the moment that this takes; where files can be locked."""
        try:
            import fcntl
        except ImportError:
            self.where.mkdir(parents=True, exist_ok=True)
            yield
            return
        handle = self._lock_handle(fcntl)
        try:
            yield
        finally:
            os.close(handle)

    def _lock_handle(self, fcntl: Any) -> int:
        """Open the folder's lock file and take its lock; both are made anew if the folder goes away meanwhile."""
        path, end = self.where / ".lock", time.monotonic() + LONGEST_WAIT
        while True:
            self.where.mkdir(parents=True, exist_ok=True)
            try:
                handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
            except FileNotFoundError:
                continue
            if _flocked(handle, fcntl) and path.exists() and os.path.samestat(os.fstat(handle), path.stat()):
                return handle
            os.close(handle)
            if time.monotonic() > end:
                raise TimeoutError(errno.ETIMEDOUT, "another process has held its lock for too long", str(path))
            time.sleep(0.01)


def _tag(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _flocked(handle: int, fcntl: Any) -> bool:
    """Take the lock of a file; False if another process has it. File systems without locks do without."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
