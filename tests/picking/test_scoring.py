"""Scores at given coordinates, against naive loops, shifted images, planted particles and the search itself."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from pickcal.picking.blobs import blob_bank
from pickcal.picking.ctf import Ctf
from pickcal.picking.filters import RadialFilter
from pickcal.picking.scoring import COLUMNS, random_positions, score_at
from pickcal.picking.search import SearchParameters, prepare, search

PIXEL, DIAMETER, SHAPE = 5.0, 120.0, (190, 171)
PARAMETERS = SearchParameters(
    diameter=DIAMETER,
    diameter_min=DIAMETER,
    diameter_max=DIAMETER,
    low_pass=20.0,
    high_pass=400.0,
    sign=-1.0,
    min_distance=84.0,
    max_picks=4000,
)
WHITENING = RadialFilter(0.006, np.array([0.5, 0.6, 0.8, 1.0, 1.2, 1.3, 1.4, 1.5, 1.5, 1.5], np.float32))
FILTERS = {"plain": (None, None), "ctf, white": (Ctf(15000, 14000, 20), WHITENING)}


@pytest.fixture(scope="module")
def noise():
    rng = np.random.default_rng(3)
    return ndimage.gaussian_filter(rng.standard_normal(SHAPE), 1.0).astype(np.float32)


@pytest.fixture(scope="module")
def bank():
    return blob_bank(np.array([DIAMETER], np.float32), ["disc", "ring", "ellipse"], PIXEL, 20.0)


def points(count=60, margin=0.0, seed=0):
    """Random x and y within the image, Å."""
    rng = np.random.default_rng(seed)
    sides = [(n - 1) * PIXEL for n in (SHAPE[1], SHAPE[0])]
    return tuple(rng.uniform(margin, side - margin, count).astype(np.float32) for side in sides)


def score(image, bank, x, y, radius, ctf=None, whitening=None, **values):
    return score_at(image, PIXEL, bank, PARAMETERS, x, y, radius, ctf, whitening, **values)


def best_map(image, bank, ctf=None, whitening=None):
    """Best score of any entry at every pixel of the image."""
    prepared = prepare(image, PIXEL, bank, PARAMETERS, ctf, whitening)
    y, x = np.mgrid[prepared.valid]
    scores = prepared.responses.scores(y.ravel(), x.ravel())
    return scores.max(axis=1).reshape(image.shape), scores.argmax(axis=1).reshape(image.shape)


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("radius", [6.0, 17.0, 60.0])
def test_disc_maximum_of_a_naive_loop(noise, bank, filters, radius):
    """Never below any pixel of the disc, above the best one by no more than lies between pixels, and in the disc."""
    ctf, whitening = FILTERS[filters]
    best, _ = best_map(noise, bank, ctf, whitening)
    x, y = points()
    found, _ = score(noise, bank, x, y, radius, ctf, whitening)
    assert np.hypot(found.x - x, found.y - y).max() <= radius + 1e-3
    gains = []
    for i in range(len(x)):
        naive = -1.0
        for row in range(SHAPE[0]):
            for column in range(max(0, int((x[i] - radius) / PIXEL)), min(SHAPE[1], int((x[i] + radius) / PIXEL) + 2)):
                if np.hypot(row * PIXEL - y[i], column * PIXEL - x[i]) <= radius:
                    naive = max(naive, best[row, column])
        gains.append(found.ncc[i] - naive)
    assert min(gains) > -1e-5
    assert radius < 17 or max(gains) < 0.07
    assert found.y.min() >= 0 and found.y.max() <= (SHAPE[0] - 1) * PIXEL + 1e-3


@pytest.mark.parametrize("filters", FILTERS)
def test_scores_at_pixel_centres_are_the_maps_values(noise, bank, filters):
    """Radius 0: positions to the bit, scores to rounding, the entry's template and angle."""
    best, entry = best_map(noise, bank, *FILTERS[filters])
    rng = np.random.default_rng(1)
    row, column = rng.integers(0, SHAPE[0], 80), rng.integers(0, SHAPE[1], 80)
    x, y = (PIXEL * column).astype(np.float32), (PIXEL * row).astype(np.float32)
    found, _ = score(noise, bank, x, y, 0.0, *FILTERS[filters])
    np.testing.assert_allclose(found.ncc, best[row, column], atol=1e-6)
    assert found.x.tobytes() == x.tobytes() and found.y.tobytes() == y.tobytes()
    np.testing.assert_array_equal(found.template, bank.template[entry[row, column]])
    np.testing.assert_array_equal(found.angle, bank.angle[entry[row, column]])


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("shift", [(0.5, 0.5), (0.25, 0.7), (0.0, 0.4)])
def test_scores_between_pixels_are_those_of_the_shifted_image(bank, shift, filters):
    """Shifted by its Fourier phases, the image has a pixel where there was none: within 0.003, as documented."""
    rng = np.random.default_rng(5)
    image = rng.standard_normal((240, 240)).astype(np.float32)
    ky, kx = np.fft.fftfreq(240)[:, None], np.fft.rfftfreq(240)[None]
    phases = np.exp(2j * np.pi * (ky * shift[0] + kx * shift[1]))
    moved = np.fft.irfft2(np.fft.rfft2(image) * phases, image.shape).astype(np.float32)
    row, column = rng.integers(60, 180, (2, 300))
    found, _ = score(image, bank, (column + shift[1]) * PIXEL, (row + shift[0]) * PIXEL, 0.0, *FILTERS[filters])
    truth, _ = score(moved, bank, column * PIXEL, row * PIXEL, 0.0, *FILTERS[filters])
    assert np.abs(found.ncc - truth.ncc).max() < 0.003
    nearest, _ = score(image, bank, column * PIXEL, row * PIXEL, 0.0, *FILTERS[filters])
    assert np.abs(nearest.ncc - truth.ncc).max() > 0.02


@pytest.mark.parametrize("filters", FILTERS)
@pytest.mark.parametrize("radius", [0.0, 2.0])
def test_picks_of_the_search_get_what_the_search_found(noise, bank, filters, radius):
    """The search's paraboloid smooths by a little; power and its companions are the same."""
    picks, _ = search(noise, PIXEL, bank, PARAMETERS, *FILTERS[filters])
    found, _ = score(noise, bank, picks.x, picks.y, radius, *FILTERS[filters])
    difference = found.ncc - picks.ncc
    assert len(picks.x) > 30
    assert abs(difference.mean()) < 0.005 and np.abs(difference).max() < 0.02
    if radius == 0:
        for name in ("power", "background", "background_variance"):
            np.testing.assert_allclose(getattr(found, name), getattr(picks, name), rtol=1e-4, atol=1e-4, err_msg=name)
        np.testing.assert_array_equal(found.peak_power, picks.peak_power)


@pytest.fixture(scope="module")
def planted():
    """Dark blobs of the particle's size at known places between pixels, a little noise; centres `(y, x)` in Å."""
    rng = np.random.default_rng(7)
    centres = np.array([(y, x) for y in (150, 390, 630, 800) for x in (130, 370, 610)]) + rng.uniform(-20, 20, (12, 2))
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] * PIXEL
    image = 0.3 * rng.standard_normal(SHAPE)
    for cy, cx in centres:
        image -= 3 * np.sqrt(np.maximum(1 - ((y - cy) ** 2 + (x - cx) ** 2) / (0.5 * DIAMETER) ** 2, 0))
    return image.astype(np.float32), centres


def test_displaced_particles_are_found_within_the_radius_and_not_beyond(planted, bank):
    """12 Å off: a radius of 15 Å reaches the centre, one of 6 Å stops at its edge on the way there."""
    image, centres = planted
    angle = np.linspace(0, 2 * np.pi, len(centres), endpoint=False)
    x, y = centres[:, 1] + 12 * np.cos(angle), centres[:, 0] + 12 * np.sin(angle)
    near, _ = score(image, bank, x, y, 15.0)
    there, _ = score(image, bank, centres[:, 1], centres[:, 0], 0.0)
    assert np.hypot(near.x - centres[:, 1], near.y - centres[:, 0]).max() < 0.5 * PIXEL
    np.testing.assert_allclose(near.ncc, there.ncc, atol=0.01)
    np.testing.assert_allclose(near.power, there.power, rtol=0.05)
    short, _ = score(image, bank, x, y, 6.0)
    moved = np.hypot(short.x - x, short.y - y)
    left = np.hypot(short.x - centres[:, 1], short.y - centres[:, 0])
    assert moved.max() <= 6 + 1e-3
    assert left.min() >= 6 - 1e-3 and left.max() < 11.5
    far, _ = score(image, bank, x, y, 0.0)
    assert (far.ncc < short.ncc).all() and (short.ncc < near.ncc).all()


def test_a_larger_radius_never_lowers_a_score_much_and_never_below_that_of_the_point(noise, bank):
    """Below a pixel points may stay; what moves stays in its disc."""
    x, y = points(200)
    exact, _ = score(noise, bank, x, y, 0.0)
    last = exact.ncc
    for radius in (0.5, 2.0, 3.5, 8.0, 20.0):
        found, _ = score(noise, bank, x, y, radius)
        assert np.hypot(found.x - x, found.y - y).max() <= radius + 1e-3
        assert (found.ncc >= exact.ncc - 1e-6).all()
        assert (found.ncc >= last - 0.02).all()
        stayed = (found.x == x) & (found.y == y)
        np.testing.assert_allclose(found.ncc[stayed], exact.ncc[stayed], atol=1e-6)
        last = found.ncc
    assert not stayed.any()


def test_scoring_again_where_a_point_came_to_rest_gives_the_same(noise, bank):
    x, y = points(80)
    once, _ = score(noise, bank, x, y, 20.0)
    again, _ = score(noise, bank, once.x, once.y, 0.0)
    for name in ("ncc", "power", "background", "background_variance"):
        np.testing.assert_allclose(getattr(again, name), getattr(once, name), atol=2e-5, rtol=1e-4, err_msg=name)
    np.testing.assert_array_equal(again.template, once.template)


def test_points_keep_their_order_and_do_not_disturb_each_other(noise, bank):
    """In another order, in part and twice: no thinning, none dropped."""
    x, y = points(100)
    every, _ = score(noise, bank, x, y, 15.0)
    order = np.random.default_rng(2).permutation(100)[:70]
    order = np.r_[order, order[:5]]
    some, _ = score(noise, bank, x[order], y[order], 15.0)
    assert len(every.x) == 100 and (np.diff(every.ncc) > 0).any()
    for name in COLUMNS:
        # positions in pixels, as the search has them: at 950 Å, float32 itself goes in steps of 6e-5 Å
        unit = PIXEL if name in ("x", "y") else 1.0
        found, wanted = getattr(some, name) / unit, getattr(every, name)[order] / unit
        np.testing.assert_allclose(found, wanted, atol=2e-5, err_msg=name)


def test_points_outside_get_nothing_and_points_at_the_border_a_score(noise, bank):
    side = np.array([(SHAPE[1] - 1) * PIXEL, (SHAPE[0] - 1) * PIXEL])
    x = np.array([-10, 100, side[0] + 8, 100, np.nan, 1e30, 0, side[0], 3, 100], np.float32)
    y = np.array([100, -10, 100, side[1] + 8, 100, 100, 0, side[1], 100, side[1] + 2], np.float32)
    for radius in (0.0, 15.0):
        found, _ = score(noise, bank, x, y, radius)
        outside = np.arange(10) < 6
        for name in ("ncc", "power", "peak_power", "background", "background_variance", "angle"):
            np.testing.assert_array_equal(np.isnan(getattr(found, name)), outside, err_msg=name)
        np.testing.assert_array_equal(found.template < 0, outside)
        np.testing.assert_array_equal(found.x[outside], x[outside])
        np.testing.assert_array_equal(found.y[outside], y[outside])
        assert np.hypot(found.x - x, found.y - y)[~outside].max() <= radius + 1e-3


def test_a_blob_at_the_border_scores_higher_than_noise(bank):
    """Half of it is seen, and its mirror image makes up for the rest."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] * PIXEL
    image = 0.3 * np.random.default_rng(1).standard_normal(SHAPE)
    image -= 3 * np.sqrt(np.maximum(1 - (y**2 + (x - 400) ** 2) / (0.5 * DIAMETER) ** 2, 0))
    found, _ = score(image.astype(np.float32), bank, [400.0], [0.0], 0.0)
    assert found.ncc[0] > 0.8


def test_decoys_are_random_places_on_the_inverted_micrograph(noise, bank):
    """Their scores are those of the same places on the image with its sign turned."""
    x, y = points(70)
    for radius in (0.0, 15.0):
        _, decoys = score(noise, bank, x, y, radius, seed=4)
        start_x, start_y = random_positions(SHAPE, PIXEL, DIAMETER, 70, 4)
        inverted, _ = score(-noise, bank, start_x, start_y, radius)
        for name in ("x", "y", "ncc", "power"):
            np.testing.assert_allclose(getattr(decoys, name), getattr(inverted, name), atol=2e-3, err_msg=name)
        assert len(decoys.x) == 70
        assert np.hypot(decoys.x - start_x, decoys.y - start_y).max() <= radius + 1e-3


def test_decoys_follow_from_the_seed_alone(noise, bank):
    x, y = points(3)
    (_, one), (_, same), (_, other) = (score(noise, bank, x, y, 0.0, seed=seed) for seed in (11, 11, 12))
    assert len(one.x) == len(same.x) == 50
    for name in COLUMNS:
        np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
    assert not np.isin(one.x, other.x).any()
    nothing, fifty = score(noise, bank, np.zeros(0), np.zeros(0), 15.0, seed=11)
    assert len(nothing.x) == 0 and len(fifty.x) == 50


def test_random_positions_fill_the_image_but_its_border():
    """Both axes, each its own side; evenly: quartiles within the counting error."""
    x, y = random_positions((300, 100), 4.0, 80.0, 20_000, 0)
    for values, side in ((x, 99 * 4.0), (y, 299 * 4.0)):
        assert values.min() >= 40 and values.max() <= side - 40
        quartiles = np.quantile((values - 40) / (side - 80), [0.25, 0.5, 0.75])
        np.testing.assert_allclose(quartiles, [0.25, 0.5, 0.75], atol=0.015)
    assert abs(np.corrcoef(x, y)[0, 1]) < 0.03


def test_sign_and_grey_scale_are_those_of_the_search(noise, bank):
    """Light particles on the inverted image, and any grey scale, give the same scores."""
    x, y = points(40)
    dark, _ = score(noise, bank, x, y, 10.0)
    light, _ = score_at(-noise, PIXEL, bank, dataclasses.replace(PARAMETERS, sign=1.0), x, y, 10.0)
    scaled, _ = score(1500 + 70 * noise, bank, x, y, 10.0)
    for other in (light, scaled):
        np.testing.assert_allclose(other.ncc, dark.ncc, atol=2e-3)
        np.testing.assert_allclose(other.power, dark.power, rtol=5e-3)
