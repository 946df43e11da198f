"""Columns of many blocks on their way into one `.cs` file.

Neither the number of rows nor the width of a text is known before the last block, and both stand before the rows. The
blocks are therefore put column by column into a temporary file first, texts as numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from pickcal.errors import InputError
from pickcal.formats.cryosparc_files import TEXT
from pickcal.formats.foreign import ROWS

CODE = np.dtype(np.int32)


class Texts(NamedTuple):
    """Text per row: `codes` into `names`, -1 for none."""

    codes: NDArray[Any]
    names: NDArray[Any]


Values = NDArray[Any] | Texts


class Spool:
    """Columns of many blocks in a temporary file, to be read back piece by piece.

    Parameters
    ----------
    path
        The file to be written in the end, for messages.
    handle
        The temporary file.
    """

    def __init__(self, path: Path, handle: IO[bytes]) -> None:
        self.path, self.handle = path, handle
        self.rows = 0
        self.lengths: list[int] = []
        self.fields: dict[str, np.dtype[Any]] = {}
        self.texts: dict[str, dict[str, int]] = {}
        self._places: list[dict[str, int]] = []
        self._pending: list[tuple[int, dict[str, NDArray[Any]]]] = []

    def add(self, rows: int, columns: Mapping[str, Values]) -> None:
        """Take the columns of a block; InputError if a column is of another type than before."""
        self._pending.append((rows, {name: self._plain(name, values) for name, values in columns.items()}))
        self.rows += rows
        if self.rows - sum(self.lengths) >= ROWS:
            self.flush()

    def _plain(self, name: str, values: Values) -> NDArray[Any]:
        if isinstance(values, Texts):
            dtype, plain = TEXT, self._intern(name, values)
        else:
            plain = values.astype(values.dtype.newbyteorder("="), copy=False)
            dtype = np.dtype((plain.dtype, plain.shape[1:]))
        known = self.fields.setdefault(name, dtype)
        if known != dtype:
            raise InputError(
                f"{self.path}: field {name}: expected one type in all picks, found {_kind(known)} and {_kind(dtype)}; "
                "export picks of different files separately"
            )
        return plain

    def _intern(self, name: str, values: Texts) -> NDArray[np.int32]:
        table = self.texts.setdefault(name, {"": 0})
        lookup = np.zeros(len(values.names) + 1, CODE)
        for code in np.flatnonzero(np.bincount(values.codes + 1, minlength=1)[1:]):
            text = str(values.names[code])
            if "\0" in text:
                raise InputError(f"{self.path}: field {name}: {text!r} holds a null character, which cannot be written")
            lookup[code] = table.setdefault(text, len(table))
        return np.asarray(lookup[values.codes])

    def flush(self) -> None:
        """Put what was taken into the file; to be called after the last block."""
        if not self._pending:
            return
        places = {}
        self.handle.seek(0, 2)
        for name in dict.fromkeys(name for _, columns in self._pending for name in columns):
            places[name] = self.handle.tell()
            for rows, columns in self._pending:
                values = columns[name] if name in columns else self._missing(name, rows)
                self.handle.write(np.ascontiguousarray(values).data.cast("B") if values.size else b"")
        self._places.append(places)
        self.lengths.append(sum(rows for rows, _ in self._pending))
        self._pending = []

    def _missing(self, name: str, rows: int) -> NDArray[Any]:
        dtype = self.fields[name]
        if dtype == TEXT:
            return np.zeros(rows, CODE)
        return np.full((rows, *dtype.shape), np.nan if dtype.base.kind in "fc" else 0, dtype.base)

    def piece(self, number: int, name: str) -> NDArray[Any]:
        """Rows of a column, texts as places in `texts`."""
        rows, dtype = self.lengths[number], self.fields[name]
        if name not in self._places[number]:
            return self._missing(name, rows)
        stored = CODE if dtype == TEXT else dtype
        self.handle.seek(self._places[number][name])
        data = self.handle.read(rows * stored.itemsize)
        return np.frombuffer(data, stored.base).reshape(rows, *stored.shape)

    def check_uids(self) -> None:
        """Refuse a uid that comes twice."""
        uids = np.sort(np.concatenate([self.piece(number, "uid") for number in range(len(self.lengths))]))
        twice = np.flatnonzero(uids[1:] == uids[:-1])
        if len(twice):
            raise InputError(
                f"{self.path}: uid {uids[twice[0]]} comes twice among the picks; were the same picks given twice?"
            )


def _kind(dtype: np.dtype[Any]) -> str:
    return "text" if dtype == TEXT else str(dtype)


def write_numpy(out: IO[bytes], spool: Spool) -> None:
    """Write the NumPy form, rows of packed fields, as NumPy's own `save` would.

    Parameters
    ----------
    out
        The file.
    spool
        All columns.
    """
    tables = {}
    for name, table in spool.texts.items():
        encoded = [text.encode("utf-8") for text in table]
        tables[name] = np.array(encoded, dtype=f"S{max(1, *map(len, encoded))}")
    dtype = np.dtype([(n, tables[n].dtype if d == TEXT else d.base, d.shape) for n, d in spool.fields.items()])
    header = {"descr": npy.dtype_to_descr(dtype), "fortran_order": False, "shape": (spool.rows,)}
    try:
        npy.write_array_header_1_0(out, header)
    except ValueError:
        npy.write_array_header_2_0(out, header)
    for number, rows in enumerate(spool.lengths):
        records = np.empty(rows, dtype)
        for name in spool.fields:
            values = spool.piece(number, name)
            records[name] = tables[name][values] if name in tables else values
        out.write(records.data.cast("B") if rows else b"")
