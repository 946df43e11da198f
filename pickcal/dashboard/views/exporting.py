"""Exports of the saved selection: files beside the project, or sent through the page."""

from __future__ import annotations

import html
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import panel as pn

from pickcal.dashboard.saved.saving import destination, export_selection, packed, suggested
from pickcal.dashboard.session import Session
from pickcal.dashboard.views.forms import Form, fill, tell
from pickcal.dashboard.views.look import FILL, Look
from pickcal.errors import InputError
from pickcal.project import Project
from pickcal.settings import ExportSettings, validated

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
"""Name that is proposed before anything is saved."""
MOST_LISTED = 10
MOST_SENT = 256 * 2**20
"""Largest file that is sent through the page, bytes: it is held in memory on both sides."""


class ExportForm(Form):
    """Format, options and place of an export, and the buttons that write or send it.

    Parameters
    ----------
    session, look
        As of all views.
    save
        Saves what is on the page, and calls what it is given once that went well.
    send
        Sends a file to the visitor: its name and what is in it.

    Attributes
    ----------
    after
        What follows once the question is answered whether to save first; None: nothing.
    parts
        The widgets, from top to bottom.
    """

    def __init__(
        self,
        session: Session,
        look: Look,
        save: Callable[[Callable[[], None] | None], None],
        send: Callable[[str, bytes], None],
    ) -> None:
        super().__init__(session, look)
        self._save, self._send = save, send
        self.after: Callable[[], None] | None = None
        self._proposed = ""
        self._make_widgets()
        self.parts = self._laid_out()

    def _make_widgets(self) -> None:
        titles = {FORMATS[name]: name for name in get_args(ExportSettings.model_fields["format"].annotation)}
        default = ExportSettings()
        make = pn.widgets
        self._format = make.Select(label="Format", **self.widget, options=titles, value=default.format, **FILL)
        self._options = {
            "layout": make.Select(label="Files", **self.widget, options=LAYOUTS, value=default.layout, **FILL),
            "suffix": make.TextInput(label="Suffix of the files", **self.widget, value=default.suffix, **FILL),
            "flip_y": self.check("Count y from the last row (not of Patch Motion)", default.flip_y),
            "box": make.IntInput(
                label="Side of boxes (pixels; empty: as they came)", **self.widget, value=None, start=2, **FILL
            ),
        }
        self._rejected = self.check("Rejected picks as well, and why")
        self._place = make.TextInput(label="Write to", **self.widget, **FILL)
        self._replace = self.check("Replace files that are there")
        self._export = self.button("Export", lambda: self._of_saved(self._write), primary=True)
        self._zip = self.button("Download (ZIP)", lambda: self._of_saved(self._download))
        self._result = self.words("")
        self._ask_text = self.words("", "alert")
        self._save_first = self.button("Save first", self._save_then)
        self._as_saved = self.button("Take it as it was saved", self._continue)
        self._ask = pn.Column(
            self._ask_text, self._save_first, self._as_saved, visible=False, **self.raised(self._look.rejected)
        )
        self._format.param.watch(self._change_format, "value")
        self._show_options()
        self._rejected.param.watch(lambda _: tell(self._result, ""), "value")
        for widget in (self._place, self._replace, self._export, self._save_first):
            widget.visible = not self._session.read_only

    def _laid_out(self) -> tuple[Any, ...]:
        root = html.escape(str(_root(self._session.inspector.project)))
        where = [] if self._session.read_only else [self.words(f"Paths begin at {root}.", "note")]
        return (
            *(self._format, *self._options.values(), self._rejected, self._place, self._replace, *where),
            *(pn.Row(self._export, self._zip), self._ask, self._result),
        )

    def _show_options(self) -> None:
        for name, widget in self._options.items():
            widget.visible = name in OPTIONS.get(self._format.value, ())

    def propose_place(self) -> None:
        """Propose where to write; a path that the visitor typed stays."""
        if self._place.value in ("", self._proposed):
            self._proposed = suggested(self._session.base or FIRST, self._format.value)
            fill(self._place, self._proposed)

    def _change_format(self, event: Any) -> None:
        """Show the options of another format, and give the path its suffix."""
        self._show_options()
        old, self._proposed = self._proposed, suggested(self._session.base or FIRST, event.new)
        kept = self._place.value.removesuffix(suggested("", event.old))
        fill(self._place, self._proposed if self._place.value == old else suggested(kept, event.new))

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
        self.after = then
        tell(self._result, "")
        if not session.unsaved:
            self._continue()
            return
        self._as_saved.visible = session.saved is not None
        if session.saved is None:
            text = "Nothing is saved yet, and exports are of saved selections."
        else:
            text = f"There are unsaved changes to {session.base}, and exports are of saved selections."
        tell(self._ask_text, html.escape(text), "alert")
        self._ask.visible = True

    def _save_then(self) -> None:
        self._save(self.after)

    def dismiss(self) -> None:
        """Take the question back that is asked where not all is saved."""
        self._ask.visible = False

    def _continue(self) -> None:
        self.dismiss()
        if self.after is not None:
            self.after()

    def _write(self) -> None:
        """Write files into the folder that holds the project.

        Raises
        ------
        InputError
            On a read-only page, whose button is not shown but can be pressed by whoever writes to the server's socket.
        """
        if self._session.read_only:
            raise InputError("this page is read-only: nothing can be exported on the server; download the ZIP instead")
        settings, selection = self._settings(), self._session.base
        project = self._session.inspector.project
        root = _root(project)
        place = destination(
            root, self._place.value, settings.format, rejected=settings.rejected, overwrite=bool(self._replace.value)
        )
        self._busy(f"Writing {place.name} …")

        def done(files: Sequence[Path]) -> None:
            self._busy("")
            tell(self._result, listing([str(file.relative_to(root)) for file in files], str(root)))

        self.run("export", lambda: export_selection(project, selection, settings, place, root), done, self._refused)

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
            self._send(name, content)
            self._busy("")
            tell(self._result, html.escape(f"Sent {name}, {len(content) / 1024:,.0f} kB."))

        self.run("export", pack, done, self._refused)

    def _busy(self, text: str) -> None:
        self._export.disabled = self._zip.disabled = bool(text)
        tell(self._result, html.escape(text))

    def _refused(self, error: Exception) -> None:
        self._busy("")
        self._session.say(str(error))


def _root(project: Project) -> Path:
    """Folder of this machine that exports go to: that which holds the project, or where the server was started."""
    place = project.path.resolve()
    return place.parent if isinstance(place, Path) else Path.cwd()


def listing(files: Sequence[str], root: str) -> str:
    """List the files of an export as HTML; many are counted."""
    shown = list(files[:MOST_LISTED])
    if len(files) > MOST_LISTED:
        shown.append(f"and {len(files) - MOST_LISTED:,} more")
    items = "".join(f"<li>{html.escape(file)}</li>" for file in shown)
    return f"Written, {len(files):,} file{'' if len(files) == 1 else 's'} in {html.escape(root)}:<ul>{items}</ul>"
