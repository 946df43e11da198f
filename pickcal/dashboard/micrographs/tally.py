"""Exact counts for every micrograph, made in the background, and the list of all micrographs that shows them."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pickcal.calibration.trends import mean_defocus
from pickcal.dashboard.micrographs.shown import CALIBRATED, Shared
from pickcal.errors import InputError
from pickcal.plots.style import UM
from pickcal.project import Project
from pickcal.schema import Status
from pickcal.selection import ACCEPTED, REASONS, reason_counts
from pickcal.settings import SelectSettings
from pickcal.stages.select import Judge, Judged

Floats = NDArray[np.floating]
Rows = NDArray[np.intp]

UNKNOWN = -1
BLOCK_PLACES = 40_000
"""Places for picks per step: some 50 ms with probabilities."""


class Tally:
    """Counts of one selection as far as they are known; one thread counts, others look.

    Parameters
    ----------
    micrographs
        Number of rows of the project's table.

    Attributes
    ----------
    counts
        int32 `(reason, micrograph)` in the order of `selection.REASONS`; -1 where not counted yet.
    noise, junk
        Expected false picks among the accepted ones, `(micrograph,)`; NaN where not counted yet or not known.
    complete
        Whether all micrographs are counted.
    """

    def __init__(self, micrographs: int) -> None:
        self.counts = np.full((len(REASONS), micrographs), UNKNOWN, dtype=np.int32)
        self.noise, self.junk = np.full(micrographs, np.nan), np.full(micrographs, np.nan)
        self.complete = micrographs == 0

    @property
    def counted(self) -> NDArray[np.bool_]:
        """Which micrographs are counted, shape `(micrograph,)`."""
        return np.asarray(self.counts[ACCEPTED] != UNKNOWN)

    @property
    def accepted(self) -> NDArray[np.int32]:
        """Accepted picks of every micrograph, -1 where not counted yet."""
        return np.asarray(self.counts[ACCEPTED])

    def totals(self) -> dict[str, int]:
        """Sum of the counts so far, by reason."""
        sums = np.maximum(self.counts, 0).sum(axis=1, dtype=np.int64)
        return {reason: int(count) for reason, count in zip(REASONS, sums, strict=True)}

    def put(self, start: int, stop: int, found: Judged) -> None:
        """Take over the counts of some micrographs."""
        if found.likelihood is not None:
            accepted = found.reasons == ACCEPTED
            particle, junk = (
                np.where(accepted, found.likelihood[name].values, 0).sum(axis=1, dtype=np.float64)
                for name in ("probability", "junk")
            )
            self.noise[start:stop] = accepted.sum(axis=1) - particle - junk
            self.junk[start:stop] = junk
        self.counts[:, start:stop] = reason_counts(found.reasons)


def tally_job(
    project: Project, picks: str, settings: SelectSettings, first: Iterable[int] = (), tally: Tally | None = None
) -> Generator[float, None, Tally]:
    """Count the picks of every micrograph, as a job for `Background`.

    Parameters
    ----------
    project, picks
        Where the picks are.
    settings
        Thresholds and decisions by hand.
    first
        Rows to count first: those on the screen.
    tally
        Filled as counting goes on; default a new one.

    Yields
    ------
    float
        Part of the micrographs that are counted, 0 to 1.

    Returns
    -------
    Tally
        The one given, complete.

    Raises
    ------
    InputError, ProjectError
        As `stages.select.Judge`.
    """
    tally = Tally(project.count) if tally is None else tally
    judge = Judge(project, picks, settings)
    yield 0.0
    early = [(row, row + 1) for row in dict.fromkeys(int(row) for row in first)]
    for start, stop in (*early, *_blocks(project, picks)):
        tally.put(start, stop, judge.block(start, stop))
        yield float(tally.counted.mean())
    tally.complete = True
    return tally


def _blocks(project: Project, picks: str) -> list[tuple[int, int]]:
    """Blocks of micrographs for one step each, of whole batches or within one: a batch is one chunk of the store."""
    places = int(project.picks(picks).sizes["pick"])
    most = max(1, BLOCK_PLACES // max(places, 1))
    batch = project.batch
    step = most // batch * batch if most >= batch else max(n for n in range(1, most + 1) if batch % n == 0)
    return [(start, min(start + step, project.count)) for start in range(0, project.count, step)]


class Browser:
    """What the list of all micrographs shows whatever the thresholds, read once.

    Parameters
    ----------
    project, picks
        Where the picks are.

    Attributes
    ----------
    names
        Names of the micrographs.
    done
        Which of them are finished, shape `(micrograph,)`.
    defocus
        Theirs, µm, shape `(micrograph,)`.
    power
        Median raw power score of each, NaN where it is not known.

    Raises
    ------
    ProjectError
        If there are no such picks.
    """

    def __init__(self, project: Project, picks: str) -> None:
        project.require("picks", picks)
        table, fit, group = project.table(), project.calibration(picks), f"picks/{picks}"
        count, unknown = project.count, np.full(project.count, np.nan)
        self.names = [str(name) for name in table["name"].values]
        self._words = [name.lower() for name in self.names]
        self.defocus = mean_defocus(table) * UM
        self._columns: dict[str, NDArray[Any]] = {
            "name": np.array(self.names, dtype=object),
            "defocus": self.defocus,
            "picks": project.read(group, "count").astype(np.int64),
        }
        parts = {"particles": unknown, "residual": unknown, "power": unknown}
        outlying = np.zeros(count, dtype=bool)
        if fit is not None:
            outlying = (fit["outlier"].values == 1).any(axis=0)
            parts["residual"] = fit["residual"].sel(score="ncc").values
            parts["power"] = fit["median"].sel(score="power").values
            parts["particles"] = _particles(project, picks, fit["particles"].values)
        self.power = parts["power"]
        self._columns |= parts
        status = project.done(group)
        self.done = status == Status.DONE
        states = [Status(int(value)).name.lower() for value in status]
        errors = [str(error) for error in project.read(group, "error")]
        words = [
            "done, outlying" if state == "done" and out else f"{state}: {error}" if error else state
            for state, error, out in zip(states, errors, outlying, strict=True)
        ]
        self._columns["status"] = np.array(words, dtype=object)

    def table(self, tally: Tally, exclude: Sequence[str] = (), rows: Rows | None = None) -> pd.DataFrame:
        """Give the list, or some rows of it, in their order.

        Parameters
        ----------
        tally
            Counts as far as they are known.
        exclude
            Names of the excluded micrographs.
        rows
            Which rows; default all.

        Returns
        -------
        DataFrame
            Indexed by the row of the project's table: `name`, `defocus` (µm), `picks`, `accepted` (nullable integer,
            missing where not counted yet), `particles` (estimated number, NaN where there is no estimate), `residual`
            (of the median NCC from its fit, in robust standard deviations), `power` (median raw power score),
            `status` (in words), `excluded`.
        """
        rows = np.arange(len(self.names)) if rows is None else rows
        without = set(exclude)
        found = pd.DataFrame({name: values[rows] for name, values in self._columns.items()}, index=rows)
        accepted = pd.Series(tally.accepted[rows], index=rows, dtype="Int64")
        found.insert(3, "accepted", accepted.mask(accepted == UNKNOWN))
        found["excluded"] = [self.names[row] in without for row in rows]
        return found

    def sorted_rows(self, tally: Tally, key: str = "defocus", descending: bool = False, search: str = "") -> Rows:
        """Put rows in order.

        Parameters
        ----------
        tally
            Counts as far as they are known, for the key "accepted".
        key
            A column of `table` but "excluded". Default "defocus".
        descending
            Highest first. Default no.
        search
            Leave out the micrographs that `search` does not find.

        Returns
        -------
        ndarray
            Rows of the project's table. Those without a value are last either way; equal ones stay in order.

        Raises
        ------
        InputError
            If there is no such column.
        """
        rows = self.search(search)
        if key == "accepted":
            values = np.where(tally.counted, tally.accepted, np.nan)[rows]
        elif key in self._columns:
            column = self._columns[key]
            values = (np.unique(column, return_inverse=True)[1] if column.dtype == object else column)[rows]
        else:
            raise InputError(f"sort: expected one of accepted, {', '.join(self._columns)}, got {key!r}")
        signed = -values.astype(np.float64) if descending else values.astype(np.float64)
        return np.asarray(rows[np.argsort(signed, kind="stable")])

    def search(self, text: str) -> Rows:
        """Find micrographs whose names hold all the words of a text, in capitals or not; all for an empty one."""
        words = text.lower().split()
        if not words:
            return np.arange(len(self.names))
        return np.flatnonzero([all(word in name for word in words) for name in self._words])


SHARED_BROWSER = Shared(Browser, *CALIBRATED, "picks/{}/status/c", "picks/{}/status/zarr.json", "micrographs/zarr.json")
"""The list of each project's micrographs, for all its visitors."""


def micrograph_table(
    project: Project, picks: str, tally: Tally, exclude: Sequence[str] = (), rows: Rows | None = None
) -> pd.DataFrame:
    """Give the list of all micrographs, or rows of it; see `Browser.table`."""
    return SHARED_BROWSER.of(project, picks).table(tally, exclude, rows)


def sorted_rows(
    project: Project,
    picks: str,
    tally: Tally,
    key: str = "defocus",
    descending: bool = False,
    search: str = "",
) -> Rows:
    """Put the rows of the list of all micrographs in order; see `Browser.sorted_rows`."""
    return SHARED_BROWSER.of(project, picks).sorted_rows(tally, key, descending, search)


def _particles(project: Project, picks: str, fitted: Floats) -> Floats:
    """Estimated particles: from decoys, or where there are none from the mixture, else NaN."""
    if project.read(f"picks/{picks}", "decoy_count").any():
        return fitted
    mixture = project.mixture(picks)
    if mixture is None:
        return np.full(len(fitted), np.nan)
    return np.asarray(mixture["expected"].sel(component="particle").values)
