import json

import numpy as np
import pandas as pd
import pytest
import starfile
from damaged import block, damaged, many, returned, survives
from hypothesis import given
from scipy.spatial import KDTree

from pickcal.errors import InputError, MissingFileError
from pickcal.formats import boxes, boxes_write, cryolo, eman, relion_picks, topaz

BOX = b"10\t20\t180\t180\t0.5\n30\t40\t180\t180\t0.6598718762397766\n-7\t60.5\t180\t180\t1\n"
CBOX = b"""
data_global

_cbox_format_version 1.0

data_cryolo

loop_
_CoordinateX #1
_CoordinateY #2
_CoordinateZ #3
_Width #4
_Height #5
_Depth #6
_EstWidth #7
_EstHeight #8
_Confidence #9
_NumBoxes #10
_Angle #11
10.5 20 <NA> 180 180 <NA> 171.5 166.25 0.5561 3 <NA>
11 -21.25 <NA> 180 180 <NA> 150 150 0.0512345678901 2 <NA>

data_cryolo_include

loop_
_slice_index #1
"""
INFO = {
    "apix": 1.5,
    "boxes": [[10, 20, "manual"], [30.5, 40.25, "auto_convnet", 5.5], [7, 8, "auto_local", 2, {"a": 1}]],
    "quality": 5,
}
MICROGRAPH = "Falcon_2012_06_12-14_33_35_0"


def read_one(module, path):
    (part,) = module.read_picks(path)
    return part


def written(path, content):
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


def test_a_box_is_its_corner_and_half_its_size(tmp_path):
    path = written(tmp_path / "mic_a.box", BOX)
    assert eman.recognise(path, BOX) and not cryolo.recognise(path, BOX) and not topaz.recognise(path, BOX)
    part = read_one(eman, path)
    assert (part.program, part.stem, part.micrograph) == ("eman", "mic_a", None)
    assert list(part.columns) == ["x", "y", "width", "height", "score"]
    np.testing.assert_array_equal(part.x, [100, 120, 83])
    np.testing.assert_array_equal(part.y, [110, 130, 150.5])
    np.testing.assert_array_equal(part.scores["score"], [0.5, 0.6598718762397766, 1])
    assert part.columns["x"].dtype == np.int64 and part.columns["y"].dtype == np.float64


@pytest.mark.parametrize(("folder", "program"), [("run3_cryolo", "cryolo"), ("Topaz", "topaz"), ("boxes", "eman")])
def test_the_program_is_known_from_the_folder_alone(tmp_path, folder, program):
    (tmp_path / folder).mkdir()
    assert read_one(eman, written(tmp_path / folder / "a.box", BOX)).program == program


@pytest.mark.parametrize("space", [b" ", b"   ", b"\t  "])
def test_any_white_space_separates(tmp_path, space):
    content = b"\n" + space + BOX.replace(b"\t", space).replace(b"\n", b" \r\n") + b"\n  \n"
    path = written(tmp_path / "a.box", content)
    assert eman.recognise(path, content)
    np.testing.assert_array_equal(read_one(eman, path).x, [100, 120, 83])


def test_marks_of_eman1_are_no_scores(tmp_path):
    path = written(tmp_path / "a.box", b"1 2 100 100 -3\n3 4 100 100 -3\n")
    part = read_one(eman, path)
    assert not part.scores and list(part.columns)[4] == "mark"
    path.write_bytes(b"1 2 100 100 -1\n3 4 100 100 -2\n")
    with pytest.raises(InputError, match="ends of filaments"):
        read_one(eman, path)


def test_an_empty_box_file_is_a_micrograph_without_picks(tmp_path):
    path = written(tmp_path / "mic.box", b"\n")
    assert eman.recognise(path, b"\n") and not eman.recognise(tmp_path / "mic.txt", b"\n")
    part = read_one(eman, path)
    assert len(part.x) == 0 and part.stem == "mic"


def test_boxes_of_several_sizes(tmp_path):
    part = read_one(eman, written(tmp_path / "a.box", b"0 0 100 100\n0 0 200 100\n"))
    np.testing.assert_array_equal(part.x, [50, 100])


@pytest.mark.parametrize(
    "head",
    [
        b"1 2 3\n",
        b"1 2 100 100\n1 2 100\n",
        b"1 2 -100 100\n",
        b"1 2 100.5 100\n",
        b"x y w h\n1 2 100 100\n",
        b"1,2,100,100\n",
        b"nan 2 100 100\n",
        b"1 13000.5 12800 45 0 0.1 4.5\n",
        b"\x00\x01",
    ],
)
def test_other_numbers_are_not_boxes(tmp_path, head):
    assert not eman.recognise(tmp_path / "a.txt", head)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"1 2 100 100\n1 2 100\n", "row 2: expected 4 values, found 3"),
        (b"1 2 100 100\n1 x 100 100\n", "column y: expected numbers, found 'x' in row 2"),
        (b"1 2 100 100\n1 2 nan 100\n", "column width: row 2: expected a finite number"),
        (b"1 2 100 100 0.5\n1 2 100 100 bad\n", "column score: expected numbers, found 'bad' in row 2"),
        (b"1 2 3\n", "at least 4 values"),
        (b"1 2 100 100 " + b"word " * 10_000 + b"\n", "at most 100 values each, found 10,004 values"),
        (b"1 2 100 \xff\n", "column 4: expected UTF-8"),
        (b"{", "cannot be read as JSON"),
        (b"[" * 10_000, "at least 4 values"),
        (b'{"a": 1}', 'expected a list under "boxes", found a'),
        (b'{"boxes": [[1, 2, "manual"], [1]]}', "box 2: expected"),
        (b'{"boxes": [[1, 2, "manual"], [NaN, 1]]}', "column x: row 2: expected a finite number"),
        (b'{"boxes": [["1", 2, "manual"], [{}, 1]]}', "column x: expected numbers, found '{}' in row 2"),
        (b'{"boxes": ' + b"[" * 100_000, "cannot be read as JSON"),
        (b'{"boxes": [[1' + b"0" * 400 + b', 2, "manual"]]}', "column x: expected numbers"),
    ],
)
def test_damage_is_named(tmp_path, content, words):
    path = written(tmp_path / "bad.box", content)
    with pytest.raises(InputError, match=words) as error:
        list(eman.read_picks(path))
    assert str(path) in str(error.value)


@pytest.mark.parametrize("module", [eman, cryolo])
def test_what_is_not_there_and_folders(tmp_path, module):
    with pytest.raises(MissingFileError, match="no such file"):
        list(module.read_picks(tmp_path / "none.box"))
    with pytest.raises(InputError, match="found a folder"):
        list(module.read_picks(tmp_path))


def test_eman2_json_has_centres(tmp_path):
    path = written(tmp_path / "mic_a_info.json", INFO)
    assert eman.recognise(path, path.read_bytes())
    part = read_one(eman, path)
    assert (part.program, part.stem) == ("eman", "mic_a")
    assert list(part.columns) == ["x", "y", "kind", "score", "column 5"]
    np.testing.assert_array_equal(part.x, [10, 30.5, 7])
    np.testing.assert_array_equal(part.y, [20, 40.25, 8])
    assert list(part.columns["kind"]) == ["manual", "auto_convnet", "auto_local"]
    assert list(part.columns["column 5"]) == ["", "", '{"a": 1}']
    np.testing.assert_array_equal(part.scores["score"], [np.nan, 5.5, 2])


def test_eman2_json_is_found_behind_a_long_ctf(tmp_path):
    content = json.dumps({"ctf": [0.125] * 20_000, "boxes": INFO["boxes"][:1]}).encode()
    path = written(tmp_path / "m_info.json", content)
    assert eman.recognise(path, content[:65_536]) and not eman.recognise(path, b'{"ctf": 1}')
    assert not read_one(eman, path).scores


def test_cbox_agrees_with_starfile(tmp_path):
    path = written(tmp_path / "mic_a.cbox", CBOX)
    assert cryolo.recognise(path, CBOX) and not eman.recognise(path, CBOX)
    part, truth = read_one(cryolo, path), starfile.read(path, read_n_blocks=2)["cryolo"]
    assert (part.program, part.stem) == ("cryolo", "mic_a")
    assert list(part.columns) == list(truth.columns)
    for label in truth:
        np.testing.assert_array_equal(part.columns[label], pd.to_numeric(truth[label]).to_numpy(np.float64))
    np.testing.assert_array_equal(part.x, truth["CoordinateX"] + truth["Width"] / 2)
    np.testing.assert_array_equal(part.y, truth["CoordinateY"] + truth["Height"] / 2)
    assert list(part.scores) == ["confidence"] and part.scores["confidence"][1] == 0.0512345678901


def test_cbox_without_boxes_and_of_tomograms(tmp_path):
    empty = b"\n".join(line for line in CBOX.splitlines() if b"180" not in line)
    part = read_one(cryolo, written(tmp_path / "a.cbox", empty))
    assert len(part.x) == 0 and len(part.columns) == 11
    slices = CBOX.replace(b"10.5 20 <NA>", b"10.5 20 3").replace(b"11 -21.25 <NA>", b"11 -21.25 4")
    with pytest.raises(InputError, match="tomogram"):
        read_one(cryolo, written(tmp_path / "b.cbox", slices))
    one = slices.replace(b"-21.25 4", b"-21.25 3")
    assert len(read_one(cryolo, written(tmp_path / "c.cbox", one)).x) == 2


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        (b"_Width", b"_Breadth", "data_cryolo: expected Width, found CoordinateX"),
        (b"_Height", b"_Width", "data_cryolo: expected Height"),
        (b"_Depth", b"_Angle", "every label once"),
        (b"_Depth", b"_Depth\n_" + b"\n_".join(b"L%d" % n for n in range(90)), "at most 100 values each, found 101"),
        (b" 3 <NA>\n", b" 3\n", "row 1: expected 11 values, found 10"),
        (b"10.5", b"ten", "column CoordinateX: expected numbers, found 'ten' in row 1"),
        (b"10.5", b"<NA>", "column CoordinateX: row 1: expected a finite number"),
        (b"0.5561", b"high", "column Confidence: expected numbers, found 'high' in row 1"),
    ],
)
def test_damage_of_a_cbox_is_named(tmp_path, old, new, words):
    path = written(tmp_path / "bad.cbox", CBOX.replace(old, new))
    with pytest.raises(InputError, match=words) as error:
        list(cryolo.read_picks(path))
    assert str(path) in str(error.value)


def test_old_cbox_has_its_confidence_in_column_five(tmp_path):
    content = b"10 20 100 100 0.9 90 95\n30 40 100 100 0.2 91 96\n"
    path = written(tmp_path / "a.cbox", content)
    assert cryolo.recognise(path, content) and not cryolo.recognise(tmp_path / "a.box", content)
    part = read_one(cryolo, path)
    assert part.program == "cryolo" and list(part.columns)[5:] == ["column 6", "column 7"]
    np.testing.assert_array_equal(part.scores["confidence"], [0.9, 0.2])


def test_cbox_round_trip_keeps_the_source_and_adds_ours(tmp_path):
    part = read_one(cryolo, written(tmp_path / "mic_a.cbox", CBOX))
    (path,) = cryolo.write_picks(tmp_path / "out", [returned(part, ["Micrographs/mic_a.mrc"])])
    assert path == tmp_path / "out/mic_a.cbox"
    back = read_one(cryolo, path)
    assert list(back.columns) == [*part.columns, "calibrated", "reason"]
    for label, values in part.columns.items():
        np.testing.assert_array_equal(back.columns[label], values)
    np.testing.assert_array_equal(back.columns["calibrated"], [-1, 1])
    assert list(back.columns["reason"]) == ["low_power"] * 2
    lines = path.read_text().split("\n")
    assert "_cbox_format_version 1.0" in lines and "data_cryolo_include" in lines and "_slice_index #1" in lines


def test_cbox_of_other_picks_has_what_cryolo_looks_up(tmp_path):
    picks = block(
        ["a.mrc", "b.mrc"], [0, 1, 1], [100.25, 200, 300], [50, 60, 70], {"probability": np.array([0.5, 1, 0])}
    )
    files = cryolo.write_picks(tmp_path, [picks], box_px=180)
    assert [file.name for file in files] == ["a.cbox", "b.cbox"]
    table = starfile.read(files[1], read_n_blocks=2)["cryolo"]
    # every label that crYOLO's CoordsIO.read_cbox_boxfile reads
    wanted = ["CoordinateX", "CoordinateY", "CoordinateZ", "Width", "Height", "Confidence", "Depth", "EstWidth"]
    assert {*wanted, "EstHeight", "NumBoxes", "Angle"} <= set(table.columns)
    np.testing.assert_array_equal(table["CoordinateX"], [110, 210])
    np.testing.assert_array_equal(table["CoordinateY"], [-30, -20])
    np.testing.assert_array_equal(table["Confidence"], [1, 0])
    assert table["CoordinateZ"].isna().all() and (table["Width"] == 180).all()
    np.testing.assert_array_equal(read_one(cryolo, files[0]).x, [100.25])


def test_box_round_trip_keeps_the_source_and_ends_in_the_main_score(tmp_path):
    part = read_one(eman, written(tmp_path / "mic_a.box", BOX))
    (path,) = eman.write_picks(tmp_path / "out", [returned(part, ["mic_a.mrc"])])
    assert path.read_bytes().replace(b"60.5", b"").split() == (
        b"10 20 180 180 0.5 -1 30 40 180 180 0.6598718762397766 0 -7 180 180 1 1".split()
    )
    back = read_one(eman, path)
    np.testing.assert_array_equal(back.x, part.x)
    np.testing.assert_array_equal(back.y, part.y)


def test_boxes_of_cryolo_become_boxes_of_eman(tmp_path):
    part = read_one(cryolo, written(tmp_path / "mic_a.cbox", CBOX))
    (path,) = eman.write_picks(tmp_path / "out", [returned(part, ["mic_a.mrc"])])
    assert path.read_bytes() == b"10.5\t20\t180\t180\t-1\n11\t-21.25\t180\t180\t1\n"


def test_moved_boxes_keep_their_size(tmp_path):
    part = read_one(eman, written(tmp_path / "mic_a.box", BOX))
    out = returned(part, ["mic_a.mrc"], moved=True)
    out.x[:] = [200, 300, 400]
    (path,) = eman.write_picks(tmp_path / "out", [out])
    np.testing.assert_array_equal(read_one(eman, path).x, [200, 300, 400])
    assert path.read_bytes().startswith(b"110\t20\t180\t180\t0.5\t-1\n")


@pytest.mark.parametrize("module", [eman, cryolo])
def test_box_size_is_needed_and_micrographs_without_picks_have_no_file(tmp_path, module):
    picks = block(["a.mrc", "b.mrc"], [1], [100], [100])
    with pytest.raises(InputError, match="box_px: these picks came without boxes"):
        module.write_picks(tmp_path, [picks])
    for wrong in (0, -1, float("nan")):
        with pytest.raises(InputError, match="box_px: expected a number of pixels above 0"):
            module.write_picks(tmp_path, [picks], box_px=wrong)
    suffix = "box" if module is eman else "cbox"
    old = written(tmp_path / f"a.{suffix}", b"left by an earlier export")
    assert [file.name for file in module.write_picks(tmp_path, [picks], box_px=64)] == [f"b.{suffix}"]
    assert not old.exists()
    again = block(["b.mrc"], [0], [1], [1])
    with pytest.raises(InputError, match=r"b\.mrc comes twice"):
        module.write_picks(tmp_path, [picks, again], box_px=64)


def test_stems():
    truth = {
        "a/b/c.mrc": "c",
        "c": "c",
        "mic_1.5": "mic_1.5",
        r"D:\x\c.TIF": "c",
        "7@a/c.mrcs": "c_000007",
        ".mrc": ".mrc",
    }
    assert {name: boxes_write.micrograph_stem(name) for name in truth} == truth


def _truth(data):
    """Centres that RELION's table has for the micrograph, in pixels of the full image."""
    parts = list(relion_picks.read_picks(data / "star_samples/relion13_10017_particles.star"))
    xy = np.concatenate([np.column_stack([part.x, part.y]) for part in parts])
    names = np.concatenate([np.asarray(part.micrograph, dtype=object) for part in parts])
    # its pixels are 3.54 Å, binned twice
    return 2 * xy[[MICROGRAPH in name for name in names]]


def _best_match(points, others):
    """How many of `others` have one of `points` within 25 px after the shift that brings most of them close."""
    shifts = (points[:, None] - others[None]).reshape(-1, 2)
    counts, x, y = np.histogram2d(*shifts.T, bins=np.arange(-300, 301, 10))
    i, j = np.unravel_index(counts.argmax(), counts.shape)
    near, _ = KDTree(points).query(others + np.array([x[i] + 5, y[j] + 5]))
    return int((near < 25).sum())


@pytest.mark.parametrize(("program", "same"), [("cryolo", 560), ("topaz", 500)])
def test_rows_count_from_the_same_end_as_in_relion(data, program, same):
    """Of 574 rows of RELION, 566 (crYOLO) and 512 (Topaz) match, and fewer than 60 when one of the axes is turned."""
    path = data / f"pickers/{program}/{MICROGRAPH}.box"
    part, truth = read_one(eman, path), _truth(data)
    assert eman.recognise(path, path.read_bytes()[:65_536]) and part.program == program
    points = np.column_stack([part.x, part.y])
    assert len(truth) == 574
    assert _best_match(points, truth) >= same
    assert _best_match(points, [0, 4096] + truth * [1, -1]) < 60
    assert _best_match(points, [4096, 0] + truth * [-1, 1]) < 60


def test_cryolo_and_topaz_agree_where_particles_are(data):
    """Without any shift: 644 of Topaz's 789 boxes lie within 30 px of crYOLO's, 91 when turned over."""
    cryolo_boxes, topaz_boxes = (
        read_one(eman, data / f"pickers/{program}/{MICROGRAPH}.box") for program in ("cryolo", "topaz")
    )
    tree = KDTree(np.column_stack([cryolo_boxes.x, cryolo_boxes.y]))
    near = tree.query(np.column_stack([topaz_boxes.x, topaz_boxes.y]))[0]
    turned = tree.query(np.column_stack([topaz_boxes.x, 4096 - topaz_boxes.y]))[0]
    assert (near < 30).sum() == 644 and np.median(near) < 7 and (turned < 30).sum() < 100


def test_real_boxes_keep_every_digit(data):
    for path in sorted((data / "pickers").glob("*/*.box")):
        part, truth = read_one(eman, path), np.loadtxt(path)
        np.testing.assert_array_equal(np.column_stack(list(part.columns.values())), truth)


def test_long_box_files_come_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(boxes, "ROWS", 100)
    path = written(tmp_path / "a.box", b"".join(b"%d 2 100 100 0.5\n" % n for n in range(1000)))
    parts = list(eman.read_picks(path))
    assert len(parts) == 10
    np.testing.assert_array_equal(np.concatenate([part.x for part in parts]), np.arange(1000) + 50)
    path.write_bytes(path.read_bytes() + b"1 2 3\n")
    with pytest.raises(InputError, match="row 1001: expected 5 values, found 3"):
        list(eman.read_picks(path))


@many
@given(damaged(BOX))
def test_damaged_boxes_end_in_picks_or_an_error(tmp_path, data):
    eman.recognise(tmp_path / "a.box", data)
    survives(eman.read_picks, tmp_path / "a.box", data)


@many
@given(damaged(json.dumps(INFO).encode()))
def test_damaged_json_ends_in_picks_or_an_error(tmp_path, data):
    eman.recognise(tmp_path / "a_info.json", data)
    survives(eman.read_picks, tmp_path / "a_info.json", data)


@many
@given(damaged(CBOX))
def test_damaged_cbox_ends_in_picks_or_an_error(tmp_path, data):
    cryolo.recognise(tmp_path / "a.cbox", data)
    survives(cryolo.read_picks, tmp_path / "a.cbox", data)
