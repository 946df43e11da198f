"""Hold filters against each other on the sets of the benchmark, and print a table.

python tests/benchmarks/filters.py WORK [--set SET] [--own]

F1 and average precision by probability and of raw scores, ice that is accepted, of 50 templates and of blobs: with the
defaults, with and without whitening, with a high-pass of two diameters instead of three, and blobs with a low-pass of
40 Å. SET is what `make bench` takes as well; `--own` adds the set that pickcal simulates.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks.pickers.pickcal_runs import calibrated_accuracy, job, picking
from tests.benchmarks.pickers.sets import DIAMETER, BenchmarkSet, given_set, own_set

TWO = ("--high-pass", f"{2 * DIAMETER:g}")
WAYS = {
    "template": {"defaults": (), "high-pass of two diameters": TWO, "not whitened": ("--no-whiten",)},
    "blob": {
        "defaults": (),
        "high-pass of two diameters": TWO,
        "low-pass of 40 Å": ("--low-pass", "40"),
        "whitened": ("--whiten",),
    },
}


def rows(made: BenchmarkSet, work: Path) -> None:
    """Print the rows of one set."""
    for kind, half in made.halves.items():
        project = job(half, 4, work / f"filters-{made.name}-{kind}")
        for method, ways in WAYS.items():
            for i, (way, words) in enumerate(ways.items()):
                name = f"{method}{i}"
                project.pick((*picking(half, method), *words), name)
                found = calibrated_accuracy(half, project, name)
                chance, raw = found["probability"], found["raw"]
                print(
                    f"| {made.name}, {kind} | {method} | {way} | {chance.f1:.3f} | {chance.average_precision:.3f} "
                    f"| {raw.f1:.3f} | {chance.ice} of {chance.ice_blobs} |",
                    flush=True,
                )
        project.remove()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path, help="folder for projects and for the simulated set")
    parser.add_argument("--set", type=Path, dest="given", help="a set that another program made")
    parser.add_argument("--own", action="store_true", help="also the set that pickcal simulates")
    options = parser.parse_args()
    if options.given is None and not options.own:
        parser.error("expected --set or --own, or both")
    options.work.mkdir(parents=True, exist_ok=True)
    print("| set | picker | filters | F1 | average precision | F1, raw scores | ice accepted |")
    print("|---|---|---|---|---|---|---|")
    if options.given is not None:
        rows(given_set(options.given, options.work, None), options.work)
    if options.own:
        rows(own_set(options.work), options.work)


if __name__ == "__main__":
    main()
