"""Which reader a file gets: every real file there is, and what becomes of those that hold something else."""

import shutil

import pytest

from pickcal.errors import InputError, MissingFileError
from pickcal.formats import cryosparc
from pickcal.formats.registry import pick_files, read_exposures

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
