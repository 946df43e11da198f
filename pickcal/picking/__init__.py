"""Picking mathematics: pure functions on arrays, `(y, x)`, without projects, Dask or files."""
