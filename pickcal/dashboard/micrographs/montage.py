"""Cutouts of the picks on which a threshold decides, and of those with the highest power."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pickcal.dashboard.micrographs.images import CUTOUT, Images
from pickcal.dashboard.micrographs.shown import SHARED_ROWS, Shown, main_score
from pickcal.dashboard.micrographs.tally import SHARED_BROWSER, Browser
from pickcal.project import Project
from pickcal.selection import ACCEPTED, REASONS
from pickcal.settings import SelectSettings

Floats = NDArray[np.floating]
Rows = NDArray[np.intp]
Pick = tuple[int, int]

EACH = 12
SPREAD, POWERFUL = 24, 6
"""Micrographs that are looked through: evenly over defocus, and those of the highest median power."""
DIAMETERS = 1.5
GROUPS = ("above", "below", "power")
REASON_OF = {"probability": "probability", "q_value": "false discovery rate"}


@dataclass(frozen=True)
class Tiles:
    """Cutouts around some picks, in order.

    Attributes
    ----------
    pixels
        uint8 `(pick, y, x)`, first row at the top; grey levels as `images.Images.cutout`.
    rows, places
        Micrograph and place of each pick, shape `(pick,)`.
    columns
        `x`, `y`, `border` (Å), scores and probabilities as `shown.Shown.columns`, each of shape `(pick,)`.
    """

    pixels: NDArray[np.uint8]
    rows: Rows
    places: Rows
    columns: Mapping[str, Floats]


@dataclass(frozen=True)
class Montage:
    """Three rows of cutouts.

    Attributes
    ----------
    above
        The accepted picks nearest to the main threshold, nearest first; without one those of the lowest score.
    below
        The picks that the main threshold rejects, nearest first; none without a threshold.
    power
        The accepted picks of the highest power, highest first.
    size
        Side of a cutout, Å.
    micrographs
        Rows of the micrographs that were looked through.
    """

    above: Tiles
    below: Tiles
    power: Tiles
    size: float
    micrographs: tuple[int, ...]


def montage_job(
    project: Project,
    images: Images,
    picks: str,
    settings: SelectSettings,
    lowpass_A: float | None = None,
    each: int = EACH,
    size_A: float | None = None,
    pixels: int = CUTOUT,
    rows: Sequence[int] | None = None,
) -> Generator[float, None, Montage]:
    """Find the picks around the threshold and cut them out, as a job for `Background`.

    Parameters
    ----------
    project, picks
        Where the picks are.
    images
        Of the same project.
    settings
        Thresholds and decisions by hand.
    lowpass_A
        As `images.Images.picture`. Default none.
    each
        Picks in each of the three rows. Default 12.
    size_A
        Side of the cutouts, Å; default one and a half particle diameters.
    pixels
        Rows and columns of a cutout. Default 64.
    rows
        Micrographs to look through; default `sampled_rows`.

    Yields
    ------
    float
        Progress, 0 to 1, after every micrograph.

    Returns
    -------
    Montage
        The best of the micrographs that were looked through, not of all.

    Raises
    ------
    ProjectError, InputError
        If the project holds no images, or the thresholds do not fit the picks.
    """
    project.require_images("the montage")
    looked = sampled_rows(SHARED_BROWSER.of(project, picks), settings.exclude) if rows is None else rows
    source = SHARED_ROWS.of(project, picks)
    size = DIAMETERS * float(source.attributes["diameter"]) if size_A is None else size_A
    found = _Found(each)
    for i, row in enumerate(looked):
        found.look(Shown(project, picks, [row], source), settings)
        yield 0.5 * (i + 1) / len(looked)
    chosen = {group: found.best(group) for group in GROUPS}
    of_row: dict[int, list[int]] = {}
    for row, place in dict.fromkeys(pick for group in GROUPS for pick in chosen[group]):
        of_row.setdefault(row, []).append(place)
    tiles: dict[Pick, NDArray[np.uint8]] = {}
    for i, (row, places) in enumerate(of_row.items()):
        columns = found.columns[row]
        at = [(float(columns["x"][place]), float(columns["y"][place])) for place in places]
        cut = images.cutouts(row, at, size, lowpass_A, pixels)
        tiles.update({(row, place): tile for place, tile in zip(places, cut, strict=True)})
        yield 0.5 + 0.5 * (i + 1) / len(of_row)
    above, below, power = (_tiles(chosen[group], tiles, found.columns, pixels) for group in GROUPS)
    return Montage(above, below, power, size, tuple(int(row) for row in looked))


def sampled_rows(browser: Browser, exclude: Sequence[str] = (), spread: int = SPREAD, powerful: int = POWERFUL) -> Rows:
    """Choose finished micrographs to look through.

    Parameters
    ----------
    browser
        The list of all micrographs.
    exclude
        Names of micrographs to leave out.
    spread
        How many evenly over defocus. Default 24.
    powerful
        How many of the highest median power beside them, where it is known. Default 6.
    """
    without = set(exclude)
    wanted = browser.done & np.array([name not in without for name in browser.names], dtype=bool)
    rows = np.flatnonzero(wanted)
    rows = rows[np.argsort(browser.defocus[rows], kind="stable")]
    even = rows[np.unique(np.linspace(0, len(rows) - 1, min(spread, len(rows))).round().astype(np.intp))]
    known = rows[np.isfinite(browser.power[rows])]
    strong = known[np.argsort(-browser.power[known], kind="stable")[:powerful]]
    return np.array(list(dict.fromkeys([*even.tolist(), *strong.tolist()])), dtype=np.intp)


class _Found:
    """The best picks of every group among the micrographs looked through so far."""

    def __init__(self, each: int) -> None:
        self._each = each
        self._ranked: dict[str, list[tuple[float, Pick]]] = {group: [] for group in GROUPS}
        self.columns: dict[int, dict[str, Floats]] = {}

    def look(self, shown: Shown, settings: SelectSettings) -> None:
        row, columns = shown.rows[0], shown.columns(0)
        reasons = shown.judge(settings)[0]
        name, threshold = main_score(settings)
        over = columns[name].astype(np.float64) * (-1 if name == "q_value" else 1)
        if threshold is not None:
            over -= -threshold if name == "q_value" else threshold
        power = columns["power" if settings.raw else "calibrated_power"].astype(np.float64)
        accepted = reasons == ACCEPTED
        # a pick accepted by hand may lie below the threshold
        within = accepted if threshold is None else accepted & (over >= 0)
        below = (reasons == REASONS.index(REASON_OF.get(name, "low score"))) & (threshold is not None)
        self._add("above", row, over, within)
        self._add("below", row, -over, below)
        self._add("power", row, -power, accepted)
        used = {row for ranked in self._ranked.values() for _, (row, _) in ranked}
        self.columns = {row: found for row, found in (self.columns | {row: columns}).items() if row in used}

    def best(self, group: str) -> list[Pick]:
        return [pick for _, pick in self._ranked[group]]

    def _add(self, group: str, row: int, rank: Floats, wanted: NDArray[np.bool_]) -> None:
        places = np.flatnonzero(wanted & np.isfinite(rank))
        places = places[np.argsort(rank[places], kind="stable")[: self._each]]
        new = [(float(rank[place]), (row, int(place))) for place in places]
        self._ranked[group] = sorted([*self._ranked[group], *new])[: self._each]


def _tiles(
    chosen: Sequence[Pick],
    tiles: Mapping[Pick, NDArray[np.uint8]],
    columns: Mapping[int, Mapping[str, Floats]],
    pixels: int,
) -> Tiles:
    names = list(next(iter(columns.values()))) if columns else []
    return Tiles(
        np.array([tiles[pick] for pick in chosen], dtype=np.uint8).reshape(-1, pixels, pixels),
        np.array([row for row, _ in chosen], dtype=np.intp),
        np.array([place for _, place in chosen], dtype=np.intp),
        {name: np.array([columns[row][name][place] for row, place in chosen]) for name in names},
    )
