"""Measure what docs/calibration.md says of probabilities and false discovery rates, and print its tables.

python tests/benchmarks/probabilities.py FOLDER [--seeds 20] [--workers 2] [--data FOLDER] [--set FOLDER]

FOLDER keeps the simulated sets (tables only, about 3 MB each), so that a second run only calibrates and evaluates; the
first takes about 10 CPU seconds a set, 320 sets for 20 seeds. `--set` names the output of the bench folder's
`make_set.py`. A set: 12 micrographs of 4096 x 4096 Å, 0.5 to 3.0 µm, 5 to 300 particles of 150 Å each, one
micrograph without particles, 10 templates.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import starfile
from numpy.typing import NDArray

from pickcal.evaluation import NOMINAL
from pickcal.project import Project
from pickcal.selection import ACCEPTED
from pickcal.settings import CalibrateSettings, EvaluateSettings, SelectSettings
from pickcal.stages.calibrate import calibrate
from pickcal.stages.evaluate import evaluate_picks, labels_of, read_truth
from pickcal.stages.select import automatic, judge, likelihoods

DEFAULT_DATA = Path(os.environ.get("PICKCAL_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
SIGNALS = (0.5, 0.62, 0.85, 1.5)
JUNK = ("--ice-crystals", "0.7", "--aggregates", "0.3", "--ice-blobs", "0.7", "--carbon", "1")
KINDS = {
    "C": ("no junk", ("--ice-crystals", "0", "--aggregates", "0", "--crowded", "0")),
    "D": ("ice crystals, aggregates, one micrograph full of particles", ()),
    "J": ("junk", (*JUNK, "--crowded", "0")),
    "S": ("junk, crowding in step with defocus", (*JUNK, "--crowding", "defocus", "--crowded", "0")),
}
SCENE = ("--micrographs", "12", "--particles-min", "5", "--particles-max", "300")
CAMERA = ("--pixel-size", "4", "--height", "1024", "--width", "1024", "--templates", "10")
ICE = ("ice_crystal", "ice_blob")

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Job:
    """One simulated set."""

    folder: Path
    kind: str
    signal: float
    seed: int


def pickcal(folder: Path, *words: str) -> None:
    """Run one command in this process's share of the machine."""
    command = [sys.executable, "-m", "pickcal", *words, "--quiet"]
    subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)


def make(job: Job) -> Path:
    """Simulate, import and pick one set, unless that is done already; the images are not kept."""
    folder = job.folder / f"{job.kind}{job.signal:g}_{job.seed}"
    if (folder / "done").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    serial = ("--cluster", "serial")
    words = (*CAMERA, *SCENE, *KINDS[job.kind][1], "--seed", str(job.seed), "--signal", str(job.signal))
    pickcal(folder, "simulate", "sim", *words, *serial)
    pickcal(folder, "import", "sim/micrographs_ctf.star", "--project", "p.zarr", *serial)
    templates = ("--templates", "sim/templates.mrcs", "--diameter", "150", "--rotation-step", "10")
    pickcal(folder, "pick", "template", "p.zarr", *templates, *serial)
    shutil.rmtree(folder / "sim" / "micrographs")
    shutil.rmtree(folder / "p.zarr" / "micrographs" / "image" / "c")
    (folder / "done").touch()
    return folder


def measure(job: Job) -> dict[str, Any]:
    """Figures of one set."""
    folder = make(job)
    project = Project.open(folder / "p.zarr", mode="r+")
    calibrate(project, "template", CalibrateSettings())
    truth = folder / "sim" / "truth_particles.star"
    out = evaluate_picks(project, "template", truth, EvaluateSettings())
    loose = evaluate_picks(project, "template", truth, EvaluateSettings(radius=0.5))
    out["false_discovery_loose"] = loose["false_discovery"]
    out.update(_empty(project, truth), **_ice(project, truth, folder / "sim" / "contaminants.star"))
    return out


def _empty(project: Project, truth: Path) -> dict[str, Any]:
    """Picks accepted at a false discovery rate of 5 % on the micrographs without particles."""
    reasons = judge(project, "template", SelectSettings(fdr=0.05))
    labels, order = labels_of(project, "template", read_truth(project, truth), EvaluateSettings())
    empty = [i for entry, i in zip(labels, order, strict=True) if entry.particles == 0]
    return {"empty": [int((reasons[i] == ACCEPTED).sum()) for i in empty]}


def _ice(project: Project, truth: Path, contaminants: Path) -> dict[str, Any]:
    """Pieces of ice that `select --auto` accepts a pick on, and particles it loses to the junk component."""
    settings = automatic(project, "template", SelectSettings())
    reasons = judge(project, "template", settings)
    picks = project.picks("template").load()
    micrographs = project.table()
    likelihood = likelihoods(project, "template", picks, micrographs)
    assert likelihood is not None
    accepted, diameter = reasons == ACCEPTED, float(picks.attrs["diameter"])
    labels, order = labels_of(project, "template", read_truth(project, truth), EvaluateSettings())
    true = np.zeros(reasons.shape, dtype=bool)
    for entry, i in zip(labels, order, strict=True):
        true[i, entry.counted[entry.true]] = True
    probability, junk = likelihood["probability"].values, likelihood["junk"].values
    without_junk = probability / np.maximum(1 - junk, 1e-9) >= 0.5
    out = {"kept": int((true & accepted).sum()), "lost_to_junk": int((true & without_junk & ~accepted).sum())}
    pieces = found = 0
    table = starfile.read(contaminants, always_dict=True)["contaminants"]
    for row in table[table["pickcalKind"].isin(ICE)].itertuples():
        i = int(np.flatnonzero(micrographs["name"].values == row.rlnMicrographName)[0])
        pixel = float(micrographs["source_pixel_size"].values[i])
        x, y = picks["x"].values[i] - row.rlnCoordinateX * pixel, picks["y"].values[i] - row.rlnCoordinateY * pixel
        pieces += 1
        found += bool((accepted[i] & ~true[i] & (np.hypot(x, y) < row.pickcalRadius + 0.25 * diameter)).any())
    return {**out, "ice": pieces, "ice_accepted": found}


def mean(values: Sequence[float]) -> float:
    """Mean over sets."""
    return float(np.mean(values))


def spread(values: Sequence[float]) -> float:
    """Return the standard error of the mean over sets."""
    return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else float("nan")


def f1_row(title: str, sets: Sequence[dict[str, Any]]) -> str:
    """F1 and average precision, raw, median line, probability."""
    own = [s["per_micrograph_best_f1"] for s in sets]
    sure = [s["probability"]["f1"] for s in sets]
    worst = min(a / b for a, b in zip(sure, own, strict=True))
    better = sum(s["probability"]["f1"] > s["f1"] for s in sets)
    precise = sum(
        s["probability"]["average_precision"] > max(s["average_precision"], s["raw"]["average_precision"]) for s in sets
    )
    cells = [
        title,
        f"{mean(own):.3f}",
        f"{mean([s['raw']['f1'] for s in sets]):.3f} / {mean([s['f1'] for s in sets]):.3f} / {mean(sure):.3f}",
        f"{worst:.3f}",
        f"{better} of {len(sets)}",
        " / ".join(
            f"{mean([(s[key] if key else s)['average_precision'] for s in sets]):.3f}"
            for key in ("raw", "", "probability")
        ),
        f"{precise} of {len(sets)}",
    ]
    return "| " + " | ".join(cells) + " |"


def fdr_row(title: str, sets: Sequence[dict[str, Any]]) -> str:
    """True rates and recall at the nominal ones; strict and loose matching."""
    cells = [title]
    for k in range(len(NOMINAL)):
        strict, loose = ([s[key][k] for s in sets] for key in ("false_discovery", "false_discovery_loose"))
        rates = [100 * entry["rate"] for entry in strict]
        loose_rates = [100 * entry["rate"] for entry in loose]
        cells.append(f"{mean(rates):.1f} ± {spread(rates):.1f} ({mean(loose_rates):.1f} ± {spread(loose_rates):.1f})")
        cells.append(f"{mean([e['recall'] for e in strict]):.3f} / {mean([e['oracle_recall'] for e in strict]):.3f}")
    cells.append(f"{mean([n for s in sets for n in s['empty']]):.2f}")
    return "| " + " | ".join(cells) + " |"


def ice_row(title: str, sets: Sequence[dict[str, Any]]) -> str:
    """Ice accepted and particles lost by `select --auto`."""
    pieces, accepted = sum(s["ice"] for s in sets), sum(s["ice_accepted"] for s in sets)
    kept, lost = sum(s["kept"] for s in sets), sum(s["lost_to_junk"] for s in sets)
    return f"| {title} | {accepted} of {pieces} | {lost} of {kept + lost} ({100 * lost / (kept + lost):.2f} %) |"


def reliability_row(title: str, sets: Sequence[dict[str, Any]]) -> str:
    """Per tenth of probability: what came true; the largest departure where more than 1 % of the picks are."""
    bins: dict[int, list[tuple[float, float, float]]] = {}
    for found in sets:
        for entry in found["reliability"]:
            place = min(int(entry["probability"] * 10), 9)
            bins.setdefault(place, []).append((entry["share"], entry["probability"], entry["true"]))
    cells, worst = [title], 0.0
    for place in range(10):
        share, chance, true = np.array(bins.get(place, [(0.0, 0.0, 0.0)])).T
        total = float(share.sum())
        p, t = (float((share * v).sum()) / max(total, 1e-12) for v in (chance, true))
        part = total / len(sets)
        cells.append(f"{p:.2f}: {t:.2f} ({100 * part:.1f} %)")
        if part > 0.01:
            worst = max(worst, abs(p - t))
    return "| " + " | ".join([*cells, f"{worst:.3f}"]) + " |"


def real(data: Path, scratch: Path) -> str:
    """Apoferritin: true rates at the nominal ones, on labelled micrographs and with the drifted one, which has none."""
    source = data / "apoferritin_10146"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    pickcal(scratch, "import", str(source / "micrographs_ctf.star"), "--project", "p.zarr")
    pickcal(scratch, "pick", "blob", "p.zarr", "--diameter-min", "130", "--diameter-max", "130")
    project = Project.open(scratch / "p.zarr", mode="r+")
    calibrate(project, "blob", CalibrateSettings())
    truth = source / "truth_particles.star"
    found = evaluate_picks(project, "blob", truth, EvaluateSettings())
    labels, order = labels_of(project, "blob", read_truth(project, truth), EvaluateSettings())
    lines = []
    for entry in found["false_discovery"]:
        reasons = judge(project, "blob", SelectSettings(fdr=entry["nominal"]))
        accepted = reasons == ACCEPTED
        counted = sum(int(accepted[i, e.counted].sum()) for e, i in zip(labels, order, strict=True))
        false = sum(int(accepted[i, e.counted[~e.true]].sum()) for e, i in zip(labels, order, strict=True))
        drifted = int(accepted[np.setdiff1d(np.arange(project.count), order)].sum())
        lines.append(
            f"| {entry['nominal']:.0%} | {100 * false / counted:.1f} % ({false} of {counted}) | "
            f"{100 * (false + drifted) / (counted + drifted):.1f} % ({drifted} more on the drifted one) | "
            f"{entry['recall']:.3f} |"
        )
    head = (
        "| nominal | true, seven labelled micrographs | with the drifted one, all false | recall |\n|---|---|---|---|\n"
    )
    return head + "\n".join(lines)


def bench_set(folder: Path, scratch: Path) -> str:
    """Ice blobs of `make_set.py` that `select --auto` accepts, of 48."""
    known = np.load(folder / "truth.npz", allow_pickle=False)
    lines = ["| micrographs | ice blobs accepted | precision | recall |", "|---|---|---|---|"]
    for name in ("mic", "hard"):
        place = scratch / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        pickcal(place, "import", str(folder / f"{name}_ctf.star"), "--root", str(folder), "--project", "p.zarr")
        pick = ("--templates", str(folder / "refs_10.mrcs"), "--diameter", "150")
        pickcal(place, "pick", "template", "p.zarr", *pick)
        project = Project.open(place / "p.zarr", mode="r+")
        calibrate(project, "template", CalibrateSettings())
        reasons = judge(project, "template", automatic(project, "template", SelectSettings()))
        accepted, picks = reasons == ACCEPTED, project.dataset("picks/template").load()
        labels, order = labels_of(
            project, "template", read_truth(project, folder / f"{name}_truth.star"), EvaluateSettings()
        )
        true = np.zeros(accepted.shape, dtype=bool)
        for entry, i in zip(labels, order, strict=True):
            true[i, entry.counted[entry.true]] = True
        ice = 0
        for i in range(project.count):
            for x, y, _size in known[f"con_{i}"]:
                near = np.hypot(picks["x"].values[i] - x, picks["y"].values[i] - y) < 75
                ice += bool((near & accepted[i] & ~true[i]).any())
        counted = sum(int(accepted[i, e.counted].sum()) for e, i in zip(labels, order, strict=True))
        found, total = int((true & accepted).sum()), sum(e.particles for e in labels)
        lines.append(f"| {name} | {ice} of 48 | {found / counted:.3f} | {found / total:.3f} |")
    return "\n".join(lines)


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--set", type=Path, default=None)
    options = parser.parse_args()
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    folder = options.folder.absolute()
    jobs = [Job(folder, k, s, seed) for seed in range(1, options.seeds + 1) for s in SIGNALS for k in KINDS]
    with ProcessPoolExecutor(options.workers) as pool:
        found = list(pool.map(measure, jobs))
    groups = [
        (
            f"{KINDS[kind][0]}, signal {signal:g}",
            kind,
            [f for j, f in zip(jobs, found, strict=True) if (j.kind, j.signal) == (kind, signal)],
        )
        for kind in KINDS
        for signal in SIGNALS
    ]
    print(
        f"{date.today()}, {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, "
        f"{options.seeds} seeds\n"
    )
    titles = [
        "sets",
        "F1, own thresholds",
        "F1 raw / line / probability",
        "least ratio to own",
        "above the line in",
        "average precision raw / line / probability",
        "above both in",
    ]
    _table(titles, [f1_row(title, sets) for title, _, sets in groups])
    titles = ["sets"]
    for nominal in NOMINAL:
        titles += [f"true rate at {nominal:.0%}, %", "recall / oracle"]
    _table([*titles, "accepted on an empty micrograph at 5 %"], [fdr_row(title, sets) for title, _, sets in groups])
    _table(
        ["sets", "pieces of ice accepted by --auto", "particles lost to the junk component"],
        [ice_row(title, sets) for title, kind, sets in groups if kind != "C"],
    )
    _table(
        ["sets", *(f"{i / 10:.1f}" for i in range(10)), "largest departure"],
        [reliability_row(title, sets) for title, _, sets in groups],
    )
    if (options.data / "apoferritin_10146").is_dir():
        print(real(options.data, folder / "apoferritin") + "\n")
    if options.set is not None:
        print(bench_set(options.set.absolute(), folder / "bench"))


def _table(titles: Sequence[str], rows: Sequence[str]) -> None:
    print("| " + " | ".join(titles) + " |\n|" + "---|" * len(titles))
    print("\n".join(rows) + "\n", flush=True)


if __name__ == "__main__":
    main()
