"""The score plane: how many picks there are per main score and power, with the thresholds as lines that are dragged."""

from __future__ import annotations

from typing import Any

import numpy as np
import panel as pn
from bokeh.models import Column, ColumnDataSource, LinearColorMapper, Range1d, Row, Spacer
from bokeh.models.annotations import BoxAnnotation, Span
from numpy.typing import NDArray

from pickcal.calibration.verdicts import heading
from pickcal.dashboard.binned.cube import Cube, Plane
from pickcal.dashboard.methods import Method
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

Floats = NDArray[np.floating]

SHARES = 9
"""Steps of the part of a cell that is accepted."""
LEVELS = 24
"""Steps of the number of picks in a cell."""
MOST_TICKS = 7
HEIGHT, TOP, RIGHT = 360, 84, 104
OF_PLANE = {"picks", "method", "thresholds", "decisions", "cube", "progress"}
SCORES: tuple[Method, ...] = ("raw", "line")
"""Methods with a threshold on the main score, between which the picture moves."""


class PlaneView:
    """Density of the picks in the plane of main score and power, the margins beside it.

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
        self._cube: Cube | None = None
        self._picture = _Picture.empty()
        self._method, self._played, self._forwards = session.method, 0, True
        self._with_power = True
        self._cells = ColumnDataSource({name: [] for name in ("image", "x", "y", "dw", "dh")}, syncable=False)
        self._margins = {
            name: ColumnDataSource(nothing("edge", "all", "accepted", "none"), syncable=False)
            for name in ("main", "power")
        }
        self._frames = ColumnDataSource({name: [] for name in ("image", "x", "y", "dw", "dh")}, syncable=False)
        self._notes = note_label(look), note_label(look)
        self._top, self._plane, self._right = self._figures()
        sources = {"cells": self._cells, **self._margins, "frames": self._frames}
        self._drag = Dragging(session, (self._plane, self._top, self._right), self._lines(), sources)
        self._pane = pn.pane.Bokeh(self._grid(), margin=0, **FILL)
        text = "Score plane. Darker: more picks per cell (logarithmic). Drag the edges of the box or the lines."
        if look.dark:
            text = text.replace("Darker", "Brighter")
        self.layout = pn.Column(caption(look, text, swatches=True), self._pane, margin=(0, 8), **FILL)
        self.refresh(frozenset(OF_PLANE))

    # what is drawn

    def _figures(self) -> tuple[Any, Any, Any]:
        look, ranges = self._look, {"x": Range1d(start=0, end=1), "y": Range1d(start=0.1, end=10)}
        wide = {"sizing_mode": "stretch_width", "min_border_left": 68, "min_border_right": 8}
        top = look.figure(
            name="main margin", height=TOP, x_range=ranges["x"], y_axis_type="log",
            y_range=Range1d(start=0.5, end=10), **wide,
        )  # fmt: skip
        plane = look.figure(
            name="plane", height=HEIGHT - TOP, x_range=ranges["x"], y_range=ranges["y"], y_axis_type="log", **wide
        )
        right = look.figure(
            name="power margin", width=RIGHT, height=HEIGHT - TOP, y_range=ranges["y"],
            x_range=Range1d(start=0.5, end=10), x_axis_type="log", y_axis_type="log", min_border_right=10,
        )  # fmt: skip
        top.xaxis.visible = right.yaxis.visible = False
        top.yaxis.axis_label = right.xaxis.axis_label = "picks"
        top.grid.visible = right.grid.visible = False
        plane.grid.visible = False
        palette = colours(look)
        plane.image(source=self._cells, image="image", x="x", y="y", dw="dw", dh="dh",
                    color_mapper=LinearColorMapper(palette=palette, low=-0.5, high=len(palette) - 0.5))  # fmt: skip
        for plot, note in zip((plane, top), self._notes, strict=True):
            plot.add_layout(note)
        main, power = self._margins["main"], self._margins["power"]
        filled, outlined = {"fill_color": look.accepted, "fill_alpha": 0.65}, {"line_color": look.faint}
        top.varea_step(x="edge", y1="none", y2="accepted", step_mode="after", source=main, **filled)
        top.step(x="edge", y="all", mode="after", source=main, **outlined)
        right.harea_step(y="edge", x1="none", x2="accepted", step_mode="after", source=power, **filled)
        # a step along the other axis: the line goes across first
        right.step(x="all", y="edge", mode="before", source=power, **outlined)
        return top, plane, right

    def _lines(self) -> Lines:
        box = (("left", "main"), ("bottom", "low"), ("top", "high"))
        drawn, grip = line_styles(self._look)
        lines: Lines = []
        for style, by_hand in ((drawn, False), (grip, True)):
            frame = BoxAnnotation(
                left=0, right=1, bottom=1, top=2, fill_color=None, hover_fill_color=None, visible=False,
                editable=by_hand, movable="none", syncable=False, **style,
            )  # fmt: skip
            self._plane.add_layout(frame)
            lines.append((frame, box, by_hand))
            for plot, slot in ((self._top, "main"), (self._right, "low"), (self._right, "high")):
                span = Span(
                    location=1, dimension="height" if slot == "main" else "width", visible=False, editable=by_hand,
                    syncable=False, **style,
                )  # fmt: skip
                plot.add_layout(span)
                lines.append((span, (("location", slot),), by_hand))
        return lines

    def _grid(self) -> Any:
        if not self._with_power:
            return self._top
        # no GridPlot: deep within a page Bokeh 3.9 leaves its figures without their axes
        beside = Spacer(width=RIGHT, height=TOP)
        rows = (Row(children=[self._top, beside], **FILL), Row(children=[self._plane, self._right], **FILL))
        return Column(children=list(rows), **FILL)

    def _arrange(self, with_power: bool) -> None:
        """Without a power score there is only the histogram of the main score."""
        if with_power == self._with_power:
            return
        self._with_power = with_power
        self._top.height = TOP if with_power else HEIGHT
        self._top.xaxis.visible = not with_power
        self._pane.object = self._grid()

    # what changes

    def refresh(self, changes: frozenset[str]) -> None:
        """Show what changed."""
        if not changes & OF_PLANE:
            return
        session = self._session
        if session.method != self._method:
            self._turn(session.method)
        cube = session.cube
        text = progress_text(session, cube)
        for note, used in zip(self._notes, (self._with_power, not self._with_power), strict=True):
            note.update(text=text, visible=bool(text) and used)
        if cube is None:
            self._drag.show({}, shown=False, empty=True, **self._turned())
            return
        plane = cube.plane(session.settings)
        if cube is not self._cube:
            self._renew(cube, plane)
        self._drag.show(self._limits(cube), shown=True, empty=False, **self._turned(), **self._picture.state(plane))

    def _turned(self) -> dict[str, Any]:
        return {"played": self._played, "forwards": self._forwards}

    def _turn(self, method: Method) -> None:
        """Have the frames played between raw and calibrated scores."""
        if self._method in SCORES and method in SCORES:
            self._played += 1
            self._forwards = method == "line"
        self._method = method

    def _limits(self, cube: Cube) -> dict[str, float | None]:
        settings = self._session.settings
        limits: dict[str, float | None] = {}
        if cube.method in SCORES:
            limits["main"] = settings.min_ncc
        if cube.power is not None:
            limits |= {"low": settings.min_power, "high": settings.max_power}
        return limits

    def _renew(self, cube: Cube, plane: Plane) -> None:
        """Draw what hangs on the cube alone: axes, all picks, frames."""
        self._cube = cube
        self._arrange(cube.power is not None)
        self._picture = _Picture(plane)
        words, before = self._session.inspector.words(self._session.picks), "" if cube.method == "raw" else "calibrated"
        self._plane.xaxis.axis_label = self._top.xaxis.axis_label = heading(words.axis("ncc", before))
        self._plane.yaxis.axis_label = heading(words.axis("power", before)).replace(" (", "\n(")
        self._plane.x_range.update(**padded(plane.ncc))
        edges = {"main": within(cube.main.edges, plane.ncc)}
        self._margins["main"].data = margin(plane.ncc, plane.ncc_all)
        _count_axis(self._top.y_range, self._top.yaxis, plane.ncc_all)
        if cube.power is not None:
            self._plane.y_range.update(**padded(plane.power, logarithmic=True))
            self._plane.yaxis.ticker = ticks(plane.power)
            edges["power"] = within(cube.power.edges, plane.power)
            self._margins["power"].data = margin(plane.power, plane.power_all)
            _count_axis(self._right.x_range, self._right.xaxis, plane.power_all)
        for line, slots, _ in self._drag.lines:
            if len(slots) > 1:
                # farther than the plot, so that nobody drags it
                line.right = plane.ncc[-1] + 2 * (plane.ncc[-1] - plane.ncc[0])
        self._drag.snap_to(edges, outside=plane.ncc[0] - 2 * (plane.ncc[-1] - plane.ncc[0]))
        if cube.frames is not None and cube.power is not None:
            pictures = [self._picture.neutral(frame) for frame in cube.frames]
            place = {name: [value] * len(pictures) for name, value in self._picture.place.items()}
            self._frames.data = {"image": pictures, **place}


class _Picture:
    """Cells of the plane as indices of colours; what hangs on all picks alone is found once.

    Parameters
    ----------
    plane
        Numbers of picks.
    """

    def __init__(self, plane: Plane) -> None:
        self.place: dict[str, float] = {}
        if len(plane.power) > 1:
            self.place = {
                "x": float(plane.ncc[0]),
                "y": float(plane.power[0]),
                "dw": float(plane.ncc[-1] - plane.ncc[0]),
                "dh": float(plane.power[-1] - plane.power[0]),
            }
        self._least, self._most = _extent(plane.all)
        self._levels = self._level(plane.all)
        self._per_pick = np.divide(SHARES - 1, plane.all, out=np.zeros_like(plane.all), where=plane.all > 0)

    @classmethod
    def empty(cls) -> _Picture:
        """Nothing."""
        none = np.zeros(0)
        cells = np.zeros((0, 0), dtype=np.float32)
        return cls(Plane(none, none, cells, cells, none, none, none, none, 0))

    def _level(self, counts: NDArray[np.float32]) -> NDArray[np.uint8]:
        span = np.log(self._most / self._least) or 1.0
        parts = np.log(np.clip(counts, self._least, self._most) / self._least) / span
        return np.asarray(1 + np.rint(parts * (LEVELS - 1))).astype(np.uint8)

    def state(self, plane: Plane) -> dict[str, Any]:
        """Colours of all cells, and the accepted counts of the margins."""
        shares = np.rint(plane.accepted * self._per_pick)
        # a cell of which anything is accepted shows it
        np.copyto(shares, 1, where=(shares == 0) & (plane.accepted > 0.25))
        image = (self._levels + LEVELS * np.clip(shares, 0, SHARES - 1).astype(np.uint8)).astype(np.uint8)
        image[plane.all <= 0] = 0
        return {
            "image": image,
            **self.place,
            "main_accepted": _closed(plane.ncc_accepted),
            "power_accepted": _closed(plane.power_accepted),
        }

    def neutral(self, counts: NDArray[np.float32]) -> NDArray[np.uint8]:
        """Colours of a frame, in which nothing is accepted or rejected."""
        return np.where(counts > 0, self._level(counts) + np.uint8(LEVELS * SHARES), 0).astype(np.uint8)


def _extent(counts: NDArray[np.float32]) -> tuple[float, float]:
    some = counts[counts > 0]
    return (float(some.min()), float(some.max())) if len(some) else (1.0, 1.0)


def _count_axis(along: Any, axis: Any, counts: Floats) -> None:
    """Set a logarithmic axis of counts, with at most three numbers."""
    along.end = 2.0 * max(float(counts.max(initial=0.0)), 2.0)
    most = int(np.log10(along.end))
    step = max(1, -(-most // 2))
    axis.ticker = [10**power for power in range(0, most + 1, step)]


def _closed(counts: Floats) -> NDArray[np.float32]:
    """Give counts at edges, the last one twice; nothing is drawn as less than one."""
    return np.asarray(np.maximum(np.append(counts, counts[-1:]), 0.5), dtype=np.float32)


def ticks(edges: Floats) -> list[float]:
    """Give round numbers along a logarithmic axis: 1, 2 and 5 of every decade, or fewer."""
    low, high = float(edges[0]), float(edges[-1])
    decades = range(int(np.floor(np.log10(low))), int(np.ceil(np.log10(high))) + 1)
    for factors in ((1, 2, 5), (1, 3), (1,)):
        found = [float(f"{factor}e{power}") for power in decades for factor in factors]
        found = [value for value in found if low <= value <= high]
        if len(found) <= MOST_TICKS:
            break
    return found


def margin(edges: Floats, counts: Floats) -> dict[str, Any]:
    """Columns of a histogram beside the plane.

    Parameters
    ----------
    edges
        Shape `(n + 1,)`.
    counts
        All picks, shape `(n,)`.
    """
    every = _closed(counts)
    return {"edge": edges, "all": every, "accepted": np.full_like(every, 0.5), "none": np.full_like(every, 0.5)}


def colours(look: Look) -> list[str]:
    """Palette of the picture: nothing, then from rejected to accepted in steps, and neutral for frames."""
    far = "#ffffff" if look.dark else "#000000"
    ramps = []
    for colour in (look.rejected, look.accepted, look.faint):
        pale, strong = mixed(look.background, colour, 0.3), mixed(colour, far, 0.3)
        ramps.append([mixed(pale, strong, level / (LEVELS - 1)) for level in range(LEVELS)])
    rejected, accepted, neutral = ramps
    blended = [
        mixed(no, yes, share / (SHARES - 1))
        for share in range(SHARES)
        for no, yes in zip(rejected, accepted, strict=True)
    ]
    return [look.background, *blended, *neutral]


def mixed(one: str, other: str, part: float) -> str:
    """Colour between two, by the part of the other one."""
    both = [np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) for colour in (one, other)]
    return "#" + "".join(f"{round(value):02x}" for value in both[0] + part * (both[1] - both[0]))
