"""How many picks are accepted at low, middle and high defocus, against the main threshold and against defocus."""

from __future__ import annotations

from typing import Any

import numpy as np
import panel as pn
from bokeh.models import ColumnDataSource, Range1d
from bokeh.models.annotations import Span
from numpy.typing import NDArray

from pickcal.dashboard.binned.cube import Cube
from pickcal.dashboard.methods import MAIN, Method
from pickcal.dashboard.session import Session
from pickcal.dashboard.views.dragging import (
    Dragging,
    Lines,
    caption,
    line_styles,
    note_label,
    nothing,
    padded,
    progress_text,
    within,
)
from pickcal.dashboard.views.look import FILL, Look
from pickcal.settings import SelectSettings

Floats = NDArray[np.floating]

HEIGHT, LOWER = 210, 150
WIDE = {"sizing_mode": "stretch_width", "min_border_left": 68, "min_border_right": 12}
CLASSES = ("low", "middle", "high")
COLUMNS = ("x", *CLASSES, "picks", "none")
DASHES: tuple[Any, ...] = ("solid", [7, 3], [2, 2])
OF_CURVE = {"picks", "method", "thresholds", "decisions", "cube", "progress"}


class CurveView:
    """Accepted picks per micrograph against the main threshold, and against defocus under the thresholds.

    Parameters
    ----------
    session
        The visitor.
    look
        Colours.

    Attributes
    ----------
    layout
        Panel object.
    """

    def __init__(self, session: Session, look: Look) -> None:
        self._session, self._look = session, look
        self._drawn: tuple[Cube, SelectSettings] | None = None
        self._method: Method | None = None
        self._middles: Floats = np.zeros(0, dtype=np.float64)
        self._sources = tuple(ColumnDataSource(nothing(*COLUMNS)) for _ in range(2))
        self._bins = ColumnDataSource({"x": [], "y": []})
        self._note = note_label(look), note_label(look)
        # false discovery rates are on a logarithmic axis; of the two plots one is seen
        self._figures: dict[bool, tuple[Any, Dragging]] = {}
        self._panes = [pn.Column(margin=0, visible=False, **FILL) for _ in range(2)]
        self._plot, self._drag = self._figure_of(session.method == "fdr")
        self._defocus = self._defocus_figure()
        self._words = caption(look, "")
        below = pn.pane.Bokeh(self._defocus, margin=0, **FILL)
        self.layout = pn.Column(self._words, *self._panes, below, margin=(0, 8), **FILL)
        self.refresh(frozenset(OF_CURVE))

    # what is drawn

    def _figure_of(self, falling: bool) -> tuple[Any, Dragging]:
        """Return a plot, made when it is looked at for the first time."""
        if falling not in self._figures:
            self._figures[falling] = self._figure(falling)
            self._panes[falling][:] = [pn.pane.Bokeh(self._figures[falling][0], margin=0, **FILL)]
        return self._figures[falling]

    def _figure(self, falling: bool) -> tuple[Any, Dragging]:
        """Make a plot of accepted picks against the threshold."""
        look, lines = self._look, self._sources[falling]
        plot = look.figure(
            name="rates" if falling else "curve", height=HEIGHT, x_range=Range1d(start=0.1, end=1),
            y_range=Range1d(start=0, end=1), **WIDE,
            x_axis_type="log" if falling else "linear",
        )  # fmt: skip
        plot.yaxis.axis_label = "accepted picks\nper micrograph"
        plot.extra_y_ranges = {"picks": Range1d(start=0, end=1)}
        plot.varea_step(
            x="x", y1="none", y2="picks", step_mode="after", source=lines, y_range_name="picks",
            fill_color=look.faint, fill_alpha=0.2,
        )  # fmt: skip
        for name, colour, dash in zip(CLASSES, look.classes, DASHES, strict=True):
            plot.line(x="x", y=name, source=lines, line_color=colour, line_width=2, line_dash=dash)
        plot.add_layout(self._note[falling])
        spans: Lines = []
        for style, by_hand in zip(line_styles(look), (False, True), strict=True):
            span = Span(location=1, dimension="height", visible=False, editable=by_hand, syncable=False, **style)
            plot.add_layout(span)
            spans.append((span, (("location", "main"),), by_hand))
        return plot, Dragging(self._session, (plot,), spans)

    def _defocus_figure(self) -> Any:
        plot = self._look.figure(
            name="defocus", height=LOWER, x_range=Range1d(start=0, end=1), y_range=Range1d(start=0, end=1), **WIDE
        )
        plot.xaxis.axis_label, plot.yaxis.axis_label = "Defocus (µm)", "accepted picks\nper micrograph"
        plot.line(x="x", y="y", source=self._bins, line_color=self._look.accepted, line_width=2)
        plot.scatter(x="x", y="y", source=self._bins, size=5, color=self._look.accepted)
        return plot

    # what changes

    def refresh(self, changes: frozenset[str]) -> None:
        """Show what changed."""
        if not changes & OF_CURVE:
            return
        session = self._session
        if session.method != self._method:
            self._turn(session.method)
        cube = session.cube
        text = progress_text(session, cube)
        self._note[session.method == "fdr"].update(text=text, visible=bool(text))
        if cube is None:
            self._drag.show({}, shown=False)
            return
        others = session.settings.model_copy(update={MAIN[session.method]: None})
        if self._drawn is None or self._drawn[0] is not cube or self._drawn[1] != others:
            self._draw(cube, others)
        self._follow()
        falling = session.method == "fdr"
        self._drag.show({"main": getattr(session.settings, session.main)}, shown=True, falling=falling)

    def _turn(self, method: Method) -> None:
        self._method, self._drawn = method, None
        for lines in self._sources:
            lines.data = nothing(*COLUMNS)
        self._note[0].visible = self._note[1].visible = False
        self._plot, self._drag = self._figure_of(method == "fdr")
        self._plot.xaxis.axis_label = self._title(method)
        for pane, falling in zip(self._panes, (False, True), strict=True):
            pane.visible = falling == (method == "fdr")
        self._tell(None)

    def _tell(self, cube: Cube | None) -> None:
        """Say above the plot what is drawn, with the range of defocus of each line."""
        classes = "three defoci" if cube is None else _classes(cube, self._look)
        more = " Grey: all picks." if self._method in ("probability", "fdr") else ""
        self._words.object = f"Accepted picks at {classes}. Drag the line.{more}"

    def _title(self, method: Method) -> str:
        if method == "probability":
            return "Least probability of being a particle"
        if method == "fdr":
            return "Largest false discovery rate (fraction)"
        words = self._session.inspector.words(self._session.picks)
        return "Least " + words.axis("ncc", "" if method == "raw" else "calibrated")

    def _draw(self, cube: Cube, others: SelectSettings) -> None:
        """Draw what the main threshold does not change."""
        renewed = self._drawn is None or self._drawn[0] is not cube
        self._drawn = cube, others
        curve = cube.curve(others)
        edges = cube.main.edges
        end = _nice_end(float(np.nanmax(curve, initial=0.0)))
        columns: dict[str, Any] = dict(zip(CLASSES, curve, strict=True))
        histogram: Floats = np.zeros(len(edges))
        counts = self._session.counts
        if counts is not None and cube.method in ("probability", "fdr"):
            histogram = _histogram(cube, curve, counts.micrographs, self._plot.extra_y_ranges["picks"])
        self._plot.y_range.end = end
        if renewed:
            self._tell(cube)
            self._plot.x_range.update(**padded(edges, logarithmic=cube.method == "fdr"))
            self._drag.snap_to({"main": within(edges, edges)})
            known = cube.defocus
            self._middles = np.asarray(0.5 * (known[1:] + known[:-1]), dtype=np.float64)
            if len(self._middles):
                wide = 0.04 * max(float(np.ptp(known)), 0.1)
                self._defocus.x_range.update(start=float(known[0]) - wide, end=float(known[-1]) + wide)
        lines = self._sources[cube.method == "fdr"]
        lines.data = {"x": edges, **columns, "picks": histogram, "none": np.zeros(len(edges))}

    def _follow(self) -> None:
        """Show accepted picks against defocus."""
        counts, bins = self._session.counts, len(self._middles)
        if counts is None:
            return
        some = np.flatnonzero(counts.micrographs[:bins])
        mean = counts.accepted[some] / counts.micrographs[some]
        self._bins.data = {"x": self._middles[some], "y": mean}
        most, end = float(mean.max(initial=0.0)), float(self._defocus.y_range.end)
        # the axis stays while the line is easy to see on it
        if most > 0.97 * end or most < 0.4 * end:
            self._defocus.y_range.end = _nice_end(most)


def _nice_end(most: float) -> float:
    """End of an axis: a round number a little above what is drawn."""
    if not most > 0:
        return 1.0
    step = 10.0 ** np.floor(np.log10(1.08 * most)) / 2
    return float(step * np.ceil(1.08 * most / step))


def _histogram(cube: Cube, curve: Floats, micrographs: NDArray[np.int64], along: Range1d) -> Floats:
    """Count the picks between edges, as the height of a logarithmic axis without numbers."""
    total = np.nan_to_num(curve).T @ np.array([micrographs[part].sum() for part in cube.classes], dtype=np.float64)
    steps = np.abs(np.diff(total)) / np.diff(cube.main.edges)
    least = float(steps[steps > 0].min(initial=np.inf))
    heights = np.where(steps > 0, np.log(np.maximum(steps, 1e-300) / least) + 0.5, 0.0) if np.isfinite(least) else steps
    along.end = max(1.15 * float(heights.max(initial=0.0)), 1.0)
    return np.asarray(np.append(heights, heights[-1:]))


def _classes(cube: Cube, look: Look) -> str:
    """Name the lines, each with its colour and dashes and its range of defocus (HTML)."""
    found, known = [], cube.defocus
    for name, colour, dash, part in zip(CLASSES, look.classes, DASHES, cube.classes, strict=True):
        if len(known) < 2 or not cube.micrographs[part].sum():
            continue
        gaps = "" if dash == "solid" else f' stroke-dasharray="{dash[0]} {dash[1]}"'
        line = (
            '<svg aria-hidden="true" width="24" height="8"><line x1="0" y1="4" x2="24" y2="4" stroke-width="3"'
            f' stroke="{colour}"{gaps}/></svg>'
        )
        ends = f"{known[part.start]:.1f}\u2013{known[min(part.stop, len(known) - 1)]:.1f} µm"
        found.append(f'<span style="white-space:nowrap">{line} {name} ({ends})</span>')
    return f"{', '.join(found)} defocus" if found else "all defoci"
