import hashlib
import pickle

import mrcfile
import numpy as np
import pytest
import starfile

from pickcal.engine.executors import Outcome, SerialExecutor
from pickcal.errors import InputError, MissingFileError, PickcalError
from pickcal.settings import SimulateSettings
from pickcal.simulation import make_scene, plan, simulate, simulate_micrograph

SETTINGS = SimulateSettings(
    micrographs=6,
    height=320,
    width=384,
    pixel_size=4.0,
    particles_min=5,
    particles_max=12,
    templates=7,
    carbon=1,
    template_pixel_size=5.0,
    seed=11,
)


class BackwardsExecutor:
    """Runs tasks from last to first, each through a pickle as workers get them."""

    workers = 2

    def run(self, function, tasks):
        function = pickle.loads(pickle.dumps(function))
        return SerialExecutor().run(function, list(tasks)[::-1])


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return simulate(tmp_path_factory.mktemp("set") / "out", SETTINGS)


def digests(folder):
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_the_folder_holds_what_was_promised(made):
    expected = [f"micrographs/mic_{i:04d}.mrc" for i in range(1, 7)]
    tables = ["contaminants.star", "micrographs_ctf.star", "settings.json", "templates.mrcs", "truth_particles.star"]
    assert sorted(digests(made.folder)) == sorted(expected + tables)
    assert list(made.names) == expected


def test_same_settings_give_the_same_bytes_on_another_executor(made, tmp_path):
    names = []
    again = simulate(tmp_path / "again", SETTINGS, BackwardsExecutor(), names.append)
    assert digests(again.folder) == digests(made.folder)
    assert names == list(made.names)[::-1]


def test_micrographs_read_back(made):
    with mrcfile.open(made.folder / made.names[2]) as file:
        assert file.data.dtype == np.float32 and file.data.shape == (320, 384)
        assert float(file.voxel_size.x) == pytest.approx(4.0)
        assert np.array_equal(file.data, simulate_micrograph(SETTINGS, 2).image)
    assert mrcfile.validate(made.folder / made.names[2])


def test_ctf_table_is_relions(made):
    tables = starfile.read(made.micrographs, always_dict=True)
    optics, rows = tables["optics"], tables["micrographs"]
    assert optics.loc[0, "rlnMicrographPixelSize"] == optics.loc[0, "rlnMicrographOriginalPixelSize"] == 4.0
    assert tuple(optics.loc[0, ["rlnVoltage", "rlnSphericalAberration", "rlnAmplitudeContrast"]]) == (300, 2.7, 0.1)
    assert list(rows["rlnMicrographName"]) == list(made.names)
    assert list(0.5 * (rows["rlnDefocusU"] + rows["rlnDefocusV"])) == pytest.approx([d for _, d in plan(SETTINGS)])
    assert list(rows["rlnCtfAstigmatism"]) == pytest.approx(list(rows["rlnDefocusU"] - rows["rlnDefocusV"]), abs=1e-4)
    assert {"rlnOpticsGroup", "rlnDefocusAngle", "rlnCtfFigureOfMerit", "rlnCtfMaxResolution"} <= set(rows)


def test_truth_lists_every_particle_and_every_micrograph(made):
    tables = starfile.read(made.truth, always_dict=True)
    assert list(tables["micrographs"]["rlnMicrographName"]) == list(made.names)
    particles = tables["particles"]
    counts = particles.groupby("rlnMicrographName").size()
    assert [counts.get(n, 0) for n in made.names] == list(made.particles)
    assert made.particles[made.kinds.index("empty")] == 0 < made.particles[made.kinds.index("ordinary")]
    index = made.kinds.index("crowded")
    scene = make_scene(SETTINGS, index)
    rows = particles[particles["rlnMicrographName"] == made.names[index]]
    assert rows[["rlnCoordinateX", "rlnCoordinateY"]].to_numpy() == pytest.approx(scene.positions, abs=1e-5)
    assert rows[["rlnAngleRot", "rlnAngleTilt", "rlnAnglePsi"]].to_numpy() == pytest.approx(scene.angles, abs=1e-5)


def test_contaminants_are_listed(made):
    rows = starfile.read(made.contaminants, always_dict=True)["contaminants"]
    assert (rows["pickcalKind"] == "carbon").sum() == 1
    assert (
        rows.loc[rows["pickcalKind"] == "carbon", "rlnMicrographName"].item() == made.names[made.kinds.index("carbon")]
    )
    wanted = sum(len(make_scene(SETTINGS, i).contaminants) for i in range(6))
    assert len(rows) == wanted > 1


def test_no_contaminants_leave_an_empty_readable_table(tmp_path):
    settings = SETTINGS.model_copy(
        update={"micrographs": 1, "ice_crystals": 0.0, "aggregates": 0.0, "particles_min": 0, "particles_max": 0}
    )
    made = simulate(tmp_path / "out", settings)
    assert len(starfile.read(made.contaminants, always_dict=True)["contaminants"]) == 0
    assert len(starfile.read(made.truth, always_dict=True)["particles"]) == 0


def test_templates_are_a_stack_of_white_particles(made):
    with mrcfile.open(made.templates) as file:
        assert file.is_image_stack() and file.data.shape == (7, 46, 46)
        assert float(file.voxel_size.x) == pytest.approx(5.0)
        stack = file.data.copy()
    edge = np.concatenate([stack[:, 0].ravel(), stack[:, :, 0].ravel()])
    assert np.abs(edge).max() < 0.03 * stack.max()
    assert (stack[:, 15:31, 15:31].mean(axis=(1, 2)) > 0.2 * stack.max()).all()
    sums = stack.sum(axis=(1, 2))
    assert np.ptp(sums) < 1e-3 * sums.mean()
    likeness = np.corrcoef(stack.reshape(7, -1)) - np.eye(7)
    assert likeness.max() < 0.97


def test_a_folder_with_files_is_refused(made, tmp_path):
    before = digests(made.folder)
    with pytest.raises(InputError, match=str(made.folder)):
        simulate(made.folder, SETTINGS)
    assert digests(made.folder) == before
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="expected a folder to write, found a file"):
        simulate(tmp_path / "file", SETTINGS)


def test_settings_are_refused_before_anything_is_written(tmp_path):
    with pytest.raises(MissingFileError, match="no such map"):
        simulate(tmp_path / "out", SETTINGS.model_copy(update={"map": tmp_path / "absent.mrc"}))
    with pytest.raises(InputError, match="empty, crowded, carbon"):
        simulate(tmp_path / "out", SETTINGS.model_copy(update={"empty": 5}))
    assert not (tmp_path / "out").exists()


def test_failed_micrographs_are_named(tmp_path):
    class Failing:
        workers = 1

        def run(self, function, tasks):
            yield Outcome(0, 3)
            yield Outcome(1, error="no space left")

    with pytest.raises(PickcalError, match=r"mic_0002.mrc: no space left"):
        simulate(tmp_path / "out", SETTINGS.model_copy(update={"micrographs": 2}), Failing())
    assert not (tmp_path / "out" / "truth_particles.star").exists()
