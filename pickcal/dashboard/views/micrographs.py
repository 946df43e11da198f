"""Micrographs with their picks: the component that draws one, and three of them at low, middle and high defocus."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import panel as pn
import param
from numpy.typing import NDArray

from pickcal.dashboard.methods import MAIN
from pickcal.dashboard.micrographs.images import Picture
from pickcal.dashboard.micrographs.shown import Shown
from pickcal.dashboard.session import Session
from pickcal.dashboard.views.component import Component
from pickcal.dashboard.views.look import FILL, HERE, Look
from pickcal.dashboard.views.pictures import PictureControls, Pictures
from pickcal.selection import ACCEPTED, REACH, REASONS

ACCEPTED_BY_HAND = len(REASONS)
LABELS = {1: ("",), 2: ("low defocus", "high defocus"), 3: ("low defocus", "middle defocus", "high defocus")}
SCORES = ("ncc", "power")
LIKELIHOOD = {"probability": "probability", "q_value": "false discovery rate (q-value)"}
FOLLOWED = frozenset(("thresholds", "method", "decisions", "settled", "view"))
STYLE = """
.plate { display: flex; flex-direction: column; gap: 4px; height: 100%; color: var(--pc-text); font-size: 13px; }
.head { display: flex; flex-wrap: wrap; gap: 2px 8px; align-items: center; min-height: 28px; white-space: nowrap; }
.label { font-weight: 700; }
.label:empty { display: none; }
.facts { color: var(--pc-faint); }
.facts { flex: 1 0 100%; order: 1; }
.large .facts { flex: none; order: 0; }
.exclude { margin-left: auto; flex: none; }
button { font: inherit; color: var(--pc-text); background: var(--pc-raised); border: 1px solid var(--pc-faint);
  border-radius: 4px; padding: 3px 9px; cursor: pointer; }
.stage { position: relative; overflow: hidden; background: var(--pc-raised); border-radius: 4px; flex: 1 1 auto;
  width: 100%; aspect-ratio: var(--aspect, 1); }
canvas { position: absolute; inset: 0; width: 100%; height: 100%; }
canvas:focus-visible { outline-offset: -3px !important; }
.large .stage { height: 640px; flex: none; aspect-ratio: auto; }
.excluded canvas { opacity: 0.3; }
.word, .note { position: absolute; pointer-events: none; }
.word { inset: 0; display: grid; place-items: center; font-size: 26px; font-weight: 700; color: var(--pc-text); }
.note { top: 8px; left: 10px; color: var(--pc-faint); }
.tip { position: absolute; pointer-events: none; background: var(--pc-background); color: var(--pc-text);
  border: 1px solid var(--pc-faint); border-radius: 4px; padding: 5px 9px; font-size: 13px; line-height: 1.4;
  white-space: nowrap; box-shadow: 0 2px 8px rgba(0, 0, 0, 0.35); }
.reason { font-weight: 700; }
.live { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
[hidden] { display: none !important; }
"""


def _reason_words() -> list[str]:
    """Words of the tooltip for every value that a pick's state has; the last is `ACCEPTED_BY_HAND`."""
    special = {"accepted": "accepted", "by hand": "rejected by hand", "micrograph": "rejected: micrograph excluded"}
    return [*(special.get(reason, f"rejected: {reason}") for reason in REASONS), "accepted by hand"]


class Micrograph(Component):
    """One micrograph with its picks; see micrograph.js.

    Parameters
    ----------
    session, look
        As of all views.
    label
        What stands before the name; default "".
    large
        Of a fixed height instead of the picture's shape; default no.
    """

    _esm = HERE / "micrograph.js"

    label = param.String("")
    large = param.Boolean(False)
    reasons = param.List(_reason_words())
    picks = param.Dict({})
    picture = param.Dict({})
    state = param.Dict({})

    def __init__(self, session: Session, look: Look, label: str = "", large: bool = False) -> None:
        sheets = [look.variables(), STYLE, look.focus]
        super().__init__(session, self._act, label=label, large=large, margin=(0, 5), stylesheets=sheets, **FILL)
        self._hands: tuple[object, ...] = ()
        self._by_hand = np.empty(0, dtype=np.intp)
        self._names: list[str] = []

    def show_picks(self, shown: Shown, i: int) -> None:
        """Take the picks of the `i`th of some micrographs; call `show_state` as well."""
        session, row = self._session, shown.rows[i]
        values = shown.columns(i)
        words = session.inspector.words(session.picks)
        calibrated = session.inspector.calibration(session.picks) is not None
        names, labels = ["x", "y"], []
        for score in SCORES:
            if score == "power" and not np.isfinite(values[score]).any():
                continue
            names.append(score)
            labels.append([words.of_score(score), len(names) - 1, len(names) if calibrated else -1])
            names += [f"calibrated_{score}"] if calibrated else []
        for name, label in LIKELIHOOD.items():
            if name in values:
                names.append(name)
                labels.append([label, len(names) - 1, -1])
        self._hands, self._names = (), names
        self.picks = {
            "row": row,
            "name": shown.names[i],
            "defocus": float(session.inspector.defocus[row]),
            "diameter": session.inspector.diameter(session.picks),
            "extent": extent(session, row, values),
            "values": np.stack([values[name] for name in names]).astype(np.float32),
            "labels": labels,
        }

    def show_state(self, shown: Shown, i: int, reasons: NDArray[np.int8], cursor: int = -1) -> None:
        """Show which picks are accepted, and how the visitor looks at them.

        Parameters
        ----------
        shown, i
            As of `show_picks`.
        reasons
            Of these micrographs, as of `Session.reasons`.
        cursor
            Pick that the keyboard is on; default none.
        """
        session = self._session
        settings, view = session.settings, session.view
        values = reasons[i, : len(shown.columns(i)["x"])].astype(np.uint8)
        places = self._decided(shown, i)
        values[places[values[places] == ACCEPTED]] = ACCEPTED_BY_HAND
        main = {"min_ncc": "ncc" if settings.raw else "calibrated_ncc", "fdr": "q_value"}.get(
            MAIN[session.method], "probability"
        )
        self.state = {
            "version": session.version,
            "reasons": values,
            "main": self._names.index(main) if main in self._names else self._names.index("ncc"),
            "threshold": getattr(settings, session.main),
            "excluded": shown.names[i] in settings.exclude,
            "rejected": view.rejected,
            "cursor": cursor,
            "low": view.low,
            "high": view.high,
        }

    def show_picture(self, row: int, found: Picture | str, key: str) -> None:
        """Show a picture, or say why there is none; `key` tells pictures of one micrograph apart."""
        if isinstance(found, str):
            self.picture = {"row": row, "key": key, "text": found}
        else:
            self.picture = {"row": row, "key": key, "pixels": found.pixels, "low": found.low, "high": found.high}

    def _decided(self, shown: Shown, i: int) -> NDArray[np.intp]:
        """Places of the picks that were accepted by hand; looked for when decisions change, not at every move."""
        accept = self._session.settings.accept
        if not self._hands or self._hands[0] is not shown or self._hands[1] is not accept:
            reach = REACH * self._session.inspector.diameter(self._session.picks)
            here = [hand for hand in accept if hand.micrograph == shown.names[i]]
            found = [shown.nearest(i, hand.x, hand.y, reach) for hand in here]
            self._hands = (shown, accept)
            self._by_hand = np.array([place for place in found if place is not None], dtype=np.intp)
        return self._by_hand

    def _act(self, data: dict[str, Any]) -> None:
        session = self._session
        if "toggle" in data:
            session.toggle(int(data["row"]), int(data["toggle"]))
        elif "exclude" in data:
            session.toggle_excluded(int(data["exclude"]))


def extent(session: Session, row: int, values: dict[str, Any]) -> list[float]:
    """Left, right, top and bottom edge of a micrograph, Å; around the picks where its size is not known."""
    read = session.inspector.project.read
    pixel, width, height = (
        float(read("micrographs", name, row, row + 1)[0]) for name in ("pixel_size", "width", "height")
    )
    if width > 0 and height > 0 and math.isfinite(pixel):
        half = 0.5 * pixel
        return [-half, width * pixel - half, -half, height * pixel - half]
    margin = session.inspector.diameter(session.picks)
    right, bottom = (float(np.nanmax(values[name], initial=margin)) + margin for name in ("x", "y"))
    return [-margin, right, -margin, bottom]


class TrioView:
    """Three micrographs at low, middle and high defocus.

    Parameters
    ----------
    session, look
        As of all views.
    """

    def __init__(self, session: Session, look: Look) -> None:
        self._session = session
        self._controls = PictureControls(
            session, look, {"back": lambda: session.turn(-1), "other": lambda: session.turn(1)}
        )
        self._parts = [Micrograph(session, look) for _ in range(3)]
        self._pictures = Pictures(session, "trio", 700)
        self._nothing = pn.pane.HTML("No micrograph is finished yet; they appear here as they are.", visible=False)
        row = pn.Row(*self._parts, stylesheets=["@media (max-width: 1000px) { :host { flex-wrap: wrap; } }"], **FILL)
        self.layout = pn.Column(self._controls, self._nothing, row, **FILL)
        self._shown: Shown | None = None
        self.refresh(frozenset(("picks",)))

    def refresh(self, changes: frozenset[str]) -> None:
        """Show what changed; a moved threshold sends one byte per pick."""
        new = self._session.trio is not self._shown
        if new:
            self._take()
        if new or changes & (FOLLOWED | {"picks", "trio"}):
            self._show()
        if new or changes & {"picks", "trio", "view"}:
            turn = self._session.view.turn
            self._controls.show(
                [
                    ("back", "‹", "The three micrographs before", turn > 0),
                    ("other", "Other three ›", "Three other micrographs at low, middle and high defocus (o)", True),
                ]
            )
            self._pictures.want(self._session.trio.rows, self._show_picture)

    def _take(self) -> None:
        self._shown = shown = self._session.trio
        count = len(shown.rows)
        self._nothing.visible = not count
        for i, part in enumerate(self._parts):
            part.visible = i < count
            if i < count:
                part.label = LABELS[count][i]
                part.show_picks(shown, i)

    def _show(self) -> None:
        shown, reasons = self._session.trio, self._session.reasons("trio")
        for i, part in enumerate(self._parts[: len(shown.rows)]):
            part.show_state(shown, i, reasons)

    def _show_picture(self, i: int, row: int, found: Picture | str, key: str) -> None:
        self._parts[i].show_picture(row, found, key)
