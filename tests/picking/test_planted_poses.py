"""Particles planted between pixels and between the bank's angles, with a CTF and little noise: found where they are."""

import numpy as np
import pytest

from pickcal.picking.bank import bank_from_templates, rotate
from pickcal.picking.ctf import Ctf, ctf_filter
from pickcal.picking.filters import band_pass
from pickcal.picking.grid import search_ratio
from pickcal.picking.projection import even_angles, project
from pickcal.picking.search import SearchParameters, search
from pickcal.settings import SimulateSettings
from pickcal.simulation import simulate_particle

PIXEL, DIAMETER, LOW_PASS, SIDE, BOX = 5.0, 150.0, 20.0, 420, 41
CTF = Ctf(14000.0, 13000.0, 35.0)
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


@pytest.fixture(scope="module", params=[3, 10], ids=["every entry everywhere", "screened"])
def planted(request):
    """Picks and decoys, and what was planted: position `(x, y)` in Å, angle and template."""
    count, rng = request.param, np.random.default_rng(7)
    volume = simulate_particle(SimulateSettings(particle="asymmetric"))
    templates = np.stack([project(volume, angles, 64, 4.0) for angles in even_angles(count)]).astype(np.float32)
    ratio = search_ratio(PIXEL, LOW_PASS)
    bank = bank_from_templates(
        templates, 4.0, PIXEL * ratio[0] / ratio[1], DIAMETER, LOW_PASS, 5.0, ctf_reach=14.0, ratio=ratio
    )
    assert (bank.group is None) == (count == 3)
    image, ky, kx = np.zeros((SIDE, SIDE)), np.fft.fftfreq(BOX)[:, None], np.fft.rfftfreq(BOX)
    where, poses = [], []
    for i, (row, column) in enumerate((r, c) for r in range(50, SIDE - 40, 46) for c in range(50, SIDE - 40, 46)):
        angle, shift = rng.uniform(0, 360), rng.uniform(-0.5, 0.5, 2)
        one = rotate(templates[i % count], 4.0, PIXEL, BOX, np.array([angle], np.float32), LOW_PASS)[0]
        phase = np.exp(-2j * np.pi * (ky * shift[0] + kx * shift[1]))
        one = np.fft.irfft2(np.fft.rfft2(one) * phase, one.shape)
        image[row - BOX // 2 : row + BOX // 2 + 1, column - BOX // 2 : column + BOX // 2 + 1] += one / one.std()
        where.append(((column + shift[1]) * PIXEL, (row + shift[0]) * PIXEL))
        poses.append((angle, i % count))
    transfer = ctf_filter(CTF, image.shape, PIXEL) * band_pass(image.shape, PIXEL, LOW_PASS, None)
    image = np.fft.irfft2(np.fft.rfft2(image) * transfer, image.shape)
    image += 0.2 * image.std() * rng.standard_normal(image.shape)
    picks, decoys = search(image.astype(np.float32), PIXEL, bank, PARAMETERS, CTF)
    return picks, decoys, np.array(where), np.array(poses)


def test_positions_angles_and_templates_are_those_planted(planted):
    picks, decoys, where, poses = planted
    distance = np.hypot(picks.x[:, None] - where[:, 0], picks.y[:, None] - where[:, 1])
    nearest = distance.argmin(axis=0)
    assert sorted(nearest.tolist()) == list(range(len(where)))  # they are the best picks
    assert distance.min(axis=0).max() < 0.3 * PIXEL
    turn = np.abs((picks.angle[nearest] - poses[:, 0] + 180) % 360 - 180)
    assert turn.max() < 3
    np.testing.assert_array_equal(picks.template[nearest], poses[:, 1])
    assert picks.ncc[nearest].min() > 0.8 > decoys.ncc.max()


def test_angles_lie_between_the_steps_of_the_bank(planted):
    """Five-degree steps taken as they are would leave up to 2.5 degrees, 1.25 in the mean."""
    picks, _, where, poses = planted
    nearest = np.hypot(picks.x[:, None] - where[:, 0], picks.y[:, None] - where[:, 1]).argmin(axis=0)
    turn = np.abs((picks.angle[nearest] - poses[:, 0] + 180) % 360 - 180)
    assert np.mean(turn) < 0.6
