"""Per-micrograph medians: of all picks, or of what stands above the decoys.

The median of all candidates follows the noise wherever most candidates are noise. Decoys, the picks of the same
search on the inverted micrograph, show how many picks noise gives at every score; what exceeds them are particles.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]

LEAST_PARTICLES = 10


@dataclass(frozen=True)
class Medians:
    """Medians of one micrograph.

    Attributes
    ----------
    ncc, power
        Median scores; NaN where there are too few picks or particles.
    particles
        Estimated number of particles (picks in excess of decoys), or the number of picks when all are counted.
    break_even
        NCC score at which a pick is as likely noise as particle; NaN where it is not known.
    """

    ncc: float
    power: float
    particles: float
    break_even: float = float("nan")


def medians_of_all(ncc: Floats, power: Floats) -> Medians:
    """Medians of all picks of one micrograph, as cryoSPARC's calibration takes them."""
    ncc, power = ncc[np.isfinite(ncc)], power[np.isfinite(power)]
    if len(ncc) == 0:
        return Medians(np.nan, np.nan, 0.0)
    return Medians(float(np.median(ncc)), float(np.median(power)) if len(power) else np.nan, float(len(ncc)))


def medians_above_decoys(ncc: Floats, power: Floats, decoy_ncc: Floats, decoy_power: Floats) -> Medians:
    """Medians of the picks in excess of the decoys of one micrograph.

    Parameters
    ----------
    ncc, power
        Scores of the picks, shape `(n,)`.
    decoy_ncc, decoy_power
        Scores of the decoys, shape `(m,)`.

    Returns
    -------
    Medians
        NCC: the score above which half of the excess of picks over decoys lies, the excess counted where it is largest
        less three times its counting error. Power: the same, among picks and decoys above that point. Break-even: the
        score that maximises picks - 2 decoys above it, where the density of picks is twice that of decoys; the middle
        of the flat top. NaN where the excess there is below 10 or below three times its counting error. Break-even is
        NaN, too, where it lies above the median: ice that scores above all decoys has made it then, not the particles.
    """
    if len(ncc) == 0:
        return Medians(np.nan, np.nan, 0.0)
    order = np.argsort(-ncc, kind="stable")
    above = np.searchsorted(np.sort(-decoy_ncc), -ncc[order], side="right")
    count = np.arange(1, len(ncc) + 1)
    excess = count - above
    error = np.sqrt(count + above)
    # less three times its counting error, or the maximum wanders with the noise to the lowest scores
    top = int(np.argmax(excess - 3 * error))
    particles = float(excess[top])
    first, peak, last = _plateau(count - 2 * above)
    if excess[peak] < max(LEAST_PARTICLES, 3 * error[peak]):
        return Medians(np.nan, np.nan, max(particles, 0.0))
    median = float(ncc[order[int(np.argmax(excess[: top + 1] >= 0.5 * particles))]])
    break_even = float(0.5 * (ncc[order[first]] + ncc[order[last]]))
    return Medians(
        median,
        _excess_median(power[order[: top + 1]], decoy_power[decoy_ncc >= ncc[order[top]]]),
        particles,
        break_even if break_even <= median else float("nan"),
    )


def _plateau(gain: NDArray[np.integer]) -> tuple[int, int, int]:
    """Range around the maximum where the gain falls short of it by at most half its root: first, maximum, last."""
    top = int(np.argmax(gain))
    enough = gain >= gain[top] - 0.5 * np.sqrt(max(float(gain[top]), 0.0))
    first = last = top
    while first > 0 and enough[first - 1]:
        first -= 1
    while last + 1 < len(gain) and enough[last + 1]:
        last += 1
    return first, top, last


def _excess_median(values: Floats, subtract: Floats) -> float:
    """Median of `values` after taking away a population like `subtract`."""
    both = np.concatenate([values, subtract])
    sign = np.concatenate([np.ones(len(values)), -np.ones(len(subtract))])
    order = np.argsort(both, kind="stable")
    running = np.cumsum(sign[order])
    return float(both[order[int(np.argmax(running >= 0.5 * running[-1]))]])
