"""Files packed as one ZIP file, the same bytes every time."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Sequence
from os.path import commonpath
from pathlib import Path

from pickcal.errors import InputError
from pickcal.formats.atomic import atomic_path

LONG_AGO = (1980, 1, 1, 0, 0, 0)


def zipped(paths: Sequence[Path], out: Path, root: Path | None = None) -> Path:
    """Pack files; the same files always give the same bytes.

    Parameters
    ----------
    paths
        Files.
    out
        The ZIP file; it appears whole or not at all.
    root
        Folder to which names within it are relative; default: the folder that all files share.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    InputError
        If there is no file to pack, or the ZIP file cannot be written.
    """
    if not paths:
        raise InputError(f"{out}: expected files to pack, found none; no pick is accepted")
    folder = Path(commonpath([path.parent for path in paths])) if root is None else root
    names = sorted((path.relative_to(folder).as_posix(), path) for path in paths)
    try:
        with atomic_path(out) as temporary, zipfile.ZipFile(temporary, "w") as archive:
            for name, path in names:
                entry = zipfile.ZipInfo(name, LONG_AGO)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = 0o644 << 16
                entry.create_system = 3
                entry.file_size = path.stat().st_size
                with path.open("rb") as source, archive.open(entry, "w") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
    except OSError as error:
        raise InputError(f"{out}: cannot be written ({error.strerror or error}); make room and try again") from None
    return out
