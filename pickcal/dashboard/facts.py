"""What is known of one project: facts, verdicts and plots of its picks, read once for every time they were written."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from functools import cached_property
from pathlib import Path
from threading import RLock
from typing import Any, cast

import numpy as np
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pickcal.calibration.verdicts import ScoreWords
from pickcal.dashboard.methods import METHODS, Method
from pickcal.errors import InputError
from pickcal.plots.fits import medians_figure, residuals_figure, scores_of
from pickcal.plots.project import MIXTURE_FIGURES, MixtureData, mixture_figures, thinned_scores
from pickcal.plots.scores import scores_figure, threshold_figure
from pickcal.plots.style import UM, png
from pickcal.project import Project, stage_counts
from pickcal.schema import Status
from pickcal.stages.select_result import selections_of
from pickcal.stores.places import Url

Floats = NDArray[np.floating]

FIGURES = ("medians", "residuals", "scores", "thresholds")
POLL = 1.5
"""Least time between two looks at the disk, seconds: all visitors share them."""
_TOTALS = (("picks", "count"), ("decoys", "decoy_count"))


class Facts:
    """One project, read only.

    Parameters
    ----------
    path
        The project store.

    Raises
    ------
    MissingFileError, ProjectError
        If there is no project at `path`.
    """

    def __init__(self, path: Path | Url | str) -> None:
        self.project = Project.open(path)
        self._lock = RLock()
        self._stamps: dict[str, tuple[float, dict[str, tuple[object, ...]]]] = {}
        self._read: dict[tuple[str, str], tuple[object, object]] = {}
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
        found = self._known("attributes", picks, "picks", lambda name: self.project.attributes(f"picks/{name}"))
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
                for name in ("micrographs", "defocus"):  # a project that grows has more of them now
                    self.__dict__.pop(name, None)
            return found

    def _forget(self, picks: str) -> None:
        """Forget what hangs on picks that have changed."""
        with self._lock:
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


GROWN = "micrographs/status/zarr.json"
"""Written anew when micrographs of a running session are shown."""


def stamps(project: Project, picks: str) -> dict[str, tuple[object, ...]]:
    """When the picks and their calibration, the status of their micrographs, and the selections were written last."""
    places = {
        "picks": [
            f"picks/{picks}/zarr.json",
            f"calibration/{picks}/zarr.json",
            f"calibration/{picks}/mixture/zarr.json",
            GROWN,
        ],
        "finished": [f"picks/{picks}/status/c", f"picks/{picks}/status/zarr.json", GROWN],
        "grown": [GROWN],
    }
    marks = {name: project.home.mark(name) for name in dict.fromkeys(n for names in places.values() for n in names)}
    found: dict[str, tuple[object, ...]] = {"saved": project.home.marks("selection")}
    for what, names in places.items():
        found[what] = tuple((name, *mark) for name in names if (mark := marks[name]) is not None)
    return found
