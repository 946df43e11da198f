"""Box files.

A `.box` file is rows of `x y width height [score ...]`, no header, any white space: the format of EMAN1 that Topaz,
crYOLO and Gautomatch write as well.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from pickcal.errors import InputError
from pickcal.formats.delimited import EXACT, MISSING, Kind, from_arrow, missing_as_null
from pickcal.formats.foreign import HEAD, ROWS, Column, ForeignPicks, text_of
from pickcal.formats.opening import check_file, open_binary

BOX_COLUMNS = ("x", "y", "width", "height", "score")
MARKS = (-3.0, -2.0, -1.0, 0.0)
"""Kinds of boxes that EMAN1 writes into the fifth column: 0 and -3 particles, -1 and -2 the ends of filaments."""
MOST_BOX_COLUMNS = 6
"""More make a file something else, unless its name says that it holds boxes."""
MOST_VALUES = 100
"""Values of a row: crYOLO writes 11. A row of thousands is a damaged file, and would take seconds to look through."""


def is_boxes(path: Path, head: bytes) -> bool:
    """Whether a file is rows of `x y width height [score ...]` alone: sizes whole and positive, rows of one length.

    An empty file counts if its name ends in `.box`: programs write those for micrographs without picks.
    """
    named = path.suffix.lower() in (".box", ".cbox")
    if not head.strip():
        return path.suffix.lower() == ".box"
    lines = head.splitlines()[: -1 if len(head) >= HEAD else None]
    rows = [line.split() for line in lines if line.strip()]
    width = len(rows[0]) if rows else 0
    if width < 4 or (width > MOST_BOX_COLUMNS and not named) or any(len(row) != width for row in rows):
        return False
    try:
        values = np.array(rows, dtype=np.float64)
    except ValueError:
        return False
    sizes = values[:, 2:4]
    return bool(np.isfinite(values[:, :4]).all() and (sizes > 0).all() and (sizes == np.round(sizes)).all())


def token_columns(path: Path, lines: Sequence[bytes], width: int, row: int) -> list[Column]:
    """Columns of white-space separated rows.

    Parameters
    ----------
    path
        For messages.
    lines
        The rows, none empty.
    width
        Values that every row must have.
    row
        Number of rows before these.

    Returns
    -------
    list of columns
        int64 where all are whole, else float64 (NaN where missing), else text.

    Raises
    ------
    InputError
        If a row has another number of values, too many of them, or is not UTF-8.
    """
    if width > MOST_VALUES:
        raise InputError(
            f"{path}: expected boxes, of at most {MOST_VALUES} values each, found {width:,} values in a row; "
            "the file is damaged or something else"
        )
    plain = _numbers(lines, width)
    if plain is not None:
        return plain
    rows = [line.split() for line in lines]
    for number, tokens in enumerate(rows, start=row + 1):
        if len(tokens) != width:
            raise InputError(
                f"{path}: row {number}: expected {width} values, found {len(tokens)}; the file is truncated or damaged"
            )
    likely = [n for n, token in enumerate(rows[0]) if token.decode("utf-8", "replace") in MISSING or _is_number(token)]
    found = dict(zip(likely, (_numbers(lines, len(likely), likely) or []) if likely else [], strict=False))
    columns: list[Column] = []
    for n in range(width):
        if n in found:
            columns.append(found[n])
            continue
        try:
            strings = pa.array([tokens[n] for tokens in rows], pa.binary()).cast(pa.string())
        except pa.ArrowException:
            raise InputError(f"{path}: column {n + 1}: expected UTF-8 text, found other bytes") from None
        given, kind = missing_as_null(strings), Kind()
        kind.look(given)
        # all missing is a column of numbers here: that is how crYOLO fills columns it has no use for
        target = kind.type if kind.seen else pa.float64()
        columns.append(from_arrow(f"{path}: column {n + 1}", strings if target is None else given.cast(target)))
    return columns


def _numbers(lines: Sequence[bytes], width: int, which: list[int] | None = None) -> list[Column] | None:
    """Columns that are nothing but numbers, which is quicker to see than to look for what else they are."""
    try:
        text = b"".join(lines).replace(b"<NA>", b"nan").decode("ascii").replace("\r\n", "\n").split("\n")
        values = np.loadtxt(text, dtype=np.float64, comments=None, ndmin=2, usecols=which)
    except (ValueError, OverflowError, UserWarning):
        return None
    if values.shape != (len(lines), width) or not (np.abs(values[np.isfinite(values)]) < EXACT).all():
        return None
    whole = (np.isfinite(values) & (values == np.rint(values))).all(axis=0)
    return [values[:, n].astype(np.int64) if whole[n] else values[:, n].copy() for n in range(width)]


def read_boxes(path: Path, program: str, stem: str) -> Iterator[ForeignPicks]:
    """Read a `.box` file.

    Parameters
    ----------
    path
        Rows of `x y width height [score ...]`; x, y is the corner of the box next to the first pixel.
    program, stem
        For `ForeignPicks`.

    Yields
    ------
    ForeignPicks
        Columns "x", "y", "width", "height", "score", "column 6", ...; at least one block, which may have no rows. A
        fifth column of nothing but EMAN1's marks (-3 to 0) is called "mark" and is no score.

    Raises
    ------
    MissingFileError, InputError
        If the file is not there or has other rows, or marks the ends of filaments (-1 and -2).
    """
    check_file(path, "a box file")
    row, names = 0, list(BOX_COLUMNS[:4])
    with open_binary(path) as file:
        while lines := _filled(file):
            width = len(names) if row else len(lines[0].split())
            if width < 4:
                raise InputError(f"{path}: row 1: expected at least 4 values (x y width height), found {width}")
            columns = token_columns(path, lines, width, row)
            if not row:
                names = [*BOX_COLUMNS[:width], *(f"column {n + 1}" for n in range(5, width))]
                if width > 4 and _marks(path, columns[4]):
                    names[4] = "mark"
            yield _boxes(path, program, stem, dict(zip(names, columns, strict=True)), row)
            row += len(lines)
    if not row:
        empty: dict[str, Column] = {name: np.empty(0, dtype=np.int64) for name in names}
        yield _boxes(path, program, stem, empty, 0)


def _filled(file: BinaryIO) -> list[bytes]:
    while lines := list(islice(file, ROWS)):
        if filled := [line for line in lines if not line.isspace()]:
            return filled
    return []


def _marks(path: Path, column: Column) -> bool:
    if isinstance(column, pd.Categorical):
        return False
    found = set(np.unique(column).tolist())
    if found == {-1, -2}:
        raise InputError(f"{path}: expected boxes of particles, found the ends of filaments (-1 and -2 in column 5)")
    return found <= set(MARKS)


def _boxes(path: Path, program: str, stem: str, columns: dict[str, Column], row: int) -> ForeignPicks:
    x, y, width, height = (positions(path, name, columns[name], row) for name in BOX_COLUMNS[:4])
    scores = {"score": score_of(path, "score", columns["score"], row)} if "score" in columns else {}
    return ForeignPicks(program, path, columns, x + width / 2, y + height / 2, stem=stem, scores=scores)


def positions(path: Path, name: str, column: Column, row: int) -> NDArray[np.float64]:
    """Take a column of positions, every one a finite number.

    Parameters
    ----------
    path, name
        File and column, for the message.
    column
        The values.
    row
        Number of rows before this block.

    Raises
    ------
    InputError
        Naming the row, if a value is missing, infinite or text.
    """
    if isinstance(column, pd.Categorical) or column.dtype.kind not in "iuf" or column.ndim != 1:
        values = text_of(column).ravel()
        bad = next((n for n, value in enumerate(values) if not _is_number(value)), 0)
        found = f"{str(values[bad])[:40]!r} in row {row + bad + 1}" if len(values) else "no number"
        raise InputError(f"{path}: column {name}: expected numbers, found {found}")
    values = column.astype(np.float64)
    wrong = np.flatnonzero(~np.isfinite(values))
    if len(wrong):
        raise InputError(
            f"{path}: column {name}: row {row + int(wrong[0]) + 1}: expected a finite number, found "
            f"{values[wrong[0]]}; remove the row"
        )
    return values


def _is_number(value: Any) -> bool:
    try:
        return bool(np.isfinite(float(value)))
    except (TypeError, ValueError, OverflowError):
        return False


def score_of(path: Path, name: str, column: Column, row: int) -> NDArray[np.floating]:
    """Take a column of scores as floats, NaN where missing.

    Raises
    ------
    InputError
        Naming the row, if a score is text.
    """
    if isinstance(column, pd.Categorical) and set(column.categories) <= set(MISSING):
        return np.full(len(column), np.nan)  # a text table's column without any value says nothing of its kind
    if isinstance(column, pd.Categorical) or column.ndim != 1 or column.dtype.kind not in "iuf":
        return positions(path, name, column, row)
    return column if column.dtype.kind == "f" else column.astype(np.float64)
