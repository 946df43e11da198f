"""What the dashboard shows, without any GUI: names, verdicts, counts under a threshold, figures."""

from __future__ import annotations

from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray

from pickcal.calibration.verdicts import ScoreWords
from pickcal.dashboard.counting import Likely, SortedScores
from pickcal.errors import InputError
from pickcal.plots.fits import medians_figure, residuals_figure, scores_of
from pickcal.plots.project import MIXTURE_FIGURES, MixtureData, mixture_figures, thinned_scores
from pickcal.plots.scores import scores_figure, threshold_figure
from pickcal.plots.style import UM, png, robust_limits
from pickcal.project import Project, stage_counts
from pickcal.schema import Status
from pickcal.stages.expected import SortedProbabilities, sorted_probabilities
from pickcal.stages.select import selections_of, thresholds_of

Floats = NDArray[np.floating]

FIGURES = ("medians", "residuals", "scores", "thresholds")
START_PROBABILITY = 0.5


class Inspector:
    """One project as the first page of the dashboard sees it; never writes.

    Parameters
    ----------
    path
        The project store.

    Raises
    ------
    MissingFileError, ProjectError
        If there is no project at `path`.
    """

    def __init__(self, path: Path | str) -> None:
        self.project = Project.open(path)
        self._sorted: dict[str, SortedScores] = {}
        self._words: dict[str, ScoreWords] = {}
        self._ranges: dict[str, tuple[float, float]] = {}
        self._fits: dict[str, xr.Dataset | None] = {}
        self._likely: dict[str, SortedProbabilities | None] = {}
        self._mixed: dict[str, bool] = {}
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
        if picks not in self._words:
            self.project.require("picks", picks)
            self._words[picks] = ScoreWords.of(self.project.picks(picks).attrs)
        return self._words[picks]

    def calibration(self, picks: str) -> xr.Dataset | None:
        """Fit of some picks, None where they were not calibrated."""
        self.project.require("picks", picks)
        if picks not in self._fits:
            self._fits[picks] = self.project.calibration(picks)
        return self._fits[picks]

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
        if picks not in self._mixed:
            self._mixed[picks] = self.calibration(picks) is not None and self.project.mixture(picks) is not None
        return self._mixed[picks]

    def probability_verdict(self, picks: str) -> str:
        """How the mixture of calibrated picks went, or why there is none."""
        fit = self.calibration(picks)
        text = "" if fit is None else str(fit.attrs.get("probability", ""))
        return text if self.has_probabilities(picks) else f"none ({text or 'calibrated by an older pickcal'})"

    def counts(self, picks: str) -> dict[str, int]:
        """Count micrographs per status, picks and decoys."""
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
        return np.asarray(self.project.done(f"picks/{picks}") == Status.DONE)

    def scores(self, picks: str) -> SortedScores:
        """Give the main scores of some picks, sorted; read once."""
        if picks not in self._sorted:
            self._sorted[picks] = self._read_scores(picks)
        return self._sorted[picks]

    def _read_scores(self, picks: str) -> SortedScores:
        fit, group = self.calibration(picks), f"picks/{picks}"
        ncc = self.project.picks(picks)["ncc"].values
        count = np.where(self.finished(picks), self.project.read(group, "count"), 0)
        ncc = np.where(np.arange(ncc.shape[1]) < count[:, None], ncc, np.nan)
        count = np.isfinite(ncc).sum(axis=1)
        inside = np.arange(1, ncc.shape[1]) < count[:, None]
        if not np.all((np.diff(ncc, axis=1) <= 0) | ~inside):
            ncc = -np.sort(-ncc, axis=1)
        shift, gain, pivot = np.zeros(len(count)), np.ones(len(count)), 0.0
        if fit is not None:
            shift = np.nan_to_num(fit["shift"].sel(score="ncc").values)
            gain = np.nan_to_num(fit["gain"].values, nan=1.0)
            pivot = float(fit.attrs["pivot"])
        return SortedScores(ncc, count, shift, gain, pivot)

    def accepted(self, picks: str, min_ncc: float) -> NDArray[np.int64]:
        """Count accepted picks per micrograph under a least calibrated main score."""
        return self.scores(picks).accepted(min_ncc)

    def threshold_range(self, picks: str) -> tuple[float, float]:
        """Find the lowest and highest calibrated main score; of scores with a few far out the middle 99 %.

        0 and 1 where there are none.
        """
        if picks not in self._ranges:
            self._ranges[picks] = robust_limits(self.scores(picks).sample())
        return self._ranges[picks]

    def has_scores(self, picks: str) -> bool:
        """Tell whether any pick of a finished micrograph has a score."""
        return bool(self.scores(picks).count.any())

    def starting_threshold(self, picks: str) -> float:
        """Least score of the first selection of these picks that has one on calibrated scores, else a proposal.

        The proposal is the score above which there are as many picks as particles were estimated, from decoys or, where
        there are none, by the mixture; else the middle of the range.
        """
        for name in selections_of(self.project, picks):
            settings = thresholds_of(self.project, name)
            if settings.min_ncc is not None and not settings.raw:
                return settings.min_ncc
        fit = self.calibration(picks)
        low, high = self.threshold_range(picks)
        wanted = 0.0
        if fit is not None and self.has_decoys(picks):
            wanted = float(np.nansum(fit["particles"].values))
        elif self.has_probabilities(picks):
            mixture = self.project.mixture(picks)
            assert mixture is not None
            wanted = float(mixture["expected"].sel(component="particle").sum())
        if not wanted:
            return 0.5 * (low + high)
        for _ in range(40):
            middle = 0.5 * (low + high)
            low, high = (middle, high) if self.accepted(picks, middle).sum() > wanted else (low, middle)
        return low

    def probabilities(self, picks: str) -> SortedProbabilities | None:
        """Probabilities of some picks, sorted; read once. None where there is no mixture."""
        if picks not in self._likely:
            self._likely[picks] = sorted_probabilities(self.project, picks)
        return self._likely[picks]

    def likely(self, picks: str, probability: float, fdr: float | None = None) -> Likely:
        """Count accepted picks per micrograph under a least probability and a largest false discovery rate.

        Parameters
        ----------
        picks
            Name of the picks.
        probability
            In [0, 1].
        fdr
            Fraction; default None, no limit.

        Raises
        ------
        InputError
            If the picks have no probabilities.
        """
        found = self.probabilities(picks)
        if found is None:
            raise InputError(f"{self.project.path}: picks {picks!r} have no probabilities; run 'pickcal calibrate'")
        accepted = found.accepted(probability, fdr)
        return Likely(accepted, *found.false_picks(accepted))

    def starting_probability(self, picks: str) -> float:
        """Least probability of the first selection of these picks that has one, else 0.5."""
        for name in selections_of(self.project, picks):
            probability = thresholds_of(self.project, name).probability
            if probability is not None:
                return probability
        return START_PROBABILITY

    def table(self, picks: str, min_ncc: float) -> pd.DataFrame:
        """One row per micrograph: name, defocus, picks, accepted, estimated particles, medians, status."""
        return self._table(picks, {"accepted": self.accepted(picks, min_ncc)})

    def likely_table(self, picks: str, likely: Likely) -> pd.DataFrame:
        """One row per micrograph as in `table`, with the expected false picks among the accepted ones."""
        false = {"expected noise": likely.noise, "expected junk": likely.junk}
        if not self.has_power(picks):
            del false["expected junk"]
        columns: dict[str, Any] = {name: np.round(values, 2) for name, values in false.items()}
        return self._table(picks, {"accepted": likely.accepted, **columns})

    def _table(self, picks: str, counts: dict[str, Any]) -> pd.DataFrame:
        fit = self.calibration(picks)
        group = f"picks/{picks}"
        status = [Status(int(value)).name.lower() for value in self.project.done(group)]
        columns = {
            "micrograph": self.micrographs,
            "defocus (µm)": np.round(self.defocus, 3),
            "picks": self.project.read(group, "count"),
            **counts,
        }
        if fit is not None:
            if self.has_decoys(picks):
                columns["particles (estimate)"] = np.round(fit["particles"].values)
            for score in scores_of(fit):
                median = np.round(fit["median"].sel(score=score).values, 4 if score == "ncc" else 3)
                columns[f"median {self.words(picks).of_score(score)}"] = median
            outlying = (fit["outlier"].values == 1).any(axis=0)
            status = [f"{word}, outlying" if out else word for word, out in zip(status, outlying, strict=True)]
        return pd.DataFrame({**columns, "status": status})

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


_SHARED: dict[str, tuple[tuple[object, ...], Inspector]] = {}


def shared_inspector(path: Path | str) -> Inspector:
    """Give all visitors of one server the same inspector, and a new one when the project has changed.

    Raises
    ------
    MissingFileError, ProjectError
        If there is no project at `path`.
    """
    key = str(Path(path).resolve())
    state = _state(Path(path))
    if key not in _SHARED or _SHARED[key][0] != state:
        _SHARED[key] = (state, Inspector(path))
    return _SHARED[key][1]


def _state(path: Path) -> tuple[object, ...]:
    """When something was last written: groups as wholes, and, while picking goes on, the status of batches."""
    places = ["zarr.json", "*/zarr.json", "*/*/zarr.json", "micrographs/status/c", "picks/*/status/c"]
    found = []
    for place in sorted(place for pattern in places for place in path.glob(pattern)):
        with suppress(FileNotFoundError):  # a group that is being replaced
            found.append((str(place), place.stat().st_mtime_ns))
    return tuple(found)
