r"""Topaz's tables of picks: `image_name`, `x_coord`, `y_coord`, and `score` where Topaz picked, separated by tabs.

Format after `topaz/utils/files.py` of tbepler/topaz: the table is read by `pandas.read_csv(sep="\t")`, so that more
columns and positions with decimals do no harm; `image_name` is the file's name without extension, and y counts from
the first row of the image. Topaz's `.box` files are read by `eman`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pickcal.formats.boxes import positions, score_of
from pickcal.formats.boxes_write import Stems
from pickcal.formats.delimited import read_delimited
from pickcal.formats.delimited_write import TableWriter, sources_beside
from pickcal.formats.foreign import Column, ExportBlock, ForeignPicks, categorical

NAME, X, Y, SCORE = "image_name", "x_coord", "y_coord", "score"


def recognise(path: Path, head: bytes) -> bool:
    """Whether a file is a table of Topaz: its first line has the three names, separated by tabs.

    Parameters
    ----------
    path
        The file; its name plays no part.
    head
        Its first `foreign.HEAD` bytes.
    """
    first = head.lstrip(b"\xef\xbb\xbf\r\n").split(b"\n", 1)[0].rstrip(b"\r")
    return {NAME.encode(), X.encode(), Y.encode()} <= set(first.replace(b'"', b"").split(b"\t"))


def read_picks(path: Path) -> Iterator[ForeignPicks]:
    """Read a table of Topaz.

    Parameters
    ----------
    path
        Text with `image_name`, `x_coord`, `y_coord` (pixels of the image that was picked; Topaz scales them back only
        if told to), optionally `score` and any other columns.

    Yields
    ------
    ForeignPicks
        At least one; main and only score "score", if the table has one.

    Raises
    ------
    MissingFileError, InputError
        If the file is not there or damaged, or a position is no finite number; with the row.
    """
    row = 0
    for columns in read_delimited(path, "\t", text=(NAME,), needs=(NAME, X, Y)):
        x, y = positions(path, X, columns[X], row), positions(path, Y, columns[Y], row)
        scores = {SCORE: score_of(path, SCORE, columns[SCORE], row)} if SCORE in columns else {}
        micrograph = columns[NAME]
        assert isinstance(micrograph, pd.Categorical)
        yield ForeignPicks("topaz", path, columns, x, y, micrograph=micrograph, scores=scores)
        row += len(x)


def write_picks(out: Path, blocks: Iterable[ExportBlock]) -> list[Path]:
    """Write a table that Topaz reads, whole or not at all.

    Parameters
    ----------
    out
        File to write; Topaz takes `.txt` and `.tab` for such tables.
    blocks
        The picks.

    Returns
    -------
    list of Path
        `out`.

    Raises
    ------
    InputError
        If micrographs share a file name in different folders, or a block has other columns than the first.

    Notes
    -----
    The four columns of Topaz come first: those of a Topaz table untouched, else the micrograph's stem, the position
    (whole numbers where all are) and the main score. The position is always in pixels of the source micrograph: where a
    table's own was scaled or swapped, or the pick was moved, it is replaced. Then follow the other source columns and
    ours by their names; a source column that is called like one of ours gets the prefix `source_`.
    """
    stems = Stems()
    with TableWriter(out, "\t", (NAME, X, Y, SCORE)) as table:
        for block in blocks:
            table.write(_columns(block, stems))
    return [out]


def _columns(block: ExportBlock, stems: Stems) -> dict[str, Column]:
    names = categorical([stems.of(str(name)) for name in block.micrographs["name"]])
    columns: dict[str, Column] = {NAME: names[block.index], X: _whole(block.x), Y: _whole(block.y)}
    columns[SCORE] = block.score
    source = dict(block.source)
    if block.source_program == "topaz" and {NAME, X, Y} <= set(source):
        columns[NAME] = source[NAME]
        if not block.moved:
            columns |= {X: source[X], Y: source[Y]}
        columns[SCORE] = source.get(SCORE, columns[SCORE])
        source = {name: values for name, values in source.items() if name not in columns}
    return columns | sources_beside(columns, block.ours, source)


def _whole(values: NDArray[np.float64]) -> NDArray[np.int64] | NDArray[np.float64]:
    whole = np.isfinite(values).all() and (np.abs(values) < 2**53).all() and (values == np.round(values)).all()
    return values.astype(np.int64) if whole else values
