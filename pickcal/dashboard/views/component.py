"""Components with JavaScript of their own, as plain modules that browsers take as they are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import param
from panel.custom import JSComponent

from pickcal.dashboard.session import Session
from pickcal.dashboard.views.look import HERE

SHARED = (HERE / "elements.js").read_text(encoding="utf-8")
"""JavaScript before every component's own."""


class Component(JSComponent):  # type: ignore[misc]
    """A component whose `_esm` is JavaScript that needs no compiler.

    Panel 1.9 compiles every module in the browser, which takes 270 ms of the first paint; what is marked as a bundle is
    taken as it is.

    Parameters
    ----------
    session
        Of the visitor, who is told where what a message asks for is refused.
    receive
        Takes the messages that come from the browser.
    **values
        Parameters of the component.

    Attributes
    ----------
    first
        Message of the first paint, as JSON: it comes with the document, where asking for it would be one more way to
        the server and back. Default "", none.
    """

    first = param.String("")

    def __init__(self, session: Session, receive: Callable[[dict[str, Any]], None], **values: Any) -> None:
        super().__init__(**values)
        self._session, self._receive = session, receive

    def _handle_msg(self, data: Any) -> None:
        self._session.attempt(lambda: self._receive(data))

    def _get_properties(self, doc: Any) -> dict[str, Any]:
        properties: dict[str, Any] = super()._get_properties(doc)
        properties["esm"] = SHARED + properties["esm"]
        properties["bundle"] = hashlib.sha256(properties["esm"].encode()).hexdigest()
        return properties
