"""Groups of alike entries of a bank, whose means stand for them where it is only asked whether a look is worth it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]

EXACT = 256
"""So few entries (half-turns not counted) need no groups."""
MOST = 600
"""Groups, at most."""
ROUNDS = 8
BLANK = 1e-3
"""An entry whose norm is less than this part of the largest is that of an empty template."""


def grouped(coefficients: Float32, odd: int) -> tuple[NDArray[np.int32] | None, NDArray[np.bool_] | None]:
    """Sort entries into groups of alike ones, half-turns included.

    Spherical k-means (Dhillon & Modha 2001, Machine Learning 42, 143-175), started from points that are far apart; an
    entry belongs where it, or its half-turn, resembles the mean most.

    Parameters
    ----------
    coefficients
        float32 `(h, k)`, entries of which none is the half-turn of another.
    odd
        Columns, the last ones, that change their sign in half a turn.

    Returns
    -------
    group, turned
        int32 and bool `(h,)`, see `Bank`; None for banks of up to 256 entries.
    """
    if len(coefficients) <= EXACT:
        return None, None
    norms = np.linalg.norm(coefficients, axis=1, keepdims=True)
    # an empty class average is like nothing, itself included: it would be chosen for ever
    told = norms[:, 0] > BLANK * norms.max()
    unit = np.where(told[:, None], coefficients / np.maximum(norms, 1e-12), np.float32(0))
    if not told.any():
        return None, None
    filled = unit[told]
    means = filled[_far_apart(filled, odd, min(MOST, max(1, len(filled) // 2)))]
    for _ in range(ROUNDS):
        group, turned = _nearest(unit, odd, means)
        means = group_means(unit, odd, group, turned)
    group, turned = _nearest(unit, odd, means)
    _, group = np.unique(group, return_inverse=True)
    return group.astype(np.int32), turned


def _parts(vectors: Float32, odd: int) -> tuple[Float32, Float32]:
    even = vectors.shape[1] - odd
    return vectors[:, :even], vectors[:, even:]


def _far_apart(unit: Float32, odd: int, count: int) -> list[int]:
    """Choose points one after the other, each the one least like those before."""
    even_part, odd_part = _parts(unit, odd)
    chosen, likeness = [0], np.full(len(unit), -np.inf)
    for _ in range(count - 1):
        last = chosen[-1]
        likeness = np.maximum(likeness, even_part @ even_part[last] + np.abs(odd_part @ odd_part[last]))
        chosen.append(int(likeness.argmin()))
    return chosen


def _nearest(unit: Float32, odd: int, means: Float32) -> tuple[NDArray[np.intp], NDArray[np.bool_]]:
    (even_part, odd_part), (even_mean, odd_mean) = _parts(unit, odd), _parts(means, odd)
    half_turn = odd_part @ odd_mean.T
    group = (even_part @ even_mean.T + np.abs(half_turn)).argmax(axis=1)
    return group, half_turn[np.arange(len(unit)), group] < 0


def group_means(vectors: Float32, odd: int, group: NDArray[np.integer], turned: NDArray[np.bool_]) -> Float32:
    """Means of groups, of norm 1, members turned by half a turn where that fits better.

    Parameters
    ----------
    vectors
        float32 `(h, k)`.
    odd
        Columns, the last ones, that change their sign in half a turn.
    group, turned
        From `grouped`.

    Returns
    -------
    ndarray
        float32 `(groups, k)`.
    """
    facing = vectors.copy()
    facing[turned, vectors.shape[1] - odd :] *= -1
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    sums = np.add.reduceat(facing[order], starts, axis=0)
    return np.asarray(sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12), dtype=np.float32)
