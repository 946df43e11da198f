"""Writing what tasks make, batch by batch, and making a project longer.

The chunks of every array that tasks write divide the batch, and a batch belongs to one task, so that no two processes
ever write one chunk.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import zarr
from numpy.typing import NDArray

from pickcal import guard
from pickcal.project.arrays import array_of, create_arrays, lengthen, plain
from pickcal.project.checks import check_name
from pickcal.project.columns import write_columns
from pickcal.project.groups import COUNT, finish_group
from pickcal.project.reading import Reading
from pickcal.project.unlisted import make_unlisted
from pickcal.schema import BANK, PICKS, Variable
from pickcal.stores.homes import META, UNLISTED

if TYPE_CHECKING:
    from pickcal.formats.foreign import Column


class Writing(Reading):
    """Groups of picks, whole batches of them, further micrographs, locks and notes."""

    def create_picks(
        self,
        name: str,
        places: int,
        settings: Mapping[str, Any] | None,
        bank: Mapping[str, NDArray[Any]],
        attributes: Mapping[str, Any],
        extra: Mapping[str, Variable] | None = None,
    ) -> None:
        """Create an empty picks group; it counts as there only once its settings are written, at the end.

        Parameters
        ----------
        name
            Name of the picks; a group of this name is replaced.
        places
            Places for picks per micrograph.
        settings
            Settings of the picking; None: `finish` writes them, once everything else is.
        bank
            Arrays of `schema.BANK`; empty for picks that no bank made.
        attributes
            Attributes of the group.
        extra
            Variables over (micrograph, pick) beside those of `schema.PICKS`.
        """
        check_name("picks", name)
        path = f"picks/{name}"
        self.remove(path)
        group = self._root.create_group(path)
        # readers see fewer while some are in work, and would find too few rows once those are shown
        sizes = {"micrograph": self._arrived_now(), "pick": places, "decoy": places}
        create_arrays(group, {**PICKS, **(extra or {})}, sizes, self.batch)
        if bank:
            sub = group.create_group("bank")
            sizes = {dim: n for key, v in bank.items() for dim, n in zip(BANK[key].dims, v.shape, strict=True)}
            create_arrays(sub, BANK, sizes, None)
            for key, values in bank.items():
                array_of(sub, key)[:] = values
        group.attrs.update(plain(attributes))
        if settings is not None:
            self.finish(path, settings)

    def finish(self, group: str, settings: Mapping[str, Any]) -> None:
        """Write the settings of a group, with which it counts as there."""
        finish_group(self._group(group), settings)
        self._forget(group)

    def lengthen(self, group: str) -> None:
        """Make room in a group of picks for all micrographs that have arrived, if some came while it was made."""
        self._forget(group)
        total = self._arrived_now()
        for array in self._opened(group)[1].values():
            lengthen(array, total)

    def _arrived_now(self) -> int:
        """`arrived` as stored now: another process may follow a session into the project."""
        return int(array_of(self._group("micrographs"), "status").shape[0])

    def write_columns(self, picks: str, columns: Iterable[tuple[str, Column]]) -> None:
        """Keep the columns that came in with some picks, in the order of the stored picks; see `project.columns`."""
        write_columns(self._group(f"picks/{picks}").create_group("columns"), columns)

    def write_blocks(self, group: str, start: int, stop: int, values: Mapping[str, NDArray[Any]]) -> None:
        """Write several whole batches at once, from the one process that writes the group.

        Raises
        ------
        AssertionError
            If the region does not begin and end where batches do.
        """
        if start % self.batch or (stop % self.batch and stop != self.count):
            raise AssertionError(f"region {start}:{stop} is not made of batches of {self.batch}")
        self._write({name: self._array(group, name) for name in values}, start, stop, values)

    def write_batch(self, group: str, start: int, stop: int, values: Mapping[str, NDArray[Any]]) -> None:
        """Write one whole batch; `status` goes last, so that an interrupted batch stays pending.

        The last batch of a project that grows may have been shorter when its task began.

        Raises
        ------
        AssertionError
            If the region is not exactly one batch: writing part of a chunk could lose another task's data.
        """
        batch, count = self.batch, self.count
        begins = start % batch == 0 and 0 <= start < count
        shorter = COUNT in self._array("micrographs", "status").attrs and 0 < stop - start < batch
        if not begins or (stop != min(start + batch, count) and not shorter):
            raise AssertionError(f"region {start}:{stop} is not a batch of {batch}")
        guard.ask()
        arrays = {name: self._array(group, name) for name in values}
        for name, array in arrays.items():
            if batch % array.chunks[0]:
                raise AssertionError(f"{group}/{name}: chunk {array.chunks[0]} does not divide batch {batch}")
        self._write(arrays, start, stop, values)

    def _write(
        self, arrays: Mapping[str, zarr.Array[Any]], start: int, stop: int, values: Mapping[str, NDArray[Any]]
    ) -> None:
        """Write rows of several arrays, `status` last."""

        def one(name: str) -> None:
            arrays[name][start:stop] = values[name]

        self._each(one, [name for name in values if name != "status"])
        if "status" in values:
            one("status")

    def write_images(self, images: Mapping[int, NDArray[Any]]) -> None:
        """Write working images `(y, x)` of a task's micrographs, by their indices; what they do not fill is NaN."""
        guard.ask()
        array = self._array("micrographs", "image")
        assert array.chunks[0] == 1, "an image is a chunk"

        def one(index: int) -> None:
            image = images[index]
            frame = np.full(array.shape[1:], np.nan, dtype=array.dtype)
            frame[: image.shape[0], : image.shape[1]] = image
            array[index] = frame

        self._each(one, list(images))

    def extend(self, columns: Mapping[str, NDArray[Any]]) -> None:
        """Append micrographs behind those that have arrived; readers see them after `show`.

        For the one process that makes the project grow, between its rounds. What an interrupted call left is
        overwritten: a micrograph has arrived once it has a status.

        Parameters
        ----------
        columns
            As for `create`.
        """
        status = self._array("micrographs", "status")
        first, total = self.arrived, self.arrived + len(columns["name"])
        if COUNT not in status.attrs:
            status.attrs[COUNT] = first
        for picks in self.names("picks"):
            for _, array in self._group(f"picks/{picks}").arrays():
                lengthen(array, total)
        for name, array in self._group("micrographs").arrays():
            if name != "status":
                lengthen(array, total)
                if name in columns:
                    array[first:total] = columns[name]
        lengthen(status, total)
        self._known.clear()
        self._array("micrographs", "status")[first:total] = columns["status"]

    def show(self) -> None:
        """Let readers see all micrographs that have arrived."""
        status = self._array("micrographs", "status")
        if status.attrs.get(COUNT, self.arrived) != self.arrived:
            status.attrs[COUNT] = self.arrived
        self._known.clear()

    def remove(self, group: str) -> None:
        """Delete a group if it exists."""
        if group in self._root:
            del self._root[group]
        self._forget(group)

    def group_mark(self, group: str) -> str:
        """Return what tells a group from others of its name made before or after it; given on first asking.

        Event records carry it. "" if the group has none and the project is open for reading only.
        """
        attributes = self._group(group).attrs  # as stored now: another process may have made the group anew
        found = attributes.get("mark", "")
        if not found and not self._root.read_only:
            found = uuid.uuid4().hex[:12]
            attributes["mark"] = found
        return str(found)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep all others, threads and processes, from saving until the block ends; may be nested in one thread.

        The lock goes away with the process that holds it.

        Raises
        ------
        ProjectError
            If another one holds it for longer than half a minute.
        """
        with self.home.locked():
            yield

    def _require_unlisted(self) -> None:
        """Make what holds files that nobody lists, in projects of versions that did not make it at once."""
        if self.home.mark(f"{UNLISTED}/{META}") is None:
            with self.locked():
                if self.home.mark(f"{UNLISTED}/{META}") is None:
                    make_unlisted(self.home)

    def write_note(self, name: str, text: str) -> None:
        """Keep a small file that neither Zarr nor xarray lists, such as a draft; see `Home.write_note`."""
        self._require_unlisted()
        self.home.write_note(name, text)
