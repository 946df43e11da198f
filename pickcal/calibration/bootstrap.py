"""Bootstrap over micrographs of a robust fit: intervals that also hold where the errors are not alike everywhere.

Sources: Efron & Tibshirani (1993), An Introduction to the Bootstrap, chapters 9 and 13 (resampling pairs, percentile
intervals); Hesterberg (2015), Am. Stat. 69, 371-386 (expanded percentiles, without which intervals from few values
are too short). As in the fast robust bootstrap of Salibian-Barrera & Zamar (2002), Ann. Stat. 30, 556-582, resamples
start from the fit to all micrographs, so that a resample full of bad ones cannot break down; the scale is kept.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr, stdtrit

from pickcal.calibration.robust import TUKEY, Basis, Fit, biweight

Floats = NDArray[np.floating]

CHUNK = 1_000_000
"""Values (resamples x micrographs) in work at a time: six arrays of 4 to 8 bytes each."""
LEAST_TAIL = 4.0
"""Percentiles with fewer resamples beyond them are taken from a normal distribution."""
FARTHEST = 5.0


def resampled_coefficients(
    design: Floats, values: Floats, fit: Fit, resamples: int, seed: int = 0, iterations: int = 30
) -> Floats:
    """Coefficients of the robust fit to resamples of the rows.

    Parameters
    ----------
    design, values
        What was fitted, shapes `(n, p)` and `(n,)`.
    fit
        The fit to all of it.
    resamples
        Number of resamples.
    seed
        Of the random numbers, default 0.
    iterations
        Most iterations per resample, default 30; they end when no coefficient moves by 1 % of its error.

    Returns
    -------
    Array
        Shape `(resamples, p)`. Memory is bounded, whatever the number of rows.
    """
    basis = Basis.of(design)
    columns = basis.columns.astype(np.float32)
    # in units of the scale, as errors then are of order 1/sqrt(n) and single precision is ample
    residuals = ((values - design @ fit.coefficients) / fit.scale).astype(np.float32)
    r = columns.shape[1]
    products = (columns[:, :, None] * columns[:, None, :]).reshape(len(columns), r * r)
    generator = np.random.default_rng(seed)
    size = max(1, CHUNK // len(values))
    moved = [
        _moved(columns, products, residuals, _counts(generator, min(size, resamples - first), len(values)), iterations)
        for first in range(0, resamples, size)
    ]
    return np.asarray(fit.coefficients + fit.scale * np.vstack(moved) @ basis.back.T)


def _counts(generator: np.random.Generator, resamples: int, n: int) -> Floats:
    """How often each row is in each resample, shape `(resamples, n)`."""
    drawn = generator.integers(n, size=(resamples, n)) + n * np.arange(resamples)[:, None]
    return np.bincount(drawn.ravel(), minlength=resamples * n).reshape(resamples, n).astype(np.float32)


def _moved(columns: Floats, products: Floats, residuals: Floats, counts: Floats, iterations: int) -> Floats:
    """How far each resample's coefficients lie from those of all rows, shape `(resamples, r)`."""
    n, r = columns.shape
    moved = np.zeros((len(counts), r))
    # where a resample leaves a direction undetermined, it stays at the fit to all rows
    ridge = 1e-5 * n * np.eye(r)
    for _ in range(iterations):
        left = residuals - moved.astype(np.float32) @ columns.T
        weights = counts * biweight(np.square(left / np.float32(TUKEY)))
        gram = (weights @ products).astype(np.float64).reshape(-1, r, r) + ridge
        right = ((weights * left) @ columns).astype(np.float64)
        step = np.linalg.solve(gram, right[..., None])[..., 0]
        moved += step
        if np.abs(step).max() < 0.01 / np.sqrt(n):
            break
    return moved


def bootstrap_covariance(coefficients: Floats, n: int) -> Floats:
    """Covariance `(p, p)` of resampled coefficients `(resamples, p)`, less biased for few of n rows."""
    p = coefficients.shape[1]
    return np.asarray(np.atleast_2d(np.cov(_drawn_in(coefficients), rowvar=False)) * n / max(n - p, 1))


def _drawn_in(values: Floats) -> Floats:
    """Values with those beyond FARTHEST deviations drawn in: resamples of two or three different micrographs."""
    low, middle, high = np.quantile(values, [0.1587, 0.5, 0.8413], axis=0)
    reach = FARTHEST * 0.5 * (high - low)
    return np.clip(values, middle - reach, middle + reach)


def percentile_interval(
    values: Floats, estimate: float, n: int, parameters: int, confidence: float
) -> tuple[float, float]:
    """Find the expanded percentile interval of one quantity.

    Parameters
    ----------
    values
        The quantity in every resample.
    estimate
        The quantity in the whole fit.
    n, parameters
        Numbers of rows and of fitted coefficients; percentiles are moved outwards as Student's t with n - parameters
        degrees of freedom and the divisor of the variance ask for.
    confidence
        Level, such as 0.95.
    """
    freedom = max(n - parameters, 1)
    wide = float(stdtrit(freedom, 0.5 + 0.5 * confidence) * np.sqrt(n / freedom))
    tail = float(ndtr(-wide))
    if tail * len(values) < LEAST_TAIL:
        half = wide * float(np.std(_drawn_in(values), ddof=1))
        return estimate - half, estimate + half
    low, high = np.quantile(values, [tail, 1.0 - tail])
    return float(low), float(high)
