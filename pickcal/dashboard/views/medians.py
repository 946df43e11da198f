"""Medians of one score against defocus with the fit, before and after calibration, as a Bokeh figure.

Points are sent once. Before and after are two columns of them, and a group is a filter, so that switching sends a few
words only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from bokeh.models import AllIndices, CDSView, ColumnDataSource, CustomJS, GroupFilter, HoverTool, Range1d
from bokeh.transform import factor_cmap, factor_mark
from numpy.typing import NDArray

from pickcal.calibration.apply import calibrated
from pickcal.calibration.verdicts import ScoreWords, heading
from pickcal.dashboard.views.labels import place_names
from pickcal.dashboard.views.look import Look
from pickcal.plots.fits import outliers
from pickcal.plots.style import MOST_LABELS, UM

Floats = NDArray[np.floating]

BEFORE, AFTER = "before", "after"
REACH = 14.0
"""Farthest that a click may be from a point, pixels."""
MOST_VERTICES = 200
MARKERS = {"circle": "●", "square": "■", "triangle": "▲", "diamond": "◆", "inverted_triangle": "▼", "hex": "⬢"}
PLAIN_TERMS = ("constant", "defocus", "defocus^2")
ALL_GROUPS = ""
INNER = (420, 280)
"""Least size of the plot inside its axes, pixels: where names do not hide each other there, they do nowhere."""
CLICK = """
const across = plot.inner_width / (plot.x_range.end - plot.x_range.start)
const down = plot.inner_height / (plot.y_range.end - plot.y_range.start)
const count = click.data.count[0] + 1
click.data = { x: [cb_obj.x], y: [cb_obj.y], across: [across], down: [down], count: [count] }
"""


@dataclass(frozen=True)
class FitFacts:
    """What the plots of both scores share.

    Attributes
    ----------
    fit
        The stored calibration.
    words
        What the scores are called.
    names
        Names of all micrographs.
    labels
        Short ones.
    groups
        Exposure group of every micrograph.
    """

    fit: xr.Dataset
    words: ScoreWords
    names: list[str]
    labels: list[str]
    groups: NDArray[np.integer]

    @property
    def defocus(self) -> Floats:
        """Defocus of every micrograph, µm."""
        return np.asarray(self.fit["defocus"].values * UM)

    def of(self, score: str, name: str, steps: float = 0.0) -> dict[str, Floats]:
        """Values of one score before and after calibration.

        Parameters
        ----------
        score
            "ncc", or "power": its natural logarithm.
        name
            "median", "fitted" or "break_even_fitted".
        steps
            Half-widths of the confidence band to add. Default 0.
        """
        one = self.fit.sel(score=score)
        values: Floats = np.asarray(one[name].values, dtype=np.float64)
        if score == "power" and name == "median":
            values = _logarithm(values)
        values = values + steps * one["band"].values if steps else values
        plain = xr.DataArray(np.exp(values) if score == "power" else values, dims="micrograph")
        moved = np.asarray(calibrated(plain, self.fit, score).values, dtype=np.float64)
        return {BEFORE: values, AFTER: _logarithm(moved) if score == "power" else moved}

    def statuses(self, score: str) -> list[str]:
        """Say what became of every micrograph in the fit of one score."""
        one = self.fit.sel(score=score)
        used, outlying = one["used"].values == 1, one["outlier"].values == 1
        words = np.where(outlying, "outlying", np.where(used, "used in the fit", "not used in the fit"))
        return [str(word) for word in words]


def _logarithm(values: Floats) -> Floats:
    return np.log(np.where(values > 0, values, np.nan))


def nearest(x: Floats, y: Floats, wanted: tuple[float, float], scales: tuple[float, float], reach: float) -> int | None:
    """Find the point nearest to a place on the screen.

    Parameters
    ----------
    x, y
        Points; NaN are none.
    wanted
        The place.
    scales
        Pixels per unit of x and of y.
    reach
        How far away a point may be, pixels.
    """
    away = np.hypot((x - wanted[0]) * scales[0], (y - wanted[1]) * scales[1])
    if not np.isfinite(away).any():
        return None
    found = int(np.nanargmin(away))
    return found if away[found] <= reach else None


class MediansPlot:
    """Medians of one score against defocus, with the fit.

    Parameters
    ----------
    facts
        What is drawn.
    score
        "ncc" or "power".
    source
        Columns of all micrographs; this plot adds its own.
    x_range
        Shared by both scores.
    look
        Colours.

    Attributes
    ----------
    figure
        Bokeh figure.
    medians
        Values that are drawn, before and after.
    """

    def __init__(self, facts: FitFacts, score: str, source: ColumnDataSource, x_range: Range1d, look: Look) -> None:
        self._facts, self._score, self._source, self._look = facts, score, source, look
        self._state, self._group = BEFORE, ALL_GROUPS
        self.medians = facts.of(score, "median")
        even = facts.of(score, "break_even_fitted") if score == "ncc" else {}
        label = f"median {facts.words.of_score(score)}"
        if score == "power":
            label += f", ln({facts.words.unit})" if facts.words.unit else ", natural logarithm"
        self.figure = look.figure(
            height=360,
            min_width=420,
            sizing_mode="stretch_width",
            x_range=x_range,
            y_range=padded_range(np.concatenate([*self.medians.values(), *even.values()])),
            x_axis_label="defocus (µm)",
            y_axis_label=label,
            tools="pan,box_zoom,wheel_zoom,reset",
            toolbar_location="right",
            name=f"medians_{score}",
        )
        self._by_state: list[tuple[Any, dict[str, str]]] = []
        self._lines: list[tuple[str, Any]] = []
        self._draw_points()
        self._draw_fits()
        self._draw_marks()
        self.show(BEFORE, ALL_GROUPS)

    def _draw_points(self) -> None:
        facts, score = self._facts, self._score
        one = facts.fit.sel(score=score)
        for state, values in self.medians.items():
            self._source.data[f"{score}_{state}"] = values
        self._source.data[f"{score}_residual"] = one["residual"].values
        self._source.data[f"{score}_status"] = facts.statuses(score)
        used = one["used"].values == 1
        self._source.data[f"{score}_fill"] = np.where(used, 0.8, 0.0)
        self._source.data[f"{score}_line"] = np.where(used, 0.0, 1.0)
        names = group_names(facts.groups)
        colours = palette(self._look, len(names))
        markers = [list(MARKERS)[i % len(MARKERS)] for i in range(len(names))]
        colour = factor_cmap("group", colours, names)
        self._points = self.figure.scatter(
            "x",
            f"{score}_{BEFORE}",
            source=self._source,
            view=CDSView(filter=AllIndices()),
            size=float(np.clip(2400 / max(len(facts.names), 1), 5, 10)),
            marker=factor_mark("group", markers, names),
            fill_color=colour,
            line_color=colour,
            fill_alpha=f"{score}_fill",
            line_alpha=f"{score}_line",
            name=f"points_{score}",
        )
        self._by_state.append((self._points.glyph, {"y": f"{score}_{{}}"}))
        numbers = "0.000" if score == "ncc" else "0.00"
        shown = [("", "@name"), ("defocus", "@x{0.00} µm"), ("median before", f"@{score}_{BEFORE}{{{numbers}}}")]
        shown += [("median after", f"@{score}_{AFTER}{{{numbers}}}")]
        shown += [("residual", f"@{score}_residual{{+0.0}} standard deviations"), ("status", f"@{score}_status")]
        if len(names) > 1:
            shown.append(("exposure group", "@group"))
        self.figure.add_tools(HoverTool(renderers=[self._points], tooltips=shown, limit=3))

    def _draw_fits(self) -> None:
        fit, look = self._facts.fit, self._look
        if any(str(term) not in PLAIN_TERMS for term in fit["term"].values):
            # with further covariates the fit is no function of defocus alone
            for state, values in self._facts.of(self._score, "fitted").items():
                self._source.data[f"{self._score}_fitted_{state}"] = values
            dashes = self.figure.scatter(
                "x", f"{self._score}_fitted_{BEFORE}", source=self._source, marker="dash", size=12, color=look.faint
            )
            self._by_state.append((dashes.glyph, {"y": f"{self._score}_fitted_{{}}"}))
            return
        groups = group_names(fit["group"].values)
        colours = palette(look, len(groups)) if len(groups) > 1 else [look.text]
        for group, colour in zip(groups, colours, strict=True):
            members = self._facts.groups == int(group) if len(groups) > 1 else None
            self._draw_line(group if len(groups) > 1 else ALL_GROUPS, members, colour)

    def _draw_line(self, group: str, members: NDArray[np.bool_] | None, colour: str) -> None:
        """Draw line and band through the fitted values of micrographs that were used, evenly taken of many."""
        facts = self._facts
        used = facts.fit["used"].sel(score=self._score).values == 1
        rows = np.flatnonzero(used if members is None else used & members)
        rows = rows[np.argsort(facts.defocus[rows], kind="stable")]
        rows = rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MOST_VERTICES)).round().astype(np.intp))]
        columns: dict[str, Any] = {"x": facts.defocus[rows]}
        for part, name, steps in (("level", "fitted", 0.0), ("low", "fitted", -1.0), ("high", "fitted", 1.0)):
            for state, values in facts.of(self._score, name, steps).items():
                columns[f"{part}_{state}"] = values[rows]
        if self._score == "ncc":
            for state, values in facts.of("ncc", "break_even_fitted").items():
                columns[f"even_{state}"] = values[rows]
        source = ColumnDataSource(columns)
        band = self.figure.varea("x", f"low_{BEFORE}", f"high_{BEFORE}", source=source, color=colour, alpha=0.22)
        line = self.figure.line("x", f"level_{BEFORE}", source=source, color=colour, line_width=2)
        self._by_state += [(band.glyph, {"y1": "low_{}", "y2": "high_{}"}), (line.glyph, {"y": "level_{}"})]
        self._lines += [(group, band), (group, line)]
        if self._score == "ncc" and np.isfinite(columns[f"even_{BEFORE}"]).any():
            even = self.figure.line(
                "x", f"even_{BEFORE}", source=source, color=colour, line_width=1.5, line_dash="dashed"
            )
            self._by_state.append((even.glyph, {"y": "even_{}"}))
            self._lines.append((group, even))

    def _draw_marks(self) -> None:
        """Draw what stands out: rings and names of outlying micrographs, and a ring where one is looked at."""
        look, y = self._look, f"{self._score}_{BEFORE}"
        self._outlying = outliers(self._facts.fit.sel(score=self._score))
        columns = {
            "x": self._facts.defocus[self._outlying],
            "group": self._facts.groups[self._outlying].astype(str).tolist(),
            **{f"{self._score}_{state}": values[self._outlying] for state, values in self.medians.items()},
        }
        self._rings = self.figure.scatter(
            "x",
            y,
            source=ColumnDataSource(columns),
            view=CDSView(filter=AllIndices()),
            marker="circle_cross",
            size=17,
            fill_color=None,
            line_color=look.rejected,
            line_width=1.8,
        )
        self._here = ColumnDataSource({"x": [], y: [], f"{self._score}_{AFTER}": []})
        # on a layer of its own: another micrograph does not have all points drawn again
        ring = self.figure.scatter(
            "x",
            y,
            source=self._here,
            level="overlay",
            size=24,
            fill_color=None,
            line_color=look.text,
            line_width=3,
        )
        self._by_state += [(made.glyph, {"y": f"{self._score}_{{}}"}) for made in (self._rings, ring)]
        self._make_names()

    def _make_names(self) -> None:
        """Make room for the names of outlying micrographs; `_label` puts them there."""
        look = self._look
        self._names = ColumnDataSource({key: [] for key in ("x", "y", "text", "dx", "dy", "align")})
        self.figure.text(
            "x",
            "y",
            text="text",
            x_offset="dx",
            y_offset="dy",
            text_align={"field": "align"},
            text_baseline="middle",
            source=self._names,
            text_color=look.rejected,
            background_fill_color=look.background,
            background_fill_alpha=0.8,
            text_font_size="12px",
        )

    def show(self, state: str, group: str) -> None:
        """Show medians before or after calibration, of all exposure groups (`ALL_GROUPS`) or of one."""
        changed, self._state, self._group = group != self._group, state, group
        for glyph, fields in self._by_state:
            glyph.update(**{name: field.format(state) for name, field in fields.items()})
        for made in (self._points, self._rings) if changed else ():
            made.view.filter = GroupFilter(column_name="group", group=group) if group else AllIndices()
        for of, made in self._lines:
            made.visible = group in (ALL_GROUPS, of) or of == ALL_GROUPS
        rho = float(self._facts.fit[f"rho_{state}"].sel(score=self._score))
        title = f"{heading(self._facts.words.of_score(self._score))}, {state}"
        self.figure.title.text = title + (f" (Spearman's ρ {rho:+.2f})" if np.isfinite(rho) else "")
        self._label()

    def ring(self, row: int) -> None:
        """Ring the micrograph that is looked at; -1 for none."""
        rows = [row] if row >= 0 else []
        columns = {f"{self._score}_{state}": values[rows] for state, values in self.medians.items()}
        self._here.data = {"x": self._facts.defocus[rows], **columns}

    def on_click(self, receive: Callable[[int], None]) -> None:
        """Call a function with the row of a micrograph whose point is clicked."""

        def clicked(_attribute: str, _before: Any, now: dict[str, list[float]]) -> None:
            row = self._nearest(now["x"][0], now["y"][0], (now["across"][0], now["down"][0]))
            if row is not None:
                receive(row)

        # only the browser knows how many pixels a unit has
        click = ColumnDataSource({name: [0.0] for name in ("x", "y", "across", "down", "count")})
        self.figure.js_on_event("tap", CustomJS(args={"plot": self.figure, "click": click}, code=CLICK))
        click.on_change("data", clicked)

    def _nearest(self, x: float, y: float, scales: tuple[float, float]) -> int | None:
        values = self.medians[self._state]
        if self._group:
            values = np.where(self._facts.groups == int(self._group), values, np.nan)
        return nearest(self._facts.defocus, values, (x, y), scales, REACH)

    def _label(self) -> None:
        """Name the worst micrographs."""
        facts, y = self._facts, self.medians[self._state]
        rows = [row for row in self._outlying if np.isfinite(facts.defocus[row] + y[row])]
        rows = [row for row in rows if self._group in (ALL_GROUPS, str(facts.groups[row]))][:MOST_LABELS]
        names = [facts.labels[row] for row in rows]
        x_range, y_range = self.figure.x_range, self.figure.y_range
        across = (facts.defocus - x_range.start) / (x_range.end - x_range.start) * INNER[0]
        down = (y_range.end - y) / (y_range.end - y_range.start) * INNER[1]
        offsets = place_names(across, down, rows, names, INNER)
        self._names.data = {
            "x": facts.defocus[rows],
            "y": y[rows],
            "text": names,
            "dx": [dx for dx, _ in offsets],
            "dy": [dy for _, dy in offsets],
            "align": ["left" if dx > 0 else "right" for dx, _ in offsets],
        }


def padded_range(values: Floats) -> Range1d:
    """Range that holds all finite values, with a margin."""
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if len(values) else (0.0, 1.0)
    margin = 0.06 * (high - low) or 0.1
    return Range1d(start=low - margin, end=high + margin)


def group_names(groups: NDArray[np.integer]) -> list[str]:
    """Exposure groups as text, in order of number."""
    return [str(group) for group in np.unique(groups)]


def palette(look: Look, count: int) -> list[str]:
    """Colours of exposure groups; markers tell them apart as well."""
    more = ("#F0E442", "#88CCEE") if look.dark else ("#56B4E9", "#332288")
    colours = (look.accepted, *look.classes[1:], *more)
    return [colours[i % len(colours)] for i in range(count)]
