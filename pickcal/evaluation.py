"""Comparison of picks with truth or hand picks: precision, recall, F1, average precision, transfer loss.

Transfer loss is the headline: the threshold that a careful person would set on the lowest- or highest-defocus
micrograph (`Curve.careful_threshold`) is applied to all others, and their F1 is held against what each could reach with
its own best threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pickcal.calibration.lines import spearman

Floats = NDArray[np.floating]


@dataclass(frozen=True)
class Labelled:
    """Picks of one micrograph, matched with truth.

    Attributes
    ----------
    true
        For each pick that counts, whether it is a particle; shape `(n,)`.
    counted
        Indices of the picks that count, into the picks given; shape `(n,)`.
    particles
        Number of true particles that count.
    """

    true: NDArray[np.bool_]
    counted: NDArray[np.intp]
    particles: int


def label_picks(
    picks: Floats, scores: Floats, truth: Floats, extent: tuple[float, float], radius: float, border: float
) -> Labelled:
    """Match picks with truth one to one, best score first, each with the nearest particle still free.

    Because matching runs down the scores, the matches at any threshold on these scores are those of the picks above it;
    another score needs labels of its own. Picks without a score come last. Particles and picks nearer to the border
    than `border` count neither way.

    Parameters
    ----------
    picks, truth
        Positions `(n, 2)` and `(m, 2)` as (y, x), Å.
    scores
        Shape `(n,)`.
    extent
        Height and width of the micrograph between the centres of its first and last pixels, Å.
    radius
        Largest distance of a match, Å.
    border
        Width of the border, Å.
    """
    inside = _inside(truth, extent, border)
    candidates = np.flatnonzero(_inside(picks, extent, border))
    candidates = candidates[np.argsort(-scores[candidates], kind="stable")]
    free = np.ones(len(truth), dtype=bool)
    label = np.zeros(len(candidates), dtype=np.int8)
    near = cKDTree(truth).query_ball_point(picks[candidates], radius) if len(truth) else [[]] * len(candidates)
    for i, (pick, found) in enumerate(zip(candidates, near, strict=True)):
        left = [j for j in found if free[j]]
        if left:
            j = min(left, key=lambda j: (float(np.hypot(*(truth[j] - picks[pick]))), j))
            free[j] = False
            label[i] = 1 if inside[j] else -1
    keep = label >= 0
    return Labelled(label[keep] == 1, candidates[keep], int(inside.sum()))


def _inside(points: Floats, extent: tuple[float, float], border: float) -> NDArray[np.bool_]:
    if len(points) == 0:
        return np.zeros(0, dtype=bool)
    upper = np.asarray(extent) - border
    # half a milliångström: picks lie exactly on the border after rounding to float32
    return np.asarray(((points >= border - 5e-4) & (points <= upper + 5e-4)).all(axis=1))


@dataclass(frozen=True)
class Curve:
    """F1 against threshold over one or more micrographs, thresholds falling; -inf accepts picks without a score too."""

    thresholds: Floats
    f1: Floats
    precision: Floats
    recall: Floats

    def best(self) -> float:
        """Highest F1; 0 without picks."""
        return float(self.f1.max(initial=0.0))

    def best_threshold(self) -> float:
        """Threshold of the highest F1, midway to the next lower score; infinity without a true pick."""
        return self._midway(int(np.argmax(self.f1))) if self.f1.any() else float("inf")

    def careful_threshold(self, tolerance: float = 0.005) -> float:
        """Middle of the range around the best threshold within which F1 stays within `tolerance` of the best.

        What a careful person sets: the top of a flat curve, not its highest tooth. Infinity without a true pick.
        """
        if not self.f1.any():
            return float("inf")
        first = last = int(np.argmax(self.f1))
        enough = self.f1 >= self.f1[first] - tolerance
        while first > 0 and enough[first - 1]:
            first -= 1
        while last + 1 < len(enough) and enough[last + 1] and np.isfinite(self.thresholds[last + 1]):
            last += 1
        return 0.5 * (float(self.thresholds[first]) + self._midway(last))

    def _midway(self, index: int) -> float:
        below = self.thresholds[min(index + 1, len(self.thresholds) - 1)]
        return float(0.5 * (self.thresholds[index] + (below if np.isfinite(below) else self.thresholds[index])))

    def at(self, threshold: float) -> float:
        """F1 of the picks at or above a threshold."""
        count = int(np.searchsorted(-self.thresholds, -threshold, side="right"))
        return float(self.f1[count - 1]) if count else 0.0


def f1_curve(scores: Floats, true: NDArray[np.bool_], particles: int) -> Curve:
    """Precision, recall and F1 at every distinct score; picks without a score are accepted together and last."""
    scores = _ranked(scores)
    order = np.argsort(-scores, kind="stable")
    found = np.cumsum(true[order])
    count = np.arange(1, len(order) + 1)
    ordered = scores[order]
    last = np.append(ordered[1:] != ordered[:-1], True) if len(ordered) else np.zeros(0, dtype=bool)
    found, count, ordered = found[last], count[last], ordered[last]
    return Curve(ordered, 2 * found / np.maximum(count + particles, 1), found / count, found / max(particles, 1))


def _ranked(scores: Floats) -> Floats:
    """Scores to hold against thresholds: NaN, no score, is below all others and equals its like."""
    return np.where(np.isnan(scores), -np.inf, scores)


def average_precision(curve: Curve) -> float:
    """Area under precision against recall, as a sum over steps of recall (no interpolation)."""
    return float(np.sum(np.diff(curve.recall, prepend=0.0) * curve.precision))


def summarise(labelled: Sequence[Labelled], scores: Sequence[Floats], defocus: Floats) -> dict[str, Any]:
    """Figures of one kind of score over a data set.

    Parameters
    ----------
    labelled
        One entry per micrograph.
    scores
        Scores of the picks that count, in the order of `labelled`.
    defocus
        Mean defocus of each micrograph, Å.

    Returns
    -------
    dict
        precision, recall, f1 at the best pooled threshold, that threshold, average_precision,
        per_micrograph_best_f1 (pooled counts, each micrograph at its own best threshold), transfer_loss from both
        ends of defocus, rho_defocus of the true particles. Where no pick has a score, precision, recall and f1 are
        those of all picks, and what needs thresholds is None.
    """
    total = sum(entry.particles for entry in labelled)
    pooled = f1_curve(_joined(scores), _joined([entry.true for entry in labelled]).astype(bool), total)
    top = int(np.argmax(pooled.f1)) if len(pooled.f1) else None
    figures: dict[str, Any] = {
        "precision": float(pooled.precision[top]) if top is not None else 0.0,
        "recall": float(pooled.recall[top]) if top is not None else 0.0,
        "f1": pooled.best(),
    }
    if len(pooled.thresholds) and not np.isfinite(pooled.thresholds).any():
        unknown = dict.fromkeys(("threshold", "average_precision", "per_micrograph_best_f1", "rho_defocus"))
        return {**figures, **unknown, "transfer_loss": dict.fromkeys(("from_lowest_defocus", "from_highest_defocus"))}
    own = [f1_curve(s, entry.true, entry.particles) for s, entry in zip(scores, labelled, strict=True)]
    best = [curve.best_threshold() for curve in own]
    spread = np.concatenate([np.full(int(e.true.sum()), d) for e, d in zip(labelled, defocus, strict=True)])
    return {
        **figures,
        "threshold": pooled.best_threshold(),
        "average_precision": average_precision(pooled),
        "per_micrograph_best_f1": _pooled_f1(labelled, scores, best),
        "transfer_loss": {
            "from_lowest_defocus": _transfer_loss(labelled, scores, own, best, defocus, lowest=True),
            "from_highest_defocus": _transfer_loss(labelled, scores, own, best, defocus, lowest=False),
        },
        "rho_defocus": spearman(spread, _joined([s[e.true] for s, e in zip(scores, labelled, strict=True)])),
    }


NOMINAL = (0.01, 0.05, 0.1)
RELIABILITY_BINS = 10


def false_discovery(
    labelled: Sequence[Labelled], q_values: Sequence[Floats], probabilities: Sequence[Floats]
) -> list[dict[str, float]]:
    """Hold true false discovery rates against nominal ones.

    Returns
    -------
    list of dict
        For 1, 5 and 10 %: `nominal`, the true `rate`, `recall`, and `oracle_recall`: what the best threshold on
        probabilities keeps at no more than the nominal rate, for one who knows the truth.
    """
    true, total = _joined([entry.true for entry in labelled]).astype(bool), sum(e.particles for e in labelled)
    q_value, curve = _joined(q_values), f1_curve(_joined(probabilities), true, total)
    out = []
    for nominal in NOMINAL:
        accepted = q_value <= nominal
        allowed = curve.recall[curve.precision >= 1 - nominal]
        out.append(
            {
                "nominal": nominal,
                "rate": float((accepted & ~true).sum() / max(int(accepted.sum()), 1)),
                "recall": float((accepted & true).sum() / max(total, 1)),
                "oracle_recall": float(allowed[-1]) if len(allowed) else 0.0,
            }
        )
    return out


def reliability(labelled: Sequence[Labelled], probabilities: Sequence[Floats]) -> list[dict[str, float]]:
    """Probabilities against what came true, in tenths.

    Returns
    -------
    list of dict
        Per tenth that holds picks: their mean `probability`, the fraction `true`, and the `share` of all picks that
        have a probability.
    """
    true, chances = _joined([entry.true for entry in labelled]).astype(bool), _joined(probabilities)
    known = np.isfinite(chances)
    true, chances = true[known], chances[known]
    tenth = np.clip((chances * RELIABILITY_BINS).astype(int), 0, RELIABILITY_BINS - 1)
    out = []
    for i in range(RELIABILITY_BINS):
        here = tenth == i
        if here.any():
            out.append(
                {
                    "probability": float(chances[here].mean()),
                    "true": float(true[here].mean()),
                    "share": float(here.mean()),
                }
            )
    return out


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(parts) if parts else np.zeros(0)


def _pooled_f1(labelled: Sequence[Labelled], scores: Sequence[Floats], thresholds: Sequence[float]) -> float:
    found = count = total = 0
    for entry, values, threshold in zip(labelled, scores, thresholds, strict=True):
        accepted = _ranked(values) >= threshold
        found += int(entry.true[accepted].sum())
        count += int(accepted.sum())
        total += entry.particles
    return 2 * found / (count + total) if count + total else 0.0


def _transfer_loss(
    labelled: Sequence[Labelled],
    scores: Sequence[Floats],
    own: Sequence[Curve],
    best: Sequence[float],
    defocus: Floats,
    *,
    lowest: bool,
) -> float | None:
    """Pooled F1 of the other micrographs at their own thresholds less that at the threshold carried over."""
    with_particles = [i for i, entry in enumerate(labelled) if entry.particles and np.isfinite(defocus[i])]
    if len(with_particles) < 2:
        return None
    source = (min if lowest else max)(with_particles, key=lambda i: float(defocus[i]))
    others = [i for i in range(len(labelled)) if i != source]
    threshold = own[source].careful_threshold()
    carried = _pooled_f1([labelled[i] for i in others], [scores[i] for i in others], [threshold] * len(others))
    reached = _pooled_f1([labelled[i] for i in others], [scores[i] for i in others], [best[i] for i in others])
    return reached - carried
