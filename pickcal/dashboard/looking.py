"""What one visitor of the dashboard looks at: picks, micrographs and counts under thresholds, without any widget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pickcal.dashboard.address import View
from pickcal.dashboard.binned.cube import Counts, Cube
from pickcal.dashboard.controller import Inspector, Key
from pickcal.dashboard.history import Decisions, History
from pickcal.dashboard.methods import MAIN, Method, fixed_of
from pickcal.dashboard.micrographs.montage import Montage
from pickcal.dashboard.micrographs.shown import Shown
from pickcal.dashboard.micrographs.tally import Tally
from pickcal.errors import PickcalError
from pickcal.settings import SelectSettings

Changes = frozenset[str]
Listener = Callable[[Changes], None]
Post = Callable[[Callable[[], None]], None]


@dataclass
class Notes:
    """What a visitor is told: the newest last."""

    texts: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Add a note."""
        self.texts.append(text)


class Looking:
    """What one visitor sees, and who is told when it changes.

    Listeners are called with words for what changed: "picks" (others were chosen, or they changed on the disk),
    "method", "thresholds" (while a threshold is dragged as well), "settled" (it was let go), "decisions" (excluded
    micrographs, picks by hand), "cube" (the counts are of more picks than before), "trio", "focus", "cursor", "view"
    (low-pass, contrast, what is shown), "tally" (exact counts of more micrographs), "montage", "saved", "files",
    "notes" and "progress".

    Parameters
    ----------
    inspector
        What all visitors share.
    post
        Runs a function in the visitor's own thread. What finishes in the background comes this way.
    read_only
        Nothing may be saved or decided by hand.
    by
        Who this is.
    """

    def __init__(self, inspector: Inspector, post: Post, read_only: bool, by: str) -> None:
        self.inspector = inspector
        self.read_only = read_only
        self.by = by
        self.notes = Notes()
        self.view = View()
        self.picks = ""
        self.montage: Montage | None = None
        self.tally = Tally(0)
        self.version = 0
        self.post = post
        self._history = History(Decisions("raw", SelectSettings(raw=True)))
        self._listeners: list[Listener] = []
        self._trio: Shown | None = None
        self._focus: Shown | None = None
        self._reasons: dict[str, tuple[SelectSettings, NDArray[np.int8]]] = {}
        self._counts: tuple[object, SelectSettings, Counts] | None = None

    # what is to be seen

    @property
    def method(self) -> Method:
        """What the main threshold is on."""
        return self._history.now.method

    @property
    def settings(self) -> SelectSettings:
        """Thresholds, excluded micrographs and decisions by hand."""
        return self._history.now.settings

    @property
    def methods(self) -> tuple[Method, ...]:
        """Methods that these picks allow."""
        return self.inspector.methods(self.picks)

    @property
    def main(self) -> str:
        """Name of the main threshold in the settings."""
        return MAIN[self.method]

    @property
    def cube(self) -> Cube | None:
        """The binned picks; None until the first of them are binned."""
        return self.inspector.cube(*self.key)

    @property
    def counts(self) -> Counts | None:
        """Counts of all micrographs under the thresholds; None until there is a cube."""
        cube = self.cube
        if cube is None:
            return None
        if self._counts is None or self._counts[0] is not cube or self._counts[1] is not self.settings:
            self._counts = (cube, self.settings, cube.counts(self.settings))
        return self._counts[2]

    @property
    def trio(self) -> Shown:
        """Picks of the micrographs at low, middle and high defocus; as many as there are finished ones, at most 3."""
        if self._trio is None:
            self._trio = self.inspector.shown(self.picks, self.inspector.trio(self.picks, self.view.turn))
        return self._trio

    @property
    def focus(self) -> Shown:
        """Picks of the one micrograph that is looked at closely; empty where none is finished."""
        if self._focus is None:
            rows = [self.view.row] if self.view.row >= 0 else []
            self._focus = self.inspector.shown(self.picks, np.array(rows, dtype=np.intp))
        return self._focus

    def reasons(self, which: str) -> NDArray[np.int8]:
        """Reasons of the picks of "trio" or "focus", int8 (micrograph, pick); see `selection.rejection_reasons`."""
        kept = self._reasons.get(which)
        if kept is None or kept[0] is not self.settings:
            shown: Shown = getattr(self, which)
            self._reasons[which] = (self.settings, shown.judge(self.settings))
        return self._reasons[which][1]

    @property
    def key(self) -> Key:
        """What the cube is of."""
        return self.picks, self.method, fixed_of(self.settings, self.method)

    # who is told

    def listen(self, listener: Listener) -> None:
        """Tell a view what changes from now on."""
        self._listeners.append(listener)

    def tell(self, *changes: str) -> None:
        """Tell all views what changed; each time is a new `version` of what is to be seen."""
        found = frozenset(changes)
        self.version += 1
        for listener in list(self._listeners):
            listener(found)

    def say(self, text: str) -> None:
        """Tell the visitor something."""
        self.notes.say(text)
        self.tell("notes")

    def attempt(self, act: Callable[[], object]) -> bool:
        """Act on what the visitor asks for, and say why where that is refused; tell whether it was done."""
        try:
            act()
        except PickcalError as error:
            self.say(str(error))
            return False
        return True

    # what is looked at

    def look_at(self, row: int) -> None:
        """Look at one micrograph closely."""
        if not 0 <= row < self.inspector.project.count or row == self.view.row:
            return
        self.view = self.view.but(row=row, cursor=-1)
        self._focus = None
        self._reasons.pop("focus", None)
        self.tell("focus", "cursor")

    def go(self, steps: int) -> None:
        """Look at the next micrograph, or one before, in the order of the list of all micrographs."""
        order = self.inspector.order(self.picks, self.view, self.tally)
        here = np.flatnonzero(order == self.view.row)
        if len(order):
            self.look_at(int(order[np.clip((here[0] if len(here) else -1) + steps, 0, len(order) - 1)]))

    def turn(self, steps: int = 1) -> None:
        """Show three other micrographs at low, middle and high defocus."""
        self.view = self.view.but(turn=max(0, self.view.turn + steps))
        self._trio = None
        self._reasons.pop("trio", None)
        self.tell("trio")

    def move_cursor(self, steps: int) -> None:
        """Go to the next pick of the micrograph, the nearest to the threshold first."""
        order = self.focus.cycle(0, self.settings) if len(self.focus.rows) else np.empty(0, dtype=np.intp)
        if len(order):
            here = np.flatnonzero(order == self.view.cursor)
            at = (here[0] + steps) % len(order) if len(here) else (0 if steps > 0 else len(order) - 1)
            self.look(cursor=int(order[at]))

    def look(self, **values: Any) -> None:
        """Change how things are shown: fields of `address.View`."""
        self.view = self.view.but(**values)
        self.tell("cursor" if set(values) == {"cursor"} else "view")

    # what is counted and drawn in the background

    def bin(self) -> None:
        """Have the picks binned for the method and the limits that are fixed in it."""
        self.inspector.bin(*self.key)

    def binned(self, key: Key) -> None:
        """Take note that more picks are binned; comes from the background."""
        self.post(lambda: self._show_binned(key))

    def _show_binned(self, key: Key) -> None:
        if key == self.key:
            self._prepare()
            self.tell("cube", "progress")

    def _count(self) -> None:
        """Have the picks of every micrograph counted exactly."""
        inspector, settings, tally = self.inspector, self.settings, Tally(self.inspector.project.count)
        self.tally = tally
        first = np.array([*self.trio.rows, *self.focus.rows], dtype=np.intp)

        def counted(_: Any) -> None:
            self.post(lambda: self.tell("tally"))

        inspector.count(self, self.picks, settings, tally, first, counted)

    def _prepare(self) -> None:
        """Have the cube read the micrographs that are excluded or have decisions by hand, if those are many."""
        cube, settings = self.cube, self.settings
        if cube is not None and cube.pending(settings):
            self.inspector.prepare(self, cube, settings, lambda: self.post(self._recount))

    def _recount(self) -> None:
        self._counts = None
        self.tell("cube")

    def show_montage(self) -> None:
        """Have the montage drawn anew, if there are images and it is looked at."""
        if self.view.tab != "montage" or not self.inspector.has_images:
            return

        def drawn(montage: Montage) -> None:
            self.montage = montage
            self.post(lambda: self.tell("montage"))

        def failed(error: Exception) -> None:
            self.post(lambda: self.say(f"The montage cannot be drawn: {error}"))

        self.inspector.draw_montage(self, self.picks, self.settings, self.view.lowpass, drawn, failed)

    def _forget_shown(self) -> None:
        """Forget what was read of the picks: they are others now."""
        self._trio = self._focus = self._counts = self.montage = None
        self._reasons = {}
        self.tally = Tally(self.inspector.project.count)
