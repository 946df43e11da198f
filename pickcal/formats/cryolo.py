"""crYOLO's `.cbox` files: STAR with a table `cryolo` of boxes (corner and size) of one micrograph.

Format after crYOLO's `CoordsIO.py` (`write_cbox_file`, `read_cbox_boxfile`): version 1.0 in `data_global`, the boxes in
`data_cryolo`, slices of a tomogram in `data_cryolo_include`. Boxes below crYOLO's threshold are in it, too. The older
`.cbox` without blocks (`x y width height confidence est_width est_height`) is read as well; crYOLO's `.box` files,
which have lost the confidence or carry it in column 5, are read by `eman`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import BinaryIO

import numpy as np

from pickcal.errors import InputError
from pickcal.formats.boxes import is_boxes, positions, read_boxes, score_of, token_columns
from pickcal.formats.boxes_write import corners, write_files
from pickcal.formats.delimited_write import delimited, sources_beside
from pickcal.formats.foreign import ROWS, Column, ExportBlock, ForeignPicks
from pickcal.formats.opening import check_file, open_binary

X, Y, WIDTH, HEIGHT, CONFIDENCE = "CoordinateX", "CoordinateY", "Width", "Height", "Confidence"
LABELS = (X, Y, "CoordinateZ", WIDTH, HEIGHT, "Depth", "EstWidth", "EstHeight", CONFIDENCE, "NumBoxes", "Angle")
ESTIMATED = ("EstWidth", "EstHeight")
BLOCK = b"data_cryolo"


def recognise(path: Path, head: bytes) -> bool:
    """Whether a file has crYOLO's table of boxes.

    Parameters
    ----------
    path
        The file; only for the old layout, which is the same as a `.box`, its name must end in `.cbox`.
    head
        Its first `foreign.HEAD` bytes.
    """
    if any(line.strip() == BLOCK for line in head.splitlines()):
        return True
    return path.suffix.lower() == ".cbox" and is_boxes(path, head)


def read_picks(path: Path) -> Iterator[ForeignPicks]:
    """Read a `.cbox` file of a micrograph.

    Parameters
    ----------
    path
        The file; the micrograph is its stem.

    Yields
    ------
    ForeignPicks
        At least one; columns are the labels without underscore, `<NA>` is NaN. Main and only score "confidence".
        `_Angle` is the direction of a filament and no in-plane rotation, so it stays a column.

    Raises
    ------
    MissingFileError, InputError
        If the file is not there or damaged, or holds boxes in several slices of a tomogram.
    """
    check_file(path, "a .cbox file")
    with open_binary(path) as file:
        labels, lines = _table(path, file)
        if labels:
            row = 0
            while (rows := list(islice(lines, ROWS))) or not row:
                if not rows:
                    yield _picks(path, {label: np.empty(0) for label in labels}, 0)
                    return
                yield _picks(path, dict(zip(labels, token_columns(path, rows, len(labels), row), strict=True)), row)
                row += len(rows)
            return
    for part in read_boxes(path, "cryolo", path.stem):
        yield replace(part, scores=dict(zip(("confidence",), part.scores.values(), strict=False)))


def _table(path: Path, file: BinaryIO) -> tuple[list[str], Iterator[bytes]]:
    """Labels of the table of boxes, without underscore, and its rows; no labels if there is no such block."""
    if not any(line.strip() == BLOCK for line in file):
        file.seek(0)
        return [], iter(())
    labels: list[str] = []
    first: list[bytes] = []
    for line in file:
        if line.lstrip().startswith(b"_"):
            labels.append(line.split()[0][1:].decode("utf-8", "replace"))
        elif labels and not line.isspace():
            first.append(line)
            break
    lacking = [label for label in (X, Y, WIDTH, HEIGHT) if label not in labels]
    if lacking or len(set(labels)) < len(labels):
        found = ", ".join(labels)[:300] or "none"
        raise InputError(
            f"{path}: block data_cryolo: expected {', '.join(lacking) or 'every label once'}, found {found}"
        )
    return labels, _rows(chain(first, file))


def _rows(lines: Iterable[bytes]) -> Iterator[bytes]:
    for line in lines:
        if line.lstrip().startswith((b"data_", b"loop_")):
            return
        if not line.isspace() and not line.lstrip().startswith(b"#"):
            yield line


def _picks(path: Path, columns: dict[str, Column], row: int) -> ForeignPicks:
    x, y, width, height = (positions(path, label, columns[label], row) for label in (X, Y, WIDTH, HEIGHT))
    if "CoordinateZ" in columns:
        z = score_of(path, "CoordinateZ", columns["CoordinateZ"], row)
        if len(np.unique(z[np.isfinite(z)])) > 1:
            raise InputError(
                f"{path}: expected boxes of a micrograph, found several slices of a tomogram (_CoordinateZ)"
            )
    scores = {"confidence": score_of(path, CONFIDENCE, columns[CONFIDENCE], row)} if CONFIDENCE in columns else {}
    return ForeignPicks("cryolo", path, columns, x + width / 2, y + height / 2, stem=path.stem, scores=scores)


def write_picks(out: Path, blocks: Iterable[ExportBlock], *, box_px: float | None = None) -> list[Path]:
    """Write a `.cbox` file per micrograph, as crYOLO and its box manager read them.

    Parameters
    ----------
    out
        Folder; files are `<stem of the micrograph>.cbox`.
    blocks
        The picks. Columns of a `.cbox` go out untouched, except its corners, sizes and estimated sizes where the
        picks were moved, scaled or swapped; for other picks `_Confidence` is the main score, which
        crYOLO's thresholds take for a number in [0, 1]: choose the probability to use them. Ours follow by their
        names, white space in text turned into `_`.
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
    return write_files(out, blocks, ".cbox", partial(_columns, box_px=box_px), _content)


def _columns(block: ExportBlock, box_px: float | None) -> dict[str, Column]:
    x, y, width, height = corners(block, box_px)
    none = np.full(len(block), np.nan)
    base: dict[str, Column] = dict.fromkeys(LABELS, none)
    base |= {X: x, Y: y, WIDTH: width, HEIGHT: height, "EstWidth": width, "EstHeight": height}
    base[CONFIDENCE] = block.score
    source = dict(block.source)
    if block.source_program == "cryolo" and {X, Y, WIDTH, HEIGHT} <= set(source):
        theirs = {label: values for label, values in source.items() if label in LABELS}
        base |= theirs | _estimated(block) | {X: x, Y: y, WIDTH: width, HEIGHT: height}
        source = {label: values for label, values in source.items() if label not in LABELS}
    return base | sources_beside(base, block.ours, source)


def _estimated(block: ExportBlock) -> dict[str, Column]:
    """Sizes that crYOLO estimated, where they are not in pixels of the source micrograph yet."""
    found = {label: block.source[label] for label in ESTIMATED if label in block.source}
    if block.scale != 1:
        found = {label: np.asarray(values, dtype=np.float64) * block.scale for label, values in found.items()}
    return dict(zip(reversed(found), found.values(), strict=True)) if block.swapped else found


def _content(columns: dict[str, Column]) -> bytes:
    z = np.asarray(columns["CoordinateZ"], dtype=np.float64)
    labels = "\n".join(f"_{'_'.join(label.split())} #{n}" for n, label in enumerate(columns, start=1))
    slices = "".join(f"{value:g}\n" for value in np.unique(z[np.isfinite(z)]))
    return b"".join(
        (
            b"\ndata_global\n\n_cbox_format_version 1.0\n\ndata_cryolo\n\nloop_\n",
            f"{labels}\n".encode(),
            delimited(columns.values(), " ", missing="<NA>", quote=False),
            f"\ndata_cryolo_include\n\nloop_\n_slice_index #1\n{slices}".encode(),
        )
    )
