"""Memory that one task frees serves the next."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import cache

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
LARGEST_MMAP_THRESHOLD = 32 * 2**20
"""Bytes: the most that GNU's C library takes; arrays below it come from memory that is kept."""
KEPT = 2**28
"""Bytes of freed memory that a process keeps for the next task."""


@cache
def keep_freed_memory() -> None:
    """Tell the C library, once in a process, not to hand the memory of freed arrays back to the system at once.

    Otherwise every large temporary of every micrograph is new memory, which the system clears page by page. Does
    nothing where the C library is not GNU's.
    """
    with suppress(OSError, AttributeError, TypeError):
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        library.mallopt(M_TRIM_THRESHOLD, KEPT)
