"""What the main threshold is on, and which of the thresholds belong to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pickcal.settings import SelectSettings

Method = Literal["raw", "line", "probability", "fdr"]
METHODS: tuple[Method, ...] = ("raw", "line", "probability", "fdr")
MAIN: dict[Method, str] = {"raw": "min_ncc", "line": "min_ncc", "probability": "probability", "fdr": "fdr"}
"""The main threshold of each method."""
TITLES: dict[Method, str] = {
    "raw": "Raw score",
    "line": "Calibrated score",
    "probability": "Probability",
    "fdr": "False discovery rate",
}
THRESHOLDS = ("min_ncc", "probability", "fdr", "min_power", "max_power", "edge")
MAINS = ("min_ncc", "probability", "fdr")


def method_of(settings: SelectSettings, allowed: Sequence[Method], wanted: str = "") -> Method:
    """Find the method under which thresholds are shown.

    Parameters
    ----------
    settings
        The thresholds.
    allowed
        Methods that the picks allow.
    wanted
        Taken if it fits the thresholds; default "", no preference.
    """
    if settings.raw or "line" not in allowed:
        return "raw"
    given = [m for m in allowed if m != "raw" and getattr(settings, MAIN[m]) is not None]
    if wanted in allowed and wanted != "raw" and (not given or wanted in given):
        return next(m for m in allowed if m == wanted)
    return given[0] if given else "line"


def fixed_of(settings: SelectSettings, method: Method) -> SelectSettings:
    """Thresholds that are none of a method's own: they are applied when the picks are binned."""
    others = {name: getattr(settings, name) for name in MAINS if name != MAIN[method]}
    return SelectSettings(raw=method == "raw", **others)


def thresholds_only(settings: SelectSettings, method: Method) -> SelectSettings:
    """Thresholds without the main ones of other methods."""
    others = {name: None for name in MAINS if name != MAIN[method]}
    return settings.model_copy(update={**others, "raw": method == "raw"})
