"""What the writers of a file of boxes per micrograph share."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import numpy as np

from pickcal.errors import InputError
from pickcal.formats.atomic import Within, atomic_path
from pickcal.formats.boxes import BOX_COLUMNS
from pickcal.formats.delimited_write import delimited
from pickcal.formats.foreign import Column, ExportBlock, rows_of
from pickcal.formats.images import STACK_NAME

EXTENSIONS = frozenset(
    {".mrc", ".mrcs", ".map", ".rec", ".st", ".ali", ".tif", ".tiff", ".eer", ".dm3", ".dm4", ".hdf", ".h5", ".spi"}
    | {".img", ".png", ".jpg", ".jpeg"}
)
SOURCE_BOXES = {
    "cryolo": (("CoordinateX", "CoordinateY", "Width", "Height"), BOX_COLUMNS[:4]),
    "eman": (BOX_COLUMNS[:4],),
    "gautomatch": (BOX_COLUMNS[:4],),
    "topaz": (BOX_COLUMNS[:4],),
}
"""Columns of corner and size in the files of every program whose files hold boxes."""


def box_columns(program: str, columns: Collection[str]) -> tuple[str, ...] | None:
    """Names of corner and size among the columns that came in with picks of a program; None if these hold no boxes."""
    return next((names for names in SOURCE_BOXES.get(program, ()) if set(names) <= set(columns)), None)


def micrograph_stem(name: str) -> str:
    """Name of a micrograph's files: its file name without folder and image extension.

    Parameters
    ----------
    name
        Name or path of a micrograph; for image n of a stack (`n@file`) the number follows the stem. Only extensions
        of image files are cut: names without one may hold dots.

    Examples
    --------
    >>> micrograph_stem("MotionCorr/job002/Movies/a.mrc"), micrograph_stem("a_1.5"), micrograph_stem("3@s.mrcs")
    ('a', 'a_1.5', 's_000003')
    """
    match = STACK_NAME.fullmatch(name)
    number, file = (int(match[1]), match[2]) if match else (None, name)
    last = re.split(r"[\\/]", file)[-1]
    stem, dot, extension = last.rpartition(".")
    stem = stem if stem and f"{dot}{extension}".lower() in EXTENSIONS else last
    return stem if number is None else f"{stem}_{number:06d}"


class Stems:
    """Stems of the micrographs written so far; two that would share one are refused."""

    def __init__(self) -> None:
        self.owner: dict[str, str] = {}

    def of(self, name: str) -> str:
        """Stem of a micrograph.

        Raises
        ------
        InputError
            If another micrograph has it.
        """
        stem = micrograph_stem(name)
        other = self.owner.setdefault(stem, name)
        if other != name:
            raise InputError(
                f"micrographs {other} and {name} are both {stem!r} without their folder; export them separately"
            )
        return stem


def corners(block: ExportBlock, box_px: float | None) -> list[Column]:
    """Corner and size of the boxes: x, y, width, height in pixels of the source.

    Parameters
    ----------
    block
        The picks. Boxes that came in with them go out as they are; if the picks were moved, around their new places.
    box_px
        Side of all boxes; None: those that came in.

    Raises
    ------
    InputError
        If the side is not positive, or there is none.
    """
    known = box_columns(block.source_program, block.source)
    if box_px is None and known is None:
        raise InputError("box_px: these picks came without boxes; give the side of the boxes in pixels")
    if box_px is not None and not (np.isfinite(box_px) and box_px > 0):
        raise InputError(f"box_px: expected a number of pixels above 0, got {box_px}")
    if box_px is None and known is not None:
        x, y, width, height = (block.source[name] for name in known)
        if not block.moved:
            return [x, y, width, height]
        sides = (np.asarray(width) * block.scale, np.asarray(height) * block.scale)
        width, height = sides[::-1] if block.swapped else sides
    else:
        width = height = np.full(len(block), box_px)
    return [block.x - np.asarray(width) / 2, block.y - np.asarray(height) / 2, width, height]


def write_files(
    out: Path,
    blocks: Iterable[ExportBlock],
    suffix: str,
    columns_of: Callable[[ExportBlock], dict[str, Column]],
    content: Callable[[dict[str, Column]], bytes],
) -> list[Path]:
    """Write a file per micrograph, `out/<stem><suffix>`, each whole or not at all.

    Parameters
    ----------
    out
        Folder.
    blocks
        The picks, every micrograph in one block.
    suffix
        End of the file names.
    columns_of
        Columns to write of a block.
    content
        Makes the file of some rows of them.

    Returns
    -------
    list of Path
        The files. A micrograph without picks gets none, and what an earlier export left of it is removed.

    Raises
    ------
    InputError
        If two micrographs would share a file, or one comes twice.
    """
    stems, files, within = Stems(), dict[Path, None](), Within(out)
    for block in blocks:
        columns = columns_of(block)
        edges = np.searchsorted(block.index, np.arange(len(block.micrographs) + 1))
        for n, name in enumerate(block.micrographs["name"]):
            file = within.file(f"{stems.of(str(name))}{suffix}", str(name))
            if file in files:
                raise InputError(f"{file}: micrograph {name} comes twice; give all its picks at once")
            if edges[n] == edges[n + 1]:
                file.unlink(missing_ok=True)
                continue
            with atomic_path(file) as temporary:
                temporary.write_bytes(content(rows_of(columns, slice(int(edges[n]), int(edges[n + 1])))))
            files[file] = None
    return list(files)


def box_lines(columns: dict[str, Column]) -> bytes:
    """Rows of a `.box` file."""
    return delimited(columns.values(), "\t", missing="nan", quote=False)
