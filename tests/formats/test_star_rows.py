"""Rows of STAR tables in chunks: the same as the strict reader's, which goes through another library."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pickcal.errors import InputError, MissingFileError
from pickcal.formats.star import read_star
from pickcal.formats.star_rows import star_head, star_lines, star_loops


def columns_of(path, block, count=500_000):
    loop = next(loop for loop in star_loops(path) if loop.name == block)
    parts = list(loop.rows(count))
    assert all(len(next(iter(part.values()))) <= count for part in parts)
    return {
        label: np.concatenate([np.asarray(part[label], dtype=object) for part in parts]).tolist()
        for label in loop.labels
    }


def agree(path, block, count=500_000):
    strict = read_star(path)[block]
    found = columns_of(path, block, count)
    assert list(found) == list(strict.columns)
    for label, values in found.items():
        for mine, theirs in zip(values, strict[label].tolist(), strict=True):
            assert mine == theirs or str(mine) == str(theirs) or (mine != mine and theirs != theirs), (
                label,
                mine,
                theirs,
            )


def test_all_real_files(data):
    """Every STAR file there is, whole and five rows at a time."""
    files = [path for path in data.rglob("*.star") if "coords_suffix" not in path.name]
    assert len(files) > 30
    for path in files:
        for loop in star_loops(path):
            agree(path, loop.name)
            if path.stat().st_size < 8_000:
                agree(path, loop.name, 5)


VALUES = {
    "float": st.floats(width=64, allow_infinity=False).map(repr),
    "int": st.integers(-(2**53), 2**53).map(str),
    "text": st.from_regex(r"[A-Za-z/@][A-Za-z0-9/@.\[\],:-]{0,12}", fullmatch=True).filter(
        lambda word: not word.lower().startswith(("nan", "data_", "loop_", "inf", "true", "false"))
    ),
}


@settings(max_examples=60)
@given(
    kinds=st.lists(st.sampled_from(sorted(VALUES)), min_size=1, max_size=4),
    count=st.integers(1, 9),
    chunk=st.integers(1, 4),
    data=st.data(),
)
def test_made_tables(tmp_path_factory, kinds, count, chunk, data):
    """Numbers come back to the last bit, text as it is, whatever the size of the chunks."""
    rows = [[data.draw(VALUES[kind]) for kind in kinds] for _ in range(count)]
    path = tmp_path_factory.getbasetemp() / "made.star"
    labels = "".join(f"_rln{kind.capitalize()}{i}\n" for i, kind in enumerate(kinds))
    path.write_text(f"data_\n\nloop_\n{labels}" + "".join("  ".join(row) + " \n" for row in rows) + "\n")
    found = columns_of(path, "", chunk)
    for place, (kind, values) in enumerate(zip(kinds, found.values(), strict=True)):
        expected = [row[place] for row in rows]
        if kind == "text":
            assert [str(value) for value in values] == expected
        else:
            assert [float(value) for value in values] == pytest.approx([float(v) for v in expected], rel=0, nan_ok=True)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("1 2\n3\n", r"line 7: expected 2 values in block data_x, found 1"),
        ("1 2\n3 4 5\n", r"line 7: expected 2 values in block data_x, found 3"),
        ("1 2 3\n4 5 6\n", r"line 6: expected 2 values in block data_x, found 3"),
    ],
)
def test_rows_of_the_wrong_length(tmp_path, body, message):
    path = tmp_path / "t.star"
    path.write_text("data_x\n\nloop_\n_a\n_b\n" + body)
    for count in (1, 500):
        with pytest.raises(InputError, match=message):
            columns_of(path, "x", count)


def test_what_is_no_table(tmp_path):
    path = tmp_path / "t.star"
    with pytest.raises(MissingFileError, match=r"t\.star: no such STAR file"):
        star_loops(path)
    with pytest.raises(InputError, match="found a folder"):
        star_loops(tmp_path)
    for content, message in (
        (b"", "empty"),
        (b"\x00\x01", "binary"),
        (b"hello", "expected a STAR file"),
        (b"data_a\n_b 1\n", "single values only"),
        (b"data_a\nloop_\n_b\n_b\n1 2\n", "more than once"),
        (b"data_a\nloop_\n_b\n1\n\ndata_a\nloop_\n_b\n1\n", "a second time"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            star_loops(path)


def test_numbers_with_leading_zeros_keep_them(tmp_path):
    path = tmp_path / "t.star"
    path.write_text("data_\nloop_\n_rlnId\n_rlnX\n0012 1\n0300 2\n")
    assert columns_of(path, "") == {"rlnId": ["0012", "0300"], "rlnX": [1, 2]}


def test_a_block_after_a_large_one(tmp_path):
    """Rows end where the next block begins, comments and blank lines are none."""
    path = tmp_path / "t.star"
    path.write_text("data_p\n\nloop_\n_a #1\n# what\n1\n2\n\n# version 30001\n\ndata_optics\n\nloop_\n_b\nx\n")
    assert columns_of(path, "p") == {"a": [1, 2]} and columns_of(path, "optics") == {"b": ["x"]}


def test_written_rows_are_read_back(tmp_path):
    """By the strict reader, digit by digit; text with spaces and empty text in quotes."""
    rng = np.random.default_rng(0)
    table = {
        "rlnX": rng.normal(size=50) * 10.0 ** rng.integers(-12, 12, 50),
        "rlnSmall": rng.normal(size=50).astype(np.float32),
        "rlnN": rng.integers(0, 2**40, 50),
        "rlnMicrographName": pd.Categorical(["a b.mrc", "", "c.mrc", "d.mrc", "e.mrc"] * 10),
    }
    path = tmp_path / "t.star"
    path.write_bytes(star_head("particles", table) + star_lines("t", table))
    found = read_star(path)["particles"]
    assert found["rlnX"].tolist() == table["rlnX"].tolist()
    assert found["rlnSmall"].astype(np.float32).tolist() == table["rlnSmall"].tolist()
    assert found["rlnN"].tolist() == table["rlnN"].tolist()
    assert found["rlnMicrographName"].tolist() == list(table["rlnMicrographName"])
    with pytest.raises(InputError, match="column rlnImageName: 'a#b' cannot stand in a STAR file"):
        star_lines("t", {"rlnImageName": pd.Categorical(["a#b"])})
