from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import ndimage, signal

from pickcal.picking.filters import (
    CropPlan,
    RadialFilter,
    band_pass,
    crop_to_working_pixel,
    kernel_spectrum,
    noise_spectrum,
    odd_box,
    plan_crop,
    soft_disc,
    whitening_filter,
)


@given(
    shape=st.tuples(st.integers(4, 40), st.integers(4, 40)),
    fraction=st.tuples(st.floats(0.1, 1.0), st.floats(0.1, 1.0)),
    seed=st.integers(0, 1000),
)
@settings(max_examples=200)
def test_a_crop_is_resampling_along_both_axes(shape, fraction, seed):
    wanted = tuple(max(1, round(n * f)) for n, f in zip(shape, fraction, strict=True))
    image = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    expected = signal.resample(signal.resample(image.astype(float), wanted[0], axis=0), wanted[1], axis=1)
    found = crop_to_working_pixel(image, CropPlan(1, 1, shape, wanted, wanted))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_a_crop_does_not_change_its_input():
    image = np.random.default_rng(0).standard_normal((20, 20)).astype(np.float32)
    before = image.copy()
    crop_to_working_pixel(image, CropPlan(2, 1, (20, 20), (10, 10), (10, 10)))
    np.testing.assert_array_equal(image, before)


@given(
    shape=st.tuples(st.integers(256, 8200), st.integers(256, 8200)),
    source=st.floats(0.3, 6.0),
    wanted=st.floats(1.0, 20.0),
)
@settings(max_examples=300)
def test_plan_is_isotropic_near_the_wish_and_never_finer_than_the_source(shape, source, wanted):
    crop = plan_crop(shape, source, wanted)
    assert crop.numerator >= crop.denominator
    pixel = source * crop.numerator / crop.denominator
    assert pixel == pytest.approx(max(wanted, source), rel=0.01 + 1e-9)
    for n, padded, cropped, valid in zip(shape, crop.padded, crop.cropped, crop.shape, strict=True):
        assert padded * crop.denominator == cropped * crop.numerator
        assert n <= padded <= 1.2 * n + 64 + crop.numerator
        assert valid <= cropped
        last = (valid - 1) * crop.numerator / crop.denominator
        assert n - crop.numerator / crop.denominator <= last < n


@given(source=st.floats(0.3, 3.0), wanted=st.floats(3.0, 20.0), length=st.integers(1000, 12000))
@settings(max_examples=300)
def test_padding_stays_small(source, wanted, length):
    """A few working pixels bring every length to one with fast transforms; more is wasted time and memory."""
    crop = plan_crop((length, length), source, wanted)
    assert crop.padded[0] - length <= 0.06 * length + 2 * crop.numerator


@pytest.mark.parametrize(
    ("shape", "source", "wanted", "centre"),
    [
        ((3710, 3838), 0.885, 5.0, (1403.3, 2217.9)),
        ((5760, 4092), 0.83, 5.0, (4403.7, 903.2)),
        ((701, 512), 2.1, 5.0, (803.3, 617.9)),
        ((400, 600), 4.0, 5.0, (803.3, 1217.9)),
    ],
)
def test_the_crop_moves_and_stretches_nothing(shape, source, wanted, centre):
    sigma = 30.0
    y = np.exp(-0.5 * ((np.arange(shape[0]) * source - centre[0]) / sigma) ** 2)
    x = np.exp(-0.5 * ((np.arange(shape[1]) * source - centre[1]) / sigma) ** 2)
    crop = plan_crop(shape, source, wanted)
    working = crop_to_working_pixel((7 + np.outer(y, x)).astype(np.float32), crop)
    assert working.shape == crop.shape
    pixel = source * crop.numerator / crop.denominator
    bump = working.astype(float) - 7
    # the height tells a Fourier crop, which keeps it, from one with a wrong factor
    assert bump.max() == pytest.approx(1, abs=0.02)
    rows, columns = np.arange(working.shape[0]) * pixel, np.arange(working.shape[1]) * pixel
    weight = np.where(bump > 1e-3, bump, 0)
    found = (weight.sum(axis=1) @ rows / weight.sum(), weight.sum(axis=0) @ columns / weight.sum())
    assert found == pytest.approx(centre, abs=0.02)


def test_padding_mirrors_again_where_an_image_is_narrower_than_it():
    image = np.random.default_rng(5).standard_normal((140, 70)).astype(np.float32)
    plan = CropPlan(200, 40, (200, 200), (40, 40), (28, 14))
    mirrored = np.pad(image, ((0, 60), (0, 130)), mode="symmetric").astype(float)
    expected = signal.resample(signal.resample(mirrored, 40, axis=0), 40, axis=1)[:28, :14]
    np.testing.assert_allclose(crop_to_working_pixel(image, plan), expected, atol=1e-5)


def test_a_source_that_is_coarser_keeps_its_own_pixel():
    crop = plan_crop((300, 400), 6.0, 5.0)
    assert (crop.numerator, crop.denominator, crop.shape) == (1, 1, (300, 400))
    image = np.random.default_rng(0).standard_normal((300, 400)).astype(np.float32)
    np.testing.assert_allclose(crop_to_working_pixel(image, crop), image, atol=1e-5)


def test_band_pass_takes_half_at_its_frequencies():
    filtered = band_pass((400, 400), 5.0, 20.0, 500.0)
    k = np.fft.rfftfreq(400, 5.0)
    row = filtered[0]
    assert row[0] == 0
    np.testing.assert_allclose(row[k > 1.1 / 20 + 1e-9], 0, atol=1e-7)
    np.testing.assert_allclose(row[(k > 5 / 500) & (k < 0.9 / 20)], 1, atol=1e-4)
    assert row[np.argmin(np.abs(k - 1 / 20))] == pytest.approx(0.5, abs=1e-6)
    at = np.argmin(np.abs(k - 1 / 500))
    assert row[at] == pytest.approx(1 - np.exp(-0.5), abs=1e-6)
    assert band_pass((40, 40), 5.0, 20.0, None)[0, 0] == 1
    np.testing.assert_array_equal(band_pass((40, 40), 5.0, 20.0, 200.0)[:, 0], filtered_y(40))


def filtered_y(n):
    return band_pass((n, n), 5.0, 20.0, 200.0)[0][np.minimum(np.arange(n), n - np.arange(n))]


def coloured(shape, seed):
    """Noise whose amplitude falls threefold from low frequency to 1/20 Å, and the amplitude law itself."""
    noise = np.random.default_rng(seed).standard_normal(shape)
    ky, kx = np.fft.fftfreq(shape[0], 5.0)[:, None], np.fft.rfftfreq(shape[1], 5.0)[None, :]
    colour = 1 + 2 * np.exp(-np.hypot(ky, kx) / 0.015)
    return np.fft.irfft2(np.fft.rfft2(noise) * colour, shape).astype(np.float32)


def ring_power(image, low, high, count):
    ky, kx = np.fft.fftfreq(image.shape[0], 5.0)[:, None], np.fft.rfftfreq(image.shape[1], 5.0)[None, :]
    k = np.hypot(ky, kx)
    power = np.abs(np.fft.rfft2(image)) ** 2
    edges = np.linspace(low, high, count + 1)
    return np.array([power[(k >= a) & (k < b)].mean() for a, b in pairwise(edges)])


TILE = 60


def whitening(image):
    return whitening_filter([noise_spectrum(image, 5.0, 20.0, TILE)], 1 / (TILE * 5.0))


def test_whitening_makes_coloured_noise_flat():
    image = coloured((500, 600), 0)
    before = ring_power(image, 0.006, 0.045, 10)
    assert before.max() / before.min() > 3
    gain = whitening(100 + 7 * image)
    white = np.fft.irfft2(np.fft.rfft2(image) * gain.on_grid(image.shape, 5.0), image.shape)
    after = np.sqrt(ring_power(white, 0.006, 0.045, 10))
    np.testing.assert_allclose(after / after.mean(), 1, atol=0.15)
    assert gain.gain.mean() == pytest.approx(1, abs=1e-5)


def test_noise_spectrum_follows_the_law_of_the_noise():
    rings = noise_spectrum(coloured((600, 600), 2), 5.0, 20.0, TILE)
    assert len(rings) == 60 * 5 // 20 + 1 and rings.mean() == pytest.approx(1, abs=1e-5)
    law = (1 + 2 * np.exp(-np.arange(len(rings)) / (TILE * 5.0) / 0.015)) ** 2
    np.testing.assert_allclose(rings[2:] / rings[2:].mean(), law[2:] / law[2:].mean(), rtol=0.25)
    assert rings[0] == rings[1]


def test_particles_do_not_count_as_noise():
    image = coloured((500, 600), 1)
    y, x = np.mgrid[:500, :600]
    crowd = image.copy()
    for cy in range(40, 480, 35):
        for cx in range(40, 300, 35):
            crowd -= 8 * np.exp(-0.5 * ((y - cy) ** 2 + (x - cx) ** 2) / 6.0**2).astype(np.float32)
    # the spectrum of the whole image would have changed by more than what is asked for below
    whole = ring_power(crowd, 0.002, 0.01, 1) / ring_power(image, 0.002, 0.01, 1)
    assert np.sqrt(whole[0]) > 1.5
    np.testing.assert_allclose(whitening(crowd).gain, whitening(image).gain, rtol=0.2)


def test_one_odd_micrograph_does_not_move_the_filter_of_a_data_set():
    usual = [noise_spectrum(coloured((300, 300), seed), 5.0, 20.0, TILE) for seed in range(4)]
    odd = usual[0] * np.linspace(0.1, 30, len(usual[0]), dtype=np.float32)
    without, with_odd = whitening_filter(usual, 0.01).gain, whitening_filter([*usual, odd], 0.01).gain
    np.testing.assert_allclose(with_odd, without, rtol=0.1)


@pytest.mark.parametrize("shape", [(60, 200), (61, 64), (60, 60)])
def test_noise_spectrum_of_an_image_hardly_larger_than_a_tile(shape):
    rings = noise_spectrum(coloured(shape, 0), 5.0, 20.0, TILE)
    assert np.isfinite(rings).all() and (rings > 0).all()


def test_radial_filter_interpolates_and_stays_constant_beyond_its_end():
    table = RadialFilter(0.01, np.array([1, 3, 2], dtype=np.float32))
    grid = table.on_grid((40, 40), 5.0)
    assert grid[0, 0] == 1
    # frequency 1 / 200 lies half way between the first two entries, 1/25 beyond the last
    assert grid[0, 1] == pytest.approx(2) and grid[2, 0] == pytest.approx(3)
    assert grid[0, 8] == 2 and grid[20, 20] == 2


@pytest.mark.parametrize("shape", [(30, 24), (27, 31)])
def test_kernel_spectrum_correlates(shape):
    rng = np.random.default_rng(0)
    image, kernel = rng.standard_normal(shape), rng.standard_normal((5, 5)).astype(np.float32)
    found = np.fft.irfft2(np.fft.rfft2(image) * kernel_spectrum(kernel, shape), shape)
    np.testing.assert_allclose(found, ndimage.correlate(image, kernel, mode="wrap"), atol=1e-4)


def test_soft_disc_is_centred_and_as_large_as_asked():
    disc = soft_disc(61, 2.0, 30.0, 50.0)
    assert disc[30, 30] == 1 and disc[30, 30 + 15] == 1
    assert disc[30, 30 + 20] == pytest.approx(0.5) and disc[30 + 25, 30] == pytest.approx(0, abs=1e-7)
    np.testing.assert_array_equal(disc, disc[::-1, ::-1])
    np.testing.assert_array_equal(disc, disc.T)


@given(radius=st.floats(1, 500), pixel=st.floats(0.5, 20))
@settings(max_examples=100)
def test_odd_box_is_odd_and_just_holds_the_disc(radius, pixel):
    assume(abs(radius / pixel - round(radius / pixel)) > 1e-9)
    box = odd_box(radius, pixel)
    assert box % 2 == 1
    assert (box // 2) * pixel >= radius > (box // 2 - 1) * pixel
