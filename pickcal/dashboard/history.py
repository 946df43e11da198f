"""Undo and redo of decisions."""

from __future__ import annotations

from dataclasses import dataclass

from pickcal.dashboard.methods import Method
from pickcal.settings import SelectSettings

MOST = 500
"""Steps that can be undone."""


@dataclass(frozen=True)
class Decisions:
    """What undo and redo step through.

    Attributes
    ----------
    method
        What the main threshold is on.
    settings
        Thresholds, excluded micrographs and decisions by hand.
    """

    method: Method
    settings: SelectSettings


class History:
    """Decisions now, before, and undone.

    Parameters
    ----------
    now
        What is decided at the start.
    """

    def __init__(self, now: Decisions) -> None:
        self.now = now
        self.done: list[Decisions] = []
        self.undone: list[Decisions] = []
        self._before: Decisions | None = None

    def change(self, to: Decisions, final: bool = True) -> None:
        """Decide anew.

        Parameters
        ----------
        to
            What is decided now.
        final
            False while something is dragged: all such changes up to the next final one are one step.
        """
        if self._before is None:
            self._before = self.now
        self.now = to
        if not final:
            return
        if self._before != to:
            self.done = [*self.done[1 - MOST :], self._before]
            self.undone = []
        self._before = None

    def undo(self) -> bool:
        """Take the last step back; False if there is none."""
        return self._go(self.done, self.undone)

    def redo(self) -> bool:
        """Take the last undone step again; False if there is none."""
        return self._go(self.undone, self.done)

    def _go(self, there: list[Decisions], back: list[Decisions]) -> bool:
        if not there:
            return False
        back.append(self.now)
        self.now, self._before = there.pop(), None
        return True
