"""Panel views of the dashboard: layout and widgets only; what they show comes from the controller.

Nothing is asked from other machines: the Bootstrap template brings its own files, and figures are PNG.
"""

from __future__ import annotations

import html
import ipaddress
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import panel as pn
from bokeh.models import ColumnDataSource, DataRange1d, HoverTool
from bokeh.plotting import figure as bokeh_figure
from numpy.typing import NDArray

from pickcal.calibration.verdicts import heading
from pickcal.dashboard.controller import Inspector, shared_inspector
from pickcal.dashboard.counting import Likely
from pickcal.errors import InputError
from pickcal.plots.style import BLUE

TITLE = "pickcal: inspect picks"
STEPS = 400
CHANCE_TAB = "By probability"
CAPTIONS = {
    "medians": "Medians",
    "residuals": "Residuals",
    "scores": "Scores",
    "thresholds": "Thresholds",
    "components": "Components",
    "plane": "Score plane",
    "false_discovery": "False picks",
    "probability_trends": "Trends",
}


def inspect_page(path: Path | str) -> Any:
    """Build the page for one visitor.

    Parameters
    ----------
    path
        The project store; visitors share what was read, and a reload shows what was added since.

    Returns
    -------
    panel.template.BootstrapTemplate
        To be served.

    Raises
    ------
    MissingFileError, ProjectError
        If there is no project at `path`.
    """
    pn.extension("tabulator")
    inspector = shared_inspector(path)
    page = pn.template.BootstrapTemplate(title=TITLE, header_background=BLUE, theme="default")
    names = inspector.picks()
    if not names:
        page.main.append(pn.pane.Markdown("This project has no picks yet: run `pickcal pick`."))
        return page
    choice = _labelled(pn.widgets.Select(options=names, value=names[0], width=260), "Picks")
    page.main.append(pn.Column(choice, pn.bind(lambda picks: _picks_view(inspector, picks), choice), **_FILL))
    return page


def _labelled(widget: Any, label: str) -> Any:
    """Label a widget after it is made: Panel before 1.9 knows no other name for it, later ones warn in the maker."""
    widget.name = label
    return widget


_FILL: dict[str, Any] = {"sizing_mode": "stretch_width"}


def _picks_view(inspector: Inspector, picks: str) -> Any:
    if not inspector.has_probabilities(picks):
        thresholds = _threshold_view(inspector, picks)
    else:
        # the probabilities of all picks are computed when somebody asks for them
        waiting = pn.Column(pn.indicators.LoadingSpinner(value=True, size=30), **_FILL)
        thresholds = pn.Tabs(
            (f"By {inspector.words(picks).score}", _threshold_view(inspector, picks)),
            (CHANCE_TAB, waiting),
            dynamic=True,
            **_FILL,
        )

        def fill(event: Any) -> None:
            if event.new == 1 and isinstance(waiting[0], pn.indicators.LoadingSpinner):
                waiting[:] = [_probability_view(inspector, picks)]

        thresholds.param.watch(fill, "active")
    return pn.Column(_facts(inspector, picks), thresholds, _figures(inspector, picks), **_FILL)


def _facts(inspector: Inspector, picks: str) -> Any:
    counts = inspector.counts(picks)
    micrographs = ", ".join(
        f"{counts[word]} {word}" for word in ("done", "failed", "skipped", "pending") if counts[word]
    )
    decoys = f", decoys: {counts['decoys']}" if counts["decoys"] else ""
    lines = [f"<b>Micrographs</b>: {micrographs}. <b>Picks</b>: {counts['picks']}{decoys}."]
    if not inspector.has_images:
        lines.append("This project holds tables only, no images.")
    lines += [f"<b>{html.escape(heading(score))}</b>: {html.escape(text)}" for score, text in inspector.verdicts(picks)]
    return pn.pane.HTML("<br>".join(lines), styles={"font-size": "14px"}, **_FILL)


def _threshold_view(inspector: Inspector, picks: str) -> Any:
    if not inspector.has_scores(picks):
        return pn.pane.Markdown("No pick of a finished micrograph has a score, so there is no threshold to set.")
    low, high = inspector.threshold_range(picks)
    start = inspector.starting_threshold(picks)
    # a selection may have its threshold where few scores are
    low, high = min(low, start), max(high, start)
    step = max((high - low) / STEPS, 1e-6)
    beyond = int(inspector.accepted(picks, float(np.nextafter(high, np.inf))).sum())
    what = inspector.words(picks).axis("ncc", "" if inspector.calibration(picks) is None else "calibrated")
    slider = pn.widgets.FloatSlider(start=low, end=high, step=step, value=start, format="0.0000", **_FILL)
    _labelled(slider, f"Least {what}")
    counts = _CountsView(inspector, picks, inspector.table(picks, start))

    def show(threshold: float) -> None:
        counts.show(inspector.accepted(picks, threshold))

    show(start)
    slider.param.watch(lambda event: show(event.new), "value")
    # a table of all micrographs is sent whole, so it waits until the slider is let go
    slider.param.watch(lambda event: counts.tabulate(inspector.table(picks, event.new)), "value_throttled")
    notes = [pn.pane.HTML(f"{beyond} picks score higher than the slider goes.", **_FILL)] if beyond else []
    return pn.Column(slider, *notes, *counts.parts, **_FILL)


def _probability_view(inspector: Inspector, picks: str) -> Any:
    start = inspector.starting_probability(picks)
    slider = pn.widgets.FloatSlider(start=0.0, end=1.0, step=0.005, value=start, format="0.000", **_FILL)
    _labelled(slider, "Least probability of being a particle")
    rate = pn.widgets.FloatInput(value=None, start=0.0, end=1.0, step=0.01, width=290, placeholder="no limit")
    _labelled(rate, "and largest false discovery rate (0.05 is 5 %)")
    counts = _CountsView(inspector, picks, inspector.likely_table(picks, inspector.likely(picks, start)))

    def show(table: bool) -> None:
        likely = inspector.likely(picks, slider.value, rate.value or None)
        counts.show(likely.accepted, false_picks_text(likely, inspector.has_power(picks)))
        if table:
            counts.tabulate(inspector.likely_table(picks, likely))

    show(False)
    slider.param.watch(lambda event: show(False), "value")
    slider.param.watch(lambda event: show(True), "value_throttled")
    rate.param.watch(lambda event: show(True), "value")
    return pn.Column(pn.Row(slider, rate, **_FILL), *counts.parts, **_FILL)


def false_picks_text(likely: Likely, junk_known: bool = True) -> str:
    """Say how many of the accepted picks are expected to be false; without a power score junk is not known."""
    noise, junk, total = float(likely.noise.sum()), float(likely.junk.sum()), int(likely.accepted.sum())
    rate = (noise + junk) / total if total else 0.0
    share = f"{100 * rate:.1f} %"
    text = f"expected false picks: <b>{noise + junk:.1f}</b> ({share})"
    return f"{text}, of them {noise:.1f} noise and {junk:.1f} junk" if junk_known else text


class _CountsView:
    """Number of accepted picks, all together, against defocus and as a table."""

    def __init__(self, inspector: Inspector, picks: str, table: Any) -> None:
        self._finished = inspector.finished(picks)
        self._total = pn.pane.HTML("", styles={"font-size": "18px"}, css_classes=["pickcal-total"], **_FILL)
        self._source, plot = _accepted_plot(inspector)
        self._table = pn.widgets.Tabulator(
            table,
            disabled=True,
            show_index=False,
            pagination="remote",
            page_size=8,
            theme_classes=["table-sm"],
            stylesheets=[".tabulator { font-size: 13px !important; }"],
            layout="fit_data_table",
            **_FILL,
        )
        self.parts = [self._total, pn.pane.Bokeh(plot, **_FILL), self._table]

    def show(self, accepted: NDArray[np.int64], note: str = "") -> None:
        """Show accepted picks per micrograph."""
        text = f"<b>{int(accepted.sum())}</b> picks accepted on {int((accepted > 0).sum())} micrographs"
        self._total.object = f"{text}; {note}" if note else text
        self._source.data = {**self._source.data, "accepted": np.where(self._finished, accepted, np.nan)}

    def tabulate(self, table: Any) -> None:
        """Replace the table."""
        self._table.value = table


def _accepted_plot(inspector: Inspector) -> tuple[Any, Any]:
    nothing = np.zeros(len(inspector.micrographs))
    source = ColumnDataSource({"defocus": inspector.defocus, "accepted": nothing, "name": inspector.micrographs})
    plot = bokeh_figure(
        height=260,
        sizing_mode="stretch_width",
        x_axis_label="defocus (µm)",
        y_axis_label="accepted picks per micrograph",
        y_range=DataRange1d(start=0),
        tools="pan,wheel_zoom,box_zoom,reset",
        toolbar_location="above",
    )
    plot.toolbar.logo = None
    plot.scatter("defocus", "accepted", source=source, size=7, color=BLUE, alpha=0.8)
    plot.add_tools(HoverTool(tooltips=[("", "@name"), ("defocus", "@defocus{0.00} µm"), ("accepted", "@accepted")]))
    return source, plot


def _figures(inspector: Inspector, picks: str) -> Any:
    kinds = inspector.figures(picks)
    if not kinds:
        return pn.Column()
    options = {CAPTIONS[kind]: kind for kind in kinds}
    choice = pn.widgets.RadioButtonGroup(
        options=options,
        value="medians",
        button_type="primary",
        button_style="outline",
        stylesheets=[".bk-btn-group { flex-wrap: wrap; }"],
    )
    return pn.Column(choice, pn.bind(lambda kind: _picture(inspector, picks, kind), choice), **_FILL)


def _picture(inspector: Inspector, picks: str, kind: str) -> Any:
    alternative = f"{CAPTIONS[kind]} of picks {picks}"
    return pn.pane.PNG(inspector.picture(picks, kind), alt_text=alternative, max_width=1100, **_FILL)


def serve(
    path: Path | str,
    port: int = 0,
    show: bool = True,
    address: str = "127.0.0.1",
    on_start: Callable[[str], None] | None = None,
) -> None:
    """Serve the page until interrupted.

    Parameters
    ----------
    path
        The project store.
    port
        Port; default 0, a free one.
    show
        Open a browser, default yes.
    address
        Address of this machine to listen on, default 127.0.0.1. The page has no password, so only loopback addresses
        are taken.

    on_start
        Called with the page's address before it is served; default: print it.

    Raises
    ------
    MissingFileError, ProjectError, InputError
        If there is no project, the address is not this machine's loopback, or the port is taken.
    """
    Inspector(path)
    if not _loopback(address):
        raise InputError(
            f"address: expected 127.0.0.1 or localhost, got {address!r}; the page has no password. From another "
            "machine, tunnel: ssh -L 5006:127.0.0.1:PORT HOST"
        )
    port = _free_port(address, port)
    host = f"[{address}]" if ":" in address else address
    url = f"http://{host}:{port}/"
    if on_start is None:
        print(f"pickcal dashboard at {url} (Ctrl-C ends it)", flush=True)
    else:
        on_start(url)
    pn.serve(
        {"/": lambda: inspect_page(path)},
        port=port,
        address=address,
        show=show,
        title=TITLE,
        websocket_origin=[f"{name}:{port}" for name in {"127.0.0.1", "localhost", host}],
        verbose=False,
    )


def _loopback(address: str) -> bool:
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _free_port(address: str, port: int) -> int:
    """Find the port to listen on: its number is part of the origins that may connect, so it must be known before."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except (OSError, OverflowError) as error:
            raise InputError(f"port: {port} cannot be listened on at {address} ({error}); choose another") from None
        return int(probe.getsockname()[1])
