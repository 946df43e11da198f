"""Thresholds as lines and boxes of Bokeh plots that are dragged; see plane.js, which does it in the browser."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import panel as pn
from bokeh.models import ColumnDataSource, CustomJS
from bokeh.models.annotations import Label
from numpy.typing import NDArray

from pickcal.dashboard.binned.cube import Cube
from pickcal.dashboard.session import Session
from pickcal.dashboard.views.look import FILL, HERE, Look

Floats = NDArray[np.floating]
Lines = list[tuple[Any, tuple[tuple[str, str], ...], bool]]
"""Bokeh annotations, their properties with the slots of the thresholds these show, and whether they are dragged."""

PADDING = 0.03


class Dragging:
    """Thresholds that are dragged in some plots.

    Parameters
    ----------
    session
        The visitor.
    plots
        Bokeh figures; the first that is on the page is marked with the version that was painted.
    lines
        What is drawn at the thresholds. Slots are "main", "low" and "high".
    sources
        Bokeh sources that the browser fills from `show`, by name; see plane.js.

    Attributes
    ----------
    lines
        As given.
    """

    def __init__(
        self, session: Session, plots: Sequence[Any], lines: Lines, sources: Mapping[str, Any] | None = None
    ) -> None:
        self._session, self.lines, self._heard = session, lines, 0
        self._state = ColumnDataSource({}, syncable=False)
        self._axes = ColumnDataSource({}, syncable=False)
        self._wire = ColumnDataSource({})
        self._wire.on_change("tags", self._moved)
        given = [[line, [list(slot) for slot in slots], by_hand] for line, slots, by_hand in lines]
        args = {"state": self._state, "axes": self._axes, "wire": self._wire, "lines": given, "plots": list(plots)}
        script = CustomJS(args={**args, **(sources or {})}, code=(HERE / "plane.js").read_text(encoding="utf-8"))
        self._state.js_on_change("data", script)
        for plot in plots:
            # set by the browser when the plot is laid out, so that the script is there before anything is dragged
            plot.js_on_change("inner_width", script)

    def snap_to(self, edges: Mapping[str, Floats], outside: float = 0.0) -> None:
        """Set where thresholds snap to: edges by the axes "main" and "power"; at the first or last there is no limit.

        Parameters
        ----------
        edges
            Ascending. An axis that is not there has no lines.
        outside
            Where the box ends on the left without a main threshold, in units of the main score.
        """
        self._axes.data = {**{name: [np.asarray(values)] for name, values in edges.items()}, "outside": [outside]}

    def show(self, limits: Mapping[str, float | None], **values: Any) -> None:
        """Send what changed, in one message.

        Parameters
        ----------
        limits
            Thresholds by slot; None for no limit. A slot that is not there has no lines.
        **values
            `shown`, whether there are thresholds to show, and what else plane.js knows.
        """
        found = [[slot, None if value is None else float(value)] for slot, value in limits.items()]
        state = {"version": self._session.version, "heard": self._heard, "limits": found, **values}
        self._state.data = {name: [value] for name, value in state.items()}

    def _moved(self, attribute: str, old: Any, new: Any) -> None:
        """Follow a hand: move the thresholds that it moved; the last move is one step for undo."""
        number, final, places = new
        self._heard = int(number)
        session = self._session
        names = {"main": session.main, "low": "min_power", "high": "max_power"}
        moves = [(names[slot], None if value is None else float(value)) for slot, value in places]
        moves = ordered(moves, session.settings.min_power)
        changed = [move for move in moves if getattr(session.settings, move[0]) != move[1]]
        if final and not changed:
            changed = moves[:1]

        def move() -> None:
            for i, (name, value) in enumerate(changed):
                session.set_threshold(name, value, final=bool(final) and i == len(changed) - 1)

        session.attempt(move)


def ordered(moves: list[tuple[str, float | None]], least: float | None) -> list[tuple[str, float | None]]:
    """Order moves so that the limits of the power never cross in between, which would push the other one along.

    Parameters
    ----------
    moves
        Names of thresholds and their values.
    least
        Lower limit of the power before.
    """
    found = dict(moves)
    low = found.get("min_power")
    rises = low is not None and (least is None or low > least)
    return sorted(moves, key=lambda move: (move[0] == "min_power") == rises)


def line_styles(look: Look) -> tuple[dict[str, Any], dict[str, Any]]:
    """How thresholds are drawn, and how what is taken hold of is: broad, seen only under the pointer."""
    drawn = {"line_color": look.text, "line_width": 1.5, "line_alpha": 1.0}
    grip = {"line_color": look.text, "line_alpha": 0.0, "hover_line_color": look.accepted, "hover_line_alpha": 0.35}
    return drawn, {**grip, "line_width": 12, "hover_line_width": 12}


def within(edges: Floats, of: Floats) -> Floats:
    """Edges of a grid that lie in the plot, with its ends."""
    inside = edges[(edges > of[0]) & (edges < of[-1])]
    return np.concatenate([of[:1], inside, of[-1:]])


def padded(edges: Floats, logarithmic: bool = False) -> dict[str, float]:
    """Range of an axis a little wider than its edges, so that lines at its ends can be taken hold of."""
    low, high = float(edges[0]), float(edges[-1])
    if logarithmic:
        factor = (high / low) ** PADDING
        return {"start": low / factor, "end": high * factor}
    return {"start": low - PADDING * (high - low), "end": high + PADDING * (high - low)}


def nothing(*columns: str) -> dict[str, Any]:
    """Columns of which nothing is seen: Bokeh never ends drawing a filled step of no points at all."""
    return {name: [np.nan, np.nan] for name in columns}


def progress_text(session: Session, cube: Cube | None) -> str:
    """Say how far binning is, or why it failed; "" when all picks are binned."""
    failure = session.inspector.failure(*session.key)
    if failure:
        return f"picks could not be binned: {failure}"
    part = f"{100 * session.inspector.progress(*session.key):.0f} %"
    if cube is None:
        return f"binning picks: {part}"
    return "" if cube.complete else f"from a sample, {part} binned"


def note_label(look: Look) -> Label:
    """Make the note in the lower left corner of a plot."""
    return Label(
        x=8, y=6, x_units="screen", y_units="screen", text="", text_color=look.text, text_font_size="13px",
        background_fill_color=look.background, background_fill_alpha=0.85, visible=False,
    )  # fmt: skip


def caption(look: Look, text: str, swatches: bool = False) -> Any:
    """Make the line above a plot, with the colours of accepted and rejected picks if wanted."""
    shown = ""
    if swatches:
        pairs = (("accepted", look.accepted), ("rejected", look.rejected))
        shown = " ".join(
            f'<span style="white-space:nowrap"><span aria-hidden="true" style="color:{colour}">&#9632;</span> {word}'
            "</span>"
            for word, colour in pairs
        )
    style = {"font-size": "13px", "color": look.text, "min-height": "38px"}
    return pn.pane.HTML(f"{html.escape(text)} {shown}", styles=style, margin=(0, 0, 4, 0), **FILL)
