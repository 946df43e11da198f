"""What a screened search says of its few places, against maps of everything."""

from dataclasses import replace

import numpy as np
import pytest
import scipy.fft as sf

from pickcal.picking import entries as comparing
from pickcal.picking.bank import bank_from_templates
from pickcal.picking.ctf import Ctf
from pickcal.picking.entries import Entries
from pickcal.picking.filters import band_pass
from pickcal.picking.interpolation import highest_of_patch, interpolate, patches_between, peak_of_patch
from pickcal.picking.matching import Responses, match
from pickcal.picking.peaks import local_maxima
from pickcal.picking.projection import even_angles, project
from pickcal.picking.refine import LEAST_GROUP, NEAR, TRIED, best_at, best_entries, highest_near
from pickcal.picking.screening import extreme_scores, worth_a_look
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


def test_peaks_of_patches_are_the_highest_places_between_their_pixels(spectrum):
    """Against values of the whole map, interpolated at each place of a grid of its own."""
    image = sf.irfft2(spectrum, (SIDE, SIDE)).astype(np.float32)
    y, x = np.array([20, 33, 47, 61]), np.array([30, 71, 25, 58])
    ring = np.arange(-4, 5)
    patches = image[(y[:, None] + ring)[:, :, None], (x[:, None] + ring)[:, None, :]]
    dy, dx, value = peak_of_patch(patches)
    np.testing.assert_allclose(interpolate(image[:, :, None], y + dy, x + dx)[:, 0], value, atol=0.01 * image.std())
    for step, highest, within in ((4, highest_of_patch(patches), 0.01), (8, value, 0.02)):
        offsets = np.arange(-step, step + 1) / step
        for i in range(len(y)):
            places = [(y[i] + a, x[i] + b) for a in offsets for b in offsets]
            about = interpolate(image[:, :, None], *np.array(places).T)[:, 0]
            assert highest[i] == pytest.approx(about.max(), abs=within * float(image.std()))


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
def test_entries_of_the_likeliest_groups(both, monkeypatch, sign):
    """As with 200 templates. All groups: against every entry; four: never more, and in noise, where none stands out,
    all of it at nine places in ten, and less than nine tenths at less than one in a hundred."""
    full = both[1]
    values = full.maps[20 : SIDE - 20, 20 : SIDE - 20].reshape(-1, full.maps.shape[2])
    every = sign * values @ full.entries.weights.T
    monkeypatch.setattr(comparing, "MANY", 0)
    found = {}
    for likely in (comparing.LIKELY, len(full.entries.groups.means)):
        monkeypatch.setattr(comparing, "LIKELY", likely)
        found[likely], entry = full.entries.best_of(values, sign)
        np.testing.assert_allclose(every[np.arange(len(values)), entry], found[likely], rtol=1e-4)
    four, everyone = found.values()
    np.testing.assert_allclose(everyone, every.max(axis=1), rtol=1e-4)
    share = four / every.max(axis=1)
    assert share.max() < 1.0001 and (share > 0.9999).mean() > 0.9
    assert (share < 0.9).mean() < 0.01 and share.mean() > 0.995


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
        turned = full.entries.groups.means.copy()
        turned[:, turned.shape[1] - full.entries.odd :] *= -1
        compared = np.concatenate([full.entries.groups.means, turned])
    values = full.maps[y + 20, x + 25].astype(float)
    products = sign * values @ compared.T.astype(float)
    best = products.argmax(axis=1)
    assert set(best < len(compared) // 2) == {True, False}  # either half-turn is somewhere the better one
    np.testing.assert_allclose(
        found.score[y, x], products.max(axis=1) / full.spread[y + 20, x + 25], rtol=1e-3, atol=1e-5
    )
    assert (found.row[y, x] == best).mean() > 0.99  # but for ties


@pytest.fixture(scope="module", params=[1.0, -1.0], ids=["picks", "decoys"])
def peaks(request, both):
    """The sign, and the score map of a window with its corner and its local maxima, where a search looks."""
    window = (slice(18, 78), slice(18, 78))
    looked = worth_a_look(both[1], window, DIAMETER / PIXEL)
    found = extreme_scores(both[1], window, looked)[0 if request.param > 0 else 1]
    y, x = local_maxima(found.score)
    assert len(y) > 30
    return request.param, found, (18, 18), y, x


def test_scores_at_peaks_are_whole(bank, both, peaks):
    """Found by few maps and scored by the micrograph, peaks are those that are found and scored by all maps."""
    sign, found, corner, y, x = peaks
    places = [highest_near(responses, found, corner, y, x, sign)[:2] for responses in both]
    one, other = (best_at(responses, bank, *place, sign)[0] for responses, place in zip(both, places, strict=True))
    near = np.hypot(*np.subtract(*places)) < 0.5
    strongest = np.argsort(-found.score[y, x])[:12]
    assert near.mean() > 0.8 and near[strongest].sum() >= 10
    gap = np.abs(one - other)
    assert gap[near].max() < 0.03 and gap[strongest][near[strongest]].max() < 0.01
    assert gap[near].mean() < 0.003


@pytest.mark.parametrize("grouped", [True, False], ids=["groups", "entries"])
def test_the_best_entries_about_a_peak_are_those_of_a_naive_loop(both, peaks, grouped):
    """At every pixel whose group scores nearly what the peak's does, the group's best member; no entry twice."""
    sign, found, corner, y, x = peaks
    full = both[1]
    if not grouped:
        full = replace(full, entries=replace(full.entries, groups=None))
        found = extreme_scores(full, (slice(18, 78), slice(18, 78)))[0 if sign > 0 else 1]
        y, x = y[:8], x[:8]
    score, entry, row, column = best_entries(full, found, corner, y, x, sign)
    half = full.entries.half
    for i in range(len(y)):
        best = {}
        for py in range(max(y[i] - NEAR, 0), min(y[i] + NEAR + 1, 60)):
            for px in range(max(x[i] - NEAR, 0), min(x[i] + NEAR + 1, 60)):
                if not found.score[py, px] >= np.float32(LEAST_GROUP) * found.score[y[i], x[i]]:
                    continue
                members = np.arange(half)
                if grouped:
                    groups = full.entries.groups
                    group = found.row[py, px] % len(groups.means)
                    members = groups.members[groups.starts[group] : groups.starts[group + 1]]
                else:
                    members = np.array([found.row[py, px] % half])
                members = np.concatenate([members, members + half])
                where = (np.array([py + 18]), np.array([px + 18]))
                scores = sign * full.scores(*where)[0, members]
                value, which = scores.max(), int(members[scores.argmax()])
                if value > best.get(which, (-np.inf,))[0]:
                    best[which] = (value, py, px)
        expected = sorted(((*place, which) for which, place in best.items()), reverse=True)[:TRIED]
        count = len(expected)
        assert (entry[i] >= 0).sum() == count
        np.testing.assert_allclose(score[i, :count], [place[0] for place in expected], rtol=1e-4)
        assert [*zip(row[i, :count], column[i, :count], entry[i, :count], strict=True)] == [e[1:] for e in expected]


def test_no_entry_near_by_scores_more_than_a_refined_peak(bank, both, peaks):
    """Against every entry at every pixel about a peak, in noise, where groups tell least: rarely, and not by much."""
    sign, found, corner, y, x = peaks
    full = both[1]
    score = best_at(full, bank, *highest_near(full, found, corner, y, x, sign)[:2], sign)[0]
    ring = np.arange(-1, 2)
    around = []
    for py, px in zip(y + corner[0], x + corner[1], strict=True):
        rows, columns = (part.ravel() for part in np.meshgrid(py + ring, px + ring, indexing="ij"))
        around.append((sign * full.scores(rows, columns)).max())
    short = np.array(around) - score
    assert (short > 0.005).mean() < 0.25 and short.max() < 0.1
    assert np.median(short) < -0.005  # between pixels and angles there is more


def test_peaks_below_0_stay_where_they_are():
    """A bank of one entry, whose score has a maximum below 0 too: nothing is looked for elsewhere."""
    rng = np.random.default_rng(3)
    smooth = band_pass((SIDE, SIDE), PIXEL, 30.0, 200.0)
    image = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((SIDE, SIDE))) * smooth, (SIDE, SIDE)).astype(np.float32)
    one = Entries(np.ones((1, 1), np.float32), 1, 0, np.ones(1, np.float32), None)
    low = image - image.max() - 1
    responses = Responses(low[:, :, None], one, np.ones((SIDE, SIDE), np.float32))
    peaks = extreme_scores(responses, (slice(10, 80), slice(10, 80)))[0]
    y, x = local_maxima(peaks.score)
    inside = (np.minimum(y, x) >= 4) & (np.maximum(y, x) < 66)
    y, x = y[inside], x[inside]
    assert len(y) > 20 and (peaks.score[y, x] < 0).all()
    found_y, found_x, score = highest_near(responses, peaks, (10, 10), y, x, 1.0)
    assert np.hypot(found_y - y - 10, found_x - x - 10).max() <= np.sqrt(2) * (NEAR + 1)
    assert (score >= peaks.score[y, x] - 1e-5).all()
