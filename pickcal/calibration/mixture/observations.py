"""Picks and decoys of some micrographs in one column per score, as the mixture sees them."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from pickcal.schema import Status

Floats = NDArray[np.floating]
Indices = NDArray[np.intp]
Mask = NDArray[np.bool_]

SHADOW = 0.75
"""Reach of a particle in diameters: fringes up to there score high or low on the inverted micrograph."""
LEAST_POWER = 1e-3
LEAK, LOUD = 0.4, 1.2
"""Share of the variance around a pick that may reach its own disc, and how many times what is usual on its micrograph
that variance must be for it. Simulated noise and particles beside ice have 0.03 to 0.5 of it, the median is 0.15; with
0.2 as the mean more of what is accepted beside ice and aggregates is false than is said."""
VAGUE = 0.5
"""Standard deviation of what reaches a pick from around it, as a share of that."""
PICK_VARIABLES = ("x", "y", "ncc", "power", "background_variance", "count", "status", "template")
"""Variables of the picks that probabilities are computed from."""
LEAST_DECOYS = 50
LEAST_AWAY = 40
"""Decoys that the level of the noise's power is taken from at least, the farthest from particles."""


@dataclass(frozen=True)
class Observations:
    """Scores of picks or decoys, one column each.

    Attributes
    ----------
    ncc, power
        NCC score and log power above the micrograph's noise, shape `(n,)`; power NaN where it is not known, None where
        there is none at all.
    index
        Micrograph of each: a row of `design`; rising.
    design
        Trend of the micrographs, shape `(micrograph, term)`.
    position
        `(n, 2)`, Å.
    template
        Template of each, -1 for none; None where templates do not matter.
    shadowed
        Whether a strong pick is so near that noise scores lower there and neighbours are few; shape `(n,)`.
    weight
        How far each counts, shape `(n,)`: of decoys, the probability that they lie off the particles.
    leak
        Power that reaches each from ice beside it, in units of the noise's, shape `(n,)`; 0 where nothing is near.
    """

    ncc: Floats
    power: Floats | None
    index: Indices
    design: Floats
    position: Floats
    template: NDArray[np.integer] | None
    shadowed: Mask
    weight: Floats
    leak: Floats

    @property
    def plain(self) -> Mask:
        """Whose power is known and its own."""
        assert self.power is not None
        return np.asarray(np.isfinite(self.power) & (self.leak == 0))

    @property
    def cell(self) -> Indices:
        """Whose fractions hold for each: its micrograph's, or, in the shadow of a pick, the last row."""
        return np.where(self.shadowed, len(self.design), self.index)

    def per_micrograph(self, values: Floats | None = None) -> Floats:
        """Sum of values, or number, in each micrograph."""
        return np.asarray(np.bincount(self.index, values, minlength=len(self.design)), dtype=np.float64)

    def taken(self, rows: Indices) -> Observations:
        """Take the picks of some micrographs, in their order; a micrograph may be taken several times."""
        starts = np.searchsorted(self.index, rows, side="left")
        counts = np.searchsorted(self.index, rows, side="right") - starts
        places = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + np.repeat(starts, counts)
        found = self.at(places)
        return replace(found, index=np.repeat(np.arange(len(rows)), counts), design=self.design[rows])

    def at(self, places: Indices) -> Observations:
        """Take some of the picks."""
        return Observations(
            self.ncc[places],
            None if self.power is None else self.power[places],
            self.index[places],
            self.design,
            self.position[places],
            None if self.template is None else self.template[places],
            self.shadowed[places],
            self.weight[places],
            self.leak[places],
        )


def valid_places(picks: xr.Dataset, prefix: str = "") -> Mask:
    """Which places of the padded table hold a pick (or, with the prefix "decoy_", a decoy), `(micrograph, place)`."""
    width = picks[f"{prefix}ncc"].shape[1]
    valid = np.arange(width)[None, :] < picks[f"{prefix}count"].values[:, None]
    valid &= (picks["status"].values == Status.DONE)[:, None]
    for name in ("ncc", "x", "y"):
        valid &= np.isfinite(picks[f"{prefix}{name}"].values)
    return np.asarray(valid)


def flattened(
    picks: xr.Dataset,
    design: Floats,
    level: Floats,
    prefix: str = "",
    with_template: bool = False,
    leak: float = 0.0,
) -> Observations:
    """Take picks or decoys from the padded table.

    Parameters
    ----------
    picks
        `x`, `y`, `ncc`, `power`, `count`, `status`; for decoys each with the prefix. `background_variance` for `leak`.
    design
        Trend of its micrographs; NaN, an unknown value, counts as the reference.
    level
        From `power_levels`; all NaN where there is no power.
    prefix
        "" or "decoy_".
    with_template
        Keep the template of each pick.
    leak
        Share of the variance around a pick that reaches it; by default none.
    """
    valid = valid_places(picks, prefix)
    index = np.repeat(np.arange(len(valid)), valid.sum(axis=1))
    power = None
    if np.isfinite(level).any():
        power = log_power(picks[f"{prefix}power"].values[valid]) - level[index]
    return Observations(
        picks[f"{prefix}ncc"].values[valid].astype(np.float64),
        power,
        index,
        np.nan_to_num(design),
        _points(picks, valid, prefix),
        picks["template"].values[valid] if with_template else None,
        np.zeros(len(index), dtype=bool),
        np.ones(len(index)),
        np.zeros(len(index)) if power is None or not leak else leak * _around(picks, valid, level)[valid],
    )


def _around(picks: xr.Dataset, valid: Mask, level: Floats) -> Floats:
    """Variance around picks beyond 1.2 times what is usual on their micrograph, in units of the noise's power.

    Usual is the median of the micrograph's picks, but not less than the noise: on a crowded micrograph, or on carbon,
    every pick has much about it.
    """
    around = np.where(valid, picks["background_variance"].values, np.nan) * np.exp(-level)[:, None]
    known = np.isfinite(around)
    ordered = np.sort(np.where(known, around, np.inf), axis=1)
    middle = np.maximum(known.sum(axis=1) - 1, 0) // 2
    usual = np.maximum(ordered[np.arange(len(ordered)), middle], 1.0)
    return np.where(known, np.maximum(around - LOUD * np.where(np.isfinite(usual), usual, 1.0)[:, None], 0.0), 0.0)


def with_leak(mean: Floats | float, deviation: Floats | float, leak: Floats) -> tuple[Floats, Floats]:
    """Mean and standard deviation of the log power of something that gets power from what lies beside it.

    Parameters
    ----------
    mean, deviation
        Of its own log power.
    leak
        Power that reaches it, in units of the noise's.
    """
    mean, deviation = (np.array(np.broadcast_to(values, leak.shape)) for values in (mean, deviation))
    here = np.flatnonzero(leak)
    total = np.logaddexp(mean[here], np.log(leak[here]))
    own = np.exp(mean[here] - total)
    mean[here], deviation[here] = total, np.hypot(deviation[here] * own, VAGUE * (1 - own))
    return mean, deviation


def log_power(power: Floats) -> Floats:
    """Natural logarithm of the power score, which is kept above a thousandth."""
    return np.log(np.maximum(power.astype(np.float64), LEAST_POWER))


def has_decoys(picks: xr.Dataset) -> bool:
    """Whether there are enough decoys to know the noise from them."""
    return "decoy_ncc" in picks and int(valid_places(picks, "decoy_").sum()) >= LEAST_DECOYS


def power_levels(picks: xr.Dataset, decoys: bool, reach: float, usual: float | None = None) -> Floats:
    """Log power of the noise of every micrograph: of low-scoring decoys off the particles, or of low-scoring picks.

    The median, of those not more than three deviations above it: what lies on ice and film is another population.

    Parameters
    ----------
    picks
        `x`, `y`, `ncc`, `power`, `count`, `status`, decoys.
    decoys
        Whether to take decoys; else the lower-scoring quarter of the picks.
    reach
        Of a particle, Å: decoys nearer to a pick that scores above 95 % of the decoys have its power, and on a
        crowded micrograph most are. The 40 farthest are taken where fewer are farther.
    usual
        Level of micrographs of which it is not known; by default the median of the others.

    Returns
    -------
    array
        Shape `(micrograph,)`; NaN where no micrograph has power scores.
    """
    prefix = "decoy_" if decoys else ""
    valid = valid_places(picks, prefix)
    if f"{prefix}power" not in picks:
        return np.full(len(valid), np.nan if usual is None else usual)
    ncc, power = picks[f"{prefix}ncc"].values, picks[f"{prefix}power"].values
    candidates = valid_places(picks) if decoys else valid
    out = np.full(len(valid), np.nan)
    for i, places in enumerate(valid):
        scores = ncc[i, places]
        if not len(scores):
            continue
        if decoys:
            strong = candidates[i] & (picks["ncc"].values[i] > np.quantile(scores, 0.95))
            away = cKDTree(_points(picks, (i, strong))).query(_points(picks, (i, places), prefix))[0]
            taken = away >= min(reach, np.sort(away)[-min(LEAST_AWAY, len(away))])
            taken &= scores <= np.quantile(scores[taken], 0.5)
        else:
            # of picks whose list was cut off above most of the noise, only the lowest are noise
            taken = scores <= np.quantile(scores, 0.25)
        values = power[i, places][taken]
        out[i] = _clipped_median(log_power(values[np.isfinite(values)]))
    known = np.isfinite(out)
    if usual is None:
        usual = float(np.median(out[known])) if known.any() else np.nan
    return np.where(known, out, usual)


def _points(picks: xr.Dataset, where: Mask | tuple[int, Mask], prefix: str = "") -> Floats:
    """Positions of some picks or decoys, `(n, 2)`, Å: of all micrographs, or of a row and places in it."""
    return np.column_stack([picks[f"{prefix}{axis}"].values[where] for axis in ("y", "x")]).astype(np.float64)


def _clipped_median(values: Floats) -> float:
    if not len(values):
        return float("nan")
    level = float(np.median(values))
    for _ in range(8):
        deviation = 1.4826 * float(np.median(level - values[values <= level]))
        updated = float(np.median(values[values <= level + 3 * deviation]))
        if abs(updated - level) < 1e-6:
            break
        level = updated
    return level


def in_shadow(data: Observations, probability: Floats, radius: float) -> Mask:
    """Which picks have a likely particle, likelier than themselves, of their micrograph within a radius (Å)."""
    strong = np.flatnonzero(probability > 0.5)
    out = np.zeros(len(probability), dtype=bool)
    if not len(strong):
        return out
    tree = cKDTree(_spread(data.position[strong], data.index[strong], radius))
    weak = np.flatnonzero(probability <= 0.5)
    if len(weak):
        places = _spread(data.position[weak], data.index[weak], radius)
        out[weak] = np.isfinite(tree.query(places, distance_upper_bound=radius)[0])
    pairs = strong[tree.query_pairs(radius, output_type="ndarray")]
    if len(pairs):
        first = probability[pairs[:, 0]] >= probability[pairs[:, 1]]
        out[np.where(first, pairs[:, 1], pairs[:, 0])] = True
    return out


def off_particles(decoys: Observations, data: Observations, probability: Floats, radius: float) -> Floats:
    """Probability that no particle is within a radius (Å) of each decoy, from the probabilities of the picks there."""
    likely = np.flatnonzero(probability > 0.02)
    if not len(likely) or not len(decoys.index):
        return np.ones(len(decoys.index))
    trees = [
        cKDTree(_spread(found.position[rows], found.index[rows], radius))
        for found, rows in ((decoys, slice(None)), (data, likely))
    ]
    pairs = trees[0].sparse_distance_matrix(trees[1], radius, output_type="ndarray")
    losses = 2 * np.log1p(-np.minimum(probability[likely[pairs["j"]]], 1 - 1e-6))
    return np.exp(np.bincount(pairs["i"], losses, minlength=len(decoys.index)))


def _spread(position: Floats, index: Indices, radius: float) -> Floats:
    """Positions with the micrograph as third coordinate, so far apart that no two are neighbours."""
    return np.column_stack([position, index * (4.0 * radius)])
