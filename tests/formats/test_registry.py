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
