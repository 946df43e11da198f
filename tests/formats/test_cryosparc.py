import json
import math
import os
import pickle
import struct

import numpy as np
import pandas as pd
import pytest
from cryosparc.dataset import CSDAT_FORMAT, NUMPY_FORMAT, Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pickcal.errors import InputError, MissingFileError
from pickcal.formats import cryosparc, cryosparc_files, cryosparc_spool
from pickcal.formats.foreign import EXPOSURE_COLUMNS, ExportBlock, categorical

FORMS = {"numpy": NUMPY_FORMAT, "stream": CSDAT_FORMAT}
PATHS = ["J2/motioncorrected/b_ü.mrc", "J2/motioncorrected/a.mrc", "J2/motioncorrected/c.mrc"]
forms = pytest.mark.parametrize("form", FORMS)


def picks(rows=7, seed=0, **changes):
    rng = np.random.default_rng(seed)
    which = np.sort(rng.integers(0, 3, rows))
    columns = {
        "uid": rng.integers(1, 2**64, rows, dtype=np.uint64),
        "location/micrograph_uid": np.array([2**63 + 11, 2**64 - 5, 7], np.uint64)[which],
        "location/exp_group_id": (which + 4).astype(np.uint32),
        "location/micrograph_path": np.array(PATHS, object)[which],
        "location/micrograph_shape": np.tile(np.array([[300, 400]], np.uint32), (rows, 1)),
        "location/center_x_frac": rng.random(rows, np.float32),
        "location/center_y_frac": rng.random(rows, np.float32),
        "location/micrograph_psize_A": np.full(rows, 1.25, np.float32),
        "location/min_dist_A": np.full(rows, 90, np.float32),
        "pick_stats/ncc_score": rng.random(rows, np.float32),
        "pick_stats/power": rng.random(rows, np.float32) * 100,
        "pick_stats/template_idx": rng.integers(0, 9, rows).astype(np.uint32),
        "pick_stats/angle_rad": rng.uniform(-3, 3, rows).astype(np.float32),
        "ctf/type": np.full(rows, "ctffind4", object),
        "ctf/exp_group_id": (which + 4).astype(np.uint32),
        "ctf/accel_kv": np.full(rows, 300, np.float32),
        "ctf/cs_mm": np.full(rows, 2.7, np.float32),
        "ctf/amp_contrast": np.full(rows, 0.1, np.float32),
        "ctf/df1_A": rng.uniform(1e4, 2e4, rows).astype(np.float32),
        "ctf/df2_A": rng.uniform(1e4, 2e4, rows).astype(np.float32),
        "ctf/df_angle_rad": rng.uniform(-3, 3, rows).astype(np.float32),
        "ctf/phase_shift_rad": rng.uniform(0, 3, rows).astype(np.float32),
        "ctf/tetra_A": rng.random((rows, 4), np.float32),
    }
    columns |= changes
    return {name: values for name, values in columns.items() if values is not None}


def save(path, columns, form="numpy"):
    Dataset(list(columns.items())).save(path, format=FORMS[form])
    return path


def read(*paths):
    return list(cryosparc.read_picks(paths))


def text(column):
    return list(column) if isinstance(column, pd.Categorical) else column


def same(found, expected):
    assert set(found) == set(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(text(found[name]), values, err_msg=name, strict=values.dtype != object)


def micrographs(names=("m/a.mrc", "m/b.mrc"), **changes):
    table = pd.DataFrame({"name": pd.Series(names, dtype="str")})
    given = {
        "pixel_size": 1.25,
        "source_height": 300,
        "source_width": 400,
        "defocus_u": 15000.0,
        "defocus_v": 14000.0,
        "defocus_angle": 30.0,
        "phase_shift": 90.0,
        "voltage": 300.0,
        "spherical_aberration": 2.7,
        "amplitude_contrast": 0.07,
        "exposure_group": 3,
    } | changes
    return table.assign(**{name: given.get(name, np.nan) for name in EXPOSURE_COLUMNS})


def block(index=(0, 0, 1), table=None, **changes):
    rows = len(index)
    given = {
        "x": np.linspace(10.0, 390.0, rows),
        "y": np.linspace(30.0, 60.0, rows),
        "ours": {
            "ncc": np.linspace(0.2, 0.3, rows),
            "probability": np.linspace(0, 1, rows),
            "reason": np.array(["", "crowded, 5 Å", ""] * rows, object)[:rows],
            "template": np.arange(rows) - 1,
            "angle": np.linspace(-90, 90, rows),
        },
        "main": "ncc",
    } | changes
    return ExportBlock(micrographs() if table is None else table, np.array(index, np.intp), **given)


@forms
def test_reads_what_cryosparc_tools_wrote(tmp_path, form):
    columns = picks()
    (found,) = read(save(tmp_path / "a.cs", columns, form))
    same(found.columns, columns)
    assert next(iter(found.columns)) == "uid" and found.program == "cryosparc"
    assert (found.unit, found.y_from) == ("fraction", "last row")
    np.testing.assert_array_equal(found.x, columns["location/center_x_frac"].astype(float))
    np.testing.assert_array_equal(found.y, columns["location/center_y_frac"].astype(float))
    assert list(found.micrograph) == list(columns["location/micrograph_path"])
    assert list(found.scores) == ["ncc", "power"]
    np.testing.assert_array_equal(found.scores["ncc"], columns["pick_stats/ncc_score"])
    np.testing.assert_array_equal(found.scores["power"], columns["pick_stats/power"])
    np.testing.assert_array_equal(found.template, columns["pick_stats/template_idx"])
    np.testing.assert_array_equal(found.uid, columns["uid"])
    for row in range(len(columns["uid"])):
        assert found.angle[row] == pytest.approx(-math.degrees(columns["pick_stats/angle_rad"][row]))
        exposure = {name: values[row] for name, values in found.exposure.items()}
        assert exposure["defocus_angle"] == pytest.approx(math.degrees(columns["ctf/df_angle_rad"][row]))
        assert exposure["phase_shift"] == pytest.approx(math.degrees(columns["ctf/phase_shift_rad"][row]))
        assert exposure["defocus_u"] == columns["ctf/df1_A"][row]
        assert exposure["defocus_v"] == columns["ctf/df2_A"][row]
        assert exposure["uid"] == columns["location/micrograph_uid"][row]
        assert exposure["exposure_group"] == columns["ctf/exp_group_id"][row]
    assert found.exposure["uid"].dtype == np.uint64
    constant = {"source_height": 300, "source_width": 400, "pixel_size": 1.25, "voltage": 300}
    for name, value in constant.items():
        assert set(found.exposure[name]) == {value}
    assert found.exposure["spherical_aberration"][0] == pytest.approx(2.7)
    assert found.exposure["amplitude_contrast"][0] == pytest.approx(0.1)


@forms
def test_recognises_both_forms_only(tmp_path, form):
    path = save(tmp_path / "a.txt", picks(), form)
    assert cryosparc.recognise(path, path.read_bytes()[:65536])
    np.save(tmp_path / "b.npy", np.zeros(3))
    assert not cryosparc.recognise(path, (tmp_path / "b.npy").read_bytes())
    np.save(tmp_path / "c.npy", np.zeros(3, [("id", "u8")]))
    assert not cryosparc.recognise(path, (tmp_path / "c.npy").read_bytes())
    for head in (b"", b"\x93NUMPY", b"data_\n", b"\x93NUMPY\x01\x00\xff\xff{'descr'"):
        assert not cryosparc.recognise(path, head)


def test_arrow_of_exported_paths_is_no_part_of_the_name(tmp_path):
    paths = np.array([">J1/a.mrc", "J1/a.mrc", ">J1/b.mrc"], object)
    (found,) = read(save(tmp_path / "a.cs", picks(3, **{"location/micrograph_path": paths})))
    assert list(found.micrograph) == ["J1/a.mrc", "J1/a.mrc", "J1/b.mrc"]
    assert list(found.columns["location/micrograph_path"]) == list(paths)


def test_other_scores_where_ncc_and_power_are_not(tmp_path):
    lacking = picks(**{"pick_stats/ncc_score": None, "pick_stats/power": None})
    (found,) = read(save(tmp_path / "none.cs", lacking))
    assert found.scores == {}
    (found,) = read(save(tmp_path / "other.cs", lacking | {"pick_stats/Topaz_score": np.arange(7, dtype=np.float32)}))
    assert list(found.scores) == ["topaz_score"]
    np.testing.assert_array_equal(found.scores["topaz_score"], np.arange(7))


def parts(columns):
    main = {name: values for name, values in columns.items() if not name.startswith("location/")}
    passthrough = {name: values for name, values in columns.items() if name == "uid" or name.startswith("location/")}
    return main, passthrough


@forms
@pytest.mark.parametrize("shuffled", [False, True])
def test_joins_the_passthrough_by_uid(tmp_path, form, shuffled, monkeypatch):
    monkeypatch.setattr(cryosparc, "ROWS", 3)
    columns = picks(11)
    main, passthrough = parts(columns)
    if shuffled:
        order = np.random.default_rng(1).permutation(11)
        passthrough = {name: values[order] for name, values in passthrough.items()}
    passthrough["ctf/df1_A"] = dict(zip(main["uid"].tolist(), main["ctf/df1_A"], strict=True))
    passthrough["ctf/df1_A"] = np.array([passthrough["ctf/df1_A"][uid] for uid in passthrough["uid"].tolist()])
    found = read(save(tmp_path / "p.cs", main, form), save(tmp_path / "p_passthrough.cs", passthrough))
    assert [len(part.x) for part in found] == [3, 3, 3, 2]
    for name, values in columns.items():
        got = np.concatenate([np.asarray(text(part.columns[name])) for part in found])
        np.testing.assert_array_equal(got, values, err_msg=name)
    assert found[0].path == tmp_path / "p.cs"


def test_nan_agrees_with_nan_in_joined_files(tmp_path):
    main, passthrough = parts(picks())
    main["ctf/df1_A"][2] = np.nan
    passthrough["ctf/df1_A"] = main["ctf/df1_A"]
    (found,) = read(save(tmp_path / "a.cs", main), save(tmp_path / "b.cs", passthrough))
    assert np.isnan(found.exposure["defocus_u"][2])


@pytest.mark.parametrize("field", ["ctf/df1_A", "ctf/type", "ctf/tetra_A"])
def test_joined_files_that_differ_are_refused(tmp_path, field):
    main, passthrough = parts(picks())
    passthrough[field] = main[field].copy()
    passthrough[field][4] = "other" if field == "ctf/type" else 17.0
    paths = [save(tmp_path / "a.cs", main), save(tmp_path / "b.cs", passthrough)]
    with pytest.raises(InputError, match=f"b.cs: field {field}: uid {main['uid'][4]}: expected"):
        read(*paths)


def test_disjoint_files_follow_one_another(tmp_path):
    first, second = picks(5, 1), picks(4, 2, **{"pick_stats/power": None})
    main, passthrough = parts(second)
    paths = [save(tmp_path / f"{n}.cs", c) for n, c in {"a": first, "b": main, "c": passthrough}.items()]
    found = read(*paths)
    assert [part.path.name for part in found] == ["a.cs", "b.cs"]
    same(found[0].columns, first)
    same(found[1].columns, second)


def test_overlapping_files_are_refused(tmp_path):
    first, second = picks(7), picks(5, 3)
    second["uid"][:2] = first["uid"][4:6]
    with pytest.raises(InputError, match=r"b.cs: 2 of its 5 uids are also in .*a.cs, which has 7"):
        read(save(tmp_path / "a.cs", first), save(tmp_path / "b.cs", second))


def test_duplicate_uid_is_refused(tmp_path):
    columns = picks()
    columns["uid"][5] = columns["uid"][1]
    with pytest.raises(InputError, match=f"uid: {columns['uid'][1]} is in the rows 2, 6"):
        read(save(tmp_path / "a.cs", columns))


def test_large_files_come_in_parts(tmp_path, monkeypatch):
    columns = picks(100)
    path = save(tmp_path / "a.cs", columns)
    monkeypatch.setattr(cryosparc, "ROWS", 30)
    monkeypatch.setattr(cryosparc_files, "ROWS", 30)
    found = read(path)
    assert [len(part.x) for part in found] == [30, 30, 30, 10]
    np.testing.assert_array_equal(np.concatenate([part.uid for part in found]), columns["uid"])
    assert [name for part in found for name in part.micrograph] == list(columns["location/micrograph_path"])


@forms
def test_no_rows(tmp_path, form):
    (found,) = read(save(tmp_path / "a.cs", picks(0), form))
    assert len(found.x) == 0 and len(found.micrograph) == 0 and set(found.columns) == set(picks(0))


@pytest.mark.parametrize("name", ["cryosparc_J2_particles_exported.cs", "cryosparc_P12_J24_001_particles.cs"])
def test_real_files(data, name, tmp_path):
    path = data / "cryosparc" / name
    truth = np.load(path)
    found = cryosparc.read_columns(path)
    assert list(found) == list(truth.dtype.names)
    for field in truth.dtype.names:
        expected = truth[field].astype(str) if truth[field].dtype.kind == "S" else truth[field]
        np.testing.assert_array_equal(text(found[field]), expected, err_msg=field)
    assert cryosparc.recognise(path, path.read_bytes()[:65536])
    with pytest.raises(InputError, match=r"expected location/center_x_frac.*found uid, blob/path.*passthrough"):
        read(path)
    stream = tmp_path / "stream.cs"
    Dataset.load(path).save(stream, format=CSDAT_FORMAT)
    again = cryosparc.read_columns(stream)
    for field in found:
        np.testing.assert_array_equal(text(again[field]), text(found[field]), err_msg=field)


def test_real_particles_with_a_passthrough_go_through_untouched(data, tmp_path):
    path = data / "cryosparc" / "cryosparc_P12_J24_001_particles.cs"
    truth = np.load(path)
    order = np.random.default_rng(4).permutation(len(truth))
    passthrough = {"uid": truth["uid"][order]}
    passthrough |= {name: values for name, values in picks(len(truth)).items() if name.startswith("location/")}
    (found,) = read(path, save(tmp_path / "pass.cs", passthrough))
    place = {uid: row for row, uid in enumerate(passthrough["uid"].tolist())}
    rows = [place[uid] for uid in truth["uid"].tolist()]
    np.testing.assert_array_equal(found.x, passthrough["location/center_x_frac"][rows].astype(float))
    index = np.sort(np.arange(len(truth)) % 2)
    out = block(index, source=found.columns, source_program="cryosparc")
    cryosparc.write_picks(tmp_path / "out.cs", [out])
    written = np.load(tmp_path / "out.cs")
    for name in truth.dtype.names:
        np.testing.assert_array_equal(written[name], truth[name], err_msg=name)
        assert written.dtype[name].base.kind == truth.dtype[name].base.kind
    for name, values in passthrough.items():
        expected = [v.encode() for v in values[rows]] if values.dtype == object else values[rows]
        np.testing.assert_array_equal(written[name], expected, err_msg=name)


@pytest.mark.parametrize("flip", [True, False])
def test_writes_our_own_picks(tmp_path, flip):
    given = block()
    assert cryosparc.write_picks(tmp_path / "a.cs", [given], flip_y=flip) == [tmp_path / "a.cs"]
    found = Dataset.load(tmp_path / "a.cs")
    assert list(tmp_path.iterdir()) == [tmp_path / "a.cs"]
    types = dict((name, rest[0]) for name, *rest in found.descr())
    assert types["uid"] == types["location/micrograph_uid"] == "<u8"
    whole = ["location/exp_group_id", "location/micrograph_shape", "pick_stats/template_idx", "ctf/exp_group_id"]
    assert {types[name] for name in whole} == {"<u4"}
    strings = {"location/micrograph_path", "ctf/type", "pickcal/reason"}
    assert {types[name] for name in types.keys() - strings - set(whole) - {"uid", "location/micrograph_uid"}} == {"<f4"}
    sense = 1 if flip else -1
    for row in range(3):
        pick = {name: found[name][row] for name in found}
        assert pick["location/micrograph_path"] == ["m/a.mrc", "m/a.mrc", "m/b.mrc"][row]
        assert pick["location/micrograph_shape"].tolist() == [300, 400]
        assert pick["location/center_x_frac"] == np.float32(given.x[row] / 400)
        expected = 1 - given.y[row] / 300 if flip else given.y[row] / 300
        assert pick["location/center_y_frac"] == np.float32(expected)
        assert pick["location/exp_group_id"] == pick["ctf/exp_group_id"] == 3
        assert pick["location/micrograph_psize_A"] == 1.25 and pick["location/min_dist_A"] == 0
        assert pick["pick_stats/ncc_score"] == np.float32(given.ours["ncc"][row]) and pick["pick_stats/power"] == 0
        assert pick["pick_stats/template_idx"] == max(given.ours["template"][row], 0)
        assert pick["pick_stats/angle_rad"] == pytest.approx(-sense * math.radians(given.ours["angle"][row]))
        ctf = [15000, 14000, sense * math.pi / 6, math.pi / 2, 300, 2.7, 0.07]
        names = ["df1_A", "df2_A", "df_angle_rad", "phase_shift_rad", "accel_kv", "cs_mm", "amp_contrast"]
        assert [pick[f"ctf/{name}"] for name in names] == pytest.approx(ctf)
        assert pick["ctf/type"] == "imported"
        assert pick["pickcal/probability"] == np.float32(given.ours["probability"][row])
        assert pick["pickcal/reason"] == given.ours["reason"][row]
    assert len(set(found["location/micrograph_uid"].tolist())) == 2


@pytest.mark.parametrize("flip", [True, False])
def test_own_picks_come_back(tmp_path, flip):
    given = block()
    cryosparc.write_picks(tmp_path / "a.cs", [given], flip_y=flip)
    (found,) = read(tmp_path / "a.cs")
    rows = cryosparc.file_rows(found.y, found.exposure["source_height"], flip)
    np.testing.assert_allclose(rows, given.y, atol=300 * 6e-8)
    np.testing.assert_allclose(found.x * found.exposure["source_width"], given.x, atol=400 * 6e-8)
    sense = 1 if flip else -1
    np.testing.assert_allclose(sense * found.angle, given.ours["angle"], atol=1e-4)
    np.testing.assert_allclose(sense * found.exposure["defocus_angle"], 30, atol=1e-4)


def test_y_counts_from_the_last_row_of_the_same_file():
    height = 10
    image = np.zeros((height, 4))
    image[2, 1] = 1.0
    row = int(np.flatnonzero(image.any(axis=1))[0])
    assert cryosparc.file_rows(np.array([0.8]), height)[0] == pytest.approx(row)
    assert cryosparc.file_rows(np.array([0.2]), height, flip=False)[0] == pytest.approx(row)
    y = np.array([0.0, 3.25, 9.0])
    for flip in (True, False):
        np.testing.assert_allclose(cryosparc.file_rows(cryosparc.file_fraction(y, height, flip), height, flip), y)


@forms
@pytest.mark.parametrize("moved", [True, False])
def test_source_columns_stay(tmp_path, form, moved):
    columns = picks(9)
    (found,) = read(save(tmp_path / "in.cs", columns, form))
    index = np.unique(columns["location/micrograph_path"].astype(str), return_inverse=True)[1]
    order = np.argsort(index, kind="stable")
    source = {name: values[order] for name, values in found.columns.items()}
    given = block(index[order], micrographs(sorted(PATHS)), source=source, source_program="cryosparc", moved=moved)
    cryosparc.write_picks(tmp_path / "out.cs", [given])
    written = Dataset.load(tmp_path / "out.cs")
    centers = ["location/center_x_frac", "location/center_y_frac"]
    for name, values in columns.items():
        if name in centers and moved:
            assert not np.array_equal(written[name], values[order])
            assert written[name].dtype == np.float32
        else:
            np.testing.assert_array_equal(np.asarray(written[name]), values[order], err_msg=name)
    if moved:
        np.testing.assert_allclose((1 - written[centers[1]]) * 300, given.y, atol=1e-4)
    assert list(written)[: len(columns)] == list(columns)
    assert "pickcal/ncc" not in written and "pickcal/probability" in written


def test_source_with_other_field_widths_and_doubles(tmp_path):
    columns = picks(3, **{"location/center_x_frac": np.array([0.1, 0.2, 0.3])})
    (found,) = read(save(tmp_path / "in.cs", columns))
    given = block(source=found.columns, source_program="cryosparc", moved=True)
    cryosparc.write_picks(tmp_path / "out.cs", [given])
    written = np.load(tmp_path / "out.cs")
    assert written["location/center_x_frac"].dtype == np.float64
    np.testing.assert_array_equal(written["location/center_x_frac"], given.x / 400)


def test_many_blocks_of_different_fields_and_text_widths(tmp_path, monkeypatch):
    monkeypatch.setattr(cryosparc_spool, "ROWS", 4)
    (source,) = read(save(tmp_path / "in.cs", picks(3)))
    blocks = [
        block(),
        block((), micrographs(["empty.mrc"])),
        block((0, 1, 1), micrographs(["m/c.mrc", "m/" + "d" * 300 + ".mrc"], defocus_u=np.nan)),
        block((0, 0, 0), source=source.columns, source_program="cryosparc"),
        block((0,) * 7, micrographs(["e.mrc"])),
    ]
    cryosparc.write_picks(tmp_path / "a.cs", iter(blocks))
    found = Dataset.load(tmp_path / "a.cs")
    assert len(found) == 16
    assert found["location/micrograph_path"][4] == "m/" + "d" * 300 + ".mrc"
    np.testing.assert_array_equal(found["location/center_x_frac"][3:6], np.float32(blocks[2].x / 400))
    assert np.isnan(found["ctf/df1_A"][3:6]).all() and (found["ctf/df1_A"][:3] == 15000).all()
    assert list(found["ctf/type"][3:6]) == ["", "", ""]
    assert np.isnan(found["ctf/tetra_A"][:6]).all()
    np.testing.assert_array_equal(found["ctf/tetra_A"][6:9], source.columns["ctf/tetra_A"])
    np.testing.assert_array_equal(found["uid"][6:9], source.uid)
    numpy_form = read(tmp_path / "a.cs")
    assert list(numpy_form[0].micrograph) == list(found["location/micrograph_path"])


def test_uids_are_unique_and_depend_on_name_and_number_only(tmp_path):
    whole = [block((0,) * 400 + (1,) * 300)]
    cut = [block((0,) * 150), block((0,) * 250 + (1,) * 300)]
    turned = [block((0,) * 300 + (1,) * 400, micrographs(["m/b.mrc", "m/a.mrc"]))]
    found = []
    for blocks in (whole, cut, turned):
        cryosparc.write_picks(tmp_path / "a.cs", blocks)
        found.append(np.load(tmp_path / "a.cs")["uid"])
    assert len(set(found[0].tolist())) == 700
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(np.roll(found[2], 400), found[0])
    mask = 2**64 - 1  # SplitMix64 in whole numbers
    from hashlib import blake2b

    state = int.from_bytes(blake2b(b"m/b.mrc", digest_size=8).digest(), "little") + 3 * 0x9E3779B97F4A7C15 & mask
    state = (state ^ state >> 30) * 0xBF58476D1CE4E5B9 & mask
    state = (state ^ state >> 27) * 0x94D049BB133111EB & mask
    assert int(found[0][402]) == state ^ state >> 31


@pytest.mark.parametrize("kind", ["uint64", "UInt64", "object"])
def test_known_micrograph_uids_are_kept(tmp_path, kind):
    table = micrographs().assign(uid=pd.Series([2**64 - 3, 0], dtype="uint64").astype(kind))
    cryosparc.write_picks(tmp_path / "a.cs", [block(table=table)])
    found = np.load(tmp_path / "a.cs")["location/micrograph_uid"].tolist()
    assert found[:2] == [2**64 - 3] * 2 and found[2] not in (0, 2**64 - 3)


def test_writer_refuses(tmp_path):
    path = tmp_path / "a.cs"
    for table, message in (
        (micrographs(source_height=[300, 0]), "m/b.mrc: its size is not known.*at import"),
        (micrographs(source_width=[np.nan, 400]), "m/a.mrc: its size is not known"),
        (micrographs(exposure_group=[1, -1]), "m/b.mrc: exposure_group"),
        (micrographs(uid=[1.0, 2.0**63]), "m/b.mrc: uid: .*lost digits"),
    ):
        with pytest.raises(InputError, match=message):
            cryosparc.write_picks(path, [block(table=table)])
    with pytest.raises(InputError, match=r"m/a.mrc: y: expected a finite number, found nan"):
        cryosparc.write_picks(path, [block(y=np.array([1, np.nan, 3]))])
    (source,) = read(save(tmp_path / "in.cs", picks(3)))
    again = block(source=source.columns, source_program="cryosparc")
    with pytest.raises(InputError, match="comes twice among the picks"):
        cryosparc.write_picks(path, [again, again])
    other = block(ours={"ncc": np.zeros(3), "reason": np.zeros(3)})
    with pytest.raises(InputError, match="pickcal/reason: expected one type in all picks, found text and float32"):
        cryosparc.write_picks(path, [block(), other])
    with pytest.raises(InputError, match="null character"):
        cryosparc.write_picks(path, [block(ours={"ncc": np.zeros(3), "reason": np.array(["a\0", "", ""], object)})])
    assert not path.exists() and [file.name for file in tmp_path.iterdir()] == ["in.cs"]


def test_no_picks_at_all(tmp_path):
    cryosparc.write_picks(tmp_path / "a.cs", [block(())])
    assert len(Dataset.load(tmp_path / "a.cs")) == 0
    (found,) = read(tmp_path / "a.cs")
    assert len(found.x) == 0 and "location/micrograph_psize_A" in found.columns


def exposures(**changes):
    columns = {
        "uid": np.array([2**64 - 9, 12], np.uint64),
        "micrograph_blob/path": np.array([">J3/a.mrc", ">J3/b.mrc"], object),
        "micrograph_blob/idx": np.zeros(2, np.uint32),
        "micrograph_blob/shape": np.array([[300, 400], [310, 410]], np.uint32),
        "micrograph_blob/psize_A": np.array([1.5, 2.5], np.float32),
        "movie_blob/path": np.array(["S1/a.tif", "S1/b.tif"], object),
        "mscope_params/accel_kv": np.array([200, 200], np.float32),
        "mscope_params/cs_mm": np.array([2.0, 2.0], np.float32),
        "mscope_params/total_dose_e_per_A2": np.array([50, 60], np.float32),
        "mscope_params/exp_group_id": np.array([5, 6], np.uint32),
        "ctf/amp_contrast": np.array([0.25, 0.25], np.float32),
        "ctf/df1_A": np.array([10000, -5], np.float32),
        "ctf/df2_A": np.array([9000, 8000], np.float32),
        "ctf/df_angle_rad": np.array([1, -2], np.float32),
        "ctf/phase_shift_rad": np.array([0, 0.5], np.float32),
        "ctf_stats/ctf_fit_to_A": np.array([3.5, 4.5], np.float32),
        "ctf_stats/ice_thickness_rel": np.array([1.01, 1.25], np.float32),
    }
    return {name: values for name, values in (columns | changes).items() if values is not None}


@forms
def test_exposures(tmp_path, form):
    columns = exposures()
    main = {name: values for name, values in columns.items() if not name.startswith("mscope")}
    passthrough = {n: v[::-1] for n, v in columns.items() if n == "uid" or n.startswith("mscope")}
    table = cryosparc.read_exposures([save(tmp_path / "e.cs", main, form), save(tmp_path / "p.cs", passthrough, form)])
    assert list(table.columns) == ["name", *EXPOSURE_COLUMNS, "problem"]
    assert table["name"].tolist() == ["J3/a.mrc", "J3/b.mrc"]
    assert table["uid"].tolist() == [2**64 - 9, 12]
    expected = {
        "pixel_size": [1.5, 2.5],
        "source_height": [300, 310],
        "source_width": [400, 410],
        "defocus_u": [10000, -5],
        "defocus_v": [9000, 8000],
        "defocus_angle": [math.degrees(1), math.degrees(-2)],
        "phase_shift": [0, math.degrees(0.5)],
        "voltage": [200, 200],
        "spherical_aberration": [2, 2],
        "amplitude_contrast": [0.25, 0.25],
        "exposure_group": [5, 6],
        "ctf_fit_resolution": [3.5, 4.5],
        "dose": [50, 60],
    }
    for name, values in expected.items():
        assert table[name].tolist() == values, name
    assert table["ice_thickness"].tolist() == pytest.approx([1.01, 1.25])
    assert table["problem"].tolist() == ["", "defocus_u: expected a number above 0 Å, found -5"]


def test_exposures_without_micrographs_or_ctf(tmp_path):
    bare = {name: values for name, values in exposures().items() if name in ("uid", "movie_blob/path")}
    table = cryosparc.read_exposures([save(tmp_path / "a.cs", bare)])
    assert table["name"].tolist() == ["S1/a.tif", "S1/b.tif"] and table["problem"].tolist() == ["", ""]
    assert table[[name for name in EXPOSURE_COLUMNS if name != "uid"]].isna().all(axis=None)
    with pytest.raises(InputError, match=r"expected exposures \(micrograph_blob/path\), found uid"):
        cryosparc.read_exposures([save(tmp_path / "b.cs", {"uid": bare["uid"]})])
    with pytest.raises(InputError, match="file of exposures, give the particles"):
        read(save(tmp_path / "c.cs", exposures()))
    twice = exposures(**{"micrograph_blob/path": np.array(["a", ">a"], object)})
    with pytest.raises(InputError, match="micrograph a comes twice"):
        cryosparc.read_exposures([save(tmp_path / "d.cs", twice)])


class Bomb:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


def test_objects_are_never_unpickled(tmp_path):
    exploded = tmp_path / "exploded"
    rows = np.zeros(2, [("uid", "u8"), ("bad", "O")])
    rows["bad"][0] = Bomb(str(exploded))
    with (tmp_path / "a.cs").open("wb") as handle:
        np.save(handle, rows, allow_pickle=True)
    with pytest.raises(InputError, match="'bad': holds Python objects"):
        cryosparc.read_columns(tmp_path / "a.cs")
    (tmp_path / "b.cs").write_bytes(pickle.dumps(Bomb(str(exploded))))
    with pytest.raises(InputError, match=r"expected a \.cs file"):
        cryosparc.read_columns(tmp_path / "b.cs")
    assert not exploded.exists()
    with (tmp_path / "a.cs").open("rb") as handle:
        np.load(handle, allow_pickle=True)
    assert exploded.exists()  # the file would have done it


def test_damaged_files_are_refused(tmp_path):
    path = save(tmp_path / "a.cs", picks())
    content = path.read_bytes()
    for damaged, message in (
        (content[:-1], "expected 7 rows of .* truncated"),
        (content + b"x", "expected 7 rows"),
        (content[:40], "damaged NumPy header"),
        (b"", "an empty file"),
        (b"\x94CSDAT" + content[6:], "before 4.2"),
        (content.replace(b"'uid'", b"'uix'"), "expected the field uid, found uix"),
        (content.replace(b"'uid', '<u8'", b"'uid', '<i8'"), "field uid: expected 64-bit unsigned"),
        (content.replace(b"'<f4'", b"'<m8'", 1), "expected numbers or one text per row|damaged|rows of"),
        (content.replace(PATHS[0].encode(), b"\xff" * len(PATHS[0].encode()), 1), "micrograph_path: expected UTF-8"),
    ):
        assert damaged != content
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=message):
            read(path)
    with pytest.raises(InputError, match="found a folder"):
        read(tmp_path)
    with pytest.raises(MissingFileError, match="no such"):
        read(tmp_path / "none.cs")
    with pytest.raises(InputError, match="at least one"):
        read()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"location/center_y_frac": np.array([0, 0, np.nan], np.float32)}, r"row 3 \(uid \d+\): expected a fraction"),
        ({"location/center_x_frac": np.array(["a", "b", "c"], object)}, "center_x_frac: expected one number per row"),
        ({"location/center_x_frac": np.zeros((3, 2), np.float32)}, "center_x_frac: expected one number per row"),
        ({"location/micrograph_path": np.array(["a", "", "b"], object)}, "micrograph_path: row 2 .*path of a micro"),
        ({"location/micrograph_path": np.zeros(3)}, "micrograph_path: expected text"),
        ({"location/micrograph_shape": np.zeros(3, np.uint32)}, "micrograph_shape: expected 2 whole numbers"),
        ({"pick_stats/template_idx": np.zeros(3)}, "template_idx: expected one whole number"),
        ({"location/micrograph_path": None}, "expected location/micrograph_path, found"),
    ],
)
def test_senseless_fields_are_refused(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        read(save(tmp_path / "a.cs", picks(3, **changes)))


def stream(header, *columns, heap=b"\0"):
    text = json.dumps(header).encode() if isinstance(header, dict) else header
    body = b"".join(struct.pack("<I", len(column)) + column for column in columns)
    return b"\x95CSDAT" + struct.pack("<I", len(text)) + text + body + heap


def test_damaged_streams_are_refused(tmp_path):
    uid = struct.pack("<2Q", 1, 2)
    fields = [["uid", "<u8"], ["t", "|O"]]
    good = {"length": 2, "dtype": fields, "compression": "lz4", "compressed_fields": []}
    path = tmp_path / "a.cs"
    path.write_bytes(stream(good, uid, struct.pack("<2Q", 0, 1), heap=b"\0text\0"))
    assert list(cryosparc.read_columns(path)["t"]) == ["", "text"]
    cases = [
        (stream(good, uid, struct.pack("<2Q", 0, 2), heap=b"\0text\0"), "place of a text"),
        (stream(good, uid, struct.pack("<2Q", 0, 2**63), heap=b"\0text\0"), "place of a text"),
        (stream(good, uid, struct.pack("<2Q", 0, 1), heap=b"\0text"), "place of a text"),
        (stream(good, uid, struct.pack("<2Q", 0, 1), heap=b"\0\xff\0"), "UTF-8"),
        (stream(good, uid[:8], uid), "truncated or damaged"),
        (stream(good | {"length": 10**12}, uid, uid), "truncated or damaged"),
        (stream(good | {"length": -1}, uid, uid), "expected length"),
        (stream(good | {"length": True}, uid, uid), "expected length"),
        (stream(good | {"compression": "zip"}, uid, uid), "expected compression lz4"),
        (stream(good | {"compressed_fields": ["uid"]}, uid, uid), "LZ4|expected 16 bytes"),
        (stream(good | {"compressed_fields": ["t"]}, uid, b""), "truncated or damaged"),
        (stream(good | {"dtype": [["uid", "<i8"]]}, uid), "uid: expected 64-bit"),
        (stream(good | {"dtype": [["uid", "<u8"], ["uid", "<u8"]]}, uid, uid), "damaged header"),
        (stream(good | {"dtype": [["uid", "<u8"], ["\ud800", "<u8"]]}, uid, uid), "damaged header"),
        (stream(good | {"dtype": [["uid", "<u8"], ["a", "V8"]]}, uid, uid), "damaged header"),
        (stream(good | {"dtype": [["uid", "<u8"], ["a", "<f4", [0]]]}, uid, b""), "damaged header"),
        (stream(b"[" * 100_000, uid), "damaged header"),
        (stream(b"[1]", uid), "damaged header"),
        (b"\x95CSDAT" + struct.pack("<I", 2**32 - 1) + b"{}", "truncated"),
        (b"\x95CSDAT", "damaged header|truncated"),
    ]
    for content, message in cases:
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            cryosparc.read_columns(path)


def outcome(path):
    """Any result, or an error made for the user."""
    cryosparc.recognise(path, path.read_bytes()[:65536])
    for run in (lambda: read(path), lambda: cryosparc.read_exposures([path]), lambda: cryosparc.read_columns(path)):
        try:
            run()
        except (InputError, MissingFileError) as error:
            assert path.name in str(error)
            str(error).encode()


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples")
    out = []
    for form in FORMS:
        out.append(save(folder / f"{form}.cs", picks(5), form).read_bytes())
        out.append(save(folder / f"e_{form}.cs", exposures(), form).read_bytes())
    return out


@pytest.fixture(scope="module")
def real(samples, data):
    return [*samples, (data / "cryosparc" / "cryosparc_J2_particles_exported.cs").read_bytes()]


FUZZ = settings(max_examples=1000, suppress_health_check=list(HealthCheck), derandomize=True)


@FUZZ
@given(st.data())
def test_mutated_files_end_well(real, tmp_path_factory, data):
    content = bytearray(data.draw(st.sampled_from(real)))
    for _ in range(data.draw(st.integers(1, 6))):
        # most mutations in the header, where they matter most
        end = data.draw(st.sampled_from([12, 300, 1600, len(content)]))
        at = data.draw(st.integers(0, max(min(end, len(content)) - 1, 0)))
        match data.draw(st.sampled_from(["byte", "cut", "insert", "digits", "swap"])):
            case "byte":
                content[at : at + 1] = data.draw(st.binary(min_size=1, max_size=1))
            case "cut":
                del content[at : at + data.draw(st.integers(1, 400))]
            case "insert":
                content[at:at] = data.draw(st.binary(max_size=40))
            case "digits":
                content[at : at + 2] = data.draw(st.sampled_from([b"99999999", b"-1", b"0", b"O", b"(", b"\xff\xff"]))
            case "swap":
                old, new = data.draw(st.permutations([b"<f4", b"<u4", b"<u8", b"|O", b"S9", b"f2", b"c8"]))[:2]
                content = content.replace(old, new, 1)
    path = tmp_path_factory.getbasetemp() / "mutated.cs"
    path.write_bytes(content)
    outcome(path)


@FUZZ
@given(st.sampled_from([b"", b"\x93NUMPY\x01\x00", b"\x93NUMPY\x02\x00", b"\x95CSDAT"]), st.binary(max_size=500))
def test_random_bytes_end_well(tmp_path_factory, magic, content):
    path = tmp_path_factory.getbasetemp() / "random.cs"
    path.write_bytes(magic + content)
    outcome(path)


def test_categories_of_blocks_may_be_wider_than_their_rows(tmp_path):
    reason = categorical(np.array(["a", "b", "c", "d"], object))[[3, 1, 1]]
    cryosparc.write_picks(tmp_path / "a.cs", [block(ours={"ncc": np.zeros(3), "reason": reason})])
    assert np.load(tmp_path / "a.cs")["pickcal/reason"].tolist() == [b"d", b"b", b"b"]
