"""Making a project: its table of micrographs in parts, and the room for images once their size is known."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray

import pickcal
from pickcal.errors import ProjectError
from pickcal.project.arrays import array_of, create_arrays
from pickcal.project.backing import zarr_store
from pickcal.project.groups import KINDS
from pickcal.project.unlisted import make_unlisted, new_group
from pickcal.schema import FORMAT_VERSION, MICROGRAPHS, STATIC
from pickcal.stores.homes import Home, home_of
from pickcal.stores.places import Url


class NewProject:
    """A project that is being made; nobody sees it before it is finished."""

    def __init__(self, home: Home, count: int, batch: int, growing: bool) -> None:
        self._home, self._count, self._batch = home, count, batch
        self._table = new_group(home, "micrographs")
        columns = {name: variable for name, variable in MICROGRAPHS.items() if name != "image"}
        create_arrays(self._table, columns, {"micrograph": count}, batch, frozenset() if growing else STATIC)
        self._columns = {name: array_of(self._table, name) for name in columns}

    def write(self, start: int, stop: int, columns: Mapping[str, NDArray[Any]]) -> None:
        """Write columns of `schema.MICROGRAPHS` for the micrographs from `start` to `stop`."""
        for name, values in columns.items():
            if np.array_equal(values, np.full(stop - start, MICROGRAPHS[name].fill)):
                continue  # as it is already; zarr would look at every chunk
            self._columns[name][start:stop] = values

    def finish(self, image: tuple[int, int], settings: Mapping[str, Any]) -> None:
        """Make room for images of so many rows and columns, and all else that a project has."""
        sizes = dict(zip(("micrograph", "y", "x"), (self._count, *image), strict=True))
        create_arrays(self._table, {"image": MICROGRAPHS["image"]}, sizes, self._batch)
        self._table.attrs.update({"batch": self._batch, "settings": dict(settings)})
        for kind in KINDS:
            new_group(self._home, kind)
        if isinstance(self._home.place, Url):  # folders get it when it is needed, by renaming
            make_unlisted(self._home)
        versions = {"format_version": FORMAT_VERSION, "pickcal_version": pickcal.__version__}
        zarr.create_group(zarr_store(self._home.backing()), zarr_format=3, attributes=versions)


@contextmanager
def new_project(path: Path | Url | str, count: int, batch: int, growing: bool = False) -> Iterator[NewProject]:
    """Make a project, all or nothing: it is there once the block ends, and not at all after an error.

    Parameters
    ----------
    path
        Folder or URL; nothing may be there.
    count
        Number of micrographs.
    batch
        Micrographs per task.
    growing
        More micrographs will be appended: every column is chunked by the batch, so that no full batch is written
        again. Default False: what no task writes is in few large chunks.

    Raises
    ------
    ProjectError
        If something is at `path` already, or the store cannot be written.
    """
    home = home_of(path)
    if home.exists():
        raise ProjectError(f"{home.place}: exists already; choose another name or remove it")
    with home.plainly(), home.creating() as made:
        yield NewProject(made, count, batch, growing)
