"""What the visitors of one project share: its facts, binned picks, pictures, and the thread that prepares them."""

from __future__ import annotations

import hashlib
import os
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from pickcal.dashboard.address import View
from pickcal.dashboard.background import Background
from pickcal.dashboard.binned.binning import Binning
from pickcal.dashboard.binned.cube import Cube
from pickcal.dashboard.facts import Facts
from pickcal.dashboard.methods import THRESHOLDS, Method
from pickcal.dashboard.micrographs.images import Images
from pickcal.dashboard.micrographs.montage import Montage, montage_job
from pickcal.dashboard.micrographs.shown import Shown
from pickcal.dashboard.micrographs.tally import Tally, sorted_rows, tally_job
from pickcal.dashboard.saved.drafts import Draft, Drafts
from pickcal.dashboard.truth import LiveTruth
from pickcal.errors import ProjectError
from pickcal.plots.images import ordinary_by_defocus
from pickcal.settings import SelectSettings
from pickcal.stages.select import Judge
from pickcal.stages.select_result import thresholds_of
from pickcal.stores.homes import Home, home_of
from pickcal.stores.places import Url

Key = tuple[str, Method, SelectSettings]

MOST_CUBES = 3
CACHED = 2_000_000
"""Least number of picks whose bins are kept on the disk."""


class Visitor(Protocol):
    """Who is told when more picks are binned."""

    def binned(self, key: Key) -> None:
        """Take note that the cube of this key has changed."""


class Inspector(Facts):
    """One project as all visitors of the dashboard see it.

    Parameters
    ----------
    path
        The project store.
    truth
        STAR file of true particles or hand picks to compare with; default None.
    read_only
        Nothing is written into the project; default no.

    Raises
    ------
    MissingFileError, ProjectError, InputError
        If there is no project at `path`, or the truth is of other micrographs.
    """

    def __init__(self, path: Path | Url | str, truth: Path | None = None, read_only: bool = False) -> None:
        super().__init__(path)
        self.made = _made(self.project.home)
        self.read_only = read_only
        self.background = Background()
        self.drafts = Drafts(self.project.path, read_only)
        self.images = Images(self.project)
        self.truth = None if truth is None else LiveTruth(self.project, truth)
        self._visitors: weakref.WeakSet[Any] = weakref.WeakSet()
        self._binnings: OrderedDict[Key, Binning] = OrderedDict()
        self._progress: dict[Key, float] = {}
        self._failures: dict[Key, str] = {}

    def check(self, picks: str, settings: SelectSettings) -> None:
        """Raise an `InputError` if settings name micrographs or picks that are not here, or need what there is not."""
        judge = Judge(self.project, picks, settings)
        named = {*settings.exclude, *(hand.micrograph for hand in (*settings.accept, *settings.reject))}
        rows = [row for row, name in enumerate(self.micrographs) if name in named] or [0]
        for row in rows:
            judge.block(row, row + 1)

    # binned picks

    def join(self, visitor: Visitor) -> None:
        """Tell a visitor from now on when more picks are binned."""
        self._visitors.add(visitor)

    def leave(self, visitor: Visitor) -> None:
        """End what runs for a visitor."""
        self._visitors.discard(visitor)
        for what in ("tally", "montage", "prepare"):
            self.background.cancel((what, id(visitor)))

    def cube(self, picks: str, method: Method, fixed: SelectSettings) -> Cube | None:
        """Binned picks for a method; None until the first of them are binned."""
        with self._lock:
            found = self._binnings.get((picks, method, fixed))
        return None if found is None else found.cube

    def progress(self, picks: str, method: Method, fixed: SelectSettings) -> float:
        """How many of the picks are binned, 0 to 1."""
        return self._progress.get((picks, method, fixed), 0.0)

    def failure(self, picks: str, method: Method, fixed: SelectSettings) -> str:
        """Why the picks could not be binned; "" if they could."""
        return self._failures.get((picks, method, fixed), "")

    def bin(self, picks: str, method: Method, fixed: SelectSettings) -> None:
        """Have picks binned in the background, or those of micrographs that were finished since."""
        key = (picks, method, fixed)
        with self._lock:
            known = self._binnings.get(key)
            if known is None:
                truth = None if self.truth is None else self.truth.of(picks)
                known = Binning(self.project, picks, method, fixed, self._extra(picks, method), truth)
                self._binnings[key] = known
                while len(self._binnings) > MOST_CUBES:
                    old, _ = self._binnings.popitem(last=False)
                    self.background.cancel(("bin", old))
            self._binnings.move_to_end(key)
        if self.background.running(("bin", key)) or (known.cube is not None and known.up_to_date):
            return
        folder = self._cache(picks)
        self._failures.pop(key, None)

        def progress(part: float) -> None:
            self._progress[key] = part
            self._tell(key)

        def done(_: object) -> None:
            progress(1.0)

        def failed(error: Exception) -> None:
            self._failures[key] = str(error)
            self._tell(key)

        self.background.submit(("bin", key), lambda: known.job(folder), done, progress, failed, priority=2)

    def _cache(self, picks: str) -> Path | None:
        """Folder for the bins of these very picks; None for few picks, which are binned as quickly as read."""
        folder = cache_folder()
        if folder is None or self.counts(picks)["picks"] < CACHED:
            return None
        written = repr((str(self.project.path.resolve()), self.stamps(picks)["picks"]))
        return folder / hashlib.sha256(written.encode()).hexdigest()[:16]

    def _tell(self, key: Key) -> None:
        for visitor in list(self._visitors):
            visitor.binned(key)

    def _extra(self, picks: str, method: Method) -> dict[str, tuple[float, ...]]:
        """Thresholds of the stored selections, which are to be counted exactly."""
        found: dict[str, set[float]] = {}
        for name in self.selections(picks):
            settings = thresholds_of(self.project, name)
            # distances from the border are the same for raw and calibrated scores
            for field in THRESHOLDS if settings.raw == (method == "raw") else ("edge",):
                value = getattr(settings, field)
                if value is not None:
                    found.setdefault(field, set()).add(float(value))
        return {field: tuple(sorted(values)) for field, values in found.items()}

    # micrographs

    def shown(self, picks: str, rows: NDArray[np.intp]) -> Shown:
        """Take the picks of a few micrographs, to be judged again and again."""
        return Shown(self.project, picks, [int(row) for row in rows])

    def trio(self, picks: str, turn: int) -> NDArray[np.intp]:
        """Find finished, preferably not outlying micrographs of low, middle and high defocus.

        Parameters
        ----------
        picks
            Name of the picks.
        turn
            0 the lowest, the middle and the highest defocus; 1 those next to them, and so on, in turn.
        """
        rows = ordinary_by_defocus(self.finished(picks), self.defocus, self.calibration(picks))
        if len(rows) <= 3:
            return rows
        turn %= max(1, len(rows) // 3)
        middle = len(rows) // 2 + (turn + 1) // 2 * (1 if turn % 2 else -1)
        return np.asarray(rows[[turn, middle, len(rows) - 1 - turn]])

    def order(self, picks: str, view: View, tally: Tally) -> NDArray[np.intp]:
        """Rows of the list of all micrographs, in the order in which a visitor has them."""
        return sorted_rows(self.project, picks, tally, view.sort, view.descending, view.search)

    # what visitors have done in the background

    def count(
        self,
        visitor: Visitor,
        picks: str,
        settings: SelectSettings,
        tally: Tally,
        first: NDArray[np.intp],
        counted: Callable[[float], None],
    ) -> None:
        """Have the picks of every micrograph counted exactly, into a tally."""
        last = [0.0]

        def progress(part: float) -> None:
            # a table of many micrographs is not sent for every block
            if part >= 1 or time.monotonic() - last[0] > 1:
                last[0] = time.monotonic()
                counted(part)

        self.background.submit(
            ("tally", id(visitor)),
            lambda: tally_job(self.project, picks, settings, first, tally),
            lambda _: counted(1.0),
            progress,
            priority=3,
        )

    def prepare(self, visitor: Visitor, cube: Cube, settings: SelectSettings, done: Callable[[], None]) -> None:
        """Have a cube read the micrographs of which settings speak."""
        self.background.submit(("prepare", id(visitor)), lambda: cube.prepare(settings), lambda _: done())

    def draw_montage(
        self,
        visitor: Visitor,
        picks: str,
        settings: SelectSettings,
        lowpass: float,
        drawn: Callable[[Montage], None],
        failed: Callable[[Exception], None],
    ) -> None:
        """Have cutouts of the picks around the threshold and of the highest power made."""
        self.background.submit(
            ("montage", id(visitor)),
            lambda: montage_job(self.project, self.images, picks, settings, lowpass or None),
            drawn,
            failed=failed,
            priority=1,
        )

    def keep(self, key: str, draft: Draft, failed: Callable[[Exception], None]) -> None:
        """Keep the decisions of a visitor, in the background."""

        def write() -> Any:
            refused = self.drafts.write(key, draft)
            if refused:
                raise ProjectError(refused)
            yield 1.0

        self.background.submit(("draft", key), write, failed=failed)

    def _forget(self, picks: str) -> None:
        with self._lock:
            for key in [key for key in self._binnings if key[0] == picks]:
                self.background.cancel(("bin", key))
                del self._binnings[key]
        super()._forget(picks)


def cache_folder() -> Path | None:
    """Folder for binned picks of large projects, so that they open at once; None where there is no home folder."""
    try:
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:
        return None
    return home / "pickcal" / "binned"


_SHARED: dict[tuple[str, str, bool], Inspector] = {}


def shared_inspector(path: Path | Url | str, truth: Path | None = None, read_only: bool = False) -> Inspector:
    """Give all visitors of one server the same inspector, and a new one when the project was made anew.

    With it, drafts that nobody has written to for a month are forgotten, unless it is for reading only.

    Raises
    ------
    MissingFileError, ProjectError, InputError
        As `Inspector`.
    """
    home = home_of(path)
    key = (str(home.place.resolve()), str(truth or ""), read_only)
    found = _SHARED.get(key)
    if found is None or found.made != _made(home):
        if found is not None:
            found.background.close()
        _SHARED[key] = found = Inspector(path, truth, read_only)
        found.drafts.prune()
    return found


def close_shared() -> None:
    """Stop what runs in the background for all projects: the server ends."""
    while _SHARED:
        _SHARED.popitem()[1].background.close()


def _made(home: Home) -> tuple[object, ...] | None:
    """Which project it is: one that was imported anew is another."""
    return home.mark("micrographs/zarr.json")
