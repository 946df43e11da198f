"""What the visitors of one project share: facts, binned picks, pictures, and the thread that prepares them."""

from __future__ import annotations

import hashlib
import os
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import Any, Protocol, cast

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pickcal.calibration.verdicts import ScoreWords
from pickcal.dashboard.address import View
from pickcal.dashboard.background import Background
from pickcal.dashboard.binned.binning import Binning
from pickcal.dashboard.binned.cube import Cube
from pickcal.dashboard.methods import METHODS, THRESHOLDS, Method
from pickcal.dashboard.micrographs.images import Images
from pickcal.dashboard.micrographs.montage import Montage, montage_job
from pickcal.dashboard.micrographs.shown import Shown
from pickcal.dashboard.micrographs.tally import Tally, sorted_rows, tally_job
from pickcal.dashboard.saved.drafts import Draft, Drafts
from pickcal.dashboard.truth import LiveTruth
from pickcal.errors import InputError, ProjectError
from pickcal.plots.fits import medians_figure, residuals_figure, scores_of
from pickcal.plots.images import ordinary_by_defocus
from pickcal.plots.project import MIXTURE_FIGURES, MixtureData, mixture_figures, thinned_scores
from pickcal.plots.scores import scores_figure, threshold_figure
from pickcal.plots.style import UM, png
from pickcal.project import Project, stage_counts
from pickcal.schema import Status
from pickcal.settings import SelectSettings
from pickcal.stages.select import Judge, selections_of, thresholds_of
from pickcal.stores.homes import Home, home_of
from pickcal.stores.places import Url

Floats = NDArray[np.floating]
Key = tuple[str, Method, SelectSettings]

FIGURES = ("medians", "residuals", "scores", "thresholds")
MOST_CUBES = 3
CACHED = 2_000_000
"""Least number of picks whose bins are kept on the disk."""
POLL = 1.5
"""Least time between two looks at the disk, seconds: all visitors share them."""


class Visitor(Protocol):
    """Who is told when more picks are binned."""

    def binned(self, key: Key) -> None:
        """Take note that the cube of this key has changed."""


class Inspector:
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
        self.project = Project.open(path)
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
        self._stamps: dict[str, tuple[float, dict[str, tuple[object, ...]]]] = {}
        self._read: dict[tuple[str, str], tuple[object, object]] = {}
        self._lock = RLock()
        self._pictures: dict[tuple[str, str], bytes] = {}

    @cached_property
    def micrographs(self) -> list[str]:
        """Names of all micrographs."""
        return [str(name) for name in self.project.read("micrographs", "name")]

    @cached_property
    def defocus(self) -> Floats:
        """Mean defocus of every micrograph, µm."""
        both = [self.project.read("micrographs", name) for name in ("defocus_u", "defocus_v")]
        return np.asarray(0.5 * (both[0] + both[1]) * UM)

    def picks(self) -> list[str]:
        """Names of the picks."""
        return self.project.names("picks")

    @property
    def has_images(self) -> bool:
        """Whether the project holds working images, or tables only."""
        return self.project.has_images

    def words(self, picks: str) -> ScoreWords:
        """Give what the scores of some picks are called."""
        return ScoreWords.of(self.attributes(picks))

    def attributes(self, picks: str) -> dict[Hashable, Any]:
        """Attributes of some picks; read once for every time they were written."""
        found = self._known("attributes", picks, "picks", lambda name: dict(self.project.picks(name).attrs))
        return cast(dict[Hashable, Any], found)

    def diameter(self, picks: str) -> float:
        """Diameter of the particles, Å."""
        return float(self.attributes(picks)["diameter"])

    def require(self, picks: str) -> None:
        """Raise a `ProjectError` unless there are such picks."""
        self.project.require("picks", picks)

    def calibration(self, picks: str) -> xr.Dataset | None:
        """Fit of some picks, None where they were not calibrated."""
        return cast("xr.Dataset | None", self._known("fit", picks, "picks", self._fit))

    def _fit(self, picks: str) -> xr.Dataset | None:
        self.project.require("picks", picks)
        return self.project.calibration(picks)

    def _known(self, what: str, picks: str, stamp: str, make: Callable[[str], object]) -> object:
        """Read something once for every time that it was written."""
        written = self.stamps(picks)[stamp]
        with self._lock:
            found = self._read.get((what, picks))
            if found is None or found[0] != written:
                found = self._read[what, picks] = (written, make(picks))
            return found[1]

    def verdicts(self, picks: str) -> list[tuple[str, str]]:
        """Verdict in words per score and group, that of the power score on its logarithm, and on probabilities."""
        fit = self.calibration(picks)
        if fit is None:
            return [("calibration", f"none: run 'pickcal calibrate' with --picks {picks}")]
        out, words = [], self.words(picks)
        for score in scores_of(fit):
            for group, verdict in zip(fit["group"].values, fit["verdict"].sel(score=score).values, strict=True):
                title = words.score if score == "ncc" else f"natural logarithm of the {words.power}"
                out.append((title + (f", group {group}" if fit.sizes["group"] > 1 else ""), str(verdict)))
        return [*out, ("probability of being a particle", self.probability_verdict(picks))]

    def has_probabilities(self, picks: str) -> bool:
        """Tell whether the calibration of some picks holds a mixture."""
        return self.calibration(picks) is not None and self.project.mixture(picks) is not None

    def probability_verdict(self, picks: str) -> str:
        """How the mixture of calibrated picks went, or why there is none."""
        fit = self.calibration(picks)
        text = "" if fit is None else str(fit.attrs.get("probability", ""))
        return text if self.has_probabilities(picks) else f"none ({text or 'calibrated by an older pickcal'})"

    def counts(self, picks: str) -> dict[str, int]:
        """Count micrographs per status, picks and decoys."""
        return cast(dict[str, int], self._known("counts", picks, "finished", self._totals))

    def _totals(self, picks: str) -> dict[str, int]:
        self.project.require("picks", picks)
        group = f"picks/{picks}"
        totals = {what: int(self.project.read(group, name).sum()) for what, name in _TOTALS}
        return {**stage_counts(self.project.done(group)), **totals}

    def has_decoys(self, picks: str) -> bool:
        """Tell whether there are decoys; without them the estimated particles of a fit are all picks."""
        return bool(self.project.read(f"picks/{picks}", "decoy_count").any())

    def has_power(self, picks: str) -> bool:
        """Tell whether calibrated picks have a power score, without which junk cannot be told."""
        fit = self.calibration(picks)
        return fit is not None and "power" in scores_of(fit)

    def finished(self, picks: str) -> NDArray[np.bool_]:
        """Tell which micrographs were picked."""
        done = self._known("status", picks, "finished", lambda name: self.project.done(f"picks/{name}") == Status.DONE)
        return np.asarray(done)

    def methods(self, picks: str) -> tuple[Method, ...]:
        """List what the main threshold of some picks can be on."""
        return cast(tuple[Method, ...], self._known("methods", picks, "picks", self._allowed))

    def _allowed(self, picks: str) -> tuple[Method, ...]:
        if self.calibration(picks) is None:
            return METHODS[:1]
        return METHODS if self.has_probabilities(picks) else METHODS[:2]

    def selections(self, picks: str) -> list[str]:
        """Names of the stored selections of some picks."""
        return selections_of(self.project, picks)

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

    # changes on the disk

    def stamps(self, picks: str) -> dict[str, tuple[object, ...]]:
        """When "picks", "finished" (the status of their micrographs) and "saved" (selections) were written last.

        Visitors compare it with what they saw before; they share one look at the disk. What was binned of picks that
        have changed is forgotten.
        """
        with self._lock:
            when, before = self._stamps.get(picks, (0.0, {}))
            if before and time.monotonic() - when < POLL:
                return before
        return self.look(picks)

    def look(self, picks: str) -> dict[str, tuple[object, ...]]:
        """As `stamps`, but look at the disk now."""
        with self._lock:
            before = self._stamps.get(picks, (0.0, {}))[1]
            found = stamps(self.project, picks)
            self._stamps[picks] = (time.monotonic(), found)
            if before and before["picks"] != found["picks"]:
                self._forget(picks)
            return found

    def _forget(self, picks: str) -> None:
        with self._lock:
            for key in [key for key in self._binnings if key[0] == picks]:
                self.background.cancel(("bin", key))
                del self._binnings[key]
            self._pictures = {key: value for key, value in self._pictures.items() if key[0] != picks}

    # plots

    def figures(self, picks: str) -> tuple[str, ...]:
        """List the plots that some picks support."""
        fit = self.calibration(picks)
        if fit is None:
            return ()
        return (*FIGURES, *mixture_figures(fit)) if self.has_probabilities(picks) else FIGURES

    def picture(self, picks: str, kind: str) -> bytes:
        """Plot as PNG; drawn once for all who look."""
        if (picks, kind) not in self._pictures:
            self._pictures[picks, kind] = png(self.figure(picks, kind))
        return self._pictures[picks, kind]

    def figure(self, picks: str, kind: str) -> Figure:
        """Plot of some picks, one of `FIGURES` or `plots.project.MIXTURE_FIGURES`.

        Raises
        ------
        InputError
            If there is no such plot, or the picks are not calibrated or have no probabilities.
        """
        known = (*FIGURES, *MIXTURE_FIGURES)
        if kind not in known:
            raise InputError(f"figure: expected one of {', '.join(known)}, got {kind!r}")
        fit = self.calibration(picks)
        if fit is None:
            raise InputError(f"{self.project.path}: picks {picks!r} are not calibrated; run 'pickcal calibrate' first")
        if kind in MIXTURE_FIGURES:
            if not self.has_probabilities(picks):
                raise InputError(f"{self.project.path}: picks {picks!r} have no probabilities")
            return MixtureData.of(self.project, picks).figure(kind)
        if kind == "medians":
            return medians_figure(fit, self.micrographs)
        if kind == "residuals":
            return residuals_figure(fit, self.micrographs)
        draw = scores_figure if kind == "scores" else threshold_figure
        return draw(*thinned_scores(self.project, picks, fit))


_TOTALS = (("picks", "count"), ("decoys", "decoy_count"))


def stamps(project: Project, picks: str) -> dict[str, tuple[object, ...]]:
    """When the picks and their calibration, the status of their micrographs, and the selections were written last."""
    places = {
        "picks": [
            f"picks/{picks}/zarr.json",
            f"calibration/{picks}/zarr.json",
            f"calibration/{picks}/mixture/zarr.json",
        ],
        "finished": [f"picks/{picks}/status/c", f"picks/{picks}/status/zarr.json"],
    }
    found = {
        what: [(name, *mark) for name in names if (mark := project.home.mark(name)) is not None]
        for what, names in places.items()
    }
    return {**{what: tuple(marks) for what, marks in found.items()}, "saved": project.home.marks("selection")}


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
    return found


def close_shared() -> None:
    """Stop what runs in the background for all projects: the server ends."""
    while _SHARED:
        _SHARED.popitem()[1].background.close()


def _made(home: Home) -> tuple[object, ...] | None:
    """Which project it is: one that was imported anew is another."""
    return home.mark("micrographs/zarr.json")
