"""The project: one Zarr format 3 store that xarray opens as a DataTree.

Layout in `pickcal.schema`. Tasks write whole batches: the chunks of every array they write divide the batch, and a
batch belongs to one task, so that no two processes ever write one chunk.
"""

from __future__ import annotations

import re
import shutil
import uuid
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TypeVar

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.errors import ZarrUserWarning

import pickcal
from pickcal import guard
from pickcal.columns import read_columns, write_columns
from pickcal.errors import InputError, MissingFileError, ProjectError
from pickcal.formats.foreign import Column
from pickcal.schema import BANK, FORMAT_VERSION, MICROGRAPHS, PICKS, STATIC, Status, Variable
from pickcal.settings import NAME_PATTERN
from pickcal.storage import (
    array_of,
    create_arrays,
    dims_of,
    lazy_dataset,
    lengthen,
    new_array,
    plain,
    storable,
    zarr_store,
)
from pickcal.stores.homes import META, UNLISTED, Home, home_of
from pickcal.stores.places import Place, Url

Kind = Literal["picks", "calibration", "selection", "control"]
KINDS: tuple[Kind, ...] = ("picks", "calibration", "selection", "control")
Block = tuple[int, Mapping[str, xr.Dataset]]
N = TypeVar("N")
T = TypeVar("T")
READ_ATTEMPTS = 5
"""How often a small group is read that is written meanwhile."""
AT_ONCE = 16
"""Arrays of a project in an object store that are read or written at once."""
COUNT = "count"
"""Attribute of the micrographs' status: how many of them are to be seen; without it, all."""
VERSION = "version"
"""Attribute of a group whose arrays are in a group within it, see `stores.bucket`."""


class Project:
    """One open project.

    Use `Project.create` or `Project.open`. Reading gives xarray objects that load lazily; writing goes through
    `write_batch` for tasks and `write_whole` for small results.
    """

    def __init__(self, home: Home, root: zarr.Group, whole: bool = False) -> None:
        self.path: Place = home.place
        self.home = home
        self._root = root
        self._whole = whole
        self._loaded: dict[str, tuple[tuple[object, ...], xr.Dataset]] = {}
        self._known: dict[str, tuple[dict[str, Any], dict[str, zarr.Array[Any]]]] = {}

    @classmethod
    def create(
        cls,
        path: Path | Url | str,
        sizes: Mapping[str, int],
        batch: int,
        columns: Mapping[str, NDArray[Any]],
        settings: Mapping[str, Any],
        growing: bool = False,
    ) -> Project:
        """Create a project with its table of micrographs, all or nothing.

        Parameters
        ----------
        path
            Folder or URL; nothing may be there.
        sizes
            Lengths of the dimensions `micrograph`, `y`, `x`.
        batch
            Micrographs per task.
        columns
            Static columns of `schema.MICROGRAPHS`, and `status` and `error`.
        settings
            Settings of the import, kept for later comparison.
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
            group = _new_group(made, "micrographs")
            create_arrays(group, MICROGRAPHS, sizes, batch, frozenset() if growing else STATIC)
            for name, values in columns.items():
                array_of(group, name)[:] = values
            group.attrs.update({"batch": batch, "settings": dict(settings)})
            for kind in KINDS:
                _new_group(made, kind)
            if isinstance(made.place, Url):  # folders get it when it is needed, by renaming
                _make_unlisted(made)
            versions = {"format_version": FORMAT_VERSION, "pickcal_version": pickcal.__version__}
            zarr.create_group(zarr_store(made.backing()), zarr_format=3, attributes=versions)
        return cls.open(home.place, mode="r+")

    @classmethod
    def open(cls, path: Path | Url | str, mode: Literal["r", "r+"] = "r", whole: bool = False) -> Project:
        """Open a project.

        Parameters
        ----------
        path
            Folder, or URL of an object store (`s3://bucket/p.zarr`).
        mode
            "r" (default) for reading, "r+" for writing too.
        whole
            See micrographs as well that have arrived and are still in work; default False: only those of finished
            rounds of `pickcal watch`.

        Raises
        ------
        MissingFileError, ProjectError
            If there is nothing at `path`, it is no pickcal project, or another version of the format wrote it.
        """
        home = home_of(path)
        where = home.place
        if isinstance(where, Path) and not where.exists():
            raise MissingFileError(f"{where}: no such project; make one with 'pickcal import'")
        try:
            with home.plainly():
                root = zarr.open_group(zarr_store(home.backing(), mode == "r"), mode=mode, zarr_format=3)
            version = root.attrs.get("format_version")
        except (FileNotFoundError, FileExistsError, NotADirectoryError, ValueError, KeyError) as error:
            if isinstance(where, Url):
                raise MissingFileError(f"{where}: no such project; make one with 'pickcal import'") from None
            raise ProjectError(f"{where}: expected a pickcal project, found something else ({error})") from None
        if version is None:
            raise ProjectError(f"{where}: expected a pickcal project, found a Zarr group without format_version")
        if version != FORMAT_VERSION:
            raise ProjectError(
                f"{where}: expected project format {FORMAT_VERSION}, found {version!r} written by pickcal "
                f"{root.attrs.get('pickcal_version', '?')}; use that version of pickcal, or import again"
            )
        return cls(home, root, whole)

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
        return [(start, min(start + self.batch, self.count)) for start in range(0, self.count, self.batch)]

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
            have = ", ".join(known) if known else "none"
            raise ProjectError(f"{self.path}: no {kind} named {name!r}; it has: {have}")

    def settings(self, group: str) -> dict[str, Any]:
        """Return the settings with which a group ("micrographs", "picks/NAME", ...) was written."""
        return dict(self._attrs(group)["settings"])

    def dataset(self, group: str) -> xr.Dataset:
        """One group as a lazily loaded dataset.

        Raises
        ------
        FileNotFoundError
            If there is no such group.
        """
        try:
            attributes, arrays = self._opened(group)
            version = attributes.pop(VERSION, None)
            if version is not None:
                arrays = self._opened(f"{group}/{version}")[1]
        except KeyError:
            raise FileNotFoundError(f"{self.path}: there is no group {group}") from None
        return lazy_dataset(arrays, attributes, self.count)

    def micrographs(self) -> xr.Dataset:
        """Return the table of micrographs, images included (lazy)."""
        return self.dataset("micrographs")

    def table(self) -> xr.Dataset:
        """Load the table of micrographs, without images."""
        # the status is written last in every batch, and its folder tells when
        return self._kept("micrographs", "zarr.json", "status/c", "status/zarr.json")

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
        return np.asarray(array[start:stop])

    def image(self, index: int) -> NDArray[np.float32]:
        """Return the valid part of one working image, float32 `(y, x)`."""
        height = int(self.read("micrographs", "height", index, index + 1)[0])
        width = int(self.read("micrographs", "width", index, index + 1)[0])
        values = np.asarray(self._array("micrographs", "image")[index, :height, :width])
        return values.astype(np.float32)

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
        sizes = {"micrograph": self.count, "pick": places, "decoy": places}
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
        _finish(self._group(group), settings)
        self._forget(group)

    def write_columns(self, picks: str, columns: Iterable[tuple[str, Column]]) -> None:
        """Keep the columns that came in with some picks, in the order of the stored picks; see `pickcal.columns`."""
        write_columns(self._group(f"picks/{picks}").create_group("columns"), columns)

    def columns(self, picks: str, start: int, stop: int) -> dict[str, Column]:
        """Columns that came in with some picks, rows from `start` to `stop`; {} for our own picks."""
        path = f"picks/{picks}/columns"
        return read_columns(self._group(path), start, stop) if path in self._root else {}

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
        grows = COUNT in self._array("micrographs", "status").attrs
        shorter = grows and not start % self.batch and 0 < stop - start < self.batch
        if (start, stop) not in self.batches() and not shorter:
            raise AssertionError(f"region {start}:{stop} is not a batch of {self.batch}")
        guard.ask()
        arrays = {name: self._array(group, name) for name in values}
        for name, array in arrays.items():
            if self.batch % array.chunks[0]:
                raise AssertionError(f"{group}/{name}: chunk {array.chunks[0]} does not divide batch {self.batch}")
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

    def _each(self, function: Callable[[N], T], names: Sequence[N]) -> list[T]:
        """Call a function for several arrays; at once where every one waits for an object store."""
        if isinstance(self.path, Path) or len(names) < 2:
            return [function(name) for name in names]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            return list(pool.map(function, names))

    def read_rows(self, group: str, names: Sequence[str], start: int, stop: int) -> dict[str, NDArray[Any]]:
        """Read rows of several variables."""
        arrays = {name: self._array(group, name) for name in names}
        found = self._each(lambda name: np.asarray(arrays[name][start:stop]), list(names))
        return dict(zip(names, found, strict=True))

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

    def write_more(self, kind: Kind, name: str, blocks: Iterable[Block], attributes: Mapping[str, Any]) -> None:
        """Add to a small result what belongs to micrographs that came since, or write it anew.

        Parameters
        ----------
        kind, name
            Which group.
        blocks
            As for `write_whole`.
        attributes
            Attributes that change.
        """
        path, total = f"{kind}/{name}", self.arrived
        for start, columns in blocks:
            for part, values in columns.items():
                group = self._group(f"{path}/{part}" if part else path)
                for key, variable in values.variables.items():
                    if "micrograph" in variable.dims:
                        lengthen(array_of(group, str(key)), total)
                self._write_rows(group, start, values)
        self._group(path).attrs.update(plain(attributes))

    def write_whole(
        self,
        kind: Kind,
        name: str,
        dataset: xr.Dataset,
        settings: Mapping[str, Any],
        parts: Mapping[str, xr.Dataset] | None = None,
        blocks: Iterable[Block] = (),
        swap: bool = False,
    ) -> None:
        """Write a small result as one group; settings go last.

        One of the same name is replaced. Selections appear complete or not at all, and take the place of an old one in
        one step where the system can; what is of another kind is gone from the start, so that none outlives an attempt
        to make it anew.

        Parameters
        ----------
        kind, name
            Which group.
        dataset
            Its variables and attributes.
        settings
            What it was made with.
        parts
            Groups within the group, by name.
        blocks
            What belongs to single micrographs, block by block in order, so that never all of it is in memory: for
            each block its first micrograph, and datasets for the group itself (named "") and for its parts.
        swap
            Leave what is of another kind until the new one takes its place, as for selections.
        """
        check_name(kind, name)
        groups = {"": dataset, **(parts or {})}
        if kind != "selection" and not swap:
            self.remove(f"{kind}/{name}")
            self._fill(self._root.create_group(f"{kind}/{name}"), groups, blocks, settings)
            return
        self._require_unlisted()
        with self.home.plainly(), self.locked(), self.home.replaced(kind, name) as staged:
            self._fill(zarr.open_group(zarr_store(staged), mode="w", zarr_format=3), groups, blocks, settings)

    def _fill(
        self, group: zarr.Group, parts: Mapping[str, xr.Dataset], blocks: Iterable[Block], settings: Mapping[str, Any]
    ) -> None:
        """Write a new group, its parts, and its settings last."""
        made = {part: group.create_group(part) if part else group for part in parts}
        for part, values in parts.items():
            made[part].attrs.update(plain(values.attrs))
            for key, variable in values.variables.items():
                new_array(made[part], str(key), variable, variable.shape)[...] = storable(variable)
        for start, columns in blocks:
            for part, values in columns.items():
                self._write_rows(made[part], start, values)
        _finish(group, settings)

    def _write_rows(self, group: zarr.Group, start: int, values: xr.Dataset) -> None:
        """Write what belongs to a block of micrographs; the arrays are made with the first block."""
        for name, variable in values.variables.items():
            key = str(name)
            if "micrograph" not in variable.dims:
                continue
            axis = variable.dims.index("micrograph")
            if key not in group:
                shape = tuple(self.count if i == axis else n for i, n in enumerate(variable.shape))
                new_array(group, key, variable, shape, axis)
            place = tuple(slice(start, start + n) if i == axis else slice(None) for i, n in enumerate(variable.shape))
            array_of(group, key)[place] = storable(variable)

    def calibration(self, picks: str) -> xr.Dataset | None:
        """Return the stored fit of some picks, or None if they were not calibrated."""
        return self._kept(f"calibration/{picks}") if picks in self.names("calibration") else None

    def mixture(self, picks: str) -> xr.Dataset | None:
        """Return the stored mixture of some picks, or None if their calibration holds none."""
        path = f"calibration/{picks}/mixture"
        return self._kept(path) if picks in self.names("calibration") and path in self._root else None

    def _kept(self, group: str, *marks: str) -> xr.Dataset:
        """Load a group that is small, once, and again when one of its marks is a newer file or folder."""
        names = [f"{group}/{mark}" for mark in marks or (META,)]
        for attempt in range(READ_ATTEMPTS):
            stamp = tuple(self.home.mark(name) for name in names)
            if group in self._loaded and self._loaded[group][0] == stamp:
                break
            try:
                found = self.dataset(group).drop_vars("image", errors="ignore").load()
            except (ValueError, KeyError, FileNotFoundError, RuntimeError):
                # one group may have taken the place of another between its metadata and its values
                if attempt == READ_ATTEMPTS - 1 or stamp == tuple(self.home.mark(name) for name in names):
                    raise
                continue
            self._loaded[group] = (stamp, found)
            if attempt == READ_ATTEMPTS - 1 or stamp == tuple(self.home.mark(name) for name in names):
                break
        return self._loaded[group][1].copy(deep=True)

    def remove(self, group: str) -> None:
        """Delete a group if it exists."""
        if group in self._root:
            del self._root[group]
        self._forget(group)

    def check_same(self, group: str, settings: Mapping[str, Any], remedy: str) -> None:
        """Raise a `ProjectError` that names each differing setting, unless a group has these settings."""
        differences = differing(self.settings(group), settings)
        if differences:
            lines = "\n".join(f"  {line}" for line in differences)
            raise ProjectError(f"{self.path}: {group} holds other settings:\n{lines}\n{remedy}")

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

    def done(self, group: str) -> NDArray[np.int8]:
        """Status of every micrograph in a group."""
        return self.read(group, "status")

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
                    _make_unlisted(self.home)

    def write_note(self, name: str, text: str) -> None:
        """Keep a small file that neither Zarr nor xarray lists, such as a draft; see `Home.write_note`."""
        self._require_unlisted()
        self.home.write_note(name, text)

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


def _new_group(home: Home, name: str) -> zarr.Group:
    """Make a group without the root above it: the root is written last."""
    return zarr.create_group(zarr_store(home.backing(name)), zarr_format=3)


def _make_unlisted(home: Home) -> None:
    """Make the array in whose folder nothing is listed, with its group."""
    group, array = PurePosixPath(UNLISTED).parts
    if isinstance(home.place, Url):
        _new_group(home, group).create_array(array, shape=(), dtype="i1", dimension_names=())
        return
    # elsewhere out of sight, and renamed: zarr warns of what is half made
    made = home.place / "micrographs" / "status" / f".{group}"
    shutil.rmtree(made, ignore_errors=True)
    zarr.open_group(made, mode="w", zarr_format=3).create_array(array, shape=(), dtype="i1", dimension_names=())
    made.rename(home.place / group)


def _finish(group: zarr.Group, settings: Mapping[str, Any]) -> None:
    group.attrs.update({"settings": dict(settings), "pickcal_version": pickcal.__version__})


def check_name(kind: Kind, name: str) -> None:
    """Refuse a name that could be mistaken for a path in the store.

    Raises
    ------
    InputError
        Unless the name is one word as `settings.NAME_PATTERN` allows, and not that of Zarr's own file.
    """
    if not re.match(NAME_PATTERN, name) or name.endswith("\n") or name == "zarr.json":
        raise InputError(
            f"{kind}: expected a name of letters, digits, '.', '-' and '_' that begins with a letter or digit, "
            f"got {name!r}"
        )


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Describe the settings in which two dictionaries differ, one line each."""
    missing = "(not set)"
    return [
        f"{key}: stored {old.get(key, missing)!r}, asked {new.get(key, missing)!r}"
        for key in sorted({*old, *new})
        if old.get(key, missing) != new.get(key, missing)
    ]


def stage_counts(status: NDArray[np.int8]) -> dict[str, int]:
    """Count micrographs per status, by name in lower case."""
    return {item.name.lower(): int((status == item).sum()) for item in Status}
