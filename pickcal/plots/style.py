"""Colours, figures, short names and labels that do not overlap.

Colours: Okabe & Ito (2008), Color Universal Design, told apart with every common colour vision.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox
from numpy.typing import NDArray

Floats = NDArray[np.floating]

BLUE, SKY, ORANGE, GREEN, YELLOW = "#0072B2", "#56B4E9", "#D55E00", "#009E73", "#E69F00"
GREY, DARK_GREEN = "#666666", "#00513B"
SERIES = (BLUE, ORANGE, GREEN, YELLOW, "#CC79A7", SKY)
UM = 1e-4
"""µm in an Å."""
LONGEST_NAME = 22
"""Letters of a name in a plot."""
MOST_LABELS = 6
TAILS = 0.01
"""Part of the values that may lie outside of what is drawn, see `robust_limits`."""


class NotebookFigure(Figure):
    """A figure that notebooks show, though pyplot knows nothing of it."""

    def _repr_png_(self) -> bytes:
        return png(self)


def new_figure(width: float, height: float) -> Figure:
    """Make an empty white figure with a layout that keeps labels apart.

    Parameters
    ----------
    width, height
        Inches.
    """
    figure = NotebookFigure(figsize=(width, height), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure


NO_DEFOCUS = "no finished micrograph with picks and defocus"
"""What `nothing_figure` says where micrographs are grouped by defocus and there are none."""


def nothing_figure(text: str) -> Figure:
    """Make a small figure that says why there is nothing to draw."""
    figure = new_figure(6, 2)
    figure.text(0.5, 0.5, text, ha="center", color=GREY)
    return figure


def tidy(axes: Any, xlabel: str, ylabel: str, title: str = "") -> None:
    """Set labels and a left-aligned title, and remove the frame where there is no axis."""
    axes.set_xlabel(xlabel, fontsize=10)
    axes.set_ylabel(ylabel, fontsize=10)
    axes.set_title(title, fontsize=10, loc="left")
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)


def shared_legend(figure: Figure, panels: Iterable[Any], columns: int, last: str = "") -> None:
    """Put one legend of all panels above them; labels that several panels have stand there once.

    Parameters
    ----------
    figure, panels
        The figure and its axes.
    columns
        Columns of the legend.
    last
        Labels with this text in them stand at the end; default: as they come.
    """
    found: dict[str, Any] = {}
    for axes in panels:
        handles, labels = axes.get_legend_handles_labels()
        found |= dict(zip(labels, handles, strict=True))
    order = sorted(found, key=lambda label: bool(last) and last in label)
    handles = [found[label] for label in order]
    figure.legend(handles, order, loc="outside upper center", ncols=columns, fontsize=9, frameon=False)


def enclosing_level(density: Floats, part: float) -> float:
    """Density whose contour encloses a part of the whole."""
    ordered = np.sort(density.ravel())[::-1]
    inside = np.cumsum(ordered)
    return float(ordered[min(int(np.searchsorted(inside, part * inside[-1])), len(ordered) - 1)])


def robust_limits(values: Floats) -> tuple[float, float]:
    """Range to draw: all values, or, where a few lie far out, the middle 99 % of them.

    An end is the outermost value unless that is further from the middle 99 % than these are wide.

    Returns
    -------
    low, high
        0 and 1 where there is no finite value.
    """
    values = values[np.isfinite(values)]
    if not len(values):
        return 0.0, 1.0
    low, high = (float(value) for value in np.quantile(values, (0.5 * TAILS, 1 - 0.5 * TAILS)))
    least, most, width = float(values.min()), float(values.max()), high - low
    return (least if low - least <= width else low), (most if most - high <= width else high)


def beyond_text(values: Floats, limits: tuple[float, float]) -> str:
    """Say how many scores of picks lie outside the range that is drawn, and how far; "" where none does."""
    parts = []
    for outside, word, far in (
        (values < limits[0], "down to", np.min),
        (values > limits[1], "up to", np.max),
    ):
        if outside.any():
            picks = f"{int(outside.sum())} {'pick' if outside.sum() == 1 else 'picks'}"
            parts.append(f"{picks}, {word} {far(values[outside]):.3g}")
    return f"not shown: {'; '.join(parts)}" if parts else ""


def note_beyond(axes: Any, values: Floats, limits: tuple[float, float]) -> None:
    """Write in the upper right corner how many scores of picks lie outside the range that is drawn."""
    text = beyond_text(values, limits)
    if text:
        note = axes.text(0.99, 0.97, text, transform=axes.transAxes, ha="right", va="top", fontsize=8, color=GREY)
        note.set_path_effects([withStroke(linewidth=2.5, foreground="white")])


def png(figure: Figure, dpi: int = 110) -> bytes:
    """Render a figure as PNG.

    Parameters
    ----------
    figure
        Any figure.
    dpi
        Dots per inch, default 110.
    """
    out = io.BytesIO()
    engine = figure.get_layout_engine()
    if engine is not None:
        # laid out once: savefig would draw everything twice, to lay it out and to render it
        engine.execute(figure)
        figure.set_layout_engine("none")
    figure.savefig(out, format="png", dpi=dpi, metadata={"Software": "pickcal"})
    figure.set_layout_engine(engine)
    return out.getvalue()


def short_names(names: Sequence[str]) -> list[str]:
    """Stems without folder, extension and common ending; the middle of long ones is left out.

    Examples
    --------
    >>> short_names(["a/one_fractions.mrc", "b/two_fractions.mrc"])
    ['one', 'two']
    """
    stems = [PurePosixPath(str(name)).stem for name in names]
    ends = {stem[max(stem.rfind("_"), 0) :] for stem in stems}
    if len(stems) > 1 and len(ends) == 1:
        stems = [stem.removesuffix(next(iter(ends))) or stem for stem in stems]
    head = LONGEST_NAME // 3
    rest = LONGEST_NAME - head - 1
    return [stem if len(stem) <= LONGEST_NAME else f"{stem[:head]}…{stem[-rest:]}" for stem in stems]


def label_points(axes: Any, x: Floats, y: Floats, names: Sequence[str], avoid: Floats) -> None:
    """Write names beside points, each where it hides neither another name nor the points to avoid.

    Call it when everything else is drawn: labels are placed in the final layout. At most six are written.

    Parameters
    ----------
    axes
        Axes of a figure made by `new_figure`.
    x, y
        Data coordinates of the points, most notable first.
    names
        Their names.
    avoid
        Data coordinates `(n, 2)` of points that names should not cover.
    """
    figure = axes.figure
    engine = figure.get_layout_engine()
    if engine is None:
        figure.draw_without_rendering()
    else:
        engine.execute(figure)
    renderer = figure.canvas.get_renderer()
    inside = axes.get_window_extent(renderer)
    points = axes.transData.transform(avoid) if len(avoid) else np.empty((0, 2))
    taken: list[Bbox] = []
    for px, py, name in list(zip(x, y, names, strict=True))[:MOST_LABELS]:
        text = axes.annotate(name, (px, py), textcoords="offset points", xytext=(0, 0), fontsize=8, color=ORANGE)
        text.set_in_layout(False)
        text.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
        boxes = []
        for place in _PLACES:
            text.set(**place)
            boxes.append(text.get_window_extent(renderer).padded(1))
        best = int(np.argmin([_cost(box, inside, taken, points) for box in boxes]))
        text.set(**_PLACES[best])
        taken.append(boxes[best])


_HORIZONTAL, _VERTICAL = {1: "left", 0: "center", -1: "right"}, {1: "bottom", 0: "center", -1: "top"}
_PLACES: list[dict[str, Any]] = [
    {"position": (dx * far, dy * far), "ha": _HORIZONTAL[dx], "va": _VERTICAL[dy]}
    for far in (8, 16, 28)
    for dx, dy in ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, 1), (1, -1), (-1, -1))
]


def _cost(box: Bbox, inside: Bbox, taken: Sequence[Bbox], points: Floats) -> float:
    outside = max(inside.x0 - box.x0, 0) + max(box.x1 - inside.x1, 0)
    outside += max(inside.y0 - box.y0, 0) + max(box.y1 - inside.y1, 0)
    overlaps = sum(box.overlaps(other) for other in taken)
    covered = box.count_contains(points) if len(points) else 0
    return float(1000 * overlaps + 100 * outside + 10 * covered)
