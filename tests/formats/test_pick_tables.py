import io

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from damaged import block, damaged, many, returned, survives
from hypothesis import given

from pickcal.errors import InputError, MissingFileError
from pickcal.formats import delimited, table_files, tables
from pickcal.formats.foreign import EXPOSURE_COLUMNS, ForeignPicks, categorical

CSV = (
    b"micrograph,x_px,y_px,x,y,ncc,power,template,angle,uid,note\n"
    b'a/mic_a.mrc,10,20.5,15,30.75,0.5,2,1,20.0,12345678901234567890,"b, ""c"""\n'
    b"a/mic_a.mrc,11,21,16.5,31.5,0.25,,0,30.0,7,\n"
    b"a/mic_b.mrc,12.125,22,18.1875,33,-0.125,3,-1,,8,007\n"
)
CTF = (
    b"name,defocus_u,defocus_v,defocus_angle,voltage,spherical_aberration,amplitude_contrast,pixel_size,uid,other\n"
    b"mic_a.mrc,10000.5,9000,12,300,2.7,0.1,1.06,18446744073709551615,x\n"
    b"mic_b.mrc,20000,19000,13,300,2.7,0.1,1.06,5,y\n"
)


def saved(path, frame, format):
    if format == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path, index=False)


def written(path, content):
    if path.suffix == ".parquet":
        pd.read_csv(io.BytesIO(content)).to_parquet(path)
    else:
        path.write_bytes(content)
    return path


def read_one(path):
    (part,) = tables.read_picks(path)
    return part


def read_all(path):
    """The parts of a file as one; a Parquet file has a part for every block that was written."""
    parts = list(tables.read_picks(path))
    columns = {}
    for label, first in parts[0].columns.items():
        values = [part.columns[label] for part in parts]
        text = isinstance(first, pd.Categorical)
        columns[label] = categorical([w for v in values for w in v]) if text else np.concatenate(values)
    return ForeignPicks(
        "table",
        path,
        columns,
        np.concatenate([part.x for part in parts]),
        np.concatenate([part.y for part in parts]),
        micrograph=categorical([name for part in parts for name in part.micrograph]),
        scores={name: np.concatenate([part.scores[name] for part in parts]) for name in parts[0].scores},
        uid=np.concatenate([part.uid for part in parts]),
    )


@pytest.mark.parametrize("name", ["picks.csv", "picks.parquet"])
def test_reads_own_columns(tmp_path, name):
    path = written(tmp_path / name, CSV)
    assert tables.recognise(path, path.read_bytes()[:65_536])
    part = read_one(path)
    assert (part.program, part.unit, part.y_from) == ("table", "px", "first row")
    assert list(part.columns) == CSV.decode().split("\n")[0].split(",")
    assert list(part.micrograph) == ["a/mic_a.mrc", "a/mic_a.mrc", "a/mic_b.mrc"]
    np.testing.assert_array_equal(part.x, [10, 11, 12.125])
    np.testing.assert_array_equal(part.y, [20.5, 21, 22])
    assert list(part.scores) == ["ncc", "power"]
    np.testing.assert_array_equal(part.scores["power"], [2, np.nan, 3])
    np.testing.assert_array_equal(part.template, [1, 0, -1])
    np.testing.assert_array_equal(part.angle, [20, 30, np.nan])
    assert part.uid.dtype == np.uint64 and part.uid.tolist() == [12345678901234567890, 7, 8]
    assert list(part.columns["note"]) == ['b, "c"', "", "007"]


@pytest.mark.parametrize("separator", [",", "\t", ";"])
@pytest.mark.parametrize(
    ("names", "score"),
    [
        (("image_name", "x_coord", "y_coord", "confidence"), "confidence"),
        (("name", "x", "y", "score"), "score"),
        (("rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY", "rlnAutopickFigureOfMerit"), "figure_of_merit"),
        (("micrograph_path", "x_px", "y_px", "probability"), "probability"),
    ],
)
def test_reads_columns_as_others_name_them(tmp_path, separator, names, score):
    text = f"{separator.join(names)}\n" + separator.join(["0012", "1", "2.5", "0.75"]) + "\n"
    path = written(tmp_path / "any.dat", text.encode())
    assert tables.recognise(path, text.encode())
    part = read_one(path)
    assert list(part.micrograph) == ["0012"] and (part.x[0], part.y[0]) == (1, 2.5)
    assert list(part.scores) == [score] and part.scores[score][0] == 0.75
    assert part.template is None and part.angle is None and part.uid is None


def test_fractions_are_cryosparcs(tmp_path):
    header = (
        "location/micrograph_path,location/center_x_frac,location/center_y_frac,pick_stats/ncc_score,pick_stats/power"
    )
    part = read_one(written(tmp_path / "a.csv", f"{header}\na.mrc,0.25,0.75,0.5,30\n".encode()))
    assert (part.unit, part.y_from, list(part.scores)) == ("fraction", "last row", ["ncc", "power"])
    assert (part.x[0], part.y[0]) == (0.25, 0.75)


def test_rows_tell_of_their_micrographs(tmp_path):
    part = read_one(written(tmp_path / "a.csv", b"name,x,y,pixel_size,defocus_u,uid\na,1,2,1.5,12000,x9\n"))
    assert part.exposure["pixel_size"].tolist() == [1.5] and part.exposure["defocus_u"].tolist() == [12000]
    assert "uid" not in part.exposure and part.uid is None


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"x,y,score\n1,2,3\n", "expected one name of the micrograph .*found none among the columns x, y, score"),
        (b"name,image_name,x,y\na,b,1,2\n", r"found several \(image_name, name\)"),
        (b"name,x,y,x_coord,y_coord\na,1,2,3,4\n", r"found several \(x_coord and y_coord, x and y\)"),
        (b"name,x,score\na,1,2\n", "expected one position"),
        (b"name,x,y\na,1,2\nb,1,\n", "column y: row 2: expected a finite number"),
        (b"name,x,y\na,1,2\nb,1,1e400\n", "column y: row 2: expected a finite number"),
        (b"name,x,y\na,1,2\nb,one,2\n", "column x: expected numbers, found 'one' in row 2"),
        (b"name,x,y,ncc\na,1,2,low\n", "column ncc: expected numbers, found 'low' in row 1"),
        (b"name,x,y\na,1,2\nb,1\n", "Row #3: Expected 3 columns, got 2"),
        (b"name,x,y,x\na,1,2,3\n", "every column once, found x again"),
        (b"name,x,y\n\xff,1,2\n", "(?i)invalid utf"),
        (b"", "found none"),
        (b"PAR1 and no more", "expected one name|Parquet"),
    ],
)
def test_damage_and_doubt_are_named(tmp_path, content, words):
    path = written(tmp_path / "bad.csv", content)
    with pytest.raises(InputError, match=words) as error:
        list(tables.read_picks(path))
    assert str(path) in str(error.value)


def test_truncated_parquet_and_what_is_not_there(tmp_path):
    path = written(tmp_path / "a.parquet", CSV)
    whole = path.read_bytes()
    for end in (len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match=r"a\.parquet"):
            list(tables.read_picks(path))
    for read in (lambda path: list(tables.read_picks(path)), lambda path: tables.read_exposures([path])):
        with pytest.raises(MissingFileError, match="no such file"):
            read(tmp_path / "none.csv")
        with pytest.raises(InputError, match="found a folder"):
            read(tmp_path)


def test_other_tables_are_not_recognised(tmp_path):
    for head in (b"", b"a,b\n1,2\n", b"data_\n\nloop_\n_rlnCoordinateX #1\n", b"\x00\xff", b"name,x\na,1\n", b"PAR1"):
        assert not tables.recognise(tmp_path / "a.csv", head)
    assert tables.recognise_exposures(tmp_path, CTF) and not tables.recognise_exposures(tmp_path, CSV)


def test_parquet_of_other_types(tmp_path):
    path = tmp_path / "a.parquet"
    columns = {
        "name": pa.array(["a", None, "a"]).dictionary_encode(),
        "x": pa.array([1, 2, 3], pa.int16()),
        "y": pa.array([1.5, 2.5, 3.5], pa.float32()),
        "score": pa.array([1, None, 3], pa.int32()),
        "shape": pa.array([[1, 2], [3, 4], [5, 6]], pa.list_(pa.uint32(), 2)),
        "day": pa.array([1, 2, None], pa.date32()),
    }
    pq.write_table(pa.table(columns), path)
    part = read_one(path)
    assert list(part.micrograph) == ["a", "", "a"]
    np.testing.assert_array_equal(part.y, [1.5, 2.5, 3.5])
    np.testing.assert_array_equal(part.scores["score"], [1, np.nan, 3])
    np.testing.assert_array_equal(part.columns["shape"], [[1, 2], [3, 4], [5, 6]])
    assert list(part.columns["day"]) == ["1970-01-02", "1970-01-03", ""]
    columns["odd"] = pa.array([{"a": 1}] * 3)
    pq.write_table(pa.table(columns), path)
    with pytest.raises(InputError, match="column odd: expected numbers or text, found struct"):
        read_one(path)


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_export_of_pickcal_reads_back(tmp_path, format):
    rng = np.random.default_rng(4)
    table = pd.DataFrame({"micrograph": [f"Micrographs/m{n // 7:03d}.mrc" for n in range(60)]})
    for name in (
        "x_px",
        "y_px",
        "x",
        "y",
        "ncc",
        "calibrated_ncc",
        "power",
        "calibrated_power",
        "probability",
        "q_value",
    ):
        values = rng.uniform(0, 4000, 60)
        table[name] = values if name.endswith("_px") else values.astype(np.float32)
    table["template"] = rng.integers(-1, 3, 60)
    table["angle"] = rng.uniform(0, 360, 60).astype(np.float32)
    table["defocus"] = rng.uniform(8000, 20000, 60)
    path = tmp_path / f"picks.{format}"
    saved(path, table, format)
    assert tables.recognise(path, path.read_bytes()[:65_536])
    part = read_one(path)
    assert list(part.columns) == list(table.columns)
    np.testing.assert_array_equal(part.x, table["x_px"])
    np.testing.assert_array_equal(part.y, table["y_px"])
    assert list(part.micrograph) == list(table["micrograph"]) and list(part.scores) == ["ncc", "power"]
    np.testing.assert_array_equal(part.template, table["template"])
    for name in ("ncc", "power", "calibrated_ncc", "angle", "defocus"):
        np.testing.assert_array_equal(part.columns[name].astype(table[name].dtype), table[name])


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_round_trip_keeps_every_column(tmp_path, format):
    rng = np.random.default_rng(2)
    x = rng.uniform(0, 4096, 40)
    source = {
        "micrograph": categorical(["source, of\nours"] * 40),
        "uid": rng.integers(2**63, 2**64, 40, dtype=np.uint64),
        "ncc": rng.normal(size=40).astype(np.float32),
        "shape": np.arange(80, dtype=np.uint32).reshape(40, 2),
        "word": np.array(['say "x"', "", "a;b\tc", "0042"] * 10, dtype=object),
    }
    ours = {"ncc": rng.normal(size=40), "half": np.arange(40, dtype=np.float16), "reason": categorical(["edge"] * 40)}
    names = ["dir/a.mrc", "dir/no picks.mrc", "dir/b.mrc"]
    parts = [
        block(names, [0] * 20 + [2] * 20, x, x[::-1], ours, source=source, pixel_size=1.25, source_program="cryosparc"),
        block(["c.mrc"], [0] * 40, x, x, ours, source=source, pixel_size=np.nan, source_program="cryosparc"),
    ]
    (path,) = tables.write_picks(tmp_path / f"out.{format}", iter(parts), format=format)
    part = read_all(path)
    base = ["micrograph", "x_px", "y_px", "x", "y"]
    sources = ["source_micrograph", "uid", "source_ncc", "shape[0]", "shape[1]", "word"]
    assert list(part.columns) == [*base, *sources, "ncc", "half", "reason"]
    assert list(part.micrograph) == ["dir/a.mrc"] * 20 + ["dir/b.mrc"] * 20 + ["c.mrc"] * 40
    np.testing.assert_array_equal(part.x, [*x, *x])
    np.testing.assert_array_equal(part.y, [*x[::-1], *x])
    np.testing.assert_array_equal(part.columns["x"], [*(x * 1.25), *[np.nan] * 40])
    np.testing.assert_array_equal(part.uid, [*source["uid"], *source["uid"]])
    np.testing.assert_array_equal(part.columns["source_ncc"].astype(np.float32), [*source["ncc"], *source["ncc"]])
    np.testing.assert_array_equal(part.columns["shape[1]"], [*range(1, 80, 2)] * 2)
    np.testing.assert_array_equal(part.scores["ncc"], [*ours["ncc"], *ours["ncc"]])
    assert list(part.columns["word"]) == [*source["word"]] * 2
    assert list(part.columns["source_micrograph"]) == ["source, of\nours"] * 80
    frame = pd.read_csv(path) if format == "csv" else pd.read_parquet(path)
    assert list(frame.columns) == list(part.columns) and len(frame) == 80


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_what_was_read_goes_out_again(tmp_path, format):
    part = read_one(written(tmp_path / "in.csv", CSV))
    names = ["a/mic_a.mrc", "a/mic_b.mrc"]
    (path,) = tables.write_picks(tmp_path / f"out.{format}", [returned(part, names)], format=format)
    back = read_one(path)
    for label, values in part.columns.items():
        again = back.columns[f"source_{label}" if label in ("micrograph", "x_px", "y_px", "x", "y") else label]
        if isinstance(values, pd.Categorical):
            assert list(again) == list(values)
        else:
            np.testing.assert_array_equal(again, values)


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_no_blocks_and_failures(tmp_path, format):
    path = tmp_path / f"a.{format}"
    tables.write_picks(path, [], format=format)
    part = read_one(path)
    assert len(part.x) == 0 and list(part.columns) == ["micrograph", "x_px", "y_px", "x", "y"]
    before = path.read_bytes()
    parts = [block(["a"], [0], [1], [2]), block(["b"], [0], [1], [2], {"power": np.ones(1)})]
    with pytest.raises(InputError, match="same columns"):
        tables.write_picks(path, iter(parts), format=format)
    assert path.read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(InputError, match="format: expected one of csv, parquet"):
        tables.write_picks(path, [], format="xlsx")


@pytest.mark.parametrize("format", ["csv", "parquet"])
def test_large_tables_come_in_parts(tmp_path, monkeypatch, format):
    monkeypatch.setattr(delimited, "ROWS", 100)
    monkeypatch.setattr(table_files, "ROWS", 100)
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 4096)
    frame = pd.DataFrame({"name": "a", "x": np.arange(950), "y": 1.0, "score": np.arange(950) / 7})
    path = tmp_path / "a"
    saved(path, frame, format)
    parts = list(tables.read_picks(path))
    assert len(parts) >= 10 and max(len(part.x) for part in parts) <= 100
    np.testing.assert_array_equal(np.concatenate([part.x for part in parts]), frame["x"])
    np.testing.assert_array_equal(np.concatenate([part.scores["score"] for part in parts]), frame["score"])


@pytest.mark.parametrize("name", ["ctf.csv", "ctf.parquet"])
def test_exposures(tmp_path, name):
    frame = tables.read_exposures([written(tmp_path / name, CTF)])
    assert list(frame.columns) == ["name", *EXPOSURE_COLUMNS, "problem"]
    assert list(frame["name"]) == ["mic_a.mrc", "mic_b.mrc"]
    assert frame["defocus_u"].tolist() == [10000.5, 20000] and frame["defocus_angle"].tolist() == [12, 13]
    assert frame["uid"].tolist() == [18446744073709551615, 5]
    assert frame["phase_shift"].tolist() == [0, 0] and frame["exposure_group"].tolist() == [1, 1]
    assert frame["dose"].isna().all() and frame["problem"].tolist() == ["", ""]


def test_exposures_of_several_files_and_defaults(tmp_path):
    one = written(tmp_path / "one.csv", CTF)
    two = written(
        tmp_path / "two.csv", b"name,defocus_u,exposure_group,source_height\nc.mrc,15000,3,\nd.mrc,nan,4,4096\n"
    )
    frame = tables.read_exposures([one, two])
    assert list(frame["name"]) == ["mic_a.mrc", "mic_b.mrc", "c.mrc", "d.mrc"]
    row = frame.iloc[2]
    assert (row["defocus_v"], row["defocus_angle"], row["exposure_group"], row["source_height"]) == (15000, 0, 3, 0)
    assert np.isnan(row["voltage"]) and row["problem"] == ""
    assert frame["problem"][3] == "defocus_u: expected a number above 0 Å, found nan"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"name,defocus_v\na,1\n", "columns name and defocus_u, found name, defocus_v"),
        (b"name,defocus_u\na,low\n", "column defocus_u: expected numbers, found 'low' in row 1"),
        (b"name,defocus_u\na,1\na,2\n", "every name once, found 'a' again"),
        (b"name,defocus_u\na,1\n,2\n", "every name once, found '' again or empty"),
        (
            b"name,defocus_u,exposure_group\na,1,1.5\n",
            "column exposure_group: row 1: expected a whole number, found 1.5",
        ),
        (b"name,defocus_u,uid\na,1,-2\n", "column uid: row 1: expected a whole number"),
        (b"", "found none"),
    ],
)
def test_exposures_that_are_wrong(tmp_path, content, words):
    path = written(tmp_path / "bad.csv", content)
    with pytest.raises(InputError, match=words) as error:
        tables.read_exposures([path])
    assert str(path) in str(error.value)


@pytest.mark.parametrize(
    ("column", "value", "problem"),
    [
        ("defocus_u", -5.0, "defocus_u: expected a number above 0 Å, found -5"),
        ("voltage", 0.0, "voltage: expected a number above 0 kV, found 0"),
        ("amplitude_contrast", 7.0, "amplitude_contrast: expected a number in [0, 1), found 7"),
        ("phase_shift", np.inf, "phase_shift: expected a number in degrees, found inf"),
    ],
)
def test_senseless_values_are_problems_of_their_row(tmp_path, column, value, problem):
    frame = pd.read_csv(io.BytesIO(CTF)).assign(phase_shift=0.0)
    frame[column] = [value, frame[column][1]]
    frame.to_csv(tmp_path / "a.csv", index=False)
    assert tables.read_exposures([tmp_path / "a.csv"])["problem"].tolist() == [problem, ""]


@many
@given(damaged(CSV))
def test_damaged_csv_ends_in_picks_or_an_error(tmp_path, data):
    tables.recognise(tmp_path / "a.csv", data)
    survives(tables.read_picks, tmp_path / "a.csv", data)


PARQUET = io.BytesIO()
pd.read_csv(io.BytesIO(CSV)).to_parquet(PARQUET)


@many
@given(damaged(PARQUET.getvalue()))
def test_damaged_parquet_ends_in_picks_or_an_error(tmp_path, data):
    path = tmp_path / "a.parquet"
    path.write_bytes(data)
    tables.recognise(path, data)
    survives(tables.read_picks, path, data)


@many
@given(damaged(CTF))
def test_damaged_exposures_end_in_a_table_or_an_error(tmp_path, data):
    path = tmp_path / "a.csv"
    path.write_bytes(data)
    try:
        assert len(tables.read_exposures([path])) >= 0
    except InputError as error:
        assert str(path) in str(error)
