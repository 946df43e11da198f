import numpy as np
import pytest

from pickcal.picking.blobs import ASPECT, RING, blob_bank, blob_diameters, blob_mask_radius
from pickcal.picking.filters import soft_disc
from pickcal.picking.search import SearchParameters, search

PIXEL = 5.0


def parameters(diameter, **changes):
    values = {
        "diameter": diameter,
        "diameter_min": diameter,
        "diameter_max": diameter,
        "low_pass": 20.0,
        "high_pass": 6 * diameter,
        "sign": -1.0,
        "min_distance": diameter,
        "max_picks": 100,
    }
    return SearchParameters(**(values | changes))


def spheroid(shape, centre, long, short, angle, hollow=0.0, steps=9):
    """Projection of a spheroid, averaged over sub-pixels; the long axis points along `angle`, from x towards y."""
    total = np.zeros(shape)
    turn = np.deg2rad(angle)
    for oy in (np.arange(steps) + 0.5) / steps - 0.5:
        for ox in (np.arange(steps) + 0.5) / steps - 0.5:
            y = (np.arange(shape[0])[:, None] + oy - centre[0]) * PIXEL
            x = (np.arange(shape[1])[None, :] + ox - centre[1]) * PIXEL
            along, across = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
            square = (2 * along / long) ** 2 + (2 * across / short) ** 2
            total += np.sqrt(np.maximum(1 - square, 0)) - np.sqrt(np.maximum(hollow**2 - square, 0))
    return total / steps**2


def picture(particle, seed=0, noise=0.1):
    return (noise * np.random.default_rng(seed).standard_normal(particle.shape) - particle).astype(np.float32)


@pytest.mark.parametrize("sought", [0, 1, 2, 3])
def test_the_right_size_scores_best(sought):
    diameters = np.array([90, 130, 180, 240], np.float32)
    bank = blob_bank(diameters, ["disc"], PIXEL, 20.0)
    size = float(diameters[sought])
    image = picture(spheroid((160, 170), (80.3, 84.6), size, size, 0))
    picks, _ = search(image, PIXEL, bank, parameters(160.0), None)
    assert picks.template[0] == sought
    assert picks.ncc[0] > 0.95
    assert (picks.y[0], picks.x[0]) == pytest.approx((80.3 * PIXEL, 84.6 * PIXEL), abs=0.3 * PIXEL)


@pytest.mark.parametrize("angle", [0, 40, 90, 135])
def test_an_ellipse_tells_its_angle(angle):
    bank = blob_bank(np.array([200], np.float32), ["disc", "ring", "ellipse"], PIXEL, 20.0)
    particle = spheroid((150, 150), (75, 75), 200 / np.sqrt(ASPECT), 200 * np.sqrt(ASPECT), angle)
    picks, _ = search(picture(particle), PIXEL, bank, parameters(200.0), None)
    assert picks.template[0] == 2
    difference = abs(picks.angle[0] - angle) % 180
    assert min(difference, 180 - difference) <= 7.5


def test_a_hollow_particle_matches_the_ring():
    bank = blob_bank(np.array([240], np.float32), ["disc", "ring"], PIXEL, 20.0)
    for hollow, template in ((RING, 1), (0.0, 0)):
        image = picture(spheroid((150, 150), (75, 75), 240, 240, 0, hollow))
        picks, _ = search(image, PIXEL, bank, parameters(240.0), None)
        assert picks.template[0] == template


def test_entries_count_shapes_times_diameters():
    bank = blob_bank(np.array([100, 150], np.float32), ["ellipse", "disc"], PIXEL, 20.0)
    assert bank.template.tolist() == [0] * 12 + [1] * 12 + [2, 3]
    assert bank.angle[:12].tolist() == list(range(0, 180, 15)) and bank.angle[24:].tolist() == [0, 0]
    entries = np.tensordot(bank.coefficients, bank.basis, 1)
    np.testing.assert_allclose((entries**2).sum(axis=(1, 2)), 1, atol=0.05)


def test_the_mask_is_twice_the_area_of_the_blob_at_half_height():
    radius = blob_mask_radius(200.0)
    fine = np.linspace(0, 100, 100_001)
    half_height = fine[np.argmin(np.abs(np.sqrt(1 - (fine / 100) ** 2) - 0.5))]
    assert radius**2 == pytest.approx(2 * half_height**2, rel=1e-3)
    bank = blob_bank(np.array([200], np.float32), ["disc"], PIXEL, 20.0)
    mask = soft_disc(bank.basis.shape[1], PIXEL, radius - bank.mask_edge, radius)
    assert bank.mask_radius == radius and np.abs(bank.basis[0][mask == 0]).max() < 1e-6


@pytest.mark.parametrize(
    ("low", "high", "sizes", "expected"),
    [
        (100, 100, None, [100]),
        (100, 200, None, [100, 150, 200]),
        (100, 200, 1, [150]),
        (100, 160, 4, [100, 120, 140, 160]),
    ],
)
def test_diameters(low, high, sizes, expected):
    assert blob_diameters(low, high, sizes).tolist() == expected
