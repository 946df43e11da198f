"""Opening foreign files: one that is not there, is a folder or cannot be read is refused in words."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from pickcal.errors import InputError, MissingFileError
from pickcal.formats.foreign import HEAD


def check_file(path: Path, kind: str) -> None:
    """Refuse what is not a file.

    Parameters
    ----------
    path
        What was named.
    kind
        What it should be, for the message.

    Raises
    ------
    MissingFileError, InputError
        If `path` is not there, or a folder.
    """
    if path.is_dir():
        raise InputError(f"{path}: expected {kind}, found a folder")
    if not path.is_file():
        raise MissingFileError(f"{path}: no such file; expected {kind}")


def open_binary(path: Path) -> BinaryIO:
    """Open a file for reading.

    Raises
    ------
    InputError
        If the system does not allow it, with what it says.
    """
    try:
        return path.open("rb")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def head_of(path: Path) -> bytes:
    """Read the first `foreign.HEAD` bytes of a file, by which it is recognised.

    Raises
    ------
    MissingFileError, InputError
        If it is not there, is a folder, or cannot be read.
    """
    if not path.exists():
        raise MissingFileError(f"{path}: no such file")
    if path.is_dir():
        raise InputError(f"{path}: expected a file, found a folder")
    with open_binary(path) as file:
        try:
            return file.read(HEAD)
        except OSError as error:
            raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
