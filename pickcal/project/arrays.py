"""Arrays of the store: how a declared variable becomes a Zarr array."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec

from pickcal.schema import Variable

if TYPE_CHECKING:
    import xarray as xr  # nearly half of the time that a short command starts in: loaded with the first dataset

ROWS_PER_CHUNK = 4096


def lazy_dataset(
    arrays: Mapping[str, zarr.Array[Any]], attributes: Mapping[str, Any], count: int | None = None
) -> xr.Dataset:
    """Arrays of a group as a dataset that loads lazily, as `xarray.open_dataset` gives it.

    Parameters
    ----------
    arrays
        The arrays.
    attributes
        Attributes of the dataset.
    count
        Rows along `micrograph` that are to be seen. Arrays may hold more: a project that grows makes them longer one
        after the other, and a dataset of arrays of different lengths could not be opened. Default: that of `status`.
    """
    import xarray as xr
    from xarray.backends.zarr import ZarrArrayWrapper
    from xarray.core.indexing import LazilyIndexedArray

    if count is None and "status" in arrays:
        count = arrays["status"].shape[0]
    variables = {}
    for name, array in arrays.items():
        dims = dims_of(array)
        data = LazilyIndexedArray(ZarrArrayWrapper(array))  # type: ignore[no-untyped-call]
        variable = xr.Variable(dims, data, array.attrs.asdict())
        if count is not None and "micrograph" in dims and variable.sizes["micrograph"] > count:
            variable = variable.isel(micrograph=slice(count))
        variables[name] = variable
    return xr.Dataset(variables, attrs=attributes)


def dims_of(array: zarr.Array[Any]) -> tuple[str, ...]:
    """Names of the dimensions of an array."""
    return tuple(str(name) for name in getattr(array.metadata, "dimension_names", None) or ())


def lengthen(array: zarr.Array[Any], count: int) -> None:
    """Make an array longer along `micrograph`, if it is shorter; nothing that is stored is touched."""
    shape = _lengthened(array, count)
    if shape != array.shape:
        array.resize(shape)


def seen_longer(array: zarr.Array[Any], count: int) -> zarr.Array[Any]:
    """Array as it would be if `lengthen` had made it longer: fill values follow, and nothing is stored."""
    shape = _lengthened(array, count)
    if shape == array.shape:
        return array
    found = array.async_array
    return zarr.Array(zarr.AsyncArray(found.metadata.update_shape(shape), found.store_path))


def _lengthened(array: zarr.Array[Any], count: int) -> tuple[int, ...]:
    """Shape with at least so many micrographs."""
    sizes = zip(dims_of(array), array.shape, strict=False)  # no names at all where another program made it
    return tuple(max(n, count) if dim == "micrograph" else n for dim, n in sizes) or array.shape


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
    group: zarr.Group,
    variables: Mapping[str, Variable],
    sizes: Mapping[str, int],
    batch: int | None,
    by_driver: frozenset[str] = frozenset(),
) -> None:
    """Make the arrays of declared variables, chunked along their first dimension by the batch, or in one chunk.

    Parameters
    ----------
    group, variables, sizes
        Where, which, and the lengths of their dimensions.
    batch
        Micrographs per task; None: one chunk for everything.
    by_driver
        Variables that no task writes: their chunks hold about `ROWS_PER_CHUNK` micrographs, so that a large project
        is not made of many small files.
    """
    for name, variable in variables.items():
        shape = tuple(sizes[dim] for dim in variable.dims)
        chunks = list(max(1, n) for n in shape)
        if batch is not None:
            chunks[0] = 1 if name == "image" else batch
            if name in by_driver:
                chunks[0] = batch * max(1, ROWS_PER_CHUNK // batch)
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
