"""The page of one visitor: the views side by side, told together what changed."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import panel as pn
from bokeh.document import Document
from panel.io.state import set_curdoc

from pickcal.dashboard.address import TABS
from pickcal.dashboard.controller import shared_inspector
from pickcal.dashboard.looking import Post
from pickcal.dashboard.session import Session
from pickcal.dashboard.views.browser import BrowserView
from pickcal.dashboard.views.calibration import CalibrationView
from pickcal.dashboard.views.curve import CurveView
from pickcal.dashboard.views.frame import FrameView
from pickcal.dashboard.views.look import FILL, Look, PartOfPage
from pickcal.dashboard.views.micrographs import TrioView
from pickcal.dashboard.views.montage import MontageView
from pickcal.dashboard.views.plane import PlaneView
from pickcal.dashboard.views.posting import Posted
from pickcal.dashboard.views.saving import SavingView
from pickcal.dashboard.views.thresholds import ThresholdsView
from pickcal.errors import PickcalError
from pickcal.stores.places import Url

POLL = 2000
PLOTS = 405
"""Height of the plots, px, which is kept free until they are there."""
NARROW = (
    "@media (max-width: 1000px) { :host { flex-wrap: wrap; } :host > * { min-width: min(640px, 100%) !important; } }"
)
TAB_STYLE = """
:host > .bk-header { border-color: var(--pc-line) !important; }
:host > .bk-header .bk-tab { color: var(--pc-text) !important; background: transparent !important; font-size: 14px; }
:host > .bk-header .bk-tab.bk-active { color: var(--pc-accepted) !important; background: var(--pc-raised) !important;
  border-color: var(--pc-line) !important; font-weight: 600; }
"""
LABELS = {
    "micrographs": "Low, middle and high defocus",
    "all": "All micrographs",
    "montage": "Montage",
    "calibration": "Calibration",
    "save": "Save and export",
}
NO_PICKS = "This project has no picks yet: run `pickcal pick` or `pickcal import-picks`; this page will show them."


def inspect_page(path: Path | Url | str, truth: Path | None = None, read_only: bool = False) -> Any:
    """Build the page for one visitor.

    Parameters
    ----------
    path
        The project store; visitors share what was read, and changes on the disk are followed.
    truth
        STAR file of true particles or hand picks, for precision and recall; default None.
    read_only
        Nothing can be saved; default no.

    Returns
    -------
    panel.layout.Column
        To be served.

    Raises
    ------
    MissingFileError, ProjectError, InputError
        If there is no project at `path`, or truth is not of its micrographs.
    """
    pn.extension()
    look = Look(pn.config.theme == "dark")
    inspector = shared_inspector(path, truth, read_only)
    page = pn.Column(sizing_mode="stretch_width", margin=0, stylesheets=[f":host {{ background: {look.background} }}"])
    if inspector.picks():
        Page(page, inspector, look, read_only)
    else:
        page.append(pn.pane.Markdown(NO_PICKS))
        _when(lambda: bool(inspector.picks()), lambda: Page(page, inspector, look, read_only))
    return page


def prepare(path: Path | Url | str, truth: Path | None = None, read_only: bool = False) -> None:
    """Read and draw once what the first visitor would wait for, and refuse what cannot be shown.

    Arguments are those of `inspect_page`.

    Raises
    ------
    MissingFileError, ProjectError, InputError
        As `inspect_page`.
    """
    inspector = shared_inspector(path, truth, read_only)
    if not inspector.picks():
        return
    document = Document()
    with set_curdoc(document):
        place = pn.Column()
        page = Page(place, inspector, Look(), read_only)
        page.show_plots()
        place.server_doc(document)
        document.to_json()
        page.session.close()


def _when(condition: Callable[[], bool], then: Callable[[], Any]) -> None:
    """Do something once a condition holds; looked at every two seconds."""
    document = pn.state.curdoc
    if document is None:
        return

    def look() -> None:
        if condition():
            document.remove_periodic_callback(calls[0])
            then()

    calls = [document.add_periodic_callback(look, POLL)]


class Page:
    """Views of one visitor around one session.

    Parameters
    ----------
    place
        Column that is filled.
    inspector
        What all visitors share.
    look
        Colours.
    read_only
        Whether nothing can be saved.
    """

    def __init__(self, place: Any, inspector: Any, look: Look, read_only: bool) -> None:
        self._document = pn.state.curdoc
        self._look = look
        self._pending: set[str] = set()
        self._failed: dict[object, str] = {}
        self._scheduled = False
        self._post: Post = (lambda call: call()) if self._document is None else Posted(self._document)
        self.session = Session(inspector, self._post, read_only, by=str(pn.state.user or ""))
        self.session.follow(_query())
        self._always: list[PartOfPage] = [part(self.session, look) for part in (FrameView, ThresholdsView)]
        self._tabs: dict[str, PartOfPage] = {}
        self._missed: dict[str, set[str]] = {}
        self._places = {tab: pn.Column(margin=(8, 0), **FILL) for tab in TABS}
        self._bar = pn.Tabs(
            *((LABELS[tab], self._places[tab]) for tab in TABS),
            active=TABS.index(self.session.view.tab),
            stylesheets=[look.variables(), TAB_STYLE, look.focus],
            **FILL,
        )
        self._show_tab()
        self._bar.param.watch(lambda event: self.session.look(tab=TABS[event.new]), "active")
        frame, thresholds = (part.layout for part in self._always)
        self._plots = pn.Row(min_height=PLOTS, stylesheets=[NARROW], **FILL)
        right = pn.Column(self._plots, self._bar, **FILL)
        place[:] = [frame, pn.Row(thresholds, right, stylesheets=[NARROW], **FILL)]
        self.session.listen(self._changed)
        if self._document is not None:
            self._document.add_periodic_callback(self.session.poll, POLL)
            pn.state.on_session_destroyed(lambda _: self.session.close())
            pn.state.onload(lambda: self.session.attempt(self.show_plots))

    def show_plots(self) -> None:
        """Draw the score plane and the curves, the slowest parts: all others are there and usable before them."""
        if self._plots:
            return
        views: list[PartOfPage] = [part(self.session, self._look) for part in (PlaneView, CurveView)]
        self._always += views
        self._plots[:] = [view.layout for view in views]

    def _changed(self, changes: frozenset[str]) -> None:
        """Note what changed; all that comes at once is shown at once."""
        self._pending |= changes
        if not self._scheduled:
            self._scheduled = True
            self._post(self._refresh)

    def _refresh(self) -> None:
        changes, self._pending, self._scheduled = frozenset(self._pending), set(), False
        tab = self.session.view.tab
        if "view" in changes and TABS[self._bar.active] != tab:
            self._bar.active = TABS.index(tab)
        # one message to the browser for all views, which then paints once
        with pn.io.unlocked():
            for part in self._always:
                self._attempt(part, partial(part.refresh, changes))
            for missed in self._missed.values():
                missed |= changes
            self._attempt(tab, self._show_tab)

    def _attempt(self, what: object, show: Callable[[], None]) -> None:
        """Show a part of the page; where it cannot be shown, the others are, and why is said once."""
        try:
            show()
        except PickcalError as error:
            if self._failed.get(what) != str(error):
                self._failed[what] = str(error)
                self.session.say(str(error))
        else:
            self._failed.pop(what, None)

    def _show_tab(self) -> None:
        """Make the view of the tab when it is looked at for the first time, else show what it has missed."""
        tab = self.session.view.tab
        if tab not in self._tabs:
            self._tabs[tab] = _PARTS[tab](self.session, self._look)
            self._places[tab][:] = [self._tabs[tab].layout]
            self._missed[tab] = set()
            if tab == "montage":
                self.session.show_montage()
        elif self._missed[tab]:
            missed, self._missed[tab] = frozenset(self._missed[tab]), set()
            self._tabs[tab].refresh(missed)


_PARTS: dict[str, Callable[[Session, Look], PartOfPage]] = {
    "micrographs": TrioView,
    "all": BrowserView,
    "montage": MontageView,
    "calibration": CalibrationView,
    "save": SavingView,
}


def _query() -> dict[str, str]:
    """Query of the address that the visitor came by."""
    arguments = pn.state.session_args
    return {str(name): values[0].decode("utf-8", "replace") for name, values in arguments.items() if values}
