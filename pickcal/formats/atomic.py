"""Files that appear whole or not at all."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pickcal.errors import InputError

LONGEST_NAME = 255
"""Bytes of a file name that file systems take."""


class Within:
    """Files below a folder whose names come from tables: none of them leads out of it.

    Parameters
    ----------
    folder
        What is written to. It may be a link itself; links below it that lead out are not followed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._inside: set[Path] = set()

    def file(self, name: str, of: str) -> Path:
        """Path of a file.

        Parameters
        ----------
        name
            Name relative to the folder.
        of
            The micrograph that it is of, for messages.

        Raises
        ------
        InputError
            If the file would not be in the folder, or cannot have this name.
        """
        path = self.folder / name
        if "\0" in name or any(len(part.encode()) > LONGEST_NAME for part in path.parts):
            raise InputError(f"micrograph {of[:60]!r}: no file can have its name; rename it in the table")
        if path.parent not in self._inside:
            root = self.folder.resolve()
            if not path.parent.resolve().is_relative_to(root):
                raise InputError(
                    f"micrograph {of!r}: its file would be written to {path.parent.resolve()}, which is not in {root}; "
                    "remove the link there, or choose another folder"
                )
            self._inside.add(path.parent)
        return path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` that takes its place when the block ends well.

    On any exception, an interrupt too, the temporary file is removed and what was at `path` stays as it was.

    Parameters
    ----------
    path
        File to write. Folders on the way to it are created; an existing file is replaced.

    Yields
    ------
    Path
        Path in the same folder and with the same suffix, to be written by the caller.

    Raises
    ------
    InputError
        If `path` is a folder, or its folder cannot be made.
    """
    if path.is_dir():
        raise InputError(f"{path}: expected a file to write, found a folder; give a file name")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{path}: its folder cannot be made ({error.strerror}); give another place") from None
    temporary = path.with_name(f".{path.stem}.{uuid.uuid4().hex[:12]}{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
