"""pickcal as users run it: `pickcal import`, `pick`, `calibrate` and `select`, each a process of its own."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pickcal.calibration import calibrated_scores
from pickcal.project import Project
from pickcal.selection import ACCEPTED
from pickcal.stages.select import judge, likelihoods
from pickcal.stages.select_result import stored_selection

from .accuracy import Accuracy, Picked, accuracy
from .processes import Cost, Slope, median, run, slope
from .sets import DIAMETER, Half, repeated

SERIAL = ("--cluster", "serial")
BLOBS = ("--diameter-min", f"{0.87 * DIAMETER:.0f}", "--diameter-max", f"{1.13 * DIAMETER:.0f}")
SELECTION = "auto"


def pickcal(folder: Path, *words: str | Path) -> Cost:
    """Run one command of pickcal."""
    return run([sys.executable, "-m", "pickcal", *words, "--quiet"], folder)


def picking(half: Half, method: str, count: int = 50) -> tuple[str, ...]:
    """Words of the command that picks with blobs or with `count` templates."""
    if method == "blob":
        return ("blob", *BLOBS)
    return ("template", "--templates", str(half.templates[count].resolve()), "--diameter", f"{DIAMETER:g}")


@dataclass(frozen=True)
class Job:
    """One project of some micrographs and what its import cost.

    Attributes
    ----------
    folder
        Where `p.zarr` is.
    micrographs
        How many.
    imported
        Cost of the import.
    """

    folder: Path
    micrographs: int
    imported: Cost

    def pick(self, words: Sequence[str], name: str, cluster: Sequence[str] = SERIAL) -> Cost:
        """Pick under a name, from the store."""
        method, *rest = words
        return pickcal(self.folder, "pick", method, "p.zarr", *rest, "--name", name, *cluster)

    def remove(self) -> None:
        """Delete the project."""
        shutil.rmtree(self.folder)


def job(
    half: Half,
    count: int,
    folder: Path,
    cluster: Sequence[str] = SERIAL,
    files: Sequence[Path] | None = None,
    default_batch: bool = False,
) -> Job:
    """Import `count` micrographs into a new project, in the batches of long jobs or in those a job of this size has."""
    shutil.rmtree(folder, ignore_errors=True)
    star = repeated(half, count, folder, files)
    batch = () if default_batch else ("--batch", "16" if count >= 16 else "1")
    return Job(folder, count, pickcal(folder, "import", star.name, "--project", "p.zarr", *batch, *cluster))


@dataclass(frozen=True)
class Pair:
    """A short and a long job of the same micrographs: their difference tells the cost of one from start-up.

    Attributes
    ----------
    jobs
        The two.
    imported
        Cost of their import.
    repeats
        How often everything is measured.
    """

    jobs: tuple[Job, Job]
    imported: Slope
    repeats: int

    def pick(self, words: Sequence[str], name: str) -> Slope:
        """Cost of picking from the store, median of the repeats."""
        names = [f"{name}-{i}" for i in range(self.repeats)]
        return median([slope({job.micrographs: job.pick(words, name) for job in self.jobs}) for name in names])

    def remove(self) -> None:
        """Delete both projects."""
        for job in self.jobs:
            job.remove()


def pair(half: Half, counts: tuple[int, int], folder: Path, repeats: int) -> Pair:
    """Import a short and a long job, some times over; the last ones are kept."""
    costs = []
    for _ in range(repeats):
        jobs = [job(half, count, folder / f"pickcal-{count}") for count in counts]
        costs.append(slope({job.micrographs: job.imported for job in jobs}))
    return Pair((jobs[0], jobs[1]), median(costs), repeats)


def warm_up(half: Half, folder: Path) -> dict[str, float]:
    """Import and pick one micrograph once, so that kernels are compiled and kept, and once more.

    Returns
    -------
    dict
        CPU seconds of the `first` time, which may have found them compiled already, and of the `second`.
    """
    spent = {}
    for which in ("first", "second"):
        made = job(half, 1, folder / "warm-up")
        picks = [made.pick(picking(half, method), method) for method in ("template", "blob")]
        spent[which] = made.imported.cpu + sum(cost.cpu for cost in picks)
        made.remove()
    return spent


def calibrated_accuracy(half: Half, job: Job, name: str) -> dict[str, Accuracy]:
    """Calibrate, select with `--auto` and hold all of pickcal's scores against truth.

    Parameters
    ----------
    half
        Whose four micrographs the job has.
    job, name
        Project and picks.

    Returns
    -------
    dict
        Accuracy at the best single threshold on "raw" and "calibrated" scores and on the "probability", and of
        everything that "select --auto" accepts, ranked by probability.
    """
    pickcal(job.folder, "calibrate", "p.zarr", "--picks", name)
    pickcal(job.folder, "select", "p.zarr", "--picks", name, "--auto", "--name", f"{SELECTION}-{name}")
    project = Project.open(job.folder / "p.zarr")
    picks = project.picks(name).load()
    likelihood = likelihoods(project, name, picks, project.table())
    assert likelihood is not None
    chances = likelihood["probability"].values
    _, thresholds = stored_selection(project, f"{SELECTION}-{name}")
    accepted = judge(project, name, thresholds) == ACCEPTED
    calibrated = calibrated_scores(picks, project.calibration(name))["ncc"].values
    scores = {"raw": picks["ncc"].values, "calibrated": calibrated, "probability": chances}
    found = {title: accuracy(_picked(picks, values), half.truths, DIAMETER) for title, values in scores.items()}
    chosen = _picked(picks, chances, accepted)
    found["select --auto"] = accuracy(chosen, half.truths, DIAMETER, -np.inf)
    return found


def _picked(picks: Any, scores: Any, accepted: Any = None) -> list[Picked]:
    out = []
    for i, count in enumerate(picks["count"].values):
        keep = slice(0, int(count)) if accepted is None else np.flatnonzero(accepted[i, : int(count)])
        points = np.column_stack([picks["y"].values[i, keep], picks["x"].values[i, keep]]).astype(np.float64)
        out.append(Picked(points, np.asarray(scores[i, keep], dtype=np.float64)))
    return out
