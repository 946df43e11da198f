"""Measure the figures that README and docs/design.md quote, and print them as a Markdown table.

python tests/benchmarks/figures.py [--data FOLDER] [--seeds 1 2 3 4]   (about two minutes a seed on two cores)

Simulated sets: 12 micrographs of 2048 x 2048 pixels, 0.5 to 3.0 µm, 20 templates; one threshold for all micrographs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

DEFAULT_DATA = Path(os.environ.get("PICKCAL_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))


def pickcal(folder: Path, *words: str) -> dict[str, Any]:
    """Run one command and return its JSON."""
    command = [sys.executable, "-m", "pickcal", *words, "--json", "--quiet"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])  # type: ignore[no-any-return]


def simulated(seed: int, *extra: str) -> dict[str, Any]:
    """Figures of one simulated set."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pickcal(folder, "simulate", "sim", "--micrographs", "12", "--seed", str(seed), *extra)
        pickcal(folder, "import", "sim/micrographs_ctf.star", "--project", "p.zarr")
        pickcal(folder, "pick", "template", "p.zarr", "--templates", "sim/templates.mrcs", "--diameter", "150")
        pickcal(folder, "calibrate", "p.zarr", "--picks", "template")
        return pickcal(folder, "evaluate", "p.zarr", "--picks", "template", "--truth", "sim/truth_particles.star")


def apoferritin(data: Path) -> dict[str, Any]:
    """Figures of the hand-labelled micrographs of EMPIAR-10146, picked with blobs of 130 Å."""
    source = data / "apoferritin_10146"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        pickcal(folder, "import", str(source / "micrographs_ctf.star"), "--project", "p.zarr")
        pickcal(folder, "pick", "blob", "p.zarr", "--diameter-min", "130", "--diameter-max", "130")
        pickcal(folder, "calibrate", "p.zarr", "--picks", "blob")
        truth = str(source / "truth_particles.star")
        return pickcal(folder, "evaluate", "p.zarr", "--picks", "blob", "--truth", truth)


def row(title: str, found: dict[str, Any]) -> str:
    """One line of the table: raw / calibrated / probability."""
    loss, rho = found["transfer_loss"], found["rho_defocus"]
    scores = (found["raw"], found, found["probability"])
    f1, precision = (" / ".join(f"{one[name]:.4f}" for one in scores) for name in ("f1", "average_precision"))
    losses = (
        " / ".join(f"{loss[score][f'from_{end}_defocus']:.4f}" for score in ("raw", "calibrated", "probability"))
        for end in ("lowest", "highest")
    )
    correlation = f"{rho['raw']:+.2f} / {rho['calibrated']:+.2f}"
    cells = [title, f1, f"{found['per_micrograph_best_f1']:.4f}", precision, *losses, correlation]
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DEFAULT_DATA)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4])
    options = parser.parse_args()
    print(f"{date.today()}, {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}\n")
    titles = ["data", "F1", "F1, own thresholds", "average precision", "loss from lowest", "loss from highest", "rho"]
    print("| " + " | ".join(titles) + " |\n|" + "---|" * len(titles))
    for seed in options.seeds:
        print(row(f"simulated, seed {seed}", simulated(seed)), flush=True)
    clean = ("--ice-crystals", "0", "--aggregates", "0")
    print(
        row(f"seed {options.seeds[0]} without crystals and aggregates", simulated(options.seeds[0], *clean)), flush=True
    )
    junk = ("--carbon", "1", "--ice-crystals", "2", "--aggregates", "1")
    print(
        row(f"seed {options.seeds[0]} with carbon and three times the junk", simulated(options.seeds[0], *junk)),
        flush=True,
    )
    if (options.data / "apoferritin_10146").is_dir():
        print(row("apoferritin, real", apoferritin(options.data)), flush=True)


if __name__ == "__main__":
    main()
