"""Named selections, thresholds files, exports and links: what leaves the page, and what comes back."""

from __future__ import annotations

import html
import re
import tempfile
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any, TypeVar, get_args

import panel as pn
from panel.custom import JSComponent

from pickcal.dashboard.saving import Conflict, destination, export_selection, packed, suggested
from pickcal.dashboard.session import Session
from pickcal.dashboard.views.look import FILL, HERE, Look, labelled
from pickcal.errors import InputError, PickcalError
from pickcal.settings import ExportSettings, validated

T = TypeVar("T")

FORMATS = {
    "relion": "RELION (STAR)",
    "cryosparc": "cryoSPARC (.cs)",
    "topaz": "Topaz (.txt)",
    "cryolo": "crYOLO (.cbox)",
    "eman": "EMAN (.box)",
    "csv": "CSV table",
    "parquet": "Parquet table",
}
LAYOUTS = {"a file per micrograph and one of all": "both", "a file per micrograph": "autopick", "one file": "particles"}
OPTIONS = {"relion": ("layout", "suffix"), "cryosparc": ("flip_y",), "cryolo": ("box",), "eman": ("box",)}
FIRST = "first"
NAME_FIELD = "pickcal-selection-name"
BOX = 340
MOST_LISTED = 10
MOST_SENT = 256 * 2**20
"""Largest file that is sent through the page, bytes: it is held in memory on both sides."""
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
LINK_STYLE = """
.link { display: flex; flex-wrap: wrap; gap: 8px; align-items: center; color: var(--pc-text); font-size: 14px; }
button, input { font: inherit; color: var(--pc-text); background: var(--pc-background);
  border: 1px solid var(--pc-faint); border-radius: 4px; padding: 5px 12px; }
button { cursor: pointer; }
input { flex: 1 1 100%; }
"""


class Browser(JSComponent):  # type: ignore[misc]
    """What saving needs of the browser; see saving.js."""

    _esm = HERE / "saving.js"

    def download(self, name: str, content: bytes) -> None:
        """Send a file to the visitor."""
        self._send_msg({"name": name, "content": content, "type": "application/octet-stream"})

    def focus(self, name: str) -> None:
        """Put the keyboard into the widget of this CSS class."""
        self._send_msg({"focus": name})


class SavingView:
    """Selections to load and save, the thresholds file, exports, and the link to this view.

    Parameters
    ----------
    session, look
        As of all views.
    """

    def __init__(self, session: Session, look: Look) -> None:
        self._session, self._look = session, look
        self._after: Callable[[], None] | None = None
        self._wanted = self._proposed = ""
        self._browser = Browser(stylesheets=[look.variables(), LINK_STYLE, look.focus], margin=(5, 10), **FILL)
        self._widget = {"stylesheets": [look.variables(), WIDGET_STYLE, look.focus]}
        self._state = self._words("")
        self._make_selection_widgets()
        self._make_export_widgets()
        self.layout = self._laid_out()
        self.refresh(frozenset(("picks", "saved")))

    def refresh(self, changes: frozenset[str]) -> None:
        """Show what is open and whether it is saved; stored selections when others are there."""
        session = self._session
        if changes & {"picks", "saved", "thresholds", "method", "decisions", "settled"}:
            self._say_state()
        if changes & {"picks", "saved"}:
            names = session.inspector.selections(session.picks)
            if self._stored.options != names:
                self._stored.options = names
            self._stored.value = session.base if session.base in names else next(iter(names), None)
            self._stored.disabled = self._load.disabled = not names
            if "picks" in changes or not self._name.value:
                _fill(self._name, session.base or FIRST)
            self._propose_place()

    # what it looks like

    def _words(self, text: str, role: str = "status") -> Any:
        pane = pn.pane.HTML("", styles={"color": self._look.text, "font-size": "14px"}, margin=(2, 10), **FILL)
        _tell(pane, text, role)
        return pane

    def _make_selection_widgets(self) -> None:
        session = self._session
        self._stored = labelled(pn.widgets.Select(**self._widget, options=[], **FILL), "Stored selections")
        self._load = self._button("Load", self._load_stored)
        self._name = labelled(pn.widgets.TextInput(**self._widget, css_classes=[NAME_FIELD], **FILL), "Save as")
        self._save_button = self._button("Save", lambda: self._save(self._name.value), primary=True)
        self._name.param.watch(lambda _: self._save(self._name.value), "enter_pressed")
        self._conflict_text = self._words("", "alert")
        self._conflict = pn.Column(
            self._conflict_text,
            self._button("Save under another name", self._rename),
            self._button("Replace theirs", lambda: self._save(self._wanted, overwrite=True)),
            visible=False,
            **self._raised(self._look.rejected),
        )
        self._thresholds = self._button("Download thresholds file", self._download_thresholds)
        self._upload = labelled(pn.widgets.FileInput(**self._widget, accept=".toml", **FILL), "Read a thresholds file")
        self._upload.param.watch(self._read_thresholds, "value")
        for widget in (self._name, self._save_button):
            widget.visible = not session.read_only

    def _make_export_widgets(self) -> None:
        titles = {FORMATS[name]: name for name in get_args(ExportSettings.model_fields["format"].annotation)}
        default = ExportSettings()
        make = pn.widgets
        self._format = labelled(make.Select(**self._widget, options=titles, value=default.format, **FILL), "Format")
        self._options = {
            "layout": labelled(make.Select(**self._widget, options=LAYOUTS, value=default.layout, **FILL), "Files"),
            "suffix": labelled(make.TextInput(**self._widget, value=default.suffix, **FILL), "Suffix of the files"),
            "flip_y": self._check("Count y from the last row (not of Patch Motion)", default.flip_y),
            "box": labelled(
                make.IntInput(**self._widget, value=None, start=2, **FILL),
                "Side of boxes (pixels; empty: as they came)",
            ),
        }
        self._rejected = self._check("Rejected picks as well, and why")
        self._place = labelled(make.TextInput(**self._widget, **FILL), "Write to")
        self._replace = self._check("Replace files that are there")
        self._export = self._button("Export", lambda: self._of_saved(self._write), primary=True)
        self._zip = self._button("Download (ZIP)", lambda: self._of_saved(self._download))
        self._result = self._words("")
        self._ask_text = self._words("", "alert")
        self._save_first = self._button("Save first", self._save_then)
        self._as_saved = self._button("Take it as it was saved", self._continue)
        self._ask = pn.Column(
            self._ask_text, self._save_first, self._as_saved, visible=False, **self._raised(self._look.rejected)
        )
        self._format.param.watch(self._change_format, "value")
        self._show_options()
        self._rejected.param.watch(lambda _: _tell(self._result, ""), "value")
        for widget in (self._place, self._replace, self._export, self._save_first):
            widget.visible = not self._session.read_only

    def _laid_out(self) -> Any:
        root = html.escape(str(self._session.inspector.project.path.resolve().parent))
        where = [] if self._session.read_only else [self._words(f"Paths begin at {root}.", "note")]
        boxes = (
            ("Selection", self._state, self._stored, self._load, self._name, self._save_button, self._conflict),
            ("Thresholds file", self._thresholds, self._upload, self._heading("Link"), self._browser),
            (
                "Export of the saved selection",
                *(self._format, *self._options.values(), self._rejected, self._place, self._replace, *where),
                *(pn.Row(self._export, self._zip), self._ask, self._result),
            ),
        )
        columns = [
            pn.Column(self._heading(title), *parts, width=BOX, **self._raised(self._look.line))
            for title, *parts in boxes
        ]
        # SavingView is in a column that stretches: boxes wrap where they do not fit side by side
        return pn.FlexBox(*columns, gap="12px", align_items="flex-start", stylesheets=[self._look.focus], **FILL)

    def _heading(self, title: str) -> Any:
        style = f"color: {self._look.text}; font-size: 15px; margin: 4px 0"
        return pn.pane.HTML(f'<h2 style="{style}">{title}</h2>', margin=(0, 10))

    def _raised(self, border: str) -> dict[str, Any]:
        styles = {"border": f"1px solid {border}", "border-radius": "6px", "padding": "6px"}
        return {"styles": {**styles, "background": self._look.background}}

    def _check(self, text: str, value: bool = False) -> Any:
        """Make a box to tick; Bokeh's own single box is not labelled for screen readers, its groups are."""
        return pn.widgets.CheckBoxGroup(**self._widget, options=[text], value=[text] if value else [])

    def _button(self, text: str, pressed: Callable[[], None], primary: bool = False) -> Any:
        sheets = [*self._widget["stylesheets"], PRIMARY_STYLE] if primary else self._widget["stylesheets"]
        button = labelled(pn.widgets.Button(stylesheets=sheets), text)

        def guarded(_: Any) -> None:
            try:
                pressed()
            except PickcalError as error:
                self._session.say(str(error))

        button.on_click(guarded)
        return button

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
        _tell(self._state, f"<b>{html.escape(text)}</b>")

    # selections

    def _load_stored(self) -> None:
        if self._stored.value:
            self._conflict.visible = self._ask.visible = False
            self._session.load(self._stored.value)
            _fill(self._name, self._session.base)

    def _save(self, name: str, overwrite: bool = False, then: Callable[[], None] | None = None) -> None:
        """Save in the background, as all picks are judged; `then` follows if that went well."""
        name = name.strip()
        self._conflict.visible = self._ask.visible = False
        self._save_button.disabled = True
        self._wanted, self._after = name, then

        def failed(error: Exception) -> None:
            self._save_button.disabled = False
            if isinstance(error, Conflict):
                _tell(self._conflict_text, html.escape(str(error)), "alert")
                self._conflict.visible = True
            else:
                self._session.say(str(error))

        def done(_: None) -> None:
            self._save_button.disabled = False
            _fill(self._name, name)
            if then is not None:
                then()

        self._run("save", lambda: self._session.save(name, overwrite), done, failed)

    def _rename(self) -> None:
        self._conflict.visible = False
        _fill(self._name, another_name(self._wanted, self._session.inspector.project.names("selection")))
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

    # exports

    def _show_options(self) -> None:
        for name, widget in self._options.items():
            widget.visible = name in OPTIONS.get(self._format.value, ())

    def _propose_place(self) -> None:
        """Propose where to write; a path that the visitor typed stays."""
        if self._place.value in ("", self._proposed):
            self._proposed = suggested(self._session.base or FIRST, self._format.value)
            _fill(self._place, self._proposed)

    def _change_format(self, event: Any) -> None:
        """Show the options of another format, and give the path its suffix."""
        self._show_options()
        old, self._proposed = self._proposed, suggested(self._session.base or FIRST, event.new)
        kept = self._place.value.removesuffix(suggested("", event.old))
        _fill(self._place, self._proposed if self._place.value == old else suggested(kept, event.new))

    def _settings(self) -> ExportSettings:
        format = self._format.value
        values = {name: self._options[name].value for name in OPTIONS.get(format, ())}
        if "flip_y" in values:
            values["flip_y"] = bool(values["flip_y"])
        values |= {"format": format, "rejected": bool(self._rejected.value)}
        return validated(ExportSettings, values, "export")

    def _of_saved(self, then: Callable[[], None]) -> None:
        """Go on with the saved selection; ask first where it is not what is on the page."""
        session = self._session
        self._after = then
        _tell(self._result, "")
        if not session.unsaved:
            self._continue()
            return
        self._as_saved.visible = session.saved is not None
        if session.saved is None:
            text = "Nothing is saved yet, and exports are of saved selections."
        else:
            text = f"There are unsaved changes to {session.base}, and exports are of saved selections."
        _tell(self._ask_text, html.escape(text), "alert")
        self._ask.visible = True

    def _save_then(self) -> None:
        self._save(self._name.value, then=self._after)

    def _continue(self) -> None:
        self._ask.visible = False
        if self._after is not None:
            self._after()

    def _write(self) -> None:
        """Write files into the folder that holds the project."""
        settings, selection = self._settings(), self._session.base
        project = self._session.inspector.project
        root = project.path.resolve().parent
        place = destination(
            root, self._place.value, settings.format, rejected=settings.rejected, overwrite=bool(self._replace.value)
        )
        self._busy(f"Writing {place.name} …")

        def done(files: Sequence[Path]) -> None:
            self._busy("")
            _tell(self._result, listing([str(file.relative_to(root)) for file in files], str(root)))

        self._run("export", lambda: export_selection(project, selection, settings, place, root), done)

    def _download(self) -> None:
        """Send the files, packed."""
        settings, selection = self._settings(), self._session.base
        project = self._session.inspector.project
        name = f"{selection}_{settings.format}.zip"
        self._busy(f"Packing {name} …")

        def pack() -> bytes:
            with tempfile.TemporaryDirectory(prefix="pickcal-") as folder:
                found = packed(project, selection, settings, Path(folder) / name)
                if found.stat().st_size > MOST_SENT:
                    raise InputError(
                        f"{name}: {found.stat().st_size / 2**20:,.0f} MB are too much to send through the page (most: "
                        f"{MOST_SENT / 2**20:,.0f} MB); export it into the folder of the project instead"
                    )
                return found.read_bytes()

        def done(content: bytes) -> None:
            self._browser.download(name, content)
            self._busy("")
            _tell(self._result, html.escape(f"Sent {name}, {len(content) / 1024:,.0f} kB."))

        self._run("export", pack, done)

    def _busy(self, text: str) -> None:
        self._export.disabled = self._zip.disabled = bool(text)
        _tell(self._result, html.escape(text))

    # the background

    def _run(
        self,
        what: str,
        call: Callable[[], T],
        done: Callable[[T], None],
        failed: Callable[[Exception], None] | None = None,
    ) -> None:
        """Do something that takes long; what follows is done in the visitor's own thread."""
        session = self._session

        def refused(error: Exception) -> None:
            self._busy("")
            session.say(str(error))

        session.inspector.background.submit(
            (what, id(session)),
            lambda: beside(call),
            lambda result: session.post(lambda: done(result)),
            failed=lambda error: session.post(lambda: (failed or refused)(error)),
        )


def _tell(pane: Any, text: str, role: str = "status") -> None:
    pane.object = f'<div role="{role}">{text}</div>' if text else ""


def _fill(field: Any, text: str) -> None:
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


def listing(files: Sequence[str], root: str) -> str:
    """List the files of an export as HTML; many are counted."""
    shown = list(files[:MOST_LISTED])
    if len(files) > MOST_LISTED:
        shown.append(f"and {len(files) - MOST_LISTED:,} more")
    items = "".join(f"<li>{html.escape(file)}</li>" for file in shown)
    return f"Written, {len(files):,} file{'' if len(files) == 1 else 's'} in {html.escape(root)}:<ul>{items}</ul>"
