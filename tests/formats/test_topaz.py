import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from damaged import block, damaged, many, returned, survives
from hypothesis import given

from pickcal.errors import InputError, MissingFileError
from pickcal.formats import delimited, foreign, topaz

TABLE = (
    b"image_name\tx_coord\ty_coord\tscore\textra\tgroup\n"
    b"mic_a\t10\t20\t1.5\t007\tx y\n"
    b"mic_a\t11\t21\t-2.25\t008\t\n"
    b"mic_b.v2\t12\t22\t\t009\tz\n"
)


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "picks.txt"
    path.write_bytes(TABLE)
    return path


def read_one(path):
    (part,) = topaz.read_picks(path)
    return part


def test_reads_every_column_as_it_is(table):
    part = read_one(table)
    assert part.program == "topaz" and part.unit == "px" and part.y_from == "first row"
    assert list(part.columns) == ["image_name", "x_coord", "y_coord", "score", "extra", "group"]
    assert list(part.micrograph) == ["mic_a", "mic_a", "mic_b.v2"]
    np.testing.assert_array_equal(part.x, [10, 11, 12])
    np.testing.assert_array_equal(part.y, [20, 21, 22])
    np.testing.assert_array_equal(part.scores["score"], [1.5, -2.25, np.nan])
    assert part.columns["x_coord"].dtype.kind == "i"
    assert list(part.columns["extra"]) == ["007", "008", "009"]
    assert list(part.columns["group"]) == ["x y", "", "z"]


def test_agrees_with_the_call_by_which_topaz_reads(data):
    path = data / "pickers/topaz/particles_head.txt"
    assert topaz.recognise(path, path.read_bytes())
    part, truth = read_one(path), pd.read_csv(path, sep="\t")
    assert len(truth) == 59 and not part.scores
    assert list(part.micrograph) == list(truth["image_name"])
    np.testing.assert_array_equal(part.x, truth["x_coord"])
    np.testing.assert_array_equal(part.y, truth["y_coord"])


def test_round_trip_keeps_the_four_columns_and_puts_ours_beside(table, tmp_path):
    names = ["a/mic_a.mrc", "a/mic_b.v2.mrc"]
    part = read_one(table)
    moved = part.micrograph.rename_categories(lambda name: f"a/{name}.mrc")
    out = returned(foreign.ForeignPicks(**{**vars(part), "micrograph": moved}), names)
    (path,) = topaz.write_picks(tmp_path / "out.txt", [out])
    lines = path.read_bytes().splitlines(keepends=True)
    assert lines[0] == b"image_name\tx_coord\ty_coord\tscore\textra\tgroup\tcalibrated\treason\n"
    for old, new in zip(TABLE.splitlines()[1:], lines[1:], strict=True):
        assert new.startswith(old + b"\t") and new.endswith(b"\tlow power\n")
    back = pd.read_csv(path, sep="\t")
    np.testing.assert_array_equal(back["calibrated"], [-1, 0, 1])


def test_writes_stems_and_scores_of_other_picks_without_losing_a_digit(tmp_path):
    rng = np.random.default_rng(1)
    x, score = rng.uniform(0, 4096, 50), rng.normal(size=50).astype(np.float32)
    ours = {"ncc": score, "score": np.arange(50.0)}
    picks = block(["Micrographs/a.mrc", "b.tif"], [0] * 20 + [1] * 30, x, np.arange(50), ours)
    (path,) = topaz.write_picks(tmp_path / "new/out.txt", [picks])
    back = pd.read_csv(path, sep="\t")
    assert list(back["image_name"]) == ["a"] * 20 + ["b"] * 30
    np.testing.assert_array_equal(back["x_coord"], x)
    np.testing.assert_array_equal(back["y_coord"], np.arange(50))
    assert back["y_coord"].dtype == np.int64
    np.testing.assert_array_equal(back["score"].astype(np.float32), score)
    np.testing.assert_array_equal(back["ncc"].astype(np.float32), score)


def test_moved_picks_lose_their_old_positions_alone(table, tmp_path):
    part = read_one(table)
    out = returned(part, ["mic_a", "mic_b.v2"], moved=True)
    out.x[:] = [1.25, 2.5, 3.75]
    back = read_one(topaz.write_picks(tmp_path / "out.txt", [out])[0])
    np.testing.assert_array_equal(back.x, [1.25, 2.5, 3.75])
    np.testing.assert_array_equal(back.scores["score"], part.scores["score"])


def test_micrographs_of_one_stem_are_refused(tmp_path):
    picks = block(["one/a.mrc", "two/a.mrc"], [0, 1], [1, 2], [3, 4])
    with pytest.raises(InputError, match=r"one/a\.mrc and two/a\.mrc"):
        topaz.write_picks(tmp_path / "out.txt", [picks])
    assert list(tmp_path.iterdir()) == []


def test_a_later_failure_leaves_the_old_file(tmp_path):
    path = tmp_path / "out.txt"
    path.write_text("old")

    def blocks():
        yield block(["a.mrc"], [0], [1], [2])
        yield block(["b.mrc"], [0], [1], [2], {"ncc": np.ones(1), "power": np.ones(1)})

    with pytest.raises(InputError, match=r"same columns.*power"):
        topaz.write_picks(path, blocks())
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_no_picks_make_a_header(tmp_path):
    topaz.write_picks(tmp_path / "out.txt", [])
    part = read_one(tmp_path / "out.txt")
    assert len(part.x) == 0 and list(part.columns) == ["image_name", "x_coord", "y_coord", "score"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "Empty CSV"),
        (b"image_name\tx_coord\ty_coord\na\t1\t2\na\t3\n", "Row #3: Expected 3 columns, got 2"),
        (b"image_name\tx_coord\ty_coord\na\t1\t2\na\tnan\t2\n", "column x_coord: row 2: expected a finite number"),
        (b"image_name\tx_coord\ty_coord\na\t1\t2\na\t1\tinf\n", "column y_coord: row 2: expected a finite number"),
        (
            b"image_name\tx_coord\ty_coord\na\t1\t2\na\t1\tten\n",
            "column y_coord: expected numbers, found 'ten' in row 2",
        ),
        (
            b"image_name\tx_coord\ty_coord\tscore\na\t1\t2\tbad\n",
            "column score: expected numbers, found 'bad' in row 1",
        ),
        (b"image_name\tx_coord\na\t1\n", "expected the column y_coord, found image_name, x_coord"),
        (b"image_name\tx_coord\ty_coord\tx_coord\na\t1\t2\t3\n", "every column once, found x_coord"),
        (b"image_name\tx_coord\ty_coord\n\xff\xfe\t1\t2\n", "(?i)invalid utf"),
    ],
)
def test_damage_is_named(tmp_path, content, words):
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as error:
        list(topaz.read_picks(path))
    assert str(path) in str(error.value)


def test_what_is_not_there_and_folders(tmp_path):
    with pytest.raises(MissingFileError, match="no such file"):
        list(topaz.read_picks(tmp_path / "none.txt"))
    with pytest.raises(InputError, match="found a folder"):
        list(topaz.read_picks(tmp_path))


def test_columns_have_one_type_throughout_though_late_rows_decide_it(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited, "ROWS", 100)
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 2048)
    rows = [f"m{n // 300}\t{n}\t{n}\t{n}\t{n}\t{n}" for n in range(1000)]
    rows[900] = "m3\t900.5\t900\t0.25\tword\t0900"
    path = tmp_path / "long.txt"
    path.write_text("image_name\tx_coord\ty_coord\tscore\tnote\tcode\n" + "\n".join(rows) + "\n")
    parts = list(topaz.read_picks(path))
    assert len(parts) > 10 and max(len(part.x) for part in parts) <= 100
    x = np.concatenate([part.columns["x_coord"] for part in parts])
    assert x.dtype == np.float64 and x[900] == 900.5 and x[999] == 999
    assert {part.columns["y_coord"].dtype for part in parts} == {np.dtype(np.int64)}
    assert {part.columns["score"].dtype for part in parts} == {np.dtype(np.float64)}
    for label in ("note", "code"):
        words = [word for part in parts for word in part.columns[label]]
        assert words[899:902] == ["899", {"note": "word", "code": "0900"}[label], "901"]


def test_memory_does_not_grow_with_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 1 << 16)
    path = tmp_path / "long.txt"

    def peak(rows):
        path.write_text("image_name\tx_coord\ty_coord\tscore\n" + "mic_a\t123\t456\t0.789\n" * rows)
        before, most, found = pa.total_allocated_bytes(), 0, 0
        for part in topaz.read_picks(path):
            found += len(part.x)
            most = max(most, pa.total_allocated_bytes() - before)
        assert found == rows
        return most

    # pyarrow reads some 32 blocks ahead; the whole file would be 12 MB, and its three columns of numbers 14 MB
    assert peak(600_000) < 5 << 20


@many
@given(damaged(TABLE))
def test_damaged_tables_end_in_picks_or_an_error(tmp_path, data):
    topaz.recognise(tmp_path, data)
    survives(topaz.read_picks, tmp_path / "t.txt", data)
