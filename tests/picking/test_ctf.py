import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import constants

from pickcal.picking.ctf import Ctf, ctf_filter, electron_wavelength, frequency_grid

LINE = 16384


def scalar_ctf(kx, ky, ctf):
    """Rohou & Grigorieff (2015), equations 1 to 5, in double precision; positive is contrast lost, so the sign flips.

    Written from the paper's form: chi = pi lambda g^2 (z - lambda^2 g^2 Cs / 2) + phase + atan(w2 / w1).
    """
    volts = ctf.voltage * 1e3
    rest = constants.m_e * constants.c**2 / constants.e
    momentum = math.sqrt(2 * constants.m_e * constants.e * volts * (1 + volts / (2 * rest)))
    wavelength = constants.h / momentum * 1e10
    g2 = kx * kx + ky * ky
    z1, z2, axis = ctf.defocus_u, ctf.defocus_v, math.radians(ctf.defocus_angle)
    azimuth = math.atan2(ky, kx)
    z = 0.5 * (z1 + z2 + (z1 - z2) * math.cos(2 * (azimuth - axis)))
    cs = ctf.spherical_aberration * 1e7
    w2 = ctf.amplitude_contrast
    w1 = math.sqrt(1 - w2 * w2)
    chi = math.pi * wavelength * g2 * (z - 0.5 * wavelength**2 * g2 * cs)
    chi += math.radians(ctf.phase_shift) + math.atan2(w2, w1)
    return -math.sin(chi)


def zeros_along_a_line(values, step):
    """Frequencies at which sampled values change sign, by linear interpolation."""
    at = np.flatnonzero(values[:-1] * values[1:] < 0)
    return (at + values[at] / (values[at] - values[at + 1])) * step


@pytest.mark.parametrize(("voltage", "published"), [(300, 0.0196875), (200, 0.0250793), (100, 0.0370144)])
def test_wavelengths_are_the_published_ones(voltage, published):
    assert electron_wavelength(voltage) == pytest.approx(published, abs=6e-8)


@given(voltage=st.floats(20, 1500))
@settings(max_examples=50)
def test_wavelength_follows_from_the_constants_of_nature(voltage):
    energy = voltage * 1e3 * constants.e
    rest = constants.m_e * constants.c**2
    de_broglie = constants.h * constants.c / math.sqrt(energy * (energy + 2 * rest))
    assert electron_wavelength(voltage) == pytest.approx(de_broglie * 1e10, rel=1e-6)


@given(
    mean=st.floats(3000, 40000),
    astigmatism=st.floats(-3000, 3000),
    angle=st.floats(-180, 180),
    voltage=st.sampled_from([100.0, 120.0, 200.0, 300.0]),
    cs=st.floats(0, 4),
    contrast=st.floats(0, 0.5),
    phase=st.floats(0, 180),
    shape=st.tuples(st.integers(8, 33), st.integers(8, 33)),
    place=st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)),
)
@settings(max_examples=150)
def test_equals_the_scalar_formula_of_the_paper(mean, astigmatism, angle, voltage, cs, contrast, phase, shape, place):
    ctf = Ctf(mean + astigmatism, mean - astigmatism, angle, voltage, cs, contrast, phase)
    grid = ctf_filter(ctf, shape, 4.0)
    assert grid.dtype == np.float32 and grid.shape == (shape[0], shape[1] // 2 + 1)
    row, column = place[0] % grid.shape[0], place[1] % grid.shape[1]
    ky = (row if row <= (shape[0] - 1) // 2 else row - shape[0]) / (shape[0] * 4.0)
    kx = column / (shape[1] * 4.0)
    assert grid[row, column] == pytest.approx(scalar_ctf(kx, ky, ctf), abs=2e-4)


@pytest.mark.parametrize("contrast", [0.0, 0.1])
@pytest.mark.parametrize(("voltage", "cs", "defocus"), [(300, 2.7, 15000), (200, 1.4, 8000), (300, 0.0, 28000)])
def test_zeros_lie_where_the_closed_formula_puts_them(contrast, voltage, cs, defocus):
    values = ctf_filter(Ctf(defocus, defocus, 0, voltage, cs, contrast), (1, LINE), 1.6)[0].astype(float)
    step = 1 / (LINE * 1.6)
    found = zeros_along_a_line(values[1:], step) + step
    wavelength = electron_wavelength(voltage)
    n = np.arange(1, len(found) + 1) - math.asin(contrast) / math.pi
    a, b = 0.5 * wavelength**3 * cs * 1e7, wavelength * defocus
    root = np.sqrt(b * b - 4 * a * n)
    # the stable form of the smaller root of a k^4 - b k^2 + n = 0
    expected = np.sqrt(2 * n / (b + root))
    assert len(found) > 10
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize("contrast", [0.0, 0.07, 0.1, 0.5])
def test_zero_frequency_is_minus_the_amplitude_contrast(contrast):
    ctf = Ctf(21000, 19000, 33, 300, 2.7, contrast)
    assert ctf_filter(ctf, (6, 8), 5.0)[0, 0] == pytest.approx(-contrast, abs=1e-7)


def test_a_phase_plate_of_90_degrees_turns_the_sine_into_a_cosine():
    plate = ctf_filter(Ctf(10000, 10000, 0, 300, 2.7, 0.0, 90.0), (32, 40), 3.0).astype(float)
    none = ctf_filter(Ctf(10000, 10000, 0, 300, 2.7, 0.0, 0.0), (32, 40), 3.0).astype(float)
    assert plate[0, 0] == pytest.approx(-1, abs=1e-6)
    np.testing.assert_allclose(plate**2 + none**2, 1, atol=1e-4)


def test_more_defocus_along_x_brings_the_first_zero_in_along_x():
    ctf = Ctf(20000, 10000, 0.0, 300, 0.0, 0.0)
    along_x = ctf_filter(ctf, (1, 2048), 2.0)[0].astype(float)
    along_y = ctf_filter(ctf, (2048, 1), 2.0)[:1024, 0].astype(float)
    step = 1 / (2048 * 2.0)
    first_x = zeros_along_a_line(along_x[1:], step)[0] + step
    first_y = zeros_along_a_line(along_y[1:], step)[0] + step
    wavelength = electron_wavelength(300)
    assert first_x == pytest.approx(1 / math.sqrt(wavelength * 20000), rel=2e-3)
    assert first_y == pytest.approx(1 / math.sqrt(wavelength * 10000), rel=2e-3)


@pytest.mark.parametrize("angle", [30, 60, 120])
def test_the_zero_ring_is_nearest_along_the_axis_of_defocus_u(angle):
    """The first dark ring, measured in polar coordinates with y growing with the row index."""
    shape, pixel = (600, 600), 2.0
    grid = ctf_filter(Ctf(16000, 12000, angle, 300, 2.7, 0.07), shape, pixel)
    ky = np.fft.fftfreq(shape[0], pixel)[:, None] + np.zeros((1, grid.shape[1]))
    kx = np.fft.rfftfreq(shape[1], pixel)[None, :] + np.zeros((shape[0], 1))
    k, azimuth = np.hypot(kx, ky), np.rad2deg(np.arctan2(ky, kx))
    first = {}
    for direction in range(-85, 90, 5):
        ray = np.abs(azimuth - direction) < 1.5
        positive = ray & (grid > 0) & (k > 0.02)
        first[direction] = k[positive].min()
    nearest = min(first, key=first.get)
    farthest = max(first, key=first.get)
    assert min(abs(nearest - angle), 180 - abs(nearest - angle)) <= 10
    across = angle - 90
    assert min(abs(farthest - across), 180 - abs(farthest - across)) <= 10


def test_envelope_is_a_gaussian_of_the_b_factor():
    ctf = Ctf(15000, 15000)
    bare, damped = (ctf_filter(ctf, (40, 50), 3.0, b_factor=b) for b in (0.0, 200.0))
    ky, kx = np.fft.fftfreq(40, 3.0)[:, None], np.fft.rfftfreq(50, 3.0)[None, :]
    np.testing.assert_allclose(damped, bare * np.exp(-50.0 * (kx**2 + ky**2)), atol=1e-6)


def test_frequency_grid_is_that_of_rfft2():
    y, x = np.mgrid[:10, :9]
    for row, column in [(2, 3), (9, 1), (5, 4)]:
        ky, kx = frequency_grid((10, 9), 4.0)
        wave = np.cos(2 * np.pi * (ky[row, 0] * y * 4.0 + kx[0, column] * x * 4.0))
        power = np.abs(np.fft.rfft2(wave))
        assert power[row, column] == pytest.approx(power.max(), rel=1e-6)


def test_mean_defocus_is_that_of_both_axes():
    assert Ctf(21000, 19000).defocus == 20000
