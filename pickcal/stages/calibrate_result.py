"""What a stored calibration says: in numbers, in words, and as a digest that tells whether it is still the same."""

from __future__ import annotations

import hashlib
import json

import numpy as np
from numpy.typing import NDArray

from pickcal.calibration.verdicts import ranked_outliers
from pickcal.project import Project
from pickcal.schema import Status, Table
from pickcal.stages.history import history, statuses

COLUMNS = ("verdict", "slope", "slope_low", "slope_high", "rho_before", "rho_after", "outlier")
"""Of a fit, over scores first: what a summary tells of each."""
MOST_OUTLYING = 10
"""Outlying micrographs that a summary names."""


def fingerprint(project: Project, picks: str, status: NDArray[np.int8] | None = None) -> str:
    """Short digest of some picks, of which micrographs they are finished in, and of what calibrates them.

    Parameters
    ----------
    project, picks
        Where they are, and their name.
    status
        Of every micrograph in these picks, where it is known; default: read.
    """
    group = f"picks/{picks}"
    made = hashlib.sha256(str(project.attributes(group)["bank"]).encode())
    status = statuses(project, group, history(project, group)) if status is None else status
    made.update(np.flatnonzero(status == Status.DONE).tobytes())
    fit, mixture = project.stored_calibration(picks), project.stored_mixture(picks)
    if fit is not None:
        for values in (fit["shift"], fit["gain"], np.array([fit.attrs["pivot"]])):
            made.update(values.tobytes())
    if mixture is not None:
        for name in mixture.variables:
            made.update(mixture[name].tobytes())
        made.update(json.dumps(dict(mixture.attrs), sort_keys=True, default=str).encode())
    return made.hexdigest()[:16]


def made_with(project: Project, picks: str) -> str:
    """Short digest of what made some picks: their settings, and their bank or the rows that came in."""
    made = [project.settings(f"picks/{picks}"), project.attributes(f"picks/{picks}").get("bank")]
    return hashlib.sha256(json.dumps(made, sort_keys=True, default=str).encode()).hexdigest()[:16]


def summary(project: Project, picks: str) -> dict[str, object]:
    """Verdicts, slopes, probabilities and outlying micrographs of a stored fit as plain values."""
    fit, mixture = project.stored_calibration(picks), project.stored_mixture(picks)
    assert fit is not None
    out: dict[str, object] = {"reference_defocus": float(fit.attrs["reference_defocus"])}
    main = str(project.attributes(f"picks/{picks}").get("score", "ncc"))
    for i, score in enumerate(fit["score"]):
        one = {name: fit[name][i] for name in COLUMNS}
        out[main if score == "ncc" else str(score)] = {
            "verdict": [str(v) for v in one["verdict"]],
            "slope_per_um": [_plain(v) for v in one["slope"]],
            "interval": [
                [_plain(low), _plain(high)] for low, high in zip(one["slope_low"], one["slope_high"], strict=True)
            ],
            "rho_before": _plain(one["rho_before"]),
            "rho_after": _plain(one["rho_after"]),
            "outliers": int(one["outlier"].sum()),
        }
    out["probability"] = probability_summary(fit, mixture)
    names = [str(name) for name in project.read("micrographs", "name")]
    out["outlying_micrographs"] = ranked_outliers(fit, names, junk_share(fit, mixture))[:MOST_OUTLYING]
    return out


def probability_summary(fit: Table, mixture: Table | None) -> dict[str, object]:
    """How the mixture went, and what it expects, as plain values."""
    out: dict[str, object] = {"verdict": str(fit.attrs.get("probability", "not fitted"))}
    if mixture is None:
        return out
    report = json.loads(mixture.attrs["report"])
    slopes = report["slopes"]
    return {
        **out,
        "noise_from": str(mixture.attrs["noise_from"]),
        "expected_particles": float(_of(mixture, "expected", "particle").sum()),
        "expected_junk": float(_of(mixture, "expected", "junk").sum()),
        "trend": report["trend"],
        "converged": report["converged"],
        "iterations": report["iterations"],
        "particle_score_per_um": slopes["ncc"]["slope"],
        "particle_score_interval": slopes["ncc"].get("interval"),
        "micrographs_fitted": report["micrographs"],
    }


def doubts(mixture: Table | None) -> str:
    """Say why what a mixture takes for particles may be none; "" where nothing speaks for that, or it is not known."""
    return "" if mixture is None else "; ".join(json.loads(mixture.attrs["report"]).get("doubts", []))


def junk_share(fit: Table, mixture: Table | None) -> NDArray[np.floating]:
    """Fraction of the picks of every micrograph that are junk of high power; NaN where it is not known."""
    if mixture is None:
        return np.full(len(fit["defocus"]), np.nan)
    return _of(mixture, "fraction", "junk")


def _of(mixture: Table, name: str, component: str) -> NDArray[np.floating]:
    """Column of a variable over (micrograph, component)."""
    return np.asarray(mixture[name])[:, np.asarray(mixture["component"]).tolist().index(component)]


def _plain(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
