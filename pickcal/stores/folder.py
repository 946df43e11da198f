"""A project in a folder: groups take their place by renaming, and files are locked by the system."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pickcal.formats.atomic import atomic_path
from pickcal.locking import locked, replaced
from pickcal.stores.homes import META, UNLISTED


class Folder:
    """Home of a project on this machine, or on a file system that it shares with others.

    Parameters
    ----------
    place
        The folder.
    """

    def __init__(self, place: Path) -> None:
        self.place: Path = place

    def exists(self) -> bool:
        """See `Home.exists`."""
        return self.place.exists()

    def backing(self, part: str = "") -> Path:
        """See `Home.backing`."""
        return self.place / part

    @contextmanager
    def creating(self) -> Iterator[Folder]:
        """See `Home.creating`."""
        partial = self.place.with_name(f".{self.place.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        try:
            yield Folder(partial)
            partial.rename(self.place)
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def mark(self, name: str) -> tuple[object, ...] | None:
        """See `Home.mark`."""
        try:
            found = (self.place / name).stat()
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_mtime_ns, found.st_ino

    def marks(self, kind: str) -> tuple[tuple[object, ...], ...]:
        """See `Home.marks`."""
        names = sorted(place.parent.name for place in (self.place / kind).glob(f"*/{META}"))
        found = ((name, self.mark(f"{kind}/{name}/{META}")) for name in names)
        return tuple((name, *mark) for name, mark in found if mark is not None)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """See `Home.locked`; the lock goes away with the process that holds it."""
        with locked(self.place):
            yield

    @contextmanager
    def replaced(self, kind: str, name: str) -> Iterator[Path]:
        """See `Home.replaced`; in one step where the system can."""
        with replaced(self.place / kind / name, self.place / UNLISTED) as staged:
            yield staged

    def write_note(self, name: str, text: str) -> None:
        """See `Home.write_note`."""
        with atomic_path(self.place / UNLISTED / name) as temporary:
            temporary.write_text(text, encoding="utf-8")

    def read_note(self, name: str) -> str | None:
        """See `Home.read_note`."""
        try:
            return (self.place / UNLISTED / name).read_text(encoding="utf-8")
        except FileNotFoundError:
            return None

    def remove_note(self, name: str) -> bool:
        """See `Home.remove_note`."""
        try:
            (self.place / UNLISTED / name).unlink()
        except OSError:
            return False
        return True

    def notes(self) -> Iterator[tuple[str, float]]:
        """See `Home.notes`."""
        try:
            files = list((self.place / UNLISTED).iterdir())
        except OSError:
            return
        for file in files:
            with suppress(OSError):
                yield file.name, file.stat().st_mtime

    @contextmanager
    def plainly(self) -> Iterator[None]:
        """See `Home.plainly`; the system's own errors are plain."""
        yield

    def room(self) -> int | None:
        """See `Home.room`."""
        folder = self.place.absolute().parent
        folder.mkdir(parents=True, exist_ok=True)
        return shutil.disk_usage(folder).free
