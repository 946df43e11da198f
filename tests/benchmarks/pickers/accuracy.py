"""Accuracy of picks, the same for all programs: one threshold for all micrographs, one to one within a quarter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pickcal.evaluation import average_precision, f1_curve, label_picks

Floats = NDArray[np.floating]

RADIUS = 0.25
"""Largest distance of a match, in diameters."""
ICE = 0.5
"""A pick that is no particle belongs to a blob of ice whose centre is at most this far, in diameters."""


@dataclass(frozen=True)
class Truth:
    """What is on one micrograph.

    Attributes
    ----------
    particles, ice
        Positions `(n, 2)` as (y, x), Å from the centre of the first pixel.
    extent
        Distance from the first to the last pixel, (y, x), Å.
    """

    particles: Floats
    ice: Floats
    extent: tuple[float, float]


@dataclass(frozen=True)
class Picked:
    """Picks of one program on one micrograph.

    Attributes
    ----------
    points
        `(n, 2)` as (y, x), Å.
    scores
        `(n,)`, the higher the better.
    """

    points: Floats
    scores: Floats


@dataclass(frozen=True)
class Accuracy:
    """Figures over all micrographs of a set.

    Attributes
    ----------
    f1
        At the threshold.
    average_precision
        Over all thresholds.
    ice, ice_blobs
        Blobs of ice that a pick at or above the threshold sits on, and how many there are.
    error
        Median distance of the true picks above the threshold from the nearest particle, Å.
    threshold
        The best one for all micrographs, or the one given.
    """

    f1: float
    average_precision: float
    ice: int
    ice_blobs: int
    error: float
    threshold: float

    def as_json(self) -> dict[str, Any]:
        """Plain values; infinite and undefined ones become None."""
        return {key: value if np.isfinite(value) else None for key, value in asdict(self).items()}


def accuracy(
    picked: Sequence[Picked], truths: Sequence[Truth], diameter: float, threshold: float | None = None
) -> Accuracy:
    """Hold picks against truth.

    Parameters
    ----------
    picked, truths
        One entry per micrograph.
    diameter
        Of the particle, Å. Picks and particles within half of it from the border count neither way.
    threshold
        Least score; default: the best one for all micrographs together.
    """
    labels = [
        label_picks(p.points, p.scores, t.particles, t.extent, RADIUS * diameter, 0.5 * diameter)
        for p, t in zip(picked, truths, strict=True)
    ]
    scores = [p.scores[label.counted] for p, label in zip(picked, labels, strict=True)]
    true = np.concatenate([label.true for label in labels])
    curve = f1_curve(np.concatenate(scores), true, sum(label.particles for label in labels))
    level = curve.best_threshold() if threshold is None else threshold
    errors, ice = [np.zeros(0)], 0
    for p, t, label, values in zip(picked, truths, labels, scores, strict=True):
        points, above = p.points[label.counted], values >= level
        errors.append(_distances(points[label.true & above], t.particles).min(axis=1, initial=np.inf))
        ice += ice_picked(points[~label.true & above], t.ice, ICE * diameter)
    joined = np.concatenate(errors)
    return Accuracy(
        f1=curve.at(level),
        average_precision=average_precision(curve),
        ice=ice,
        ice_blobs=sum(len(t.ice) for t in truths),
        error=float(np.median(joined)) if len(joined) else float("nan"),
        threshold=float(level),
    )


def ice_picked(points: Floats, ice: Floats, radius: float) -> int:
    """Count the blobs of ice that have at least one of the points within the radius of their centre."""
    return int((_distances(ice, points) <= radius).any(axis=1).sum())


def _distances(one: Floats, other: Floats) -> Floats:
    difference = one.reshape(-1, 1, 2) - other.reshape(1, -1, 2)
    return np.asarray(np.hypot(difference[..., 0], difference[..., 1]))
