"""Evaluation of stored picks and selections: what is matched with what, and what is said where picks have no score."""

import numpy as np
import pandas as pd
import pytest
from planted import DIAMETER, PARTICLE, plant, planted_project
from scipy.spatial.distance import cdist

from pickcal.formats.star import write_star
from pickcal.present import render
from pickcal.settings import CalibrateSettings, EvaluateSettings, SelectSettings
from pickcal.stages.calibrate import calibrate
from pickcal.stages.evaluate import evaluate_picks, evaluate_selection
from pickcal.stages.select import likelihoods, select

FAST = CalibrateSettings(bootstrap=0)
PIXEL = 5.0


def project_and_truth(folder, planted):
    """Store planted picks; the truth is where the particles were planted."""
    planted.micrographs["source_pixel_size"] = planted.micrographs["pixel_size"]
    project = planted_project(folder / "p.zarr", planted)
    rows, places = np.nonzero(planted.kind == PARTICLE)
    table = {
        "rlnMicrographName": planted.micrographs["name"].values[rows],
        "rlnCoordinateX": planted.picks["x"].values[rows, places] / PIXEL,
        "rlnCoordinateY": planted.picks["y"].values[rows, places] / PIXEL,
    }
    write_star(folder / "truth.star", {"particles": pd.DataFrame(table)})
    return project, folder / "truth.star"


def twins(planted):
    """Add to every particle's pick one of the highest score and of much power, 20 Å beside the particle."""
    picks = planted.picks
    for row, kinds in enumerate(planted.kind):
        particles, others = np.flatnonzero(kinds == PARTICLE), np.flatnonzero(kinds == 0)
        for mine, twin in zip(particles, others, strict=False):
            for axis, step in (("x", 20.0), ("y", 0.0)):
                picks[axis].values[row, twin] = picks[axis].values[row, mine] + step
            picks["ncc"].values[row, twin], picks["power"].values[row, twin] = 0.9, 1000.0
    return planted


def test_a_rejected_pick_takes_no_particle_from_the_selection(tmp_path):
    """Beside each particle's own pick is one of higher score that the selection rejects by its power."""
    planted = twins(plant(micrographs=4, particle_count=lambda um: 20.0))
    project, truth = project_and_truth(tmp_path, planted)
    names = planted.micrographs["name"].values
    select(project, "template", "clean", SelectSettings(max_power=100.0, raw=True))
    found = evaluate_selection(project, "clean", truth, EvaluateSettings())
    inside = inner(planted)
    left = inside & (planted.picks["power"].values <= 100.0)
    assert found["particles"] == (inside & (planted.kind == PARTICLE)).sum()
    assert found["recall"] == 1
    assert found["accepted"] == left.sum()
    assert found["precision"] == pytest.approx((left & (planted.kind == PARTICLE)).sum() / left.sum())
    assert len(names) == found["micrographs"] == 4


def inner(planted):
    """Picks that count: at least half a diameter from the centres of the outermost pixels."""
    x, y = planted.picks["x"].values, planted.picks["y"].values
    low, high = 0.5 * DIAMETER, (1400 - 1) * PIXEL - 0.5 * DIAMETER
    return (planted.kind >= 0) & (x >= low) & (x <= high) & (y >= low) & (y <= high)


def greedy(points, scores, particles, reach):
    """Which picks take a particle: best first, each the nearest that is free."""
    apart, taken = cdist(points, particles), np.zeros(len(points), dtype=bool)
    for i in np.argsort(-scores, kind="stable"):
        j = int(np.argmin(apart[i]))
        if apart[i, j] <= reach:
            taken[i], apart[:, j] = True, np.inf
    return taken


def test_probabilities_are_matched_by_themselves(tmp_path):
    """Picks so near to each other that several reach a particle: F1 at the best probability, counted again."""
    planted = plant(micrographs=8)
    for axis in ("x", "y"):
        planted.picks[axis].values[:] *= 0.5
        planted.picks[f"decoy_{axis}"].values[:] *= 0.5
    project, truth = project_and_truth(tmp_path, planted)
    calibrate(project, "template", FAST)
    found = evaluate_picks(project, "template", truth, EvaluateSettings(radius=1.0))
    dataset = project.picks("template").load()
    chances = likelihoods(project, "template", dataset, project.table())["probability"].values
    inside, scored = inner(planted), {}
    assert inside.sum() == (planted.kind >= 0).sum(), "none is at the border"
    for name, scores in (("probability", chances), ("raw", dataset["ncc"].values)):
        values, true = [], []
        for row, kinds in enumerate(planted.kind):
            there = np.flatnonzero(kinds >= 0)
            points = np.column_stack([planted.picks[axis].values[row, there] for axis in ("x", "y")])
            values.append(scores[row, there])
            true.append(greedy(points, values[-1], points[kinds[there] == PARTICLE], DIAMETER))
        values, true = np.concatenate(values), np.concatenate(true)
        total = (planted.kind == PARTICLE).sum()
        scored[name] = max(
            2 * true[values >= level].sum() / ((values >= level).sum() + total) for level in np.unique(values)
        )
        assert found[name]["f1"] == pytest.approx(scored[name])
    assert scored["probability"] != pytest.approx(scored["raw"])


def test_picks_without_any_score_have_no_figures_of_thresholds(tmp_path):
    """As those of a list by hand: precision, recall and F1 are the list's own."""
    planted = plant(micrographs=4)
    planted.picks["ncc"].values[:] = np.nan
    project, truth = project_and_truth(tmp_path, planted)
    found = evaluate_picks(project, "template", truth, EvaluateSettings())
    inside = inner(planted)
    particles, count = (inside & (planted.kind == PARTICLE)).sum(), inside.sum()
    assert found["picks_counted"] == found["picks_without_score"] == count
    assert found["precision"] == pytest.approx(particles / count) and found["recall"] == 1
    assert found["f1"] == pytest.approx(2 * particles / (count + particles))
    for name in ("threshold", "average_precision", "per_micrograph_best_f1"):
        assert found[name] is None
    for losses in found["transfer_loss"].values():
        assert losses == {"from_lowest_defocus": None, "from_highest_defocus": None}
    text = render(found)
    assert "no pick has a score: figures are of all picks together" in text
    assert "nan" not in text and "inf" not in text


def test_some_picks_without_a_score_come_last(tmp_path):
    """Without the scores of all noise, the scores that are left separate perfectly."""
    planted = plant(micrographs=4)
    planted.picks["ncc"].values[planted.kind == 0] = np.nan
    project, truth = project_and_truth(tmp_path, planted)
    found = evaluate_picks(project, "template", truth, EvaluateSettings())
    inside = inner(planted)
    assert found["picks_without_score"] == (inside & (planted.kind == 0)).sum() > 0
    for name in ("precision", "recall", "f1", "average_precision", "per_micrograph_best_f1"):
        assert found[name] == pytest.approx(1)
    assert found["threshold"] == pytest.approx(planted.picks["ncc"].values[inside & (planted.kind == PARTICLE)].min())
    text = render(found)
    assert f"{found['picks_without_score']} of {found['picks_counted']} picks have no score" in text
