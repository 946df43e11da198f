"""Reading a project: xarray datasets that load lazily, rows of variables, settings."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray
from zarr.errors import ZarrUserWarning

from pickcal.errors import ProjectError
from pickcal.project.arrays import dims_of, lazy_dataset, seen_longer
from pickcal.project.checks import differing
from pickcal.project.chunks import rows_of_files
from pickcal.project.columns import read_columns
from pickcal.project.groups import Groups, Kind
from pickcal.project.stored import Stored, StoredArray
from pickcal.refusals import no_such
from pickcal.stores.homes import META, VERSION

if TYPE_CHECKING:
    import xarray as xr

    from pickcal.formats.foreign import Column

READ_ATTEMPTS = 5
"""How often a small group is read that is written meanwhile."""
CHUNKS = 256
"""Chunks that are asked for at once: each is a task of zarr's, and those of a large project take more than its rows."""


class Reading(Groups):
    """All that readers ask of a project."""

    def names(self, kind: Kind) -> list[str]:
        """Names of the complete groups of a kind, sorted."""
        if kind not in self._root:
            return []
        with warnings.catch_warnings():
            # another process may be writing this group's metadata: zarr lists the file it is about to rename
            warnings.filterwarnings("ignore", "Object at .* is not recognized", ZarrUserWarning)
            found = list(self._group(kind).groups())
        return sorted(name for name, group in found if "settings" in group.attrs)

    def require(self, kind: Kind, name: str) -> None:
        """Raise a `ProjectError` that lists what there is, unless a group exists."""
        known = self.names(kind)
        if name not in known:
            raise ProjectError(f"{self.path}: {no_such(kind, name, known)}")

    def settings(self, group: str) -> dict[str, Any]:
        """Return the settings with which a group ("micrographs", "picks/NAME", ...) was written."""
        return dict(self._attrs(group)["settings"])

    def attributes(self, group: str) -> dict[str, Any]:
        """Attributes of a group, those of `dataset(group)`, without loading xarray.

        Raises
        ------
        FileNotFoundError
            If there is no such group.
        """
        try:
            found = self._attrs(group)
        except KeyError:
            raise self._missing(group) from None
        found.pop(VERSION, None)
        return found

    def dataset(self, group: str) -> xr.Dataset:
        """One group as a lazily loaded dataset.

        Raises
        ------
        FileNotFoundError
            If there is no such group.
        """
        attributes, arrays = self._newest(group)
        count = self.count
        if group.startswith("picks/"):
            arrays = {name: seen_longer(array, count) for name, array in arrays.items()}
        return lazy_dataset(arrays, attributes, count)

    def _newest(self, group: str) -> tuple[dict[str, Any], dict[str, zarr.Array[Any]]]:
        """Attributes and arrays of a group, these of its newest version where it has versions."""
        try:
            attributes, arrays = self._opened(group)
            version = attributes.pop(VERSION, None)
            return attributes, arrays if version is None else self._opened(f"{group}/{version}")[1]
        except KeyError:
            raise self._missing(group) from None

    def _missing(self, group: str) -> FileNotFoundError:
        return FileNotFoundError(f"{self.path}: there is no group {group}")

    def micrographs(self) -> xr.Dataset:
        """Return the table of micrographs, images included (lazy)."""
        return self.dataset("micrographs")

    def table(self) -> xr.Dataset:
        """Load the table of micrographs, without images."""
        # the status is written last in every batch, and its folder tells when
        return self.stored("micrographs", "zarr.json", "status/c", "status/zarr.json").dataset()

    def picks(self, name: str) -> xr.Dataset:
        """Open picks lazily, with their main score as `ncc`, whatever it is called in the store.

        The attributes `score` (name in the store), `score_label` (for people) and `program` (who picked) say what it
        is; our own picks have the NCC score.
        """
        found = self.dataset(f"picks/{name}")
        score = str(found.attrs.get("score", "ncc"))
        if score != "ncc":
            found = found.drop_vars("ncc").rename({score: "ncc"})
        return found

    def read(self, group: str, variable: str, start: int = 0, stop: int | None = None) -> NDArray[Any]:
        """Read part of a variable along its first dimension."""
        array = self._array(group, variable)
        if stop is None and dims_of(array)[:1] == ("micrograph",):
            stop = self.count
        return _rows(self._reaching(array, stop), start, stop)

    def image(self, index: int, shape: tuple[int, int] | None = None) -> NDArray[np.float32]:
        """Return the valid part of one working image, float32 `(y, x)`; `shape` spares reading it from the table."""
        if shape is None:
            found = self.read_rows("micrographs", ("height", "width"), index, index + 1)
            shape = (int(found["height"][0]), int(found["width"][0]))
        height, width = shape
        values = np.asarray(self._array("micrographs", "image")[index, :height, :width])
        return values.astype(np.float32)

    def read_rows(self, group: str, names: Sequence[str], start: int, stop: int) -> dict[str, NDArray[Any]]:
        """Read rows of several variables."""
        arrays = {name: self._reaching(self._array(group, name), stop) for name in names}
        found = self._each(lambda name: _rows(arrays[name], start, stop), list(names))
        return dict(zip(names, found, strict=True))

    def _reaching(self, array: zarr.Array[Any], stop: int | None) -> zarr.Array[Any]:
        """Array with all micrographs: picks that were begun while others came in may lack the last until they go on."""
        if stop is None or dims_of(array)[:1] != ("micrograph",) or stop <= array.shape[0]:
            return array
        return seen_longer(array, min(stop, self.count))

    def columns(self, picks: str, start: int, stop: int) -> dict[str, Column]:
        """Columns that came in with some picks, rows from `start` to `stop`; {} for our own picks."""
        path = f"picks/{picks}/columns"
        return read_columns(self._group(path), start, stop) if path in self._root else {}

    def done(self, group: str) -> NDArray[np.int8]:
        """Status of every micrograph in a group."""
        home = self.home.backing(f"{group}/status")
        if not isinstance(home, Path):
            return self.read(group, "status")
        count = self.count
        return rows_of_files(home, self._reaching(self._array(group, "status"), count))[:count]

    def calibration(self, picks: str) -> xr.Dataset | None:
        """Return the stored fit of some picks, or None if they were not calibrated."""
        found = self.stored_calibration(picks)
        return None if found is None else found.dataset()

    def mixture(self, picks: str) -> xr.Dataset | None:
        """Return the stored mixture of some picks, or None if their calibration holds none."""
        found = self.stored_mixture(picks)
        return None if found is None else found.dataset()

    def stored_calibration(self, picks: str) -> Stored | None:
        """Return what `calibration` does, without loading xarray."""
        return self.stored(f"calibration/{picks}") if picks in self.names("calibration") else None

    def stored_mixture(self, picks: str) -> Stored | None:
        """Return what `mixture` does, without loading xarray."""
        path = f"calibration/{picks}/mixture"
        return self.stored(path) if picks in self.names("calibration") and path in self._root else None

    def stored(self, group: str, *marks: str) -> Stored:
        """Read a group that is small, without images: once, and again when one of its marks is a newer file or folder.

        Parameters
        ----------
        group
            Which: one that appears whole, or the table of micrographs.
        marks
            Files or folders within it that change whenever it does; default: its metadata.

        Raises
        ------
        FileNotFoundError
            If there is no such group.
        """
        names = [f"{group}/{mark}" for mark in marks or (META,)]
        for attempt in range(READ_ATTEMPTS):
            stamp = tuple(self.home.mark(name) for name in names)
            if group in self._loaded and self._loaded[group][0] == stamp:
                break
            try:
                found = self._loaded_now(group)
            except (ValueError, KeyError, FileNotFoundError, RuntimeError):
                # one group may have taken the place of another between its metadata and its values
                if attempt == READ_ATTEMPTS - 1 or stamp == tuple(self.home.mark(name) for name in names):
                    raise
                continue
            self._loaded[group] = (stamp, found)
            if attempt == READ_ATTEMPTS - 1 or stamp == tuple(self.home.mark(name) for name in names):
                break
        return self._loaded[group][1]

    def _loaded_now(self, group: str) -> Stored:
        attributes, arrays = self._newest(group)
        count, names = self.count, [name for name in arrays if name != "image"]

        def read(name: str) -> StoredArray:
            array, dims = arrays[name], dims_of(arrays[name])
            rows = tuple(slice(count) if dim == "micrograph" else slice(None) for dim in dims)
            values = np.asarray(array[rows])
            values.flags.writeable = False
            return StoredArray(dims, values, array.attrs.asdict())

        return Stored(attributes, dict(zip(names, self._each(read, names), strict=True)))

    def check_same(self, group: str, settings: Mapping[str, Any], remedy: str) -> None:
        """Raise a `ProjectError` that names each differing setting, unless a group has these settings."""
        differences = differing(self.settings(group), settings)
        if differences:
            lines = "\n".join(f"  {line}" for line in differences)
            raise ProjectError(f"{self.path}: {group} holds other settings:\n{lines}\n{remedy}")


def _rows(array: zarr.Array[Any], start: int, stop: int | None) -> NDArray[Any]:
    """Rows of an array, some chunks of them at a time."""
    stop = array.shape[0] if stop is None else min(stop, array.shape[0])
    step = array.chunks[0] * CHUNKS
    if stop - start <= step:
        return np.asarray(array[start:stop])
    first = np.asarray(array[start : start + step])
    out = np.empty((stop - start, *first.shape[1:]), first.dtype)
    out[:step] = first
    for at in range(start + step, stop, step):
        out[at - start : at - start + step] = array[at : min(at + step, stop)]
    return out
