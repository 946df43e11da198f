"""What the visitors of one project share: its facts, binned picks, pictures, and the thread that prepares them."""

from __future__ import annotations

import hashlib
import os
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
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
from pickcal.selection import REACH
from pickcal.settings import SelectSettings
from pickcal.stages.select_result import thresholds_of
from pickcal.stores.homes import Home, home_of
from pickcal.stores.places import Url

Key = tuple[str, Method, SelectSettings]

MOST_CUBES = 3
"""Binned picks that are kept, by method and fixed thresholds; more where visitors look at more."""
CHECKED = 64
"""Micrographs whose decisions by hand are checked at once."""
CACHED = 2_000_000
"""Least number of picks whose bins are kept on the disk."""


class Visitor(Protocol):
    """Who is told when more picks are binned."""

    @property
    def key(self) -> Key:
        """What the visitor looks at."""

    def binned(self, key: Key) -> None:
        """Take note that the cube of this key has changed."""


@dataclass
class _Bins:
    """Binned picks, and how far that has come.

    Attributes
    ----------
    binning
        What bins them.
    micrographs
        Of the project when that began; a project that has grown is binned anew.
    progress
        How many of the picks are binned, 0 to 1.
    failure
        Why they could not be binned; "" if they could.
    """

    binning: Binning
    micrographs: int
    progress: float = 0.0
    failure: str = ""


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
        self._bins: OrderedDict[Key, _Bins] = OrderedDict()

    def check(self, picks: str, settings: SelectSettings) -> None:
        """Raise an `InputError` if settings name micrographs or picks that are not here, or need what there is not."""
        named = {hand.micrograph for hand in (*settings.accept, *settings.reject)}
        rows = [row for row, name in enumerate(self.micrographs) if name in named] or [0]
        for start in range(0, len(rows), CHECKED):
            self.shown(picks, np.array(rows[start : start + CHECKED], dtype=np.intp)).judge(settings)

    def without_lost(self, picks: str, settings: SelectSettings) -> SelectSettings:
        """Leave out what settings say of micrographs and of picks that are not here, or not here any more."""
        rows, reach = {name: row for row, name in enumerate(self.micrographs)}, REACH * self.diameter(picks)
        hands = [hand for hand in (*settings.accept, *settings.reject) if hand.micrograph in rows]
        named = sorted({rows[hand.micrograph] for hand in hands})
        found = set()
        for start in range(0, len(named), CHECKED):
            shown = self.shown(picks, np.array(named[start : start + CHECKED], dtype=np.intp))
            places = {name: i for i, name in enumerate(shown.names)}
            some = [hand for hand in hands if hand.micrograph in places]
            found |= {h for h in some if shown.nearest(places[h.micrograph], h.x, h.y, reach) is not None}
        kept = {key: tuple(hand for hand in getattr(settings, key) if hand in found) for key in ("accept", "reject")}
        return settings.model_copy(update={"exclude": tuple(name for name in settings.exclude if name in rows), **kept})

    # binned picks

    def join(self, visitor: Visitor) -> None:
        """Tell a visitor from now on when more picks are binned."""
        with self._lock:
            self._visitors.add(visitor)

    def leave(self, visitor: Visitor) -> None:
        """End what runs for a visitor."""
        with self._lock:
            self._visitors.discard(visitor)
        for what in ("tally", "montage", "prepare"):
            self.background.cancel((what, id(visitor)))

    def cube(self, picks: str, method: Method, fixed: SelectSettings) -> Cube | None:
        """Binned picks for a method; None until the first of them are binned."""
        found = self._found((picks, method, fixed))
        return None if found is None else found.binning.cube

    def progress(self, picks: str, method: Method, fixed: SelectSettings) -> float:
        """How many of the picks are binned, 0 to 1."""
        found = self._found((picks, method, fixed))
        return 0.0 if found is None else found.progress

    def failure(self, picks: str, method: Method, fixed: SelectSettings) -> str:
        """Why the picks could not be binned; "" if they could."""
        found = self._found((picks, method, fixed))
        return "" if found is None else found.failure

    def _found(self, key: Key) -> _Bins | None:
        with self._lock:
            return self._bins.get(key)

    def bin(self, picks: str, method: Method, fixed: SelectSettings) -> None:
        """Have picks binned in the background, or those of micrographs that were finished since."""
        key = (picks, method, fixed)
        with self._lock:
            known = self._bins.get(key)
            if known is None or known.micrographs != self.project.count:
                self._drop(key)
                truth = None if self.truth is None else self.truth.of(picks)
                count = self.project.count
                known = _Bins(Binning(self.project, picks, method, fixed, self._extra(picks, method), truth), count)
                self._bins[key] = known
                self._drop_unused()
            self._bins.move_to_end(key)
        binning = known.binning
        if self.background.running(("bin", key)) or (binning.cube is not None and binning.up_to_date):
            return
        folder = self._cache(picks)
        known.failure = ""

        def progress(part: float) -> None:
            known.progress = part
            self._tell(key)

        def done(_: object) -> None:
            progress(1.0)

        def failed(error: Exception) -> None:
            known.failure = str(error)
            self._tell(key)

        self.background.submit(("bin", key), lambda: binning.job(folder), done, progress, failed, priority=2)

    def _drop(self, key: Key) -> None:
        """Forget binned picks, if there are any."""
        if self._bins.pop(key, None) is not None:
            self.background.cancel(("bin", key))

    def _drop_unused(self) -> None:
        """Forget the longest unused of many binned picks, but none that a visitor looks at."""
        seen = {visitor.key for visitor in self._visitors}
        # the newest is for whoever asks, visitor or not
        unused = [key for key in list(self._bins)[:-1] if key not in seen]
        for key in unused[: max(0, len(self._bins) - MOST_CUBES)]:
            self._drop(key)

    def _cache(self, picks: str) -> Path | None:
        """Folder for the bins of these very picks; None for few picks, which are binned as quickly as read."""
        folder = cache_folder()
        if folder is None or self.counts(picks)["picks"] < CACHED:
            return None
        written = repr((str(self.project.path.resolve()), self.stamps(picks)["picks"]))
        return folder / hashlib.sha256(written.encode()).hexdigest()[:16]

    def _tell(self, key: Key) -> None:
        with self._lock:
            visitors = list(self._visitors)
        for visitor in visitors:
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
            for key in [key for key in self._bins if key[0] == picks]:
                self._drop(key)
            if self.truth is not None:
                self.truth.forget(picks)
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
