"""The picture of the README: three micrographs under one threshold, raw and calibrated.

`python docs/pictures.py demo/p.zarr demo/sim/truth_particles.star docs/images/one_threshold.png`, on a project that
`make demo` made. The threshold is the best one of the micrograph of highest defocus, for each kind of score; it is
then applied to all: how users set thresholds who look at one micrograph.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from matplotlib.collections import EllipseCollection
from matplotlib.figure import Figure

from pickcal.calibration import calibrated_scores
from pickcal.project import Project
from pickcal.stages.evaluate import read_truth

BLUE, ORANGE, WHITE = "#56B4E9", "#E69F00", "#FFFFFF"
WINDOW = 2200.0
"""Side of what is shown, Å."""


def main(path: Path, truth: Path, out: Path) -> None:
    """Draw it."""
    project = Project.open(path)
    name = project.names("picks")[-1] if "template" not in project.names("picks") else "template"
    picks, table = project.picks(name).load(), project.table()
    positions = read_truth(project, truth).positions
    diameter = float(project.settings(f"picks/{name}")["diameter"])
    defocus = table["defocus"].values if "defocus" in table else 0.5 * (table["defocus_u"] + table["defocus_v"]).values
    counts = picks["count"].values.astype(int)
    many = [i for i in np.argsort(defocus) if positions[i] is not None and len(positions[i]) > 100]
    shown = [many[0], many[len(many) // 2], many[-1]]
    kinds = {
        "raw score": picks["ncc"].values,
        "calibrated score": calibrated_scores(picks, project.calibration(name))["ncc"].values,
    }
    figure = Figure(figsize=(11, 7.9), layout="constrained")
    axes = figure.subplots(2, 3)
    for row, (kind, scores) in zip(axes, kinds.items(), strict=True):
        found = {}
        for i in shown:
            points = np.column_stack([picks["y"].values[i, : counts[i]], picks["x"].values[i, : counts[i]]])
            found[i] = (
                points,
                scores[i, : counts[i]],
                matched(points, scores[i, : counts[i]], positions[i], diameter / 4),
            )
        points, score, hits = found[shown[-1]]
        threshold = best_threshold(score, hits, len(positions[shown[-1]]))
        for axis, i in zip(row, shown, strict=True):
            draw(axis, project, i, found[i], positions[i], threshold, diameter, defocus[i], kind)
    figure.suptitle(
        "One threshold, the best of the micrograph on the right, for three micrographs.\n"
        "Blue: accepted particles. Orange: accepted, no particle. White: particles that are lost.",
        fontsize=12,
    )
    figure.savefig(out, dpi=100)


def matched(points, scores, truth, radius):
    """Whether each pick is a particle's, the best ones first, each particle once."""
    hits, free = np.zeros(len(points), bool), np.ones(len(truth), bool)
    for i in np.argsort(-scores):
        distance = np.where(free, np.hypot(*(truth - points[i]).T), np.inf)
        if len(distance) and distance.min() < radius:
            hits[i], free[distance.argmin()] = True, False
    return hits


def best_threshold(scores, hits, particles):
    """Score at which F1 is highest."""
    order = np.argsort(-scores)
    true = np.cumsum(hits[order])
    f1 = 2 * true / (np.arange(1, len(order) + 1) + particles)
    return float(scores[order][f1.argmax()])


def draw(axis, project, index, found, truth, threshold, diameter, defocus, kind):
    """One micrograph with what the threshold does."""
    points, scores, hits = found
    image, pixel = project.image(index), float(project.settings("micrographs")["pixel_size"])
    limits = np.percentile(image, [1, 99])
    axis.imshow(
        image,
        cmap="gray",
        vmin=limits[0],
        vmax=limits[1],
        extent=(0, image.shape[1] * pixel, image.shape[0] * pixel, 0),
    )
    taken = scores >= threshold
    circles(axis, points[taken & hits], diameter, BLUE, "-")
    circles(axis, points[taken & ~hits], diameter, ORANGE, "-")
    circles(axis, points[~taken & hits], diameter, WHITE, (0, (2, 2)))
    true, f1 = int((taken & hits).sum()), 2 * (taken & hits).sum() / (taken.sum() + len(truth))
    axis.set(xlim=(0, WINDOW), ylim=(WINDOW, 0), xticks=[], yticks=[])
    false = int((taken & ~hits).sum())
    words = f"{defocus / 1e4:.1f} µm, {kind}: F1 {f1:.2f}\n{true} of {len(truth)} particles, {false} false"
    axis.set_title(words, fontsize=11)


def circles(axis, points, diameter, colour, dashes):
    """Circles of the particle's size."""
    size = np.full(len(points), diameter)
    axis.add_collection(
        EllipseCollection(
            size,
            size,
            np.zeros(len(points)),
            units="x",
            offsets=points[:, ::-1],
            transOffset=axis.transData,
            facecolors="none",
            edgecolors=colour,
            linewidths=1.6,
            linestyles=[dashes],
        )
    )


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
