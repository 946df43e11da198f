"""What was asked of pickcal's speed and accuracy, held against what was measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Results = Mapping[str, Any]

MAIN = "pickcal, 50 templates"
BLOBS = "pickcal, blobs"
RELION = "RELION, 50 templates"
LOG = "RELION, LoG"
BEST = "probability"
"""Score that pickcal is judged by: the one its documentation tells users to set thresholds on."""


@dataclass(frozen=True)
class Goal:
    """One thing asked.

    Attributes
    ----------
    text
        What, with the bound.
    measure
        Takes its value from the results; raises `KeyError` where it was not measured.
    bound
        Largest value, or least if `at_least`.
    digits
        Decimals to print.
    given_only
        Asked of the given set alone.
    """

    text: str
    measure: Callable[[Results], float]
    bound: float
    at_least: bool = False
    digits: int = 2
    given_only: bool = False

    def judge(self, results: Results) -> tuple[str, str]:
        """Value and verdict as text."""
        try:
            value = self.measure(results)
        except (KeyError, TypeError):
            return "-", "not measured"
        met = value >= self.bound if self.at_least else value <= self.bound
        return f"{value:.{self.digits}f}", "yes" if met else "no"


def cost(results: Results, program: str, field: str = "cpu") -> float:
    """One figure of a program's cost."""
    return float(_row(results["costs"], program)[field])


def figure(results: Results, program: str, half: str, field: str) -> float:
    """One figure of a program's accuracy."""
    return float(_row(results["accuracy"], program)[half][field])


def _row(rows: Sequence[Mapping[str, Any]], program: str) -> Mapping[str, Any]:
    for row in rows:
        if row["program"] == program:
            return row
    raise KeyError(program)


GOALS = (
    Goal(
        "CPU of RELION / of pickcal, 50 templates: at least 100",
        lambda r: cost(r, RELION) / cost(r, MAIN),
        100,
        True,
        0,
    ),
    Goal("CPU / floor, 50 templates: at most 6", lambda r: cost(r, MAIN) / r["floor"]["floor"], 6, digits=1),
    Goal(
        "F1, 50 templates: at least 0.985", lambda r: figure(r, f"{MAIN}: {BEST}", "easy", "f1"), 0.985, True, 3, True
    ),
    Goal(
        "F1 at a fifth of the signal: at least 0.82",
        lambda r: figure(r, f"{MAIN}: {BEST}", "hard", "f1"),
        *(0.82, True, 3, True),
    ),
    Goal(
        "blobs of ice accepted by select --auto: at most 5",
        lambda r: max(figure(r, f"{MAIN}: select --auto", half, "ice") for half in ("easy", "hard")),
        *(5, False, 0),
    ),
    Goal("median centre error, Å: at most 3", lambda r: figure(r, f"{MAIN}: {BEST}", "easy", "error"), 3),
    Goal(
        "cost of 200 templates / of 50: at most 1.5",
        lambda r: cost(r, "pickcal, 200 templates") / cost(r, MAIN),
        1.5,
    ),
    Goal("CPU of blobs / of RELION's LoG: below 1", lambda r: cost(r, BLOBS) / cost(r, LOG), 1),
    Goal(
        "F1 of blobs - of RELION's LoG: above 0",
        lambda r: figure(r, f"{BLOBS}: {BEST}", "easy", "f1") - figure(r, LOG, "easy", "f1"),
        *(0, True, 3),
    ),
    Goal("CPU s, templates again from the store: at most 0.1", lambda r: cost(r, "pickcal, templates again"), 0.1),
    Goal("CPU s, blobs again from the store: at most 0.1", lambda r: cost(r, "pickcal, blobs again"), 0.1),
    Goal("throughput of 2 workers / of 1: at least 1.9", lambda r: r["workers"]["gain"], 1.9, True),
    Goal("memory of a worker at 4096 x 4096, MB: at most 700", lambda r: r["memory"]["4096"], 700, digits=0),
    Goal("memory of a worker at 8192 x 8192, MB: at most 1000", lambda r: r["memory"]["8192"], 1000, digits=0),
)


def verdicts(results: Results) -> list[tuple[str, str, str]]:
    """What was asked, what was measured and whether it is met, for the goals of this set."""
    kept = [goal for goal in GOALS if results["set"]["name"] == "given" or not goal.given_only]
    return [(goal.text, *goal.judge(results)) for goal in kept]
