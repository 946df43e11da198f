"""Columns that came in with picks: stored flat, read back by rows as they were, readable without pickcal."""

import numpy as np
import pandas as pd
import xarray as xr
import zarr

from pickcal.project.columns import read_columns, write_columns

RNG = np.random.default_rng(0)
COLUMNS = {
    "uid": RNG.integers(2**63, 2**64 - 1, 7, dtype=np.uint64),
    "location/center_x_frac": RNG.random(7).astype(np.float32),
    "alignments3D/pose": RNG.random((7, 3)),
    "rlnMicrographName": pd.Categorical(["a.mrc", "b µ.mrc", "", "a.mrc", "a.mrc", "c", ""]),
    "location.center_x_frac": np.arange(7),
}


def test_rows_come_back_as_they_were(tmp_path):
    """Types, order, text and two-dimensional columns; two labels that differ in `/` and `.` alone."""
    group = zarr.open_group(tmp_path / "c.zarr", mode="w", zarr_format=3)
    write_columns(group, COLUMNS.items())
    for rows in (slice(0, 7), slice(2, 5), slice(3, 3)):
        found = read_columns(zarr.open_group(tmp_path / "c.zarr", mode="r"), rows.start, rows.stop)
        assert list(found) == list(COLUMNS)
        for label, column in COLUMNS.items():
            assert list(map(str, found[label])) == list(map(str, column[rows]))
            if not isinstance(column, pd.Categorical):
                assert found[label].dtype == column.dtype


def test_xarray_reads_them(tmp_path):
    write_columns(zarr.open_group(tmp_path / "c.zarr", mode="w", zarr_format=3), COLUMNS.items())
    found = xr.open_dataset(tmp_path / "c.zarr", engine="zarr", consolidated=False, chunks=None)
    assert found["uid"].values.tolist() == COLUMNS["uid"].tolist()
    text = found[found["rlnMicrographName"].attrs["text"]].values[found["rlnMicrographName"].values]
    assert text.tolist() == list(COLUMNS["rlnMicrographName"])
