"""Cutouts of the picks on which the threshold decides, and of those with the highest power; each leads to its pick."""

from __future__ import annotations

from base64 import b64encode
from dataclasses import dataclass
from typing import Any

import numpy as np

from pickcal.calibration.verdicts import heading
from pickcal.dashboard.micrographs.images import LIMIT
from pickcal.dashboard.micrographs.montage import Montage, Tiles
from pickcal.dashboard.micrographs.shown import Shown, main_score
from pickcal.dashboard.session import Session
from pickcal.dashboard.views.component import Component
from pickcal.dashboard.views.look import FILL, HERE, Look
from pickcal.selection import ACCEPTED, BY_HAND, REASONS
from pickcal.settings import SelectSettings

STYLE = """
.montage { color: var(--pc-text); font-size: 14px; padding: 0 10px; }
.status { color: var(--pc-faint); margin: 4px 0; min-height: 1.4em; }
h3 { font-size: 16px; font-weight: 600; margin: 10px 0 0; }
section p { margin: 0 0 4px; color: var(--pc-faint); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(72px, 1fr)); gap: 6px; }
.tile { max-width: 150px; text-align: center; font-size: 12px; }
button { font: inherit; color: var(--pc-text); background: var(--pc-background); cursor: pointer; }
.go { display: block; width: 100%; padding: 0; border: 3px solid var(--pc-accepted); border-radius: 4px; }
.rejected .go { border-color: var(--pc-rejected); border-style: dashed; }
canvas { display: block; width: 100%; aspect-ratio: 1; border-radius: 1px; }
.score { margin: 2px 0; white-space: nowrap; font-variant-numeric: tabular-nums; }
.toggle { width: 100%; border: 1px solid var(--pc-faint); border-radius: 4px; padding: 1px 0; }
.toggle[hidden] { display: none; }
"""
NO_IMAGES = "This project holds tables only, no images: there is nothing to cut out."
DRAWING = "Being drawn: looking through the picks on both sides of the threshold …"
AGAIN = "Being drawn anew …"
NOT_DRAWN = (
    "Nothing is drawn: no micrograph is finished, or the picks could not be read. Move a threshold to try again."
)
NONE: dict[str, str] = {
    "above": "No pick is accepted.",
    "below": "The threshold rejects no pick.",
    "power": "No pick is accepted.",
}


class MontageTiles(Component):
    """The component; see montage.js."""

    _esm = HERE / "montage.js"


@dataclass(frozen=True)
class Drawn:
    """A montage on the screen.

    Attributes
    ----------
    montage
        Its tiles.
    of
        What it was drawn for; see `MontageView`.
    settings
        Thresholds then.
    shown
        Picks of its micrographs, to be judged anew after decisions by hand.
    """

    montage: Montage
    of: tuple[object, ...]
    settings: SelectSettings
    shown: Shown

    @property
    def groups(self) -> dict[str, Tiles]:
        """Tiles of the three rows."""
        return {"above": self.montage.above, "below": self.montage.below, "power": self.montage.power}


class MontageView:
    """Three rows of cutouts: just above the threshold, just below, and of the highest power.

    Tiles stay where they are when picks are accepted or rejected by hand, so that several can be decided one after
    the other; only their frames change. Thresholds that were let go bring other tiles.

    Parameters
    ----------
    session, look
        As of all views.
    """

    def __init__(self, session: Session, look: Look) -> None:
        self._session = session
        self._drawn: Drawn | None = None
        self._lowpass = session.view.lowpass
        self.layout = MontageTiles(session, self._receive, stylesheets=[look.variables(), STYLE, look.focus], **FILL)

    def refresh(self, changes: frozenset[str]) -> None:
        """Show what changed; while a threshold is dragged nothing but the version."""
        session = self._session
        message: dict[str, Any] = {"version": session.version}
        if "picks" in changes:
            self._drawn = None
            message["groups"] = []
        if session.view.lowpass != self._lowpass:
            self._lowpass = session.view.lowpass
            session.show_montage()
        taken = bool(changes & {"montage", "picks"}) and self._take()
        if taken:
            message["groups"] = self._groups()
        if taken or changes & {"decisions", "settled"}:
            message["states"] = self._states()
        if changes - {"thresholds"}:
            message |= {"status": self._status(), "contrast": [session.view.low, session.view.high]}
        self.layout._send_msg(message)

    def _take(self) -> bool:
        """Take over what was drawn; False where only decisions by hand are new, or nothing was drawn."""
        session, settings = self._session, self._session.settings
        if session.montage is None:
            return False
        of = (session.picks, session.method, settings.model_copy(update={"accept": (), "reject": ()}), self._lowpass)
        if self._drawn is not None and self._drawn.of == of:
            return False
        montage = session.montage
        rows = np.unique(np.concatenate([tiles.rows for tiles in (montage.above, montage.below, montage.power)]))
        self._drawn = Drawn(montage, of, settings, session.inspector.shown(session.picks, rows.astype(np.intp)))
        return True

    def _groups(self) -> list[dict[str, Any]]:
        if self._drawn is None:
            return []
        name, threshold = main_score(self._drawn.settings)
        words = self._titles()
        titles = {
            "above": "Just accepted" if threshold is not None else "Lowest accepted scores",
            "below": "Just rejected",
            "power": "Highest power among the accepted",
        }
        limit = "no threshold" if threshold is None else f"threshold {_number(name, threshold)}"
        power = "power" if self._drawn.settings.raw else "calibrated_power"
        found = []
        for key, tiles in self._drawn.groups.items():
            column = power if key == "power" else name
            note = f"{heading(words[column])}{'' if key == 'power' else f', {limit}'}."
            if not len(tiles.rows):
                note = (
                    NONE[key]
                    if threshold is not None or key != "below"
                    else f"There is no threshold on the {words[name]}."
                )
            found.append(
                {
                    "key": key,
                    "title": titles[key],
                    "note": note,
                    "side": int(tiles.pixels.shape[-1]),
                    "pixels": b64encode(tiles.pixels.tobytes()).decode(),
                    "tiles": [self._tile(tiles, i, column, words) for i in range(len(tiles.rows))],
                }
            )
        return found

    def _tile(self, tiles: Tiles, i: int, column: str, words: dict[str, str]) -> dict[str, str]:
        hint = [self._session.inspector.micrographs[int(tiles.rows[i])]]
        known = [name for name in words if name in tiles.columns]
        hint += [f"{words[name]} {_number(name, float(tiles.columns[name][i]))}" for name in known]
        return {"score": _number(column, float(tiles.columns[column][i])), "hint": "\n".join(hint)}

    def _titles(self) -> dict[str, str]:
        """Call the columns what people call them."""
        words = self._session.inspector.words(self._session.picks)
        return {
            "ncc": f"raw {words.score}",
            "calibrated_ncc": f"calibrated {words.score}",
            "power": f"raw {words.axis('power')}",
            "calibrated_power": f"calibrated {words.axis('power')}",
            "probability": "probability of being a particle",
            "q_value": "false discovery rate",
        }

    def _states(self) -> list[list[dict[str, Any]]]:
        """Whether each tile is accepted under the thresholds and decisions of now."""
        drawn, settings = self._drawn, self._session.settings
        if drawn is None:
            return []
        reasons = drawn.shown.judge(settings)
        place_of = {row: i for i, row in enumerate(drawn.shown.rows)}
        by_hand = {(hand.micrograph, hand.x, hand.y) for hand in settings.accept}
        found = []
        for tiles in drawn.groups.values():
            states = []
            for i, (row, place) in enumerate(zip(tiles.rows, tiles.places, strict=True)):
                reason = int(reasons[place_of[int(row)], place])
                here = (self._name(row), float(tiles.columns["x"][i]), float(tiles.columns["y"][i]))
                states.append({"accepted": reason == ACCEPTED, "words": _reason(reason, here in by_hand)})
            found.append(states)
        return found

    def _name(self, row: Any) -> str:
        return self._session.inspector.micrographs[int(row)]

    def _status(self) -> str:
        session, drawn = self._session, self._drawn
        if not session.inspector.has_images:
            return NO_IMAGES
        running = session.inspector.background.running(("montage", id(session)))
        if drawn is None:
            return DRAWING if running else NOT_DRAWN
        if running:
            return AGAIN
        micrographs, size = len(drawn.montage.micrographs), drawn.montage.size
        return (
            f"From {micrographs:,} micrographs of all defocus; each cutout is {size:,.0f} Å wide. Click, or Enter, "
            "goes to the pick; arrow keys move along a row."
        )

    def _receive(self, message: dict[str, Any]) -> None:
        session = self._session
        if "ready" in message:
            self.layout._send_msg({"limit": LIMIT, "toggles": not session.read_only})
            self._drawn = None
            self.refresh(frozenset(("picks", "view")))
        elif "go" in message:
            row, place = self._pick(message["go"])
            session.look_at(row)
            session.look(cursor=place)
            session.look(tab="all")
        elif "toggle" in message:
            session.toggle(*self._pick(message["toggle"]))

    def _pick(self, at: list[int]) -> tuple[int, int]:
        """Row and place of the pick on a tile."""
        assert self._drawn is not None
        tiles = list(self._drawn.groups.values())[at[0]]
        return int(tiles.rows[at[1]]), int(tiles.places[at[1]])


def _reason(reason: int, by_hand: bool) -> str:
    if reason == ACCEPTED:
        return "accepted by hand" if by_hand else "accepted"
    if reason == BY_HAND:
        return "rejected by hand"
    return f"rejected: {'its micrograph is excluded' if REASONS[reason] == 'micrograph' else REASONS[reason]}"


def _number(column: str, value: float) -> str:
    """Score for people."""
    if not np.isfinite(value):
        return "unknown"
    if column == "q_value":
        return f"{100 * value:.2f} %"
    if "power" in column:
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.2f}"
    return f"{value:.3f}" if column == "probability" else f"{value:.4f}"
