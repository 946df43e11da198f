import shutil
import subprocess
from pathlib import Path

import mrcfile
import numpy as np
import pandas as pd
import pytest

from pickcal.errors import InputError, MissingFileError
from pickcal.formats import relion
from pickcal.formats.exposures import PART, slices, survey
from pickcal.formats.foreign import ExportBlock
from pickcal.formats.images import write_mrc
from pickcal.formats.relion import (
    find_root,
    open_micrographs_star,
    pipeline_stem,
    read_coordinates_star,
    read_truth_micrographs,
    write_micrographs_star,
)
from pickcal.formats.relion_export import AutopickFiles, write_picks
from pickcal.formats.star import read_star, write_star

OPTICS = """data_optics
loop_
_rlnOpticsGroupName #1
_rlnOpticsGroup #2
_rlnMicrographOriginalPixelSize #3
_rlnVoltage #4
_rlnSphericalAberration #5
_rlnAmplitudeContrast #6
_rlnMicrographPixelSize #7
g1 1 0.5 300 2.7 0.1 1.0
g2 7 0.6 200 1.4 0.07 1.2
"""
NEW = (
    OPTICS
    + """
data_micrographs
loop_
_rlnMicrographName #1
_rlnOpticsGroup #2
_rlnDefocusU #3
_rlnDefocusV #4
_rlnDefocusAngle #5
_rlnPhaseShift #6
_rlnCtfMaxResolution #7
_rlnCtfIceRingDensity #8
a.mrc 7 10000 9000 15 0 4.5 0.3
b.mrc 1 20000 19000 -15 90 5.5 0.4
"""
)
NO_CTF = "data_\nloop_\n_rlnMicrographName #1\n_rlnMicrographMetadata #2\na.mrc a.star\n0002 b.star\n"
FOLDERS = ("MotionCorr/job002/Movies/a.mrc", "MotionCorr/job002/Movies/b.mrc", "MotionCorr/job002/Movies/c.mrc")


def star(tmp_path, text):
    path = tmp_path / "micrographs_ctf.star"
    path.write_text(text)
    return path


def whole_table(path, **options):
    return pd.concat(list(open_micrographs_star(path, **options).parts(PART)), ignore_index=True)


def micrographs(**changes):
    columns = {
        "name": FOLDERS,
        "defocus_u": [1e4, 2e4, 1.5e4],
        "defocus_v": [9e3, 1.9e4, 1.4e4],
        "defocus_angle": [10.0, 20.0, -30.0],
        "phase_shift": 0.0,
        "voltage": 300.0,
        "spherical_aberration": 2.7,
        "amplitude_contrast": 0.1,
        "exposure_group": [1, 1, 2],
        "pixel_size": 1.7,
        "ctf_fit_resolution": [4.5, 5.5, 6.5],
        "ice_thickness": np.nan,
    }
    return pd.DataFrame(columns | changes)


def picks(**changes):
    columns = {
        "micrograph": [FOLDERS[0], FOLDERS[1], FOLDERS[0]],
        "x_px": [123.0, 60.25, 50.5],
        "y_px": [57.0, 140.0, 60.125],
        "figure_of_merit": [0.5, 0.4, 0.3],
        "template": [0, 4, 2],
        "angle": [np.nan, 30.0, 355.0],
        "ncc": [0.5, np.nan, 1e-7],
    }
    return pd.DataFrame(columns | changes)


def block(table, of):
    """The picks of a table as a writer takes them; `angle` there is RELION's psi."""
    place = {name: i for i, name in enumerate(of["name"])}
    index = np.array([place[name] for name in table["micrograph"]], dtype=np.intp)
    order = np.argsort(index, kind="stable")
    ours = {
        "calibrated_ncc": table["figure_of_merit"].to_numpy(float)[order],
        "template": table["template"].fillna(-1).to_numpy(int)[order],
        "angle": -table["angle"].to_numpy(float)[order],
        "ncc": table["ncc"].to_numpy(float)[order],
    }
    x, y = (table[name].to_numpy(float)[order] for name in ("x_px", "y_px"))
    return ExportBlock(of, index[order], x, y, ours, "calibrated_ncc")


def export(out, table, of, **options):
    return write_picks(out, [block(table, of)], of, **options)


def test_optics_groups_are_joined(tmp_path):
    table = whole_table(star(tmp_path, NEW))
    assert table.to_dict("list") == {
        "name": ["a.mrc", "b.mrc"],
        "defocus_u": [10000, 20000],
        "defocus_v": [9000, 19000],
        "defocus_angle": [15, -15],
        "phase_shift": [0, 90],
        "voltage": [200, 300],
        "spherical_aberration": [1.4, 2.7],
        "amplitude_contrast": [0.07, 0.1],
        "exposure_group": [7, 1],
        "pixel_size": [1.2, 1.0],
        "ctf_fit_resolution": [4.5, 5.5],
        "ice_thickness": [0.3, 0.4],
        "problem": ["", ""],
    }


def test_original_pixel_size_where_there_is_no_other(tmp_path):
    text = NEW.replace("_rlnMicrographPixelSize #7\n", "").replace(" 0.1 1.0\n", " 0.1\n").replace(" 0.07 1.2", " 0.07")
    assert whole_table(star(tmp_path, text))["pixel_size"].tolist() == [0.6, 0.5]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (NEW.replace("_rlnMicrographName", "_rlnMicrographMovieName"), "column rlnMicrographName.*MovieName"),
        (NEW.replace("_rlnDefocusU", "_rlnOther"), "no defocus.*run CTF estimation first.*--without-ctf"),
        (NEW.replace("_rlnVoltage", "_rlnOther"), "expected the column rlnVoltage, found rlnMicrographName.*rlnOther"),
        (NEW.replace("_rlnDefocusAngle", "_rlnOther"), "expected the column rlnDefocusAngle"),
        (
            NEW.replace("b.mrc 1", "b.mrc 3"),
            r"row 2 \(b.mrc\).*optics group of block data_optics \(\[1, 7\]\), found 3",
        ),
        (NEW.replace("b.mrc 1", "a.mrc 1"), "a.mrc is in row 1 and again in row 2"),
        (NEW.replace("b.mrc 1", '"" 1'), "row 2: expected a name"),
        (NEW.replace("g2 7", "g2 1"), r"each group once, found \[1, 1\]"),
        (NEW.replace("20000", "2O000"), r"column rlnDefocusU: row 2 \(b.mrc\): expected a number, found '2O000'"),
        (NEW.replace("b.mrc 1 ", "b.mrc 1.5 "), "expected a whole number, found 1.5"),
        (NEW.replace("_rlnPhaseShift", "_rlnCoordinateX"), "found one of particles"),
        (NEW[: NEW.index("a.mrc")], "expected at least one micrograph"),
        (NEW.replace("_rlnOpticsGroup #2\n_rlnDefocusU", "_rlnOther #2\n_rlnDefocusU"), "column rlnOpticsGroup, found"),
    ],
)
def test_what_is_wrong_with_a_table_is_told(tmp_path, text, message):
    path = star(tmp_path, text)
    with pytest.raises(InputError, match=message) as caught:
        whole_table(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(("value", "told"), [("-5", "-5"), ("0", "0"), ("nan", "nan"), ("inf", "inf")])
def test_a_senseless_row_is_kept_and_told(tmp_path, value, told):
    table = whole_table(star(tmp_path, NEW.replace("20000", value)))
    assert table["name"].tolist() == ["a.mrc", "b.mrc"]
    assert table["problem"].tolist() == ["", f"defocus_u: expected a number above 0 Å, found {told}"]


def test_missing_v_is_u(tmp_path):
    text = "data_\nloop_\n_rlnMicrographName #1\n_rlnDefocusU #2\n_rlnVoltage #3\n_rlnSphericalAberration #4\n"
    table = whole_table(star(tmp_path, text + "_rlnAmplitudeContrast #5\na.mrc 8000 300 2.7 0.1\n"))
    assert table.loc[0, ["defocus_u", "defocus_v", "defocus_angle"]].tolist() == [8000, 8000, 0]
    assert table["exposure_group"].tolist() == [1]


def test_without_ctf(tmp_path):
    path = star(tmp_path, NO_CTF)
    with pytest.raises(InputError, match="--without-ctf"):
        whole_table(path)
    table = whole_table(path, require_ctf=False)
    assert table["name"].tolist() == ["a.mrc", "0002"]
    assert table[["defocus_u", "defocus_v", "voltage", "pixel_size"]].isna().all(axis=None)
    assert table["problem"].tolist() == ["", ""]


def test_real_tables(data):
    table = whole_table(data / "relion_10204/micrographs_ctf.star")
    defocus = table["defocus_u"]
    assert len(table) == 24
    assert (round(defocus.min() / 1e4, 2), round(defocus.max() / 1e4, 2)) == (0.83, 1.31)
    assert set(table["pixel_size"]) == {0.885} and set(table["voltage"]) == {200}
    plate = whole_table(data / "star_samples/phase_plate_micrographs_ctf.star")
    assert len(plate) == 20 and plate["phase_shift"].iloc[0] == pytest.approx(29.13, abs=1e-3)
    assert plate["pixel_size"].tolist() == pytest.approx([1.4] * 20)
    wrong = whole_table(data / "odd/wrong_defocus_micrographs_ctf.star")
    assert wrong["defocus_u"].min() > 3e4 and wrong["ice_thickness"].iloc[0] == 1.48476
    leginon = whole_table(data / "pickers/topaz/ctf_params.star")
    assert leginon["pixel_size"].iloc[0] == pytest.approx(2.5e4 / 38023)
    assert not (table["problem"].any() or plate["problem"].any() or wrong["problem"].any())


def test_a_long_table_is_read_in_parts_as_at_once(data, monkeypatch):
    """Real tables, by the strict reader and five rows at a time."""
    files = [path for path in data.rglob("*.star") if "micrographs_ctf" in path.name or path.name == "ctf_params.star"]
    assert len(files) >= 5
    for path in files:
        whole = whole_table(path, require_ctf=False)
        monkeypatch.setattr(relion, "LARGE", 0)
        found = open_micrographs_star(path, require_ctf=False)
        parts = list(found.parts(5))
        monkeypatch.undo()
        assert found.count == len(whole) and set(found.names) <= set(whole["name"])
        assert [len(part) for part in parts[:-1]] == [5] * (len(parts) - 1) and len(parts[-1]) <= 5
        pd.testing.assert_frame_equal(pd.concat(parts, ignore_index=True), whole)


def test_what_is_wrong_in_a_long_table_is_told_as_in_a_short_one(tmp_path, monkeypatch):
    """Single values and quotes are read; a name that comes again, text for a number and a torn row are told of."""
    monkeypatch.setattr(relion, "LARGE", 0)
    monkeypatch.setattr(relion, "PART", 2)
    rows = "".join(f"m{i}.mrc 1 2000{i} 19000 -15 0 5.5 0.4\n" for i in range(5))
    found = open_micrographs_star(star(tmp_path, NEW + rows))
    assert found.count == 7 and [len(part) for part in found.parts(3)] == [3, 3, 1]
    quoted = whole_table(star(tmp_path, NEW + rows + "'with space.mrc' 1 20000 19000 -15 0 5.5 0.4\n"))
    assert len(quoted) == 8 and quoted["name"].iloc[-1] == "with space.mrc"
    single = "data_general\n_rlnVersion 5\n\n" + NEW
    assert len(whole_table(star(tmp_path, single))) == 2
    optics = "data_optics\n_rlnOpticsGroup 1\n_rlnVoltage 300\n_rlnSphericalAberration 2.7\n_rlnAmplitudeContrast 0.1\n"
    turning = "\ndata_micrographs\nloop_\n_rlnMicrographName\n_rlnDefocusU\n_rlnNumber\n"
    turning += "".join(f"m{i}.mrc 2000{i} {i if i < 4 else 'six'}\n" for i in range(5))
    turned = whole_table(star(tmp_path, optics + turning))  # numbers that turn into text
    assert turned["defocus_u"].tolist() == [20000, 20001, 20002, 20003, 20004] and set(turned["voltage"]) == {300}
    for row, words in (
        ("m1.mrc 1 20000 19000 -15 0 5.5 0.4", r"rlnMicrographName: m1\.mrc is in row 4 and again in row 8"),
        ("n.mrc 1 far 19000 -15 0 5.5 0.4", r"rlnDefocusU: row 8 \(n\.mrc\): expected a number, found 'far'"),
        ("n.mrc 3 20000 19000 -15 0 5.5 0.4", r"row 8 \(n\.mrc\): expected an optics group"),
        ("n.mrc 1 20000", r"line \d+: expected 8 values in block data_micrographs, found 3"),
    ):
        with pytest.raises(InputError, match=words):
            open_micrographs_star(star(tmp_path, NEW + rows + row + "\n"))


def test_some_names_stand_for_all():
    """Of a long table names are kept from its beginning to its end, and relative ones if there are any."""
    names = [f"/data/a{i}.mrc" if i % 3 else f"mics/r{i}.mrc" for i in range(20_000)]
    table = pd.DataFrame({"name": pd.Series(names, dtype="str")})
    count, kept, distinct = survey(slices(table, 1000))
    numbers = [int(name[6:-4]) for name in kept]
    assert count == 20_000 and distinct
    assert 50 <= len(kept) < 100 and all(name.startswith("mics/") for name in kept)
    assert numbers[0] == 0 and numbers[-1] > 19_000 and len(set(np.diff(numbers))) == 1
    assert survey(slices(table.iloc[1:3], 1))[1] == names[1:3]
    again = pd.concat([table, table.iloc[[5]]])
    assert not survey(slices(again, 1000))[2]


def test_real_root_and_positions(data, tmp_path):
    apoferritin = data / "apoferritin_10146"
    path = apoferritin / "micrographs_ctf.star"
    assert find_root(list(whole_table(path)["name"]), path, None, tmp_path) == apoferritin
    truth = read_coordinates_star(apoferritin / "truth_particles.star")
    assert len(truth) == 1125 and truth["micrograph"].nunique() == 7
    assert truth.columns.tolist() == ["micrograph", "x_px", "y_px", "rlnOpticsGroup"]
    assert truth.loc[0, ["x_px", "y_px"]].tolist() == [405.999176, 32.003291]
    old = read_coordinates_star(data / "star_samples/relion13_10017_particles.star")
    assert old["micrograph"].iloc[0] == "Micrographs/Falcon_2012_06_12-14_33_35_0.mrc"
    assert len(read_coordinates_star(data / "star_samples/relion31.6opticsgroups.star")) == 139
    picked = data / "relion_10204/AutoPick_template/Movies/20170629_00021_frameImage_autopick.star"
    with pytest.raises(InputError, match="expected the column rlnMicrographName"):
        read_coordinates_star(picked)
    assert set(read_coordinates_star(picked, "a.mrc")["micrograph"]) == {"a.mrc"}


def test_find_root(tmp_path):
    project = tmp_path / "project"
    job = project / "CtfFind" / "job003"
    elsewhere = tmp_path / "elsewhere"
    for folder in (job, elsewhere, project / "m"):
        folder.mkdir(parents=True)
    names = [f"m/{i}.mrc" for i in range(120)] + ["000002@m/s.mrcs"]
    for name in [*names[:-1], "m/s.mrcs"]:
        (project / name).touch()
    star_path = job / "micrographs_ctf.star"
    assert find_root(names, star_path, None, elsewhere) == project
    assert find_root(names, star_path, None, project) == project
    assert find_root(names, star_path, project, elsewhere) == project
    (project / names[7]).unlink()
    assert find_root(names, star_path, None, elsewhere) == project
    with pytest.raises(MissingFileError, match=rf"first being m/0\.mrc; looked in {elsewhere}\. .*--root"):
        find_root(names, star_path, elsewhere, project)
    with pytest.raises(MissingFileError, match=rf"{elsewhere}, {job}, .*{project}.*--root"):
        find_root(["nowhere.mrc"], star_path, None, elsewhere)


def test_find_root_prefers_the_folder_that_has_all(tmp_path):
    (tmp_path / "some").mkdir()
    for name in ("some/a.mrc", "a.mrc", "b.mrc"):
        (tmp_path / name).touch()
    assert find_root(["a.mrc", "b.mrc"], tmp_path / "x.star", None, tmp_path / "some") == tmp_path
    (tmp_path / "b.mrc").unlink()
    assert find_root(["a.mrc", "b.mrc"], tmp_path / "x.star", None, tmp_path / "some") == tmp_path / "some"


def test_find_root_with_absolute_names(tmp_path):
    (tmp_path / "deep").mkdir()
    for name in ("a.mrc", "deep/b.mrc"):
        (tmp_path / name).touch()
    absolute = str(tmp_path / "a.mrc")
    cwd = tmp_path / "cwd"
    assert find_root([absolute], tmp_path / "x.star", None, cwd) == cwd
    assert find_root([absolute, "b.mrc"], tmp_path / "deep/x.star", None, cwd) == tmp_path / "deep"
    names = [absolute, "b.mrc", "gone.mrc"]
    assert find_root(names, tmp_path / "deep/x.star", None, cwd) == tmp_path / "deep"


def test_truth_micrographs(tmp_path):
    path = tmp_path / "truth.star"
    table = pd.DataFrame({"rlnMicrographName": ["0001"], "rlnCoordinateX": [1.0], "rlnCoordinateY": [2.0]})
    write_star(path, {"particles": table})
    assert read_truth_micrographs(path) is None
    write_star(path, {"particles": table, "micrographs": pd.DataFrame({"rlnMicrographName": ["0001", "0002"]})})
    assert read_truth_micrographs(path) == ["0001", "0002"]
    assert read_coordinates_star(path).to_dict("list") == {"micrograph": ["0001"], "x_px": [1], "y_px": [2]}
    write_star(path, {"particles": table.assign(rlnCoordinateX=np.nan)})
    with pytest.raises(InputError, match=r"rlnCoordinateX: row 1 \(0001\): expected a finite"):
        read_coordinates_star(path)


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        ("MotionCorr/job002/Movies/a.mrc", "Movies/a"),
        ("MotionCorr/job1234/Movies/x/a.b.mrc", "Movies/x/a.b"),
        ("/data/p/MotionCorr/job002/a.mrc", "a"),
        ("micrographs/job.mrc", "micrographs/job"),
        ("a.mrc", "a"),
        ("no_extension", "no_extension"),
        ("/data/mics/a.mrc", "data/mics/a"),
        ("../mics/a.mrc", "mics/a"),
        ("3@dir/s.mrcs", "dir/s_000003"),
        ("000012@MotionCorr/job002/s.mrcs", "s_000012"),
    ],
)
def test_pipeline_stem(name, stem):
    assert pipeline_stem(name) == stem


def test_pipeline_stem_agrees_with_relion(data):
    names = whole_table(data / "relion_10204/micrographs_ctf.star")["name"]
    folder = data / "relion_10204/AutoPick_template"
    assert all((folder / f"{pipeline_stem(name)}_autopick.star").is_file() for name in names)


def test_autopick_files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    out = Path("AutoPick/job009")
    written = export(out, picks(), micrographs(), layout="autopick")
    files = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert sorted(written) == files
    assert [str(file.relative_to(out)) for file in files] == [
        "Movies/a_autopick.star",
        "Movies/b_autopick.star",
        "autopick.star",
        "coords_suffix_autopick.star",
        "micrographs.star",
    ]
    assert read_star(out / "Movies/a_autopick.star")[""].to_dict("list") == {
        "rlnCoordinateX": [123, 50.5],
        "rlnCoordinateY": [57, 60.125],
        "rlnClassNumber": [1, 3],
        "rlnAutopickFigureOfMerit": [0.5, 0.3],
        "rlnAnglePsi": [0, 355],
        "pickcalCalibratedNccScore": [0.5, 0.3],
        "pickcalNccScore": [0.5, 1e-7],
    }
    index = read_star(out / "autopick.star")["coordinate_files"]
    assert index["rlnMicrographName"].tolist() == list(FOLDERS[:2])
    assert index["rlnMicrographCoordinates"].tolist() == [f"{out}/Movies/{x}_autopick.star" for x in "ab"]
    assert (out / "coords_suffix_autopick.star").read_text() == f"{out}/micrographs.star\n"


def test_an_export_again_leaves_nothing_of_the_first(tmp_path):
    export(tmp_path, picks(), micrographs(), layout="autopick")
    fewer = picks().iloc[[0]]
    again = AutopickFiles(tmp_path, "autopick", Path("/p"))
    again.add(block(fewer, micrographs()))
    again.close(Path("/p/m.star"))
    assert [path.name for path in (tmp_path / "Movies").iterdir()] == ["a_autopick.star"]
    assert (tmp_path / "coords_suffix_autopick.star").read_text() == "m.star\n"
    index = read_star(tmp_path / "autopick.star")["coordinate_files"]
    assert index["rlnMicrographCoordinates"].tolist() == [str(tmp_path / "Movies/a_autopick.star")]
    export(tmp_path, fewer[:0], micrographs(), layout="autopick")
    assert read_star(tmp_path / "autopick.star")["coordinate_files"].shape == (0, 2)


@pytest.mark.parametrize("layout", ["autopick", "particles", "both"])
def test_a_position_that_is_no_number_is_not_written(tmp_path, layout):
    with pytest.raises(InputError, match=r"x: expected a finite number, found nan in row 3 .*b\.mrc"):
        export(tmp_path, picks(x_px=[1, np.nan, 2]), micrographs(), layout=layout)
    assert list(tmp_path.iterdir()) == []


def test_micrographs_that_share_a_file_are_refused(tmp_path):
    names = ["MotionCorr/job002/a.mrc", "MotionCorr/job003/a.mrc", "b.mrc"]
    with pytest.raises(InputError, match=r"job002/a\.mrc and MotionCorr/job003/a\.mrc would share"):
        export(tmp_path, picks(micrograph=names), micrographs(name=names))


def test_micrographs_round_trip(tmp_path):
    path = tmp_path / "m.star"
    table = micrographs(phase_shift=[0.0, 90.0, 35.5])
    write_micrographs_star(path, table)
    read = whole_table(path)
    assert not read.pop("problem").any()
    pd.testing.assert_frame_equal(read, table, check_dtype=False)
    assert "rlnPhaseShift" not in read_star(write_and_return(path, micrographs()))["micrographs"]
    assert "rlnDefocusU" not in read_star(write_and_return(path, table[["name", "pixel_size"]]))["micrographs"]
    with pytest.raises(InputError, match=r"b\.mrc: expected a pixel size"):
        write_micrographs_star(path, micrographs(pixel_size=[1.0, np.nan, 1.0]))


def write_and_return(path, table):
    write_micrographs_star(path, table)
    return path


def test_what_differs_within_a_group_makes_new_groups(tmp_path):
    table = micrographs(voltage=[300.0, 200.0, 300.0])
    write_micrographs_star(tmp_path / "m.star", table)
    read = whole_table(tmp_path / "m.star")
    assert read["voltage"].tolist() == [300, 200, 300]
    assert read["exposure_group"].nunique() == 3


def test_particles_file(tmp_path):
    path = tmp_path / "particles.star"
    assert export(tmp_path, picks(), micrographs(phase_shift=[0, 90, 0]), layout="particles") == [path]
    blocks = read_star(path)
    assert blocks["optics"]["rlnOpticsGroup"].tolist() == [1, 2]
    assert blocks["optics"]["rlnMicrographPixelSize"].tolist() == [1.7, 1.7]
    table = blocks["particles"]
    assert table["rlnMicrographName"].tolist() == [FOLDERS[0], FOLDERS[0], FOLDERS[1]]
    assert table["rlnDefocusU"].tolist() == [1e4, 1e4, 2e4]
    assert table["rlnDefocusAngle"].tolist() == [10, 10, 20]
    assert table["rlnPhaseShift"].tolist() == [0, 0, 90]
    assert table["rlnOpticsGroup"].tolist() == [1, 1, 1]
    assert table.columns[-1] == "pickcalNccScore"
    read = read_coordinates_star(path)
    same = picks().sort_values("micrograph", kind="stable", ignore_index=True)
    pd.testing.assert_frame_equal(read[["micrograph", "x_px", "y_px"]], same[["micrograph", "x_px", "y_px"]])


@pytest.fixture
def relion_project(tmp_path, monkeypatch):
    """A RELION project with three micrographs of noise, a bright pixel at every pick, and the picks exported."""
    if shutil.which("relion_preprocess") is None:
        pytest.skip("relion_preprocess is not installed")
    monkeypatch.chdir(tmp_path)
    chosen = picks(x_px=[123.0, 60.0, 50.0], y_px=[57.0, 140.0, 60.0])
    rng = np.random.default_rng(0)
    for name in FOLDERS:
        image = rng.normal(size=(200, 300)).astype(np.float32)
        for _, pick in chosen[chosen["micrograph"] == name].iterrows():
            image[int(pick["y_px"]), int(pick["x_px"])] = 50
        write_mrc(Path(name), image, 1.7)
    write_micrographs_star(Path("micrographs_ctf.star"), micrographs())
    return chosen


def extract(*arguments):
    command = ["relion_preprocess", "--i", "micrographs_ctf.star", "--part_star", "parts.star", *arguments]
    command += ["--part_dir", "Extract/", "--extract", "--extract_size", "32", "--norm", "--bg_radius", "12"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return read_star(Path("parts.star"))["particles"]


def check_extracted(table, chosen):
    assert len(table) == len(chosen)
    for _, row in table.iterrows():
        index, stack = row["rlnImageName"].split("@")
        with mrcfile.open(stack, permissive=True) as file:
            image = file.data if file.data.ndim == 2 else file.data[int(index) - 1]
        # RELION's centre of a box of 32 is pixel 16: the planted pixel is there if both count from 0
        assert np.unravel_index(np.argmax(image), image.shape) == (16, 16)
    merged = table.set_index(["rlnMicrographName", "rlnCoordinateX"])["rlnAutopickFigureOfMerit"].to_dict()
    assert merged == {(p.micrograph, p.x_px): p.figure_of_merit for p in chosen.itertuples()}


@pytest.mark.relion
def test_relion_extracts_what_is_exported(relion_project):
    export(Path("OUT"), relion_project, micrographs())
    table = extract("--coord_dir", "OUT/", "--coord_suffix", "_autopick.star")
    check_extracted(table, relion_project)
    assert table["rlnDefocusU"].tolist() == [1e4, 1e4, 2e4]
    assert table["pickcalNccScore"].tolist()[:2] == [0.5, 1e-7]


@pytest.mark.relion
def test_relion_extracts_again_from_the_particles_file(relion_project):
    export(Path("OUT"), relion_project, micrographs(), layout="particles")
    tables = read_star(Path("OUT/particles.star"))
    # RELION 3.1 re-extracts from a particles file only if that states the size of its images, and there are none yet
    size = tables["optics"]["rlnMicrographPixelSize"]
    tables["optics"] = tables["optics"].assign(rlnImagePixelSize=size, rlnImageSize=32, rlnImageDimensionality=2)
    write_star(Path("p.star"), tables)
    check_extracted(extract("--reextract_data_star", "p.star"), relion_project)
