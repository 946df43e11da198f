"""A project in an object store, where nothing can be renamed: what counts is written last, in one object.

- A project is there once its root's metadata are; they are written last, under the lock.
- A group that is replaced keeps its arrays in a version of its own, within the group; the group's metadata name the
  version, and are exchanged by one conditional write.
- The lock is a lease, see `stores.lease`.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from pickcal.errors import InputError, PickcalError, ProjectError
from pickcal.stores import objects
from pickcal.stores.bucket_objects import BucketObjects
from pickcal.stores.homes import META, UNLISTED, VERSION
from pickcal.stores.lease import Lease, held
from pickcal.stores.objects import Changed, Client
from pickcal.stores.places import Url

LONGEST_WAIT = 30.0
"""Seconds to wait for another process that saves; longer than a lease, so that a dead one is waited for."""
LEASE_SECONDS = 20.0
"""Seconds after which the lock of a process that shows no sign of life is over."""
LOCK = f"{UNLISTED}/lock"


class Bucket:
    """Home of a project in an object store.

    Parameters
    ----------
    place
        URL of the project.

    Raises
    ------
    InputError
        If the URL names a whole bucket.
    """

    def __init__(self, place: Url) -> None:
        if not place.key:
            raise InputError(f"{place}: expected the name of a project within the bucket, such as {place}p.zarr")
        self.place: Url = place

    def exists(self) -> bool:
        """See `Home.exists`."""
        return objects.stat(self.place / META) is not None

    def backing(self, part: str = "") -> Client:
        """See `Home.backing`."""
        return objects.client_of(self.place / part)

    @contextmanager
    def creating(self) -> Iterator[Bucket]:
        """See `Home.creating`.

        Raises
        ------
        ProjectError
            If there are objects that are no project's, or somebody else makes a project here.
        """
        if self.exists():
            raise ProjectError(f"{self.place}: exists already; choose another name or remove it")
        there = objects.listed(self.place, most=1)
        if there and objects.stat(self.place / LOCK) is None:  # who died while making a project left the lock
            raise ProjectError(
                f"{self.place}: expected nothing there, found objects that are no project's, such as "
                f"{min(there)!r}; choose another name"
            )
        with self._lease() as lease:
            if self.exists():
                raise ProjectError(f"{self.place}: exists already; choose another name or remove it")
            objects.remove_within(self.place, keep=(LOCK,))
            done = False
            try:
                yield self
                done = True
            finally:
                lease.check()
                if not done:
                    objects.remove_within(self.place, keep=(LOCK,))

    def mark(self, name: str) -> tuple[object, ...] | None:
        """See `Home.mark`."""
        if name.endswith(META):
            found = objects.stat(self.place / name)
            return None if found is None else (found.mark, found.version)
        made = hashlib.sha256()
        within = objects.listed(self.place / name)
        for key, stat in sorted(within.items()):
            made.update(f"{key} {stat.mark} {stat.version}\n".encode())
        return (len(within), made.hexdigest()) if within else None

    def marks(self, kind: str) -> tuple[tuple[object, ...], ...]:
        """See `Home.marks`."""
        within = objects.listed(self.place / kind)
        return tuple(
            (name.partition("/")[0], found.mark, found.version)
            for name, found in sorted(within.items())
            if name.count("/") == 1 and name.endswith(f"/{META}")
        )

    @contextmanager
    def locked(self) -> Iterator[None]:
        """See `Home.locked`; the lock of a process that died counts for nothing after `LEASE_SECONDS`."""
        with self._lease():
            yield

    def _lease(self) -> AbstractContextManager[Lease]:
        folder, _, name = LOCK.rpartition("/")
        return held(BucketObjects(self.place / folder), name, str(self.place), LEASE_SECONDS, LONGEST_WAIT)

    @contextmanager
    def replaced(self, kind: str, name: str) -> Iterator[Client]:
        """See `Home.replaced`; the version before stays until the next one, for those who read it."""
        place = self.place / kind / name
        with self._lease() as lease:
            old = objects.stat(place / META)
            before = self._version(place) if old is not None else ""
            version = f"v-{uuid.uuid4().hex[:12]}"
            try:
                yield objects.client_of(place / version)
                lease.check()
                metadata = json.loads(objects.read(place / version / META))
            except BaseException:
                objects.remove_within(place / version)
                raise
            metadata["attributes"][VERSION] = version
            try:
                objects.write(place / META, json.dumps(metadata).encode(), "none" if old is None else old)
            except Changed:
                objects.remove_within(place / version)
                raise ProjectError(
                    f"{self.place}: {kind} {name!r} was saved by somebody else meanwhile; look at it and save again"
                ) from None
            # a request that was interrupted, or got no answer, may be carried out all the same, even later: its version
            # stays, and the next one to save clears it away if nothing names it
            self._forget(place, (version, before))

    def _version(self, place: Url) -> str:
        attributes = json.loads(objects.read(place / META)).get("attributes", {})
        return str(attributes.get(VERSION, ""))

    def _forget(self, place: Url, keep: tuple[str, ...]) -> None:
        """Remove versions that nobody reads any more, and arrays of a group from before it had versions."""
        try:
            names = {name.partition("/")[0] for name in objects.listed(place) if "/" in name}
            for name in names.difference(keep):
                objects.remove_within(place / name)
        except PickcalError:
            pass  # the next one to save clears them away

    def write_note(self, name: str, text: str) -> None:
        """See `Home.write_note`."""
        objects.write(self.place / UNLISTED / name, text.encode())

    def read_note(self, name: str) -> str | None:
        """See `Home.read_note`."""
        try:
            return objects.read(self.place / UNLISTED / name).decode("utf-8")
        except FileNotFoundError:
            return None

    def remove_note(self, name: str) -> bool:
        """See `Home.remove_note`."""
        there = objects.stat(self.place / UNLISTED / name) is not None
        if there:
            objects.remove(self.place / UNLISTED / name)
        return there

    def notes(self) -> Iterator[tuple[str, float]]:
        """See `Home.notes`."""
        for name, found in objects.listed(self.place / UNLISTED).items():
            yield name, found.written

    @contextmanager
    def plainly(self) -> Iterator[None]:
        """See `Home.plainly`."""
        with objects.told(self.place):
            yield

    def room(self) -> int | None:
        """See `Home.room`."""
        return None
