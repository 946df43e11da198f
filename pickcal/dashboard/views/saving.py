"""Named selections, thresholds files, exports and links: what leaves the page, and what comes back."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Sequence
from typing import Any

import panel as pn

from pickcal.dashboard.saved.saving import Conflict
from pickcal.dashboard.session import Session
from pickcal.dashboard.views.component import Component
from pickcal.dashboard.views.exporting import FIRST, ExportForm
from pickcal.dashboard.views.forms import Form, fill, tell
from pickcal.dashboard.views.look import FILL, HERE, Look
from pickcal.errors import PickcalError

NAME_FIELD = "pickcal-selection-name"
BOX = 340
LINK_STYLE = """
.link { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; color: var(--pc-text); font-size: 14px; }
button, input { font: inherit; color: var(--pc-text); background: var(--pc-background);
  border: 1px solid var(--pc-faint); border-radius: 4px; padding: 5px 12px; }
button { cursor: pointer; }
input { flex: 1 1 100%; }
"""


class Browser(Component):
    """What saving needs of the browser; see saving.js."""

    _esm = HERE / "saving.js"

    def download(self, name: str, content: bytes) -> None:
        """Send a file to the visitor."""
        self._send_msg({"name": name, "content": content, "type": "application/octet-stream"})

    def focus(self, name: str) -> None:
        """Put the keyboard into the widget of this CSS class."""
        self._send_msg({"focus": name})


class SavingView(Form):
    """Selections to load and save, the thresholds file, exports, and the link to this view.

    Parameters
    ----------
    session, look
        As of all views.
    """

    def __init__(self, session: Session, look: Look) -> None:
        super().__init__(session, look)
        self._wanted = self._wanted_of = ""
        styles = [look.variables(), LINK_STYLE, look.focus]
        # all that it sends is that the link was copied
        self._browser = Browser(session, lambda _: session.freeze(), stylesheets=styles, margin=(5, 10), **FILL)
        self._state = self.words("")
        self._make_selection_widgets()
        self._exports = ExportForm(
            session, look, lambda then: self._save(self._name.value, then=then), self._browser.download
        )
        self.layout = self._laid_out()
        self.refresh(frozenset(("picks", "saved")))

    def refresh(self, changes: frozenset[str]) -> None:
        """Show what is open and whether it is saved; stored selections when others are there."""
        session = self._session
        if session.picks != self._wanted_of:
            self._conflict.visible = False
        if changes & {"picks", "saved", "thresholds", "method", "decisions", "settled"}:
            self._say_state()
        if changes & {"picks", "saved"}:
            names = session.inspector.selections(session.picks)
            if self._stored.options != names:
                self._stored.options = names
            self._stored.value = session.base if session.base in names else next(iter(names), None)
            self._stored.disabled = self._load.disabled = not names
            if "picks" in changes or not self._name.value:
                fill(self._name, session.base or FIRST)
            self._exports.propose_place()

    def _make_selection_widgets(self) -> None:
        session = self._session
        self._stored = pn.widgets.Select(label="Stored selections", **self.widget, options=[], **FILL)
        self._load = self.button("Load", self._load_stored)
        self._name = pn.widgets.TextInput(label="Save as", **self.widget, css_classes=[NAME_FIELD], **FILL)
        self._save_button = self.button("Save", lambda: self._save(self._name.value), primary=True)
        self._name.param.watch(lambda _: self._save(self._name.value), "enter_pressed")
        self._conflict_text = self.words("", "alert")
        self._conflict = pn.Column(
            self._conflict_text,
            self.button("Save under another name", self._rename),
            self.button("Replace theirs", lambda: self._save(self._wanted, overwrite=True)),
            visible=False,
            **self.raised(self._look.rejected),
        )
        self._thresholds = self.button("Download thresholds file", self._download_thresholds)
        self._upload = pn.widgets.FileInput(label="Read a thresholds file", **self.widget, accept=".toml", **FILL)
        self._upload.param.watch(self._read_thresholds, "value")
        for widget in (self._name, self._save_button):
            widget.visible = not session.read_only

    def _laid_out(self) -> Any:
        boxes = (
            ("Selection", self._state, self._stored, self._load, self._name, self._save_button, self._conflict),
            ("Thresholds file", self._thresholds, self._upload, self.heading("Link"), self._browser),
            ("Export of the saved selection", *self._exports.parts),
        )
        columns = [
            pn.Column(self.heading(title), *parts, width=BOX, **self.raised(self._look.line)) for title, *parts in boxes
        ]
        # SavingView is in a column that stretches: boxes wrap where they do not fit side by side
        return pn.FlexBox(*columns, gap="12px", align_items="flex-start", stylesheets=[self._look.focus], **FILL)

    def _say_state(self) -> None:
        session = self._session
        if session.saved is None:
            text = "not saved"
        elif session.unsaved:
            text = f"unsaved changes to {session.base}"
        else:
            text = f"selection {session.base}, saved"
            if session.saved.stale:
                text += "; its picks have changed since: save it again"
        tell(self._state, f"<b>{html.escape(text)}</b>")

    def _load_stored(self) -> None:
        if self._stored.value:
            self._conflict.visible = False
            self._exports.dismiss()
            self._session.load(self._stored.value)
            fill(self._name, self._session.base)

    def _save(self, name: str, overwrite: bool = False, then: Callable[[], None] | None = None) -> None:
        """Save in the background, as all picks are judged; `then` follows if that went well."""
        name, session = name.strip(), self._session
        picks, save = session.picks, session.saving(name, overwrite)
        self._conflict.visible = False
        self._exports.dismiss()
        self._save_button.disabled = True
        self._wanted, self._wanted_of, self._exports.after = name, picks, then

        def failed(error: Exception) -> None:
            self._save_button.disabled = False
            if isinstance(error, Conflict) and session.picks == picks:
                tell(self._conflict_text, html.escape(str(error)), "alert")
                self._conflict.visible = True
            else:
                session.say(str(error))

        def done(_: None) -> None:
            self._save_button.disabled = False
            if session.picks != picks:
                session.say(f"Selection {name!r} of picks {picks!r} is saved.")
                return
            fill(self._name, name)
            if then is not None:
                then()

        self.run("save", save, done, failed)

    def _rename(self) -> None:
        self._conflict.visible = False
        fill(self._name, another_name(self._wanted, self._session.inspector.project.names("selection")))
        self._browser.focus(NAME_FIELD)

    def _download_thresholds(self) -> None:
        self._browser.download(f"{self._session.base or FIRST}.toml", self._session.thresholds_text().encode())

    def _read_thresholds(self, event: Any) -> None:
        if not event.new:
            return
        where = str(self._upload.filename or "thresholds file")
        try:
            self._session.read_thresholds(event.new.decode(), where)
        except UnicodeDecodeError:
            self._session.say(f"{where}: expected a thresholds file, found one that is no text")
        except PickcalError as error:
            self._session.say(str(error))


def another_name(name: str, taken: Sequence[str]) -> str:
    """Propose a name like another one that is not taken.

    Examples
    --------
    >>> another_name("first", ["first", "first-2"])
    'first-3'
    """
    stem = re.sub(r"-\d+$", "", name)
    number = 2
    while f"{stem}-{number}" in taken:
        number += 1
    return f"{stem}-{number}"
