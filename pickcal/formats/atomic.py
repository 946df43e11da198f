"""Files that appear whole or not at all."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pickcal.errors import InputError


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
