"""Surrogates: the spectrum stays, everything else goes; what jumps at the borders, and crystals, do not count."""

import numpy as np
import pytest
from scipy import ndimage, stats

from pickcal.picking.surrogate import patched, periodic_component, phase_randomised

SHAPES = [(128, 160), (127, 160), (128, 161), (127, 161)]


def coloured(shape, seed=0):
    """Noise whose power falls with frequency."""
    white = np.random.default_rng(seed).standard_normal(shape)
    return (white + 3 * ndimage.gaussian_filter(white, 2.0)).astype(np.float32)


def with_discs(shape=(256, 256), count=60, seed=0):
    """Weak noise with dark discs: structure, and grey values far from Gaussian."""
    rng = np.random.default_rng(seed)
    image = 0.2 * rng.standard_normal(shape)
    y, x = np.mgrid[: shape[0], : shape[1]]
    for cy, cx in rng.uniform(15, np.array(shape) - 15, (count, 2)):
        image[np.hypot(y - cy, x - cx) < 7] = -2.0
    return image.astype(np.float32)


def radial_power(image):
    """Mean power of rings one frequency step wide."""
    power = np.abs(np.fft.fft2(image - image.mean())) ** 2
    frequency = np.hypot(*np.meshgrid(*(np.fft.fftfreq(n) for n in image.shape), indexing="ij"))
    ring = np.rint(frequency * min(image.shape)).astype(int)
    return np.bincount(ring.ravel(), power.ravel()) / np.bincount(ring.ravel())


def brute_periodic(image):
    """Moisan's definition, by least squares: s smooth inside, image - s without jumps at the borders, mean of s 0."""
    height, width = image.shape
    index = np.arange(height * width).reshape(image.shape)
    rows, wanted = [], []

    def equation(first, second, value):
        row = np.zeros(height * width)
        row[first], row[second] = 1, -1
        rows.append(row)
        wanted.append(value)

    for y in range(height):
        for x in range(width):
            for dy, dx in ((0, 1), (1, 0)):
                here, there = (y, x), ((y + dy) % height, (x + dx) % width)
                inside = y + dy < height and x + dx < width
                equation(index[here], index[there], 0.0 if inside else float(image[here]) - float(image[there]))
    rows.append(np.ones(height * width))
    wanted.append(0.0)
    smooth = np.linalg.lstsq(np.array(rows), np.array(wanted), rcond=None)[0]
    return image - smooth.reshape(image.shape)


@pytest.mark.parametrize("shape", [(7, 10), (8, 9)])
def test_periodic_component_is_moisans(shape):
    """Against the minimum that defines it."""
    image = np.random.default_rng(1).standard_normal(shape).astype(np.float32) + np.arange(shape[1], dtype=np.float32)
    np.testing.assert_allclose(periodic_component(image), brute_periodic(image), atol=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_spectrum_stays(shape):
    """Every amplitude that of the periodic component, every ring that of the image, and the mean."""
    image = coloured(shape) + 5
    copy = phase_randomised(image, np.random.default_rng(3))
    assert copy.dtype == np.float32
    assert copy.shape == shape
    amplitudes = [np.abs(np.fft.fft2(values)) for values in (copy, periodic_component(image))]
    np.testing.assert_allclose(*amplitudes, rtol=1e-3, atol=0.05)
    # the lowest rings hold few coefficients, and are where the smooth component was
    assert np.abs(radial_power(copy) / radial_power(image) - 1)[10:].max() < 0.15
    assert copy.mean() == pytest.approx(image.mean(), abs=1e-5)


def test_borders_leave_no_cross():
    """A gradient puts power on the axes of the plain spectrum; the copy has there what it has elsewhere."""
    rng = np.random.default_rng(0)
    image = (rng.standard_normal((128, 128)) + np.linspace(-8, 8, 128)[:, None]).astype(np.float32)

    def on_axis(values):
        power = np.abs(np.fft.fft2(values)) ** 2
        return power[10:60, 0].mean() / power[10:60, 10:60].mean()

    assert on_axis(image) > 10
    assert on_axis(phase_randomised(image, rng)) < 1.5


def test_structure_goes():
    """Skewed grey values become Gaussian, and at no shift does the copy resemble the image."""
    image = with_discs()
    copy = phase_randomised(image, np.random.default_rng(1))
    assert stats.skew(image.ravel()) < -1.5
    assert abs(stats.skew(copy.ravel())) < 0.2
    assert abs(stats.kurtosis(copy.ravel())) < 0.3
    spectra = [np.fft.fft2(values - values.mean()) for values in (image, copy)]
    power = np.abs(spectra[0]) ** 2
    alike = np.fft.ifft2(spectra[0] * spectra[1].conj()).real * image.size / power.sum()
    chance = np.sqrt((power**2).sum()) / power.sum()
    assert chance < 0.05
    assert np.abs(alike).max() < 6 * chance


def test_seeds():
    """The same seed gives the same image, bit by bit; another one an unrelated image."""
    image = coloured((64, 64))
    first, again, other = (phase_randomised(image, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert first.tobytes() == again.tobytes()
    assert abs(np.corrcoef(first.ravel(), other.ravel())[0, 1]) < 0.2


def test_constant_image():
    """No spectrum, no noise."""
    copy = phase_randomised(np.full((32, 40), 3, np.float32), np.random.default_rng(0))
    np.testing.assert_allclose(copy, 3, atol=1e-6)


def test_crystals_are_patched_and_particles_are_not():
    """One crystal would rule the copy; patched, the copy has the power of an image without it."""
    rng = np.random.default_rng(2)
    clean = rng.standard_normal((256, 256)).astype(np.float32)
    y, x = np.mgrid[:256, :256]
    particle = np.hypot(y - 60, x - 60) < 8
    clean[particle] -= 0.8
    crystal = np.hypot(y - 170, x - 140) < 7
    dirty = np.where(crystal, clean - 30, clean)
    options = {"pixel_size": 5.0, "low_pass": 20.0, "high_pass": 300.0, "reach": 25.0}
    mended = patched(dirty, **options)
    changed = mended != dirty
    assert changed[crystal].all()
    # the crystal's halo after the high-pass counts as outlying too
    assert not changed[np.hypot(y - 170, x - 140) > 40].any()
    assert np.abs(mended[changed]).max() < 1
    assert patched(clean, **options) is clean
    copies = [phase_randomised(image, np.random.default_rng(0)) for image in (clean, dirty, mended)]
    deviations = [np.std(ndimage.gaussian_filter(copy, 2.0)) for copy in copies]
    assert deviations[1] > 3 * deviations[0]
    assert deviations[2] == pytest.approx(deviations[0], rel=0.1)
