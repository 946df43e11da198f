"""Picks of some micrographs in flat columns, as binning takes them: everything that a threshold can be on."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pickcal.calibration.mixture import PICK_VARIABLES, probabilities
from pickcal.calibration.trends import mean_defocus
from pickcal.dashboard.binned.flat import FlatColumns
from pickcal.dashboard.methods import Method, fixed_of
from pickcal.dashboard.truth import TrueRows
from pickcal.plots.style import UM
from pickcal.project import Project
from pickcal.schema import Status
from pickcal.selection import Columns
from pickcal.settings import SelectSettings
from pickcal.stages.select import Judge

Floats = NDArray[np.floating]
Indices = NDArray[np.intp]

PLACES = 50_000
"""Places for picks in one step: their probabilities take some 60 ms."""
MOST_READ = 2_000_000
"""Places that are read at once, so that no chunk of the store is read twice."""


@dataclass(frozen=True)
class Values(FlatColumns):
    """Picks in flat columns, one entry per pick, shape `(n,)`.

    Attributes
    ----------
    row, place
        Micrograph and place in its table, int32.
    main
        What the main threshold is on, as `SelectSettings` has it: score, probability or q-value.
    ncc, power
        Scores, calibrated unless the method is raw.
    border
        Distance from the nearest border, Å.
    failed
        Reason for which a fixed threshold rejects a pick, an index of `REASONS`; 0 where none does; int8.
    sure, junk
        Probability of being a particle and of being junk; 0 where there is no mixture.
    counted, true
        Whether truth tells of the pick, and whether it is a particle.
    """

    row: NDArray[np.int32]
    place: NDArray[np.int32]
    main: Floats
    ncc: Floats
    power: Floats
    border: Floats
    failed: NDArray[np.int8]
    sure: Floats
    junk: Floats
    counted: NDArray[np.bool_]
    true: NDArray[np.bool_]

    @classmethod
    def joined(cls, parts: Sequence[Values]) -> Values:
        """Join several blocks; no picks for none."""
        if parts:
            return super().joined(parts)
        integers, scores = (np.zeros(0, np.int32),) * 2, (np.zeros(0),) * 4
        return cls(*integers, *scores, np.zeros(0, np.int8), *scores[:2], *(np.zeros(0, bool),) * 2)


class Reader:
    """Reads picks of a project for one method, block by block.

    Parameters
    ----------
    project, picks
        Where they are.
    method, fixed
        What the main threshold is on, and thresholds that are applied on reading.
    truth
        What is true of the picks of some micrographs; default None.

    Raises
    ------
    InputError
        If a fixed threshold cannot be applied to these picks.
    """

    def __init__(
        self,
        project: Project,
        picks: str,
        method: Method,
        fixed: SelectSettings,
        truth: TrueRows | None = None,
    ) -> None:
        self.method, self.fixed, self.truth = method, fixed, truth
        self._judge = Judge(project, picks, fixed)
        self._picks = project.picks(picks)
        self._group, self._project = f"picks/{picks}", project
        self._plain = fixed == fixed_of(SelectSettings(raw=fixed.raw), method)
        self._last: tuple[int, xr.Dataset] | None = None
        self.diameter = float(self._picks.attrs["diameter"])
        self.places = int(self._picks.sizes["pick"])
        self.names = [str(name) for name in self._judge.names]
        self.has_power = "power" in self._picks.attrs.get("scores", ["power"])

    @property
    def calibrated(self) -> bool:
        """Whether there is a fit."""
        return self._judge.calibration is not None

    @property
    def mixed(self) -> bool:
        """Whether there is a mixture."""
        return self._judge.mixture is not None

    def defocus(self) -> Floats:
        """Mean defocus of every micrograph, µm."""
        return np.asarray(mean_defocus(self._judge.micrographs) * UM)

    def finished(self) -> NDArray[np.bool_]:
        """Which micrographs are picked by now."""
        return np.asarray(self._project.done(self._group) == Status.DONE)

    def counts(self, finished: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Count the picks of every finished micrograph; 0 for the others."""
        return np.where(finished, self._project.read(self._group, "count"), 0).astype(np.int64)

    def sized(self, counts: NDArray[np.int64]) -> bool:
        """Whether the size of every micrograph that has picks is known."""
        return bool((self._judge.micrographs["width"].values[counts > 0] > 0).all())

    def pieces(self) -> list[tuple[int, int]]:
        """Cut all micrographs into pieces that are read at once: whole batches, unless these are very large."""
        batch, count = self._project.batch, len(self.names)
        wanted = max(1, PLACES // max(self.places, 1))
        size = min(batch, max(1, MOST_READ // max(self.places, 1)))
        size *= max(1, wanted // size)
        return [(start, min(start + size, count)) for start in range(0, count, size)]

    def read(self, rows: Indices) -> Iterator[Values]:
        """Read some micrographs, which should be neighbours if they are many, and give 50,000 places at a time.

        Parameters
        ----------
        rows
            Micrographs, rising.
        """
        if not len(rows):
            return
        start, stop = int(rows[0]), int(rows[-1]) + 1
        # a range reads faster than a list, which pays only where much would be read in vain
        near = stop - start <= 4 * len(rows)
        chosen = slice(start, stop) if near else rows
        piece = self._picks[list(PICK_VARIABLES)].isel(micrograph=chosen).load()
        places = rows - start if near else np.arange(len(rows))
        step = max(1, PLACES // max(self.places, 1))
        for first in range(0, len(rows), step):
            some = slice(first, first + step)
            yield self._values(piece.isel(micrograph=places[some]), rows[some])

    def positions(self, row: int) -> xr.Dataset:
        """Positions and number of the picks of one micrograph; those of the last one are kept."""
        last = self._last
        if last is None or last[0] != row:
            last = self._last = row, self._picks[["x", "y", "count"]].isel(micrograph=[row]).load()
        return last[1]

    def ends(self, values: Values) -> tuple[tuple[Floats, Floats], tuple[Floats, Floats]]:
        """Score and power of some picks, raw and calibrated; there must be a fit."""
        fit = self._judge.calibration
        assert fit is not None, "ends of scores that are not calibrated"
        shifts = np.nan_to_num(fit["shift"].sel(score=["ncc", "power"]).values)[:, values.row]
        gain = np.nan_to_num(fit["gain"].values, nan=1.0)[values.row]
        pivot = float(fit.attrs["pivot"])
        if self.method == "raw":
            calibrated = pivot + (values.ncc - shifts[0] - pivot) * gain, values.power / np.exp(shifts[1])
            return (values.ncc, values.power), calibrated
        raw = pivot + shifts[0] + (values.ncc - pivot) / gain, values.power * np.exp(shifts[1])
        return raw, (values.ncc, values.power)

    def _values(self, picks: xr.Dataset, rows: Indices) -> Values:
        judge = self._judge
        micrographs = judge.micrographs.isel(micrograph=rows)
        calibration = None if judge.calibration is None else judge.calibration.isel(micrograph=rows)
        likelihood = None
        if judge.mixture is not None:
            likelihood = probabilities(picks, micrographs, judge.mixture.isel(micrograph=rows))
        columns = Columns.of(picks, calibration, micrographs, likelihood, self.method == "raw")
        valid = columns.valid
        index, place = np.nonzero(valid)
        main = {"probability": columns.probability, "fdr": columns.q_value}.get(self.method, columns.ncc)
        assert main is not None, "probabilities of picks that have none"
        none = np.zeros(len(index), dtype=np.float32)
        counted, true = self._labels(rows, valid)
        return Values(
            row=rows[index].astype(np.int32),
            place=place.astype(np.int32),
            main=main[valid],
            ncc=columns.ncc[valid],
            power=columns.power[valid],
            border=columns.border[valid],
            failed=np.zeros(len(index), np.int8) if self._plain else columns.judge(self.fixed)[valid],
            sure=none if likelihood is None else np.nan_to_num(likelihood["probability"].values[valid]),
            junk=none if likelihood is None else np.nan_to_num(likelihood["junk"].values[valid]),
            counted=counted,
            true=true,
        )

    def _labels(self, rows: Indices, valid: NDArray[np.bool_]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        labels = np.zeros((2, *valid.shape), dtype=bool)
        for i, row in enumerate(rows):
            known = None if self.truth is None else self.truth.get(int(row))
            if known is not None:
                labels[0, i, : len(known.counted)] = known.counted
                labels[1, i, : len(known.true)] = known.true
        return labels[0][valid], labels[1][valid]
