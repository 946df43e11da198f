"""Tables of micrographs that are read in parts, so that a long one is never held as a whole."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from pickcal.formats.foreign import EXPOSURE_RANGES
from pickcal.formats.images import split_stack_name

SAMPLED = 50
"""Names that tell where the files of a table are, spread evenly; of a long table so many at least are kept."""
PART = 4096
"""Rows that are read at once where nothing else is asked for."""


@dataclass(frozen=True)
class Exposures:
    """A table of micrographs whose rows were all found good.

    Attributes
    ----------
    count
        Number of micrographs.
    names
        Their names, or some of them, spread evenly (of those that are relative to a folder, if there are any).
    parts
        Gives the table anew, in parts of so many rows.
    """

    count: int
    names: list[str]
    parts: Callable[[int], Iterator[pd.DataFrame]]

    @classmethod
    def of(cls, table: pd.DataFrame) -> Exposures:
        """Take a table that was read as a whole."""
        return cls(len(table), table["name"].tolist(), lambda rows: slices(table, rows))


def problems(frame: pd.DataFrame, needed: Collection[str]) -> pd.Series[str]:
    """Say what is wrong with each row of a table: the first of its values outside of `foreign.EXPOSURE_RANGES`.

    Parameters
    ----------
    frame
        Any of the columns that have a range.
    needed
        Those that must have a number; NaN in another one is a value that is not known.
    """
    problem = np.full(len(frame), "", dtype=object)
    for name, (low, high, expected) in EXPOSURE_RANGES.items():
        if name not in frame:
            continue
        values = frame[name].to_numpy(np.float64)
        bad = ~((low < values) & (values < high)) & ((name in needed) | ~np.isnan(values)) & (problem == "")
        for row in np.flatnonzero(bad):
            problem[row] = f"{name}: expected a number {expected}, found {values[row]:g}"
    return pd.Series(problem, dtype="str")


def slices(table: pd.DataFrame, rows: int) -> Iterator[pd.DataFrame]:
    """Cut a table into parts of so many rows."""
    for start in range(0, len(table), rows):
        yield table.iloc[start : start + rows].reset_index(drop=True)


def sampled(names: Sequence[str]) -> list[str]:
    """Take at most `SAMPLED` names, spread evenly."""
    step = max(1.0, len(names) / SAMPLED)
    return [names[int(i * step)] for i in range(min(len(names), SAMPLED))]


def survey(parts: Iterable[pd.DataFrame]) -> tuple[int, list[str], bool]:
    """Go through a table once.

    Returns
    -------
    count, names, distinct
        Number of rows; some of the names, see `Exposures`; whether no name seems to come twice (by hashes, of which
        two may be the same by chance).
    """
    count, every = 0, 1
    kept: list[str] = []
    others: list[str] = []
    hashes = []
    for part in parts:
        names = part["name"]
        hashes.append(pd.util.hash_array(names.to_numpy(dtype=object), categorize=False))
        for row in range(-count % every, len(names), every):
            name = str(names.iloc[row])
            (others if split_stack_name(name)[1].is_absolute() else kept).append(name)
        count += len(names)
        while len(kept) >= 2 * SAMPLED:
            kept, every = kept[::2], 2 * every
        others = others[:SAMPLED]
    found = np.concatenate(hashes) if hashes else np.zeros(0, np.uint64)
    found.sort()
    return count, kept or others, not (found[1:] == found[:-1]).any()
