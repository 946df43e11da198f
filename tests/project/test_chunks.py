"""Arrays in very many files, read file by file, are what zarr gives."""

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from pickcal.project.arrays import lengthen, seen_longer
from pickcal.project.chunks import rows_of_files


def stored(folder, values, step, missing=()):
    """Write an array in chunks; chunks that are missing were never written."""
    group = zarr.open_group(folder, mode="w")
    array = group.create_array(
        "status", shape=values.shape, chunks=(step,), dtype=values.dtype, fill_value=7, dimension_names=["micrograph"]
    )
    for number in range(-(-len(values) // step)):
        if number not in missing:
            array[number * step : (number + 1) * step] = values[number * step : (number + 1) * step]
    return array


@settings(max_examples=40)
@given(
    values=st.lists(st.integers(0, 3), min_size=1, max_size=40),
    step=st.integers(1, 9),
    missing=st.sets(st.integers(0, 40)),
    dtype=st.sampled_from(["int8", "int32", "float32"]),
)
def test_rows_are_those_of_zarr(tmp_path_factory, values, step, missing, dtype):
    """Whatever chunks are alike, short or missing."""
    folder = tmp_path_factory.mktemp("rows")
    array = stored(folder, np.array(values, dtype=dtype), step, missing)
    found = rows_of_files(folder / "status", array)
    assert found.dtype == array.dtype
    assert np.array_equal(found, array[:])


def test_an_array_that_grows_has_fill_values_at_its_end(tmp_path):
    """Seen longer than it is stored, and made longer with a last chunk that was short."""
    array = stored(tmp_path, np.arange(5, dtype=np.int8), 3)
    assert rows_of_files(tmp_path / "status", seen_longer(array, 8)).tolist() == [0, 1, 2, 3, 4, 7, 7, 7]
    lengthen(array, 8)
    assert rows_of_files(tmp_path / "status", array).tolist() == [0, 1, 2, 3, 4, 7, 7, 7]


def test_a_chunk_written_meanwhile_does_not_stand_for_others(tmp_path, monkeypatch):
    """Another process writes a chunk between the reading of its bytes and their decoding."""
    array = stored(tmp_path, np.zeros(4, dtype=np.int8), 2)
    read, asked = zarr.Array.__getitem__, []

    def written_first(found, selection):
        if not asked:
            array[0:2] = 1
        asked.append(selection)
        return read(found, selection)

    monkeypatch.setattr(zarr.Array, "__getitem__", written_first)
    assert rows_of_files(tmp_path / "status", array).tolist() == [1, 1, 0, 0]


def test_a_damaged_chunk_is_an_error(tmp_path):
    """As zarr has it."""
    array = stored(tmp_path, np.zeros(4, dtype=np.int8), 2, missing=(0,))
    (tmp_path / "status/c").mkdir(exist_ok=True)
    (tmp_path / "status/c/0").write_bytes(b"no chunk")
    with pytest.raises(Exception) as expected:
        array[:]
    with pytest.raises(type(expected.value)):
        rows_of_files(tmp_path / "status", array)
