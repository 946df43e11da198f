"""EMAN's boxes: `.box` files of EMAN1, which many programs write, and `info/<micrograph>_info.json` of EMAN2.

Formats after EMAN2's `e2boxer.py`: a `.box` has the corner and the size of every box, the JSON has centres
`[x, y, "manual" or the name of the picker, score]` under "boxes"; y counts from the first row of the file in both.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pickcal.errors import InputError
from pickcal.formats.boxes import BOX_COLUMNS, is_boxes, positions, read_boxes, score_of
from pickcal.formats.boxes_write import box_columns, box_lines, corners, write_files
from pickcal.formats.foreign import HEAD, ROWS, Column, ExportBlock, ForeignPicks, categorical
from pickcal.formats.gautomatch import plain_stem
from pickcal.formats.opening import check_file, head_of

ENTRIES = ("x", "y", "kind", "score")
PROGRAMS = ("cryolo", "topaz", "gautomatch")
INFO = "_info"
MOST_ENTRIES = 64


def recognise(path: Path, head: bytes) -> bool:
    """Whether a file is rows of boxes alone, or a JSON object with "boxes".

    Parameters
    ----------
    path
        The file. Its name counts for an empty one, which is a `.box` without boxes if it is called so.
    head
        Its first `foreign.HEAD` bytes.
    """
    if head.lstrip().startswith(b"{"):
        # EMAN2 may have put the micrograph's CTF first, with its curves
        return b'"boxes"' in (path.read_bytes() if len(head) >= HEAD else head)
    return is_boxes(path, head)


def read_picks(path: Path) -> Iterator[ForeignPicks]:
    """Read the boxes of a micrograph.

    Parameters
    ----------
    path
        `.box` or `_info.json`; the micrograph is the file's stem, without Gautomatch's `_automatch` and EMAN2's
        `_info`.

    Yields
    ------
    ForeignPicks
        At least one. The columns of a `.box` are called "x", "y" (corner), "width", "height", "score", "column 6" and
        so on; those of a JSON "x", "y" (centre), "kind", "score", "column 5". The only score is "score". `program` is
        "eman" unless the file's folder is named after crYOLO, Topaz or Gautomatch: the files do not tell.

    Raises
    ------
    MissingFileError, InputError
        If the file is not there or damaged, or its boxes are ends of filaments or in a tomogram.
    """
    check_file(path, "a file of boxes")
    head = head_of(path)
    if head.lstrip().startswith(b"{"):
        yield from _read_json(path)
        return
    folder = path.absolute().parent.name.lower()
    program = next((name for name in PROGRAMS if name in folder), "eman")
    yield from read_boxes(path, program, plain_stem(path))


def _read_json(path: Path) -> Iterator[ForeignPicks]:
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError, OSError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({str(error)[:200]})") from None
    boxes = found.get("boxes") if isinstance(found, dict) else None
    if not isinstance(boxes, list):
        keys = ", ".join(map(str, found))[:200] if isinstance(found, dict) else type(found).__name__
        raise InputError(f'{path}: expected a list under "boxes", found {keys or "nothing"}')
    for number, box in enumerate(boxes, start=1):
        if not isinstance(box, list) or not 2 <= len(box) <= MOST_ENTRIES:
            raise InputError(f"{path}: box {number}: expected [x, y, kind, ...], found {str(box)[:60]}")
    width = max(map(len, boxes), default=3)
    names = [*ENTRIES[:width], *(f"column {n + 1}" for n in range(len(ENTRIES), width))]
    # of the whole file, so that parts of it are of one type
    columns = {name: _entries([box[n] if n < len(box) else None for box in boxes]) for n, name in enumerate(names)}
    stem = path.stem.removesuffix(INFO)
    for start in range(0, max(len(boxes), 1), ROWS):
        part = {name: values[start : start + ROWS] for name, values in columns.items()}
        x, y = positions(path, "x", part["x"], start), positions(path, "y", part["y"], start)
        scores = {"score": score_of(path, "score", part["score"], start)} if "score" in part else {}
        yield ForeignPicks("eman", path, part, x, y, stem=stem, scores=scores)


def _entries(values: list[Any]) -> Column:
    if all(value is None or (isinstance(value, int | float) and not isinstance(value, bool)) for value in values):
        try:
            if values and all(isinstance(value, int) for value in values):
                return np.array(values, dtype=np.int64)
            return np.array([np.nan if value is None else value for value in values], dtype=np.float64)
        except OverflowError:
            pass
    return categorical(
        ["" if value is None else value if isinstance(value, str) else json.dumps(value) for value in values]
    )


def write_picks(out: Path, blocks: Iterable[ExportBlock], *, box_px: float | None = None) -> list[Path]:
    """Write a `.box` file per micrograph.

    Parameters
    ----------
    out
        Folder; files are `<stem of the micrograph>.box`.
    blocks
        The picks. Columns of a `.box` that came in go out untouched, except its boxes where the picks were moved,
        scaled or swapped, and the main score follows as the last column; other picks get `x y width height score`.
    box_px
        Side of the boxes in pixels of the source; default: that of the boxes that came in.

    Returns
    -------
    list of Path
        The files; a micrograph without picks gets none.

    Raises
    ------
    InputError
        If there is no box size, or two micrographs would share a file.
    """
    return write_files(out, blocks, ".box", partial(_columns, box_px=box_px), box_lines)


def _columns(block: ExportBlock, box_px: float | None) -> dict[str, Column]:
    columns: dict[str, Column] = dict(zip(BOX_COLUMNS, corners(block, box_px), strict=False))
    if box_columns(block.source_program, block.source) == BOX_COLUMNS[:4]:
        columns |= {name: values for name, values in block.source.items() if name not in columns}
    columns["main"] = block.score
    return columns
