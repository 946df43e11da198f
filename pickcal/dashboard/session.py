"""One visitor of the dashboard, without any widget: what is looked at and decided, and here what is kept of it.

Views call the actions and are told with words what changed; everything that takes longer than a move runs in the
background thread that the visitors of a project share.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from pickcal.dashboard.address import View, read_address, write_address
from pickcal.dashboard.controller import Inspector
from pickcal.dashboard.deciding import DECIDED, Deciding
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

    Attributes
    ----------
    base, saved
        Selection that was loaded or saved last and what it holds; "" and None for none.
    known
        Stamp of it that the decisions began with; None where that is not known. Another one may be stored by now.
    draft
        Key of the decisions as they are kept automatically; "" for none.
    """

    def __init__(
        self, inspector: Inspector, post: Post = lambda call: call(), read_only: bool = False, by: str = ""
    ) -> None:
        super().__init__(inspector, post, read_only, by)
        self.base = ""
        self.saved: Saved | None = None
        self.known: str | None = None
        self.draft = ""
        self._stamps: dict[str, tuple[object, ...]] = {}
        self._warned = self._unread = ""
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
        self.base, self.saved, self.known, self._stamps = "", None, None, self.inspector.stamps(picks)
        self.draft, self._own_draft = "", False
        self._kept = {}
        selections = self.inspector.selections(picks)
        if selection and selection not in selections:
            self.notes.say(f"The link is to selection {selection!r} of these picks, which is not here.")
        name = selection if selection in selections else next(iter(selections), "")
        try:
            settings = self._open(name) if name else self._proposal()
        except InputError as error:
            self.notes.say(f"Selection {name!r} cannot be opened; the proposed thresholds are shown: {error}")
            settings = self._proposal()
        self._history = History(Decisions(method_of(settings, self.methods), settings))
        row = self.inspector.trio(picks, 0)[:1]
        self.view = View(row=int(row[0]) if len(row) else -1)

    def _open(self, name: str) -> SelectSettings:
        """Take a stored selection as the one that is open; give its thresholds as far as they fit the picks."""
        found = load(self.inspector.project, name)
        self.base, self.saved, self.known = name, found, found.stamp
        return self._fitting(found.settings, f"Selection {name!r}")

    def _fitting(self, settings: SelectSettings, what: str) -> SelectSettings:
        """Give thresholds and decisions as far as they fit the picks as they are now; what is left out is said."""
        try:
            self.inspector.check(self.picks, settings)
            return settings
        except InputError as error:
            reason = str(error)
        kept = self.inspector.without_lost(self.picks, settings)
        try:
            self.inspector.check(self.picks, kept)
            left_out = "decisions on picks or micrographs that are not there are left out"
        except InputError as error:
            reason = str(error)
            proposal = self._proposal()
            kept = proposal.model_copy(update={name: getattr(kept, name) for name in DECIDED})
            left_out = "the proposed thresholds are taken instead"
        self.notes.say(f"{what} does not fit the picks as they are now; {left_out}: {reason}")
        return kept

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
            self.picks,
            self.method,
            self.settings,
            self.view,
            self.base,
            self.known,
            self.draft,
            self.inspector.micrographs,
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
        opened = self.settings
        began = self._recover(query.get("draft", "")) or (query.get("selection", ""), query.get("stamp"))
        found = read_address(query, self.settings, self.methods, self.view, self.inspector.micrographs)
        for text in found.refused:
            self.notes.say(text)
        settings = found.settings
        if settings != self.settings:
            settings = self._fitting(settings, "What the link asks for")
        self._history = History(Decisions(method_of(settings, self.methods, found.method), settings))
        self.view = found.view
        if self.saved is not None and settings != opened:
            # decided before, so not of the selection as it is stored now, unless it began with just that
            self.known = began[1] if began[0] == self.base else None
            self._warned = self.saved.stamp if self.known is None else ""
            self._tell_of(self.saved)
        self._reload()

    def _recover(self, key: str) -> tuple[str, str | None] | None:
        """Take up decisions that were saved automatically; give the selection that they began with, and its stamp."""
        draft = self.inspector.drafts.read(key) if key else None
        if draft is None or draft.picks != self.picks:
            return None
        self.draft = key
        settings = self._fitting(draft.settings, "What was decided")
        self._history = History(Decisions(method_of(settings, self.methods), settings))
        return draft.base, draft.stamp

    def _settle(self) -> None:
        """Start what follows every decision, and keep it."""
        super()._settle()
        if not self.read_only and (self.can_undo or self.can_redo):
            self._autosave()

    def _autosave(self) -> None:
        if not self._own_draft:
            # a link that somebody has may lead to the draft as it was: what is decided from now on is another
            self.draft, self._own_draft = self.inspector.drafts.new_key(), True
        draft = Draft(self.picks, self.base, self.known, self.settings)
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
        # the draft is of what was decided before
        self.draft, self._own_draft = "", False
        self._change(Decisions(method_of(settings, self.methods), settings), "method")
        self.bin()
        self.tell("saved", "thresholds", "decisions", "notes")

    def save(self, name: str, overwrite: bool = False) -> None:
        """Save the selection in the project, now; parameters and errors are those of `saving`."""
        self.saving(name, overwrite)()

    def saving(self, name: str, overwrite: bool = False) -> Callable[[], None]:
        """Give what saves the selection as it is now; that may be called in another thread, as it takes a while.

        Parameters
        ----------
        name
            Name of the selection.
        overwrite
            Replace on purpose what somebody else saved; default no.

        Raises
        ------
        saving.Conflict
            If somebody else saved under this name meanwhile.
        ProjectError, InputError
            If it cannot be saved.
        """
        if self.read_only:
            raise InputError("this page is read-only: nothing can be saved")
        picks, settings, known = self.picks, self.settings, self.known if self.base == name else None
        self._saving = True

        def run() -> None:
            try:
                stamp = save(self.inspector.project.path, picks, name, settings, known, self.by, overwrite=overwrite)
            except BaseException:
                self._saving = False
                raise
            self.post(lambda: self._saved(name, Saved(picks, settings, stamp, by=self.by)))

        return run

    def _saved(self, name: str, saved: Saved) -> None:
        """Take note of what was saved; not on a page that shows other picks by now."""
        self._saving = False
        if self.picks != saved.picks:
            return
        self.base, self.saved, self.known = name, saved, saved.stamp
        if self.unsaved:
            self._autosave()
        else:
            self.draft, self._own_draft = "", False
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
            if self._saving:  # what this page saves is not news to it; others are looked for afterwards
                found = {**found, "saved": self._stamps["saved"]}
            changes = {what for what, stamp in found.items() if self._stamps.get(what, stamp) != stamp}
            self._follow_changes(changes)
            self._stamps, self._unread = found, ""
            if self.cube is None and not self.inspector.failure(*self.key):
                self.bin()
        except (PickcalError, OSError) as error:
            if str(error) != self._unread:
                self._unread = str(error)
                self.say(f"The project cannot be read now: {error}")

    def _follow_changes(self, changes: set[str]) -> None:
        if "picks" in changes:
            self.inspector.require(self.picks)
            self._fit_anew("grown" in changes)
            self._reload()
            if "grown" not in changes:
                self.say("These picks were calibrated or picked anew; counts and plots are of what is there now.")
        elif "finished" in changes:
            self.bin()
            self._show_finished()
        if "saved" in changes:
            self._check_saved()
            self.tell("saved")

    def _fit_anew(self, grown: bool) -> None:
        """Go on with what is decided as far as it fits the picks as they are now."""
        now, methods = self._history.now, self.methods
        if now.method not in methods:
            now = Decisions(methods[0], thresholds_only(now.settings, methods[0]))
        settings = self._fitting(now.settings, "What is decided here")
        if settings is not now.settings:
            now = Decisions(method_of(settings, methods), settings)
            self.freeze()  # a reload brings back what is left out, if its picks are there again
        # earlier steps may not fit: of picks that only became more, those do whose method is still there
        before = {step.method for step in (*self._history.done, *self._history.undone)}
        if now is not self._history.now or not grown or not before <= set(methods):
            self._history = History(now)

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
        self._tell_of(load(self.inspector.project, self.base))

    def _tell_of(self, there: Saved) -> None:
        """Say it, once, if the selection that is open is stored otherwise than these decisions began with."""
        if there.stamp not in (self.known, self._warned):
            self._warned = there.stamp
            text = (
                f"Selection {self.base!r} was saved by {there.origin} meanwhile; load it, or save under another name."
            )
            self.say(text)

    def close(self) -> None:
        """End what runs for this visitor."""
        self.inspector.leave(self)
