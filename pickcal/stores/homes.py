"""Homes of projects: what a project asks of the place it is in, whether that is a folder or an object store."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol

from pickcal.stores.places import Place, Url, place

UNLISTED = "drafts/files"
"""An array without values, in whose folder neither Zarr nor xarray lists anything: drafts, locks, what is half made."""
META = "zarr.json"
VERSION = "version"
"""Attribute of a group that names the group within it which holds its arrays, see `stores.bucket`."""
Backing = Any
"""What `project.backing.zarr_store` opens: a folder, or a client of obstore."""


class Home(Protocol):
    """Where one project is."""

    @property
    def place(self) -> Place:
        """Folder or URL."""
        ...

    def exists(self) -> bool:
        """Whether something is there, complete or not at all."""
        ...

    def backing(self, part: str = "") -> Backing:
        """Give what Zarr opens as the root, or as one group."""
        ...

    def creating(self) -> AbstractContextManager[Home]:
        """Give a home to fill, which is there as a whole once the block ends, and not at all after an error.

        The root's metadata are to be written last.
        """
        ...

    def mark(self, name: str) -> tuple[object, ...] | None:
        """Give what differs after an object, or something within a folder, was written anew; None where nothing is."""
        ...

    def marks(self, kind: str) -> tuple[tuple[object, ...], ...]:
        """Give the marks of all groups of a kind."""
        ...

    def locked(self) -> AbstractContextManager[None]:
        """Keep all others from saving until the block ends; may be nested in one thread.

        Raises
        ------
        ProjectError
            If another one holds the lock for longer than half a minute.
        """
        ...

    def replaced(self, kind: str, name: str) -> AbstractContextManager[Backing]:
        """Give what to fill with a group that then takes the place of an old one as a whole; under `locked`."""
        ...

    def write_note(self, name: str, text: str) -> None:
        """Keep a small file that nobody lists, whole or not at all."""
        ...

    def read_note(self, name: str) -> str | None:
        """Read such a file; None where there is none."""
        ...

    def remove_note(self, name: str) -> bool:
        """Remove such a file, and tell whether it was there."""
        ...

    def notes(self) -> Iterator[tuple[str, float]]:
        """Yield the names of such files, and when they were written (seconds since 1970)."""
        ...

    def plainly(self) -> AbstractContextManager[None]:
        """Turn errors of an object store within the block into a `ProjectError` with plain words."""
        ...

    def room(self) -> int | None:
        """Bytes that are free; None where there is no limit that is known."""
        ...


def home_of(where: Path | Url | str) -> Home:
    """Give the home of the project at a place."""
    found = place(where)
    if isinstance(found, Url):
        from pickcal.stores.bucket import Bucket  # obstore is loaded where it is needed

        return Bucket(found)
    from pickcal.stores.folder import Folder

    return Folder(found)
