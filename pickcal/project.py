"""The project: one Zarr format 3 store that xarray opens as a DataTree.

Layout in `pickcal.schema`. Tasks write whole batches: the chunks of every array they write divide the batch, and a
batch belongs to one task, so that no two processes ever write one chunk.
"""

from __future__ import annotations

import re
import shutil
import uuid
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

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
from pickcal.locking import locked, replaced
from pickcal.schema import BANK, FORMAT_VERSION, MICROGRAPHS, PICKS, Status, Variable
from pickcal.settings import NAME_PATTERN
from pickcal.storage import array_of, create_arrays, new_array, plain, storable

Kind = Literal["picks", "calibration", "selection", "control"]
KINDS: tuple[Kind, ...] = ("picks", "calibration", "selection", "control")
Block = tuple[int, Mapping[str, xr.Dataset]]
UNLISTED = Path("drafts", "files")


class Project:
    """One open project.

    Use `Project.create` or `Project.open`. Reading gives xarray objects that load lazily; writing goes through
    `write_batch` for tasks and `write_whole` for small results.
    """

    def __init__(self, path: Path, root: zarr.Group) -> None:
        self.path = path
        self._root = root
        self._loaded: dict[str, tuple[tuple[tuple[int, int], ...], xr.Dataset]] = {}

    @classmethod
    def create(
        cls,
        path: Path,
        sizes: Mapping[str, int],
        batch: int,
        columns: Mapping[str, NDArray[Any]],
        settings: Mapping[str, Any],
    ) -> Project:
        """Create a project with its table of micrographs, all or nothing.

        Parameters
        ----------
        path
            Folder to make; must not exist.
        sizes
            Lengths of the dimensions `micrograph`, `y`, `x`.
        batch
            Micrographs per task.
        columns
            Static columns of `schema.MICROGRAPHS`, and `status` and `error`.
        settings
            Settings of the import, kept for later comparison.

        Raises
        ------
        ProjectError
            If something is at `path` already.
        """
        if path.exists():
            raise ProjectError(f"{path}: exists already; choose another name or remove it")
        partial = path.with_name(f".{path.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.parent.mkdir(parents=True, exist_ok=True)
        try:
            root = zarr.open_group(partial, mode="w", zarr_format=3)
            group = root.create_group("micrographs")
            create_arrays(group, MICROGRAPHS, sizes, batch)
            for name, values in columns.items():
                array_of(group, name)[:] = values
            group.attrs.update({"batch": batch, "settings": dict(settings)})
            for kind in KINDS:
                root.create_group(kind)
            root.attrs.update({"format_version": FORMAT_VERSION, "pickcal_version": pickcal.__version__})
            partial.rename(path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
        return cls.open(path, mode="r+")

    @classmethod
    def open(cls, path: Path | str, mode: Literal["r", "r+"] = "r") -> Project:
        """Open a project.

        Raises
        ------
        MissingFileError, ProjectError
            If there is nothing at `path`, it is no pickcal project, or another version of the format wrote it.
        """
        path = Path(path)
        if not path.exists():
            raise MissingFileError(f"{path}: no such project; make one with 'pickcal import'")
        try:
            root = zarr.open_group(path, mode=mode)
            version = root.attrs.get("format_version")
        except (FileNotFoundError, FileExistsError, NotADirectoryError, ValueError, KeyError) as error:
            raise ProjectError(f"{path}: expected a pickcal project, found something else ({error})") from None
        if version is None:
            raise ProjectError(f"{path}: expected a pickcal project, found a Zarr group without format_version")
        if version != FORMAT_VERSION:
            raise ProjectError(
                f"{path}: expected project format {FORMAT_VERSION}, found {version!r} written by pickcal "
                f"{root.attrs.get('pickcal_version', '?')}; use that version of pickcal, or import again"
            )
        return cls(path, root)

    @property
    def batch(self) -> int:
        """Micrographs per task."""
        return int(self._attrs("micrographs")["batch"])

    @property
    def count(self) -> int:
        """Number of micrographs."""
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
        """One group as a lazily loaded dataset."""
        return xr.open_dataset(
            self.path, engine="zarr", group=group, consolidated=False, chunks=None, mask_and_scale=False
        )

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
        return np.asarray(self._array(group, variable)[start:stop])

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
        for name in sorted(values, key=lambda name: name == "status"):
            self._array(group, name)[start:stop] = values[name]

    def write_batch(self, group: str, start: int, stop: int, values: Mapping[str, NDArray[Any]]) -> None:
        """Write one whole batch; `status` goes last, so that an interrupted batch stays pending.

        Raises
        ------
        AssertionError
            If the region is not exactly one batch: writing part of a chunk could lose another task's data.
        """
        if (start, stop) not in self.batches():
            raise AssertionError(f"region {start}:{stop} is not a batch of {self.batch}")
        guard.ask()
        for name in sorted(values, key=lambda name: name == "status"):
            array = self._array(group, name)
            if self.batch % array.chunks[0]:
                raise AssertionError(f"{group}/{name}: chunk {array.chunks[0]} does not divide batch {self.batch}")
            array[start:stop] = values[name]

    def write_whole(
        self,
        kind: Kind,
        name: str,
        dataset: xr.Dataset,
        settings: Mapping[str, Any],
        parts: Mapping[str, xr.Dataset] | None = None,
        blocks: Iterable[Block] = (),
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
        """
        check_name(kind, name)
        groups = {"": dataset, **(parts or {})}
        if kind != "selection":
            self.remove(f"{kind}/{name}")
            self._fill(self._root.create_group(f"{kind}/{name}"), groups, blocks, settings)
            return
        with self.locked(), replaced(self.path / kind / name, self.unlisted()) as staged:
            self._fill(zarr.open_group(staged, mode="w", zarr_format=3), groups, blocks, settings)

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
        places = [self.path / group / mark for mark in marks or ("zarr.json",)]
        stats = [place.stat() for place in places if place.exists()]
        stamp = tuple((stat.st_mtime_ns, stat.st_ino) for stat in stats)
        if group not in self._loaded or self._loaded[group][0] != stamp:
            found = self.dataset(group)
            self._loaded[group] = (stamp, found.drop_vars("image", errors="ignore").load())
        return self._loaded[group][1].copy(deep=True)

    def remove(self, group: str) -> None:
        """Delete a group if it exists."""
        if group in self._root:
            del self._root[group]

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
        found = self._attrs(group).get("mark", "")
        if not found and not self._root.read_only:
            found = uuid.uuid4().hex[:12]
            self._group(group).attrs["mark"] = found
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
        with locked(self.path):
            yield

    def unlisted(self) -> Path:
        """Folder within the project for files that Zarr and xarray never list: that of an array; made if missing.

        Drafts of the dashboard are there, and results that are about to take the place of older ones.
        """
        folder = self.path / UNLISTED
        if not (folder / "zarr.json").is_file():
            with self.locked():
                if not (folder / "zarr.json").is_file():
                    self._make_unlisted()
        return folder

    def _make_unlisted(self) -> None:
        """Make the group and its array elsewhere out of sight, and rename: zarr warns of what is half made."""
        made = self.path / "micrographs" / "status" / f".{UNLISTED.parent}"
        shutil.rmtree(made, ignore_errors=True)
        group = zarr.open_group(made, mode="w", zarr_format=3)
        group.create_array(UNLISTED.name, shape=(), dtype="i1", dimension_names=())
        made.rename(self.path / UNLISTED.parent)

    def _group(self, path: str) -> zarr.Group:
        found = self._root[path]
        assert isinstance(found, zarr.Group)
        return found

    def _array(self, group: str, variable: str) -> zarr.Array[Any]:
        return array_of(self._group(group), variable)

    def _attrs(self, path: str) -> dict[str, Any]:
        return self._group(path).attrs.asdict()


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
