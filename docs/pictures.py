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
from pickcal.calibration.trends import mean_defocus
from pickcal.evaluation import f1_curve
from pickcal.project import Project
from pickcal.settings import EvaluateSettings
from pickcal.stages.evaluate import labels_of, read_truth

BLUE, ORANGE, WHITE = "#56B4E9", "#E69F00", "#FFFFFF"
WINDOW = 2200.0
"""Side of what is shown, Å."""


def main(path: Path, truth: Path, out: Path) -> None:
    """Draw it."""
    project = Project.open(path)
    picks = project.picks("template").load()
    labels, order = labels_of(project, "template", read_truth(project, truth), EvaluateSettings(radius=0.25))
    known = dict(zip(order.tolist(), labels, strict=True))
    defocus = mean_defocus(project.table())
    many = [int(i) for i in np.argsort(defocus) if i in known and known[i].particles > 100]
    shown = [many[0], many[len(many) // 2], many[-1]]
    calibrated = calibrated_scores(picks, project.calibration("template"))
    figure = Figure(figsize=(11, 7.9), layout="constrained")
    for row, (kind, scores) in zip(
        figure.subplots(2, 3),
        (("raw score", picks["ncc"].values), ("calibrated score", calibrated["ncc"].values)),
        strict=True,
    ):
        last = known[shown[-1]]
        threshold = f1_curve(scores[shown[-1], last.counted], last.true, last.particles).best_threshold()
        for axis, i in zip(row, shown, strict=True):
            draw(axis, project, picks.isel(micrograph=i), i, known[i], scores[i] >= threshold)
            axis.set_title(f"{defocus[i] / 1e4:.1f} µm, {kind}: {axis.get_title()}", fontsize=11)
    figure.suptitle(
        "One threshold, the best of the micrograph on the right, for three micrographs.\n"
        "Blue: accepted particles. Orange: accepted, no particle. White: particles that are lost.",
        fontsize=12,
    )
    figure.savefig(out, dpi=100)


def draw(axis, project, picks, index, label, accepted):
    """One micrograph with what the threshold accepts of the picks that count."""
    image, pixel = project.image(index), float(project.read("micrographs", "pixel_size", index, index + 1)[0])
    limits = np.percentile(image, [1, 99])
    axis.imshow(
        image,
        cmap="gray",
        vmin=limits[0],
        vmax=limits[1],
        extent=(0, image.shape[1] * pixel, image.shape[0] * pixel, 0),
    )
    points = np.column_stack([picks["y"].values, picks["x"].values])[label.counted]
    taken, hits = accepted[label.counted], label.true
    diameter = float(picks.attrs["diameter"])
    circles(axis, points[taken & hits], diameter, BLUE, "-")
    circles(axis, points[taken & ~hits], diameter, ORANGE, "-")
    circles(axis, points[~taken & hits], diameter, WHITE, (0, (2, 2)))
    true, false = int((taken & hits).sum()), int((taken & ~hits).sum())
    f1 = 2 * true / (true + false + label.particles)
    axis.set(xlim=(0, WINDOW), ylim=(WINDOW, 0), xticks=[], yticks=[])
    axis.set_title(f"F1 {f1:.2f}\n{true} of {label.particles} particles, {false} false")


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
