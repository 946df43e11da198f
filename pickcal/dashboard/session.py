"""One visitor of the dashboard, without any widget: what is looked at and decided, and here what is kept of it.

Views call the actions and are told with words what changed; everything that takes longer than a move runs in the
background thread that the visitors of a project share.
"""

from __future__ import annotations

from collections.abc import Mapping

from pickcal.dashboard.address import View, read_address, write_address
from pickcal.dashboard.controller import Inspector
from pickcal.dashboard.deciding import Deciding
from pickcal.dashboard.history import Decisions, History
from pickcal.dashboard.looking import Changes, Post
from pickcal.dashboard.methods import method_of, thresholds_only
from pickcal.dashboard.saved.drafts import Draft
from pickcal.dashboard.saved.saving import Saved, load, save
from pickcal.errors import InputError, PickcalError
from pickcal.selection import read_thresholds_text, thresholds_text
from pickcal.settings import SelectSettings

EVERYTHING: Changes = frozenset(
    ("picks", "method", "thresholds", "settled", "decisions", "cube", "trio", "focus", "cursor", "view", "tally")
)


class Session(Deciding):
    """One visitor of one project; listeners are told as `Looking` says.

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
        super().__init__(inspector, post, read_only, by)
        self.base = ""
        self.saved: Saved | None = None
        self.draft = ""
        self._stamps: dict[str, tuple[object, ...]] = {}
        self._warned = ""
        self._saving = self._own_draft = False
        inspector.join(self)

    @property
    def unsaved(self) -> bool:
        """Whether the decisions differ from the selection that was loaded or saved last."""
        return self.saved is None or self.saved.settings != self.settings

    # picks

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

    def _reload(self) -> None:
        """Start again with what is on the disk."""
        self._forget_shown()
        self.bin()
        self.tell(*EVERYTHING)
        self._settle()

    # links and drafts

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

    def _settle(self) -> None:
        """Start what follows every decision, and keep it."""
        super()._settle()
        if not self.read_only and self.can_undo:
            self._autosave()

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

    # changes on the disk

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
