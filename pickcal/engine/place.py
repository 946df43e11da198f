"""Small objects beside a project: event records and leases.

`Place` is all that the engine asks of a store for them: a few operations, each of one object, which folders and object
stores alike can do. (`pickcal.stores.places.Place` is another thing: the path or URL that a user types.)
"""

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
from typing import Any, Protocol

from pickcal.stores.places import Url, place

SUFFIX = ".events"
"""What the name of a project's place adds to that of the project."""
LONGEST_WAIT = 10.0
"""Seconds to wait for another process that changes an object of the same folder."""


class Place(Protocol):
    """Objects by name, in one folder or under one prefix."""

    def names(self) -> list[str]:
        """Names of all objects, sorted."""
        ...

    def read(self, name: str) -> tuple[bytes, str] | None:
        """Content of an object and a tag that changes with it; None if there is no such object."""
        ...

    def create(self, name: str, content: bytes) -> bool:
        """Make an object; False, and nothing done, if there is one of this name."""
        ...

    def replace(self, name: str, content: bytes, tag: str) -> bool:
        """Replace an object that still has this tag; False, and nothing done, if it is another one or gone."""
        ...

    def remove(self, name: str, tag: str | None = None) -> bool:
        """Remove an object, if it still has this tag where one is given; False if nothing was removed."""
        ...

    def append(self, name: str, content: bytes) -> None:
        """Add to the end of an object that nobody else writes; makes it if it is not there.

        Objects that are appended to stay below `pickcal.engine.journal.RECORDS_PER_OBJECT` lines, so that a store
        that cannot append may write them anew, now and then.
        """
        ...

    def flush(self) -> None:
        """Write what was appended, where that is not done at once."""
        ...


def place_beside(project: Path | Url | str) -> Place:
    """Place of a project: a folder or prefix of its name with `SUFFIX` behind it; nothing is made yet.

    Parameters
    ----------
    project
        Folder of the project or its URL; need not exist.
    """
    where = place(project).absolute()
    beside = where.with_name(where.name + SUFFIX)
    if isinstance(beside, Path):
        return FolderPlace(beside)
    from pickcal.engine.object_place import ObjectPlace

    return ObjectPlace(beside)


class FolderPlace:
    """A place on a file system."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """See `Place.names`."""
        try:
            return sorted(path.name for path in self.folder.iterdir() if not path.name.startswith("."))
        except FileNotFoundError:
            return []

    def read(self, name: str) -> tuple[bytes, str] | None:
        """See `Place.read`."""
        try:
            content = (self.folder / name).read_bytes()
        except FileNotFoundError:
            return None
        return content, hashlib.sha256(content).hexdigest()

    def create(self, name: str, content: bytes) -> bool:
        """See `Place.create`."""
        with self._locked():
            if (self.folder / name).exists():
                return False
            self._write(name, content)
            return True

    def replace(self, name: str, content: bytes, tag: str) -> bool:
        """See `Place.replace`."""
        with self._locked():
            found = self.read(name)
            if found is None or found[1] != tag:
                return False
            self._write(name, content)
            return True

    def remove(self, name: str, tag: str | None = None) -> bool:
        """See `Place.remove`; a folder with nothing left in it goes too."""
        if not self.folder.exists():
            return False
        with self._locked():
            found = self.read(name)
            if found is None or (tag is not None and found[1] != tag):
                return False
            (self.folder / name).unlink()
            if not self.names():
                shutil.rmtree(self.folder, ignore_errors=True)
            return True

    def append(self, name: str, content: bytes) -> None:
        """See `Place.append`."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / name).open("ab") as file:
            file.write(content)

    def flush(self) -> None:
        """See `Place.flush`; nothing is kept back."""

    def _write(self, name: str, content: bytes) -> None:
        temporary = self.folder / f".{name}.{uuid.uuid4().hex[:8]}"
        try:
            temporary.write_bytes(content)
            temporary.replace(self.folder / name)
        finally:
            temporary.unlink(missing_ok=True)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keep others from changing objects for the moment that this takes; where files can be locked."""
        try:
            import fcntl
        except ImportError:
            self.folder.mkdir(parents=True, exist_ok=True)
            yield
            return
        handle = self._lock_handle(fcntl)
        try:
            yield
        finally:
            os.close(handle)

    def _lock_handle(self, fcntl: Any) -> int:
        """Open the folder's lock file and take its lock; both are made anew if the folder goes away meanwhile."""
        path, end = self.folder / ".lock", time.monotonic() + LONGEST_WAIT
        while True:
            self.folder.mkdir(parents=True, exist_ok=True)
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


def _flocked(handle: int, fcntl: Any) -> bool:
    """Take the lock of a file; False if another process has it. File systems without locks do without."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True
