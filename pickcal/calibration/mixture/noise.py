"""The noise component: how decoys score, with a trend in covariates and a shape of their own.

Decoys are the picks of the same search on the contrast-inverted micrograph, so their scores are those of picks that
hold nothing. Their NCC score, standardised by a line for its mean and one for the logarithm of its deviation, has one
shape over the data set; it is tabulated, not assumed to be Gaussian. The logarithm of their power score, given the
NCC score, is Gaussian.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from scipy.special import log_ndtr

from pickcal.calibration.mixture.observations import Observations, with_leak

Floats = NDArray[np.floating]

GRID = np.linspace(-8.0, 12.0, 401)
TAIL = 200
"""Decoys in the upper tail, which is continued by an exponential."""
GAUSS = 0.5 * np.log(2 * np.pi)
NO_FLOOR = -1e30


@dataclass(frozen=True)
class Noise:
    """Density of noise in the plane of NCC score and log power.

    Attributes
    ----------
    mean, deviation
        Coefficients over the terms of the design: mean of the NCC score, and logarithm of its standard deviation.
    shape
        Logarithm of the density of the standardised NCC score on `GRID`.
    power_mean, power_slope, power_deviation
        Log power = `power_mean` + `power_slope` x standardised NCC score, within this standard deviation.
    shadow_mean, shadow_deviation
        Of the standardised NCC score of noise in the shadow of a strong pick, which is lower: Gaussian.
    shadow_power_mean, shadow_power_deviation
        Of the log power there, which is higher.
    floor, least
        Without decoys: the lowest score that there is, below which the picker kept nothing, and the least deviation.
    """

    mean: Floats
    deviation: Floats
    shape: Floats
    power_mean: float = 0.0
    power_slope: float = 0.0
    power_deviation: float = 1.0
    shadow_mean: float = 0.0
    shadow_deviation: float = 1.0
    shadow_power_mean: float = 0.0
    shadow_power_deviation: float = 1.0
    floor: float = NO_FLOOR
    least: float = 0.0

    def scale(self, design: Floats) -> Floats:
        """Give the standard deviation of the NCC score of every micrograph."""
        return np.asarray(np.exp(design @ self.deviation))

    def standardised(self, data: Observations) -> Floats:
        """NCC scores in standard deviations above the mean of the noise."""
        return np.asarray((data.ncc - (data.design @ self.mean)[data.index]) / self.scale(data.design)[data.index])

    def log_density(self, data: Observations) -> Floats:
        """Log density at every pick; of the NCC score alone where there is no power."""
        z = self.standardised(data)
        out = log_shape(z, self.shape)
        if self.floor > NO_FLOOR:
            # only what lies above the floor was kept
            out -= log_ndtr((data.design @ self.mean - self.floor) / self.scale(data.design))[data.index]
        here = np.flatnonzero(data.shadowed)
        out[here] = (
            -0.5 * ((z[here] - self.shadow_mean) / self.shadow_deviation) ** 2 - np.log(self.shadow_deviation) - GAUSS
        )
        out -= (data.design @ self.deviation)[data.index]
        if data.power is None:
            return out
        mean, deviation = self.power_given(data, z)
        of_power = -0.5 * ((data.power - mean) / deviation) ** 2 - np.log(deviation) - GAUSS
        return np.asarray(out + np.where(np.isfinite(data.power), of_power, 0.0))

    def power_given(self, data: Observations, z: Floats) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the log power of noise with the standardised NCC scores `z`."""
        mean = np.where(data.shadowed, self.shadow_power_mean, self.power_mean + self.power_slope * z)
        deviation = np.where(data.shadowed, self.shadow_power_deviation, self.power_deviation)
        return with_leak(mean, deviation, data.leak)


def log_shape(z: Floats, shape: Floats) -> Floats:
    """Tabulated log density at standardised scores, continued linearly beyond the table."""
    place = (z - GRID[0]) / (GRID[1] - GRID[0])
    low = np.clip(place.astype(np.intp), 0, len(GRID) - 2)
    return np.asarray(shape[low] + (place - low) * (shape[low + 1] - shape[low]))


def gaussian_shape() -> Floats:
    """Return the shape of Gaussian noise: what is assumed where there are no decoys."""
    return np.asarray(-0.5 * GRID**2 - GAUSS)


def fit_noise(decoys: Observations) -> Noise:
    """Fit the noise component to decoys.

    Parameters
    ----------
    decoys
        Their scores and weights.
    """
    design, index, weight = decoys.design, decoys.index, decoys.weight
    count = decoys.per_micrograph(weight)
    total = decoys.per_micrograph(weight * decoys.ncc)
    mean = _weighted_line(design, total / np.maximum(count, 1e-9), count)
    residual = decoys.ncc - (design @ mean)[index]
    deviation = _log_deviation(design, decoys.per_micrograph(weight * residual**2), count)
    z = residual / np.exp(design @ deviation)[index]
    shape = tabulated(z, weight)
    if decoys.power is None:
        return Noise(mean, deviation, shape)
    power = decoys.power
    middle = np.nanmedian(power)
    good = np.abs(power - middle) < 6 * np.nanmedian(np.abs(power - middle)) + 1e-9  # ice and film are no noise
    line = np.column_stack([np.ones(int(good.sum())), z[good]])
    constant, slope = _weighted_line(line, power[good], weight[good])
    spread = float(np.sqrt(np.average((power[good] - line @ [constant, slope]) ** 2, weights=weight[good])))
    return Noise(
        mean,
        deviation,
        shape,
        float(constant),
        float(slope),
        max(spread, 1e-3),
        shadow_power_mean=float(constant),
        shadow_power_deviation=max(spread, 1e-3),
    )


def _weighted_line(design: Floats, values: Floats, weights: Floats) -> Floats:
    root = np.sqrt(weights)
    return np.asarray(np.linalg.lstsq(design * root[:, None], values * root, rcond=None)[0])


def _log_deviation(design: Floats, squares: Floats, count: Floats) -> Floats:
    """Log-linear standard deviation by scoring: many micrographs of few decoys count as much as few of many."""
    start = 0.5 * np.log(max(float(squares.sum() / max(float(count.sum()), 1e-9)), 1e-12))
    found = start * np.eye(design.shape[1])[0]
    information = 2 * (design * count[:, None]).T @ design
    for _ in range(20):
        score = design.T @ (squares / np.exp(2 * design @ found) - count)
        found = found + damped(np.linalg.lstsq(information, score, rcond=1e-9)[0], design)
    return np.asarray(found)


def damped(step: Floats, design: Floats) -> Floats:
    """Shorten a step of coefficients so that it changes no micrograph's log deviation by more than a half."""
    return step * min(1.0, 0.5 / max(float(np.abs(design @ step).max(initial=0.0)), 1e-300))


def tabulated(z: Floats, weight: Floats) -> Floats:
    """Log density of standardised scores on `GRID`: kernel estimate, exponential in the tails.

    The tail beyond the 200 highest scores (or the highest tenth) falls at the rate of the mean excess there; so does
    the lower one.
    """
    step = GRID[1] - GRID[0]
    edges = np.append(GRID - 0.5 * step, GRID[-1] + 0.5 * step)
    total = float(weight.sum())
    width = max(1.06 * float(np.sqrt(np.average(z**2, weights=weight))) * total**-0.2, step)
    counts = np.histogram(z, edges, weights=weight)[0]
    density = gaussian_filter1d(counts, width / step, mode="constant") / (total * step)
    out = np.log(np.maximum(density, 1e-300))
    tail = min(TAIL, 0.1 * total)
    for side in (1, -1):
        order = np.argsort(-side * z)
        values, share = side * z[order], weight[order]
        number = int(np.searchsorted(np.cumsum(share), tail)) + 1
        start = values[min(number, len(values) - 1)]
        mass = float(share[:number].sum())
        rate = mass / max(float((share[:number] * (values[:number] - start)).sum()), 1e-3)
        beyond = side * GRID > start
        out[beyond] = np.log(mass / total * rate) - rate * (side * GRID[beyond] - start)
    return np.asarray(out - np.log(np.trapezoid(np.exp(out), GRID)))
