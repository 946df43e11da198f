"""The search with all its shortcuts against one without any, on many particles: some minutes, so nightly."""

import numpy as np
import pytest

from pickcal.picking.bank import bank_from_templates
from pickcal.picking.grid import search_ratio
from pickcal.picking.projection import even_angles, project
from pickcal.picking.search import SearchParameters, search
from pickcal.settings import SimulateSettings
from pickcal.simulation import simulate_micrograph, simulate_particle
from tests.exhaustive import accuracy, exhaustive_scores, judged, naive_picks

PIXEL, DIAMETER, LOW_PASS, STEP, TEMPLATES = 5.0, 150.0, 20.0, 5.0, 8
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


LOST = (
    "asked 0.002; of the average precision 0.009 is lost, while F1 is 0.009 higher (eight sets, "
    "tests/benchmarks/search_losses.py), where F1 is 0.47: of the lowest picks, of which the slow search has more, "
    "some are particles; docs/design.md"
)


@pytest.mark.nightly
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(
    "signal",
    [
        pytest.param(0.8, id="easy"),
        pytest.param(0.35, id="hard", marks=pytest.mark.xfail(reason=LOST, strict=False)),
    ],
)
def test_shortcuts_cost_no_accuracy(signal):
    """F1 and average precision of one threshold for all micrographs, within 0.002, or better."""
    settings = SimulateSettings(
        micrographs=4,
        pixel_size=PIXEL,
        height=820,
        width=820,
        defocus=(9000, 14000, 20000, 27000),
        particles_min=260,
        particles_max=260,
        empty=0,
        crowded=0,
        ice_crystals=0,
        aggregates=0,
        signal=signal,
        seed=11,
    )
    volume = simulate_particle(settings)
    templates = np.stack([project(volume, angles, 64, 4.0) for angles in even_angles(TEMPLATES)])
    ratio = search_ratio(PIXEL, LOW_PASS)
    coarse = PIXEL * ratio[0] / ratio[1]
    reach = 0.0197 * 27000 / LOW_PASS
    bank = bank_from_templates(templates, 4.0, coarse, DIAMETER, LOW_PASS, STEP, reach, ratio)
    fine = bank_from_templates(templates, 4.0, PIXEL, DIAMETER, LOW_PASS, STEP, reach)
    assert bank.group is not None
    ways, particles = {"fast": [], "slow": []}, 0
    for i in range(4):
        made = simulate_micrograph(settings, i)
        truth, ctf = made.scene.positions[:, ::-1] * PIXEL, made.scene.ctf
        picks, _ = search(made.image, PIXEL, bank, PARAMETERS, ctf)
        ways["fast"].append(judged(np.column_stack([picks.y, picks.x]), picks.ncc, truth, DIAMETER / 4))
        scores = exhaustive_scores(made.image, PIXEL, templates, 4.0, STEP, fine, PARAMETERS, ctf)
        ways["slow"].append(judged(*naive_picks(scores, PIXEL, PARAMETERS), truth, DIAMETER / 4))
        particles += len(truth)
    found = {
        way: accuracy(*(np.concatenate(part) for part in zip(*judgements, strict=True)), particles)
        for way, judgements in ways.items()
    }
    print(f"{particles} particles: F1 and average precision", found)
    assert particles > 800 and 0.3 < found["slow"][0] < 0.999
    assert found["fast"][0] >= found["slow"][0] - 0.002
    assert found["fast"][1] >= found["slow"][1] - 0.002
