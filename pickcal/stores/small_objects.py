"""Small objects by name, in a folder or under a prefix of an object store alike: event records, leases.

Each operation is on one object and done whole or not at all; one who replaces or removes an object says which one it
means by the tag that was read with it, so that two who want the same cannot both have it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from pickcal.stores.places import Place, place

SUFFIX = ".events"
"""What is added to the name of a project for the folder or prefix beside it."""


class SmallObjects(Protocol):
    """Objects by name, in one folder or under one prefix."""

    @property
    def where(self) -> Place:
        """Folder or prefix."""
        ...

    def names(self) -> list[str]:
        """Names of all objects, sorted."""
        ...

    def read(self, name: str) -> tuple[bytes, str] | None:
        """Content of an object and a tag that changes with it; None if there is no such object."""
        ...

    def create(self, name: str, content: bytes) -> str | None:
        """Make an object and give its tag; None, and nothing done, if there is one of this name."""
        ...

    def replace(self, name: str, content: bytes, tag: str) -> str | None:
        """Replace an object that still has this tag and give the new one; None, and nothing done, if it has not."""
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


def beside(project: Place | str) -> SmallObjects:
    """Give the small objects of a project, in a folder or under a prefix of its name with `SUFFIX` behind it.

    Parameters
    ----------
    project
        Folder of the project or its URL; need not exist, and nothing is made yet.
    """
    home = place(project).absolute()
    return small_objects(home.with_name(home.name + SUFFIX))


def small_objects(where: Place) -> SmallObjects:
    """Give the small objects of a folder or prefix."""
    if isinstance(where, Path):
        from pickcal.stores.folder_objects import FolderObjects

        return FolderObjects(where)
    from pickcal.stores.bucket_objects import BucketObjects  # obstore is loaded where it is needed

    return BucketObjects(where)
