"""Arrays of the store: how a declared variable becomes a Zarr array.

Beside this module only `project` and `columns` call zarr.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from pickcal.schema import Variable

ROWS_PER_CHUNK = 4096


def compressor() -> BloscCodec:
    """Codec of arrays of numbers: level 1 with bitshuffle beats level 5 on ratio and speed."""
    return BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")


def new_array(
    group: zarr.Group, name: str, like: xr.Variable, shape: tuple[int, ...], rows: int | None = None
) -> zarr.Array[Any]:
    """Make an array for a variable, in one chunk, or chunked along the axis that blocks of micrographs share."""
    array = group.create_array(
        name,
        shape=shape,
        chunks=tuple(max(1, min(n, ROWS_PER_CHUNK) if axis == rows else n) for axis, n in enumerate(shape)),
        dtype=str if like.dtype.kind in "OUT" else like.dtype,
        dimension_names=[str(dim) for dim in like.dims],
    )
    array.attrs.update(plain(like.attrs))
    return array


def storable(variable: xr.Variable) -> NDArray[Any]:
    """Values as zarr takes them: text as objects."""
    return np.asarray(variable.values.astype(object) if variable.dtype.kind in "OUT" else variable.values)


def plain(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    """Attributes as JSON takes them."""
    return {str(key): value.item() if isinstance(value, np.generic) else value for key, value in attributes.items()}


def array_of(group: zarr.Group, name: str) -> zarr.Array[Any]:
    """Return an array of a group."""
    found = group[name]
    assert isinstance(found, zarr.Array)
    return found


def create_arrays(
    group: zarr.Group, variables: Mapping[str, Variable], sizes: Mapping[str, int], batch: int | None
) -> None:
    """Make the arrays of declared variables, chunked along their first dimension by the batch, or in one chunk."""
    for name, variable in variables.items():
        shape = tuple(sizes[dim] for dim in variable.dims)
        chunks = list(max(1, n) for n in shape)
        if batch is not None:
            chunks[0] = 1 if name == "image" else batch
        compressors: Any = "auto" if variable.dtype is str else compressor()
        array = group.create_array(
            name,
            shape=shape,
            chunks=tuple(chunks),
            dtype=variable.dtype,
            fill_value=variable.fill,
            dimension_names=variable.dims,
            compressors=compressors,
        )
        array.attrs.update(variable.attributes())
