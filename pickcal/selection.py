"""Selection by thresholds: every rejected pick has its reason, and thresholds replay from a small TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Hashable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import tomli_w
from numpy.typing import NDArray

from pickcal.calibration import calibrated_scores
from pickcal.errors import InputError
from pickcal.formats.atomic import atomic_path
from pickcal.schema import Status
from pickcal.settings import HandPick, SelectSettings, read_toml, validated

if TYPE_CHECKING:
    import xarray as xr

Floats = NDArray[np.floating]
Bools = NDArray[np.bool_]

ACCEPTED = 0
REASONS = (
    "accepted",
    "micrograph",
    "edge",
    "low score",
    "low power",
    "high power",
    "probability",
    "false discovery rate",
    "by hand",
)
NO_PICK = -1
BY_HAND = REASONS.index("by hand")
REACH = 0.1
"""Farthest that a pick may be from where a decision by hand was made, in particle diameters."""
NCC_LABEL = "NCC score"
MOST_NCC = 2.0
"""Largest amount of a threshold on NCC: the score itself stays within 1, calibration stretches it a little beyond."""


def rejection_reasons(
    picks: xr.Dataset,
    calibration: xr.Dataset | None,
    micrographs: xr.Dataset,
    settings: SelectSettings,
    likelihood: xr.Dataset | None = None,
) -> NDArray[np.int8]:
    """Say for every pick whether it is accepted, and if not why.

    Parameters
    ----------
    picks
        `x`, `y`, `ncc`, `power` over (micrograph, pick), `count`, `status`.
    calibration
        The fit that scores are relative to, or None for raw scores.
    micrographs
        `name`, `pixel_size`, `height`, `width`.
    settings
        Thresholds; those that are None do not reject.
    likelihood
        `probability` and `q_value` from `calibration.mixture.probabilities`; None where there are none.

    Returns
    -------
    ndarray
        int8 (micrograph, pick): index into `REASONS`, -1 where there is no pick. The first reason that applies counts.
        Decisions by hand come before all thresholds; of an excluded micrograph nothing is accepted.

    Raises
    ------
    InputError
        If a micrograph to exclude does not exist, a threshold is on probabilities that there are not, or there is no
        pick where one was decided on by hand.
    """
    return Columns.of(picks, calibration, micrographs, likelihood, settings.raw).judge(settings)


@dataclass(frozen=True)
class Columns:
    """Picks of some micrographs as judging takes them: plain arrays, made once and judged again at every move.

    Attributes
    ----------
    names
        Names of the micrographs, shape `(micrograph,)`.
    counts
        Number of picks, shape `(micrograph,)`.
    valid
        Where there is a pick of a finished micrograph, shape `(micrograph, pick)`.
    ncc, power
        Scores that the thresholds are on, calibrated or raw, same shape.
    x, y
        Positions, Å, same shape.
    far
        Positions of the centre of the last pixel, columns and rows, Å, shape `(2, micrograph, 1)`.
    sized
        Whether the size of every micrograph that has picks is known.
    probability, q_value
        Of being a particle, same shape as the scores; None where there are none.
    why
        Why there are no probabilities.
    attributes
        Of the picks: `diameter` (Å), `score_label`, `scores`.
    """

    names: tuple[str, ...]
    counts: NDArray[np.integer]
    valid: Bools
    ncc: Floats
    power: Floats
    x: Floats
    y: Floats
    far: Floats
    sized: bool
    probability: Floats | None
    q_value: Floats | None
    why: str
    attributes: Mapping[Hashable, Any]
    _places: dict[HandPick, tuple[int, int]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        picks: xr.Dataset,
        calibration: xr.Dataset | None,
        micrographs: xr.Dataset,
        likelihood: xr.Dataset | None,
        raw: bool = False,
    ) -> Columns:
        """Take the columns from datasets as `rejection_reasons` gets them; `raw` leaves the scores as they are."""
        scores = calibrated_scores(picks, None if raw else calibration)
        counts, pixel = picks["count"].values, micrographs["pixel_size"].values
        valid = np.arange(picks.sizes["pick"])[None, :] < counts[:, None]
        valid &= (picks["status"].values == Status.DONE)[:, None]
        last = np.stack([(micrographs[side].values - 1) * pixel for side in ("width", "height")])
        return cls(
            tuple(str(name) for name in micrographs["name"].values),
            counts,
            valid,
            scores["ncc"].values,
            scores["power"].values,
            picks["x"].values,
            picks["y"].values,
            last[:, :, None],
            bool(((micrographs["width"].values > 0) | (counts == 0)).all()),
            None if likelihood is None else likelihood["probability"].values,
            None if likelihood is None else likelihood["q_value"].values,
            "they are not calibrated"
            if calibration is None
            else str(calibration.attrs.get("probability", "no mixture")),
            picks.attrs,
        )

    @cached_property
    def border(self) -> Floats:
        """Distance of every pick from the nearest border: the centre of the first or last pixel, Å."""
        right, bottom = self.far
        return np.asarray(np.minimum(np.minimum(self.x, self.y), np.minimum(right - self.x, bottom - self.y)))

    def judge(self, settings: SelectSettings) -> NDArray[np.int8]:
        """Give the reasons under some thresholds, as `rejection_reasons` does; `settings.raw` must be as these are."""
        self._check(settings)
        reason = np.where(self.valid, np.int8(ACCEPTED), np.int8(NO_PICK))
        for name, fails in self._failures(settings):
            np.copyto(reason, np.int8(REASONS.index(name)), where=fails & (reason == ACCEPTED))
        rejected, accepted = (self._decided(hands) for hands in (settings.reject, settings.accept))
        for row, place in sorted(rejected & accepted):
            raise InputError(f"accept, reject: pick {place} of {self.names[row]!r} is in both; take it out of one")
        for places, value in ((rejected, BY_HAND), (accepted, ACCEPTED)):
            for row, place in places:
                if self.valid[row, place] and self.names[row] not in settings.exclude:
                    reason[row, place] = value
        return reason

    def _check(self, settings: SelectSettings) -> None:
        if self.probability is None and (settings.probability is not None or settings.fdr is not None):
            raise InputError(
                f"probability, fdr: these picks have no probabilities ({self.why}); run 'pickcal calibrate' first"
            )
        label = self.attributes.get("score_label", NCC_LABEL)
        if settings.min_ncc is not None and abs(settings.min_ncc) > MOST_NCC and label == NCC_LABEL:
            raise InputError(f"min_ncc: expected an NCC score between -2 and 2, got {settings.min_ncc:g}")
        has_power = "power" in self.attributes.get("scores", ["power"])
        if (settings.min_power, settings.max_power) != (None, None) and not has_power:
            raise InputError("min_power, max_power: these picks have no power score; 'pickcal score' gives them one")
        check_names(settings, set(self.names))
        if settings.edge is not None and not self.sized:
            raise InputError(
                "edge: the size of some micrographs is not known; import the table with --size ROWS COLUMNS"
            )

    def _failures(self, settings: SelectSettings) -> Iterator[tuple[str, Bools]]:
        """Which picks fail a threshold, in the order in which reasons count; NaN fails a score, not power or border."""
        if settings.exclude:
            yield "micrograph", np.array([name in settings.exclude for name in self.names])[:, None]
        if settings.edge is not None:
            yield "edge", self.border < settings.edge
        if settings.min_ncc is not None:
            yield "low score", ~(self.ncc >= settings.min_ncc)
        if settings.min_power is not None:
            yield "low power", self.power < settings.min_power
        if settings.max_power is not None:
            yield "high power", self.power > settings.max_power
        if settings.probability is not None and self.probability is not None:
            yield "probability", ~(self.probability >= settings.probability)
        if settings.fdr is not None and self.q_value is not None:
            yield "false discovery rate", ~(self.q_value <= settings.fdr)

    def _decided(self, hands: Sequence[HandPick]) -> set[tuple[int, int]]:
        new = [hand for hand in hands if hand not in self._places]
        if new:
            rows = {name: row for row, name in enumerate(self.names)}
            reach = REACH * float(self.attributes["diameter"])
            self._places.update({hand: _place(hand, rows, self.x, self.y, self.counts, reach) for hand in new})
        return {self._places[hand] for hand in hands}


def hand_places(picks: xr.Dataset, names: Sequence[str], hands: Sequence[HandPick]) -> set[tuple[int, int]]:
    """Find the picks that were decided on by hand.

    Parameters
    ----------
    picks
        `x`, `y`, `count`, and the attribute `diameter`.
    names
        Names of their micrographs.
    hands
        Decisions; each is on the nearest pick, which may be a tenth of a diameter away.

    Returns
    -------
    set of (int, int)
        Micrograph and place of each.

    Raises
    ------
    InputError
        If there is no such micrograph, or no pick near one of the places.
    """
    if not hands:
        return set()
    rows = {name: row for row, name in enumerate(names)}
    reach, counts = REACH * float(picks.attrs["diameter"]), picks["count"].values
    x, y = picks["x"].values, picks["y"].values
    return {_place(hand, rows, x, y, counts, reach) for hand in hands}


def _place(
    hand: HandPick, rows: Mapping[str, int], x: Floats, y: Floats, counts: NDArray[np.integer], reach: float
) -> tuple[int, int]:
    row = rows.get(hand.micrograph)
    if row is None:
        raise InputError(f"accept, reject: no micrograph named {hand.micrograph!r} in this project")
    count = int(counts[row])
    away = np.hypot(x[row, :count] - hand.x, y[row, :count] - hand.y)
    place = int(np.argmin(away)) if count else -1
    if place < 0 or not away[place] <= reach:
        nearest = f"the nearest is {away[place]:.1f} Å away" if place >= 0 else "it has none"
        raise InputError(
            f"accept, reject: no pick of {hand.micrograph!r} within {reach:.1f} Å of x {hand.x:g}, y {hand.y:g} Å "
            f"({nearest}); these decisions by hand were made on other picks"
        )
    return row, place


def check_names(settings: SelectSettings, known: Set[str]) -> None:
    """Raise an `InputError` if settings speak of a micrograph that is not known."""
    hands = {hand.micrograph for hand in (*settings.accept, *settings.reject)}
    for what, names in (("exclude", set(settings.exclude)), ("accept, reject", hands)):
        unknown = sorted(names - known)
        if unknown:
            raise InputError(f"{what}: no micrograph named {unknown[0]!r} in this project")


def settings_of(settings: SelectSettings, names: set[str]) -> SelectSettings:
    """Leave out what settings say of other micrographs than these."""
    hands = {
        key: tuple(hand for hand in getattr(settings, key) if hand.micrograph in names) for key in ("accept", "reject")
    }
    exclude = tuple(name for name in settings.exclude if name in names)
    return settings.model_copy(update={"exclude": exclude, **hands})


def reason_counts(reasons: NDArray[np.int8]) -> NDArray[np.int32]:
    """Count picks per reason and micrograph, int32 `(reason, micrograph)` in the order of `REASONS`."""
    return np.stack([(reasons == i).sum(axis=1) for i in range(len(REASONS))]).astype(np.int32)


def thresholds_text(settings: SelectSettings, picks: str) -> str:
    """Thresholds as the TOML text that `pickcal select --thresholds` replays."""
    values = {key: value for key, value in settings.stored().items() if value is not None}
    return tomli_w.dumps({"picks": picks, "thresholds": values})


def write_thresholds(path: Path, settings: SelectSettings, picks: str) -> None:
    """Write thresholds as a TOML file that `pickcal select --thresholds` replays."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(thresholds_text(settings, picks).encode())


def read_thresholds(path: Path) -> SelectSettings:
    """Read a thresholds file.

    Raises
    ------
    MissingFileError, InputError
        If it is not there, is not TOML, has no `[thresholds]` table or holds a wrong setting.
    """
    return _thresholds(read_toml(path, "thresholds file"), str(path))


def read_thresholds_text(text: str | bytes, where: str) -> SelectSettings:
    """Read the content of a thresholds file.

    Parameters
    ----------
    text
        TOML; bytes are UTF-8.
    where
        What it comes from, for messages.

    Raises
    ------
    InputError
        If it is not TOML, has no `[thresholds]` table or holds a wrong setting.
    """
    try:
        values = tomllib.loads(text.decode() if isinstance(text, bytes) else text)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{where}: not a TOML file: {error}") from None
    return _thresholds(values, where)


def _thresholds(values: dict[str, Any], where: str) -> SelectSettings:
    if not isinstance(values.get("thresholds"), dict):
        raise InputError(f"{where}: expected a [thresholds] table, found {', '.join(values) or 'nothing'}")
    return validated(SelectSettings, values["thresholds"], where)
