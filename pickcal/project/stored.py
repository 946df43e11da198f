"""Small groups of a project in memory: NumPy arrays, which need no xarray to be read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import xarray as xr  # loading it and opening lazy arrays takes longer than all that a short command does


@dataclass(frozen=True)
class StoredArray:
    """One array of a group.

    Attributes
    ----------
    dims
        Names of its dimensions.
    values
        Not to be written to: whoever reads the group shares them.
    attrs
        Unit, meaning.
    """

    dims: tuple[str, ...]
    values: NDArray[Any]
    attrs: Mapping[str, Any]


@dataclass(frozen=True)
class Stored:
    """A small group as it was read: a calibration, its mixture, a selection, a control, the table of micrographs.

    Attributes
    ----------
    attrs
        Attributes of the group.
    columns
        Its arrays by name.
    """

    attrs: Mapping[str, Any]
    columns: Mapping[str, StoredArray]

    def __getitem__(self, name: str) -> NDArray[Any]:
        """Values of an array."""
        return self.columns[name].values

    def __contains__(self, name: object) -> bool:
        """Whether there is an array of this name."""
        return name in self.columns

    @property
    def variables(self) -> list[str]:
        """Names of the arrays, but for the coordinates of their dimensions; in order."""
        return sorted(name for name, column in self.columns.items() if column.dims != (name,))

    def dataset(self) -> xr.Dataset:
        """Give the group as a dataset of its own, whose values may be written to."""
        import xarray as xr

        columns = self.columns.items()
        return xr.Dataset(
            {name: (column.dims, np.array(column.values), dict(column.attrs)) for name, column in columns},
            attrs=dict(self.attrs),
        )
