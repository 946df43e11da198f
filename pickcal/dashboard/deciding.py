"""What one visitor of the dashboard decides: method, thresholds, picks by hand, excluded micrographs; undo and redo."""

from __future__ import annotations

from typing import Any

import numpy as np

from pickcal.dashboard.controller import Inspector
from pickcal.dashboard.history import Decisions
from pickcal.dashboard.looking import Looking, Post
from pickcal.dashboard.methods import MAIN, THRESHOLDS, Method, fixed_of, method_of, thresholds_only
from pickcal.errors import InputError
from pickcal.selection import ACCEPTED
from pickcal.settings import HandPick, SelectSettings, validated
from pickcal.stages.select import automatic

DECIDED = ("exclude", "accept", "reject")
"""What is decided of single micrographs and picks, whatever the thresholds."""


class Deciding(Looking):
    """Decisions of one visitor; parameters are those of `Looking`."""

    def __init__(self, inspector: Inspector, post: Post, read_only: bool, by: str) -> None:
        super().__init__(inspector, post, read_only, by)
        self._kept: dict[Method, SelectSettings] = {}

    @property
    def can_undo(self) -> bool:
        """Whether there is something to undo."""
        return bool(self._history.done)

    @property
    def can_redo(self) -> bool:
        """Whether there is something to redo."""
        return bool(self._history.undone)

    # method and thresholds

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

    def _proposal(self) -> SelectSettings:
        if "probability" in self.methods:
            return automatic(self.inspector.project, self.picks, SelectSettings())
        return SelectSettings(raw="line" not in self.methods)

    def propose(self) -> None:
        """Take the thresholds that are proposed for these picks."""
        settings = self._proposal().model_copy(update=self._decided("edge", *DECIDED))
        self._change(Decisions(method_of(settings, self.methods), settings), "method")
        self.bin()

    # single micrographs and picks

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

    def _settle(self) -> None:
        """Start what follows every decision: exact counts per micrograph, the montage."""
        self._count()
        self._prepare()
        self.show_montage()


def _between(low: float, high: float) -> float:
    """Find the roundest number above `low` and not above `high`, or `high`."""
    for digits in range(1, 9):
        value = float(np.format_float_positional(0.5 * (low + high), precision=digits, unique=False))
        if low < value <= high:
            return value
    return high
