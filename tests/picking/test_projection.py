import shutil
import subprocess

import mrcfile
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pickcal.errors import InputError
from pickcal.picking.projection import random_angles
from pickcal.settings import SimulateSettings
from pickcal.simulation import Volume, even_angles, project, simulate_particle


def gaussian_volume(centre_xyz, n=48, sigma=2.5, pixel_size=2.0):
    """One Gaussian at a known place, in Å from the centre."""
    axis = (np.arange(n) - n // 2) * pixel_size
    x, y, z = centre_xyz
    parts = [np.exp(-((axis - c) ** 2) / (2 * (sigma * pixel_size) ** 2)) for c in (z, y, x)]
    return Volume(np.einsum("i,j,k->ijk", *parts).astype(np.float32), pixel_size)


def centroid(image):
    y, x = np.indices(image.shape) - image.shape[0] // 2
    return (image * x).sum() / image.sum(), (image * y).sum() / image.sum()


def test_projection_along_z_is_the_sum_over_z():
    volume = simulate_particle(SimulateSettings(particle="asymmetric"))
    n = volume.density.shape[0]
    expected = volume.density.sum(axis=0) * volume.pixel_size
    image = project(volume, (0, 0, 0), n, volume.pixel_size)
    assert np.abs(image - expected).max() < 0.003 * expected.max()
    assert np.abs(image.T - expected).max() > 0.2 * expected.max()


def test_tilted_projection_is_a_sum_along_the_other_axis():
    """rot 0, tilt 90 looks along x: image x is -z and image y is y (RELION's matrix written out)."""
    volume = simulate_particle(SimulateSettings(particle="asymmetric"))
    n = volume.density.shape[0]
    along_x = volume.density.sum(axis=2).T * volume.pixel_size
    image = project(volume, (0, 90, 0), n, volume.pixel_size)
    assert np.abs(image[1:, 1:] - along_x[1:, :0:-1]).max() < 0.003 * along_x.max()


@pytest.mark.parametrize("angles", [(0, 0, 0), (30, 0, 0), (0, 0, 30), (50, 70, -20), (-120, 150, 80)])
def test_a_point_goes_where_relions_matrix_sends_it(angles):
    point = np.array([14.0, -20.0, 9.0])
    a, b, g = np.deg2rad(angles)
    ca, sa, cb, sb, cg, sg = np.cos(a), np.sin(a), np.cos(b), np.sin(b), np.cos(g), np.sin(g)
    matrix = np.array(
        [
            [cg * cb * ca - sg * sa, cg * cb * sa + sg * ca, -cg * sb],
            [-sg * cb * ca - cg * sa, -sg * cb * sa + cg * ca, sg * sb],
        ]
    )
    image = project(gaussian_volume(point), angles, 64, 1.5, shift=(0.3, -0.6))
    expected = matrix @ point / 1.5 + [0.3, -0.6]
    assert centroid(image) == pytest.approx(expected, abs=0.05)


def test_total_density_is_kept_at_any_pixel_size():
    volume = gaussian_volume((5.0, 0.0, 0.0))
    total = volume.density.sum(dtype=np.float64) * volume.pixel_size**3
    for pixel_size, box in ((1.0, 96), (2.0, 48), (3.7, 30)):
        image = project(volume, (20, 40, 60), box, pixel_size)
        assert image.sum() * pixel_size**2 == pytest.approx(total, rel=2e-3)


@pytest.mark.relion
@pytest.mark.skipif(shutil.which("relion_project") is None, reason="relion_project is not installed")
def test_projection_agrees_with_relion(tmp_path):
    volume = simulate_particle(SimulateSettings(particle="asymmetric"))
    with mrcfile.new(tmp_path / "map.mrc") as file:
        file.set_data(volume.density)
        file.voxel_size = volume.pixel_size
    for rot, tilt, psi in ((40, 70, 115), (-100, 30, -50)):
        command = f"relion_project --i map.mrc --o out.mrc --rot {rot} --tilt {tilt} --psi {psi} --angpix 2".split()
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
        with mrcfile.open(tmp_path / "out.mrc", permissive=True) as file:
            theirs = file.data.squeeze() * volume.pixel_size
        ours = project(volume, (rot, tilt, psi), theirs.shape[-1], volume.pixel_size)
        assert np.corrcoef(ours.ravel(), theirs.ravel())[0, 1] > 0.999
        assert np.abs(ours - theirs).max() < 0.06 * ours.max()


def test_even_angles_leave_no_hole_and_no_crowd():
    directions = Rotation.from_euler("ZYZ", even_angles(100), degrees=True).apply([0, 0, 1])
    cosines = directions @ directions.T - 2 * np.eye(100)
    nearest = np.rad2deg(np.arccos(cosines.max(axis=1)))
    ideal = np.rad2deg(np.sqrt(4 * np.pi / 100))
    assert nearest.min() > 0.7 * ideal and nearest.max() < 1.1 * ideal
    assert np.abs(directions.mean(axis=0)).max() < 0.02


def test_random_angles_are_uniform():
    angles = random_angles(20000, np.random.default_rng(3))
    matrices = Rotation.from_euler("ZYZ", angles, degrees=True).as_matrix()
    assert np.abs(matrices.mean(axis=0)).max() < 0.02
    assert np.abs((matrices**2).mean(axis=0) - 1 / 3).max() < 0.01


def test_a_volume_must_be_a_cube():
    with pytest.raises(InputError, match=r"expected a cube.*\(3, 4, 4\)"):
        Volume(np.zeros((3, 4, 4), np.float32), 1.0)
