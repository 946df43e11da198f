"""Verdicts in words: what a fit of medians supports, what to be careful about, and which micrographs to look at."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pickcal.schema import Table

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

UM = 1e-4
LEAST_MICROGRAPHS = 4
LEAST_RANGE = 2000.0
FEW_MICROGRAPHS = 10
NARROW_RANGE = 5000.0
LEAST_OF_GROUP = 4
CLEAR_ERRORS = 4.0
LEAST_BIMODAL = 20
MOST_VALUES = 500
LEAST_SHARE = 0.15
LEAST_SEPARATION = 3.0
LEAST_BIC = 10.0
MOST_STRAY = 0.1
LEAST_DIP = 0.4
FAR_SHARE = 0.05
FAR_DEVIATIONS = 4.0


@dataclass(frozen=True)
class ScoreWords:
    """What people call the two scores of some picks.

    Attributes
    ----------
    score
        The main score, "ncc" in every table: "NCC score" of our own picks, "RELION figure of merit" and so on.
    power
        The power score: "power score", "cryoSPARC power".
    unit
        Unit of the power score in words; "" where it is another program's own.
    """

    score: str = "NCC score"
    power: str = "power score"
    unit: str = "noise variances"

    @classmethod
    def of(cls, attributes: Mapping[Hashable, Any]) -> ScoreWords:
        """Take the words from the attributes `score_label`, `power_label` and `program` of picks, lines or mixture.

        Tables without them, of our own picks or of an older pickcal, have the defaults. Only our own power score is in
        noise variances.
        """
        found = {
            key: str(attributes.get(label) or getattr(cls, key))
            for key, label in (("score", "score_label"), ("power", "power_label"))
        }
        return cls(**found, unit="" if attributes.get("program") else cls.unit)

    def of_score(self, score: str) -> str:
        """Word for the score that is called "ncc" or "power" in every table."""
        return self.score if score == "ncc" else self.power

    def axis(self, score: str, before: str = "") -> str:
        """Label of an axis: the word, with another before it if one is given, and the unit if there is one."""
        unit = f" ({self.unit})" if score == "power" and self.unit else ""
        return f"{before} {self.of_score(score)}".strip() + unit


def heading(text: str) -> str:
    """Give a text its first capital, unless it begins with a name that has capitals of its own.

    Examples
    --------
    >>> heading("power score"), heading("crYOLO confidence")
    ('Power score', 'crYOLO confidence')
    """
    first = text.split(" ", 1)[0]
    return text[:1].upper() + text[1:] if first == first.lower() else text


@dataclass(frozen=True)
class Findings:
    """What the verdict on one fit is made of.

    Attributes
    ----------
    slope, low, high
        Slope at the reference defocus and its interval, per µm.
    confidence
        Level of the interval.
    depends
        Whether the data support a dependence on defocus.
    wanted
        Whether the calibration is turned on.
    residuals
        Of the micrographs that were used, in standard deviations.
    defocus
        Theirs, Å.
    exposure_groups
        Theirs; among several, their medians are compared.
    """

    slope: float
    low: float
    high: float
    confidence: float
    depends: bool
    wanted: bool
    residuals: Floats
    defocus: Floats
    exposure_groups: NDArray[np.integer]


def refusal(defocus: Floats, parameters: int) -> str:
    """Say why micrographs cannot be fitted, or "" if they can.

    Parameters
    ----------
    defocus
        Of the micrographs that could be used, Å.
    parameters
        Number of coefficients; two micrographs more are needed, and four in any case.
    """
    least = max(LEAST_MICROGRAPHS, parameters + 2)
    if len(defocus) < least:
        return f"not fitted: {len(defocus)} micrographs with a median, at least {least} are needed"
    span = float(np.ptp(defocus))
    if span < LEAST_RANGE:
        return f"not fitted: defocus range only {span * UM:.2f} µm, at least {LEAST_RANGE * UM:.1f} µm is needed"
    return ""


def verdict(findings: Findings) -> str:
    """Slope with interval and what follows from it; then, where there are any, cautions as a second sentence."""
    percent = f"{100 * findings.confidence:g} %"
    text = f"slope {findings.slope:+.4f} per µm ({percent} interval {findings.low:+.4f} to {findings.high:+.4f})"
    if not findings.depends:
        text += "; no dependence on defocus supported by these data"
    if not findings.wanted:
        text += "; turned off, not applied"
    found = cautions(findings)
    return f"{text}. Caution: {'; '.join(found)}" if found else text


def cautions(findings: Findings) -> list[str]:
    """List what does not prevent a fit but should be known."""
    found = []
    if len(findings.residuals) < FEW_MICROGRAPHS:
        found.append(f"fewer than {FEW_MICROGRAPHS} micrographs: the interval is rough")
    span = float(np.ptp(findings.defocus))
    if span < NARROW_RANGE:
        found.append(f"defocus range only {span * UM:.2f} µm")
    if len(np.unique(findings.exposure_groups)) > 1:
        if groups_differ(findings.residuals, findings.exposure_groups):
            found.append("two populations: calibrate per exposure group")
    elif is_bimodal(findings.residuals):
        found.append("two populations of micrographs: are these two exposure groups?")
    return found


def groups_differ(residuals: Floats, groups: NDArray[np.integer]) -> bool:
    """Whether the medians of two exposure groups of at least 4 micrographs differ clearly.

    Parameters
    ----------
    residuals
        In standard deviations of the fit, shape `(n,)`.
    groups
        Exposure group of each, shape `(n,)`.

    Returns
    -------
    bool
        True if two medians are further apart than one standard deviation and than four standard errors (more where
        many pairs are compared: as rare as 1 in 100 by chance).
    """
    names, of = np.unique(groups, return_inverse=True)
    counts = np.bincount(of)
    large = np.flatnonzero(counts >= LEAST_OF_GROUP)
    if len(large) < 2:
        return False
    medians = np.array([np.median(residuals[of == g]) for g in range(len(names))])
    members = np.isin(of, large)
    inner = np.abs(residuals - medians[of])[members]
    spread = 1.4826 * float(np.median(inner)) * np.sqrt(len(inner) / (len(inner) - len(large)))
    errors = 1.2533 * spread / np.sqrt(counts[large])
    apart = np.abs(medians[large][:, None] - medians[large])
    error = np.hypot(errors[:, None], errors)
    pairs = len(large) * (len(large) - 1)
    needed = max(CLEAR_ERRORS, -NormalDist().inv_cdf(0.01 / pairs))
    return bool(((apart > needed * error) & (apart > 1.0)).any())


def is_bimodal(values: Floats) -> bool:
    """Whether values are clearly two populations.

    Two normal distributions with one deviation against one, either with an even background for up to 10 % stray values,
    by the Bayesian information criterion (Schwarz 1978, Ann. Stat. 6, 461-464); and, since skewed values are also
    better described by two, there must be fewer values somewhere between the means than at either.

    Parameters
    ----------
    values
        Shape `(n,)`; fewer than 20 say nothing. Of many, 500 evenly spaced quantiles are taken.

    Returns
    -------
    bool
        True if the criterion is better by more than 10, both have at least 15 % of the values and their means are more
        than three deviations apart.
    """
    values = np.sort(values[np.isfinite(values)])
    n = len(values)
    if n < LEAST_BIMODAL or values[0] == values[-1]:
        return False
    if n > MOST_VALUES:
        values = values[np.linspace(0, n - 1, MOST_VALUES).astype(int)]
        n = MOST_VALUES
    one, _, _, _ = _normals(values, np.array([np.median(values)]))
    best = max(
        (_normals(values, np.quantile(values, [0.5 * cut, 0.5 + 0.5 * cut])) for cut in (0.2, 0.35, 0.5, 0.65, 0.8)),
        key=lambda found: found[0],
    )
    likelihood, weights, means, deviation = best
    return bool(
        2 * (likelihood - one) - 2 * np.log(n) > LEAST_BIC
        and weights.min() >= LEAST_SHARE
        and abs(means[1] - means[0]) > LEAST_SEPARATION * deviation
        and _has_valley(values, means, deviation)
    )


def _has_valley(values: Floats, means: Floats, deviation: float) -> bool:
    """Whether some place between two means has clearly fewer of the sorted values around it than either mean."""

    def around(places: Floats) -> Floats:
        ends = [np.searchsorted(values, places + side * 0.75 * deviation) for side in (-1, 1)]
        return np.asarray(ends[1] - ends[0], dtype=np.float64)

    peak = float(around(means).min())
    valley = float(around(np.linspace(means.min(), means.max(), 41)).min())
    return bool(peak - valley > max(LEAST_DIP * peak, 1.5 * np.sqrt(peak)))


def _normals(values: Floats, means: Floats, iterations: int = 100) -> tuple[float, Floats, Floats, float]:
    """Fit normal distributions with one deviation and an even background by EM, from given means.

    Returns log likelihood, weights, means and deviation.
    """
    n, k = len(values), len(means)
    even = 1.0 / float(values[-1] - values[0])
    deviation = 1.4826 * float(np.median(np.abs(values[:, None] - means).min(axis=1)))
    # a deviation of nothing would make any repeated value a population
    least = 1e-3 / even
    deviation = max(deviation, least)
    weights, last = np.append(np.full(k, 0.95 / k), 0.05), -np.inf
    for _ in range(iterations):
        density = np.exp(-0.5 * np.square((values[:, None] - means) / deviation)) / (np.sqrt(2 * np.pi) * deviation)
        parts = weights * np.column_stack([density, np.full(n, even)])
        total = parts.sum(axis=1)
        likelihood = float(np.log(total).sum())
        if likelihood - last < 0.01:
            break
        last = likelihood
        shares = parts / total[:, None]
        sums = np.maximum(shares.sum(axis=0), 1e-9)
        weights = sums / n
        stray = min(float(weights[k]), MOST_STRAY)
        weights = np.append(weights[:k] / weights[:k].sum() * (1.0 - stray), stray)
        means = (shares[:, :k] * values[:, None]).sum(axis=0) / sums[:k]
        squares = (shares[:, :k] * np.square(values[:, None] - means)).sum() / sums[:k].sum()
        deviation = max(float(np.sqrt(squares)), least)
    return likelihood, weights[:k], means, deviation


def ranked_outliers(fit: Table, names: Sequence[str], share: Floats) -> list[dict[str, object]]:
    """Micrographs to look at, the furthest from the fits first.

    Parameters
    ----------
    fit
        Parameters and columns of a fit: `residual`, `outlier` (score, micrograph), `defocus` (micrograph); its
        attributes name the scores.
    names
        Names of the micrographs.
    share
        Share of high-power picks of each micrograph, fraction in [0, 1]; NaN where it is not known.

    Returns
    -------
    list of dict
        For outlying micrographs, and those whose share is far above the rest (more than 0.05 and more than four
        robust deviations above the median): `name`, `index`, `defocus` (Å), `ncc`, `power` (residuals in standard
        deviations, NaN where there is none), `furthest` (the larger of both without sign), `share`, `why`.
    """
    share, words = np.asarray(share, dtype=np.float64), ScoreWords.of(fit.attrs)
    scores, residual, outlier, defocus = (np.asarray(fit[name]) for name in ("score", "residual", "outlier", "defocus"))
    residuals = {str(score): row.astype(np.float64) for score, row in zip(scores, residual, strict=True)}
    outlying = {str(score): row == 1 for score, row in zip(scores, outlier, strict=True)}
    dirty = _far_above(share)
    size = np.nan_to_num(np.abs(np.stack(list(residuals.values())))).max(axis=0)
    chosen = np.flatnonzero(outlying["ncc"] | outlying["power"] | dirty)
    order = np.lexsort((-np.nan_to_num(share[chosen]), -size[chosen]))
    rows: list[dict[str, object]] = []
    for i in chosen[order]:
        why = [
            f"{words.of_score(score)} {residuals[score][i]:+.1f} deviations from the fit"
            for score in residuals
            if outlying[score][i]
        ]
        why += [f"{100 * share[i]:.0f} % of its picks have high power"] if dirty[i] else []
        rows.append(
            {
                "name": names[i],
                "index": int(i),
                "defocus": float(defocus[i]),
                "ncc": float(residuals["ncc"][i]),
                "power": float(residuals["power"][i]),
                "furthest": float(size[i]),
                "share": float(share[i]),
                "why": "; ".join(why),
            }
        )
    return rows


def _far_above(share: Floats) -> Bools:
    known = np.isfinite(share)
    if not known.any():
        return np.zeros(len(share), dtype=bool)
    middle = float(np.median(share[known]))
    deviation = 1.4826 * float(np.median(np.abs(share[known] - middle)))
    return known & (share > FAR_SHARE) & (share > middle + FAR_DEVIATIONS * deviation)
