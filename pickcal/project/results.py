"""Writing small results as one group: calibrations, selections, controls."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import zarr

from pickcal.project.arrays import array_of, lengthen, new_array, plain, storable
from pickcal.project.backing import zarr_store
from pickcal.project.checks import check_name
from pickcal.project.groups import Kind, finish_group
from pickcal.project.writing import Writing

if TYPE_CHECKING:
    import xarray as xr

Block: TypeAlias = "tuple[int, Mapping[str, xr.Dataset]]"
"""First micrograph of a block, and what belongs to its micrographs: by part of the group, "" for the group itself."""


class Results(Writing):
    """Results that appear whole."""

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
        finish_group(group, settings)

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
