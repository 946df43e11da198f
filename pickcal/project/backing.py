"""The stores of Zarr in which projects are: a request that fails for a passing reason is made again.

Network file systems answer now and then with an error that is gone a moment later. What hangs in a folder cannot be
given up here, since the thread that hangs could still write later: the engine ends the process after a batch's time
limit. Object stores have their own retries, see `stores.objects`.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from zarr.abc.buffer import Buffer
from zarr.abc.store import Store
from zarr.storage import LocalStore, ObjectStore

T = TypeVar("T")

PASSING = frozenset(
    getattr(errno, name)
    for name in ("EIO", "ESTALE", "EAGAIN", "EBUSY", "ETIMEDOUT", "ENETDOWN", "ENETUNREACH", "EHOSTDOWN", "EREMOTEIO")
    if hasattr(errno, name)
)
"""Errors that may be gone a moment later; a full disk or a missing right is not among them."""
FOLDER_ATTEMPTS = 6
FIRST_PAUSE = 0.05
"""Seconds before the second attempt; doubled before each further one."""


class SteadyStore(LocalStore):
    """Zarr's store in a folder, which asks again where the file system falters."""

    async def get(self, *arguments: Any, **options: Any) -> Buffer | None:
        """See `zarr.storage.LocalStore.get`."""
        return await _asked_again(lambda: super(SteadyStore, self).get(*arguments, **options))

    async def set(self, key: str, value: Buffer) -> None:
        """See `zarr.storage.LocalStore.set`."""
        await _asked_again(lambda: super(SteadyStore, self).set(key, value))

    async def exists(self, key: str) -> bool:
        """See `zarr.storage.LocalStore.exists`."""
        return await _asked_again(lambda: super(SteadyStore, self).exists(key))

    async def delete(self, key: str) -> None:
        """See `zarr.storage.LocalStore.delete`."""
        await _asked_again(lambda: super(SteadyStore, self).delete(key))


async def _asked_again(request: Callable[[], Awaitable[T]]) -> T:
    """Make a request, and make it again after a pause if it fails for a passing reason.

    Raises
    ------
    OSError
        If it fails for another reason, or `FOLDER_ATTEMPTS` times.
    """
    for attempt in range(FOLDER_ATTEMPTS - 1):
        try:
            return await request()
        except OSError as error:
            if error.errno not in PASSING:
                raise
        await asyncio.sleep(FIRST_PAUSE * 2**attempt)
    return await request()


class _Objects(ObjectStore[Any]):
    """Zarr's store over obstore, which makes requests again that got no answer, and looks before it makes a group.

    Who makes a group here holds the lock of the project, or is the only one to write it: a conditional request, which
    could not be made again, is not needed.
    """

    async def get(self, *arguments: Any, **options: Any) -> Buffer | None:
        """Read an object, or part of it."""
        return await _again(lambda: super(_Objects, self).get(*arguments, **options))

    async def set(self, key: str, value: Buffer) -> None:
        """Write an object."""
        await _again(lambda: super(_Objects, self).set(key, value))

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write an object unless there is one."""
        if not await self.exists(key):
            await self.set(key, value)

    async def exists(self, key: str) -> bool:
        """Whether there is an object."""
        return await _again(lambda: super(_Objects, self).exists(key))

    async def delete(self, key: str) -> None:
        """Remove an object."""
        await _again(lambda: super(_Objects, self).delete(key))

    def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:
        """List names within a prefix."""
        return self._listed(prefix)

    async def _listed(self, prefix: str) -> AsyncGenerator[str, None]:
        async def whole() -> list[str]:
            return [name async for name in super(_Objects, self).list_dir(prefix)]

        for name in await _again(whole):
            yield name


async def _again(request: Callable[[], Awaitable[T]]) -> T:
    """Await a request, and make it again if it got no answer; as `stores.objects.again`."""
    from pickcal.stores.objects import ATTEMPTS, is_passing

    for _ in range(ATTEMPTS - 1):
        try:
            return await request()
        except Exception as error:
            if not is_passing(error):
                raise
    return await request()


def zarr_store(backing: Any, read_only: bool = False) -> Store:
    """Open what a home gives (`stores.homes.Backing`) as a store of Zarr: a folder, or a client of obstore."""
    if isinstance(backing, Path):
        return SteadyStore(backing, read_only=read_only)
    return _Objects(backing, read_only=read_only)
