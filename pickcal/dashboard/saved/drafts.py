"""Drafts: what a visitor has not saved yet, kept in the project so that a lost connection or process costs nothing.

A draft is one file in the folder of an array (`Project.write_note`): neither Zarr nor xarray lists files there, not
even while they are written. It is written whole or not at all, so that a reader finds the old or the new one.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from pickcal.errors import InputError, PickcalError
from pickcal.project import Project
from pickcal.settings import SelectSettings
from pickcal.stores.homes import home_of
from pickcal.stores.places import Url

VERSION = 1
DAY = 86_400.0
KEY = re.compile(r"[0-9a-f]{12}")
OURS = re.compile(r"(\.[0-9a-f]{12}\.)?[0-9a-f]{12}\.json")


@dataclass(frozen=True)
class Draft:
    """What a visitor has not saved yet.

    Attributes
    ----------
    picks
        Name of the picks.
    base, stamp
        Selection that it began with and the stamp that this had then, see `saving.load`; "" and None for none.
    settings
        Thresholds and decisions by hand.
    saved
        ISO time of writing; set by `Drafts.read`.
    """

    picks: str
    base: str
    stamp: str | None
    settings: SelectSettings
    saved: str = ""


class Drafts:
    """Drafts of one project.

    Any number of threads and processes may use them at once; those of one key, the last one written counts.

    Parameters
    ----------
    project_path
        The project store.
    read_only
        Never write; default False.
    """

    def __init__(self, project_path: Path | Url | str, read_only: bool = False) -> None:
        self._home = home_of(project_path)
        self.path = self._home.place
        self.read_only = read_only

    @staticmethod
    def new_key() -> str:
        """Make a key that nobody guesses: 12 hexadecimal digits."""
        return secrets.token_hex(6)

    def write(self, key: str, draft: Draft) -> str:
        """Keep a draft in the place of an older one of this key.

        Parameters
        ----------
        key
            From `new_key`.
        draft
            What to keep; `saved` is set anew.

        Returns
        -------
        str
            "" where it was kept, else why not, for the visitor; the page goes on without.

        Raises
        ------
        InputError
            If the key is none.
        """
        if self.read_only:
            return "read-only: changes are not kept"
        file = self._file(key)
        if file is None:
            raise InputError(f"draft: expected a key of 12 hexadecimal digits, got {key!r}")
        head = {
            "version": VERSION,
            "picks": draft.picks,
            "base": draft.base,
            "stamp": draft.stamp,
            "saved": datetime.now().astimezone().isoformat(timespec="seconds"),
        }
        content = f"{json.dumps(head)}\n{draft.settings.model_dump_json()}\n"
        try:
            Project.open(self.path, mode="r+").write_note(file, content)
        except (PickcalError, OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            return f"changes are not kept until they are saved: {self.path} cannot be written ({reason})"
        return ""

    def read(self, key: str) -> Draft | None:
        """Read a draft; None where there is none, it is damaged, or its picks are gone."""
        file = self._file(key)
        if file is None:
            return None
        try:
            first, second = (self._home.read_note(file) or "").splitlines()
            head = json.loads(first)
            draft = Draft(
                _text(head["picks"]),
                _text(head["base"]),
                None if head["stamp"] is None else _text(head["stamp"]),
                SelectSettings.model_validate_json(second),
                _text(head["saved"]),
            )
            there = head["version"] == VERSION and draft.picks in Project.open(self.path).names("picks")
        except (OSError, ValueError, KeyError, TypeError, RecursionError, PickcalError):
            return None
        return draft if there else None

    def prune(self, days: float = 30.0) -> int:
        """Forget drafts that nobody has written to for so many days.

        Parameters
        ----------
        days
            Age; default 30.

        Returns
        -------
        int
            Number of files removed; what a killed process left half-written counts too.
        """
        if self.read_only:
            return 0
        oldest = time.time() - days * DAY
        try:
            old = [name for name, written in self._home.notes() if OURS.fullmatch(name) and written < oldest]
            return sum(self._home.remove_note(name) for name in old)
        except PickcalError:
            return 0

    def _file(self, key: str) -> str | None:
        return f"{key}.json" if KEY.fullmatch(key) else None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected text, found {value!r}")
    return value
