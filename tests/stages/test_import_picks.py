"""Picks of other programs in, calibrated, and out again: no column and no digit lost, no mismatch guessed."""

import json
import re
import threading

import numpy as np
import pytest
from cryosparc.dataset import Dataset
from foreign_projects import HEAD, PICKS, autopick, cs_picks, everything_out, project_of, same, tables, take, tokens
from handmade import noise, write_set

from pickcal.engine.executors import SerialExecutor
from pickcal.engine.one_job import only_job
from pickcal.engine.progress import Silent
from pickcal.errors import InputError, ProjectError
from pickcal.project import Project
from pickcal.schema import Status
from pickcal.settings import (
    BlobSettings,
    CalibrateSettings,
    ImportSettings,
)
from pickcal.stages.calibrate import calibrate
from pickcal.stages.control import control
from pickcal.stages.ingest import ingest
from pickcal.stages.pick import pick


@pytest.fixture(scope="module")
def tutorial(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("tutorial") / "p.zarr"
    project = project_of([data / "relion_10204/micrographs_ctf.star"], path, (3710, 3838))
    take(project, data / "relion_10204/AutoPick_template", name="theirs")
    return project


def test_the_tutorial_holds_every_pick_of_every_file(tutorial, data):
    """Micrograph by micrograph as a naive reading of the files has it, the best first, in Å of 0.885 per pixel."""
    picks = tutorial.picks("theirs").load()
    names = [str(name) for name in tutorial.read("micrographs", "name")]
    assert int(picks["count"].sum()) == 9482
    for i, name in enumerate(names):
        stem = name.rsplit("/", 1)[1].removesuffix(".mrc")
        path = data / f"relion_10204/AutoPick_template/Movies/{stem}_autopick.star"
        labels, rows = tokens(path)
        rows = sorted(([float(value) for value in row] for row in rows), key=lambda row: -row[3])
        assert labels[:2] == ["rlnCoordinateX", "rlnCoordinateY"] and picks["count"].values[i] == len(rows)
        found = np.column_stack([picks[key].values[i, : len(rows)] for key in ("x", "y")]) / 0.885
        np.testing.assert_allclose(found, [row[:2] for row in rows], atol=2e-4)
        assert picks["ncc"].values[i, : len(rows)].tolist() == [row[3] for row in rows]
        assert picks["template"].values[i, : len(rows)].tolist() == [row[2] - 1 for row in rows]
        np.testing.assert_allclose(picks["angle"].values[i, : len(rows)], [-row[4] % 360 for row in rows], atol=1e-4)
    assert picks.attrs["score_label"] == "RELION figure of merit"
    assert np.isnan(picks["power"].values).all()


def test_the_tutorial_goes_out_as_it_came(tutorial, data, tmp_path):
    """Every row of every file, its columns first and untouched, in the same order."""
    found = everything_out(tutorial, tmp_path)
    assert found["picks"] == 9482 and found["micrographs"] == 24
    files = sorted((data / "relion_10204/AutoPick_template/Movies").glob("*.star"))
    assert len(files) == 24
    for file in files:
        labels, rows = tokens(file)
        labels_out, rows_out = tokens(tmp_path / "Movies" / file.name)
        assert labels_out[: len(labels)] == labels and len(rows_out) == len(rows)
        for theirs, ours in zip(rows, rows_out, strict=True):
            assert all(map(same, theirs, ours)), (theirs, ours)


SAMPLES = [
    "sample_particles_relion30.star",
    "sample_particles_relion31.star",
    "relion31.6opticsgroups.star",
    "relion5.star",
    "relion13_10017_particles.star",
]


@pytest.mark.parametrize("name", SAMPLES)
def test_particles_of_every_relion_go_out_as_they_came(data, tmp_path, name):
    """The CTF comes from the particles themselves; every label, every value, every row of the file's own table."""
    source = data / "star_samples" / name
    known = {} if "6opticsgroups" in name else {"source_pixel_size": 1.0}
    project = project_of([source], tmp_path / "p.zarr", **known)
    take(project, source, diameter=100.0)
    assert project.micrographs()["defocus_u"].values.min() > 1000
    everything_out(project, tmp_path / "out")
    labels, rows = tokens(source)
    labels_out, rows_out = tokens(tmp_path / "out/particles.star")
    assert labels_out[: len(labels)] == labels
    assert any(label.startswith("pickcal") for label in labels_out)
    key = [labels.index(k) for k in ("rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY")]
    assert len(rows) == len(rows_out)

    def place(row):
        return row[key[0]], float(row[key[1]]), float(row[key[2]])

    for theirs, ours in zip(sorted(rows, key=place), sorted(rows_out, key=place), strict=True):
        assert all(map(same, theirs, ours)), (theirs, ours)
    optics = re.findall(r"data_optics.*?data_", source.read_text(), re.DOTALL)
    for word in optics[0].split("data_")[1].split() if optics else []:
        if word.startswith("_rln") or word.startswith("opticsGroup"):
            assert word in (tmp_path / "out/particles.star").read_text()


def test_lines_of_the_tutorial_and_a_wrong_defocus(tutorial, data, tmp_path):
    """A slope with its interval from 24 micrographs; with the CTF table that is wrong, the defocus range says so."""
    calibrate(tutorial, "theirs", CalibrateSettings(bootstrap=50))
    fit = tutorial.calibration("theirs")
    assert np.isfinite(fit["slope"].sel(score="ncc").item()) and fit.attrs["score_label"] == "RELION figure of merit"
    assert str(fit["verdict"].sel(score="power").item()).startswith("not fitted")
    wrong = project_of([data / "odd/wrong_defocus_micrographs_ctf.star"], tmp_path / "w.zarr", (3710, 3838))
    take(wrong, data / "relion_10204/AutoPick_template")
    assert wrong.micrographs()["defocus_u"].values.min() > 30000


def test_the_same_import_again_does_nothing_and_another_is_refused(tmp_path):
    project = tables(tmp_path / "p.zarr", ["a/m1.mrc", "a/m2.mrc"])
    folder = tmp_path / "picks"
    autopick(folder, "m1", [(100, 200, 0.5), (300, 400, 0.7)])
    autopick(folder, "m2", [(10, 20, 0.1)])
    first = take(project, folder)
    assert (first["imported"], first["micrographs"], first["files"]) == (3, 2, 2)
    assert take(project, folder)["imported"] == 3
    assert project.picks("theirs")["x"].values[0, :2].tolist() == [600, 200]  # best first, 2 Å a pixel
    assert project.read("picks/theirs", "source_row")[0, :2].tolist() == [1, 0]
    autopick(folder, "m2", [(10, 20, 0.2)])
    with pytest.raises(ProjectError, match="other picks than these files do now; choose another --name"):
        take(project, folder)
    with pytest.raises(ProjectError, match="diameter: stored"):
        take(project, folder, diameter=150.0)
    assert take(project, folder, overwrite=True, diameter=150.0)["diameter"] == 150


def test_a_micrograph_without_picks_and_one_that_was_not_imported(tmp_path):
    star = tmp_path / "ctf.star"
    star.write_text(
        HEAD + "m1.mrc 10000 300 2.7 0.1 2.0\nm2.mrc nan 300 2.7 0.1 2.0\nm3.mrc 12000 300 2.7 0.1 2.0\n"
        "m4.mrc 13000 300 2.7 0.1 2.0\n"
    )
    project = project_of([star], tmp_path / "p.zarr")
    autopick(tmp_path / "picks", "m1", [(100, 200, 0.5), (300, 400, 0.7)])
    autopick(tmp_path / "picks", "m2", [(111, 222, 0.5), (333, 444, 0.7)])
    autopick(tmp_path / "picks", "m4", [(123, 456, 0.9)])
    take(project, tmp_path / "picks")
    assert project.done("picks/theirs").tolist() == [Status.DONE, Status.SKIPPED, Status.DONE, Status.DONE]
    # the columns of the micrograph that was left out do not shift those of others
    assert everything_out(project, tmp_path / "out")["picks"] == 3
    assert tokens(tmp_path / "out/m4_autopick.star")[1][0][:3] == ["123", "456", "0.9"]
    assert not (tmp_path / "out/m2_autopick.star").exists()


SPOT = (37, 211)
"""Row and column of the one bright pixel of the asymmetric micrograph of 200 rows and 300 columns."""


@pytest.fixture
def asymmetric(tmp_path):
    """A project with images: one micrograph with one bright spot, far from every mirror image of itself."""
    image = noise((200, 300), 0)
    image[SPOT] += 1000.0
    star = write_set(tmp_path, [image])
    ingest([star], tmp_path / "p.zarr", ImportSettings(clip=1000.0), SerialExecutor(), Silent())
    return Project.open(tmp_path / "p.zarr", "r+")


def bright(image):
    return np.unravel_index(np.argmax(image), image.shape)


def test_a_micrograph_that_is_mended_later_gets_its_picks(tmp_path):
    """Unreadable at first, it stops nothing, also where a diameter is taken from the picks; the same command mends."""
    table = write_set(tmp_path, [noise((80, 100), seed) for seed in range(3)])
    whole = (tmp_path / "mics" / "m2.mrc").read_bytes()
    (tmp_path / "mics" / "m2.mrc").write_bytes(b"no header")

    def imported():
        ingest([table], tmp_path / "p.zarr", ImportSettings(), SerialExecutor(), Silent())
        return Project.open(tmp_path / "p.zarr", "r+")

    paths = [autopick(tmp_path / "picks", f"m{i}", [(20, 30, 0.5), (60, 30, 0.4)]) for i in (1, 2, 3)]
    assert take(imported(), *paths)["diameter"] == pytest.approx(200)
    project = imported()
    assert project.done("picks/theirs").tolist() == [Status.DONE, Status.SKIPPED, Status.DONE]

    (tmp_path / "mics" / "m2.mrc").write_bytes(whole)
    project = imported()
    take(project, *paths)
    assert project.done("picks/theirs").tolist() == [Status.DONE] * 3
    assert project.read("picks/theirs", "x")[1].tolist() == [100.0, 300.0]
    before = project.group_mark("picks/theirs")
    take(imported(), *paths)  # nothing is left to do
    assert imported().group_mark("picks/theirs") == before


def test_one_job_at_a_time_writes_picks(tmp_path):
    project = tables(tmp_path / "p.zarr", ["a.mrc"], size=(1000, 1000))
    path = autopick(tmp_path, "a", [(10, 10, 0.5)])
    said = []

    def at_once():
        with pytest.raises(ProjectError) as caught:
            take(project, path)
        said.append(str(caught.value))

    with only_job(project.path, "picks/theirs"):
        other = threading.Thread(target=at_once)
        other.start()
        other.join()
    assert "picks/theirs: another job works on it" in said[0]
    assert take(project, path)["imported"] == 1


def test_y_of_cryosparc_on_an_asymmetric_micrograph(asymmetric, tmp_path):
    """The same file: y counts from the last row. Upside-down files: it does not. Both lead to the bright spot."""
    name = str(asymmetric.read("micrographs", "name")[0])
    image = asymmetric.image(0)
    assert bright(image) == SPOT
    upward = cs_picks(tmp_path / "same.cs", [(7, name, SPOT[1] / 300, 1 - SPOT[0] / 200, 0.4, 2.0)])
    take(asymmetric, upward, name="same", diameter=100.0)
    # cryoSPARC's own micrograph is this one upside down: what it counts from its last row is our row
    downward = cs_picks(tmp_path / "other.cs", [(7, name, SPOT[1] / 300, SPOT[0] / 200, 0.4, 2.0)])
    take(asymmetric, downward, name="other", diameter=100.0, flip_y=False)
    for picks in ("same", "other"):
        found = asymmetric.picks(picks)
        place = [round(float(found[key].values[0, 0]) / 5.0) for key in ("y", "x")]
        assert bright(image) == tuple(place)
    # and out again, as if they were picks of our own
    for flip, fraction in ((True, 1 - SPOT[0] / 200), (False, SPOT[0] / 200)):
        out = tmp_path / f"{flip}.cs"
        csv = tmp_path / "picks.csv"
        csv.write_text(f"micrograph,x_px,y_px,ncc\n{name},{SPOT[1]},{SPOT[0]},0.5\n")
        take(asymmetric, csv, name="plain", diameter=100.0, overwrite=True)
        everything_out(asymmetric, out, picks="plain", format="cryosparc", flip_y=flip)
        written = Dataset.load(out)
        assert written["location/center_y_frac"][0] == pytest.approx(fraction, abs=1e-6)
        assert written["location/center_x_frac"][0] == pytest.approx(SPOT[1] / 300, abs=1e-6)


def test_cryosparc_goes_out_as_it_came(tmp_path):
    """Every field and value, in any order of rows, with ours beside; cryosparc-tools reads it."""
    project = tables(tmp_path / "p.zarr", ["J1/m1.mrc", "J1/m2.mrc"], source_pixel_size=5.0, size=(200, 300))
    rng = np.random.default_rng(0)
    rows = [(int(u), f"J1/m{1 + u % 2}.mrc", *rng.random(2), *rng.random(2)) for u in rng.permutation(60) + 1]
    source = cs_picks(tmp_path / "picks.cs", rows)
    take(project, source)
    assert project.dataset("picks/theirs").attrs["score"] == "ncc"
    everything_out(project, tmp_path / "out.cs", format="cryosparc")
    theirs, ours = Dataset.load(source), Dataset.load(tmp_path / "out.cs")
    at = {int(uid): i for i, uid in enumerate(ours["uid"])}
    order = [at[int(uid)] for uid in theirs["uid"]]
    for name in theirs.fields():
        assert np.array_equal(theirs[name], ours[name][order]), name
    assert np.isfinite(ours["pickcal/calibrated_ncc"]).all()


def test_duplicate_uids_are_refused(tmp_path):
    project = tables(tmp_path / "p.zarr", ["m1.mrc"], source_pixel_size=5.0, size=(200, 300))
    path = cs_picks(tmp_path / "p.cs", [(5, "m1.mrc", 0.5, 0.5, 0.1, 1.0), (5, "m1.mrc", 0.2, 0.2, 0.2, 1.0)])
    with pytest.raises(InputError, match=r"p\.cs.*5"):
        take(project, path)


def filled(size, count=300, seed=0):
    """Picks all over micrographs of `size` rows and columns."""
    rng = np.random.default_rng(seed)
    return [(f"{x:.2f}", f"{y:.2f}", f"{s:.3f}") for y, x, s in rng.random((count, 3)) * [*size, 1]]


@pytest.mark.parametrize(
    ("made", "settings", "message"),
    [
        ((4000, 6000), {}, r"lie outside of their micrographs.*what fits: --scale 0\.5"),
        ((1000, 1500), {}, r"first 50 % of the columns.*--scale 2 if they are binned by 2, --scale 1"),
        ((3000, 2000), {}, r"what fits: --swap-xy"),
        ((2000, 3000), {"scale": 2.0}, r"lie outside.*what fits: --scale 1"),
    ],
    ids=["unbinned", "binned", "rows first", "scaled too much"],
)
def test_coordinates_that_do_not_fit_say_what_would(tmp_path, made, settings, message):
    project = tables(tmp_path / "p.zarr", ["m1.mrc", "m2.mrc", "m3.mrc"], size=(2000, 3000))
    for i in (1, 2, 3):
        autopick(tmp_path / "picks", f"m{i}", filled(made, seed=i))
    with pytest.raises(InputError, match=message):
        take(project, tmp_path / "picks", **settings)


def test_the_remedies_fit(tmp_path):
    """What the messages propose puts the picks where they are."""
    project = tables(tmp_path / "p.zarr", ["m1.mrc", "m2.mrc", "m3.mrc"], size=(2000, 3000))
    truth = np.array([[float(v) for v in row[:2]] for row in filled((2000, 3000), seed=1)])
    for name, change, settings in (
        ("unbinned", lambda xy: 2 * xy, {"scale": 0.5}),
        ("swapped", lambda xy: xy[:, ::-1], {"swap_xy": True}),
        ("binned", lambda xy: xy / 4, {"scale": 4.0}),
    ):
        autopick(tmp_path / name, "m1", [(x, y, 0.5) for x, y in change(truth)])
        take(project, tmp_path / name, name=name, **settings)
        found = project.picks(name)
        xy = np.column_stack([found[key].values[0] for key in ("x", "y")]) / 2.0
        rows = project.read(f"picks/{name}", "source_row")[0]
        np.testing.assert_allclose(xy, truth[rows], atol=1e-3)


def test_a_few_picks_outside_can_be_left_out(tmp_path):
    project = tables(tmp_path / "p.zarr", ["m1.mrc"], size=(2000, 3000))
    file = autopick(tmp_path / "picks", "m1", [*filled((2000, 3000)), (3100, 50, 0.9)])
    with pytest.raises(InputError, match=r"1 of 301 picks lie outside.*x 3100, y 50 of m1\.mrc.*--drop-outside"):
        take(project, file)
    assert take(project, file, drop_outside=True)["dropped_outside"] == 1
    assert int(project.read("picks/theirs", "count")[0]) == 300


def test_names_that_match_nothing_or_too_much(tmp_path):
    project = tables(tmp_path / "p.zarr", ["g1/m1.mrc", "g2/m1.mrc", "g2/m2.mrc"])
    csv = tmp_path / "picks.csv"
    csv.write_text("micrograph,x_px,y_px,score\ng1/m1.mrc,1,2,3\nm9,1,2,3\n")
    with pytest.raises(InputError, match=r"1 picks are on 1 micrographs.*'m9'.*--skip-unknown leaves them out"):
        take(project, csv)
    assert take(project, csv, skip_unknown=True)["dropped_unknown"] == 1
    csv.write_text("micrograph,x_px,y_px,score\nm1,1,2,3\n")
    with pytest.raises(InputError, match=r"'m1' fits 2 micrographs by its stem \('g1/m1\.mrc', 'g2/m1\.mrc'\)"):
        take(project, csv, name="other")
    csv.write_text("micrograph,x_px,y_px,score\nelse/g2/m1.tif,1,2,3\n")
    take(project, csv, name="by_folder", diameter=100.0)
    assert project.read("picks/by_folder", "count").tolist() == [0, 1, 0]


def test_a_file_of_a_missing_micrograph_is_not_laid_on_another(tmp_path):
    """`m1_2` is not in the project, and `m1` is."""
    project = tables(tmp_path / "p.zarr", ["m1.mrc", "m2.mrc"])
    for stem in ("m1", "m2", "m1_2"):
        autopick(tmp_path / "picks", stem, [(1, 2, 0.5)])
    with pytest.raises(InputError, match=r"end in '_2_autopick'.*'_autopick'|'_autopick'.*'_2_autopick'"):
        take(project, tmp_path / "picks")


def test_two_files_of_one_micrograph_are_refused(tmp_path):
    """Two jobs' picks of the same micrograph are not mixed; a row without a name belongs to none."""
    project = tables(tmp_path / "p.zarr", ["m1.mrc", "m2.mrc"])
    autopick(tmp_path / "picks/job1", "m1", [(1, 2, 0.5)])
    autopick(tmp_path / "picks/job2", "m1", [(3, 4, 0.5)])
    with pytest.raises(InputError, match=r"job2.*its picks are of m1\.mrc, and so are those of .*job1"):
        take(project, tmp_path / "picks")
    csv = tmp_path / "picks.csv"
    csv.write_text("micrograph,x_px,y_px,score\nm1,1,2,3\n,1,2,3\n")
    with pytest.raises(InputError):
        take(project, csv)


def test_files_of_several_kinds_are_refused(tmp_path):
    """One set of picks has one program, one set of scores and one table of optics groups."""
    project = tables(tmp_path / "p.zarr", ["m1.mrc", "m2.mrc"], size=(1000, 1000))
    ours = autopick(tmp_path, "m1", [(100, 100, 1.0)])
    topaz = tmp_path / "topaz.txt"
    topaz.write_text("image_name\tx_coord\ty_coord\tscore\nm2\t10\t20\t1.5\n")
    with pytest.raises(InputError, match=r"topaz\.txt: expected picks of relion as in the files before, found topaz"):
        take(project, ours, topaz)
    bare = tmp_path / "m2_autopick.star"
    bare.write_text("data_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n10 20\n")
    with pytest.raises(InputError, match=r"expected the scores figure_of_merit as in the files before, found none"):
        take(project, ours, bare)
    bare.write_text(PICKS)
    with pytest.raises(InputError, match=r"m2_autopick\.star: expected picks, found none in 1 files"):
        take(project, bare)
    parts = []
    for name, pixel in (("m1.mrc", 2.0), ("m2.mrc", 2.2)):
        parts.append(tmp_path / f"{name}.star")
        parts[-1].write_text(
            "data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnOpticsGroupName #2\n_rlnMicrographPixelSize #3\n"
            f"1 og1 {pixel}\n\ndata_particles\n\nloop_\n_rlnMicrographName #1\n_rlnCoordinateX #2\n_rlnCoordinateY #3\n"
            f"_rlnOpticsGroup #4\n{name} 10 20 1\n"
        )
    with pytest.raises(InputError, match=r"m2\.mrc\.star: its optics groups differ.*relion_star_handler --combine"):
        take(project, *parts)


def test_what_is_missing_is_said_and_estimated(tmp_path, in_process):
    """Without a diameter it is the distance that neighbours keep; where no scores are, what gives some is named."""
    project = tables(tmp_path / "p.zarr", ["m1.mrc", "m2.mrc"], size=(1000, 1000))
    rows = [(100 + 60 * i, 100 + 60 * j, 1.0) for i in range(10) for j in range(10)]  # 60 pixels of 2 Å apart
    files = [autopick(tmp_path, "m1", rows)]
    code, out, err = in_process("import-picks", project.path, *files, "--name", "scored", "--json")
    assert code == 0 and json.loads(out)["imported"] == 100
    assert "no diameter given: took 120 Å" in err
    assert "1 of 2 micrographs have no picks in the files, the first being m2.mrc" in err
    bare = tmp_path / "m2_autopick.star"
    bare.write_text("data_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n10 20\n")
    code, _, err = in_process("import-picks", project.path, bare, "--name", "bare", "--diameter", "150")
    assert code == 0 and "these picks have no score, and nothing can be calibrated; 'pickcal score'" in err


def test_pixel_sizes_at_odds(tmp_path):
    """The file counts pixels of 4 Å and the micrographs have 2: told, and either reading can be asked for."""
    project = tables(tmp_path / "p.zarr", ["m1.mrc"], size=(2000, 3000))
    star = tmp_path / "particles.star"
    star.write_text(
        "data_optics\nloop_\n_rlnOpticsGroup #1\n_rlnMicrographPixelSize #2\n1 4.0\n\ndata_particles\nloop_\n"
        "_rlnMicrographName #1\n_rlnCoordinateX #2\n_rlnCoordinateY #3\n_rlnOpticsGroup #4\nm1.mrc 100 50 1\n"
    )
    with pytest.raises(
        InputError, match=r"pixel size 4 Å in the file, 2 Å in the project for micrograph m1\.mrc.*--scale 2"
    ):
        take(project, star)
    take(project, star, scale=2.0, diameter=100.0)
    assert project.picks("theirs")["x"].values[0, 0] == 400
    assert take(project, star, name="one", scale=1.0, diameter=100.0)["score"] == "none"
    with pytest.raises(InputError, match=r"given twice"):
        take(project, star, star, name="two")


def test_what_needs_images_or_our_own_search_is_refused(tmp_path):
    project = tables(tmp_path / "p.zarr", ["m1.mrc"])
    with pytest.raises(ProjectError, match=r"picking needs the images.*holds tables only"):
        pick(project, "blob", BlobSettings(diameter_min=100, diameter_max=100), SerialExecutor(), Silent())
    take(project, autopick(tmp_path, "m1", [(1, 2, 0.5), (300, 40, 0.6)]))
    with pytest.raises(ProjectError, match="not found by a search of pickcal"):
        control(project, "theirs", None, SerialExecutor(), Silent())


def test_another_column_as_the_main_score(tmp_path):
    project = tables(tmp_path / "p.zarr", ["m1.mrc"])
    csv = tmp_path / "picks.csv"
    csv.write_text("micrograph,x_px,y_px,score,Mine (new)\nm1,1,2,3,10\nm1,100,200,4,-5\n")
    take(project, csv, score="Mine (new)")
    found = project.picks("theirs")
    assert found["ncc"].values[0].tolist() == [10, -5] and found.attrs["score"] == "mine__new"
    assert found["score"].values[0].tolist() == [3, 4]
    with pytest.raises(InputError, match=r"--score: expected a column of numbers, found no 'micrograph'; there are"):
        take(project, csv, name="other", score="micrograph")


def test_sizes_that_only_the_file_knows(tmp_path):
    """Fractions need the micrographs' size: the project's, else that of the file, else the user is asked."""
    project = tables(tmp_path / "p.zarr", ["m1.mrc"], source_pixel_size=5.0)
    path = cs_picks(tmp_path / "p.cs", [(5, "m1.mrc", 0.5, 0.25, 0.1, 1.0)])
    take(project, path, diameter=100.0)
    found = project.picks("theirs")
    assert [float(found[key].values[0, 0]) for key in ("x", "y")] == [150 * 5, 150 * 5]
    bare = cs_picks(
        tmp_path / "q.cs",
        [(5, "m1.mrc", 0.5, 0.25, 0.1, 1.0)],
        **{"location/micrograph_shape": np.zeros((1, 2), np.uint32)},
    )
    with pytest.raises(InputError, match=r"need the size of micrograph m1\.mrc.*--size ROWS COLUMNS"):
        take(project, bare, name="bare")


@pytest.mark.parametrize("form", ["relion", "cryosparc", "topaz", "cryolo", "eman", "csv", "parquet"])
def test_picks_without_a_score_go_out_in_every_form(tmp_path, form):
    """Hand picks have none: both picks are written, and where a form must hold a score it is 0."""
    project = tables(tmp_path / "p.zarr", ["m1.mrc"], size=(2000, 3000))
    csv = tmp_path / "picks.csv"
    csv.write_text("micrograph,x_px,y_px\nm1,1,2\nm1,100,200\n")
    assert take(project, csv)["score"] == "none"
    assert everything_out(project, tmp_path / "out", format=form)["picks"] == 2
    if form == "topaz":
        assert [row.split("\t")[1:4] for row in (tmp_path / "out").read_text().splitlines()[1:]] == [
            ["1", "2", "0"],
            ["100", "200", "0"],
        ]
    if form == "relion":
        labels, rows = tokens(tmp_path / "out/m1_autopick.star")
        assert [float(row[labels.index("rlnAutopickFigureOfMerit")]) for row in rows] == [0, 0]
