"""Binning of all picks for a cube: a sample at once, then everything block by block, each pick exactly once."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pickcal.calibration.mixture import power_limit
from pickcal.dashboard.binned.cells import Axes, Cells
from pickcal.dashboard.binned.changes import Rows
from pickcal.dashboard.binned.cube import Cube
from pickcal.dashboard.binned.cube_cache import cache_name, read_cache, write_cache
from pickcal.dashboard.binned.filling import Binned, Filling
from pickcal.dashboard.binned.grids import border_grid, every, power_grid, probability_grid, rate_grid, score_grid
from pickcal.dashboard.binned.reading import Reader, Values
from pickcal.dashboard.methods import MAIN, Method
from pickcal.dashboard.truth import TrueRows
from pickcal.project import Project
from pickcal.selection import hand_places
from pickcal.settings import HandPick, SelectSettings

Floats = NDArray[np.floating]
Extra = Mapping[str, Sequence[float]]

BINS = 12
PLANE_STEPS = 160
SAMPLE = 100_000
"""Picks from which the grids are decided and the way from raw to calibrated scores is drawn."""
SAMPLE_PIECES = 12
FRAMES = 9
WORTH_KEEPING = 200_000
"""Fewer picks are binned sooner than what was binned of them is written and read."""
GROWTH = 4.0
"""A new cube is made whenever so many times the micrographs of the last one are binned."""


class Binning:
    """Bins the picks of a project for one method.

    Parameters
    ----------
    project, picks
        Where they are.
    method, fixed
        What the main threshold is on, and thresholds that are no axis of the cube; see `methods.fixed_of`.
    extra
        Values that are to be edges of the grids, by the names of `SelectSettings`; what `stages.select.automatic` would
        propose is added.
    truth
        What is true of the picks of some micrographs; default None.

    Raises
    ------
    ProjectError
        If there are no such picks. A fixed threshold that cannot be applied to them is an InputError of the first step.
    """

    def __init__(
        self,
        project: Project,
        picks: str,
        method: Method,
        fixed: SelectSettings,
        extra: Extra | None = None,
        truth: TrueRows | None = None,
    ) -> None:
        project.require("picks", picks)
        self._project, self._picks, self._method, self._fixed = project, picks, method, fixed
        self._truth, self._wanted = truth, extra or {}
        self._content: Binned | None = None
        self.cube: Cube | None = None

    # read with the first step, in its thread: tables of many micrographs take a while

    @cached_property
    def _reader(self) -> Reader:
        return Reader(self._project, self._picks, self._method, self._fixed, self._truth)

    @cached_property
    def _defocus(self) -> Floats:
        return self._reader.defocus()

    @cached_property
    def _bins(self) -> tuple[Floats, NDArray[np.int8]]:
        return defocus_bins(self._defocus)

    @cached_property
    def _rows(self) -> Rows:
        return Rows(self._read_row, self._place, self._reader.names)

    @property
    def up_to_date(self) -> bool:
        """Whether the picks of all micrographs that are finished by now are in the cube."""
        found = self._content
        return found is not None and bool((found.rows == self._reader.finished()).all())

    def job(self, folder: Path | None = None) -> Generator[float, None, Cube | None]:
        """Have a cube of all picks: from the cache, by binning, or by adding what has been finished since.

        Parameters
        ----------
        folder
            Of the cache, for many picks; default None, no cache.
        """
        if self._content is not None:
            yield from self.add_finished()
            return self.cube
        kept = folder if folder is not None and self._counts()[1].sum() >= WORTH_KEEPING else None
        if kept is not None and self.load_cache(kept):
            yield 1.0
            return self.cube
        yield from self.steps()
        if kept is not None and self.cube is not None and self.cube.complete:
            self.save_cache(kept)
        return self.cube

    def steps(self) -> Iterator[float]:
        """Bin all picks of finished micrographs; `cube` is a first estimate soon, and everything at the end.

        Yields
        ------
        float
            Progress, 0 to 1, after every step of some 100 ms.
        """
        finished, counts = self._counts()
        rows = self._sample_rows(counts)
        sample: list[Values] = []
        for values in self._reader.read(np.flatnonzero(rows)):
            sample.append(values)
            yield 0.0
        axes = self._axes(Values.joined(sample), counts)
        yield 0.0
        filling = Filling(axes, len(self._bins[0]), self._reader.mixed, self._truth is not None)
        for values in sample:
            filling.add(values)
        self._show(filling, None, rows, finished, counts)
        frames = yield from self._frames(Values.joined(sample), axes, int(counts.sum()))
        del sample
        yield from self._rest(filling, frames, rows, finished, counts)
        yield 1.0

    def _rest(
        self,
        filling: Filling,
        frames: NDArray[np.float32] | None,
        rows: NDArray[np.bool_],
        finished: NDArray[np.bool_],
        counts: NDArray[np.int64],
    ) -> Iterator[float]:
        """Bin what is not binned yet, and show what there is ever so often."""
        shown, left = int(rows.sum()), finished & ~rows
        for start, stop in self._pieces(left):
            for values in self._reader.read(start + np.flatnonzero(left[start:stop])):
                filling.add(values)
                yield float(rows.sum() / max(finished.sum(), 1))
            rows[start:stop] |= left[start:stop]
            if rows.sum() >= GROWTH * max(shown, 1) and not (rows == finished).all():
                shown = int(rows.sum())
                self._show(filling, frames, rows, finished, counts)
        self._show(filling, frames, rows, finished, counts, last=True)

    def add_finished(self) -> Iterator[float]:
        """Bin the picks of micrographs that have been finished since; the grids stay as they are.

        Yields
        ------
        float
            Progress, 0 to 1.
        """
        before = self._content
        if before is None:
            yield from self.steps()
            return
        finished, counts = self._counts()
        wanted = finished & ~before.rows
        if not wanted.any():
            yield 1.0
            return
        filling = Filling(before.axes, len(self._bins[0]), self._reader.mixed, self._truth is not None, before)
        pieces = self._pieces(wanted)
        for i, (start, stop) in enumerate(pieces):
            for values in self._reader.read(start + np.flatnonzero(wanted[start:stop])):
                filling.add(values)
                yield i / len(pieces)
        self._show(filling, before.frames, before.rows | wanted, finished, counts, last=True)
        yield 1.0

    def save_cache(self, folder: Path) -> None:
        """Write what was binned, for `load_cache` of another day; nothing where truth is given."""
        if self._content is not None and self._truth is None:
            write_cache(folder / self._cache_name(), self._content)

    def load_cache(self, folder: Path) -> bool:
        """Read what was binned of just these picks before; False if there is none or it is damaged."""
        if self._truth is not None:
            return False
        found = read_cache(folder / self._cache_name(), self._method, self._bins[1], self._extra)
        if found is None or len(found.rows) != len(self._bins[1]):
            return False
        self._content = found
        self._make_cube(found)
        return True

    def _counts(self) -> tuple[NDArray[np.bool_], NDArray[np.int64]]:
        """Tell which micrographs are finished, and their numbers of picks, 0 for the others."""
        finished = self._reader.finished()
        return finished, self._reader.counts(finished)

    def _cache_name(self) -> str:
        finished, counts = self._counts()
        return cache_name(self._project, self._picks, self._method, self._fixed, finished, counts)

    @cached_property
    def _extra(self) -> dict[str, tuple[float, ...]]:
        """Wanted edges with the limit of power that the mixture proposes, as `stages.select.automatic` does."""
        found = {name: tuple(float(value) for value in values) for name, values in self._wanted.items()}
        mixture, lines = self._project.mixture(self._picks), self._project.calibration(self._picks)
        if mixture is not None and lines is not None and self._method != "raw":
            limit = power_limit(mixture, lines, self._project.table())
            found["max_power"] = (*found.get("max_power", ()), *(() if limit is None else (limit,)))
        return found

    def _pieces(self, wanted: NDArray[np.bool_]) -> list[tuple[int, int]]:
        return [(start, stop) for start, stop in self._reader.pieces() if wanted[start:stop].any()]

    def _sample_rows(self, counts: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Finished micrographs for the first estimate: neighbours, from places that are spread over defocus."""
        rows = np.zeros(len(counts), dtype=bool)
        pieces = self._pieces(counts > 0)
        if len(pieces) > SAMPLE_PIECES:
            middle = [np.nan_to_num(self._defocus[start:stop]).mean() for start, stop in pieces]
            order = np.argsort(middle, kind="stable")
            chosen = order[np.linspace(0, len(order) - 1, SAMPLE_PIECES).round().astype(np.intp)]
            pieces = [pieces[i] for i in chosen]
        for start, stop in pieces:
            some = start + np.flatnonzero(counts[start:stop])
            enough = 1 + int(np.searchsorted(counts[some].cumsum(), SAMPLE // len(pieces)))
            rows[some[:enough]] = True
        return rows

    def _axes(self, sample: Values, counts: NDArray[np.int64]) -> Axes:
        extra = self._extra
        powers = (*extra.get("min_power", ()), *extra.get("max_power", ()))
        scores = score_grid(sample.ncc, extra.get("min_ncc", ()), coarse=PLANE_STEPS)
        if self._method in ("raw", "line"):
            main = scores
            ncc = scores.even[:: every(len(scores.regular) - 1, PLANE_STEPS)]
        else:
            grid = probability_grid if self._method == "probability" else rate_grid
            main = grid(extra.get(MAIN[self._method], ()))
            ncc = score_grid(sample.ncc, most=PLANE_STEPS).even
        return Axes(
            self._method,
            main,
            power_grid(sample.power, powers) if self._reader.has_power else None,
            border_grid(self._reader.diameter, extra.get("edge", ())),
            ncc,
            self._bins[1],
            self._reader.sized(counts),
        )

    def _frames(self, sample: Values, axes: Axes, total: int) -> Generator[float, None, NDArray[np.float32] | None]:
        """Draw the way from raw to calibrated scores, see `Cube.frames`."""
        if not self._reader.calibrated or axes.power is None:
            return None
        chosen = sample.at(np.arange(len(sample.row))[:: -(-max(len(sample.row), 1) // SAMPLE)])
        power = axes.power.even
        frames = np.zeros((FRAMES, len(power) - 1, len(axes.ncc) - 1), dtype=np.float32)
        raw, calibrated = self._reader.ends(chosen)
        with np.errstate(divide="ignore", invalid="ignore"):
            logs = np.log(raw[1]), np.log(calibrated[1])
        for i, part in enumerate(np.linspace(0.0, 1.0, FRAMES)):
            ncc = (1 - part) * raw[0] + part * calibrated[0]
            strength = (1 - part) * logs[0] + part * logs[1]
            frames[i] = np.histogram2d(strength, ncc, (np.log(power), axes.ncc))[0]
            yield 0.0
        return frames * np.float32(total / max(len(chosen.row), 1))

    def _show(
        self,
        filling: Filling,
        frames: NDArray[np.float32] | None,
        rows: NDArray[np.bool_],
        finished: NDArray[np.bool_],
        counts: NDArray[np.int64],
        last: bool = False,
    ) -> None:
        """Make a cube of what was binned so far."""
        found = filling.content(frames, rows.copy(), int(counts[finished].sum()), last)
        self._make_cube(found, finished)
        self._content = found

    def _make_cube(self, found: Binned, finished: NDArray[np.bool_] | None = None) -> None:
        done = found.rows if finished is None else finished
        known = [] if self._truth is None else [self._truth.get(int(row)) for row in np.flatnonzero(done)]
        particles = sum(row.particles for row in known if row is not None)
        self.cube = Cube(self._method, self._fixed, found, self._bins[0], self._rows, done, particles)

    def _read_row(self, row: int) -> Cells:
        found = self._content
        assert found is not None, "cells of a row before there are grids"
        return Cells.joined([found.axes.cells(values) for values in self._reader.read(np.array([row]))])

    def _place(self, row: int, hand: HandPick) -> int:
        ((_, place),) = hand_places(self._reader.positions(row), [self._reader.names[row]], [hand])
        return place


def defocus_bins(defocus: Floats) -> tuple[Floats, NDArray[np.int8]]:
    """Bins of equal numbers of micrographs.

    Parameters
    ----------
    defocus
        Of every micrograph, µm; NaN where it is not known.

    Returns
    -------
    edges
        Shape `(bins + 1,)`, at most 12 bins, one where no defocus is known.
    bins
        Of every micrograph; the number of bins where defocus is not known.
    """
    known = np.flatnonzero(np.isfinite(defocus))
    bins = int(np.clip(len(known), 1, BINS))
    out = np.full(len(defocus), bins, dtype=np.int8)
    order = known[np.argsort(defocus[known], kind="stable")]
    out[order] = np.arange(len(order)) * bins // max(len(order), 1)
    if not len(known):
        return np.array([0.0, 1.0]), out
    firsts = np.searchsorted(out[order], np.arange(1, bins))
    middles = 0.5 * (defocus[order[firsts]] + defocus[order[firsts - 1]])
    return np.concatenate([defocus[order[:1]], middles, defocus[order[-1:]]]), out
