"""Which reader a file gets: every real file there is, and what becomes of those that hold something else."""

import os
import shutil

import numpy as np
import pandas as pd
import pytest
from cryosparc.dataset import Dataset
from handmade import noise, write_mrc

from pickcal.errors import InputError, MissingFileError
from pickcal.formats import cryosparc
from pickcal.formats.registry import is_table, pick_files, read_exposures

PICKS = {
    "apoferritin_10146/truth_particles.star": ("relion", 1125, []),
    "odd/Ucsf_stack_1142_DW_autopick.star": ("relion", 45, ["figure_of_merit"]),
    "pickers/cryolo/Falcon_2012_06_12-14_33_35_0.box": ("cryolo", 719, ["score"]),
    "pickers/cryolo/Falcon_2012_06_12-15_33_42_0.box": ("cryolo", 711, ["score"]),
    "pickers/topaz/Falcon_2012_06_12-14_33_35_0.box": ("topaz", 789, ["score"]),
    "pickers/topaz/particles_head.txt": ("topaz", 59, []),
    "relion_10204/AutoPick_LoG": ("relion", 1158, ["figure_of_merit"]),
    "relion_10204/AutoPick_template": ("relion", 9482, ["figure_of_merit"]),
    "relion_10204/AutoPick_template/coords_suffix_autopick.star": ("relion", 9482, ["figure_of_merit"]),
    "star_samples/relion13_10017_particles.star": ("relion", 8915, ["figure_of_merit"]),
    "star_samples/relion31.6opticsgroups.star": ("relion", 139, ["figure_of_merit"]),
    "star_samples/relion5.star": ("relion", 17, ["figure_of_merit"]),
}
EXPOSURES = {
    "apoferritin_10146/micrographs_ctf.star": 8,
    "odd/wrong_defocus_micrographs_ctf.star": 24,
    "pickers/topaz/ctf_params.star": 30,
    "relion_10204/micrographs_ctf.star": 24,
    "star_samples/phase_plate_micrographs_ctf.star": 20,
    "star_samples/relion13_10017_particles.star": 15,
}


@pytest.mark.parametrize("name", sorted(PICKS))
def test_real_picks(data, name):
    """As many rows as lines that begin with a number, under the name of the program that wrote them."""
    program, count, scores = PICKS[name]
    parts = [part for one in pick_files([data / name]) for part in one.read()]
    assert {part.program for part in parts} == {program}
    assert sum(len(part.x) for part in parts) == count
    assert all(list(part.scores) == scores for part in parts)


@pytest.mark.parametrize("name", sorted(EXPOSURES))
def test_real_exposures(data, name):
    table = read_exposures([data / name])
    assert len(table) == EXPOSURES[name] and not table["problem"].any()
    assert table["defocus_u"].between(5_000, 60_000).all() and (table["voltage"] >= 100).all()


def test_real_cs_files_are_read_and_say_what_they_lack(data):
    """Particles without `location`: every column is read; as picks they need their passthrough file."""
    for path, count in zip(sorted((data / "cryosparc").glob("*.cs")), (22, 2019), strict=True):
        columns = cryosparc.read_columns(path)
        assert len(columns["uid"]) == count and "blob/path" in columns and "ctf/df1_A" in columns
        with pytest.raises(InputError, match=r"expected location/center_x_frac.*passthrough"):
            list(pick_files([path])[0].read())


def test_content_decides_and_not_the_name(data, tmp_path):
    path = tmp_path / "anything.dat"
    shutil.copy(data / "star_samples/relion5.star", path)
    assert pick_files([path])[0].module.__name__.endswith("relion_picks")


def test_what_nobody_knows(tmp_path):
    with pytest.raises(MissingFileError, match="no such file"):
        pick_files([tmp_path / "none.star"])
    path = tmp_path / "x.star"
    for content, found in (
        (b"", "an empty file"),
        (b"hello world\n", "begins with 'hello world'"),
        (b"\x00\x01", "binary"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=rf"x\.star: expected picks of RELION, cryoSPARC, .*{found}"):
            pick_files([path])
    with pytest.raises(InputError, match="expected a folder with picks"):
        pick_files([tmp_path])
    (tmp_path / "a.box").write_text("1\t2\t10\t10\t0.5\n")
    (tmp_path / "b.txt").write_text("image_name\tx_coord\ty_coord\tscore\nm\t1\t2\t3\n")
    path.unlink()
    with pytest.raises(InputError, match="holds picks of several kinds"):
        pick_files([tmp_path])


MICROGRAPHS = "data_\n\nloop_\n_rlnMicrographName #1\n_rlnDefocusU #2\n_rlnVoltage #3\n_rlnSphericalAberration #4\n"
MICROGRAPHS += "_rlnAmplitudeContrast #5\n_rlnMicrographPixelSize #6\n"
PARTICLES = "data_\n\nloop_\n_rlnMicrographName #1\n_rlnCoordinateX #2\n_rlnCoordinateY #3\nm1.mrc 10 20\n"
CSV = "name,defocus_u,voltage,cs,amplitude_contrast\n"
ROW = "15000 300 2.7 0.1 2.0\n"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (
            {"a.star": MICROGRAPHS + f"m1.mrc {ROW}", "b.csv": CSV + "m2.mrc,15000,300,2.7,0.1\n"},
            r"b\.csv: .*same kind as .*a\.star",
        ),
        ({"a.star": MICROGRAPHS + f"m1.mrc {ROW}", "b.star": MICROGRAPHS + f"m2.mrc {ROW}"}, r"b\.star: .*got 2; join"),
        ({"a.star": PARTICLES}, r"a\.star: .*found picks without; give micrographs_ctf\.star"),
        ({"a.txt": "nothing of the kind\n"}, r"a\.txt: expected a table of micrographs and their CTF, found"),
    ],
)
def test_tables_of_micrographs_that_cannot_be_taken_say_why(tmp_path, files, said):
    """What is wrong stands behind the file that it is wrong with."""
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=said):
        read_exposures([tmp_path / name for name in files])


def test_a_folder_or_nothing_in_the_place_of_a_table(tmp_path):
    with pytest.raises(InputError, match="expected a file, found a folder"):
        read_exposures([tmp_path])
    with pytest.raises(MissingFileError, match=r"none\.star: no such file"):
        read_exposures([tmp_path / "none.star"])


INDEX = "data_coordinate_files\n\nloop_\n_rlnMicrographName #1\n_rlnMicrographCoordinates #2\n"


@pytest.mark.parametrize(
    ("name", "text", "error", "said"),
    [
        (
            "coords_suffix_autopick.star",
            "CtfFind/job003/micrographs_ctf.star\n",
            MissingFileError,
            r"files \*_autopick\.star below .*found none",
        ),
        (
            "autopick.star",
            INDEX + "m1.mrc AutoPick/job9/m1_autopick.star\n",
            MissingFileError,
            r"m1_autopick\.star is not there; looked in ",
        ),
        ("autopick.star", INDEX + f"m1.mrc {'x' * 300}\n", InputError, "row 1: no name of a file"),
        ("autopick.star", INDEX, InputError, "expected a table with rlnMicrographName and rlnMicrographCoordinates"),
    ],
)
def test_an_index_that_leads_nowhere_says_where_it_looked(tmp_path, name, text, error, said):
    (tmp_path / name).write_text(text)
    with pytest.raises(error, match=said):
        pick_files([tmp_path / name])


def picks_of(folder, job, names):
    """Files of picks of some micrographs in a job's folder, and RELION 4's index of them."""
    (folder / job).mkdir(parents=True)
    rows = ""
    for name in names:
        file = folder / job / f"{name}_autopick.star"
        file.write_text("data_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n10 20\n")
        rows += f"mics/{name}.mrc {job}/{file.name}\n"
    (folder / job / "autopick.star").write_text(INDEX + rows)
    return folder / job


def test_indices_of_the_same_files_are_one(tmp_path):
    """RELION's own index, which names the micrographs, and that of older versions; also through a link to the job."""
    job = picks_of(tmp_path, "AutoPick/job004", ["m1", "m2"])
    (job / "coords_suffix_autopick.star").write_text("CtfFind/job003/micrographs_ctf.star\n")
    (tmp_path / "AutoPick/named").symlink_to(job)
    for folder in (job, tmp_path / "AutoPick/named"):
        found = pick_files([folder])
        assert [one.micrograph for one in found] == ["mics/m1.mrc", "mics/m2.mrc"]
        assert [os.path.realpath(one.paths[0]) for one in found] == [str(job / f"m{n}_autopick.star") for n in (1, 2)]


@pytest.mark.parametrize("other", ["autopick.star", "coords_suffix_manual.star", "coords_suffix_autopick.star"])
def test_indices_of_different_files_are_not_chosen_from(tmp_path, other):
    """Of two jobs, of two suffixes, and of a job that left a file which its own index does not list: both are named."""
    job = picks_of(tmp_path, "AutoPick/job004", ["m1", "m2"])
    if other == "autopick.star":
        second = picks_of(tmp_path, "AutoPick/job005", ["m1"]) / other
    else:
        second = job / other
        second.write_text("CtfFind/job003/micrographs_ctf.star\n")
        shutil.copy(job / "m1_autopick.star", job / f"m3_{second.stem.rpartition('_')[2]}.star")
    with pytest.raises(InputError, match=r"job004/autopick\.star.*list different files.*give the index") as error:
        pick_files([tmp_path / "AutoPick"])
    assert str(second) in str(error.value)


PARTICLE_HEAD = (
    "data_\n\nloop_\n_rlnMicrographName #1\n_rlnCoordinateX #2\n_rlnCoordinateY #3\n_rlnDefocusU #4\n_rlnVoltage #5\n"
    "_rlnSphericalAberration #6\n_rlnAmplitudeContrast #7\n_rlnMicrographPixelSize #8\n"
)


def test_particles_of_relion_tell_the_ctf_of_their_micrographs(tmp_path):
    """The median of each; what no fit gives (0, or no number at all) is a problem of that micrograph alone."""
    path = tmp_path / "particles.star"
    rows = [("m1", 15000), ("m1", 15200), ("m1", 19000), ("m2", 0), ("m3", "nan"), ("m4", 12000)]
    path.write_text(PARTICLE_HEAD + "".join(f"{name}.mrc 10 20 {value} 300 2.7 0.1 1.5\n" for name, value in rows))
    table = read_exposures([path]).set_index("name")
    assert table["defocus_u"].tolist()[:2] == [15200, 0] and table["defocus_u"]["m4.mrc"] == 12000
    assert table["problem"].tolist() == [
        "",
        "defocus_u: expected a number above 0 Å, found 0",
        "defocus_u: expected a number above 0 Å, found nan",
        "",
    ]
    good = table.loc["m4.mrc"]
    assert (good["defocus_v"], good["defocus_angle"], good["phase_shift"]) == (12000, 0, 0)
    without = read_exposures([path], require_ctf=False).set_index("name")
    assert without["problem"]["m3.mrc"] == "" and without["problem"]["m2.mrc"] != ""


def test_particles_of_warp_tell_what_warp_has_fitted(tmp_path):
    """Where it has not, it writes 0 and 999."""
    path = tmp_path / "allparticles.star"
    labels = ("CoordinateX", "CoordinateY", "Magnification", "DetectorPixelSize", "Voltage", "SphericalAberration")
    labels += ("AmplitudeContrast", "PhaseShift", "DefocusU", "DefocusV", "DefocusAngle", "CtfMaxResolution")
    head = "data_\n\nloop_\n" + "".join(f"_rln{label} #{n}\n" for n, label in enumerate((*labels, "MicrographName"), 1))
    path.write_text(
        head + "1 2 10000 1.346 300 2.7 0.07 0 15123.4 14876.5 33 4.2 m1.tif\n"
        "1 2 10000 1.346 300 2.7 0.07 0 0 0 0 999 m2.tif\n"
    )
    table = read_exposures([path]).set_index("name")
    assert table["problem"]["m1.tif"] == "" and table["defocus_v"]["m1.tif"] == 14876.5
    assert "defocus_u: expected a number above 0 Å, found nan" in table["problem"]["m2.tif"]
    assert np.isnan(table["ctf_fit_resolution"]["m2.tif"]) and table["pixel_size"]["m1.tif"] == pytest.approx(1.346)


CTF = ("df1_A", "df2_A", "df_angle_rad", "accel_kv", "cs_mm", "amp_contrast")


def test_particles_of_cryosparc_tell_the_uid_of_their_micrographs(tmp_path):
    """64-bit numbers to the last bit, and whole sizes: no mean is taken of names and of shapes."""
    uids = [2**64 - 3, 2**60 + 1]
    which = [0, 1, 0, 1, 1]
    data = Dataset.allocate(
        len(which),
        fields=[
            ("location/micrograph_path", "O"),
            ("location/micrograph_uid", "u8"),
            ("location/micrograph_shape", "u4", (2,)),
            ("location/center_x_frac", "f4"),
            ("location/center_y_frac", "f4"),
            *((f"ctf/{name}", "f4") for name in CTF),
            ("ctf/exp_group_id", "u4"),
        ],
    )
    data["location/micrograph_path"] = np.array([f"J1/m{n}.mrc" for n in which], dtype=object)
    data["location/micrograph_uid"] = np.array([uids[n] for n in which], dtype=np.uint64)
    data["location/micrograph_shape"] = np.array([[200, 300]] * len(which), dtype=np.uint32)
    for name, value in (("df1_A", 15000), ("df2_A", 14000), ("accel_kv", 300), ("cs_mm", 2.7), ("amp_contrast", 0.1)):
        data[f"ctf/{name}"] = np.full(len(which), value, np.float32)
    data["ctf/exp_group_id"] = np.array([3 + n for n in which], dtype=np.uint32)
    data.save(tmp_path / "particles.cs")
    table = read_exposures([tmp_path / "particles.cs"])
    assert [int(uid) for uid in table["uid"]] == uids and table["uid"].dtype == np.uint64
    assert table["exposure_group"].tolist() == [3, 4] and table["source_width"].tolist() == [300, 300]
    assert not table["problem"].any()


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_tables_are_told_from_images(tmp_path, kind):
    """Of micrographs, which hold no positions, and of picks; an image is none."""

    for name, columns in (("mics", ("name", "defocus_u")), ("picks", ("micrograph", "x_px", "y_px"))):
        frame = pd.DataFrame({column: ["m1"] if n == 0 else [1.0] for n, column in enumerate(columns)})
        path = tmp_path / f"{name}.{kind}"
        frame.to_csv(path, index=False) if kind == "csv" else frame.to_parquet(path, index=False)
        assert is_table(path)
    write_mrc(tmp_path / "m1.mrc", noise(), 5.0)
    assert not is_table(tmp_path / "m1.mrc")
