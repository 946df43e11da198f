"""Selection by thresholds: every rejected pick has its reason, and thresholds replay from a small TOML file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tomli_w
import xarray as xr
from numpy.typing import NDArray

from pickcal.calibration import calibrated_scores
from pickcal.errors import InputError
from pickcal.formats.atomic import atomic_path
from pickcal.schema import Status
from pickcal.settings import HandPick, SelectSettings, read_toml, validated

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
    if likelihood is None and (settings.probability is not None or settings.fdr is not None):
        reason = (
            "they are not calibrated" if calibration is None else calibration.attrs.get("probability", "no mixture")
        )
        raise InputError(
            f"probability, fdr: these picks have no probabilities ({reason}); run 'pickcal calibrate' first"
        )
    label = picks.attrs.get("score_label", NCC_LABEL)
    if settings.min_ncc is not None and abs(settings.min_ncc) > MOST_NCC and label == NCC_LABEL:
        raise InputError(f"min_ncc: expected an NCC score between -2 and 2, got {settings.min_ncc:g}")
    if (settings.min_power, settings.max_power) != (None, None) and "power" not in picks.attrs.get("scores", ["power"]):
        raise InputError("min_power, max_power: these picks have no power score; 'pickcal score' gives them one")
    scores = calibrated_scores(picks, None if settings.raw else calibration)
    ncc, power = scores["ncc"].values, scores["power"].values
    valid = np.arange(ncc.shape[1])[None, :] < picks["count"].values[:, None]
    valid &= (picks["status"].values == Status.DONE)[:, None]
    names = [str(name) for name in micrographs["name"].values]
    unknown = sorted(set(settings.exclude) - set(names))
    if unknown:
        raise InputError(f"exclude: no micrograph named {unknown[0]!r} in this project")
    reason = np.where(valid, ACCEPTED, NO_PICK).astype(np.int8)
    excluded = np.array([name in settings.exclude for name in names])[:, None]
    checks = [
        ("micrograph", np.broadcast_to(excluded, ncc.shape)),
        ("edge", _nearer_than(picks, micrographs, settings.edge)),
        ("low score", _below(ncc, settings.min_ncc, unknown=True)),
        ("low power", _below(power, settings.min_power)),
        ("high power", _below(-power, None if settings.max_power is None else -settings.max_power)),
    ]
    if likelihood is not None:
        checks.append(("probability", _below(likelihood["probability"].values, settings.probability, unknown=True)))
        rate = None if settings.fdr is None else -settings.fdr
        checks.append(("false discovery rate", _below(-likelihood["q_value"].values, rate, unknown=True)))
    for name, fails in checks:
        reason[(reason == ACCEPTED) & fails] = REASONS.index(name)
    rejected, accepted = (hand_places(picks, names, hands) for hands in (settings.reject, settings.accept))
    for row, place in sorted(rejected & accepted):
        raise InputError(f"accept, reject: pick {place} of {names[row]!r} is in both; take it out of one")
    for places, value in ((rejected, BY_HAND), (accepted, ACCEPTED)):
        for row, place in places:
            if valid[row, place] and names[row] not in settings.exclude:
                reason[row, place] = value
    return reason


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
    reach, counts, found = REACH * float(picks.attrs["diameter"]), picks["count"].values, set()
    x, y = picks["x"].values, picks["y"].values
    for hand in hands:
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
        found.add((row, place))
    return found


def _below(values: NDArray[np.floating], least: float | None, unknown: bool = False) -> NDArray[np.bool_]:
    """Which values are below a threshold; `unknown` is whether NaN counts as below."""
    if least is None:
        return np.zeros(values.shape, dtype=bool)
    return np.asarray((values < least) | (np.isnan(values) & unknown))


def _nearer_than(picks: xr.Dataset, micrographs: xr.Dataset, edge: float | None) -> NDArray[np.bool_]:
    x, y = picks["x"].values, picks["y"].values
    if edge is None:
        return np.zeros(x.shape, dtype=bool)
    if not ((micrographs["width"].values > 0) | (picks["count"].values == 0)).all():
        raise InputError("edge: the size of some micrographs is not known; import the table with --size ROWS COLUMNS")
    pixel = micrographs["pixel_size"].values
    right = ((micrographs["width"].values - 1) * pixel)[:, None]
    bottom = ((micrographs["height"].values - 1) * pixel)[:, None]
    return np.asarray((x < edge) | (y < edge) | (x > right - edge) | (y > bottom - edge))


def reason_counts(reasons: NDArray[np.int8]) -> NDArray[np.int32]:
    """Count picks per reason and micrograph, int32 `(reason, micrograph)` in the order of `REASONS`."""
    return np.stack([(reasons == i).sum(axis=1) for i in range(len(REASONS))]).astype(np.int32)


def write_thresholds(path: Path, settings: SelectSettings, picks: str) -> None:
    """Write thresholds as a TOML file that `pickcal select --thresholds` replays."""
    values = {key: value for key, value in settings.stored().items() if value is not None}
    with atomic_path(path) as temporary:
        temporary.write_bytes(tomli_w.dumps({"picks": picks, "thresholds": values}).encode())


def read_thresholds(path: Path) -> SelectSettings:
    """Read a thresholds file.

    Raises
    ------
    MissingFileError, InputError
        If it is not there, is not TOML, has no `[thresholds]` table or holds a wrong setting.
    """
    values = read_toml(path, "thresholds file")
    if not isinstance(values.get("thresholds"), dict):
        raise InputError(f"{path}: expected a [thresholds] table, found {', '.join(values) or 'nothing'}")
    return validated(SelectSettings, values["thresholds"], str(path))
