import csv

import numpy as np
import pandas as pd
import pytest

from pickcal.errors import InputError
from pickcal.formats.atomic import atomic_path
from pickcal.formats.tables import write_table


def table():
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "micrograph": ["0001", "NA", "a, b", 'q"q'],
            "x": rng.normal(size=4) * 10.0 ** rng.integers(-30, 30, size=4),
            "ncc": np.array([0.1, 1 / 3, np.nan, 1e-7], dtype=np.float32),
            "template": np.array([0, 1, 2, 3], dtype=np.int32),
        }
    )


def test_csv_keeps_every_bit(tmp_path):
    write_table(tmp_path / "new" / "a.csv", table())
    with (tmp_path / "new" / "a.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    truth = table()
    assert list(rows[0]) == list(truth.columns)
    assert [row["micrograph"] for row in rows] == truth["micrograph"].tolist()
    assert [float(row["x"]) for row in rows] == truth["x"].tolist()
    assert [int(row["template"]) for row in rows] == truth["template"].tolist()
    read = np.array([float(row["ncc"] or "nan") for row in rows], dtype=np.float32)
    np.testing.assert_array_equal(read, truth["ncc"].to_numpy())
    pd.testing.assert_series_equal(pd.read_csv(tmp_path / "new" / "a.csv")["x"], truth["x"], rtol=1e-15)


def test_parquet_keeps_types(tmp_path):
    write_table(tmp_path / "a.parquet", table(), format="parquet")
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "a.parquet"), table(), check_exact=True)


def test_unknown_format(tmp_path):
    with pytest.raises(InputError, match=r"format: expected one of csv, parquet, got 'xlsx'"):
        write_table(tmp_path / "a", table(), format="xlsx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_failed_writing_leaves_the_old_file_alone(tmp_path, error):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(error), atomic_path(path) as temporary:
        assert temporary.parent == path.parent and temporary.suffix == ".txt"
        temporary.write_text("half")
        raise error
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_good_writing_replaces_the_old_file_at_the_end(tmp_path):
    path = tmp_path / "sub" / "a.txt"
    with atomic_path(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert list(path.parent.iterdir()) == [path]


def test_places_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="found a folder"), atomic_path(tmp_path):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="folder cannot be made"), atomic_path(tmp_path / "file" / "a.txt"):
        pass
