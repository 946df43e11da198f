"""What a screened search says of its few places, against maps of everything."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.fft as sf

from pickcal.picking.bank import bank_from_templates
from pickcal.picking.ctf import Ctf
from pickcal.picking.filters import band_pass
from pickcal.picking.interpolation import patches_between
from pickcal.picking.matching import match
from pickcal.picking.projection import even_angles, project
from pickcal.picking.refine import refine
from pickcal.picking.screening import extreme_scores
from pickcal.settings import SimulateSettings
from pickcal.simulation import simulate_particle

PIXEL, DIAMETER, LOW_PASS, SIDE = 9.0, 150.0, 20.0, 96
CTF = Ctf(13000.0, 11500.0, 40.0)


@pytest.fixture(scope="module")
def bank():
    volume = simulate_particle(SimulateSettings())
    templates = np.stack([project(volume, angles, 64, 4.0) for angles in even_angles(12)])
    return bank_from_templates(templates, 4.0, PIXEL, DIAMETER, LOW_PASS, 5.0, 0.0197 * 13000 / LOW_PASS, (9, 5))


@pytest.fixture(scope="module")
def spectrum():
    noise = np.random.default_rng(5).standard_normal((SIDE, SIDE))
    return (sf.rfft2(noise) * band_pass((SIDE, SIDE), PIXEL, LOW_PASS, 300.0)).astype(np.complex64)


@pytest.fixture(scope="module")
def both(bank, spectrum):
    """Responses of a screened search and of one whose maps hold everything."""
    assert bank.group is not None
    screened, full = (match(spectrum, (SIDE, SIDE), bank, LOW_PASS, ctf=CTF, screened=s) for s in (True, False))
    assert screened.maps.shape[2] < full.maps.shape[2] and full.whole is None
    return screened, full


def test_patches_are_those_of_a_moved_image(spectrum):
    """Against a shift by the phases of its Fourier transform, at the border too; nine taps are for what is smooth."""
    spectrum = spectrum * band_pass((SIDE, SIDE), PIXEL, 36.0, None)
    image = sf.irfft2(spectrum, (SIDE, SIDE)).astype(np.float32)
    y, x = np.array([20.3, 0.2, 95.4, 50.0]), np.array([33.7, 94.9, 3.5, 60.0])
    found = patches_between(image, y, x, 11)
    ky, kx = np.fft.fftfreq(SIDE)[:, None], np.fft.rfftfreq(SIDE)
    for i in range(len(y)):
        moved = np.fft.irfft2(spectrum * np.exp(2j * np.pi * (ky * (y[i] - 5) + kx * (x[i] - 5))), (SIDE, SIDE))
        assert np.abs(found[i] - moved[:11, :11]).max() < 0.02 * image.std()
    np.testing.assert_array_equal(found[3], image[45:56, 55:66])


def test_products_at_pixels_are_those_of_the_maps(both):
    screened, full = both
    y, x = np.array([30, 41, 60]), np.array([25, 70, 44])
    found = screened.whole.values_between(y.astype(float), x.astype(float))
    np.testing.assert_allclose(found, full.maps[y, x], atol=1e-4 * full.maps.std())


def test_products_between_pixels_are_those_of_the_maps(both):
    screened, full = both
    y, x = np.random.default_rng(1).uniform(20, 70, (2, 40))
    found = screened.whole.values_between(y, x)
    assert np.abs(found - full.values_between(y, x)).max() < 0.02 * full.maps.std()


def test_leading_images_hold_most_of_every_score(both):
    screened, full = both
    y, x = np.random.default_rng(2).integers(20, 70, (2, 200))
    one, other = screened.scores(y, x), full.scores(y, x)
    assert np.corrcoef(one.ravel(), other.ravel())[0, 1] > 0.98
    assert np.abs(one - other).max() > 1e-3  # they are not all of it


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize("grouped", [True, False], ids=["groups", "entries"])
def test_the_search_knows_whose_score_a_pixel_has(both, sign, grouped):
    """Half-turns included: against all scores, or all groups and their half-turns, one by one."""
    full = both[1]
    if not grouped:
        full = replace(full, entries=replace(full.entries, groups=None))
    window = (slice(20, 60), slice(25, 75))
    found = extreme_scores(full, window)[0 if sign > 0 else 1]
    y, x = np.nonzero(np.isfinite(found.score))
    assert len(y) > 50
    compared = full.entries.weights
    if grouped:
        turned = full.entries.groups.fine.copy()
        turned[:, turned.shape[1] - full.entries.odd :] *= -1
        compared = np.concatenate([full.entries.groups.fine, turned])
    values = full.maps[y + 20, x + 25].astype(float)
    products = sign * values @ compared.T.astype(float)
    best = products.argmax(axis=1)
    assert set(best < len(compared) // 2) == {True, False}  # either half-turn is somewhere the better one
    np.testing.assert_allclose(
        found.score[y, x], products.max(axis=1) / full.spread[y + 20, x + 25], rtol=1e-3, atol=1e-5
    )
    same = np.abs(found.weights(y, x) - compared[best]).max(axis=1) < 1e-5
    assert same.mean() > 0.99  # but for ties


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_refined_scores_are_whole(bank, both, sign):
    """Refined by few maps and the micrograph, peaks are those that refinement by all maps finds."""
    screened, full = both
    window = (slice(18, 78), slice(18, 78))
    scores = extreme_scores(full, window)[0 if sign > 0 else 1].score
    order = np.argsort(-scores, axis=None)[:12]
    y, x = (part + 18 for part in np.unravel_index(order, scores.shape))
    entry = full.entries.best_of(full.values(y, x), sign)[1]
    one, other = (refine(found, bank, y, x, found.entries.weights[entry], sign) for found in (screened, full))
    near = np.hypot(one.y - other.y, one.x - other.x) < 0.5
    assert near.sum() >= 10
    assert np.abs(one.score - other.score)[near].max() < 0.01
    assert np.abs(one.score - other.score)[near].mean() < 0.003
