"""Plain tables for other programs: CSV and Parquet."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

import pandas as pd

from pickcal.errors import InputError
from pickcal.formats.atomic import atomic_path

TableFormat = Literal["csv", "parquet"]


def write_table(path: Path, frame: pd.DataFrame, format: TableFormat = "csv") -> None:
    """Write a table, whole or not at all.

    Parameters
    ----------
    path
        File to write; folders are created, an existing file is replaced.
    frame
        The table. Its index is not written.
    format
        `"csv"` (default) writes floats with the fewest digits that read back to the same value and leaves NaN
        empty; `"parquet"` keeps the column types as well.

    Raises
    ------
    InputError
        If the format is none of these, or the file cannot be placed at `path`.
    """
    if format not in get_args(TableFormat):
        raise InputError(f"format: expected one of {', '.join(get_args(TableFormat))}, got {format!r}")
    with atomic_path(path) as temporary:
        if format == "csv":
            frame.to_csv(temporary, index=False, lineterminator="\n")
        else:
            frame.to_parquet(temporary, engine="pyarrow", index=False)
