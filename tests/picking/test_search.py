import dataclasses

import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial import cKDTree

from pickcal.picking.bank import bank_from_templates
from pickcal.picking.blobs import blob_bank
from pickcal.picking.ctf import Ctf
from pickcal.picking.filters import RadialFilter
from pickcal.picking.fourier import Workspace
from pickcal.picking.projection import even_angles, project
from pickcal.picking.search import SearchParameters, search
from pickcal.settings import SimulateSettings
from pickcal.simulation import simulate_micrograph, simulate_particle
from tests.exhaustive import accuracy, exhaustive_scores, judged, naive_picks

PIXEL, DIAMETER, LOW_PASS, STEP = 4.0, 150.0, 20.0, 15.0
PARAMETERS = SearchParameters(
    diameter=DIAMETER,
    diameter_min=DIAMETER,
    diameter_max=DIAMETER,
    low_pass=LOW_PASS,
    high_pass=450.0,
    sign=-1.0,
    min_distance=75.0,
    max_picks=4000,
)
WHITENING = RadialFilter(0.006, np.array([0.5, 0.6, 0.8, 1.0, 1.2, 1.3, 1.4, 1.5, 1.5, 1.5], np.float32))


@pytest.fixture(scope="module")
def micrograph():
    settings = SimulateSettings(
        micrographs=1,
        pixel_size=PIXEL,
        height=512,
        width=512,
        defocus=(16000,),
        particle="barrel",
        particles_min=70,
        particles_max=70,
        ice_crystals=0,
        aggregates=0,
        carbon=0,
        signal=0.8,
        seed=5,
    )
    return simulate_micrograph(settings, 0), settings


@pytest.fixture(scope="module")
def templates(micrograph):
    volume = simulate_particle(micrograph[1])
    return np.stack([project(volume, angles, 64, PIXEL) for angles in even_angles(4)])


@pytest.fixture(scope="module")
def bank(templates):
    return bank_from_templates(templates, PIXEL, PIXEL, DIAMETER, LOW_PASS, STEP)


@pytest.fixture(scope="module")
def exhaustive(micrograph, templates, bank):
    """Score map of every template in every rotation."""
    image, ctf = micrograph[0].image, micrograph[0].scene.ctf
    return exhaustive_scores(image, PIXEL, templates, PIXEL, STEP, bank, PARAMETERS, ctf)


def test_compressed_search_equals_the_exhaustive_one(micrograph, bank, exhaustive):
    image, scene = micrograph[0].image, micrograph[0].scene
    picks, _ = search(image, PIXEL, bank, PARAMETERS, scene.ctf)
    positions = np.column_stack([picks.y, picks.x])
    slow_positions, slow_scores = naive_picks(exhaustive, PIXEL, PARAMETERS)
    truth = scene.positions[:, ::-1] * PIXEL
    fast = accuracy(*judged(positions, picks.ncc, truth, DIAMETER / 3), len(truth))
    slow = accuracy(*judged(slow_positions, slow_scores, truth, DIAMETER / 3), len(truth))
    assert slow[0] > 0.9
    # one of 70 particles more or less is 0.007; test_exhaustive.py holds both against each other on many
    assert fast == pytest.approx(slow, abs=0.01)
    distance, nearest = cKDTree(slow_positions).query(positions[: len(truth)])
    assert np.mean(distance < 2 * PIXEL) > 0.9
    close = distance < 2 * PIXEL
    # the top lies between pixels and angles: it is higher than any score of the grid, by little
    difference = picks.ncc[: len(truth)][close] - slow_scores[nearest[close]]
    assert difference.min() > -0.01 and 0 < np.median(difference) < 0.02 and difference.max() < 0.06


def test_picks_sit_on_the_particles(micrograph, bank):
    """Sub-pixel: the median distance from a particle's centre is well below a pixel and has no direction."""
    picks, _ = search(micrograph[0].image, PIXEL, bank, PARAMETERS, micrograph[0].scene.ctf)
    truth = micrograph[0].scene.positions * PIXEL
    positions = np.column_stack([picks.x, picks.y])[: len(truth)]
    distance, nearest = cKDTree(truth).query(positions)
    offset = (positions - truth[nearest])[distance < 50]
    assert len(offset) > 0.85 * len(truth)
    assert np.abs(np.median(offset, axis=0)).max() < 0.75 * PIXEL


@pytest.fixture(scope="module")
def noise():
    rng = np.random.default_rng(3)
    return ndimage.gaussian_filter(rng.standard_normal((190, 171)), 1.0).astype(np.float32)


@pytest.fixture(scope="module")
def blobs():
    return blob_bank(np.array([100, 140], np.float32), ["disc", "ellipse"], 5.0, LOW_PASS)


def blob_parameters(**changes):
    blob = {"diameter": 120.0, "diameter_min": 100.0, "diameter_max": 140.0, "high_pass": 400.0, "min_distance": 84.0}
    return dataclasses.replace(PARAMETERS, **(blob | changes))


def equal_picks(one, other):
    assert len(one.x) == len(other.x) > 10
    for name in ("x", "y", "ncc", "power", "peak_power", "background_variance"):
        np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=1e-4, atol=1e-4, err_msg=name)
    for name in ("template", "angle"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("ctf", [None, Ctf(15000, 14000, 20)], ids=["plain", "ctf"])
@pytest.mark.parametrize("whitening", [None, WHITENING], ids=["raw", "white"])
def test_decoys_are_the_picks_of_the_inverted_micrograph(noise, blobs, ctf, whitening):
    picks, decoys = search(noise, 5.0, blobs, blob_parameters(), ctf, whitening)
    inverted, undone = search(-noise, 5.0, blobs, blob_parameters(), ctf, whitening)
    equal_picks(inverted, decoys)
    equal_picks(undone, picks)
    assert len(picks.x) != len(decoys.x) or np.abs(picks.ncc - decoys.ncc).max() > 0.01


def test_what_was_searched_before_in_the_same_memory_leaves_no_trace(noise, blobs, micrograph, bank):
    """A larger micrograph with templates, and the same with another CTF, before and after."""
    workspace, image = Workspace(), micrograph[0].image
    jobs = [
        (image, PIXEL, bank, PARAMETERS, micrograph[0].scene.ctf),
        (noise, 5.0, blobs, blob_parameters(), None),
        (image, PIXEL, bank, PARAMETERS, Ctf(9000, 9000, 0)),
    ]
    for job in jobs:
        for ours, fresh in zip(search(*job, workspace=workspace), search(*job), strict=True):
            for field in dataclasses.fields(ours):
                np.testing.assert_array_equal(getattr(ours, field.name), getattr(fresh, field.name), field.name)


@pytest.mark.parametrize("ctf", [None, Ctf(15000, 14000, 20)], ids=["plain", "ctf"])
def test_light_contrast_on_the_inverted_micrograph_changes_nothing(noise, blobs, ctf):
    dark, _ = search(noise, 5.0, blobs, blob_parameters(sign=-1.0), ctf)
    light, _ = search(-noise, 5.0, blobs, blob_parameters(sign=1.0), ctf)
    equal_picks(dark, light)


def test_the_grey_scale_does_not_matter(noise, blobs):
    picks, _ = search(noise, 5.0, blobs, blob_parameters(), None)
    other, _ = search(1500 + 70 * noise, 5.0, blobs, blob_parameters(), None)
    assert len(picks.x) == len(other.x)
    for name in ("x", "y", "ncc", "power"):
        np.testing.assert_allclose(getattr(picks, name), getattr(other, name), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("ctf", [None, Ctf(15000, 14000, 20)], ids=["plain", "ctf"])
def test_picks_keep_apart_and_off_the_border_and_come_best_first(noise, blobs, ctf):
    for found in search(noise, 5.0, blobs, blob_parameters(), ctf):
        apart = np.hypot(found.y[:, None] - found.y, found.x[:, None] - found.x)
        assert apart[~np.eye(len(apart), dtype=bool)].min() >= 84 - 1e-3
        assert min(found.y.min(), found.x.min()) >= 60 - 1e-3
        assert found.y.max() <= 189 * 5 - 60 + 1e-3 and found.x.max() <= 170 * 5 - 60 + 1e-3
        assert (np.diff(found.ncc) <= 0).all() and np.abs(found.ncc).max() <= 1
        # 190 x 171 pixels less the border hold more than half of the densest packing
        assert len(found.x) > 0.4 * (825 * 730) / (np.sqrt(0.75) * 84**2)
        assert found.y.max() > 189 * 5 - 60 - 84 and found.x.max() > 170 * 5 - 60 - 84


def test_a_cap_that_bites_is_reported(noise, blobs):
    every, _ = search(noise, 5.0, blobs, blob_parameters(), None)
    few, few_decoys = search(noise, 5.0, blobs, blob_parameters(max_picks=7), None)
    assert few.capped and few_decoys.capped and not every.capped
    np.testing.assert_array_equal(few.ncc, every.ncc[:7])


def test_background_is_the_local_level(noise, blobs):
    """A slow wave far below the high-pass comes back; the noise that the band-pass takes away does not."""
    y, _ = np.mgrid[:190, :171]
    wave = 2.0 * np.cos(2 * np.pi * (y + 0.5) / 380)
    rng = np.random.default_rng(4)
    image = (rng.standard_normal(noise.shape) + wave).astype(np.float32)
    picks, _ = search(image, 5.0, blobs, blob_parameters(high_pass=300.0), None)
    expected = 2.0 * np.cos(2 * np.pi * (picks.y / 5.0 + 0.5) / 380) - image.mean()
    error = picks.background - expected
    assert np.std(error) < 0.15 and abs(np.mean(error)) < 0.05


@pytest.mark.parametrize("shape", [(20, 171), (190, 20), (20, 20)])
def test_a_micrograph_smaller_than_a_particle_has_no_picks(blobs, shape):
    image = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    for found in search(image, 5.0, blobs, blob_parameters(), None):
        assert len(found.x) == len(found.ncc) == len(found.template) == 0 and not found.capped


def test_gold_shows_in_peak_power(noise, blobs):
    image = noise.copy()
    image[100:102, 80:82] -= 40 * noise.std()
    picks, _ = search(image, 5.0, blobs, blob_parameters(), None)
    near = np.hypot(picks.y - 502, picks.x - 402) < 50
    far = np.hypot(picks.y - 502, picks.x - 402) > 200
    assert near.any() and picks.peak_power[near].min() > 2 * picks.peak_power[far].max()
