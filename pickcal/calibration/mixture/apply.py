"""Probabilities of picks from a fitted model, computed on reading."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pickcal.calibration.mixture.components import COMPONENTS, JUNK, PARTICLE
from pickcal.calibration.mixture.em import micrograph_fractions, shares_of
from pickcal.calibration.mixture.model import Model
from pickcal.calibration.mixture.noise import GAUSS
from pickcal.calibration.mixture.observations import (
    Observations,
    flattened,
    in_shadow,
    power_levels,
    valid_places,
)
from pickcal.calibration.mixture.rates import q_values
from pickcal.calibration.trends import mean_defocus

Floats = NDArray[np.floating]


def mixture_columns(picks: xr.Dataset, micrographs: xr.Dataset, model: Model) -> xr.Dataset:
    """Fractions of every micrograph of a block, for a model fitted on these or other micrographs.

    Parameters
    ----------
    picks
        Padded table of the block: `PICK_VARIABLES`, decoys if the model is from decoys; `template` only if it has
        template offsets.
    micrographs
        Their rows of the table of micrographs.
    model
        The fit.

    Returns
    -------
    Dataset
        `fraction` and `expected` (micrograph, component): of picks, and their expected number; `power_level`
        (micrograph), natural logarithm of the noise's power.
    """
    level = power_levels(picks, model.from_decoys, model.radius, model.level)
    data = _observed(picks, micrographs, model, level)
    fractions = _fractions(data, model)
    shares = _shares(data, model, fractions)
    expected = np.stack([data.per_micrograph(part) for part in shares], axis=1)
    return xr.Dataset(
        {
            "fraction": (("micrograph", "component"), fractions, {"long_name": "fractions of the picks", "units": "1"}),
            "expected": (("micrograph", "component"), expected, {"long_name": "expected number of picks"}),
            "power_level": ("micrograph", level, {"long_name": "natural logarithm of the noise's power score"}),
        },
        coords={"component": list(COMPONENTS)},
    )


def probabilities(picks: xr.Dataset, micrographs: xr.Dataset, stored: xr.Dataset) -> xr.Dataset:
    """Probability of being a particle, of being junk, and q-value of every pick.

    Parameters
    ----------
    picks
        Padded table of `PICK_VARIABLES`; `template` only if the model has template offsets.
    micrographs
        Their rows of the table of micrographs.
    stored
        The stored mixture: the model with the columns of these micrographs.

    Returns
    -------
    Dataset
        `probability`, `junk`, `q_value`, float32 (micrograph, pick), NaN where there is no pick.
    """
    model = Model.from_dataset(stored)
    data = _observed(picks, micrographs, model, stored["power_level"].values)
    shares = _shares(data, model, stored["fraction"].values)
    defocus = np.nan_to_num(mean_defocus(micrographs), nan=model.trend.reference)[data.index]
    valid = valid_places(picks)
    out = {}
    for name, values in (
        ("probability", shares[PARTICLE]),
        ("junk", shares[JUNK]),
        ("q_value", q_values(shares[PARTICLE], defocus, model.rates)),
    ):
        padded = np.full(valid.shape, np.nan, dtype=np.float32)
        padded[valid] = values
        out[name] = (("micrograph", "pick"), padded)
    return xr.Dataset(out)


def power_limit(stored: xr.Dataset, lines: xr.Dataset, micrographs: xr.Dataset) -> float | None:
    """Calibrated power score above which a pick is likelier junk than particle, and next to no particle lies.

    Parameters
    ----------
    stored
        The stored mixture.
    lines
        The stored lines: `shift` of the power score.
    micrographs
        Table of the micrographs.

    Returns
    -------
    float or None
        Nine tenths of the micrographs put the limit lower. At least four deviations above the particles' mean. None
        for a model without power.
    """
    model = Model.from_dataset(stored)
    if not np.isfinite(model.level):
        return None
    particles, noise, junk = model.mixture.particles, model.mixture.noise, model.mixture.junk
    shift = lines["shift"].sel(score="power").values
    line = np.nan_to_num(model.trend.design(micrographs))
    mean, spread = line @ particles.power, particles.power_spread(line)
    steps = np.linspace(4.0, 12.0, 81)
    limit = mean + steps[-1] * spread
    if junk is not None:
        odds = model.mixture.fractions[JUNK] / max(model.mixture.fractions[PARTICLE], 1e-9)
        power = mean[:, None] + steps * spread[:, None]
        likelier = np.log(max(odds, 1e-9)) + junk.log_power_density(np.maximum(power - noise.power_mean, 1e-9)) > (
            -0.5 * steps**2 - np.log(spread)[:, None] - GAUSS
        )
        limit = np.where(likelier.any(axis=1), power[np.arange(len(power)), likelier.argmax(axis=1)], limit)
    calibrated = np.exp(limit + stored["power_level"].values - np.nan_to_num(shift))
    return float(np.round(np.nanquantile(calibrated, 0.9), 4))


def decoy_probabilities(decoys: Observations, model: Model, fractions: Floats) -> Floats:
    """Probability of being a particle that decoys would get as picks, shape `(n,)`."""
    return np.asarray(shares_of(model.mixture.log_densities(decoys), fractions[decoys.index])[0][PARTICLE])


def _observed(picks: xr.Dataset, micrographs: xr.Dataset, model: Model, level: Floats) -> Observations:
    with_template = bool(len(model.mixture.particles.offsets))
    return flattened(picks, model.trend.design(micrographs), level, with_template=with_template, leak=model.leak)


def _fractions(data: Observations, model: Model) -> Floats:
    """Fractions of every micrograph, first from all picks, then without those in the shadow of likely particles."""
    mixture = model.mixture
    start = np.tile(mixture.fractions, (len(data.design), 1))
    densities = mixture.log_densities(data)
    first = micrograph_fractions(densities, data.index, start, mixture.fractions)
    likely = shares_of(densities, first[data.index])[0][PARTICLE]
    lit = ~in_shadow(data, likely, model.radius)
    return micrograph_fractions(densities[:, lit], data.index[lit], first, mixture.fractions)


def _shares(data: Observations, model: Model, fractions: Floats) -> Floats:
    """Probabilities of the three components: likely particles first, then those that stand in their shadow anew."""
    mixture = model.mixture
    shares = shares_of(mixture.log_densities(data), fractions[data.index])[0]
    shadowed = in_shadow(data, shares[PARTICLE], model.radius)
    dark = np.flatnonzero(shadowed)
    if len(dark):
        part = data.at(dark)
        again = replace(part, shadowed=np.ones(len(dark), dtype=bool))
        shares[:, dark] = shares_of(mixture.log_densities(again), np.tile(mixture.shadow, (len(dark), 1)))[0]
    return shares
