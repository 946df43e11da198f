"""Robust linear regression: a least-absolute-deviations start, then Tukey's biweight with a fixed scale.

Source: Maronna, Martin & Yohai (2006), Robust Statistics, sections 4.4 and 5.5 (M-estimates with previously computed
scale). It resists outlying scores, also a third of them, but not outlying defoci: a group of bad micrographs at one
end of the range can draw the line.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Floats = NDArray[np.floating]

TUKEY = 4.685
OUTLIER = 4.0


@dataclass(frozen=True)
class Fit:
    """A fitted linear model.

    Attributes
    ----------
    coefficients, covariance
        Shapes `(p,)` and `(p, p)`.
    scale
        Robust standard deviation of the residuals.
    degrees_of_freedom
        Sum of weights less parameters, at least 1.
    """

    coefficients: Floats
    covariance: Floats
    scale: float
    degrees_of_freedom: float

    def interval(self, confidence: float) -> tuple[Floats, Floats]:
        """Lower and upper ends of the confidence intervals of the coefficients."""
        half = self.quantile(confidence) * np.sqrt(np.diag(self.covariance))
        return self.coefficients - half, self.coefficients + half

    def band(self, design: Floats, confidence: float) -> Floats:
        """Half-width of the confidence band of the fitted mean at rows of a design matrix."""
        variance = np.einsum("ij,jk,ik->i", design, self.covariance, design)
        return np.asarray(self.quantile(confidence) * np.sqrt(np.maximum(variance, 0)))

    def quantile(self, confidence: float) -> float:
        """Two-sided quantile of Student's t."""
        return float(stats.t.ppf(0.5 + 0.5 * confidence, self.degrees_of_freedom))


def robust_fit(design: Floats, values: Floats, iterations: int = 100) -> Fit:
    """Fit `values = design @ coefficients` robustly.

    Parameters
    ----------
    design
        Shape `(n, p)`, n > p.
    values
        Shape `(n,)`.
    iterations
        Most iterations of either phase, default 100.
    """
    coefficients = _least_absolute(design, values, iterations)
    residuals = values - design @ coefficients
    spare = max(len(values) - design.shape[1], 1)
    scale = 1.4826 * float(np.median(np.abs(residuals))) * np.sqrt(len(values) / spare)
    tiny = 1e-9 * (float(np.abs(values).max()) + 1e-30)
    scale = max(scale, tiny)
    weights = np.ones(len(values))
    for _ in range(iterations):
        weights = np.square(np.maximum(1 - np.square(residuals / (TUKEY * scale)), 0))
        updated = _weighted(design, values, weights)
        residuals = values - design @ updated
        if np.allclose(updated, coefficients, rtol=1e-10, atol=1e-12):
            break
        coefficients = updated
    freedom = max(float(weights.sum()) - design.shape[1], 1.0)
    psi = weights * residuals
    slope = np.maximum(1 - np.square(residuals / (TUKEY * scale)), 0)
    slope = slope * (1 - 5 * np.square(residuals / (TUKEY * scale)))
    variance = float((psi**2).sum() / freedom) / max(float(slope.mean()), 0.1) ** 2
    inverse = np.linalg.pinv(design.T @ design)
    return Fit(coefficients, variance * inverse, scale, freedom)


def _weighted(design: Floats, values: Floats, weights: Floats) -> Floats:
    root = np.sqrt(weights)
    return np.asarray(np.linalg.lstsq(design * root[:, None], values * root, rcond=None)[0])


def _least_absolute(design: Floats, values: Floats, iterations: int) -> Floats:
    coefficients = _weighted(design, values, np.ones(len(values)))
    for _ in range(iterations):
        residuals = np.abs(values - design @ coefficients)
        floor = max(1e-6 * float(residuals.max()), 1e-15)
        updated = _weighted(design, values, 1 / np.maximum(residuals, floor))
        if np.allclose(updated, coefficients, rtol=1e-8, atol=1e-12):
            return updated
        coefficients = updated
    return coefficients
