"""Command line of the benchmark: measure, save, print and write the page."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .document import document, section
from .measure import STEPS, Run, measure
from .sets import given_set, own_set

COUNTS = (16, 80)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.pickers", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("bench"), help="folder for sets, jobs and results")
    parser.add_argument("--set", type=Path, help="folder of a set in the layout of make_set.py instead of our own")
    parser.add_argument("--generator", type=Path, help="make_set.py of that set, for 200 templates of its map")
    parser.add_argument("--full", action="store_true", help="also what takes long: workers, 10,000 micrographs")
    parser.add_argument("--counts", type=int, nargs=2, default=COUNTS, help="micrographs of short and long jobs")
    parser.add_argument("--only", nargs="+", choices=STEPS, default=list(STEPS), help="steps to run")
    parser.add_argument("--update", action="store_true", help="keep what was saved of the steps that are not run")
    parser.add_argument("--saved", type=Path, nargs="+", help="write the page from these results, measure nothing")
    parser.add_argument("--docs", type=Path, help="page to write, docs/benchmarks.md")
    return parser.parse_args()


def main() -> int:
    """Measure or read what is saved; print the tables, and write the page where it is wanted."""
    given = arguments()
    if given.saved:
        several = [json.loads(path.read_text()) for path in given.saved]
    else:
        given.out.mkdir(parents=True, exist_ok=True)
        work = given.out.resolve()
        chosen = own_set(work) if given.set is None else given_set(given.set.resolve(), work, given.generator)
        saved = given.out / f"pickers-{chosen.name}.json"
        known = json.loads(saved.read_text()) if given.update and saved.is_file() else {}
        run = Run(chosen, work, given.full, tuple(given.counts), known)

        def save(results: Mapping[str, Any]) -> None:
            saved.write_text(json.dumps(results, indent=1) + "\n")
            saved.with_suffix(".md").write_text(section(results))

        several = [measure(run, given.only, lambda line: print(line, file=sys.stderr, flush=True), save)]
    for results in several:
        print(section(results))
    if given.docs:
        given.docs.write_text(document(several))
    return 0


if __name__ == "__main__":
    sys.exit(main())
