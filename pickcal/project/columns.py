"""Columns that came in with picks of other programs, kept in the store untouched.

They are flat: row after row in the order of the stored picks (micrograph by micrograph, best first), so that the rows
of a block of micrographs lie together. Text is stored once per distinct value, with the rows as indices into it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray

from pickcal.project.arrays import array_of, compressor

if TYPE_CHECKING:
    from pickcal.formats.foreign import Column

ROWS_PER_CHUNK = 2**18
TEXT = ".text"


def write_columns(group: zarr.Group, columns: Iterable[tuple[str, Column]]) -> None:
    """Write columns one after the other.

    Parameters
    ----------
    group
        Empty group.
    columns
        Label in the source file, and values `(row,)` or `(row, n)`; taken one at a time.
    """
    import pandas as pd

    order = []
    for label, column in columns:
        name = label.replace("/", ".")
        while name in group:
            name += "_"
        values: NDArray[Any]
        if isinstance(column, pd.Categorical):
            values = np.asarray(column.codes, dtype=np.int32)
            texts = column.categories.to_numpy(dtype=object)
            shape, chunk = (len(texts),), (max(1, min(len(texts), ROWS_PER_CHUNK)),)
            group.create_array(name + TEXT, shape=shape, chunks=chunk, dtype=str, dimension_names=[name + TEXT])
            array_of(group, name + TEXT)[:] = texts
        else:
            values = np.asarray(column)
        array = group.create_array(
            name,
            shape=values.shape,
            chunks=(max(1, min(len(values), ROWS_PER_CHUNK)), *(max(1, n) for n in values.shape[1:])),
            dtype=values.dtype,
            dimension_names=["row", *(f"{name}.axis{i}" for i in range(1, values.ndim))],
            compressors=compressor(),
        )
        array[...] = values
        array.attrs["label"] = label
        if isinstance(column, pd.Categorical):
            array.attrs["text"] = name + TEXT
        order.append(name)
    group.attrs["columns"] = order


def read_columns(group: zarr.Group, start: int, stop: int) -> dict[str, Column]:
    """Read rows of all columns, by their labels and in their order."""
    import pandas as pd

    out: dict[str, Column] = {}
    order: Any = group.attrs["columns"]
    for name in order:
        array = array_of(group, str(name))
        values = np.asarray(array[start:stop])
        label = str(array.attrs["label"])
        if "text" in array.attrs:
            texts = np.asarray(array_of(group, str(array.attrs["text"]))[:], dtype=object)
            out[label] = pd.Categorical.from_codes(values, categories=pd.Index(texts, dtype="str"))
        else:
            out[label] = values
    return out
