"""What a stored selection says: of which picks it is, its thresholds, what it leaves, and whether it still holds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pickcal.errors import ProjectError
from pickcal.project import Project
from pickcal.schema import Columns
from pickcal.selection import ACCEPTED, REASONS
from pickcal.settings import SelectSettings, validated
from pickcal.stages.calibrate_result import fingerprint

if TYPE_CHECKING:
    import xarray as xr


def expected_false(project: Project, name: str) -> dict[str, object]:
    """Give the number of false picks to expect among those accepted, noise and junk apart; {} without a mixture."""
    counts = project.stored(f"selection/{name}")
    expected = {key: float(counts.attrs[key]) for key in ("expected_noise", "expected_junk") if key in counts.attrs}
    if not expected:
        return {}
    accepted = reason_totals(counts)[REASONS[ACCEPTED]] if "counts" in counts else 0
    total = sum(expected.values())
    return {**expected, "expected_false_rate": total / accepted if accepted else 0.0}


def reason_totals(counts: Columns) -> dict[str, int]:
    """Count picks per reason over all micrographs, of a stored selection or of what `select` returned."""
    reasons, totals = np.asarray(counts["reason"]), np.asarray(counts["counts"]).sum(axis=1)
    return {str(reason): int(total) for reason, total in zip(reasons, totals, strict=True)}


def selection_counts(project: Project, counts: xr.Dataset, name: str) -> dict[str, Any]:
    """Give what a stored selection leaves, as plain values: thresholds, totals per reason, false picks to expect.

    `caution` says why they may be no particles, where something speaks for that.

    Parameters
    ----------
    project, name
        Where it is stored, and its name.
    counts
        As `select` returned it.
    """
    thresholds = {
        key: value
        for key, value in thresholds_of(project, name).stored().items()
        if value is not None and value not in ([], False)
    }
    for key in ("accept", "reject"):
        if key in thresholds:
            thresholds[key] = f"{len(thresholds[key])} by hand"
    return {
        "selection": name,
        "picks": counts.attrs["picks"],
        "calibrated": bool(counts.attrs["calibrated"]),
        "thresholds": thresholds,
        **reason_totals(counts),
        **expected_false(project, name),
        **({"caution": str(counts.attrs["caution"])} if "caution" in counts.attrs else {}),
    }


def is_stale(project: Project, name: str, status: NDArray[np.int8] | None = None) -> bool:
    """Whether the picks of a selection, or their calibration, have changed since, or more micrographs are picked.

    `status` is that of every micrograph in its picks, where it is known.
    """
    attributes = project.attributes(f"selection/{name}")
    picks = str(attributes["picks"])
    return picks in project.names("picks") and attributes.get("fingerprint") != fingerprint(project, picks, status)


def stored_selection(project: Project, name: str) -> tuple[str, SelectSettings]:
    """Name of the picks and the thresholds of a stored selection.

    Raises
    ------
    ProjectError
        If there is no such selection, or since then its picks went, were picked or calibrated anew, or more
        micrographs were picked.
    """
    project.require("selection", name)
    if is_stale(project, name):
        raise ProjectError(
            f"{project.path}: selection {name!r} was made before more micrographs were picked, or its picks were "
            "picked or calibrated anew, and would now accept others; give the same select command again"
        )
    picks = picks_of(project, name)
    if picks not in project.names("picks"):
        raise ProjectError(f"{project.path}: selection {name!r} is of picks {picks!r}, which are gone; pick them again")
    return picks, thresholds_of(project, name)


def picks_of(project: Project, name: str) -> str:
    """Name of the picks that a stored selection is of."""
    return str(project.settings(f"selection/{name}")["picks"])


def selections_of(project: Project, picks: str) -> list[str]:
    """Names of the selections of some picks."""
    return [name for name in project.names("selection") if picks_of(project, name) == picks]


def thresholds_of(project: Project, name: str, picks: str | None = None) -> SelectSettings:
    """Thresholds of a stored selection, stale or not.

    Raises
    ------
    ProjectError
        If there is no such selection, or it is not of the picks given.
    """
    project.require("selection", name)
    of = picks_of(project, name)
    if picks is not None and of != picks:
        raise ProjectError(f"{project.path}: selection {name!r} is of picks {of!r}, not of {picks!r}")
    values = {key: value for key, value in project.settings(f"selection/{name}").items() if key != "picks"}
    return validated(SelectSettings, values, f"selection {name}")
