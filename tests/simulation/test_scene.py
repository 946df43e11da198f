import numpy as np
import pytest
from scipy.spatial.distance import pdist

from pickcal.errors import InputError
from pickcal.settings import SimulateSettings
from pickcal.simulation import make_scene, plan


def test_defocus_covers_the_range_in_shuffled_order():
    defocus = [d for _, d in plan(SimulateSettings(micrographs=12, defocus_min=5000, defocus_max=27000))]
    assert sorted(defocus) == pytest.approx(np.arange(5000, 27001, 2000))
    assert defocus != sorted(defocus)
    assert defocus != [d for _, d in plan(SimulateSettings(seed=1, defocus_min=5000, defocus_max=27000))]


def test_a_given_defocus_list_is_taken_in_turn():
    planned = plan(SimulateSettings(micrographs=5, defocus=(8000, 20000), carbon=0))
    assert planned == [("ordinary", d) for d in (8000.0, 20000.0, 8000.0, 20000.0, 8000.0)]


@pytest.mark.parametrize("count", [6, 12, 40])
def test_special_micrographs_lie_within_the_range(count):
    planned = sorted(plan(SimulateSettings(micrographs=count, carbon=1)), key=lambda p: p[1])
    kinds = [k for k, _ in planned]
    assert kinds[0] == kinds[-1] == "ordinary"
    assert sorted(k for k in kinds if k != "ordinary") == ["carbon", "crowded", "empty"]
    places = [i / (count - 1) for i, k in enumerate(kinds) if k != "ordinary"]
    assert min(places) < 0.45 and max(places) > 0.55


def test_small_sets_have_few_special_micrographs():
    assert [k for k, _ in plan(SimulateSettings(micrographs=2, carbon=1))] == ["ordinary"] * 2
    assert sorted(k for k, _ in plan(SimulateSettings(micrographs=5, carbon=1))) == ["carbon"] + ["ordinary"] * 4
    with pytest.raises(InputError, match=r"expected at most 4 together for 6 micrographs.*got 5"):
        plan(SimulateSettings(micrographs=6, empty=3, carbon=1))


def test_particles_keep_apart_and_off_contaminants():
    settings = SimulateSettings(micrographs=8, ice_crystals=4, aggregates=2, height=1200, width=1000)
    settings = settings.model_copy(update={"particles_min": 30, "particles_max": 60})
    for index, (kind, _) in enumerate(plan(settings)):
        scene = make_scene(settings, index)
        assert scene.kind == kind and scene.angles.shape == (len(scene.positions), 3)
        if kind == "empty":
            assert len(scene.positions) == len(scene.other_positions) == 0
            continue
        assert pdist(scene.positions).min() * 2.0 >= 1.05 * 150
        low, high = scene.positions.min(axis=0), scene.positions.max(axis=0)
        assert low.min() >= 0.5 * 75 and high[0] <= 999 - 0.5 * 75 and high[1] <= 1199 - 0.5 * 75
        for thing in scene.contaminants:
            distance = np.hypot(*(scene.positions - [thing.x, thing.y]).T) * 2.0
            if thing.kind == "carbon":
                assert distance.max() < thing.radius - 75
            else:
                assert distance.min() > thing.radius + 75
        if kind == "ordinary":
            assert 30 <= len(scene.positions) <= 60
    assert high[1] > 1000


def test_as_many_as_fit_is_more_than_ordinary():
    settings = SimulateSettings(micrographs=6, empty=0, carbon=0, ice_crystals=0, aggregates=0)
    index = [k for k, _ in plan(settings)].index("crowded")
    scene = make_scene(settings, index)
    covered = len(scene.positions) * np.pi / 4 * (1.05 * 150) ** 2 / (4096 - 165) ** 2
    assert 0.45 < covered < 0.56  # random sequential packing of discs jams at 0.547


def test_carbon_covers_a_part_of_the_image():
    for seed in range(10):
        settings = SimulateSettings(micrographs=3, seed=seed, carbon=1)
        index = [k for k, _ in plan(settings)].index("carbon")
        hole = next(c for c in make_scene(settings, index).contaminants if c.kind == "carbon")
        y, x = np.mgrid[0:2048:16, 0:2048:16]
        share = (np.hypot(x - hole.x, y - hole.y) * 2.0 > hole.radius).mean()
        assert 0.1 < share < 0.6


def test_astigmatism_and_ice_vary_within_what_was_asked():
    settings = SimulateSettings(micrographs=30, astigmatism=400, ice_variation=0.2)
    scenes = [make_scene(settings, i) for i in range(30)]
    astigmatism = [s.ctf.defocus_u - s.ctf.defocus_v for s in scenes]
    assert min(astigmatism) >= 0 and max(astigmatism) <= 400 and np.std(astigmatism) > 40
    assert [s.ctf.defocus for s in scenes] == pytest.approx([d for _, d in plan(settings)])
    assert np.std([s.ctf.defocus_angle for s in scenes]) > 30
    assert 0.1 < np.std([s.ice for s in scenes]) < 0.3


def test_an_index_outside_the_set_is_refused():
    with pytest.raises(InputError, match="expected 0 to 11, got 12"):
        make_scene(SimulateSettings(), 12)


def test_crowding_in_step_with_defocus():
    settings = SimulateSettings(
        micrographs=6, empty=0, crowded=0, particles_min=5, particles_max=60, crowding="defocus", aggregates=0
    )
    scenes = sorted((make_scene(settings, i) for i in range(6)), key=lambda scene: scene.ctf.defocus)
    counts = np.array([len(scene.positions) for scene in scenes])
    assert np.abs(counts - [5, 16, 27, 38, 49, 60]).max() <= 1  # the last place may be taken by a particle cut off


def test_blobs_of_ice_leave_older_scenes_as_they_were():
    plain = SimulateSettings(micrographs=8, height=1200, width=1000)
    with_blobs = plain.model_copy(update={"ice_blobs": 3.0})
    found = 0
    for index in range(8):
        before, after = make_scene(plain, index), make_scene(with_blobs, index)
        count = len(before.contaminants)
        assert after.contaminants[:count] == before.contaminants
        assert {thing.kind for thing in after.contaminants[count:]} <= {"ice_blob"}
        found += len(after.contaminants) - count
        for thing in after.contaminants[count:]:
            distance = np.hypot(after.positions[:, 0] - thing.x, after.positions[:, 1] - thing.y)
            assert (distance * plain.pixel_size > thing.radius + 0.5 * plain.diameter).all()
    assert 12 <= found <= 40
