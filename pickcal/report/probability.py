"""What the report says of probabilities: the mixture's verdict, expected false picks, micrographs to look at."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from pickcal.calibration.verdicts import ScoreWords, ranked_outliers
from pickcal.plots.style import UM
from pickcal.project import Project
from pickcal.stages.calibrate_result import junk_share
from pickcal.stages.control_result import stored_control
from pickcal.stages.expected import sorted_probabilities, threshold_table
from pickcal.stages.select_result import expected_false, is_stale, picks_of

THRESHOLD_WORDS = {
    "min_ncc": "{words.score} at least {}",
    "min_power": "{words.power} at least {}",
    "max_power": "{words.power} at most {}",
    "probability": "probability at least {}",
    "fdr": "false discovery rate at most {:.3g} %",
    "edge": "at least {} Å from the border",
}


def probability_content(
    project: Project, picks: str, fit: xr.Dataset | None, mixture: xr.Dataset | None
) -> dict[str, Any]:
    """Collect verdict, expected numbers and thresholds of one mixture as plain values.

    Parameters
    ----------
    project, picks
        Which picks.
    fit, mixture
        Their stored lines and mixture; None where there are none.

    Returns
    -------
    dict
        `verdict`; `components` (name and expected number), empty without a mixture; `from_decoys`; `junk`, whether junk
        can be told, which takes a power score; `thresholds` (rows of text: threshold, accepted, expected noise, junk,
        false rate).
    """
    nothing: dict[str, Any] = {"components": [], "thresholds": [], "from_decoys": False, "junk": False}
    if fit is None:
        return {"verdict": "", **nothing}
    verdict = str(fit.attrs.get("probability", "calibrated by an older pickcal; calibrate again"))
    if mixture is None:
        return {"verdict": verdict, **nothing}
    kinds = (("particle", "particles"), ("noise", "noise"), ("junk", "junk"))
    with_junk = _has_power(mixture)
    expected = mixture["expected"].sum("micrograph")
    components = [
        (word, f"{float(expected.sel(component=name)):.0f}") for name, word in (kinds if with_junk else kinds[:2])
    ]
    found = sorted_probabilities(project, picks)
    assert found is not None
    rows = [
        {
            "threshold": f"{row['kind']} at most {100 * row['value']:g} %"
            if row["kind"] == "false discovery rate"
            else f"{row['kind']} at least {row['value']:g}",
            "accepted": row["accepted"],
            "noise": f"{row['noise']:.1f}",
            "junk": f"{row['junk']:.1f}",
            "rate": f"{100 * row['rate']:.1f} %",
        }
        for row in threshold_table(found)
    ]
    return {
        "verdict": verdict,
        "components": components,
        "thresholds": rows,
        "from_decoys": mixture.attrs["noise_from"] == "decoys",
        "junk": with_junk,
    }


def _has_power(mixture: xr.Dataset) -> bool:
    return bool(np.isfinite(mixture["power_level"].values).any())


def outlying_content(fit: xr.Dataset, mixture: xr.Dataset | None, names: list[str]) -> list[dict[str, str]]:
    """Micrographs to look at, the furthest from the fits first, with why: name, defocus, reasons."""
    return [
        {"name": str(row["name"]), "defocus": _defocus(row["defocus"]), "why": str(row["why"])}
        for row in ranked_outliers(fit, names, junk_share(fit, mixture))
    ]


def control_content(project: Project, picks: str) -> dict[str, Any] | None:
    """Say what the noise-only control of some picks found; None where there is none that still holds.

    Returns
    -------
    dict
        `verdict`, `warning` and `tried` in words, `rows` (text): defocus range, accepted on copies and in reality.
    """
    found = stored_control(project, picks)
    if found is None:
        return None
    rows = [
        {
            "defocus": f"{_defocus(part['defocus_low'])} to {_defocus(part['defocus_high'])}",
            "copies": f"{part['control_accepted']:.1f}",
            "real": f"{part['real_accepted']:.1f}",
        }
        for part in found["terciles"]
    ]
    tried = f"{found['micrographs']} of {found['of']} micrographs tried"
    return {
        "verdict": _sentence(found["verdict"]),
        "warning": _sentence(found["warning"]),
        "tried": tried,
        "rows": rows,
    }


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _defocus(value: Any) -> str:
    return f"{float(value) * UM:.3f}" if np.isfinite(float(value)) else "–"


def thresholds_in_words(settings: dict[str, Any], scores: ScoreWords | None = None) -> str:
    """Thresholds of a selection as a person says them, "none" where there are none.

    Parameters
    ----------
    settings
        Of the selection.
    scores
        What the scores of its picks are called; default: as our own.

    Examples
    --------
    >>> thresholds_in_words({"picks": "template", "fdr": 0.05, "max_power": 2.3})
    'power score at most 2.3, false discovery rate at most 5 %'
    """
    words = []
    for key, text in THRESHOLD_WORDS.items():
        value = settings.get(key)
        if value is not None:
            value = 100 * value if key == "fdr" else f"{value:g}"
            words.append(text.format(value, words=scores or ScoreWords()))
    excluded = settings.get("exclude") or ()
    words += [f"{len(excluded)} micrograph{'s' if len(excluded) > 1 else ''} excluded"] if excluded else []
    words += ["raw scores"] if settings.get("raw") and words else []
    return ", ".join(words) or "none"


def expected_in_words(project: Project, selection: str, accepted: int) -> str:
    """Say how many of the accepted picks of a selection are expected to be false; "" where nothing can be said."""
    if is_stale(project, selection):
        return (
            "made before more micrographs were picked, or its picks were picked or calibrated anew: its counts are of "
            "then, and it is not drawn; select again"
        )
    expected: dict[str, Any] = expected_false(project, selection)
    if not expected or not accepted:
        return ""
    noise, junk = expected["expected_noise"], expected["expected_junk"]
    text = (
        f"of {accepted} accepted picks {noise + junk:.0f} are expected to be false "
        f"({100 * expected['expected_false_rate']:.1f} %)"
    )
    mixture = project.mixture(picks_of(project, selection))
    return f"{text}: {noise:.0f} noise, {junk:.0f} junk" if mixture is not None and _has_power(mixture) else text
