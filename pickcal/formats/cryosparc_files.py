"""The two forms of a `.cs` file, read without unpickling and without trust, and the y convention.

NumPy form: a structured array in `.npy` format (numpy.lib.format). Stream form: a magic number (95 hex, CSDAT), a JSON
header, the columns one after the other, most of them LZ4 blocks, and at the end a heap of the texts that text columns
point into, as cryosparc-tools 5 (`cryosparc.dataset`) defines it. Its own loader follows whatever pointers and sizes a
damaged file holds out of its memory; here they are checked, and only its LZ4 decoder is used.
"""

from __future__ import annotations

import io
import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import pandas as pd
from numpy.lib import format as npy
from numpy.typing import NDArray

from pickcal.errors import InputError, MissingFileError
from pickcal.formats.foreign import ROWS, Column

NUMPY_MAGIC = b"\x93NUMPY"
STREAM_MAGIC = b"\x95CSDAT"
OLD_STREAM_MAGIC = b"\x94CSDAT"

TEXT = np.dtype(object)
STREAM_NUMBERS = frozenset(["f4", "f8", "c8", "c16", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8"])
HEADER_BYTES = 1 << 20
LZ4_RATIO = 256  # an LZ4 block cannot expand further
SAVE_AGAIN = "save it again with cryosparc-tools, or export it again from cryoSPARC"

Rows = slice | NDArray[np.intp]


@dataclass(frozen=True)
class CsFile:
    """An open `.cs` file: its header is checked, its rows are read on demand.

    Attributes
    ----------
    path
        The file.
    rows
        Number of rows.
    fields
        Type of every field in the order of the file, with the shape of its values; `object` for text.
    """

    path: Path
    rows: int
    fields: dict[str, np.dtype[Any]]

    def uids(self) -> NDArray[np.uint64]:
        """Field `uid` of all rows."""
        raise NotImplementedError

    def take(self, rows: Rows) -> dict[str, Column]:
        """All fields of some rows: a slice of step 1, or row numbers in any order."""
        raise NotImplementedError


@dataclass(frozen=True)
class NumpyFile(CsFile):
    """NumPy form; rows are read from the file each time."""

    offset: int
    dtype: np.dtype[Any]

    def uids(self) -> NDArray[np.uint64]:
        """Field `uid` of all rows."""
        out = np.empty(self.rows, np.uint64)
        for at in range(0, self.rows, ROWS):
            out[at : at + ROWS] = self._slice(at, min(at + ROWS, self.rows))["uid"]
        return out

    def take(self, rows: Rows) -> dict[str, Column]:
        """All fields of some rows: a slice of step 1, or row numbers in any order."""
        if isinstance(rows, slice):
            start, stop, _ = rows.indices(self.rows)
            records = self._slice(start, stop)
        elif len(rows) and (np.diff(rows) == 1).all():
            records = self._slice(int(rows[0]), int(rows[-1]) + 1)
        elif len(rows):
            records = np.memmap(self.path, self.dtype, "r", self.offset, (self.rows,))[rows]
        else:
            records = np.empty(0, self.dtype)
        return {name: self._column(name, records[name]) for name in self.fields}

    def _slice(self, start: int, stop: int) -> NDArray[Any]:
        with self.path.open("rb") as handle:
            handle.seek(self.offset + start * self.dtype.itemsize)
            records = np.fromfile(handle, self.dtype, stop - start)
        if len(records) < stop - start:
            raise InputError(f"{self.path}: truncated while it was read; give the whole file")
        return records

    def _column(self, name: str, values: NDArray[Any]) -> Column:
        if self.fields[name] == TEXT:
            return text_column(np.ascontiguousarray(values), f"{self.path}: field {name}")
        return np.ascontiguousarray(values, dtype=values.dtype.newbyteorder("="))


@dataclass(frozen=True)
class StreamFile(CsFile):
    """Stream form; the format holds whole columns, so they are all in memory."""

    columns: dict[str, Column]

    def uids(self) -> NDArray[np.uint64]:
        """Field `uid` of all rows."""
        return np.asarray(self.columns["uid"], dtype=np.uint64)

    def take(self, rows: Rows) -> dict[str, Column]:
        """All fields of some rows: a slice of step 1, or row numbers in any order."""
        return {name: values[rows] for name, values in self.columns.items()}


def file_rows(y_frac: NDArray[Any], height: Any, flip: bool = True) -> NDArray[np.float64]:
    """Rows of a micrograph file from cryoSPARC's fractions of its height.

    Parameters
    ----------
    y_frac
        location/center_y_frac, counted from the last row.
    height
        Rows of the micrograph.
    flip
        True (default): for the micrograph file that cryoSPARC picked, y = height (1 - y_frac), as csparc2star.py of
        pyem has it (issues 81, 101 and 133 there). False: for the same micrograph corrected by another program.
        cryoSPARC's Patch Motion writes its own micrographs upside down against those of RELION and MotionCor, the two
        mirrorings cancel, and y = height y_frac. Angles (`pick_stats/angle_rad`, `ctf/df_angle_rad`) change their sign
        between such micrographs.

        Sources disagree on which case is which: helicon, slabpick and the crYOLO example of cryosparc-tools take
        y = height y_frac for the very file that was picked. Look at the picks on an image before trusting either.

    Returns
    -------
    array
        Pixels, y growing with the row.
    """
    fraction = np.asarray(y_frac, dtype=np.float64)
    return np.asarray((1.0 - fraction if flip else fraction) * height, dtype=np.float64)


def file_fraction(y: NDArray[Any], height: Any, flip: bool = True) -> NDArray[np.float64]:
    """Fractions of the height as cryoSPARC counts them from rows of a micrograph file, the inverse of `file_rows`.

    Parameters
    ----------
    y
        Pixels, growing with the row.
    height, flip
        As for `file_rows`.

    Returns
    -------
    array
        location/center_y_frac.
    """
    fraction = np.asarray(y, dtype=np.float64) / height
    return np.asarray(1.0 - fraction if flip else fraction, dtype=np.float64)


def unpack(data: bytes, values: NDArray[Any]) -> int:
    """Unpack an LZ4 block into an array, never beyond its end, and return the number of bytes in it."""
    from cryosparc.dataset.core import Stream  # type: ignore[import-untyped]

    return len(Stream(None).decompress_numpy(data, values))


def is_cs(head: bytes) -> bool:
    """Tell whether a file that begins with `head` is a `.cs` file of either form."""
    if head.startswith((STREAM_MAGIC, OLD_STREAM_MAGIC)):
        return True
    if not head.startswith(NUMPY_MAGIC):
        return False
    try:
        return "uid" in (_npy_header(io.BytesIO(head))[1].names or ())
    except Exception:  # whatever numpy and ast raise on damaged text: the file is not recognised
        return False


def open_cs(path: Path) -> CsFile:
    """Open a `.cs` file of either form and check its header and size.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    CsFile
        The file.

    Raises
    ------
    MissingFileError
        If there is no such file.
    InputError
        If it is no `.cs` file, holds Python objects, is truncated or damaged, or has no field `uid`.
    """
    if path.is_dir():
        raise InputError(f"{path}: expected a .cs file, found a folder")
    if not path.is_file():
        raise MissingFileError(f"{path}: no such .cs file")
    try:
        with path.open("rb") as handle:
            magic = handle.read(6)
            size = os.fstat(handle.fileno()).st_size
            if magic == NUMPY_MAGIC:
                return _open_numpy(path, handle, size)
            if magic == STREAM_MAGIC:
                return _open_stream(path, handle, size)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None
    if magic == OLD_STREAM_MAGIC:
        raise InputError(f"{path}: in the stream form of cryosparc-tools before 4.2, which is not read; {SAVE_AGAIN}")
    found = "an empty file" if size == 0 else f"the bytes {magic!r}"
    raise InputError(f"{path}: expected a .cs file (it begins with \\x93NUMPY or \\x95CSDAT), found {found}")


def text_column(values: NDArray[Any], where: str) -> pd.Categorical:
    """Turn NumPy text (S or U, one value per row) into categories; `where` names it in errors."""
    # picks come micrograph after micrograph: only the first row of a run of equal text is looked at
    begins = np.ones(len(values), dtype=bool)
    begins[1:] = values[1:] != values[:-1]
    starts = np.flatnonzero(begins)
    try:
        codes, unique = pd.factorize(np.array(values[starts].tolist(), dtype=object))
        names = [name.decode("utf-8") if isinstance(name, bytes) else str(name) for name in unique]
        categories = pd.Index(names, dtype="str")
    except ValueError as error:
        raise InputError(f"{where}: expected UTF-8 text ({error}); {SAVE_AGAIN}") from None
    return pd.Categorical.from_codes(np.repeat(codes, np.diff(np.append(starts, len(values)))), categories=categories)


def _npy_header(handle: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = npy.read_magic(handle)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version[0]}.{version[1]} of the NumPy format")
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # cryoSPARC before 4 ran on Python 2, whose headers numpy warns of
        shape, _, dtype = read(handle, max_header_size=HEADER_BYTES)
    return shape, dtype


def _open_numpy(path: Path, handle: IO[bytes], size: int) -> NumpyFile:
    handle.seek(0)
    try:
        shape, dtype = _npy_header(handle)
    except Exception as error:  # numpy passes on whatever ast and dtype raise, RecursionError and MemoryError too
        message = str(error).splitlines()[0][:200] if str(error) else ""
        raise InputError(f"{path}: damaged NumPy header ({type(error).__name__}: {message!r}); {SAVE_AGAIN}") from None
    if dtype.names is None or len(shape) != 1:
        raise InputError(f"{path}: expected rows of fields, found a plain array {shape} of {dtype}; is it a .cs file?")
    fields = {name: _numpy_field(path, name, dtype[name]) for name in dtype.names}
    _check_uid(path, fields)
    offset, rows = handle.tell(), shape[0]
    held = (size - offset) / dtype.itemsize
    if rows < 0 or held != rows:
        raise InputError(
            f"{path}: expected {rows} rows of {dtype.itemsize} bytes after the header, found {held:g}; the file is "
            "truncated or damaged, copy it again"
        )
    return NumpyFile(path, rows, fields, offset, dtype)


def _numpy_field(path: Path, name: str, dtype: np.dtype[Any]) -> np.dtype[Any]:
    where = f"{path}: field {name!r}"
    if not name.isprintable():
        raise InputError(f"{where}: expected a printable name; the file is damaged")
    if dtype.hasobject:
        raise InputError(f"{where}: holds Python objects, which would run code when read; {SAVE_AGAIN}")
    if dtype.base.kind in "SU" and dtype.shape == ():
        return TEXT
    if dtype.base.kind not in "biufc":
        raise InputError(f"{where}: expected numbers or one text per row, found {dtype}")
    return dtype


def _check_uid(path: Path, fields: dict[str, np.dtype[Any]]) -> None:
    if "uid" not in fields:
        raise InputError(f"{path}: expected the field uid, found {', '.join(fields) or 'no field'}")
    if fields["uid"].kind != "u" or fields["uid"].itemsize != 8 or fields["uid"].shape:
        raise InputError(f"{path}: field uid: expected 64-bit unsigned integers, found {fields['uid']}")


def _open_stream(path: Path, handle: IO[bytes], size: int) -> StreamFile:
    rows, fields, compressed = _stream_header(path, handle, size)
    raw: dict[str, NDArray[Any]] = {}
    for name, dtype in fields.items():
        stored = np.dtype(np.uint64) if dtype == TEXT else dtype
        if rows == 0:
            raw[name] = np.empty((0, *stored.shape), stored.base)
            continue
        raw[name] = _stream_column(f"{path}: field {name}", handle, size, rows, stored, name in compressed)
    heap = handle.read()
    columns: dict[str, Column] = {}
    for name, dtype in fields.items():
        if dtype == TEXT:
            columns[name] = _heap_text(f"{path}: field {name}", raw.pop(name), heap)
        else:
            columns[name] = raw[name].astype(dtype.base.newbyteorder("="), copy=False)
    return StreamFile(path, rows, fields, columns)


def _stream_header(path: Path, handle: IO[bytes], size: int) -> tuple[int, dict[str, np.dtype[Any]], frozenset[str]]:
    length = int.from_bytes(handle.read(4), "little")
    if length > min(size - handle.tell(), HEADER_BYTES):
        raise InputError(f"{path}: expected a header of {length} bytes, the file has {size}; truncated or damaged")
    try:
        header = json.loads(handle.read(length))
        rows, compressed = header["length"], frozenset(header.get("compressed_fields") or ())
        fields: dict[str, np.dtype[Any]] = {}
        for name, dtype, *shape in header["dtype"]:
            if not isinstance(name, str) or not name.isprintable() or name in fields:
                raise ValueError(f"field {name!r}")
            fields[name] = _stream_type(dtype, shape)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        detail = f"{type(error).__name__}: {str(error)[:200]!r}"
        raise InputError(f"{path}: damaged header ({detail}); {SAVE_AGAIN}") from None
    if type(rows) is not int or rows < 0:
        raise InputError(f"{path}: header: expected length to be a number of rows, found {str(rows)[:50]!r}")
    if header.get("compression") not in ("lz4", None):
        raise InputError(f"{path}: header: expected compression lz4, found {str(header['compression'])[:50]!r}")
    _check_uid(path, fields)
    return rows, fields, compressed


def _stream_type(dtype: str, shape: list[Any]) -> np.dtype[Any]:
    name = dtype.lstrip("<>=|")
    if name == "O" and not shape:
        return TEXT
    if name not in STREAM_NUMBERS or len(shape) > 1:
        raise ValueError(f"type {dtype!r}")
    sizes = tuple(shape[0]) if shape else ()
    if len(sizes) > 3 or not all(type(n) is int and 0 < n < 1 << 16 for n in sizes):
        raise ValueError(f"shape {sizes!r}")
    return np.dtype((np.dtype(dtype), sizes)) if sizes else np.dtype(dtype)


def _stream_column(
    where: str, handle: IO[bytes], size: int, rows: int, dtype: np.dtype[Any], compressed: bool
) -> NDArray[Any]:
    expected = rows * dtype.itemsize
    stored = int.from_bytes(handle.read(4), "little")
    plausible = expected <= stored * LZ4_RATIO if compressed else expected == stored
    if stored > size - handle.tell() or not plausible:
        raise InputError(
            f"{where}: expected {rows} rows ({expected} bytes), found {stored} stored bytes, {size - handle.tell()} to "
            "the end of the file; truncated or damaged, copy it again"
        )
    data = handle.read(stored)
    if not compressed:
        return np.frombuffer(data, dtype.base).reshape(rows, *dtype.shape)
    try:
        values = np.empty((rows, *dtype.shape), dtype.base)
        found = unpack(data, values)
    except (ValueError, OverflowError, MemoryError) as error:
        raise InputError(f"{where}: damaged LZ4 block ({error}); copy the file again") from None
    if found != expected:
        raise InputError(f"{where}: expected {expected} bytes, found {found}; the file is damaged, copy it again")
    return values


def _heap_text(where: str, places: NDArray[np.uint64], heap: bytes) -> pd.Categorical:
    codes, unique = pd.factorize(places)
    names = []
    for place in unique.tolist():
        # anything but the beginning of a text is damage, and overlapping texts could grow without bound
        end = heap.find(b"\0", place) if heap[place - 1 : place] == b"\0" else -1
        if place and end < 0:
            raise InputError(f"{where}: expected the place of a text, found {place}; the file is damaged")
        names.append(heap[place:end] if place else b"")
    return text_column(np.array(names, dtype=object), where)[codes]
