"""Parts of which forms on the page are made: labelled widgets, texts that are read out, work in the background."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

import panel as pn

from pickcal.dashboard.session import Session
from pickcal.dashboard.views.look import FILL, Look

T = TypeVar("T")

STEP = 0.02
WIDGET_STYLE = """
:host, label, .bk-input, .bk-btn-default { color: var(--pc-text) !important; }
.bk-input, .bk-btn, label { font-size: 14px !important; }
.bk-input { border: 1px solid var(--pc-faint) !important; background-color: var(--pc-background) !important; }
.bk-btn-default { border: 1px solid var(--pc-faint) !important; background: var(--pc-background) !important; }
select.bk-input { appearance: auto !important; background-image: none !important; }
input[type=checkbox] { width: 16px; height: 16px; accent-color: var(--pc-accepted); vertical-align: -3px; }
"""
PRIMARY_STYLE = """
.bk-btn-default { background: var(--pc-accepted) !important; color: var(--pc-background) !important; }
"""


class Form:
    """Makes widgets that look and speak alike.

    Parameters
    ----------
    session, look
        As of all views.
    """

    def __init__(self, session: Session, look: Look) -> None:
        self._session, self._look = session, look
        self.widget: dict[str, Any] = {"stylesheets": [look.variables(), WIDGET_STYLE, look.focus]}

    def words(self, text: str, role: str = "status") -> Any:
        """Make a place for text, see `tell`."""
        pane = pn.pane.HTML("", styles={"color": self._look.text, "font-size": "14px"}, margin=(2, 10), **FILL)
        tell(pane, text, role)
        return pane

    def heading(self, title: str) -> Any:
        """Title of a box or of a part of it."""
        style = f"color: {self._look.text}; font-size: 15px; margin: 4px 0"
        return pn.pane.HTML(f'<h2 style="{style}">{title}</h2>', margin=(0, 10))

    def raised(self, border: str) -> dict[str, Any]:
        """Options of a box with a border of this colour."""
        styles = {"border": f"1px solid {border}", "border-radius": "6px", "padding": "6px"}
        return {"styles": {**styles, "background": self._look.background}}

    def check(self, text: str, value: bool = False) -> Any:
        """Make a box to tick; Bokeh's own single box is not labelled for screen readers, its groups are."""
        return pn.widgets.CheckBoxGroup(**self.widget, options=[text], value=[text] if value else [])

    def button(self, text: str, pressed: Callable[[], None], primary: bool = False) -> Any:
        """Make a button; what goes wrong when it is pressed is said on the page."""
        sheets = [*self.widget["stylesheets"], PRIMARY_STYLE] if primary else self.widget["stylesheets"]
        button = pn.widgets.Button(label=text, stylesheets=sheets)
        button.on_click(lambda _: self._session.attempt(pressed))
        return button

    def run(
        self,
        what: str,
        call: Callable[[], T],
        done: Callable[[T], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Do something that takes long; what follows is done in the visitor's own thread."""
        session = self._session
        session.inspector.background.submit(
            (what, id(session)),
            lambda: beside(call),
            lambda result: session.post(lambda: done(result)),
            failed=lambda error: session.post(lambda: failed(error)),
        )


def tell(pane: Any, text: str, role: str = "status") -> None:
    """Put text, as HTML, into what `Form.words` made."""
    pane.object = f'<div role="{role}">{text}</div>' if text else ""


def fill(field: Any, text: str) -> None:
    """Put text into a field; Enter would bring back what was typed there before, if that did not change as well."""
    field.param.update(value=text, value_input=text)


def beside(call: Callable[[], T]) -> Generator[float, None, T]:
    """Run something long in a thread of its own, as a job whose steps let other jobs take their turns."""
    pool = ThreadPoolExecutor(1, "pickcal saving")
    try:
        future = pool.submit(call)
        while not future.done():
            wait((future,), STEP)
            yield 0.0
        return future.result()
    finally:
        pool.shutdown(wait=False)
