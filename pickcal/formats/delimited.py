"""Text tables with a header, read block by block through pyarrow: CSV and Topaz's tables."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from pickcal.errors import InputError
from pickcal.formats.foreign import ROWS, Column, categorical
from pickcal.formats.opening import check_file

MISSING = ("", "nan", "NaN", "NA", "N/A", "null", "NULL", "None", "<NA>", "<na>")
BLOCK_BYTES = 4 << 20
"""Bytes of a file that are read at once."""
EXACT = 2.0**53
"""Whole numbers below this are exact in float64."""


def from_arrow(where: str, array: Any) -> Column:
    """Column of an Arrow array: numbers in their type (NaN for null), lists of one length as rows, else text.

    Raises
    ------
    InputError
        If the values are neither numbers nor text; naming `where`.
    """
    kind = array.type
    if isinstance(array, pa.ChunkedArray):
        array = array.combine_chunks()
    try:
        if (
            pa.types.is_integer(kind)
            or pa.types.is_floating(kind)
            or (pa.types.is_boolean(kind) and not array.null_count)
        ):
            return np.asarray(array.to_numpy(zero_copy_only=False))
        if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
            return np.stack([np.asarray(row) for row in array.to_pylist()]) if len(array) else np.empty((0, 1))
        encoded = array if pa.types.is_dictionary(kind) else array.cast(pa.string()).dictionary_encode()
        words = encoded.dictionary.cast(pa.string()).to_pylist()
    except (pa.ArrowException, ValueError, TypeError, NotImplementedError) as error:
        raise InputError(f"{where}: expected numbers or text, found {kind} ({error})") from None
    # a null among the rows gets the place of the empty word after the last one
    names = categorical(["" if word is None else word for word in words] + [""] * bool(encoded.null_count))
    code = np.asarray(pc.fill_null(encoded.indices, len(words)).to_numpy(zero_copy_only=False)).astype(np.intp)
    return pd.Categorical.from_codes(names.codes[code], categories=names.categories)


def read_delimited(
    path: Path, separator: str, text: Iterable[str] = (), needs: Sequence[str] = ()
) -> Iterator[dict[str, Column]]:
    """Read a text table with a header in blocks of at most `foreign.ROWS` rows.

    Parameters
    ----------
    path
        The file, UTF-8, with quotes as in CSV.
    separator
        One character.
    text
        Columns that stay text whatever they look like.
    needs
        Columns that must be there.

    Yields
    ------
    dict of columns
        In the order of the file, at least one block, of the same types throughout. A column is of numbers if all its
        values are, which takes a look through the whole file first; integers with leading zeros or beyond float64's
        53 bits beside missing values are text, as numbers would lose digits.

    Raises
    ------
    MissingFileError, InputError
        If the file is not there, not text, ragged, lacks a column or names one twice.
    """
    check_file(path, "a table")
    kept = frozenset(text)
    if path.stat().st_size < BLOCK_BYTES:
        batches = _small(path, separator, kept)
    else:
        types = _column_types(path, separator, kept)
        batches = _batches(path, separator, column_types=types, null_values=list(MISSING), strings_can_be_null=False)
    rows = -1
    for batch in batches:
        lacking = [name for name in needs if name not in batch.schema.names]
        if lacking:
            found = ", ".join(batch.schema.names)[:300]
            raise InputError(f"{path}: expected the column {', '.join(lacking)}, found {found}")
        for start in range(0, max(batch.num_rows, rows < 0), ROWS):
            part = batch.slice(start, ROWS)
            rows += part.num_rows
            yield {name: from_arrow(f"{path}: column {name}", part.column(name)) for name in part.schema.names}


def _small(path: Path, separator: str, text: frozenset[str]) -> Iterator[Any]:
    """Rows of a file of one block, which is read as text and made into numbers here."""
    with _reader(path, separator, threads=False) as reader:
        names = reader.schema.names
    strings = dict.fromkeys(names, pa.string())
    # one thread: only then do messages name the row
    whole = list(_batches(path, separator, threads=False, column_types=strings))
    arrays = []
    for n, name in enumerate(names):
        column = pa.chunked_array([batch.column(n) for batch in whole], pa.string()).combine_chunks()
        if name not in text:
            kind, given = Kind(), missing_as_null(column)
            kind.look(given)
            # of a table without rows, positions and scores are numbers
            wanted = kind.type if len(column) else pa.float64()
            column = column if wanted is None else given.cast(wanted)
        arrays.append(column)
    yield pa.record_batch(arrays, names=names)


def missing_as_null(strings: Any) -> Any:
    """Text without blanks around it, as pyarrow reads numbers, and null for what stands for a missing one."""
    strings = pc.ascii_trim(strings, characters=" \t")
    absent = pc.is_in(strings, value_set=pa.array(MISSING))
    return pc.if_else(absent, pa.scalar(None, pa.string()), strings) if pc.any(absent).as_py() else strings


@contextmanager
def _reader(path: Path, separator: str, threads: bool, **convert: Any) -> Iterator[Any]:
    read = pyarrow.csv.ReadOptions(block_size=BLOCK_BYTES, use_threads=threads)
    parse = pyarrow.csv.ParseOptions(delimiter=separator)
    try:
        with pyarrow.csv.open_csv(path, read, parse, pyarrow.csv.ConvertOptions(**convert)) as reader:
            names = reader.schema.names
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise InputError(f"{path}: expected every column once, found {', '.join(twice)[:200]} again")
            yield reader
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path}: cannot be read as a table ({' '.join(str(error).split())[:300]})") from None


def _batches(path: Path, separator: str, threads: bool = True, **convert: Any) -> Iterator[Any]:
    with _reader(path, separator, threads, **convert) as reader:
        yield from reader


def _column_types(path: Path, separator: str, text: frozenset[str]) -> dict[str, Any]:
    # one thread: only then do messages name the row
    first = next(_batches(path, separator, threads=False), None)
    if first is None:
        raise InputError(f"{path}: expected rows below the header, found {path.stat().st_size} bytes without any")
    word, types = pa.dictionary(pa.int32(), pa.string()), {}
    floats, others = [], []
    for name, kind in zip(first.schema.names, first.schema.types, strict=True):
        types[name] = word
        if name not in text and kind == pa.float64():
            floats.append(name)
        elif name not in text and kind in (pa.int64(), pa.null()):
            others.append(name)
    if floats and _all_floats(path, separator, floats):
        types |= dict.fromkeys(floats, pa.float64())
    else:
        others += floats
    maybe = {name: Kind() for name in others}
    if maybe:
        strings = dict.fromkeys(maybe, pa.string())
        for batch in _batches(path, separator, threads=False, column_types=strings, include_columns=others):
            for name, kind in maybe.items():
                kind.look(missing_as_null(batch.column(name)))
    return types | {name: kind.type or word for name, kind in maybe.items()}


def _all_floats(path: Path, separator: str, names: list[str]) -> bool:
    """Whether columns hold nothing but numbers that float64 has the digits for."""
    kinds = dict.fromkeys(names, pa.float64())
    options: dict[str, Any] = {"include_columns": names, "null_values": list(MISSING)}
    try:
        for batch in _batches(path, separator, column_types=kinds, **options):
            if any((pc.max(pc.abs(batch.column(name))).as_py() or 0.0) >= EXACT for name in names):
                return False
    except InputError:  # the look at each value that follows finds what it is
        return False
    return True


class Kind:
    """Narrowest type that holds every value of a column seen so far."""

    def __init__(self) -> None:
        self.order: list[Any] = [pa.int64(), pa.uint64(), pa.float64(), None]
        self.seen = False

    @property
    def type(self) -> Any:
        """The Arrow type, None for text."""
        return self.order[0] if self.seen else None

    def look(self, strings: Any) -> None:
        """Drop the types that do not hold these values."""
        self.seen = self.seen or strings.null_count < len(strings)
        while self.order[0] is not None and not self._holds(self.order[0], strings):
            del self.order[0]
        if (
            self.order[0] == pa.int64()
            and pa.uint64() in self.order
            and (pc.min(strings.cast(pa.int64())).as_py() or 0) < 0
        ):
            self.order.remove(pa.uint64())

    @staticmethod
    def _holds(kind: Any, strings: Any) -> bool:
        try:
            values = strings.cast(kind)
        except pa.ArrowInvalid:
            return False
        if pa.types.is_integer(kind):
            led = pc.any(pc.match_substring_regex(strings, r"^[+-]?0[0-9]|^\+")).as_py()
            return not led and not strings.null_count
        if (pc.max(pc.abs(values)).as_py() or 0.0) < EXACT:
            return not pc.any(pc.match_substring_regex(strings, r"^[+-]?0[0-9]+$")).as_py()
        return not pc.any(pc.match_substring_regex(strings, r"^[+-]?[0-9]{16,}$")).as_py()
