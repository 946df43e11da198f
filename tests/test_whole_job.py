"""The main job as users type it, held against truth, hand labels and RELION; the figures that pickcal promises."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from pickcal.evaluation import f1_curve, label_picks
from pickcal.formats.relion import pipeline_stem, read_coordinates_star
from pickcal.formats.star import read_star

DIAMETER = 150.0


def pickcal(folder, *words):
    """Run one command line in a folder and return what its JSON line says."""
    done = subprocess.run(
        [sys.executable, "-m", "pickcal", *map(str, words), "--json", "--quiet"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=540,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Commands of the README on twelve simulated micrographs, on a real local Dask cluster."""
    folder = tmp_path_factory.mktemp("whole")
    pickcal(folder, *["simulate", "sim", "--micrographs", "12", "--seed", "1"])
    pickcal(folder, *["import", "sim/micrographs_ctf.star", "--project", "p.zarr"])
    pickcal(folder, *["pick", "template", "p.zarr", "--templates", "sim/templates.mrcs", "--diameter", "150"])
    pickcal(folder, *["calibrate", "p.zarr", "--picks", "template"])
    pickcal(folder, *["select", "p.zarr", "--picks", "template", "--min-ncc", "0.3", "--name", "first"])
    pickcal(folder, *["export", "p.zarr", "--selection", "first", "--format", "relion", "out/"])
    return folder


@pytest.fixture(scope="module")
def found(whole):
    """Figures of all picks against the truth."""
    return pickcal(whole, *["evaluate", "p.zarr", "--picks", "template", "--truth", "sim/truth_particles.star"])


def test_one_threshold_serves_all_defoci(found):
    assert found["f1"] >= 0.97 * found["per_micrograph_best_f1"]
    assert found["per_micrograph_best_f1"] > 0.95
    for end in ("from_lowest_defocus", "from_highest_defocus"):
        raw, ours = found["transfer_loss"]["raw"][end], found["transfer_loss"]["calibrated"][end]
        assert ours <= max(raw / 4, 0.005), (end, raw, ours)
    assert abs(found["rho_defocus"]["calibrated"]) < 0.1 < abs(found["rho_defocus"]["raw"])


def test_one_probability_serves_all_defoci_better_than_any_line(found):
    sure = found["probability"]
    assert sure["f1"] >= 0.99 * found["per_micrograph_best_f1"]
    assert sure["f1"] > found["f1"]
    assert sure["average_precision"] > max(found["average_precision"], found["raw"]["average_precision"])
    for end in ("from_lowest_defocus", "from_highest_defocus"):
        assert found["transfer_loss"]["probability"][end] <= 0.01
    # with junk on the micrographs, three points above the nominal rate
    for entry in found["false_discovery"]:
        assert entry["rate"] <= entry["nominal"] + 0.03, entry
    for entry in found["reliability"]:
        assert entry["share"] < 0.01 or abs(entry["probability"] - entry["true"]) < 0.05, entry


def test_automatic_selection_refuses_ice_and_replays(whole, tmp_path):
    thresholds = tmp_path / "thresholds.toml"
    words = ["select", "p.zarr", "--picks", "template", "--auto", "--name", "auto", "--save", thresholds]
    made = pickcal(whole, *words, "--overwrite")
    assert made["thresholds"]["probability"] == 0.5 and made["thresholds"]["max_power"] > 1
    again = pickcal(
        whole,
        *["select", "p.zarr", "--picks", "template", "--thresholds", thresholds, "--name", "again", "--overwrite"],
    )
    assert again["accepted"] == made["accepted"]
    found = pickcal(whole, *["evaluate", "p.zarr", "--selection", "auto", "--truth", "sim/truth_particles.star"])
    assert found["f1"] > 0.98
    # expected and true number of false picks, as the selection itself announces them
    false = made["accepted"] * (1 - found["precision"])
    assert abs(made["expected_noise"] + made["expected_junk"] - false) < 0.02 * made["accepted"]
    pickcal(whole, *["export", "p.zarr", "--selection", "auto", "--format", "relion", tmp_path / "out"])
    picks = read_star(tmp_path / "out" / "particles.star")["particles"]
    assert picks["pickcalProbability"].min() >= 0.5
    contaminants = read_star(whole / "sim" / "contaminants.star")["contaminants"]
    ice = contaminants[contaminants["pickcalKind"] == "ice_crystal"]
    taken = 0
    for row in ice.itertuples():
        here = picks[picks["rlnMicrographName"].str.endswith(row.rlnMicrographName)]
        distance = np.hypot(here["rlnCoordinateX"] - row.rlnCoordinateX, here["rlnCoordinateY"] - row.rlnCoordinateY)
        taken += bool((2.0 * distance < row.pickcalRadius).any())
    assert len(ice) >= 5 and taken <= 0.1 * len(ice)


def test_selection_is_evaluated_at_its_own_threshold(whole):
    found = pickcal(whole, *["evaluate", "p.zarr", "--selection", "first", "--truth", "sim/truth_particles.star"])
    # 0.3 lies among the noise of this set: nearly every particle is there, with company
    assert found["recall"] > 0.98
    assert found["f1"] < found["best_threshold"]["f1"]


def test_exported_particles_are_the_true_ones(whole):
    """From the files alone: positions in source pixels against the simulator's."""
    picks = read_coordinates_star(whole / "out" / "particles.star")
    truth = read_coordinates_star(whole / "sim" / "truth_particles.star")
    near = []
    for name, rows in truth.groupby("micrograph"):
        points = picks.loc[picks["micrograph"] == name, ["x_px", "y_px"]].to_numpy(dtype=float)
        true = rows[["x_px", "y_px"]].to_numpy(dtype=float)
        near.append(np.linalg.norm(points[None] - true[:, None], axis=2).min(axis=1))
    distances = np.concatenate(near)
    assert np.median(distances) * 2.0 < 4.0
    assert (distances * 2.0 < 0.35 * DIAMETER).mean() > 0.97


def test_apoferritin_blobs(apoferritin, data, tmp_path):
    """Eight real micrographs of EMPIAR-10146 with hand labels, one of them drifted and unlabelled."""
    truth = data / "apoferritin_10146" / "truth_particles.star"
    found = pickcal(tmp_path, "evaluate", apoferritin, "--picks", "blob", "--truth", truth)
    assert found["micrographs"] == 7
    assert found["f1"] >= 0.96
    assert abs(found["rho_defocus"]["calibrated"]) < 0.1
    assert found["probability"]["f1"] >= 0.97
    # the labelled micrographs hold fewer false picks than allowed; the drifted one, which has no particles, takes the
    # rest: together they are within 3 to 7 % (docs/calibration.md)
    five = found["false_discovery"][1]
    assert five["rate"] <= 0.07 and five["recall"] > 0.95


def relion(folder, *words):
    done = subprocess.run(list(map(str, words)), cwd=folder, capture_output=True, text=True, timeout=540)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


@pytest.mark.relion
def test_relion_extracts_from_the_exported_files(whole, tmp_path):
    """RELION's own extraction cuts out as many particles as were exported."""
    if shutil.which("relion_preprocess") is None:
        pytest.skip("relion_preprocess is not installed (Debian package relion)")
    # RELION names are relative to its project folder: make that of the simulation one
    for name in ("micrographs", "micrographs_ctf.star"):
        (tmp_path / name).symlink_to(whole / "sim" / name)
    shutil.copytree(whole / "out", tmp_path / "Picks")
    command = "relion_preprocess --i micrographs_ctf.star --coord_dir Picks/ --coord_suffix _autopick.star"
    command += (
        " --part_star particles.star --part_dir Extract/ --extract --extract_size 96 --scale 32 --norm --bg_radius 12"
    )
    relion(tmp_path, *command.split())
    exported = len(read_coordinates_star(tmp_path / "Picks" / "particles.star"))
    extracted = read_star(tmp_path / "particles.star")["particles"]
    assert len(extracted) == exported > 1000


@pytest.mark.relion
@pytest.mark.nightly
def test_f1_is_no_lower_than_relions(tmp_path):
    """Same micrographs, same templates, each program at the best threshold it could have had."""
    if shutil.which("relion_autopick") is None:
        pytest.skip("relion_autopick is not installed (Debian package relion)")
    pickcal(tmp_path, *["simulate", "sim", "--micrographs", "4", "--seed", "3", "--templates", "12"])
    pickcal(tmp_path, *["import", "sim/micrographs_ctf.star", "--project", "p.zarr"])
    pickcal(tmp_path, *["pick", "template", "p.zarr", "--templates", "sim/templates.mrcs", "--diameter", "150"])
    pickcal(tmp_path, *["calibrate", "p.zarr", "--picks", "template"])
    ours = pickcal(tmp_path, *["evaluate", "p.zarr", "--picks", "template", "--truth", "sim/truth_particles.star"])
    command = "relion_autopick --i micrographs_ctf.star --odir Auto/ --pickname autopick --ref templates.mrcs"
    command += " --angpix 2 --angpix_ref 4 --particle_diameter 150 --invert --ctf --ang 5 --shrink 0 --lowpass 20"
    command += " --threshold 0 --min_distance 75 --max_stddev_noise -1"
    relion(tmp_path / "sim", *command.split())
    f1 = _relion_f1(tmp_path / "sim")
    print(f"F1: pickcal raw {ours['raw']['f1']:.4f}, calibrated {ours['f1']:.4f}; RELION {f1:.4f}")
    assert f1 > 0.8, "RELION did not run as it should"
    assert ours["f1"] >= f1


def _relion_f1(sim):
    truth = read_coordinates_star(sim / "truth_particles.star")
    scores, true, total = [], [], 0
    for name, rows in truth.groupby("micrograph"):
        table = next(iter(read_star(sim / "Auto" / f"{pipeline_stem(name)}_autopick.star").values()))
        points = table[["rlnCoordinateY", "rlnCoordinateX"]].to_numpy(dtype=float) * 2.0
        merit = table["rlnAutopickFigureOfMerit"].to_numpy(dtype=float)
        positions = rows[["y_px", "x_px"]].to_numpy(dtype=float) * 2.0
        extent = (2047 * 2.0, 2047 * 2.0)
        found = label_picks(points, merit, positions, extent, 0.35 * DIAMETER, 0.5 * DIAMETER)
        scores.append(merit[found.counted])
        true.append(found.true)
        total += found.particles
    return f1_curve(np.concatenate(scores), np.concatenate(true), total).best()
