"""Text tables written block by block: CSV, Topaz's tables, the rows of boxes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from pickcal.errors import InputError
from pickcal.formats.atomic import atomic_path
from pickcal.formats.foreign import Column, categorical


def flat(columns: Mapping[str, Column]) -> dict[str, Column]:
    """Columns of several numbers a row as several columns, `name[0]`, `name[1]`, ..."""
    out: dict[str, Column] = {}
    for name, column in columns.items():
        if isinstance(column, pd.Categorical) or column.ndim == 1:
            out[name] = column
        else:
            wide = column.reshape(len(column), -1)
            out |= {f"{name}[{n}]": wide[:, n] for n in range(wide.shape[1])}
    return out


def delimited(columns: Iterable[Column], separator: str, missing: str = "", quote: bool = True) -> bytes:
    r"""Rows of a text table, each ending in a line feed.

    Parameters
    ----------
    columns
        Of one length, one number or text a row.
    separator
        Between the values.
    missing
        What stands for NaN.
    quote
        True: text with the separator, quotes or line breaks is quoted as in CSV. False: white space in text becomes
        `_` and empty text `missing`.

    Returns
    -------
    bytes
        Floats have the fewest digits that read back to the same value of their type.
    """
    columns = list(columns)
    if not missing and quote and (quick := _unquoted(columns, separator)) is not None:
        return quick
    return joined_rows([_strings(column, separator, missing, quote) for column in columns], separator)


def joined_rows(columns: Sequence[Any], separator: str) -> bytes:
    """Join Arrow columns of text to rows, each ending in a line feed.

    Parameters
    ----------
    columns
        Of one length, without nulls.
    separator
        Between the values.
    """
    ended = pc.binary_join_element_wise(pc.binary_join_element_wise(*columns, separator), "", "\n")
    if not len(ended):
        return b""
    offsets = np.frombuffer(ended.buffers()[1], dtype=np.int32)
    return memoryview(ended.buffers()[2])[: offsets[len(ended)]].tobytes()


def _unquoted(columns: Sequence[Column], separator: str) -> bytes | None:
    """Rows by pyarrow's own writer, which does no quoting but where it is not needed; None if some text needs it."""
    arrays = []
    for column in columns:
        if isinstance(column, pd.Categorical):
            arrays.append(pa.array(column).cast(pa.string()))
        elif column.dtype.kind in "iufb" and column.dtype != np.float16:
            arrays.append(pa.array(column, from_pandas=True))
        else:
            return None
    table = pa.table(arrays, names=[str(n) for n in range(len(arrays))])
    options = pyarrow.csv.WriteOptions(include_header=False, delimiter=separator, quoting_style="none")
    out = pa.BufferOutputStream()
    try:
        pyarrow.csv.write_csv(table, out, options)
    except pa.ArrowInvalid:
        return None
    return memoryview(out.getvalue()).tobytes()


def _strings(column: Column, separator: str, missing: str, quote: bool) -> Any:
    if not isinstance(column, pd.Categorical) and column.dtype.kind in "iufb":
        values = column.astype(np.float32) if column.dtype == np.float16 else column
        strings = pa.array(values, from_pandas=True).cast(pa.string())
        return pc.fill_null(strings, missing)
    column = column if isinstance(column, pd.Categorical) else categorical(column)
    words = [_word(str(word), separator, missing, quote) for word in column.categories]
    code = np.where(column.codes < 0, len(words), column.codes)
    return pa.array([*words, missing], pa.string()).take(pa.array(code))


def _word(word: str, separator: str, missing: str, quote: bool) -> str:
    if not quote:
        return re.sub(r"\s+", "_", word.strip()) or missing
    if separator in word or any(mark in word for mark in '"\r\n'):
        return '"' + word.replace('"', '""') + '"'
    return word


SAID = ("probability", "q_value", "reason")
"""What a calibration and a selection say of a pick, where they do."""


def sources_beside(
    base: Mapping[str, Column], ours: Mapping[str, Column], source: Mapping[str, Column]
) -> dict[str, Column]:
    """Source columns and then ours; a source column named as one of `base` or ours gets the prefix `source_`.

    So does one that is named as what another selection said of the pick, also where this one does not say it.
    """
    taken, out = {*base, *ours, *SAID}, {}
    for name, values in flat(source).items():
        while name in taken:
            name = f"source_{name}"
        taken.add(name)
        out[name] = values
    return out | {name: values for name, values in flat(ours).items() if name not in base}


class TableWriter:
    """A text table written part by part, whole or not at all.

    Parameters
    ----------
    path
        File to write.
    separator
        Between values.
    header
        Columns of a table to which nothing was written.
    """

    def __init__(self, path: Path, separator: str, header: Sequence[str]) -> None:
        self.path, self.separator, self.header = path, separator, list(header)
        self._started = False

    def __enter__(self) -> Self:
        """Open a temporary file."""
        with ExitStack() as stack:
            self._file = stack.enter_context(stack.enter_context(atomic_path(self.path)).open("wb"))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        """Put the file in its place, or remove it after an error."""
        if error[0] is None and not self._started:
            self._head()
        self._stack.__exit__(*error)

    def write(self, columns: Mapping[str, Column]) -> None:
        """Write rows.

        Raises
        ------
        InputError
            If the columns are not those of the rows before.
        """
        if not self._started:
            self.header = list(columns)
            self._head()
        elif list(columns) != self.header:
            other = sorted(set(columns) ^ set(self.header)) or list(columns)
            raise InputError(
                f"{self.path}: expected the same columns for all picks, found {', '.join(other)} in some only"
            )
        self._file.write(delimited(columns.values(), self.separator))

    def _head(self) -> None:
        self._started = True
        names = (_word(name, self.separator, "", quote=True) for name in self.header)
        self._file.write((self.separator.join(names) + "\n").encode())
