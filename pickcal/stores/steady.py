"""Folders on file systems that falter: a request that fails for a passing reason is made again, a few times.

Network file systems answer now and then with an error that is gone a moment later. Object stores have their own
retries, see `stores.objects`. What hangs in a folder cannot be given up here, since the thread that hangs could still
write later: the engine ends the process after a batch's time limit.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from zarr.abc.buffer import Buffer
from zarr.storage import LocalStore

T = TypeVar("T")

PASSING = frozenset(
    getattr(errno, name)
    for name in ("EIO", "ESTALE", "EAGAIN", "EBUSY", "ETIMEDOUT", "ENETDOWN", "ENETUNREACH", "EHOSTDOWN", "EREMOTEIO")
    if hasattr(errno, name)
)
"""Errors that may be gone a moment later; a full disk or a missing right is not among them."""
ATTEMPTS = 6
FIRST_PAUSE = 0.05
"""Seconds before the second attempt; doubled before each further one."""


class SteadyStore(LocalStore):
    """Zarr's store in a folder, which asks again where the file system falters."""

    async def get(self, *arguments: Any, **options: Any) -> Buffer | None:
        """See `zarr.storage.LocalStore.get`."""
        return await again(lambda: super(SteadyStore, self).get(*arguments, **options))

    async def set(self, key: str, value: Buffer) -> None:
        """See `zarr.storage.LocalStore.set`."""
        await again(lambda: super(SteadyStore, self).set(key, value))

    async def exists(self, key: str) -> bool:
        """See `zarr.storage.LocalStore.exists`."""
        return await again(lambda: super(SteadyStore, self).exists(key))

    async def delete(self, key: str) -> None:
        """See `zarr.storage.LocalStore.delete`."""
        await again(lambda: super(SteadyStore, self).delete(key))


async def again(request: Callable[[], Awaitable[T]]) -> T:
    """Make a request, and make it again after a pause if it fails for a passing reason.

    Raises
    ------
    OSError
        If it fails for another reason, or `ATTEMPTS` times.
    """
    for attempt in range(ATTEMPTS - 1):
        try:
            return await request()
        except OSError as error:
            if error.errno not in PASSING:
                raise
        await asyncio.sleep(FIRST_PAUSE * 2**attempt)
    return await request()
