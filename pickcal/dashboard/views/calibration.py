"""What the calibration found: medians against defocus, outlying micrographs, verdicts, methods and further plots."""

from __future__ import annotations

import html
from typing import Any

import numpy as np
import panel as pn
from bokeh.models import ColumnDataSource

from pickcal.calibration.verdicts import heading, ranked_outliers
from pickcal.dashboard.methods import METHODS, TITLES, Method
from pickcal.dashboard.session import Session
from pickcal.dashboard.views.forms import beside
from pickcal.dashboard.views.look import FILL, Look
from pickcal.dashboard.views.medians import (
    AFTER,
    ALL_GROUPS,
    BEFORE,
    MARKERS,
    FitFacts,
    MediansPlot,
    group_names,
    padded_range,
    palette,
)
from pickcal.plots.fits import scores_of
from pickcal.plots.project import MIXTURE_FIGURES
from pickcal.plots.style import short_names

STATES = {"Before (raw scores)": BEFORE, "After (calibrated)": AFTER}
MOST_OUTLIERS, MOST_GROUPS = 200, 12
WHAT: dict[Method, str] = {
    "raw": "No calibration: thresholds are on the scores as they are.",
    "line": "Scores are corrected by the fits, so that one threshold means the same at every defocus.",
    "probability": "Picks are accepted by their probability of being a particle, not noise or junk.",
    "fdr": "Picks are accepted as long as the expected share of false ones among them stays below a limit.",
}
BUTTONS: dict[Method, str] = {**TITLES, "raw": "None (raw score)", "line": "Line (calibrated score)"}
FURTHER = {
    "medians": ("Medians", "Medians as the report draws them, before and after side by side."),
    "residuals": ("Residuals", "How far every micrograph is from the fits."),
    "scores": ("Scores", "All picks before and after calibration."),
    "thresholds": ("Thresholds", "Accepted picks against the threshold at low, middle and high defocus."),
    "components": ("Components", MIXTURE_FIGURES["components"]),
    "plane": ("Score plane", MIXTURE_FIGURES["plane"]),
    "false_discovery": ("False picks", MIXTURE_FIGURES["false_discovery"]),
    "probability_trends": ("Trends", MIXTURE_FIGURES["probability_trends"]),
}
NO_PLOT = ""
LEAST_WIDTH = 420
NARROW = "@media (max-width: 1000px) { :host { flex-wrap: wrap; } }"
HEADINGS = """
h3 { font-size: 16px; font-weight: 600; margin: 8px 0 4px; }
dl { margin: 0; max-height: 360px; overflow: auto; }
pre { font-size: 14px; }
"""


class CalibrationView:
    """What `pickcal calibrate` found about the picks.

    Parameters
    ----------
    session, look
        As of all views.

    Attributes
    ----------
    layout
        Panel column.
    plots
        A plot per score; none where the picks are not calibrated.
    """

    def __init__(self, session: Session, look: Look) -> None:
        self._session, self._look = session, look
        self.plots: dict[str, MediansPlot] = {}
        self.layout = pn.Column(stylesheets=[look.variables(), look.focus], **FILL)
        self._build()

    def refresh(self, changes: frozenset[str]) -> None:
        """Show what changed; thresholds change nothing here."""
        if "picks" in changes:
            self._build()
            return
        if "method" in changes:
            self._show_method()
        if "focus" in changes:
            self._show_focus()

    def _build(self) -> None:
        """Make everything anew: other picks, or another calibration of them."""
        session = self._session
        self.plots = {}
        self._methods = {method: self._button(method) for method in METHODS}
        self._focus_text = pn.pane.HTML("", margin=(0, 10), **FILL)
        fit = session.inspector.calibration(session.picks)
        if fit is None:
            self.layout[:] = [self._words(self._command(), "calibration-missing"), self._method_part()]
            self._show_method()
            return
        names = session.inspector.micrographs
        groups = session.inspector.project.read("micrographs", "exposure_group")
        self._facts = FitFacts(fit, session.inspector.words(session.picks), names, short_names(names), groups)
        self.layout[:] = [
            self._switches(),
            self._plot_part(),
            self._words(self._key(), "calibration-key"),
            self._focus_text,
            self._outlier_part(),
            pn.Row(self._verdict_part(), self._method_part(), stylesheets=[NARROW], **FILL),
            self._further_part(),
        ]
        self._show_method()
        self._show_focus()

    def _words(self, content: str, name: str) -> Any:
        style = f"color: {self._look.text}; font-size: 14px; line-height: 1.5"
        return pn.pane.HTML(
            f'<div class="{name}" style="{style}">{content}</div>', margin=(4, 10), stylesheets=[HEADINGS], **FILL
        )

    def _command(self) -> str:
        path, picks = self._session.inspector.project.path, self._session.picks
        command = html.escape(f"pickcal calibrate {path} --picks {picks}")
        return (
            "<h3>Not calibrated yet</h3>How the scores of these picks run with defocus is not known. Give this "
            f"command; this page shows the result when it is there:<pre>{command}</pre>"
        )

    # plots

    def _switches(self) -> Any:
        state = pn.widgets.RadioButtonGroup(
            options=STATES, value=BEFORE, color="primary", variant="outline", label="Medians"
        )
        names = group_names(self._facts.groups)
        options = {"All": ALL_GROUPS} | {f"Group {name}": name for name in names}
        group = pn.widgets.Select(label="Exposure group", options=options, value=ALL_GROUPS, width=220)
        group.visible = len(names) > 1

        def show(_: Any) -> None:
            with pn.io.hold():
                for plot in self.plots.values():
                    plot.show(state.value, group.value)

        for widget in (state, group):
            widget.param.watch(show, "value")
        return pn.FlexBox(state, group, align_items="end", gap="12px", **FILL)

    def _plot_part(self) -> Any:
        facts = self._facts
        columns = {"x": facts.defocus, "name": facts.names, "group": facts.groups.astype(str).tolist()}
        source, x_range = ColumnDataSource(columns), padded_range(facts.defocus)
        self.plots = {score: MediansPlot(facts, score, source, x_range, self._look) for score in scores_of(facts.fit)}
        for plot in self.plots.values():
            plot.on_click(self._go)
        panes = [pn.pane.Bokeh(plot.figure, min_width=LEAST_WIDTH, **FILL) for plot in self.plots.values()]
        return pn.Row(*panes, stylesheets=[NARROW], **FILL)

    def _go(self, row: int) -> None:
        """Look at a micrograph closely."""
        session = self._session
        if session.attempt(lambda: session.look_at(row)):
            session.look(tab="all")

    def _key(self) -> str:
        facts, look = self._facts, self._look
        names = group_names(facts.groups)
        marks = [
            f'<span style="color: {colour}">{list(MARKERS.values())[i % len(MARKERS)]}</span> group {name}'
            for i, (name, colour) in enumerate(zip(names, palette(look, len(names)), strict=True))
        ][:MOST_GROUPS]
        first = f'<span style="color: {look.accepted}">●</span> micrograph'
        parts = [*marks, *(["…"] if len(names) > MOST_GROUPS else [])] if len(names) > 1 else [first]
        confidence = f"{100 * float(facts.fit.attrs['confidence']):g} %"
        parts += [
            "○ hollow: not used in the fit",
            f'<span style="color: {look.rejected}">⊕</span> outlying',
            "large ring: the micrograph that you look at",
            f"line: fit, with its {confidence} confidence band",
        ]
        if np.isfinite(facts.fit["break_even_fitted"].values).any():
            parts.append("dashed: where particles and noise break even")
        return " &nbsp; ".join(f'<span style="white-space: nowrap">{part}</span>' for part in parts) + self._left_out()

    def _left_out(self) -> str:
        missing = int((~np.isfinite(self._facts.fit["median"].sel(score="ncc").values)).sum())
        unknown = int((~np.isfinite(self._facts.defocus)).sum())
        parts = [f"{missing:,} without a median"] if missing else []
        parts += [f"{unknown:,} without defocus"] if unknown else []
        return f"<br>Micrographs not shown: {', '.join(parts)}." if parts else ""

    def _show_focus(self) -> None:
        if not self.plots:
            return
        row, facts = self._session.view.row, self._facts
        for plot in self.plots.values():
            plot.ring(row)
        text = "Click a point to look at its micrograph."
        if row >= 0:
            text += f" Now: {html.escape(facts.names[row])} ({facts.defocus[row]:.2f} µm)."
        self._focus_text.object = f'<span style="color: {self._look.faint}; font-size: 13px">{text}</span>'

    # outlying micrographs

    def _outlier_part(self) -> Any:
        facts = self._facts
        found = ranked_outliers(facts.fit, facts.labels, np.full(len(facts.names), np.nan))
        if not found:
            return self._words("No micrograph is outlying.", "calibration-outliers")
        options = {f"{i}. {row['name']}: {row['why']}": row["index"] for i, row in enumerate(found[:MOST_OUTLIERS], 1)}
        shown = f"the worst {len(options):,} of {len(found):,}" if len(found) > len(options) else f"{len(found):,}"
        label = f"Outlying micrographs, worst first ({shown})"
        choice = pn.widgets.Select(label=label, options=options, max_width=760, **FILL)
        button = pn.widgets.Button(label="Look at it", color="primary", variant="outline", width=110, align="end")
        button.on_click(lambda _: self._go(int(choice.value)))
        return pn.Row(choice, button, **FILL)

    # verdicts and methods

    def _verdict_part(self) -> Any:
        inspector, picks = self._session.inspector, self._session.picks
        found = [
            f"<dt><b>{html.escape(heading(score))}</b></dt>"
            f"<dd style='margin: 0 0 8px 16px'>{html.escape(heading(text)).replace('. Caution:', '.<br>Caution:')}</dd>"
            for score, text in inspector.verdicts(picks)
        ]
        listed = f'<dl tabindex="0" role="region" aria-label="Fits">{"".join(found)}</dl>'
        return self._words(f"<h3>Fits</h3>{listed}", "calibration-verdicts")

    def _button(self, method: Method) -> tuple[Any, Any]:
        button = pn.widgets.Button(label=BUTTONS[method], color="primary", width=190)
        button.on_click(lambda _: self._session.attempt(lambda: self._session.set_method(method)))
        return button, pn.pane.HTML("", margin=(8, 4), **FILL)

    def _method_part(self) -> Any:
        rows = [pn.Row(button, text, **FILL) for button, text in self._methods.values()]
        title = self._words("<h3>Method of the thresholds</h3>", "calibration-methods")
        return pn.Column(title, *rows, **FILL)

    def _show_method(self) -> None:
        session, look = self._session, self._look
        methods = session.methods
        for method, (button, text) in self._methods.items():
            allowed, used = method in methods, method == session.method
            button.disabled = not allowed
            button.variant = "solid" if used else "outline"
            words = WHAT[method] if allowed else f"Not for these picks: {self._why_not()}."
            words = ("<b>In use.</b> " if used else "") + html.escape(words)
            text.object = f'<span style="color: {look.text}; font-size: 14px">{words}</span>'

    def _why_not(self) -> str:
        session = self._session
        if not self.plots:
            return "they are not calibrated"
        return f"probabilities: {session.inspector.probability_verdict(session.picks)}"

    # further plots

    def _further_part(self) -> Any:
        kinds = [kind for kind in self._session.inspector.figures(self._session.picks) if kind in FURTHER]
        options = {"Choose a plot": NO_PLOT} | {FURTHER[kind][0]: kind for kind in kinds}
        choice = pn.widgets.Select(label="More plots", options=options, value=NO_PLOT, width=260)
        place = pn.Column(**FILL)
        choice.param.watch(lambda event: self._draw(event.new, choice, place), "value")
        return pn.Column(choice, place, **FILL)

    def _draw(self, kind: str, choice: Any, place: Any) -> None:
        """Have a plot drawn in the background; some take seconds."""
        session = self._session
        inspector, picks = session.inspector, session.picks
        if kind == NO_PLOT:
            place[:] = []
            return
        title, caption = FURTHER[kind]
        place[:] = [self._words(f"{title} is being drawn …", "calibration-drawing")]

        def show(*found: Any) -> None:
            if choice.value == kind:
                place[:] = found

        def drawn(picture: bytes) -> None:
            alt = f"{title} of picks {picks}"
            session.post(lambda: show(self._words(html.escape(caption), "calibration-caption"), _plot(picture, alt)))

        def failed(error: Exception) -> None:
            session.post(lambda: show(self._words(html.escape(str(error)), "calibration-failed")))

        # beside the background's thread: a plot is one long step, for which pictures of micrographs would wait
        inspector.background.submit(
            ("plot", id(self)), lambda: beside(lambda: inspector.picture(picks, kind)), drawn, failed=failed, priority=1
        )


def _plot(picture: bytes, alt: str) -> Any:
    return pn.pane.PNG(picture, alt_text=alt, max_width=1100, sizing_mode="scale_width")
