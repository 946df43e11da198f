"""The frame of the page: title, picks, progress, notes, theme, help; keyboard shortcuts and the address bar."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import param

from pickcal.dashboard.address import TABS
from pickcal.dashboard.session import Session
from pickcal.dashboard.views.component import Component
from pickcal.dashboard.views.look import FILL, HERE, Look

KEYS: tuple[tuple[str, str], ...] = (
    ("[ and ]", "less strict, stricter: the main threshold by one step ({ and } by ten)"),
    ("n and p", "next and previous micrograph of the list"),
    (". and ,", "next and previous pick of that micrograph, from the threshold outwards"),
    ("a", "accept or reject that pick by hand, or leave it to the thresholds again"),
    ("x", "exclude that micrograph, or take it back in"),
    ("o", "three other micrographs of low, middle and high defocus"),
    ("c", "switch between raw and calibrated scores"),
    ("v", "show or hide rejected picks"),
    ("+, - and 0 on a micrograph", "zoom in, zoom out, all of it"),
    ("u or Ctrl+Z, r or Ctrl+Shift+Z", "undo, redo"),
    ("1 to 5", "three micrographs, all micrographs, montage, calibration, save"),
    ("?", "this list"),
)
STYLE = """
header { display: flex; flex-wrap: wrap; gap: 12px; align-items: center; padding: 8px 12px; color: var(--pc-text);
  background: var(--pc-raised); border-bottom: 1px solid var(--pc-line); font-size: 14px; }
h1 { font-size: 17px; margin: 0; color: var(--pc-accepted); }
h2 { font-size: 16px; margin: 0 0 8px; }
.project { max-width: 32ch; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.status { color: var(--pc-faint); }
.space { flex: 1; }
progress { width: 120px; }
button, select { font: inherit; color: var(--pc-text); background: var(--pc-background);
  border: 1px solid var(--pc-faint); border-radius: 4px; padding: 3px 10px; cursor: pointer; }
.note { display: flex; gap: 8px; justify-content: space-between; align-items: center; padding: 6px 12px;
  color: var(--pc-text); border-left: 5px solid var(--pc-rejected); background: var(--pc-raised); font-size: 14px;
  margin-top: 4px; }
dialog { color: var(--pc-text); background: var(--pc-background); border: 1px solid var(--pc-line); border-radius: 8px;
  max-width: 640px; font-size: 14px; }
td { padding: 4px 12px 4px 0; vertical-align: top; }
kbd { white-space: nowrap; font-family: ui-monospace, monospace; }
"""
MOST_NOTES = 4


class Frame(Component):
    """The component; see frame.js."""

    _esm = HERE / "frame.js"

    dark = param.Boolean(False)
    keys = param.List([])
    handled = param.List([])


class FrameView:
    """Head of the page.

    Parameters
    ----------
    session, look
        As of all views.
    """

    def __init__(self, session: Session, look: Look) -> None:
        self._session = session
        self._actions = self._shortcuts()
        self.layout = Frame(
            session,
            self._receive,
            first=json.dumps(self._told()),
            dark=look.dark,
            keys=[list(pair) for pair in KEYS],
            handled=list(self._actions),
            stylesheets=[look.variables(), STYLE, look.focus],
            **FILL,
        )

    def refresh(self, changes: frozenset[str]) -> None:
        """Show facts, notes and the address."""
        if changes & {"picks", "progress", "cube", "notes"}:
            self.layout._send_msg(self._told())
        if changes & {"picks", "settled", "focus", "view", "trio", "saved"}:
            self.layout._send_msg({"address": "?" + urlencode(self._session.address())})

    def _told(self) -> dict[str, Any]:
        return {"facts": self._facts(), "notes": self._session.notes.texts[-MOST_NOTES:]}

    def _facts(self) -> dict[str, Any]:
        session = self._session
        inspector = session.inspector
        counts = inspector.counts(session.picks)
        told = [f"{counts['done']:,} micrographs"]
        told += [f"{counts[word]:,} {word}" for word in ("failed", "skipped") if counts[word]]
        progress = None
        if counts["pending"]:
            total = sum(counts[word] for word in ("done", "failed", "skipped", "pending"))
            progress = 1 - counts["pending"] / total
            told[0] = f"{counts['done']:,} of {total:,} micrographs picked"
        told.append(f"{counts['picks']:,} picks")
        if session.read_only:
            told.append("read-only")
        return {
            "project": inspector.project.path.name,
            "path": str(inspector.project.path),
            "names": inspector.picks(),
            "picks": session.picks,
            "status": ", ".join(told),
            "progress": progress,
        }

    def _receive(self, message: dict[str, Any]) -> None:
        session = self._session
        if "picks" in message:
            session.choose_picks(str(message["picks"]))
        elif "key" in message:
            self._actions[str(message["key"])]()
        elif "dismiss" in message:
            shown = session.notes.texts[-MOST_NOTES:]
            del session.notes.texts[len(session.notes.texts) - len(shown) + int(message["dismiss"])]
            session.tell("notes")
        elif "ready" in message:
            self.refresh(frozenset(("picks",)))

    def _shortcuts(self) -> dict[str, Callable[[], None]]:
        session = self._session

        def decide() -> None:
            if session.view.row >= 0 and session.view.cursor >= 0:
                session.toggle(session.view.row, session.view.cursor)

        def calibrated() -> None:
            session.set_method("line" if session.method == "raw" else "raw")

        return {
            "[": lambda: session.step(-1),
            "]": lambda: session.step(1),
            "{": lambda: session.step(-10),
            "}": lambda: session.step(10),
            "n": lambda: session.go(1),
            "p": lambda: session.go(-1),
            ".": lambda: session.move_cursor(1),
            ",": lambda: session.move_cursor(-1),
            "a": decide,
            "x": lambda: session.toggle_excluded(session.view.row),
            "o": lambda: session.turn(1),
            "c": calibrated,
            "v": lambda: session.look(rejected=not session.view.rejected),
            "u": session.undo,
            "undo": session.undo,
            "r": session.redo,
            "redo": session.redo,
            **{str(i + 1): (lambda tab=tab: session.look(tab=tab)) for i, tab in enumerate(TABS)},  # type: ignore[misc]
        }
