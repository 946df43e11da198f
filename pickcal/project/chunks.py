"""Arrays in very many small files: one row per micrograph, and a file for every batch."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

FILES = 256
"""Files that one thread reads after another."""
THREADS = 8
"""Files that are waited for at once, where the folder is on another machine."""


def rows_of_files(folder: Path, array: zarr.Array[Any]) -> NDArray[Any]:
    """Read an array of one axis whose chunks are mostly alike.

    Zarr takes a task and two threads for every chunk, which is seconds for 100,000 micrographs. Files of the same bytes
    hold the same rows: zarr decodes one of them.

    Parameters
    ----------
    folder
        Where the array is.
    array
        The array; it may be longer than what is stored, whose place fill values take.

    Returns
    -------
    ndarray
        As `array[:]` gives it.
    """
    step, count = array.chunks[0], array.shape[0]
    files = [folder / array.metadata.encode_chunk_key((number,)) for number in range(-(-count // step))]
    out = np.full(array.shape, array.fill_value, dtype=array.dtype)
    known: dict[bytes, NDArray[Any]] = {}
    for number, data in enumerate(_contents(files)):
        if data is None:
            continue
        rows = known.get(data)
        start = number * step
        if rows is None:
            rows = np.asarray(array[start : start + step])
            if _content(files[number]) == data:  # else another process has written it meanwhile
                known[data] = rows
        out[start : start + step] = rows[: count - start]
    return out


def _contents(files: list[Path]) -> list[bytes | None]:
    with ThreadPoolExecutor(THREADS) as pool:
        parts = pool.map(lambda at: [_content(file) for file in files[at : at + FILES]], range(0, len(files), FILES))
        return [data for part in parts for data in part]


def _content(file: Path) -> bytes | None:
    """Bytes of a file; None if it is not there: a chunk of fill values."""
    with suppress(FileNotFoundError):
        return file.read_bytes()
    return None
