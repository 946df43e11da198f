import os
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist
from scipy.spatial.transform import Rotation

from pickcal.errors import InputError, MissingFileError
from pickcal.settings import SimulateSettings
from pickcal.simulation import project, simulate_particle

DATA = Path(os.environ.get("PICKCAL_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


def centre_of_mass(volume):
    places = np.indices(volume.density.shape) - volume.density.shape[0] // 2
    return [(volume.density * p).sum() / volume.density.sum() * volume.pixel_size for p in places]


def largest_dimension(volume):
    points = np.argwhere(volume.density > 0.3) * volume.pixel_size
    return pdist(points[ConvexHull(points).vertices]).max()


@pytest.mark.parametrize("kind", ["asymmetric", "barrel", "shell"])
@pytest.mark.parametrize("diameter", [90.0, 150.0])
def test_models_are_positive_centred_and_of_the_asked_size(kind, diameter):
    volume = simulate_particle(SimulateSettings(particle=kind, diameter=diameter))
    assert volume.density.min() >= 0
    assert np.abs(centre_of_mass(volume)).max() < 0.01 * diameter
    edge = np.concatenate([volume.density[i].ravel() for i in (0, -1)])
    assert edge.max() < 0.01
    if kind == "barrel":
        extent = np.ptp(np.argwhere(volume.density > 0.3), axis=0) * volume.pixel_size
        assert extent / diameter == pytest.approx([1.0, 110 / 150, 110 / 150], abs=0.07)
    else:
        assert largest_dimension(volume) == pytest.approx(diameter, rel=0.06)


def test_the_shell_is_hollow():
    density = simulate_particle(SimulateSettings(particle="shell")).density
    n = density.shape[0] // 2
    radius = np.sqrt(((np.indices(density.shape) - n) ** 2).sum(axis=0))
    inside = density[radius < 15].mean()
    assert inside < 0.02 * density[(radius > 27) & (radius < 34)].mean()


@pytest.mark.parametrize(("kind", "group"), [("barrel", "D7"), ("shell", "O")])
def test_models_have_the_symmetry_of_the_real_thing(kind, group):
    volume = simulate_particle(SimulateSettings(particle=kind))
    view = Rotation.from_euler("ZYZ", (25, 60, 10), degrees=True)
    image = project(volume, (25, 60, 10), 96, volume.pixel_size)
    for operation in Rotation.create_group(group)[:8]:
        same = project(volume, (operation * view).as_euler("ZYZ", degrees=True), 96, volume.pixel_size)
        assert np.corrcoef(image.ravel(), same.ravel())[0, 1] > 0.995
    turned = Rotation.from_euler("ZYZ", (20, 35, 0), degrees=True) * view
    other = project(volume, turned.as_euler("ZYZ", degrees=True), 96, volume.pixel_size)
    assert np.corrcoef(image.ravel(), other.ravel())[0, 1] < 0.95


def test_the_asymmetric_model_has_no_symmetry():
    volume = simulate_particle(SimulateSettings())
    centre = volume.density[1:, 1:, 1:]
    for flipped in (centre[::-1, ::-1], centre[::-1, :, ::-1], centre[:, ::-1, ::-1]):
        assert np.corrcoef(centre.ravel(), flipped.ravel())[0, 1] < 0.8


def write_map(path, data, voxel):
    with mrcfile.new(path) as file:
        file.set_data(data.astype(np.float32))
        file.voxel_size = voxel


def ball(shape, centre, radius):
    distance = np.sqrt(sum((i - c) ** 2 for i, c in zip(np.indices(shape), centre, strict=True)))
    return np.clip(radius - distance + 0.5, 0, 1)


def test_a_map_is_centred_and_keeps_its_size(tmp_path):
    write_map(tmp_path / "map.mrc", 7.0 * ball((50, 44, 40), (20, 25, 16), 11), 3.0)
    volume = simulate_particle(SimulateSettings(map=tmp_path / "map.mrc"))
    assert volume.pixel_size == pytest.approx(3.0)
    assert np.abs(centre_of_mass(volume)).max() < 0.3
    assert largest_dimension(volume) == pytest.approx(66, abs=7)
    assert volume.density[tuple(n // 2 for n in volume.density.shape)] == pytest.approx(1.0, abs=0.15)


def test_a_fine_map_is_binned_to_the_pixel_size(tmp_path):
    write_map(tmp_path / "map.mrc", ball((80, 80, 80), (40, 40, 40), 25), 1.0)
    volume = simulate_particle(SimulateSettings(map=tmp_path / "map.mrc", pixel_size=2.5))
    assert volume.pixel_size == pytest.approx(2.5)
    assert largest_dimension(volume) == pytest.approx(50, abs=5)


@pytest.mark.skipif(not (DATA / "maps").is_dir(), reason="real maps are absent (PICKCAL_TEST_DATA)")
@pytest.mark.parametrize(
    ("name", "voxel", "mass"),
    [("ribosome_70s_65px_3.0A.mrc", 3.0, (250, 700)), ("betagal_100px_3.54A.mrc", None, (300, 900))],
)
def test_real_maps_come_out_solid(name, voxel, mass):
    volume = simulate_particle(SimulateSettings(map=DATA / "maps" / name, map_pixel_size=voxel))
    assert volume.density.min() >= 0
    kilodaltons = (volume.density > 0.3).sum() * volume.pixel_size**3 * 0.81 / 1e3
    assert mass[0] < kilodaltons < mass[1]
    centre = project(volume, (0, 0, 0), volume.density.shape[0], volume.pixel_size)
    assert centre.min() > -0.03 * centre.max()


def test_wrong_maps_are_refused(tmp_path):
    with pytest.raises(MissingFileError, match=r"absent.mrc"):
        simulate_particle(SimulateSettings(map=tmp_path / "absent.mrc"))
    (tmp_path / "text.mrc").write_text("this is no map " * 200)
    with pytest.raises(InputError, match=r"text.mrc: expected an MRC file"):
        simulate_particle(SimulateSettings(map=tmp_path / "text.mrc"))
    (tmp_path / "short.mrc").write_bytes(b"short")
    with pytest.raises(InputError, match=r"short.mrc: expected an MRC file"):
        simulate_particle(SimulateSettings(map=tmp_path / "short.mrc"))
    write_map(tmp_path / "flat.mrc", np.ones((20, 20)), 2.0)
    with pytest.raises(InputError, match=r"flat.mrc: expected a 3D map.*\(20, 20\)"):
        simulate_particle(SimulateSettings(map=tmp_path / "flat.mrc"))
    write_map(tmp_path / "sizeless.mrc", ball((20,) * 3, (10,) * 3, 5), 0.0)
    with pytest.raises(InputError, match=r"sizeless.mrc: expected a voxel size.*map_pixel_size"):
        simulate_particle(SimulateSettings(map=tmp_path / "sizeless.mrc"))
    write_map(tmp_path / "negative.mrc", -ball((20,) * 3, (10,) * 3, 5), 2.0)
    with pytest.raises(InputError, match=r"negative.mrc: expected a map of positive density"):
        simulate_particle(SimulateSettings(map=tmp_path / "negative.mrc"))
