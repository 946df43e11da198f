"""Where names stand beside points, so that they hide neither each other nor other points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating]
Box = tuple[float, float, float, float]

LETTER, HALF_LINE, BESIDE = 7.0, 8.0, 13.0
OFFSETS = [(side * BESIDE, dy) for dy in (0.0, -18.0, 18.0, -36.0, 36.0) for side in (1, -1)]


def place_names(
    x: Floats, y: Floats, chosen: Sequence[int], names: Sequence[str], size: tuple[float, float]
) -> list[tuple[float, float]]:
    """Find a place for every name.

    Parameters
    ----------
    x, y
        All points, pixels from the upper left corner of the plot; NaN are none.
    chosen
        Points that are named, the most important first.
    names
        Their names.
    size
        Width and height of the plot, pixels.

    Returns
    -------
    list of tuple
        Offset of each name from its point, pixels to the right and down; a name with an offset to the left ends there.
    """
    taken: list[Box] = []
    found = []
    for point, name in zip(chosen, names, strict=True):
        boxes = [_box(float(x[point]), float(y[point]), LETTER * len(name), dx, dy) for dx, dy in OFFSETS]
        best = int(np.argmin([_badness(box, taken, x, y, size) for box in boxes]))
        taken.append(boxes[best])
        found.append(OFFSETS[best])
    return found


def _box(x: float, y: float, width: float, dx: float, dy: float) -> Box:
    left = x + dx if dx > 0 else x + dx - width
    return left, left + width, y + dy - HALF_LINE, y + dy + HALF_LINE


def _badness(box: Box, taken: list[Box], x: Floats, y: Floats, size: tuple[float, float]) -> int:
    """Beyond the plot is worse than over another name, that worse than over points."""
    left, right, top, bottom = box
    outside = left < 0 or right > size[0] or top < 0 or bottom > size[1]
    crossed = sum(left < other[1] and other[0] < right and top < other[3] and other[2] < bottom for other in taken)
    covered = int(((x > left) & (x < right) & (y > top) & (y < bottom)).sum())
    return 1000 * int(outside) + 100 * crossed + min(covered, 99)
