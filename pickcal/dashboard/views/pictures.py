"""Pictures of micrographs, made in the background, and the controls of how they are drawn."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from typing import Any

import param

from pickcal.dashboard.micrographs.images import Picture
from pickcal.dashboard.session import Session
from pickcal.dashboard.views.component import Component
from pickcal.dashboard.views.look import FILL, HERE, Look
from pickcal.errors import PickcalError

TABLES_ONLY = "tables only, no picture"
STYLE = """
.controls { display: flex; flex-wrap: wrap; gap: 6px 18px; align-items: center; color: var(--pc-text);
  font-size: 13px; min-height: 34px; }
.control { display: inline-flex; gap: 8px; align-items: center; }
.buttons { display: inline-flex; flex-wrap: wrap; gap: 6px; }
.buttons:empty { display: none; }
.told { min-width: 42px; font-variant-numeric: tabular-nums; }
.told.wide { min-width: 104px; }
input[type=checkbox] { width: 16px; height: 16px; accent-color: var(--pc-accepted); margin: 0; }
input[type=range] { width: 120px; accent-color: var(--pc-accepted); margin: 0; }
button { font: inherit; color: var(--pc-text); background: var(--pc-raised); border: 1px solid var(--pc-faint);
  border-radius: 4px; padding: 4px 11px; cursor: pointer; }
button[aria-disabled=true] { color: var(--pc-faint); border-color: var(--pc-line); cursor: default; }
.range { position: relative; width: 150px; height: 20px; display: inline-block; }
.range::before, .range::after { content: ""; position: absolute; top: 8px; height: 4px; border-radius: 2px; left: 0;
  right: 0; background: var(--pc-line); }
.range::after { left: var(--from); right: calc(100% - var(--to)); background: var(--pc-accepted); }
.range input { position: absolute; inset: 0; width: 100%; height: 20px; appearance: none; background: none; z-index: 1;
  pointer-events: none; }
.range input::-webkit-slider-thumb { appearance: none; pointer-events: auto; width: 14px; height: 14px;
  border-radius: 50%; background: var(--pc-accepted); border: 2px solid var(--pc-background); cursor: pointer; }
.range input::-moz-range-thumb { pointer-events: auto; width: 11px; height: 11px; border-radius: 50%;
  background: var(--pc-accepted); border: 2px solid var(--pc-background); cursor: pointer; }
"""


class Pictures:
    """Pictures made in the background for one view.

    Parameters
    ----------
    session
        Whose pictures.
    which
        Name of the view: a new wish of the same view replaces the one before.
    most
        Largest side, pixels.
    """

    def __init__(self, session: Session, which: str, most: int) -> None:
        self._session, self._which, self._most = session, which, most
        self._wanted: tuple[object, ...] = ()

    def want(self, rows: Sequence[int], show: Callable[[int, int, Picture | str, str], None]) -> None:
        """Have pictures made; nothing happens where they are on their way or shown.

        Parameters
        ----------
        rows
            Micrographs.
        show
            Takes position, row, picture or why there is none, and a key that tells pictures of a row apart. Called in
            the document's thread.
        """
        inspector, lowpass = self._session.inspector, self._session.view.lowpass or None
        wanted = (self._session.picks, tuple(rows), lowpass)
        if wanted == self._wanted:
            return
        self._wanted = wanted

        def key(row: int) -> str:
            return f"{row} {lowpass or 0:g}"

        if not inspector.has_images:
            for i, row in enumerate(rows):
                show(i, row, TABLES_ONLY, key(row))
            return

        def post(i: int, row: int, found: Picture | str) -> None:
            def call() -> None:
                if self._wanted == wanted:
                    show(i, row, found, key(row))

            self._session.post(call)

        def job() -> Generator[float, None, None]:
            for i, row in enumerate(rows):
                try:
                    found: Picture | str = inspector.images.picture(row, lowpass, self._most)
                except (PickcalError, OSError) as error:
                    found = f"no picture: {error}"
                post(i, row, found)
                yield (i + 1) / len(rows)

        inspector.background.submit(("pictures", self._which, id(self._session)), job)


class PictureControls(Component):
    """Low-pass, contrast, rejected picks and some buttons; see picture_controls.js.

    Parameters
    ----------
    session, look
        As of all views.
    press
        What the buttons do, by their names.
    """

    _esm = HERE / "picture_controls.js"

    images = param.Boolean(True)
    state = param.Dict({})

    def __init__(self, session: Session, look: Look, press: dict[str, Callable[[], None]]) -> None:
        sheets = [look.variables(), STYLE, look.focus]
        images = session.inspector.has_images
        super().__init__(session, self._act, images=images, stylesheets=sheets, margin=(0, 5), **FILL)
        self._press = press

    def show(self, buttons: Sequence[tuple[str, str, str, bool]]) -> None:
        """Show what the view is like; `buttons` are name, text, explanation and whether they can be pressed now."""
        view = self._session.view
        state = {name: getattr(view, name) for name in ("lowpass", "low", "high", "rejected")}
        state["buttons"] = [list(button) for button in buttons]
        if state != self.state:
            self.state = state

    def _act(self, data: dict[str, Any]) -> None:
        session = self._session
        if "press" in data:
            self._press[str(data["press"])]()
        elif "lowpass" in data:
            session.look(lowpass=float(data["lowpass"]))
        elif "low" in data:
            session.look(low=float(data["low"]), high=float(data["high"]))
        elif "rejected" in data:
            session.look(rejected=bool(data["rejected"]))
