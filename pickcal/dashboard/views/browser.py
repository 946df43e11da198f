"""All micrographs: a list of them, and beside it the one that is looked at closely."""

from __future__ import annotations

from typing import Any

import numpy as np
import panel as pn
import param

from pickcal.dashboard.micrographs.images import Picture
from pickcal.dashboard.micrographs.shown import Shown
from pickcal.dashboard.micrographs.tally import micrograph_table
from pickcal.dashboard.session import Session
from pickcal.dashboard.views.component import Component
from pickcal.dashboard.views.look import FILL, HERE, Look
from pickcal.dashboard.views.micrographs import FOLLOWED, Micrograph
from pickcal.dashboard.views.pictures import PictureControls, Pictures
from pickcal.selection import ACCEPTED

MOST_PIXELS = 1200
NUMBERS = ("defocus", "picks", "residual", "power")
STYLE = """
:host { min-width: 0; }
.list { display: flex; flex-direction: column; gap: 6px; color: var(--pc-text); font-size: 13px;
  container-type: inline-size; }
.bar { display: flex; gap: 12px; align-items: center; min-height: 34px; }
input { font: inherit; color: var(--pc-text); background: var(--pc-background); border: 1px solid var(--pc-faint);
  border-radius: 4px; padding: 4px 8px; flex: 1 1 120px; min-width: 0; }
.found { color: var(--pc-faint); white-space: nowrap; }
.grid { border: 1px solid var(--pc-line); border-radius: 4px; overflow: hidden; }
.scroller { height: 642px; overflow-y: scroll; position: relative; scrollbar-width: thin; }
.grid:focus-visible { outline-offset: -3px !important; }
.space { position: relative; }
.line { display: grid; grid-template-columns: minmax(110px, 1fr) 70px 52px 76px 78px 58px 104px; align-items: center;
  height: 28px; position: absolute; left: 0; right: 0; cursor: pointer; }
.heads { position: static; height: auto; min-height: 42px; background: var(--pc-raised); cursor: default;
  border-bottom: 1px solid var(--pc-line); overflow-y: scroll; scrollbar-width: thin;
  scrollbar-color: transparent transparent; }
.cell { padding: 0 6px; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; text-align: right;
  font-variant-numeric: tabular-nums; }
.cell.name, .cell.third { text-align: left; }
.cell.name { direction: rtl; }
.heads .cell { white-space: normal; overflow: visible; direction: ltr; font-weight: 600; }
.heads button { font: inherit; color: inherit; background: none; border: 0; padding: 2px 0; cursor: pointer;
  text-align: inherit; }
.heads button:hover { text-decoration: underline; }
.space .line:nth-child(n):hover { background: var(--pc-raised); }
.line[aria-selected=true] { background: var(--pc-raised); box-shadow: inset 4px 0 var(--pc-accepted);
  font-weight: 700; }
.line.excluded { color: var(--pc-faint); }
.line.excluded .name { text-decoration: line-through; }
@container (max-width: 560px) { .third { display: none; }
  .line { grid-template-columns: minmax(100px, 1fr) 70px 52px 76px 78px 58px; } }
@container (max-width: 440px) { .second { display: none; }
  .line { grid-template-columns: minmax(90px, 1fr) 70px 52px 76px; } }
"""


class MicrographList(Component):
    """The list of all micrographs; see micrograph_list.js.

    Parameters
    ----------
    session, look
        As of all views.
    """

    _esm = HERE / "micrograph_list.js"

    table = param.Dict({})
    order = param.Dict({})
    accepted = param.Dict({})
    state = param.Dict({})

    def __init__(self, session: Session, look: Look, **values: Any) -> None:
        super().__init__(session, self._act, stylesheets=[look.variables(), STYLE, look.focus], **values)
        self._places: dict[str, int] = {}

    def refresh(self, changes: frozenset[str]) -> None:
        """Show what changed."""
        session, inspector = self._session, self._session.inspector
        if changes & {"picks"}:
            found = micrograph_table(inspector.project, session.picks, session.tally)
            numbers = {name: found[name].to_numpy(np.float32) for name in NUMBERS}
            texts = {key: _joined(found[name]) for key, name in (("names", "name"), ("states", "status"))}
            self.table = {"count": len(found), **numbers, **texts}
            self._places = {name: place for place, name in enumerate(found["name"])}
        if changes & {"picks", "tally", "settled"}:
            self.accepted = {"counts": session.tally.accepted.astype(np.int32)}
        view = session.view
        key = (view.sort, view.descending, view.search)
        by_count = view.sort == "accepted" and bool(changes & {"tally", "settled"})
        if "picks" in changes or by_count or key != self._key():
            rows = inspector.order(session.picks, view, session.tally)
            self.order = {"rows": rows.astype(np.int32), "key": list(key)}
        state = {
            "row": view.row,
            "sort": view.sort,
            "descending": view.descending,
            "search": view.search,
            "excluded": [self._places[name] for name in session.settings.exclude if name in self._places],
        }
        if state | {"version": 0} != {**self.state, "version": 0} or changes & {"picks", "tally", "settled"}:
            self.state = state | {"version": session.version}

    def _key(self) -> tuple[Any, ...]:
        return tuple(self.order.get("key", ()))

    def _act(self, data: dict[str, Any]) -> None:
        session = self._session
        if "row" in data:
            session.look_at(int(data["row"]))
        elif "sort" in data:
            session.look(sort=str(data["sort"]), descending=bool(data["descending"]))
        elif "search" in data:
            session.look(search=str(data["search"]))


def _joined(texts: Any) -> str:
    """One text of many, a line each."""
    return "\n".join(" ".join(str(text).split("\n")) for text in texts)


class BrowserView:
    """The list of all micrographs, and one of them large.

    Parameters
    ----------
    session, look
        As of all views.
    """

    def __init__(self, session: Session, look: Look) -> None:
        self._session = session
        self._list = MicrographList(session, look, sizing_mode="stretch_width", styles={"flex": "1 1 400px"})
        press = {
            "before": lambda: session.go(-1),
            "next": lambda: session.go(1),
            "pick before": lambda: session.move_cursor(-1),
            "next pick": lambda: session.move_cursor(1),
            "decide": self._decide,
        }
        self._controls = PictureControls(session, look, press)
        self._part = Micrograph(session, look, large=True)
        self._pictures = Pictures(session, "focus", MOST_PIXELS)
        right = pn.Column(
            self._controls, self._part, sizing_mode="stretch_width", styles={"flex": "2 1 520px", "min-width": "0"}
        )
        self.layout = pn.Row(self._list, right, stylesheets=[":host { flex-wrap: wrap; column-gap: 8px; }"], **FILL)
        self._shown: Shown | None = None
        self.refresh(frozenset(("picks",)))

    def refresh(self, changes: frozenset[str]) -> None:
        """Show what changed."""
        session = self._session
        focus = session.focus
        self._list.refresh(changes)
        self._part.visible = bool(focus.rows)
        new = focus is not self._shown
        if new and focus.rows:
            self._part.show_picks(focus, 0)
        self._shown = focus
        if focus.rows and (new or changes & (FOLLOWED | {"picks", "focus", "cursor"})):
            self._part.show_state(focus, 0, session.reasons("focus"), session.view.cursor)
        if new or changes & (FOLLOWED | {"picks", "focus", "cursor"}):
            self._controls.show(self._buttons())
            self._pictures.want(focus.rows, self._part_picture)

    def _part_picture(self, _: int, row: int, found: Picture | str, key: str) -> None:
        self._part.show_picture(row, found, key)

    def _buttons(self) -> list[tuple[str, str, str, bool]]:
        session = self._session
        some, on = bool(session.focus.rows), session.view.cursor >= 0
        return [
            ("before", "‹ Micrograph", "The micrograph before (p)", some),
            ("next", "Micrograph ›", "The next micrograph (n)", some),
            ("pick before", "‹ Pick", "The pick before, in order of distance from the threshold (,)", some),
            ("next pick", "Pick ›", "The next pick, in order of distance from the threshold (.)", some),
            ("decide", *self._decision(), on and not session.read_only),
        ]

    def _decision(self) -> tuple[str, str]:
        """Text and explanation of the button that decides on the pick of the keyboard."""
        session, cursor = self._session, self._session.view.cursor
        if cursor < 0:
            return "Accept this pick", "Go to a pick first, with Pick › or a full stop"
        values = session.focus.columns(0)
        name = session.focus.names[0]
        here = (name, float(values["x"][cursor]), float(values["y"][cursor]))
        decided = {(hand.micrograph, hand.x, hand.y) for hand in (*session.settings.accept, *session.settings.reject)}
        if here in decided:
            return "Leave this pick to the thresholds", "Take back what was decided by hand (a)"
        if session.reasons("focus")[0, cursor] == ACCEPTED:
            return "Reject this pick", "Reject it by hand, whatever its scores (a)"
        return "Accept this pick", "Accept it by hand, whatever its scores (a)"

    def _decide(self) -> None:
        view = self._session.view
        if view.row >= 0 and view.cursor >= 0:
            self._session.toggle(view.row, view.cursor)
