"""Robust linear regression: an S-estimate to start from and for the scale, then Tukey's biweight (an MM-estimate).

Sources: Yohai (1987), Ann. Stat. 15, 642-656 (MM-estimates); Salibian-Barrera & Yohai (2006), J. Comput. Graph. Stat.
15, 414-427 (the fast search for the S-estimate); Maronna, Martin & Yohai (2006), Robust Statistics, chapter 5. It
resists outlying scores and outlying defoci alike: also bad micrographs that sit together at one end of the range.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

Floats = NDArray[np.floating]

TUKEY = 4.685
"""Tuning constant of the final fit: 95 % efficiency with normal errors."""
OUTLIER = 4.0
"""Residuals beyond so many standard deviations are outlying."""
S_TUKEY = 1.5476
"""Tuning constant of the start: consistent with normal errors, half of the values may be bad."""
START_SAMPLE = 2000
FINALISTS = 5


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

    def band(self, design: Floats, confidence: float) -> Floats:
        """Half-width of the confidence band of the fitted mean at rows of a design matrix."""
        # a sum per row: products of matrices may round differently in another block of rows
        terms = design[:, :, None] * design[:, None, :] * self.covariance
        variance = terms.reshape(len(design), self.covariance.size).sum(axis=1)
        return np.asarray(self.quantile(confidence) * np.sqrt(np.maximum(variance, 0)))

    def quantile(self, confidence: float) -> float:
        """Two-sided quantile of Student's t."""
        return float(stdtrit(self.degrees_of_freedom, 0.5 + 0.5 * confidence))


@dataclass(frozen=True)
class Basis:
    """Orthogonal columns that span those of a design matrix, also where its terms depend on each other.

    Attributes
    ----------
    columns
        Shape `(n, r)`, r <= p; the mean square of each is 1.
    back
        Shape `(p, r)`: coefficients of the design = `back @` coefficients of the columns.
    """

    columns: Floats
    back: Floats

    @classmethod
    def of(cls, design: Floats) -> Basis:
        """Orthogonal columns of a design matrix `(n, p)`; a term that is 0 throughout gets the coefficient 0."""
        norms = np.sqrt(np.square(design).sum(axis=0))
        norms[norms == 0] = 1.0
        left, singular, right = np.linalg.svd(design / norms, full_matrices=False)
        kept = singular > 1e-10 * singular[0]
        root = np.sqrt(len(design))
        back = (right[kept].T / singular[kept]) / norms[:, None] * root
        return cls(left[:, kept] * root, back)


def biweight(squares: Floats) -> Floats:
    """Tukey's weights (1 - u²)² of squared residuals u² in units of the cut, 0 beyond it."""
    return np.asarray(np.square(np.maximum(1.0 - squares, 0.0)))


def robust_fit(design: Floats, values: Floats, iterations: int = 100) -> Fit:
    """Fit `values = design @ coefficients` robustly.

    Parameters
    ----------
    design
        Shape `(n, p)`, n > p.
    values
        Shape `(n,)`.
    iterations
        Most iterations of the final fit, default 100.

    Returns
    -------
    Fit
        With the asymptotic covariance, which takes the errors to be alike everywhere.
    """
    basis = Basis.of(design)
    columns = basis.columns
    coefficients, scale = _start(columns, values)
    residuals = values - columns @ coefficients
    cut = TUKEY * scale
    for _ in range(iterations):
        weights = biweight(np.square(residuals / cut))
        updated = coefficients + _steps(columns, weights[None], residuals[None])[0]
        residuals = values - columns @ updated
        done = np.abs(updated - coefficients).max() < 1e-9 * scale
        coefficients = updated
        if done:
            break
    squares = np.square(residuals / cut)
    weights = biweight(squares)
    freedom = max(float(weights.sum()) - columns.shape[1], 1.0)
    slope = np.maximum(1 - squares, 0) * (1 - 5 * squares)
    variance = float(np.square(weights * residuals).sum() / freedom) / max(float(slope.mean()), 0.1) ** 2
    covariance = variance / len(values) * (basis.back @ basis.back.T)
    return Fit(basis.back @ coefficients, covariance, scale, freedom)


def _steps(columns: Floats, weights: Floats, residuals: Floats) -> Floats:
    """Find the steps `(k, r)` of weighted least squares for k sets of weights and residuals `(k, n)`."""
    r = columns.shape[1]
    products = (columns[:, :, None] * columns[:, None, :]).reshape(len(columns), r * r)
    gram = (weights @ products).reshape(-1, r, r)
    # so little that it only shows where the weights leave a direction undetermined: there the step is then 0
    gram = gram + 1e-10 * len(columns) * np.eye(r)
    right = (weights * residuals) @ columns
    return np.asarray(np.linalg.solve(gram, right[..., None])[..., 0])


def _start(columns: Floats, values: Floats) -> tuple[Floats, float]:
    """S-estimate: the coefficients whose residuals have the least M-scale, and that scale over all values."""
    generator = np.random.default_rng(0)
    some, of_some = columns, values
    if len(values) > START_SAMPLE:
        chosen = generator.choice(len(values), START_SAMPLE, replace=False)
        some, of_some = columns[chosen], values[chosen]
    candidates = _candidates(some, of_some, generator)
    for _ in range(2):
        candidates = _concentrate(some, of_some, candidates)
    spread = np.median(np.abs(of_some - candidates @ some.T), axis=1)
    best = candidates[np.argsort(spread, kind="stable")[:FINALISTS]]
    for _ in range(30):
        before, best = best, _concentrate(some, of_some, best)
        if np.abs(best - before).max() < 1e-9 * spread.min():
            break
    scales = m_scale(of_some - best @ some.T, some.shape[1])
    found = best[int(np.argmin(scales))]
    tiny = 1e-9 * (float(np.abs(values).max()) + 1e-30)
    scale = float(m_scale((values - columns @ found)[None], columns.shape[1])[0])
    return found, max(scale, tiny)


def _candidates(columns: Floats, values: Floats, generator: np.random.Generator) -> Floats:
    """Exact fits of random subsets, enough to meet one without bad values among 40 % bad ones, and least squares."""
    n, r = columns.shape
    wanted = int(np.clip(2 * np.log(1e-3) / np.log1p(-(0.6**r)), 50, 500))
    subsets = generator.random((wanted, n)).argsort(axis=1)[:, :r]
    exact = np.einsum("kij,kj->ki", np.linalg.pinv(columns[subsets], rcond=1e-6), values[subsets])
    return np.vstack([columns.T @ values / (columns**2).sum(axis=0), exact])


def _concentrate(columns: Floats, values: Floats, candidates: Floats) -> Floats:
    """One step of every candidate `(k, r)` towards a lesser scale."""
    residuals = values - candidates @ columns.T
    scales = np.maximum(m_scale(residuals, columns.shape[1], 3), 1e-12 * np.abs(values).max() + 1e-300)
    weights = biweight(np.square(residuals / (S_TUKEY * scales[:, None])))
    return np.asarray(candidates + _steps(columns, weights, residuals))


def m_scale(residuals: Floats, parameters: int, iterations: int = 40) -> Floats:
    """M-scale of rows of residuals `(k, n)`: the standard deviation of normal ones, half of which may be bad.

    Parameters
    ----------
    residuals
        Shape `(k, n)`.
    parameters
        Number of fitted coefficients.
    iterations
        Fixed-point iterations from the median absolute residual, default 40.
    """
    n = residuals.shape[1]
    half = 0.5 * max(n - parameters, 1) / n
    least = 1e-12 * np.abs(residuals).max(axis=1, initial=0.0) + 1e-300
    scales = np.maximum(np.median(np.abs(residuals), axis=1) / 0.6745, least)
    for _ in range(iterations):
        squares = np.minimum(np.square(residuals / (S_TUKEY * scales[:, None])), 1.0)
        loss = 1.0 - (1.0 - squares) ** 3
        scales = np.maximum(scales * np.sqrt(loss.mean(axis=1) / half), least)
    return np.asarray(scales)
