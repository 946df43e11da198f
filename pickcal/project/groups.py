"""Groups, attributes and arrays of an open project, and what this process remembers of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal, TypeVar

import zarr

import pickcal
from pickcal.errors import ProjectError
from pickcal.project.arrays import array_of
from pickcal.project.stored import Stored
from pickcal.stores.homes import Home
from pickcal.stores.places import Place

Kind = Literal["picks", "calibration", "selection", "control"]
KINDS: tuple[Kind, ...] = ("picks", "calibration", "selection", "control")
N = TypeVar("N")
T = TypeVar("T")
AT_ONCE = 16
"""Arrays of a project in an object store that are read or written at once."""
COUNT = "count"
"""Attribute of the micrographs' status: how many of them are to be seen; without it, all."""


class Groups:
    """What is where in an open project, and how many micrographs there are."""

    def __init__(self, home: Home, root: zarr.Group, whole: bool = False) -> None:
        self.path: Place = home.place
        self.home = home
        self._root = root
        self._whole = whole
        self._loaded: dict[str, tuple[tuple[object, ...], Stored]] = {}
        self._known: dict[str, tuple[dict[str, Any], dict[str, zarr.Array[Any]]]] = {}

    @property
    def batch(self) -> int:
        """Micrographs per task."""
        return int(self._attrs("micrographs")["batch"])

    @property
    def count(self) -> int:
        """Number of micrographs."""
        status = self._array("micrographs", "status")
        total = int(status.shape[0])
        return total if self._whole else min(total, int(status.attrs.get(COUNT, total)))  # type: ignore[arg-type]

    @property
    def arrived(self) -> int:
        """Number of micrographs, those included that are still in work and that readers do not see yet."""
        return int(self._array("micrographs", "status").shape[0])

    @property
    def has_images(self) -> bool:
        """Whether there are working images, or tables only."""
        return 0 not in self._array("micrographs", "image").shape[1:]

    def require_images(self, what: str) -> None:
        """Raise a `ProjectError` unless there are working images for `what`."""
        if not self.has_images:
            raise ProjectError(
                f"{self.path}: {what} needs the images, and this project holds tables only; import the micrographs "
                "into another project, without --tables-only"
            )

    def batches(self) -> list[tuple[int, int]]:
        """All batches as `(start, stop)`."""
        batch, count = self.batch, self.count  # each is read from the store
        return [(start, min(start + batch, count)) for start in range(0, count, batch)]

    def _group(self, path: str) -> zarr.Group:
        found = self._root[path]
        assert isinstance(found, zarr.Group)
        return found

    def _opened(self, group: str) -> tuple[dict[str, Any], dict[str, zarr.Array[Any]]]:
        """Attributes and arrays of a group.

        They are read once where this process writes and tasks of its own fill the arrays: in an object store every
        array costs a request. Readers may live long, and look each time.
        """
        if group in self._known:
            attributes, arrays = self._known[group]
            return dict(attributes), arrays
        found = self._group(group)
        attributes, arrays = found.attrs.asdict(), dict(found.arrays())
        if not self._root.read_only and (group == "micrographs" or group.startswith("picks/")):
            self._known[group] = attributes, arrays
        return dict(attributes), arrays

    def _array(self, group: str, variable: str) -> zarr.Array[Any]:
        if not self._root.read_only and (group == "micrographs" or group.startswith("picks/")):
            return self._opened(group)[1][variable]
        return array_of(self._group(group), variable)

    def _attrs(self, path: str) -> dict[str, Any]:
        return dict(self._known[path][0]) if path in self._known else self._group(path).attrs.asdict()

    def _forget(self, group: str) -> None:
        """Look again at a group that was written anew."""
        for known in [known for known in self._known if known == group or known.startswith(f"{group}/")]:
            del self._known[known]

    def _each(self, function: Callable[[N], T], names: Sequence[N]) -> list[T]:
        """Call a function for several arrays; at once where every one waits for an object store."""
        if isinstance(self.path, Path) or len(names) < 2:
            return [function(name) for name in names]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(function, names))


def finish_group(group: zarr.Group, settings: Mapping[str, Any]) -> None:
    """Write the settings of a group, with which it counts as there."""
    group.attrs.update({"settings": dict(settings), "pickcal_version": pickcal.__version__})
