"""Files of object stores for readers that know of files only: a copy on the local disk that goes away after use.

Of an MRC file only the header, or the header and one slice, are fetched; the copy has the size of the object all the
same, with holes that take no space.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pickcal.errors import PickcalError
from pickcal.formats import mrc
from pickcal.formats.images import split_name
from pickcal.stores.places import Place, Url, place

HEAD = 65_536
"""Bytes that are fetched to recognise a file; enough for most headers."""

APART = 2**22
"""Bytes of a file between two that are asked for to see whether it is in the system's cache."""


def split_place(name: str) -> tuple[int | None, Place]:
    """Split `000001@file` into slice (0-based, None for none) and the place of the file, which may be a URL.

    Raises
    ------
    InputError
        If the slice is 0, or the URL is none.

    Examples
    --------
    >>> index, found = split_place("000003@s3://bucket/s.mrcs")
    >>> index, str(found)
    (2, 's3://bucket/s.mrcs')
    """
    index, file = split_name(name)
    return index, place(file)


@contextmanager
def fetched(where: Place) -> Iterator[Path]:
    """Give a local file with the content of a place; errors that name the copy name the place instead.

    Raises
    ------
    MissingFileError, InputError
        If there is no such object, or the store refuses or does not answer.
    """
    if isinstance(where, Path):
        yield where
        return
    from pickcal.stores import objects

    with _copy(where) as path:
        path.write_bytes(objects.read(where))
        yield path


@contextmanager
def fetched_image(where: Place, index: int | None = None, pixels: bool = True) -> Iterator[Path]:
    """As `fetched`, of an image file, with as little of it as is needed.

    Parameters
    ----------
    where
        MRC or TIFF file.
    index
        0-based slice that is to be read; None for all.
    pixels
        False: only the header is to be read.

    Raises
    ------
    MissingFileError, InputError
        If there is no such object, or the store refuses or does not answer.
    """
    if isinstance(where, Path):
        yield where
        return
    from pickcal.stores import objects

    with _copy(where) as path:
        head, size = objects.read_start(where, HEAD)
        path.write_bytes(head)
        wanted = _wanted(path, head, index, pixels)
        if size > len(head) and wanted is None:
            path.write_bytes(objects.read(where))
        elif size > len(head) and wanted is not None:
            with path.open("r+b") as file:
                start, length = wanted
                if length:
                    file.seek(start)
                    file.write(objects.read_range(where, start, max(0, min(length, size - start))))
                file.truncate(size)
        yield path


def into_cache(path: Path, index: int | None = None) -> None:
    """Wait until the system has read an image file into its cache; that takes next to no processor time.

    Parameters
    ----------
    path
        MRC or TIFF file; nothing is done for one that cannot be read.
    index
        0-based slice; None (default) for the whole file.
    """
    try:
        with path.open("rb", buffering=0) as file, Path(os.devnull).open("wb", buffering=0) as nowhere:
            size = os.fstat(file.fileno()).st_size
            start, length = _wanted(path, file.read(HEAD), index, pixels=True) or (0, size)
            end = min(start + length, size)
            if _cached(file.fileno(), start, end):
                return
            while start < end and (sent := os.sendfile(nowhere.fileno(), file.fileno(), start, end - start)):
                start += sent
    except (OSError, AttributeError):  # not there, which is for the reader to say; or not every system sends to files
        pass


def _cached(file: int, start: int, end: int) -> bool:
    """Whether the system has a part of a file in its cache, by some bytes of it."""
    byte = bytearray(1)
    try:
        return all(os.preadv(file, [byte], at, os.RWF_NOWAIT) for at in (*range(start, end, APART), end - 1))
    except (OSError, AttributeError, NotImplementedError):  # BlockingIOError: not there; others: it cannot be told
        return False


def _wanted(path: Path, head: bytes, index: int | None, pixels: bool) -> tuple[int, int] | None:
    """Start and length of what is needed beside the beginning; None for the whole file."""
    if not mrc.looks_like_mrc(head):
        return None
    if not pixels:
        return 0, 0
    try:
        header = mrc.read_header(path)
    except PickcalError:
        return None
    if index is None or header.dtype is None or header.images < 2:
        return None
    length = header.height * header.width * header.dtype.itemsize
    return header.offset + index * length, length


@contextmanager
def _copy(where: Url) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="pickcal-") as folder:
        path = Path(folder) / where.name
        try:
            yield path
        except PickcalError as error:
            text = str(error)
            if folder not in text:
                raise
            raise type(error)(text.replace(str(path), str(where)).replace(folder, str(where.parent))) from None
