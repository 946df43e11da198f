"""Calibrate: fit the scores of one set of picks against defocus over the whole data set."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pickcal.calibration.lines import fit_lines, line_columns, micrograph_medians
from pickcal.calibration.mixture import PICK_VARIABLES, Model, NotFitted, fit_mixture, mixture_columns
from pickcal.calibration.trends import Trend, mean_defocus
from pickcal.engine.one_job import only_job
from pickcal.errors import InputError, ProjectError
from pickcal.project import Block, Project
from pickcal.schema import Status
from pickcal.settings import CalibrateSettings, validated

Rows = NDArray[np.intp] | slice

SCORES = (
    *(name for name in PICK_VARIABLES if name != "template"),
    *("decoy_x", "decoy_y", "decoy_ncc", "decoy_power", "decoy_count"),
)
WORDS = ("score_label", "power_label", "program")
"""What the scores are called, for people: attributes that the fit takes over from the picks."""
BLOCK_PLACES = 500_000
"""Places for picks that are in memory at once."""
LINE_SAMPLE = 20_000
"""Most micrographs that lines are fitted on."""
MIXTURE_PICKS = 200_000
"""Picks that the mixture is fitted on, about; of at least and at most so many micrographs:"""
LEAST_MIXTURE, MOST_MIXTURE = 100, 2000
GROUP_SAMPLE = 8
"""Micrographs of every exposure group in a sample, if it has so many, where groups are fitted apart."""
LONGEST_WAIT = 60.0
"""Seconds to wait for another process that fits the same picks."""


def calibrate(project: Project, picks: str, settings: CalibrateSettings, swap: bool = False) -> xr.Dataset:
    """Fit both scores and store the fit under the name of the picks.

    Lines and mixture are fitted on a sample where a data set is large; then blocks of micrographs are read one after
    the other and what belongs to each micrograph is written, so that memory does not grow with their number.

    Parameters
    ----------
    project, picks
        Opened for writing, and the name of the picks.
    settings
        How to fit.
    swap
        Leave an older fit until the new one takes its place; default False: it is gone from the start.

    Returns
    -------
    Dataset
        The stored lines, loaded lazily; the mixture is `project.mixture(picks)`.

    Raises
    ------
    ProjectError, InputError
        If there are no such picks, or none of their micrographs is done; or if another process is fitting them and has
        not ended after a minute; or if micrographs of a new exposure group came meanwhile.
    """
    with only_job(project.path, f"calibration/{picks}", LONGEST_WAIT):
        found = _fitted(project, picks, settings)
        project.write_whole("calibration", picks, found.lines, settings.stored(), found.parts, found.blocks, swap)
        _lay_on_arrived(project, picks)
    return project.dataset(f"calibration/{picks}")


def _lay_on_arrived(project: Project, picks: str) -> None:
    """Lay a fit on the micrographs that came while it was made, which `pickcal watch` could not do yet."""
    now = Project.open(project.path, "r+", whole=True)
    if now.count > project.count and not lay_on_more(now, picks, project.count):
        project.remove(f"calibration/{picks}")
        raise ProjectError(
            f"{project.path}: micrographs of a new exposure group came while picks {picks!r} were calibrated; give the "
            "same command again"
        )


def trial(project: Project, picks: str, settings: CalibrateSettings) -> tuple[xr.Dataset, xr.Dataset | None]:
    """Fit both scores as `calibrate` does, and store nothing.

    Parameters
    ----------
    project, picks, settings
        As for `calibrate`; opened for reading is enough.

    Returns
    -------
    lines, mixture
        What `Project.calibration` and `Project.mixture` would give; the mixture is None where there is none.

    Raises
    ------
    ProjectError, InputError
        As `calibrate`.
    """
    found = _fitted(project, picks, settings)
    blocks = [columns for _, columns in found.blocks]

    def whole(fit: xr.Dataset, part: str) -> xr.Dataset:
        columns = [block[part] for block in blocks]
        laid = xr.concat(
            columns, "micrograph", data_vars="minimal", coords="minimal", compat="override", join="override"
        )
        return fit.assign(laid)

    mixture = found.parts.get("mixture")
    return whole(found.lines, ""), None if mixture is None else whole(mixture, "mixture")


@dataclass(frozen=True)
class _Fitted:
    """A fit, and what it says of every micrograph, block by block."""

    lines: xr.Dataset
    parts: dict[str, xr.Dataset]
    blocks: Iterator[Block]


def _fitted(project: Project, picks: str, settings: CalibrateSettings) -> _Fitted:
    project.require("picks", picks)
    table = PickTable(project, picks)
    done = int((project.done(f"picks/{picks}") == Status.DONE).sum())
    if not done:
        raise InputError(f"{project.path}: picks {picks!r} hold no finished micrograph; finish 'pickcal pick' first")
    rows = _sample(project.count, LINE_SAMPLE)
    if settings.by_group:
        rows = _with_every_group(rows, np.arange(project.count), table)
    medians = _medians(table, rows, settings)
    lines = fit_lines(medians, table.micrographs(rows), settings)
    model, verdict = _model(table, rows, settings)
    lines = lines.assign_attrs(
        picks=picks,
        micrographs_done=done,
        fitted_done=done,
        probability=verdict,
        micrographs_fitted=len(rows),
        **table.words,
    )
    parts = {} if model is None else {"mixture": model.to_dataset().assign_attrs(table.words)}
    known = medians if len(rows) == project.count else None
    return _Fitted(lines, parts, _columns(table, lines, model, settings, known))


def lay_on_more(project: Project, picks: str, start: int) -> bool:
    """Lay a stored fit on micrographs that came since it was made; the fit itself stays as it is.

    Parameters
    ----------
    project
        Opened for writing, with all micrographs that have arrived.
    picks
        Name of calibrated picks.
    start
        Micrograph from which on to lay it; those before are as the fit found them.

    Returns
    -------
    bool
        False where that cannot be done: the fit has no values up to `start`, or lines or mixture have a constant for
        each exposure group and none for one that came with picks.
    """
    fit, mixture = project.calibration(picks), project.mixture(picks)
    if fit is None or fit.sizes["micrograph"] < start:
        return False
    settings = validated(CalibrateSettings, project.settings(f"calibration/{picks}"), f"calibration {picks}")
    table = PickTable(project, picks)
    known = [fit["group"].values] if fit.attrs["per_group"] else []
    trends = [Trend.from_json(part.attrs["trend"]) for part in (fit, mixture) if part is not None]
    known += [np.array(trend.groups) for trend in trends if trend.groups]
    groups = table.groups[start:][table.finished[start:]]
    if not all(np.isin(groups, those).all() for those in known):
        return False
    done = int((project.done(f"picks/{picks}") == Status.DONE).sum())
    model = None if mixture is None else Model.from_dataset(mixture)
    blocks = _columns(table, fit, model, settings, None, start)
    project.write_more("calibration", picks, blocks, {"micrographs_done": done})
    return True


class PickTable:
    """Scores of some picks with their table of micrographs, read by rows.

    Parameters
    ----------
    project, picks
        Where they are.
    """

    def __init__(self, project: Project, picks: str) -> None:
        self.count = project.count
        self._picks = project.picks(picks)
        self._micrographs = project.micrographs().drop_vars("image")
        self.diameter = float(self._picks.attrs["diameter"])
        self.words = {key: str(self._picks.attrs[key]) for key in WORDS if key in self._picks.attrs}

    def picks(self, rows: Rows, template: bool = False) -> xr.Dataset:
        """Scores and positions of picks and decoys."""
        names = [name for name in SCORES if name in self._picks] + (["template"] if template else [])
        return self._picks[names].isel(micrograph=rows).load()

    def micrographs(self, rows: Rows) -> xr.Dataset:
        """Rows of the table of micrographs."""
        return self._micrographs.isel(micrograph=rows).load()

    @property
    def groups(self) -> NDArray[np.integer]:
        """Exposure group of every micrograph."""
        return np.asarray(self._micrographs["exposure_group"].values)

    @property
    def finished(self) -> NDArray[np.bool_]:
        """Which micrographs have picks or are known to have none."""
        return np.asarray(self._picks["status"].values == Status.DONE)

    def blocks(self) -> list[tuple[int, int]]:
        """Blocks of micrographs that hold about half a million places for picks each."""
        return blocks_of(self.count, int(self._picks.sizes["pick"]))


def blocks_of(count: int, places: int) -> list[tuple[int, int]]:
    """Cut micrographs with so many places for picks each into blocks of about half a million places."""
    size = max(1, BLOCK_PLACES // max(places, 1))
    return [(start, min(start + size, count)) for start in range(0, count, size)]


def _sample(count: int, most: int) -> NDArray[np.intp]:
    """All micrographs, or some drawn at random, in order."""
    if count <= most:
        return np.arange(count)
    return np.sort(np.random.default_rng(0).choice(count, most, replace=False))


def _with_every_group(rows: NDArray[np.intp], among: NDArray[np.intp], table: PickTable) -> NDArray[np.intp]:
    """Add to a sample what it lacks of an exposure group: of one that it has not seen, a fit knows nothing."""
    among = among[table.finished[among]]
    groups, generator, parts = table.groups[among], np.random.default_rng(1), [rows]
    for group in np.unique(groups):
        members = among[groups == group]
        left = np.setdiff1d(members, rows)
        lacking = GROUP_SAMPLE - (len(members) - len(left))
        parts.append(generator.permutation(left)[: max(lacking, 0)])
    return np.sort(np.concatenate(parts))


def _medians(table: PickTable, rows: NDArray[np.intp], settings: CalibrateSettings) -> xr.Dataset:
    """Medians of many micrographs, read in blocks."""
    start, stop = table.blocks()[0]
    parts = np.array_split(rows, -(-len(rows) // (stop - start)))
    found = [micrograph_medians(table.picks(part), settings.median_of) for part in parts]
    return xr.concat(found, "micrograph", data_vars="minimal", coords="minimal", compat="override", join="override")


def _model(table: PickTable, rows: NDArray[np.intp], settings: CalibrateSettings) -> tuple[Model | None, str]:
    """Mixture and its verdict; None with the reason where it is turned off or cannot be fitted."""
    if settings.probability == "none":
        return None, "turned off"
    template = "template" in settings.covariates
    counts = table.picks(rows[: min(len(rows), 200)])["count"].values
    wanted = int(np.clip(MIXTURE_PICKS / max(float(counts.mean()), 1.0), LEAST_MIXTURE, MOST_MIXTURE))
    if len(rows) > wanted:
        # evenly over the range of defocus
        order = rows[np.argsort(mean_defocus(table.micrographs(rows)), kind="stable")]
        chosen = np.sort(order[np.unique(np.linspace(0, len(order) - 1, wanted).round().astype(np.intp))])
        rows = _with_every_group(chosen, rows, table) if settings.by_group else chosen
    try:
        model = fit_mixture(table.picks(rows, template), table.micrographs(rows), table.diameter, settings)
    except NotFitted as error:
        return None, str(error)
    return model, model.verdict


def _columns(
    table: PickTable,
    lines: xr.Dataset,
    model: Model | None,
    settings: CalibrateSettings,
    known: xr.Dataset | None,
    begin: int = 0,
) -> Iterator[Block]:
    """Lay lines and mixture on every micrograph from `begin` on, block by block."""
    template = "template" in settings.covariates
    for first, stop in table.blocks():
        start = max(first, begin)
        if start >= stop:
            continue
        rows = slice(start, stop)
        picks, micrographs = table.picks(rows, template), table.micrographs(rows)
        medians = micrograph_medians(picks, settings.median_of) if known is None else known.isel(micrograph=rows)
        columns = {"": line_columns(lines, medians, micrographs)}
        if model is not None:
            columns["mixture"] = mixture_columns(picks, micrographs, model)
        yield start, columns
