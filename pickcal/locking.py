"""One writer at a time: the lock of a project, and folders that take the place of older ones in one step."""

from __future__ import annotations

import ctypes
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from pickcal.errors import ProjectError

LONGEST_WAIT = 30.0
"""Seconds to wait for another process that saves."""
FORGOTTEN = 60.0
"""Seconds after which a lock folder, on systems without file locks, counts as left behind."""
NEW, OLD = "new", "old"

_held = threading.local()


@contextmanager
def locked(project: Path) -> Iterator[None]:
    """Keep all others, threads and processes, from saving until the block ends; may be nested in one thread.

    The lock goes away with the process that holds it.

    Parameters
    ----------
    project
        Folder of the project, with its zarr.json.

    Raises
    ------
    ProjectError
        If another one holds the lock for longer than `LONGEST_WAIT`.
    """
    held: set[Path] = _held.__dict__.setdefault("paths", set())
    path = project.resolve()
    if path in held:
        yield
        return
    with _file_lock(path):
        held.add(path)
        try:
            yield
        finally:
            held.discard(path)


@contextmanager
def replaced(place: Path, aside: Path) -> Iterator[Path]:
    """Write a folder out of sight and put it in its place, complete or not at all; for one who holds the lock.

    What a process left that was killed while it replaced a folder is cleared away first, and what it took away put
    back.

    Parameters
    ----------
    place
        `PROJECT/KIND/NAME`; what is there is replaced, in one step where the system can.
    aside
        Folder on the same file system that nobody lists, the same one every time.

    Yields
    ------
    Path
        Name in `aside` of the folder to write. It takes its place when the block ends, and is removed after an error.
    """
    _settle(aside, place.parent.parent)
    staged = aside / f"{NEW}.{uuid.uuid4().hex[:12]}.{place.parent.name}.{place.name}"
    try:
        yield staged
        _take_place(staged, place)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def _settle(aside: Path, project: Path) -> None:
    for folder in aside.glob("*.*.*.*"):
        state, _, kind, name = folder.name.split(".", 3)
        place = project / kind / name
        if state == OLD and not place.exists():
            folder.rename(place)
        elif state in (NEW, OLD):
            shutil.rmtree(folder, ignore_errors=True)


def _take_place(staged: Path, place: Path) -> None:
    """Put a folder in its place; what was there is where `staged` was, or gone."""
    if not place.exists():
        staged.rename(place)
        return
    if _exchanged(staged, place):
        return
    aside = staged.with_name(OLD + staged.name.removeprefix(NEW))
    place.rename(aside)
    try:
        staged.rename(place)
    except OSError:
        aside.rename(place)
        raise
    shutil.rmtree(aside, ignore_errors=True)


def _exchanged(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; False where the system or the file system cannot."""
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE of Linux
    try:
        rename = ctypes.CDLL(None).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    rename.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


@contextmanager
def _file_lock(path: Path) -> Iterator[None]:
    """Hold the lock of a project: on its zarr.json, or where files cannot be locked by making a folder beside it."""
    try:
        import fcntl
    except ImportError:
        with _lock_folder(path):
            yield
        return
    try:
        handle = os.open(path / "zarr.json", os.O_RDWR)  # network file systems lock only what is open for writing
    except OSError:
        handle = os.open(path / "zarr.json", os.O_RDONLY)
    try:
        end = time.monotonic() + LONGEST_WAIT
        while True:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                _wait(path, end)
            except OSError:
                with _lock_folder(path):
                    yield
                return
        try:
            yield
        finally:
            fcntl.flock(handle, fcntl.LOCK_UN)  # a process forked meanwhile holds the file open too
    finally:
        os.close(handle)


@contextmanager
def _lock_folder(path: Path) -> Iterator[None]:
    folder = path.with_name(f".{path.name}.lock")
    end = time.monotonic() + LONGEST_WAIT
    while True:
        try:
            folder.mkdir()
            break
        except FileExistsError:
            with suppress(OSError):
                if time.time() - folder.stat().st_mtime > FORGOTTEN:
                    folder.rmdir()
            _wait(path, end)
    try:
        yield
    finally:
        with suppress(OSError):
            folder.rmdir()


def _wait(path: Path, end: float) -> None:
    if time.monotonic() > end:
        raise ProjectError(
            f"{path}: another process has been saving in this project for {LONGEST_WAIT:g} s; try again, and look for "
            "a process that hangs if that goes on"
        )
    time.sleep(0.01)
