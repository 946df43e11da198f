"""What is in a CSV or Parquet file: its columns, and its rows block by block."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet

from pickcal.errors import InputError
from pickcal.formats.delimited import from_arrow, read_delimited
from pickcal.formats.foreign import ROWS, Column
from pickcal.formats.opening import head_of

MAGIC = b"PAR1"


def columns_of(path: Path, head: bytes) -> list[str]:
    """Names of the columns, given the file's first bytes; none if it is neither CSV nor Parquet."""
    if head.startswith(MAGIC):
        try:
            return [str(name) for name in pyarrow.parquet.read_schema(path).names]
        except Exception:  # pyarrow raises whatever damaged metadata lead to
            return []
    return _header(head)[1]


def _header(head: bytes) -> tuple[str, list[str]]:
    """Separator of a text table, and its columns."""
    first = next((line for line in head.splitlines() if line.strip()), b"")
    try:
        text = first.decode("utf-8-sig")
        options = [(separator, next(csv.reader([text], delimiter=separator), [])) for separator in ",\t;"]
    except (UnicodeDecodeError, csv.Error):
        return ",", []
    return max(options, key=lambda option: len(option[1]))


def table_blocks(path: Path, text: Sequence[str]) -> Iterator[dict[str, Column]]:
    """Read a table in blocks of at most `foreign.ROWS` rows, at least one.

    Parameters
    ----------
    path
        CSV or Parquet.
    text
        Columns that stay text whatever they look like.

    Raises
    ------
    InputError
        If the file is damaged, or a column holds neither numbers nor text.
    """
    head = head_of(path)
    if not head.startswith(MAGIC):
        yield from read_delimited(path, _header(head)[0], text)
        return
    rows = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            names = [name for name in text if name in file.schema_arrow.names]
            strings = [name for name in names if file.schema_arrow.field(name).type in (pa.string(), pa.large_string())]
        with pyarrow.parquet.ParquetFile(path, read_dictionary=strings) as file:
            for batch in file.iter_batches(batch_size=ROWS):
                rows += batch.num_rows
                yield _batch(path, batch)
            if not rows:
                yield _batch(path, file.schema_arrow.empty_table())
    except InputError:
        raise
    except Exception as error:  # pyarrow raises whatever damaged metadata lead to
        raise InputError(f"{path}: cannot be read as Parquet ({str(error)[:200]})") from None


def _batch(path: Path, batch: Any) -> dict[str, Column]:
    return {name: from_arrow(f"{path}: column {name}", batch.column(name)) for name in batch.schema.names}
