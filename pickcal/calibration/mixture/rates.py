"""False discovery rates: the part of the accepted picks that is expected to be noise or junk.

A pick's q-value is the lowest false discovery rate at which it is still accepted (Storey 2002, J. R. Stat. Soc. B 64,
479-498): the mean probability of being no particle over the picks of its defocus that are at least as probable
(Efron 2008, Statistical Science 23, 1-22). The probabilities rest on the decoys, which give the noise its density; the
decoys that pass the same threshold are counted beside it, as a control that needs no model.
"""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pickcal.calibration.mixture.components import JUNK, NOISE, PARTICLE
from pickcal.calibration.mixture.model import LEVELS

Floats = NDArray[np.floating]

MOST_STRATA = 8
PARTICLES_PER_STRATUM = 500
MICROGRAPHS_PER_STRATUM = 3


def log_odds(probability: Floats) -> Floats:
    """Log odds of probabilities, within the range of the tables."""
    edge = 1 / (1 + np.exp(-LEVELS[-1]))
    clipped = np.clip(probability, 1 - edge, edge)
    return np.log(clipped / (1 - clipped))


def false_discovery_rates(
    shares: Floats, defocus: Floats, micrograph: NDArray[np.intp], decoys: Floats, decoy_weight: Floats
) -> xr.Dataset:
    """Tabulate false discovery rates against the log odds of being a particle.

    Parameters
    ----------
    shares
        Probabilities of noise, particle and junk of each pick, shape `(3, n)`.
    defocus
        Of every micrograph, any unit, no NaN.
    micrograph
        Of each pick.
    decoys, decoy_weight
        Probability of being a particle that each decoy would get, and how far it counts.

    Returns
    -------
    Dataset
        `q_value` (stratum, level): of a stratum of defocus with its middle in `stratum_defocus`. Above each level, over
        all picks given: `picks_above`, `noise_above`, `junk_above` (expected) and `decoys_above` (counted, and scaled
        to as many as there is noise).
    """
    order = np.argsort(defocus, kind="stable")
    rank = np.empty(len(order), dtype=np.intp)
    rank[order] = np.arange(len(order))
    strata = int(np.clip(shares[PARTICLE].sum() // PARTICLES_PER_STRATUM, 1, MOST_STRATA))
    strata = max(1, min(strata, len(defocus) // MICROGRAPHS_PER_STRATUM))
    if np.ptp(defocus) < 1.0:
        strata = 1
    stratum_of = rank * strata // max(len(defocus), 1)
    stratum = stratum_of[micrograph]
    place = np.clip(np.searchsorted(LEVELS, log_odds(shares[PARTICLE]), side="right") - 1, 0, len(LEVELS) - 1)
    flat = stratum * len(LEVELS) + place

    def above(values: Floats | None) -> Floats:
        sums = np.bincount(flat, values, minlength=strata * len(LEVELS)).reshape(strata, len(LEVELS))
        return np.asarray(sums[:, ::-1].cumsum(axis=1)[:, ::-1], dtype=np.float64)

    count, noise, junk = above(None), above(shares[NOISE]), above(shares[JUNK])
    # where no pick is left, the rate is that of a pick at the level itself
    alone = 1 / (1 + np.exp(LEVELS))
    q_value = np.where(count > 0, (noise + junk) / np.maximum(count, 1), alone)
    q_value = np.minimum(np.maximum.accumulate(q_value[:, ::-1], axis=1)[:, ::-1], 1.0)
    places = np.clip(np.searchsorted(LEVELS, log_odds(decoys), side="right") - 1, 0, len(LEVELS) - 1)
    # decoys next to particles are left out: as many as there is noise stand for them
    scale = float(shares[NOISE].sum()) / max(float(decoy_weight.sum()), 1.0)
    counted = scale * np.bincount(places, decoy_weight, minlength=len(LEVELS))
    middles = [float(np.mean(defocus[stratum_of == s])) for s in range(strata)]
    return xr.Dataset(
        {
            "q_value": (("stratum", "level"), q_value),
            "stratum_defocus": ("stratum", middles),
            "picks_above": ("level", count.sum(axis=0)),
            "noise_above": ("level", noise.sum(axis=0)),
            "junk_above": ("level", junk.sum(axis=0)),
            "decoys_above": ("level", counted[::-1].cumsum()[::-1].astype(np.float64)),
        },
        coords={"level": LEVELS},
    )


def q_values(probability: Floats, defocus: Floats, rates: xr.Dataset) -> Floats:
    """q-value of picks, linear in the table between levels and between the middles of the strata.

    Parameters
    ----------
    probability
        Of being a particle; any shape.
    defocus
        Of each pick's micrograph, unit as in the table, same shape.
    rates
        From `false_discovery_rates`.
    """
    table, middles = rates["q_value"].values, rates["stratum_defocus"].values
    step = LEVELS[1] - LEVELS[0]
    # a table entry counts what is at or above its level: a pick between two levels is accepted with the lower one
    place = np.clip((log_odds(probability) - LEVELS[0]) / step, 0, len(LEVELS) - 1)
    low = np.minimum(place.astype(np.intp), len(LEVELS) - 2)
    along = place - low
    stratum = np.interp(defocus, middles, np.arange(len(middles))) if len(middles) > 1 else np.zeros(np.shape(defocus))
    left = np.minimum(stratum.astype(np.intp), max(len(middles) - 2, 0))
    across = stratum - left
    right = np.minimum(left + 1, len(middles) - 1)

    def at(row: NDArray[np.intp]) -> Floats:
        return np.asarray(table[row, low] * (1 - along) + table[row, low + 1] * along)

    return np.asarray(at(left) * (1 - across) + at(right) * across)
