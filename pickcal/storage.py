"""Arrays of the store: how a declared variable becomes a Zarr array.

Beside this module only `project` and `columns` call zarr.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from xarray.backends.zarr import ZarrArrayWrapper
from xarray.core.indexing import LazilyIndexedArray
from zarr.abc.buffer import Buffer
from zarr.abc.store import Store
from zarr.codecs import BloscCodec
from zarr.storage import ObjectStore

from pickcal.schema import Variable
from pickcal.stores.steady import SteadyStore

T = TypeVar("T")
ROWS_PER_CHUNK = 4096


class _Objects(ObjectStore[Any]):
    """Zarr's store over obstore, which makes requests again that got no answer, and looks before it makes a group.

    Who makes a group here holds the lock of the project, or is the only one to write it: a conditional request, which
    could not be made again, is not needed.
    """

    async def get(self, *arguments: Any, **options: Any) -> Buffer | None:
        """Read an object, or part of it."""
        return await _again(lambda: super(_Objects, self).get(*arguments, **options))

    async def set(self, key: str, value: Buffer) -> None:
        """Write an object."""
        await _again(lambda: super(_Objects, self).set(key, value))

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        """Write an object unless there is one."""
        if not await self.exists(key):
            await self.set(key, value)

    async def exists(self, key: str) -> bool:
        """Whether there is an object."""
        return await _again(lambda: super(_Objects, self).exists(key))

    async def delete(self, key: str) -> None:
        """Remove an object."""
        await _again(lambda: super(_Objects, self).delete(key))

    def list_dir(self, prefix: str) -> AsyncGenerator[str, None]:
        """List names within a prefix."""
        return self._listed(prefix)

    async def _listed(self, prefix: str) -> AsyncGenerator[str, None]:
        async def whole() -> list[str]:
            return [name async for name in super(_Objects, self).list_dir(prefix)]

        for name in await _again(whole):
            yield name


async def _again(request: Callable[[], Awaitable[T]]) -> T:
    """Await a request, and make it again if it got no answer; as `stores.objects.again`."""
    from pickcal.stores.objects import ATTEMPTS, is_passing

    for _ in range(ATTEMPTS - 1):
        try:
            return await request()
        except Exception as error:
            if not is_passing(error):
                raise
    return await request()


def zarr_store(backing: Any, read_only: bool = False) -> Store:
    """Open what a home gives (`stores.homes.Backing`) as a store of Zarr: a folder, or a client of obstore."""
    if isinstance(backing, Path):
        return SteadyStore(backing, read_only=read_only)
    return _Objects(backing, read_only=read_only)


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
    dims = dims_of(array)
    if "micrograph" in dims and array.shape[axis := dims.index("micrograph")] < count:
        array.resize(tuple(count if i == axis else n for i, n in enumerate(array.shape)))


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
