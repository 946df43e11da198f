"""Names, settings and states of a project's groups, checked and told without opening it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pickcal.errors import InputError
from pickcal.project.groups import Kind
from pickcal.schema import Status
from pickcal.settings import NAME_PATTERN


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


def mended(status: NDArray[np.int8], imported: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Tell which micrographs a stage skipped, as they could not be imported, that have been imported since."""
    return np.asarray((status == Status.SKIPPED) & (imported == Status.DONE))
