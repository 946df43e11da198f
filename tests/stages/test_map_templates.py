"""Templates from a 3D map: its projections from all sides find the particles that it is of."""

import mrcfile
import numpy as np
import pytest

from pickcal.engine.executors import SerialExecutor
from pickcal.engine.progress import Silent
from pickcal.errors import InputError
from pickcal.project import Project
from pickcal.settings import EvaluateSettings, SimulateSettings, TemplateSettings
from pickcal.simulation import simulate_particle
from pickcal.stages.evaluate import evaluate_picks
from pickcal.stages.pick import load_templates, pick

PIXEL, SIDE = 2.0, 47


def write_map(path, density, pixel_size):
    with mrcfile.new(path) as file:
        file.set_data(density.astype(np.float32))
        file.set_volume()
        file.voxel_size = pixel_size
    return path


@pytest.fixture(scope="module")
def off_centre(tmp_path_factory):
    """Map, with an odd side, of one Gaussian at (16, -20, 12) Å from the centre."""
    place = np.array([16.0, -20.0, 12.0])
    axis = (np.arange(SIDE) - SIDE // 2) * PIXEL
    x, y, z = (np.exp(-((axis - at) ** 2) / (2 * 5.0**2)) for at in place)
    density = np.einsum("i,j,k->ijk", z, y, x)
    return write_map(tmp_path_factory.mktemp("map") / "gaussian.mrc", density, PIXEL), place, density


@pytest.mark.parametrize("step", [20.0, 40.0])
def test_it_is_seen_from_all_sides(off_centre, step):
    """Every projection holds all of the density, and the Gaussian is where evenly spread directions put it."""
    path, place, density = off_centre
    images, pixel_size = load_templates(TemplateSettings(templates=path, diameter=150.0, projection_step=step))
    assert pixel_size == PIXEL and images.dtype == np.float32 and images.shape[1:] == (SIDE + 1, SIDE + 1)
    # as many directions as caps of half a step cover the sphere
    assert len(images) == pytest.approx(4 / np.deg2rad(step / 2) ** 2, abs=1)
    np.testing.assert_allclose(images.sum(axis=(1, 2)), density.sum() * PIXEL, rtol=1e-3)
    y, x = (np.indices(images.shape[1:]) - (SIDE + 1) // 2) * PIXEL
    seen = np.stack([(images * x).sum(axis=(1, 2)), (images * y).sum(axis=(1, 2))]) / images.sum(axis=(1, 2))
    squares = (seen**2).sum(axis=0)
    # of a place at random on a sphere, two of three coordinates are seen
    assert squares.max() < (place**2).sum() * 1.01
    assert squares.mean() == pytest.approx(2 / 3 * (place**2).sum(), rel=0.03)


def test_particles_are_found_with_the_map_that_they_are_of(small_set, imported, own, tmp_path):
    """As well as with projections that a stack holds."""
    volume = simulate_particle(SimulateSettings())
    path = write_map(tmp_path / "map.mrc", volume.density, volume.pixel_size)
    project = Project.open(own(imported), "r+")
    settings = TemplateSettings(templates=path, diameter=150.0, rotation_step=30.0, projection_step=40.0)
    assert pick(project, "map", settings, SerialExecutor(), Silent()).done == 6
    assert evaluate_picks(project, "map", small_set.truth, EvaluateSettings())["average_precision"] > 0.95


def test_a_map_that_is_no_cube_is_refused(tmp_path):
    """Its sections are no templates; the same file named as a stack is one."""
    path = write_map(tmp_path / "slab.mrc", np.random.default_rng(0).random((20, 30, 30)), PIXEL)
    with pytest.raises(
        InputError, match=r"slab\.mrc: expected a cubic map .* found a map \(space group 1\) of 20 x 30 x 30; .*\.mrcs"
    ):
        load_templates(TemplateSettings(templates=path, diameter=40.0))
    images, _ = load_templates(TemplateSettings(templates=path.rename(tmp_path / "slab.mrcs"), diameter=40.0))
    assert images.shape == (20, 30, 30)
