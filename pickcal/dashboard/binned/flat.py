"""Tables of picks as flat columns of one length, which are cut and joined alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class FlatColumns:
    """Base of dataclasses whose fields are arrays with one entry a pick."""

    def at(self, chosen: NDArray[np.integer] | NDArray[np.bool_] | slice) -> Self:
        """Take some of the picks."""
        return type(self)(*(column[chosen] for column in self._columns()))

    @classmethod
    def joined(cls, parts: Sequence[Self]) -> Self:
        """Join several tables, at least one."""
        return cls(*(np.concatenate(columns) for columns in zip(*(part._columns() for part in parts), strict=True)))

    def _columns(self) -> list[NDArray[Any]]:
        return [getattr(self, column.name) for column in fields(self)]
