"""How the page comes back after a lost connection; what runs in the browser is in lost.js and back.js."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import panel as pn
from bokeh.models import CustomJS
from tornado.web import RequestHandler

from pickcal.dashboard.serving.settings import ServeSettings

HEALTH = "/liveness"
LOST = Path(__file__).with_name("lost.js").read_text(encoding="utf-8")
BACK = Path(__file__).with_name("back.js").read_text(encoding="utf-8")


class Health(RequestHandler):
    """Answers whoever asks that the server is up; Panel's own builds a whole page for anybody who asks for one."""

    def initialize(self, identity: str) -> None:
        """Take what Tornado hands to each request.

        Parameters
        ----------
        identity
            Text that no other start of the server has.
        """
        self.identity = identity

    def get(self) -> None:
        """Answer with the asked address and the identity of this server."""
        self.set_header("Cache-Control", "no-store")
        self.write({self.request.path: True, "server": self.identity})


def recovering(page: Callable[[], Any], settings: ServeSettings, identity: str) -> Callable[[], Any]:
    """Let the visitor's page come back after a lost connection.

    Bokeh tries five times within half a minute. After that the page asks the health address every few seconds, and
    goes on where it was if the same server answers in time; else it loads anew, as its session is gone. Bokeh 3.9
    drops the arrays of a document that it pulls again and then fails, so that step is replaced.

    Parameters
    ----------
    page
        Builds what one visitor sees.
    settings
        Gives the prefix and the minutes that a page waits.
    identity
        What the health address answers as the server's identity.

    Returns
    -------
    callable
        Builds the same page, with the two scripts in its document.
    """
    values = {
        "health": f"{settings.prefix}{HEALTH}",
        "server": identity,
        "keep": settings.keep_minutes * 60_000,
    }

    def build() -> Any:
        shown = page()
        document = pn.state.curdoc
        if document is not None:
            document.js_on_event("connection_lost", CustomJS(code=f"const set = {json.dumps(values)};\n{LOST}"))
            document.js_on_event("client_reconnected", CustomJS(code=BACK))
        return shown

    return build
