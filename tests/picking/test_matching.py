import numpy as np
import pytest
import scipy.fft as sf

from pickcal.picking.bank import Bank
from pickcal.picking.ctf import Ctf, ctf_filter
from pickcal.picking.filters import RadialFilter, band_pass, soft_disc
from pickcal.picking.matching import match
from pickcal.picking.screening import extreme_scores

PIXEL, LOW_PASS, BOX, RADIUS, EDGE = 5.0, 20.0, 21, 50.0, 8.0
CTF = Ctf(13000.0, 11500.0, 40.0)
WHITENING = RadialFilter(0.006, np.array([0.5, 0.6, 0.8, 1.0, 1.2, 1.3, 1.4, 1.5, 1.5, 1.5], np.float32))


def entries(count=5, seed=0):
    """Smooth lumps, not symmetric, within the mask."""
    rng = np.random.default_rng(seed)
    axis = (np.arange(BOX) - BOX // 2) * PIXEL
    out = np.zeros((count, BOX, BOX))
    for image in out:
        for _ in range(5):
            y, x = rng.uniform(-30, 30, 2)
            image += rng.uniform(0.5, 1) * np.exp(-0.5 * ((axis[:, None] - y) ** 2 + (axis - x) ** 2) / 10.0**2)
    return out * soft_disc(BOX, PIXEL, RADIUS - EDGE, RADIUS)


def both_ways(images):
    """Entries, and after them what half a turn makes of them."""
    return np.concatenate([images, images[:, ::-1, ::-1]])


def uncompressed(images):
    """Bank of `both_ways` whose basis are the entries' own even and odd parts, so that nothing is lost."""
    n, one = len(images), np.eye(len(images), dtype=np.float32)
    turned = images[:, ::-1, ::-1]
    return Bank(
        basis=np.concatenate([images + turned, images - turned]).astype(np.float32) / 2,
        coefficients=np.block([[one, one], [one, -one]]),
        template=np.tile(np.arange(n, dtype=np.int32), 2),
        angle=np.repeat(np.float32([0, 180]), n),
        pixel_size=PIXEL,
        mask_radius=RADIUS,
        mask_edge=EDGE,
        energy=1.0,
        odd=n,
        pairs=n,
    )


def wavy(shape=(48, 54), seed=1):
    noise = np.random.default_rng(seed).standard_normal(shape)
    return np.fft.irfft2(np.fft.rfft2(noise) * band_pass(shape, PIXEL, LOW_PASS, 300.0), shape)


def seen(image, sign, ctf, whitening):
    """The template through microscope and filters, on a grid eight times its size, in double precision."""
    n = 8 * BOX
    ky, kx = np.meshgrid(np.fft.fftfreq(n, PIXEL), np.fft.fftfreq(n, PIXEL), indexing="ij")
    k = np.hypot(ky, kx)
    transfer = np.where(k * LOW_PASS < 0.9, 1.0, 0.5 * (1 + np.cos(np.pi * (k * LOW_PASS - 0.9) / 0.2)))
    transfer[k * LOW_PASS > 1.1] = 0
    if ctf is None:
        transfer *= sign
    else:
        wavelength = 0.0196875
        turn = np.arctan2(ky, kx) - np.deg2rad(ctf.defocus_angle)
        z = 0.5 * (ctf.defocus_u + ctf.defocus_v + (ctf.defocus_u - ctf.defocus_v) * np.cos(2 * turn))
        chi = np.pi * wavelength * k**2 * (z - 0.5 * wavelength**2 * k**2 * ctf.spherical_aberration * 1e7)
        transfer *= -np.sin(chi + np.arcsin(ctf.amplitude_contrast))
    if whitening is not None:
        transfer *= np.interp(k, whitening.step * np.arange(len(whitening.gain)), whitening.gain)
    padded = np.zeros((n, n))
    start = (n - BOX) // 2
    padded[start : start + BOX, start : start + BOX] = image
    out = np.fft.ifft2(np.fft.fft2(padded) * transfer).real
    return out[start : start + BOX, start : start + BOX]


def pearson(image, template, y, x):
    """Weighted Pearson correlation within the soft mask at one pixel."""
    mask = soft_disc(BOX, PIXEL, RADIUS - EDGE, RADIUS).astype(float)
    half = BOX // 2
    patch = image[y - half : y + half + 1, x - half : x + half + 1]
    patch = patch - (patch * mask).sum() / mask.sum()
    template = template - (template * mask).sum() / mask.sum()
    product = (mask * patch * template).sum()
    return product / np.sqrt((mask * patch**2).sum() * (mask * template**2).sum())


@pytest.mark.parametrize(("ctf", "sign"), [(None, -1.0), (None, 1.0), (CTF, -1.0)], ids=["dark", "light", "ctf"])
@pytest.mark.parametrize("whitening", [None, WHITENING], ids=["raw", "white"])
def test_scores_are_weighted_pearson_correlations(ctf, whitening, sign):
    images, image = both_ways(entries()), wavy()
    bank = uncompressed(entries())
    found = match(sf.rfft2(image), image.shape, bank, LOW_PASS, sign=sign, ctf=ctf, whitening=whitening)
    templates = [seen(one, sign, ctf, whitening) for one in images]
    rows, columns = np.arange(10, 38, 3), np.arange(10, 44, 3)
    expected = np.array([[[pearson(image, t, y, x) for t in templates] for x in columns] for y in rows])
    y, x = (grid.ravel() for grid in np.meshgrid(rows, columns, indexing="ij"))
    np.testing.assert_allclose(found.scores(y, x), expected.reshape(-1, len(images)), atol=1e-3)
    highest, lowest = (part.score[::3, ::3] for part in extreme_scores(found, (slice(10, 38), slice(10, 44))))
    np.testing.assert_allclose(highest, expected.max(axis=2), atol=1e-3)
    np.testing.assert_allclose(lowest, -expected.min(axis=2), atol=1e-3)
    assert np.ptp(highest) > 0.3
    chosen = np.arange(len(y)) % len(images)
    assert found.scores_of(chosen, y, x) == pytest.approx(
        expected.reshape(-1, len(images))[np.arange(len(y)), chosen], abs=1e-3
    )


def test_extreme_scores_do_not_depend_on_the_blocks(monkeypatch):
    found = match(sf.rfft2(wavy()), (48, 54), uncompressed(entries()), LOW_PASS)
    window = (slice(0, 48), slice(1, 54))
    whole = extreme_scores(found, window)
    monkeypatch.setattr("pickcal.picking.entries.BLOCK_POINTS", 7)
    monkeypatch.setattr("pickcal.picking.entries.BLOCK_PRODUCTS", 1)
    for one, other in zip(whole, extreme_scores(found, window), strict=True):
        np.testing.assert_allclose(one.score, other.score, atol=1e-6)
        assert (one.row == other.row).mean() > 0.99


def test_scores_lie_within_one():
    image = wavy((60, 60), 3)
    images = entries(8, 2)
    image[20:41, 20:41] += 50 * seen(images[3], -1.0, None, None)
    image[:, 50:] = 0
    found = match(sf.rfft2(image), image.shape, uncompressed(images), LOW_PASS)
    y, x = (grid.ravel() for grid in np.mgrid[:60, :60])
    assert np.abs(found.scores(y, x)).max() <= 1 + 1e-3


def test_scores_lie_within_one_on_a_mostly_empty_micrograph():
    """Rounding in the empty part must not be divided by next to nothing."""
    image = np.zeros((72, 72))
    image[20:41, 30:51] = entries()[2]
    spectrum = np.fft.rfft2(image) * band_pass((72, 72), PIXEL, LOW_PASS, None)
    found = match(spectrum, (72, 72), uncompressed(entries()), LOW_PASS, sign=1.0)
    y, x = (grid.ravel() for grid in np.mgrid[:72, :72])
    assert np.abs(found.scores(y, x)).max() <= 1 + 1e-3


def test_an_empty_area_does_not_score():
    image = wavy((90, 90), 3)
    image[:, 30:] = 0
    found = match(sf.rfft2(image), image.shape, uncompressed(entries()), LOW_PASS)
    y, x = (grid.ravel() for grid in np.mgrid[20:70, 50:70])
    assert np.abs(found.scores(y, x)).max() < 0.02


def test_grey_scale_and_offset_of_image_and_templates_do_not_matter():
    images, image = entries(), wavy()
    y, x = (grid.ravel() for grid in np.mgrid[12:36:4, 12:40:4])
    plain = match(sf.rfft2(image), image.shape, uncompressed(images), LOW_PASS).scores(y, x)
    scaled = match(sf.rfft2(800 * image + 300), image.shape, uncompressed(images), LOW_PASS).scores(y, x)
    np.testing.assert_allclose(scaled, plain, atol=1e-3)
    brighter = match(sf.rfft2(image), image.shape, uncompressed(0.01 * images), LOW_PASS).scores(y, x)
    np.testing.assert_allclose(brighter, plain, atol=1e-4)


@pytest.mark.parametrize("ctf", [None, CTF], ids=["plain", "ctf"])
def test_a_planted_template_scores_one_at_its_place(ctf):
    images, n = entries(), 72
    image = 1e-3 * np.random.default_rng(0).standard_normal((n, n))
    image[20:41, 30:51] += images[2]
    contrast = -1.0 if ctf is None else ctf_filter(ctf, (n, n), PIXEL)
    spectrum = np.fft.rfft2(image) * band_pass((n, n), PIXEL, LOW_PASS, None) * contrast
    found = match(spectrum, (n, n), uncompressed(images), LOW_PASS, sign=-1.0, ctf=ctf)
    y, x = (grid.ravel() for grid in np.mgrid[10:62, 10:62])
    scores = found.scores(y, x)
    top, entry = np.unravel_index(np.argmax(scores), scores.shape)
    assert (y[top], x[top], entry) == (30, 40, 2)
    assert 0.99 < scores.max() <= 1 + 1e-5
    if ctf is None:
        # white where black is sought: the worst match there is
        white = match(-spectrum, (n, n), uncompressed(images), LOW_PASS, sign=-1.0).scores(y, x)
        assert white[top, 2] < -0.99
        wanted = match(-spectrum, (n, n), uncompressed(images), LOW_PASS, sign=1.0).scores(y, x)
        assert wanted[top, 2] > 0.99


def test_a_blank_entry_scores_nothing():
    images = entries()
    images[1] = 0
    found = match(sf.rfft2(wavy()), (48, 54), uncompressed(images), LOW_PASS)
    y, x = (grid.ravel() for grid in np.mgrid[:48, :54])
    scores = found.scores(y, x)
    assert np.isfinite(scores).all()
    assert np.abs(scores[:, 1]).max() < 1e-6
