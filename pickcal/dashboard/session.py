"""One visitor of the dashboard: what is looked at and what is decided, without any widget.

Views call the actions and are told with words what changed; everything that takes longer than a move runs in the
background thread that the visitors of a project share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pickcal.dashboard.address import View, read_address, write_address
from pickcal.dashboard.binned.cube import Counts, Cube
from pickcal.dashboard.controller import Inspector, Key
from pickcal.dashboard.history import Decisions, History
from pickcal.dashboard.methods import MAIN, THRESHOLDS, Method, fixed_of, method_of, thresholds_only
from pickcal.dashboard.micrographs.montage import Montage
from pickcal.dashboard.micrographs.shown import Shown
from pickcal.dashboard.micrographs.tally import Tally
from pickcal.dashboard.saved.drafts import Draft
from pickcal.dashboard.saved.saving import Saved, load, read_thresholds_text, save, thresholds_text
from pickcal.errors import InputError, PickcalError
from pickcal.selection import ACCEPTED
from pickcal.settings import HandPick, SelectSettings, validated
from pickcal.stages.select import automatic

Changes = frozenset[str]
Listener = Callable[[Changes], None]
Post = Callable[[Callable[[], None]], None]

EVERYTHING: Changes = frozenset(
    ("picks", "method", "thresholds", "settled", "decisions", "cube", "trio", "focus", "cursor", "view", "tally")
)
DECIDED = ("exclude", "accept", "reject")
"""What is decided of single micrographs and picks, whatever the thresholds."""


@dataclass
class Notes:
    """What a visitor is told: the newest last."""

    texts: list[str] = field(default_factory=list)

    def say(self, text: str) -> None:
        """Add a note."""
        self.texts.append(text)


class Session:
    """One visitor of one project.

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
        Runs a function in the visitor's own thread; default: at once. What finishes in the background comes this way.
    read_only
        Nothing may be saved or decided by hand; default no. Thresholds can be tried.
    by
        Who this is, for those who find a selection saved by somebody else.
    """

    def __init__(
        self, inspector: Inspector, post: Post = lambda call: call(), read_only: bool = False, by: str = ""
    ) -> None:
        self.inspector = inspector
        self.read_only = read_only
        self.by = by
        self.notes = Notes()
        self.view = View()
        self.picks = ""
        self._history = History(Decisions("raw", SelectSettings(raw=True)))
        self.base = ""
        self.saved: Saved | None = None
        self.draft = ""
        self.montage: Montage | None = None
        self.tally = Tally(0)
        self.version = 0
        self.post = post
        self._listeners: list[Listener] = []
        self._kept: dict[Method, SelectSettings] = {}
        self._trio: Shown | None = None
        self._focus: Shown | None = None
        self._reasons: dict[str, tuple[SelectSettings, NDArray[np.int8]]] = {}
        self._counts: tuple[object, SelectSettings, Counts] | None = None
        self._stamps: dict[str, tuple[object, ...]] = {}
        self._warned = ""
        self._saving = self._own_draft = False
        inspector.join(self)

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
    def unsaved(self) -> bool:
        """Whether the decisions differ from the selection that was loaded or saved last."""
        return self.saved is None or self.saved.settings != self.settings

    @property
    def can_undo(self) -> bool:
        """Whether there is something to undo."""
        return bool(self._history.done)

    @property
    def can_redo(self) -> bool:
        """Whether there is something to redo."""
        return bool(self._history.undone)

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

    # picks, method and thresholds

    def choose_picks(self, picks: str) -> None:
        """Look at other picks: with their first selection, or the thresholds that are proposed for them.

        Raises
        ------
        ProjectError
            If there are no such picks.
        """
        self._begin(picks)
        self._reload()

    def _begin(self, picks: str, selection: str = "") -> None:
        self.inspector.require(picks)
        self.picks = picks
        self.base, self.saved, self._stamps = "", None, self.inspector.stamps(picks)
        self.draft, self._own_draft = "", False
        self._kept = {}
        selections = self.inspector.selections(picks)
        if selection and selection not in selections:
            self.notes.say(f"The link is to selection {selection!r} of these picks, which is not here.")
        name = selection if selection in selections else next(iter(selections), "")
        settings = self._open(name) if name else self._proposal()
        self._history = History(Decisions(method_of(settings, self.methods), settings))
        row = self.inspector.trio(picks, 0)[:1]
        self.view = View(row=int(row[0]) if len(row) else -1)

    def _open(self, name: str) -> SelectSettings:
        """Take a stored selection as the one that is open."""
        self.base, self.saved = name, load(self.inspector.project, name)
        return self.saved.settings

    def _proposal(self) -> SelectSettings:
        if "probability" in self.methods:
            return automatic(self.inspector.project, self.picks, SelectSettings())
        return SelectSettings(raw="line" not in self.methods)

    def _reload(self) -> None:
        """Start again with what is on the disk."""
        self._trio = self._focus = self._counts = self.montage = None
        self._reasons = {}
        self.tally = Tally(self.inspector.project.count)
        self.bin()
        self.tell(*EVERYTHING)
        self._settle()

    def bin(self) -> None:
        """Have the picks binned for the method and the limits that are fixed in it."""
        self.inspector.bin(*self.key)

    @property
    def key(self) -> Key:
        """What the cube is of."""
        return self.picks, self.method, fixed_of(self.settings, self.method)

    def binned(self, key: Key) -> None:
        """Take note that more picks are binned; comes from the background."""
        self.post(lambda: self._show_binned(key))

    def _show_binned(self, key: Key) -> None:
        if key == self.key:
            self._prepare()
            self.tell("cube", "progress")

    def set_method(self, method: Method) -> None:
        """Put the main threshold on something else; each method remembers its own thresholds.

        Raises
        ------
        InputError
            If these picks do not allow the method.
        """
        if method not in self.methods:
            raise InputError(f"method: expected one of {', '.join(self.methods)}, got {method!r}")
        if method == self.method:
            return
        self._kept[self.method] = self.settings
        kept = self._kept.get(method)
        if kept is None:
            kept = self._similar(method)
        decided = self._decided("edge", *DECIDED)
        self._change(Decisions(method, thresholds_only(kept, method).model_copy(update=decided)), "method")
        self.bin()

    def _similar(self, method: Method) -> SelectSettings:
        """Thresholds of another method that accept about as many picks of the three micrographs."""
        limits = ("min_power", "max_power") if (method == "raw") == (self.method == "raw") else ()
        shared = {key: getattr(self.settings, key) for key in limits}
        empty = SelectSettings(raw=method == "raw", **shared)
        if method in ("probability", "fdr"):
            return empty.model_copy(update={MAIN[method]: 0.5 if method == "probability" else 0.05})
        wanted = int((self.reasons("trio") == ACCEPTED).sum())
        name = "ncc" if method == "raw" else "calibrated_ncc"
        columns = [self.trio.columns(i)[name] for i in range(len(self.trio.rows))]
        scores = np.sort(np.concatenate([np.empty(0), *columns]))[::-1]
        scores = scores[np.isfinite(scores)]
        if not 0 < wanted < len(scores):
            return empty
        # between two scores, in as few digits as keep it there
        return empty.model_copy(update={"min_ncc": _between(float(scores[wanted]), float(scores[wanted - 1]))})

    def set_threshold(self, name: str, value: float | None, final: bool = True) -> None:
        """Move a threshold.

        Parameters
        ----------
        name
            One of `methods.THRESHOLDS`.
        value
            Its value in the units of `SelectSettings`; None for no limit. Limits of the power do not cross: the other
            one is pushed along.
        final
            False while it is being dragged; such moves are one step for undo, together with the last.

        Raises
        ------
        InputError
            If there is no such threshold, or the value is out of its range.
        """
        if name not in THRESHOLDS:
            raise InputError(f"threshold: expected one of {', '.join(THRESHOLDS)}, got {name!r}")
        self.inspector.background.touch()
        values = {key: getattr(self.settings, key) for key in (*THRESHOLDS, "raw")} | {name: value}
        low, high = values["min_power"], values["max_power"]
        if low is not None and high is not None and low > high:
            values["max_power" if name == "min_power" else "min_power"] = value
        settings = validated(SelectSettings, values, "thresholds").model_copy(update=self._decided(*DECIDED))
        # refuses what no score of these picks can be
        self._reasons["trio"] = (settings, self.trio.judge(settings))
        # a threshold that is not the method's own is applied while binning
        refix = fixed_of(settings, self.method) != fixed_of(self.settings, self.method)
        self._change(Decisions(self.method, settings), "thresholds", final=final)
        if refix:
            self.bin()

    def step(self, steps: int) -> None:
        """Move the main threshold by steps of its grid; more is stricter."""
        cube = self.cube
        if cube is not None:
            self.set_threshold(self.main, cube.stepped(getattr(self.settings, self.main), steps))

    # decisions

    def toggle_excluded(self, row: int) -> None:
        """Exclude a micrograph, or take it back in."""
        name = self.inspector.micrographs[row]
        excluded = set(self.settings.exclude) ^ {name}
        order = tuple(other for other in self.inspector.micrographs if other in excluded)
        self._change(self._with(exclude=order), "decisions")

    def toggle(self, row: int, place: int) -> None:
        """Accept a rejected pick by hand or reject an accepted one; where that was done, leave it to the thresholds.

        Raises
        ------
        InputError
            In read-only mode, or of an excluded micrograph.
        """
        if self.read_only:
            raise InputError("this page is read-only: picks cannot be accepted or rejected by hand")
        name = self.inspector.micrographs[row]
        if name in self.settings.exclude:
            raise InputError(f"{name} is excluded; take it back in first")
        shown = self.inspector.shown(self.picks, np.array([row], dtype=np.intp))
        columns = shown.columns(0)
        here = HandPick(micrograph=name, x=float(columns["x"][place]), y=float(columns["y"][place]))
        accepted = shown.judge(self.settings)[0, place] == ACCEPTED
        accept, reject = self.settings.accept, self.settings.reject
        if here in accept or here in reject:
            kept = {"accept": tuple(h for h in accept if h != here), "reject": tuple(h for h in reject if h != here)}
        elif accepted:
            kept = {"accept": accept, "reject": (*reject, here)}
        else:
            kept = {"accept": (*accept, here), "reject": reject}
        self._change(self._with(**kept), "decisions")

    def clear_excluded(self) -> None:
        """Take all excluded micrographs back in."""
        self._change(self._with(exclude=()), "decisions")

    def clear_hands(self) -> None:
        """Leave all picks to the thresholds again."""
        self._change(self._with(accept=(), reject=()), "decisions")

    def undo(self) -> None:
        """Take the last decision back."""
        if self._history.undo():
            self._show_decisions()

    def redo(self) -> None:
        """Decide again what was undone."""
        if self._history.redo():
            self._show_decisions()

    def _decided(self, *names: str) -> dict[str, Any]:
        return {name: getattr(self.settings, name) for name in names}

    def _with(self, **values: Any) -> Decisions:
        return Decisions(self.method, self.settings.model_copy(update=values))

    def _show_decisions(self) -> None:
        self.bin()
        self.tell("method", "thresholds", "decisions", "settled")
        self._settle()

    def _change(self, to: Decisions, what: str, final: bool = True) -> None:
        self._history.change(to, final)
        if not final:
            self.tell(what)
            return
        self.tell(what, "settled")
        self._settle()

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

    def address(self) -> dict[str, str]:
        """Everything on this page, as the query of a link."""
        return write_address(
            self.picks, self.method, self.settings, self.view, self.base, self.draft, self.inspector.micrographs
        )

    def freeze(self) -> None:
        """Leave the draft that the address names as it is: the address was given to somebody."""
        self._own_draft = False

    def follow(self, query: Mapping[str, str]) -> None:
        """Go to where a link leads; what of it cannot be followed is said."""
        names = self.inspector.picks()
        wanted = query.get("picks", "")
        if wanted and wanted not in names:
            self.notes.say(f"The link is to picks {wanted!r}, which are not here; these are {names[0]!r}.")
        self._begin(wanted if wanted in names else names[0], query.get("selection", ""))
        self._recover(query.get("draft", ""))
        found = read_address(query, self.settings, self.methods, self.view, self.inspector.micrographs)
        for text in found.refused:
            self.notes.say(text)
        self._history = History(Decisions(method_of(found.settings, self.methods, found.method), found.settings))
        self.view = found.view
        self._reload()

    def _recover(self, key: str) -> None:
        """Take up decisions that were saved automatically."""
        draft = self.inspector.drafts.read(key) if key else None
        if draft is None or draft.picks != self.picks:
            return
        self.draft = key
        self._history = History(Decisions(method_of(draft.settings, self.methods), draft.settings))

    # saving

    def load(self, name: str) -> None:
        """Take the thresholds of a stored selection.

        Raises
        ------
        ProjectError
            If there is no such selection of these picks.
        """
        settings = self._open(name)
        self._change(Decisions(method_of(settings, self.methods), settings), "method")
        self.bin()
        self.tell("saved", "thresholds", "decisions")

    def save(self, name: str, overwrite: bool = False) -> None:
        """Save the selection in the project; may be called in another thread, as it takes a while for many picks.

        Raises
        ------
        saving.Conflict
            If somebody else saved under this name meanwhile.
        ProjectError, InputError
            If it cannot be saved.
        """
        if self.read_only:
            raise InputError("this page is read-only: nothing can be saved")
        known = self.saved.stamp if self.saved is not None and self.base == name else None
        self._saving = True
        try:
            save(self.inspector.project.path, self.picks, name, self.settings, known, self.by, overwrite=overwrite)
        except BaseException:
            self._saving = False
            raise
        self.post(lambda: self._saved(name))

    def _saved(self, name: str) -> None:
        self._open(name)
        self._stamps, self._saving = self.inspector.look(self.picks), False
        self.tell("saved")

    def thresholds_text(self) -> str:
        """Give the thresholds file."""
        return thresholds_text(self.settings, self.picks)

    def read_thresholds(self, text: str, where: str) -> None:
        """Take the thresholds of a file.

        Raises
        ------
        InputError
            If it is no thresholds file, or is of other picks.
        """
        settings = read_thresholds_text(text, where)
        self.inspector.check(self.picks, settings)
        self._change(Decisions(method_of(settings, self.methods), settings), "method")
        self.bin()
        self.tell("thresholds", "decisions")

    def propose(self) -> None:
        """Take the thresholds that are proposed for these picks."""
        settings = self._proposal().model_copy(update=self._decided("edge", *DECIDED))
        self._change(Decisions(method_of(settings, self.methods), settings), "method")
        self.bin()

    # the background

    def _settle(self) -> None:
        """Start what follows every decision: exact counts per micrograph, the montage, the draft."""
        inspector, settings, tally = self.inspector, self.settings, Tally(self.inspector.project.count)
        self.tally = tally
        first = np.array([*self.trio.rows, *self.focus.rows], dtype=np.intp)

        def counted(_: Any) -> None:
            self.post(lambda: self.tell("tally"))

        inspector.count(self, self.picks, settings, tally, first, counted)
        self._prepare()
        self.show_montage()
        if not self.read_only and self.can_undo:
            self._autosave()

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

    def _autosave(self) -> None:
        if not self._own_draft:
            # a link that somebody has may lead to the draft as it was: what is decided from now on is another
            self.draft, self._own_draft = self.inspector.drafts.new_key(), True
        stamp = None if self.saved is None else self.saved.stamp
        draft = Draft(self.picks, self.base, stamp, self.settings)
        key = self.draft

        def failed(error: Exception) -> None:
            self.post(lambda: self.say(f"Your decisions are not kept automatically: {error}"))

        self.inspector.keep(key, draft, failed)

    def poll(self) -> None:
        """Look whether the project changed on the disk; called every two seconds or so."""
        try:
            found = self.inspector.stamps(self.picks)
            changes = {what for what, stamp in found.items() if self._stamps.get(what, stamp) != stamp}
            self._stamps = found
            self._follow_changes(changes)
        except (PickcalError, OSError) as error:
            self.say(f"The project cannot be read now: {error}")

    def _follow_changes(self, changes: set[str]) -> None:
        if "picks" in changes:
            self.inspector.require(self.picks)
            if "grown" not in changes:
                self.say("These picks were calibrated or picked anew; counts and plots are of what is there now.")
            if self.method not in self.methods:
                self._history = History(Decisions(self.methods[0], thresholds_only(self.settings, self.methods[0])))
            self._reload()
        elif "finished" in changes:
            self.bin()
            self._show_finished()
        if "saved" in changes and not self._saving:
            self._check_saved()
            self.tell("saved")

    def _show_finished(self) -> None:
        """Look at micrographs where there was none, or not three, before more were finished."""
        self.tell("progress")
        if len(self.trio.rows) < 3:
            self._trio = None
            self._reasons.pop("trio", None)
            self.tell("trio")
        if self.view.row < 0 and len(self.trio.rows):
            self.look_at(int(self.trio.rows[0]))

    def _check_saved(self) -> None:
        """Say it when somebody else saved the selection that is open here."""
        if self.saved is None or self.base not in self.inspector.selections(self.picks):
            return
        there = load(self.inspector.project, self.base)
        if there.stamp not in (self.saved.stamp, self._warned):
            self._warned = there.stamp
            text = (
                f"Selection {self.base!r} was saved by {there.origin} meanwhile; load it, or save under another name."
            )
            self.say(text)

    def close(self) -> None:
        """End what runs for this visitor."""
        self.inspector.leave(self)


def _between(low: float, high: float) -> float:
    """Find the roundest number above `low` and not above `high`, or `high`."""
    for digits in range(1, 9):
        value = float(np.format_float_positional(0.5 * (low + high), precision=digits, unique=False))
        if low < value <= high:
            return value
    return high
