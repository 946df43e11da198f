import linecache

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pickcal.errors import InputError, MissingFileError, PickcalError
from pickcal.formats.star import read_star, write_star

LOOP = """# version 30001

data_optics

loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
opticsGroup1 1


# version 30001

data_micrographs

loop_ 
_rlnMicrographName #1 
_rlnOpticsGroup #2 
_rlnDefocusU #3 
0001 1 10000.5
NA 1 2e4
None 1 nan
"two words.mrc" 1 -3
"""  # noqa: W291 (RELION ends its lines with a space)


def write(tmp_path, text):
    path = tmp_path / "a.star"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_text_stays_text(tmp_path):
    blocks = read_star(write(tmp_path, LOOP))
    assert list(blocks) == ["optics", "micrographs"]
    table = blocks["micrographs"]
    assert table["rlnMicrographName"].tolist() == ["0001", "NA", "None", "two words.mrc"]
    assert table["rlnDefocusU"].tolist()[:2] == [10000.5, 2e4]
    assert pd.isna(table["rlnDefocusU"][2])
    assert table["rlnOpticsGroup"].dtype.kind == "i"


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_line_ends_and_byte_order_mark(tmp_path, end):
    blocks = read_star(write(tmp_path, b"\xef\xbb\xbf" + LOOP.replace("\n", end).encode()))
    assert len(blocks["micrographs"]) == 4


def test_a_file_written_anew_is_read_anew(tmp_path):
    path = write(tmp_path, LOOP)
    assert len(read_star(path)["micrographs"]) == 4
    write(tmp_path, LOOP.replace("NA 1 2e4\n", ""))
    assert len(read_star(path)["micrographs"]) == 3


def test_a_file_mended_after_a_failure_is_read_anew(tmp_path, monkeypatch):
    path = write(tmp_path, LOOP)

    def fail(self):
        assert self.current_line == ""
        assert "data_optics" in linecache.getlines(str(path))[2]
        raise ValueError("a failure inside starfile")

    with monkeypatch.context() as patch:
        patch.setattr("starfile.parser.StarParser.parse_file", fail)
        with pytest.raises(InputError, match="a failure inside starfile"):
            read_star(path)
    write(tmp_path, LOOP.replace("NA 1 2e4\n", ""))
    assert len(read_star(path)["micrographs"]) == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LOOP.replace("NA 1 2e4", "NA 1"), r"line 20: expected 3 values in block data_micrographs, found 2"),
        (LOOP.replace("NA 1 2e4", "NA 1 2e4 7"), r"line 20: expected 3 values .* found 4"),
        (LOOP.replace("NA 1 2e4", "a#1.mrc 1 2e4"), r"line 20: .* found 1; '#' starts a comment"),
        (LOOP.replace("NA 1 2e4", "it's.mrc 1 2e4"), r"line 20: expected no quotes inside a value"),
        (LOOP.rstrip()[:-3], r"line 22: expected 3 values .* found 2"),
        (LOOP.replace("data_micrographs", "data_optics"), r"line 13: data_optics appears a second time"),
        (LOOP.replace("_rlnDefocusU", "_rlnOpticsGroup"), r"column rlnOpticsGroup more than once"),
        (LOOP.replace("data_micrographs", "data_empty\n\ndata_micrographs"), r"line 13: block data_empty holds no"),
        (LOOP.replace("data_micrographs", "data_micrographs\nhello"), r"line 14: expected loop_ or a label"),
        ("", "found an empty file"),
        ("  \n\n", "found an empty file"),
        ("CtfFind/job003/micrographs_ctf.star\n", "line starting with data_.*CtfFind"),
        (b"MAP \x00\x01" * 50, "binary file"),
        (b"data_\nloop_\n_a\n\xff\xfe\n", "UTF-8"),
    ],
)
def test_damage_is_told(tmp_path, text, message):
    path = write(tmp_path, text)
    with pytest.raises(InputError, match=message) as caught:
        read_star(path)
    assert str(path) in str(caught.value)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(MissingFileError, match="no such STAR file"):
        read_star(tmp_path / "nothing.star")
    with pytest.raises(InputError, match="folder"):
        read_star(tmp_path)


def test_values_without_a_loop_are_one_row(tmp_path):
    blocks = read_star(write(tmp_path, "data_general\n\n_rlnImageName 0003.mrc\n_rlnVoltage 300\n\n" + LOOP))
    assert blocks["general"].to_dict("records") == [{"rlnImageName": "0003.mrc", "rlnVoltage": 300}]
    assert len(blocks["micrographs"]) == 4


def test_an_empty_loop_is_an_empty_table(tmp_path):
    blocks = read_star(write(tmp_path, "data_particles\n\nloop_\n_rlnCoordinateX #1\n_rlnMicrographName #2\n\n\n"))
    assert blocks["particles"].shape == (0, 2)


def test_round_trip(tmp_path):
    table = pd.DataFrame(
        {
            "rlnMicrographName": ["0001", "NA", "a b.mrc", ""],
            "rlnDefocusU": [1e-9, 123456.789, -2.0, float("nan")],
            "rlnClassNumber": [1, 2, 3, 4],
        }
    )
    path = tmp_path / "deep" / "er" / "a.star"
    write_star(path, {"": table, "more": table[:0]})
    first = path.read_bytes()
    blocks = read_star(path)
    pd.testing.assert_frame_equal(blocks[""], table, check_dtype=False)
    assert len(blocks["more"]) == 0
    write_star(path, blocks)
    assert path.read_bytes() == first
    assert [entry.name for entry in path.parent.iterdir()] == ["a.star"]


@pytest.mark.parametrize("name", ["it's.mrc", 'say "a".mrc', "a#b.mrc", "a\tb.mrc", "a\nb.mrc", "_a", "data_1.mrc"])
def test_what_a_star_file_cannot_hold_is_not_written(tmp_path, name):
    path = tmp_path / "a.star"
    with pytest.raises(InputError, match="cannot stand in a STAR file"):
        write_star(path, {"": pd.DataFrame({"rlnMicrographName": ["fine.mrc", name]})})
    assert not path.exists()


@pytest.mark.parametrize(
    ("file", "shapes"),
    [
        ("relion_10204/micrographs_ctf.star", {"optics": (1, 8), "micrographs": (24, 9)}),
        ("relion_10204/AutoPick_template/summary.star", {"": (24, 3)}),
        ("star_samples/phase_plate_micrographs_ctf.star", {"": (20, 13)}),
        ("star_samples/relion31.6opticsgroups.star", {"optics": (6, 18), "particles": (139, 23)}),
        ("star_samples/relion5.star", {"optics": (1, 18), "particles": (17, 26)}),
        ("star_samples/sample_particles_relion30.star", {"model_class_1": (17, 29)}),
        ("star_samples/relion13_10017_particles.star", {"": (8915, 26)}),
        ("odd/wrong_defocus_micrographs_ctf.star", {"optics": (1, 8), "micrographs": (24, 10)}),
        ("apoferritin_10146/truth_particles.star", {"optics": (1, 7), "particles": (1125, 4)}),
    ],
)
def test_real_files(data, file, shapes):
    assert {name: table.shape for name, table in read_star(data / file).items()} == shapes


FUZZ = settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])


def survives(path):
    try:
        blocks = read_star(path)
    except PickcalError as error:
        assert str(path) in str(error)
    else:
        assert all(isinstance(table, pd.DataFrame) for table in blocks.values())


@FUZZ
@given(content=st.binary(max_size=400), start=st.sampled_from([b"", b"data_\n", b"data_\nloop_\n_a #1\n_b #2\n"]))
def test_random_bytes_never_crash(tmp_path, content, start):
    survives(write(tmp_path, start + content))


@FUZZ
@given(draw=st.data())
def test_damaged_files_never_crash(tmp_path, draw):
    lines = LOOP.split("\n")
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(0, len(lines) - 1))
        new = draw.draw(
            st.sampled_from([*LOOP.split("\n"), "loop_", "data_", "_x", '"', "'", "#", "a b c", "\x0c\x1c"])
        )
        cut = draw.draw(st.integers(0, len(lines[at])))
        lines[at : at + 1] = draw.draw(st.sampled_from([[], [new], [lines[at][:cut]], [lines[at][:cut] + new]]))
        lines = lines or [""]
    survives(write(tmp_path, "\n".join(lines)))
