"""Small objects beside a project in an object store: five operations, each of one object.

The same operations as those of a folder beside a project on the disk; a tag tells whether an object is still the one
that was read.
"""

from __future__ import annotations

import hashlib

from pickcal.stores import objects
from pickcal.stores.objects import Changed, Stat
from pickcal.stores.places import Url, place


def beside(address: str, suffix: str) -> Objects:
    """Give the place beside a project whose name is that of the project with a suffix behind it.

    Parameters
    ----------
    address
        URL of the project with the suffix at its very end, behind options too if it has any.
    suffix
        The suffix, such as ".events".
    """
    project = place(address.removesuffix(suffix))
    assert isinstance(project, Url)
    return Objects(project.with_name(project.name + suffix))


class Objects:
    """Objects by name, under one prefix.

    Parameters
    ----------
    url
        What they are in.
    """

    def __init__(self, url: Url) -> None:
        self.url = url
        self._seen: dict[tuple[str, str], Stat] = {}

    def names(self) -> list[str]:
        """Names of all objects, sorted."""
        return sorted(name for name in objects.listed(self.url) if "/" not in name)

    def read(self, name: str) -> tuple[bytes, str] | None:
        """Content of an object and a tag that changes with it; None if there is no such object."""
        found = objects.read_marked(self.url / name)
        if found is None:
            return None
        content, stat = found
        tag = hashlib.sha256(content).hexdigest()
        self._seen[name, tag] = stat
        return content, tag

    def create(self, name: str, content: bytes) -> bool:
        """Make an object; False, and nothing done, if there is one of this name."""
        try:
            objects.write(self.url / name, content, "none")
        except Changed:
            return False
        return True

    def replace(self, name: str, content: bytes, tag: str) -> bool:
        """Replace an object that still has this tag; False, and nothing done, if it is another one or gone."""
        stat = self._known(name, tag)
        if stat is None:
            return False
        try:
            done = objects.write(self.url / name, content, stat)
        except Changed:
            return False
        self._seen[name, hashlib.sha256(content).hexdigest()] = done
        return True

    def remove(self, name: str, tag: str | None = None) -> bool:
        """Remove an object, if it still has this tag where one is given; False if nothing was removed.

        Stores cannot remove on a condition: an object is made empty on one, and then removed.
        """
        if tag is not None:
            if not self.replace(name, b"", tag):
                return False
        elif objects.stat(self.url / name) is None:
            return False
        objects.remove(self.url / name)
        return True

    def append(self, name: str, content: bytes) -> None:
        """Add to the end of an object that nobody else writes, by writing it anew; makes it if it is not there."""
        found = objects.read_marked(self.url / name)
        objects.write(self.url / name, (found[0] if found else b"") + content)

    def _known(self, name: str, tag: str) -> Stat | None:
        """Mark of an object that has a tag; None if it has another one."""
        if (name, tag) not in self._seen:
            found = self.read(name)
            if found is None or found[1] != tag:
                return None
        return self._seen.pop((name, tag))
