"""Evaluate: hold picks or a selection against true particles or hand picks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pickcal.calibration import calibrated_scores
from pickcal.calibration.mixture import PICK_VARIABLES
from pickcal.calibration.trends import mean_defocus
from pickcal.errors import InputError
from pickcal.evaluation import Labelled, false_discovery, label_picks, reliability, summarise
from pickcal.formats.relion import read_coordinates_star, read_truth_micrographs
from pickcal.names import matching_names
from pickcal.project import Project
from pickcal.schema import Status
from pickcal.selection import ACCEPTED
from pickcal.settings import EvaluateSettings
from pickcal.stages.select import judge, likelihoods
from pickcal.stages.select_result import stored_selection

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Truth:
    """True positions per micrograph of the project.

    Attributes
    ----------
    positions
        For each micrograph `(m, 2)` as (y, x), Å, or None where truth says nothing of it.
    """

    positions: list[Floats | None]


def read_truth(project: Project, path: Path) -> Truth:
    """Read a STAR file of particles and match its micrographs with the project's.

    Micrographs that a `micrographs` block of the file lists, but that have no particle, are known to be empty.

    Raises
    ------
    InputError
        If no micrograph of the file is in the project.
    """
    table = read_coordinates_star(path)
    names = [str(name) for name in project.read("micrographs", "name")]
    listed = read_truth_micrographs(path) or []
    known = list(dict.fromkeys([*listed, *table["micrograph"].tolist()]))
    index = dict(zip(known, matching_names(known, names, str(path)), strict=True))
    if all(i < 0 for i in index.values()):
        first = known[0] if known else "none"
        raise InputError(
            f"{path}: none of its {len(known)} micrographs is in {project.path}; "
            f"it names {first!r}, the project {names[0]!r}"
        )
    pixel = project.read("micrographs", "source_pixel_size")
    positions: list[Floats | None] = [None] * len(names)
    groups = dict(list(table.groupby("micrograph", sort=False)))
    for name, i in index.items():
        if i < 0:
            continue
        rows = groups.get(name)
        found = np.zeros((0, 2)) if rows is None else rows[["y_px", "x_px"]].to_numpy(dtype=np.float64) * pixel[i]
        before = positions[i]
        positions[i] = found if before is None else np.vstack([before, found])
    return Truth(positions)


def evaluate_picks(project: Project, picks: str, truth: Path, settings: EvaluateSettings) -> dict[str, Any]:
    """Figures of a picks group, on calibrated and on raw scores.

    Parameters
    ----------
    project, picks
        Where the picks are, and their name.
    truth
        STAR file of true particles or hand picks, positions in pixels of the source.
    settings
        How far a pick may be from a particle to count as it.

    Returns
    -------
    dict
        As `pickcal evaluate --json` prints: how many particles count, and how many lie too near to the border to be
        counted; how many picks count, and how many of them have no score; precision, recall, f1, threshold and
        average_precision on calibrated scores, `raw` with the same on raw scores and, where there is a mixture,
        `probability` on probabilities, by which picks are then also matched; per_micrograph_best_f1, transfer_loss,
        rho_defocus; `false_discovery` and `reliability` of the probabilities.

    Raises
    ------
    ProjectError, MissingFileError, InputError
        If there are no such picks, the truth cannot be read, or it tells of no micrograph with finished picks.
    """
    project.require("picks", picks)
    known = read_truth(project, truth)
    labels, order = labels_of(project, picks, known, settings)
    dataset = project.picks(picks)[list(PICK_VARIABLES)].load()
    calibrated = calibrated_scores(dataset, project.calibration(picks))["ncc"].values
    micrographs = project.table()
    likelihood = likelihoods(project, picks, dataset, micrographs)
    defocus = mean_defocus(micrographs)[order]
    scores = _scores(dataset["ncc"].values, labels, order)
    raw = summarise(labels, scores, defocus)
    ours = summarise(labels, _scores(calibrated, labels, order), defocus)
    keys = ("precision", "recall", "f1", "threshold", "average_precision")
    out = {
        "picks": picks,
        "calibrated": picks in project.names("calibration"),
        "micrographs": len(order),
        "particles": sum(entry.particles for entry in labels),
        "particles_near_border": _near_border(known, labels, order),
        "picks_counted": sum(len(values) for values in scores),
        "picks_without_score": sum(int(np.isnan(values).sum()) for values in scores),
        **{key: ours[key] for key in keys},
        "raw": {key: raw[key] for key in keys},
        "per_micrograph_best_f1": ours["per_micrograph_best_f1"],
        "transfer_loss": {"raw": raw["transfer_loss"], "calibrated": ours["transfer_loss"]},
        "rho_defocus": {"raw": raw["rho_defocus"], "calibrated": ours["rho_defocus"]},
    }
    if likelihood is not None:
        labels, order = labels_of(project, picks, known, settings, likelihood["probability"].values)
        chances = _scores(likelihood["probability"].values, labels, order)
        sure = summarise(labels, chances, defocus)
        out["probability"] = {key: sure[key] for key in keys}
        out["transfer_loss"]["probability"] = sure["transfer_loss"]
        out["rho_defocus"]["probability"] = sure["rho_defocus"]
        out["false_discovery"] = false_discovery(labels, _scores(likelihood["q_value"].values, labels, order), chances)
        out["reliability"] = reliability(labels, chances)
    return out


def evaluate_selection(project: Project, selection: str, truth: Path, settings: EvaluateSettings) -> dict[str, Any]:
    """Figures of a picks group as `evaluate_picks`, with precision, recall and F1 of one selection of it.

    Of the selection only the accepted picks are matched with truth: a rejected pick takes no particle from them.

    Parameters
    ----------
    project, selection
        Where the selection is, and its name.
    truth, settings
        See `evaluate_picks`.

    Raises
    ------
    ProjectError, InputError
        If there is no such selection, it is stale, or truth tells of no micrograph of the project.
    """
    picks, thresholds = stored_selection(project, selection)
    out = evaluate_picks(project, picks, truth, settings)
    accepted = judge(project, picks, thresholds) == ACCEPTED
    labels, _ = labels_of(project, picks, read_truth(project, truth), settings, accepted=accepted)
    found, count = sum(int(entry.true.sum()) for entry in labels), sum(len(entry.true) for entry in labels)
    total = int(out["particles"])
    best = {key: out[key] for key in ("precision", "recall", "f1", "threshold")}
    out.update(
        selection=selection,
        accepted=count,
        precision=found / count if count else 0.0,
        recall=found / total if total else 0.0,
        f1=2 * found / (count + total) if count + total else 0.0,
        best_threshold=best,
    )
    out.pop("threshold")
    return out


def labels_of(
    project: Project,
    picks: str,
    truth: Truth,
    settings: EvaluateSettings,
    scores: Floats | None = None,
    accepted: NDArray[np.bool_] | None = None,
) -> tuple[list[Labelled], NDArray[np.intp]]:
    """Match picks with truth: one entry, and its row in the project, for each micrograph that has both.

    Parameters
    ----------
    project, picks, truth, settings
        See `evaluate_picks`.
    scores
        Matched best first by these, shape `(micrograph, pick)`; default: the main score, raw.
    accepted
        Which picks are matched at all, same shape; default: all.

    Raises
    ------
    InputError
        If no micrograph has both.
    """
    dataset = project.picks(picks)
    diameter = float(dataset.attrs["diameter"])
    small = dataset[["x", "y", "ncc", "count", "status"]].load()
    ranks = small["ncc"].values if scores is None else scores
    micrographs = project.table()
    labels, order = [], []
    for i, positions in enumerate(truth.positions):
        if positions is None or small["status"].values[i] != Status.DONE:
            continue
        places = np.arange(int(small["count"].values[i]))
        if accepted is not None:
            places = places[accepted[i, places]]
        points = np.column_stack([small[axis].values[i, places] for axis in ("y", "x")]).astype(np.float64)
        pixel = float(micrographs["pixel_size"].values[i])
        height, width = ((int(micrographs[name].values[i]) - 1) * pixel for name in ("height", "width"))
        radius, border = settings.radius * diameter, 0.5 * diameter
        entry = label_picks(points, ranks[i, places], positions, (height, width), radius, border)
        labels.append(replace(entry, counted=places[entry.counted]))
        order.append(i)
    if not order:
        raise InputError(f"none of the micrographs that truth tells of has finished picks {picks!r}")
    return labels, np.array(order, dtype=np.intp)


def _near_border(truth: Truth, labels: list[Labelled], order: NDArray[np.intp]) -> int:
    """Count true particles that do not count, on the micrographs that are compared."""
    known = sum(len(positions) for i in order if (positions := truth.positions[i]) is not None)
    return known - sum(entry.particles for entry in labels)


def _scores(scores: Floats, labels: list[Labelled], order: NDArray[np.intp]) -> list[Floats]:
    return [scores[i, entry.counted] for entry, i in zip(labels, order, strict=True)]
