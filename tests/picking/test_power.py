import numpy as np
import pytest

from pickcal.picking.filters import soft_disc
from pickcal.picking.power import noise_deviation, peak_power, power_maps, sample

PIXEL = 5.0
SHAPE = (300, 320)
VALID = (slice(20, 280), slice(20, 300))


def maps_of(image, diameter_min=100.0, diameter_max=120.0):
    return power_maps(
        image.astype(np.float32), np.zeros_like(image, np.float32), VALID, PIXEL, diameter_min, diameter_max
    )


def noise(seed=0, sigma=1.0):
    return sigma * np.random.default_rng(seed).standard_normal(SHAPE)


@pytest.mark.parametrize("sigma", [1e-3, 1.0, 500.0])
def test_white_noise_has_power_one(sigma):
    maps = maps_of(noise(sigma=sigma))
    assert maps.power[VALID].mean() == pytest.approx(1, abs=0.05)
    assert maps.background_variance[VALID].mean() == pytest.approx(1, abs=0.05)


def test_power_does_not_depend_on_the_grey_scale():
    image = noise(1)
    np.testing.assert_allclose(maps_of(-70 * image).power, maps_of(image).power, rtol=1e-4)


def test_a_planted_disc_has_the_analytic_power():
    """Amplitude A over the whole soft disc: the mean square grows by A^2; over half of its weight, by half of that."""
    amplitude, cy, cx = 3.0, 140, 150
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    radius = np.hypot(y - cy, x - cx) * PIXEL
    deviation = noise_deviation(noise(2)[VALID])
    whole = maps_of(noise(2) + amplitude * (radius <= 65)).power[cy, cx]
    # the disc's own squared noise, 1 within 10 %, and the cross term, within 2 A / sqrt(pixels)
    assert whole == pytest.approx(1 + (amplitude / deviation) ** 2, abs=0.9)


def test_a_disc_smaller_than_the_mask_counts_by_its_weight():
    """Values -2 to 2 in turn have a median absolute deviation of 1 and a mean square of 2, everywhere alike."""
    cy, cx, amplitude = 140, 150, 4.0
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    radius = np.hypot(y - cy, x - cx) * PIXEL
    weight = soft_disc(25, PIXEL, 50.0, 60.0)
    inner = weight[np.hypot(*(np.mgrid[-12:13, -12:13] * PIXEL)) <= 30].sum() / weight.sum()
    pattern = (2 * y + x) % 5 - 2.0
    maps = maps_of(np.where(radius <= 30, amplitude * 1.4826, pattern))
    noise_power = 2 / 1.4826**2
    assert maps.power[cy, cx + 60] == pytest.approx(noise_power, rel=0.02)
    assert maps.power[cy, cx] == pytest.approx(inner * amplitude**2 + (1 - inner) * noise_power, rel=0.02)


def test_every_position_is_a_mean_under_the_soft_disc():
    image = noise(3)
    maps = maps_of(image, 80.0, 140.0)
    weight = soft_disc(29, PIXEL, 40.0, 70.0).astype(float)
    signal = image / (1.4826 * np.median(np.abs(image[VALID] - np.median(image[VALID]))))
    for y, x in [(50, 60), (140, 201), (230, 77)]:
        patch = signal[y - 14 : y + 15, x - 14 : x + 15]
        assert maps.power[y, x] == pytest.approx((weight * patch**2).sum() / weight.sum(), rel=1e-3)


def test_background_variance_comes_from_the_ring_alone():
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    radius = np.hypot(y - 140, x - 150) * PIXEL
    image = noise(4)
    quiet = maps_of(image).background_variance[140, 150]
    inside = maps_of(image + 40 * (radius < 55)).background_variance[140, 150]
    around = maps_of(image * np.where((radius > 60) & (radius < 120), 3.0, 1.0)).background_variance[140, 150]
    assert inside == pytest.approx(quiet, rel=0.02)
    assert around == pytest.approx(9 * quiet, rel=0.1)
    # a plateau adds 25 to the mean square in the ring, but nothing to the variance
    plateau = maps_of(image + 5 * (radius < 160)).background_variance[140, 150]
    assert plateau == pytest.approx(quiet, rel=0.15)


def test_particles_hardly_move_the_noise_estimate():
    image = noise(5)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    crowd = image - 4 * ((y % 60 < 15) & (x % 60 < 15))
    assert noise_deviation(image[VALID]) == pytest.approx(1, abs=0.02)
    assert noise_deviation(crowd[VALID]) < 1.15 < crowd[VALID].std()


def test_peak_power_finds_gold_within_the_disc_alone():
    image = noise(6)
    image[150:152, 160:162] = -25
    maps = maps_of(image)
    expected = np.square(maps.signal[150:152, 160:162]).max()
    assert expected == pytest.approx(25**2, rel=0.05)
    y, x = np.array([150.0, 158.4, 139.6, 150.0, 60.0]), np.array([160.0, 165.0, 160.0, 180.0, 60.0])
    found = peak_power(maps, y, x)
    assert found[:3].tolist() == [expected] * 3
    assert found[3] < 30 and found[4] < 30


def test_peak_power_at_the_border():
    maps = maps_of(noise(7))
    assert peak_power(maps, np.array([0.0, SHAPE[0] - 1.0]), np.array([0.0, SHAPE[1] - 1.0])).max() < 30
    assert peak_power(maps, np.zeros(0), np.zeros(0)).shape == (0,)


def test_sampling_is_bilinear():
    image = (np.arange(30.0)[:, None] * 2 + np.arange(40.0)[None, :]).astype(np.float32)
    found = sample(image, np.array([3.25, 10.0]), np.array([7.5, 39.0]))
    assert found == pytest.approx([6.5 + 7.5, 20 + 39], abs=1e-5)
