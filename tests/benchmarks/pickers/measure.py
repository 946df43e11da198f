"""One run over everything: each step fills its part of the results, or leaves a reason why it could not."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np

from . import pickcal_runs, relion_runs, scaling, topaz_runs
from .accuracy import Accuracy, Picked, accuracy
from .floor import measure_floor
from .goals import MAIN
from .machine import describe
from .processes import Slope, added
from .sets import COUNTS, DIAMETER, BenchmarkSet

AGAIN = {
    "templates": ("template", "--low-pass", "25", "--min-distance", "0.6"),
    "blobs": ("blob", "--low-pass", "25", "--min-distance", "0.8"),
}
"""Other settings for picking again from the store."""

REPEATS = 3
"""Of everything that tells pickcal's cost, in a full run."""


class NotMeasuredError(RuntimeError):
    """A step has nothing to run, and says why."""


@dataclass
class Run:
    """A run and what it has found so far.

    Attributes
    ----------
    chosen
        The set.
    work
        Folder for everything that is made on the way.
    full
        Also what takes long.
    counts
        Micrographs of the short and the long job that tell cost from start-up.
    results
        As saved: see `measure` for what is in it.
    floors
        All measurements of the floor; the results hold their median.
    """

    chosen: BenchmarkSet
    work: Path
    full: bool
    counts: tuple[int, int]
    results: dict[str, Any] = field(default_factory=dict)
    floors: list[dict[str, Any]] = field(default_factory=list)

    def add_cost(self, program: str, found: Slope) -> None:
        """Note what one micrograph costs; what an earlier run found goes."""
        row = next((row for row in self.results["costs"] if row["program"] == program), None)
        if row is None:
            row = {"program": program}
            self.results["costs"].append(row)
        row.update(asdict(found))

    def add_accuracy(self, program: str, half: str, found: Accuracy) -> None:
        """Note how well a program picks on one half."""
        rows = self.results["accuracy"]
        row = next((row for row in rows if row["program"] == program), None)
        if row is None:
            row = {"program": program}
            rows.append(row)
        row[half] = found.as_json()

    def judge(self, program: str, half: str, picked: list[Picked]) -> None:
        """Hold the picks of another program against truth."""
        self.add_accuracy(program, half, accuracy(picked, self.chosen.halves[half].truths, DIAMETER))


def floor(run: Run) -> None:
    """One read and one transform; measured again between other steps, since machines do not keep their pace."""
    run.floors.append(measure_floor(run.work))
    run.results["floor"] = {
        **run.floors[-1],
        **{key: float(np.median([found[key] for found in run.floors])) for key in ("read", "fft", "floor")},
    }


def pickcal_costs(run: Run) -> None:
    """pickcal from source file to picks, with more and more templates, and again from the store."""
    easy = run.chosen.halves["easy"]
    run.results["warm_up"] = pickcal_runs.warm_up(easy, run.work)
    pair = pickcal_runs.pair(easy, run.counts, run.work, REPEATS if run.full else 1)
    imported = pair.imported
    run.add_cost("pickcal, import alone", imported)
    for count in sorted(easy.templates, key=lambda n: (n != 50, n)):
        found = pair.pick(pickcal_runs.picking(easy, "template", count), f"templates{count}")
        title = MAIN if count == 50 else f"pickcal, {count} template{'s' if count > 1 else ''}"
        run.add_cost(title, added([imported, found]))
        floor(run)
    run.add_cost("pickcal, blobs", added([imported, pair.pick(pickcal_runs.picking(easy, "blob"), "blobs")]))
    for title, (method, *changed) in AGAIN.items():
        words = (*pickcal_runs.picking(easy, method), *changed)
        run.add_cost(f"pickcal, {title} again", pair.pick(words, f"{title}-again"))
    floor(run)
    pair.remove()


def pickcal_accuracy(run: Run) -> None:
    """Accuracy of pickcal's picks on both halves."""
    for kind, half in run.chosen.halves.items():
        job = pickcal_runs.job(half, len(half.files), run.work / f"pickcal-{kind}")
        for title, method in ((MAIN, "template"), ("pickcal, blobs", "blob")):
            job.pick(pickcal_runs.picking(half, method), method)
            for score, found in pickcal_runs.calibrated_accuracy(half, job, method).items():
                run.add_accuracy(f"{title}: {score}", kind, found)
        job.remove()


def relion(run: Run) -> None:
    """RELION on the same files."""
    if run.results["machine"]["relion"] is None:
        raise NotMeasuredError(f"{relion_runs.PROGRAM} is not installed (Debian package relion)")
    for kind, half in run.chosen.halves.items():
        for count in (50, 10):
            if kind == "hard" and count == 50 and not run.full:
                continue
            folder = run.work / f"relion-{count}-{kind}"
            cost = relion_runs.pick(half, "template", count, folder)
            title = f"RELION, {count} templates"
            if kind == "easy":
                run.add_cost(title, relion_runs.after_start(cost, len(half.files)))
            run.judge(title, kind, relion_runs.picked(folder))
        relion_runs.pick(half, "log", 0, run.work / f"relion-log-{kind}")
        run.judge("RELION, LoG", kind, relion_runs.picked(run.work / f"relion-log-{kind}"))
    run.add_cost("RELION, LoG", relion_runs.log_slope(run.chosen.halves["easy"], run.work, run.counts))


def topaz(run: Run) -> None:
    """Topaz on the same files."""
    if run.results["machine"]["topaz"] is None:
        raise NotMeasuredError("it is not on the PATH")
    for binning in (8, 4) if run.full else (8,):
        title = f"Topaz, {binning}-fold"
        for kind, half in run.chosen.halves.items():
            folder = run.work / f"topaz-{binning}-{kind}"
            found = topaz_runs.pick(half, binning, folder)
            run.judge(title, kind, topaz_runs.picked(found.table))
            if kind == "easy":
                short = topaz_runs.pick(half, binning, folder, 1)
                run.add_cost(title, topaz_runs.cost(short, found, (1, len(half.files))))


def workers(run: Run) -> None:
    """One worker and two."""
    if not run.full:
        raise NotMeasuredError("takes minutes; --full measures it")
    run.results["workers"] = scaling.measure_workers(run.chosen.halves["easy"], run.work, 288)


def numbers(run: Run) -> None:
    """From ten micrographs to many."""
    up_to = 10_000 if run.full else 1000
    many = [count for count in scaling.SMALL_NUMBERS if count <= up_to]
    run.results["numbers"] = scaling.measure_numbers(run.work, many)


def memory(run: Run) -> None:
    """Largest memory of a worker."""
    run.results["memory"] = scaling.measure_memory(run.chosen.halves["easy"], run.work)


STEPS: Mapping[str, Callable[[Run], None]] = {
    "floor": floor,
    "costs": pickcal_costs,
    "accuracy": pickcal_accuracy,
    "relion": relion,
    "topaz": topaz,
    "memory": memory,
    "workers": workers,
    "numbers": numbers,
}


def measure(
    run: Run, steps: Sequence[str], say: Callable[[str], None], save: Callable[[Mapping[str, Any]], None]
) -> dict[str, Any]:
    """Run the steps; one that fails is noted with its reason and does not stop the others.

    Parameters
    ----------
    run
        What to measure; its results may hold those of an earlier run, which steps that are run replace.
    steps
        Names in `STEPS`.
    say
        Takes a line of progress.
    save
        Takes the results after every step, so that an interrupted run leaves what it had.

    Returns
    -------
    dict
        The results, plain values: `date`, `machine`, `set`, `counts`, `floor`, `warm_up`, `costs`, `accuracy`,
        `memory`, `workers`, `numbers`, `skipped` (step and reason).
    """
    run.results.update(
        date=date.today().isoformat(),
        machine=describe(),
        set={"name": run.chosen.name, "description": run.chosen.description, "templates": list(COUNTS)},
        counts=list(run.counts),
    )
    for key in ("costs", "accuracy"):
        run.results.setdefault(key, [])
    skipped = run.results.setdefault("skipped", {})
    skipped.update({"set": "; ".join(run.chosen.missing)} if run.chosen.missing else {})
    for name in steps:
        say(f"{name} ...")
        skipped.pop(name, None)
        try:
            STEPS[name](run)
        except Exception as error:
            skipped[name] = str(error) or type(error).__name__
            say(f"{name} skipped: {error}")
        save(run.results)
    return run.results
