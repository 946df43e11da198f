"""The project: one Zarr format 3 store that xarray opens as a DataTree. All zarr calls live here.

Layout in `pickcal.schema`. Tasks write whole batches: the chunks of every array they write divide the batch, and a
batch belongs to one task, so that no two processes ever write one chunk.
"""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
import zarr
from numpy.typing import NDArray
from zarr.codecs import BloscCodec
from zarr.errors import ZarrUserWarning

import pickcal
from pickcal.errors import InputError, MissingFileError, ProjectError
from pickcal.schema import BANK, FORMAT_VERSION, MICROGRAPHS, PICKS, Status, Variable
from pickcal.settings import NAME_PATTERN

Kind = Literal["picks", "calibration", "selection", "control"]
KINDS: tuple[Kind, ...] = ("picks", "calibration", "selection", "control")
Block = tuple[int, Mapping[str, xr.Dataset]]
ROWS_PER_CHUNK = 4096


class Project:
    """One open project.

    Use `Project.create` or `Project.open`. Reading gives xarray objects that load lazily; writing goes through
    `write_batch` for tasks and `write_whole` for small results.
    """

    def __init__(self, path: Path, root: zarr.Group) -> None:
        self.path = path
        self._root = root

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
            _create_arrays(group, MICROGRAPHS, sizes, batch)
            for name, values in columns.items():
                _array_of(group, name)[:] = values
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
        return self.micrographs().drop_vars("image").load()

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
        picks: int,
        settings: Mapping[str, Any],
        bank: Mapping[str, NDArray[Any]],
        attributes: Mapping[str, Any],
    ) -> None:
        """Create an empty picks group with its bank; complete only once its settings are written, at the end."""
        check_name("picks", name)
        path = f"picks/{name}"
        self.remove(path)
        group = self._root.create_group(path)
        _create_arrays(group, PICKS, {"micrograph": self.count, "pick": picks, "decoy": picks}, self.batch)
        sub = group.create_group("bank")
        sizes = {dim: n for key, v in bank.items() for dim, n in zip(BANK[key].dims, v.shape, strict=True)}
        _create_arrays(sub, BANK, sizes, None)
        for key, values in bank.items():
            _array_of(sub, key)[:] = values
        group.attrs.update({**attributes, "settings": dict(settings), "pickcal_version": pickcal.__version__})

    def write_batch(self, group: str, start: int, stop: int, values: Mapping[str, NDArray[Any]]) -> None:
        """Write one whole batch; `status` goes last, so that an interrupted batch stays pending.

        Raises
        ------
        AssertionError
            If the region is not exactly one batch: writing part of a chunk could lose another task's data.
        """
        if (start, stop) not in self.batches():
            raise AssertionError(f"region {start}:{stop} is not a batch of {self.batch}")
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
        """Write a small result as one group, replacing one of the same name; settings go last.

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
        path = f"{kind}/{name}"
        self.remove(path)
        groups = {"": dataset, **(parts or {})}
        for part, values in groups.items():
            group = self._root.create_group(f"{path}/{part}".rstrip("/"))
            group.attrs.update(_plain(values.attrs))
            for key, variable in values.variables.items():
                _new_array(group, str(key), variable, variable.shape)[...] = _storable(variable)
        for start, columns in blocks:
            for part, values in columns.items():
                self._write_rows(f"{path}/{part}".rstrip("/"), start, values)
        self._group(path).attrs.update({"settings": dict(settings), "pickcal_version": pickcal.__version__})

    def _write_rows(self, path: str, start: int, values: xr.Dataset) -> None:
        """Write what belongs to a block of micrographs; the arrays are made with the first block."""
        group = self._group(path)
        for name, variable in values.variables.items():
            key = str(name)
            if "micrograph" not in variable.dims:
                continue
            axis = variable.dims.index("micrograph")
            if key not in group:
                shape = tuple(self.count if i == axis else n for i, n in enumerate(variable.shape))
                _new_array(group, key, variable, shape, axis)
            place = tuple(slice(start, start + n) if i == axis else slice(None) for i, n in enumerate(variable.shape))
            _array_of(group, key)[place] = _storable(variable)

    def calibration(self, picks: str) -> xr.Dataset | None:
        """Return the stored fit of some picks, or None if they were not calibrated."""
        return self.dataset(f"calibration/{picks}").load() if picks in self.names("calibration") else None

    def mixture(self, picks: str) -> xr.Dataset | None:
        """Return the stored mixture of some picks, or None if their calibration holds none."""
        path = f"calibration/{picks}/mixture"
        return self.dataset(path).load() if picks in self.names("calibration") and path in self._root else None

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

    def done(self, group: str) -> NDArray[np.int8]:
        """Status of every micrograph in a group."""
        return self.read(group, "status")

    def _group(self, path: str) -> zarr.Group:
        found = self._root[path]
        assert isinstance(found, zarr.Group)
        return found

    def _array(self, group: str, variable: str) -> zarr.Array[Any]:
        return _array_of(self._group(group), variable)

    def _attrs(self, path: str) -> dict[str, Any]:
        return self._group(path).attrs.asdict()


def check_name(kind: Kind, name: str) -> None:
    """Refuse a name that could be mistaken for a path in the store.

    Raises
    ------
    InputError
        Unless the name is one word as `settings.NAME_PATTERN` allows.
    """
    if not re.match(NAME_PATTERN, name):
        raise InputError(
            f"{kind}: expected a name of letters, digits, '.', '-' and '_' that begins with a letter or digit, "
            f"got {name!r}"
        )


def _new_array(
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
    array.attrs.update(_plain(like.attrs))
    return array


def _storable(variable: xr.Variable) -> NDArray[Any]:
    return np.asarray(variable.values.astype(object) if variable.dtype.kind in "OUT" else variable.values)


def _plain(attributes: Mapping[Any, Any]) -> dict[str, Any]:
    return {str(key): value.item() if isinstance(value, np.generic) else value for key, value in attributes.items()}


def _array_of(group: zarr.Group, name: str) -> zarr.Array[Any]:
    found = group[name]
    assert isinstance(found, zarr.Array)
    return found


def differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """Describe the settings in which two dictionaries differ, one line each."""
    missing = "(not set)"
    return [
        f"{key}: stored {old.get(key, missing)!r}, asked {new.get(key, missing)!r}"
        for key in sorted({*old, *new})
        if old.get(key, missing) != new.get(key, missing)
    ]


def _create_arrays(
    group: zarr.Group, variables: Mapping[str, Variable], sizes: Mapping[str, int], batch: int | None
) -> None:
    for name, variable in variables.items():
        shape = tuple(sizes[dim] for dim in variable.dims)
        chunks = list(max(1, n) for n in shape)
        if batch is not None:
            chunks[0] = 1 if name == "image" else batch
        compressors: Any = "auto" if variable.dtype is str else BloscCodec(cname="zstd", clevel=1, shuffle="bitshuffle")
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


def stage_counts(status: NDArray[np.int8]) -> dict[str, int]:
    """Count micrographs per status, by name in lower case."""
    return {item.name.lower(): int((status == item).sum()) for item in Status}


def matching_names(wanted: Sequence[str], names: Sequence[str], what: str) -> NDArray[np.intp]:
    """Find micrographs given by full name or by stem.

    Parameters
    ----------
    wanted
        Names to look for, as other tables spell them.
    names
        Names of the project's micrographs.
    what
        What `wanted` comes from, for the message.

    Returns
    -------
    ndarray
        Index into `names` for each of `wanted`, -1 where none matches.

    Raises
    ------
    InputError
        If a stem fits more than one micrograph.
    """
    full = {name: i for i, name in enumerate(names)}
    stems: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        stems.setdefault(_stem(name), []).append(i)
    out = np.full(len(wanted), -1, dtype=np.intp)
    for i, name in enumerate(wanted):
        if name in full:
            out[i] = full[name]
            continue
        hits = stems.get(_stem(name), [])
        if len(hits) > 1:
            raise InputError(
                f"{what}: {name!r} fits {len(hits)} micrographs by its stem ({names[hits[0]]!r}, {names[hits[1]]!r}); "
                "give names with folders as in the project"
            )
        if hits:
            out[i] = hits[0]
    return out


def _stem(name: str) -> str:
    slice_, at, rest = name.rpartition("@")
    return f"{slice_}{at}{Path(rest).stem}"
