"""Thresholds and live counts: one component of our own, told in one message what a move changed."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pickcal.calibration.verdicts import ScoreWords
from pickcal.dashboard.binned.cube import Counts, Cube
from pickcal.dashboard.methods import MAIN, MAINS, METHODS, THRESHOLDS, TITLES
from pickcal.dashboard.session import Session
from pickcal.dashboard.views.component import Component
from pickcal.dashboard.views.look import HERE, Look
from pickcal.selection import ACCEPTED, REASONS
from pickcal.settings import SelectSettings

WIDTH = 320
LARGEST = ("max_power", "fdr")
"""Thresholds above which picks are rejected; of the others it is below."""
RANGES: dict[str, tuple[float, float]] = {
    "min_power": (0.0, math.inf),
    "max_power": (math.ulp(0.0), math.inf),
    "probability": (0.0, 1.0),
    "fdr": (math.ulp(0.0), math.nextafter(1.0, 0.0)),
    "edge": (0.0, math.inf),
}
"""Values that settings take, both ends included."""
WORDS = {
    "micrograph": "micrograph excluded",
    "edge": "near the border",
    "probability": "low probability",
    "by hand": "rejected by hand",
}
REASON_OF = {
    "exclude": "micrograph",
    "edge": "edge",
    "min_ncc": "low score",
    "min_power": "low power",
    "max_power": "high power",
    "probability": "probability",
    "fdr": "false discovery rate",
    "reject": "by hand",
}
CLASSES = ("low", "middle", "high")
ALL = frozenset(("picks", "method", "thresholds", "decisions", "settled", "cube", "progress"))
STYLE = """
:host { display: block; }
.panel { color: var(--pc-text); font-size: 13px; padding: 8px 12px; box-sizing: border-box; }
fieldset { border: 1px solid var(--pc-line); border-radius: 6px; margin: 0 0 10px; padding: 4px 8px 6px; }
legend { all: unset; font-weight: 600; padding: 0 4px; }
.methods label { display: flex; align-items: center; gap: 6px; padding: 2px 0; cursor: pointer; }
.methods label.off { color: var(--pc-faint); cursor: not-allowed; }
.methods input, input[type=range], progress { accent-color: var(--pc-accepted); }
.control { margin-bottom: 8px; }
.both { display: flex; gap: 8px; align-items: center; }
input[type=range] { flex: 1; min-width: 0; margin: 2px 0; padding: 0; }
input[type=number] { width: 92px; box-sizing: border-box; font: inherit; color: var(--pc-text);
  background: var(--pc-background); border: 1px solid var(--pc-faint); border-radius: 4px; padding: 2px 4px; }
input[type=number]::placeholder { color: var(--pc-faint); opacity: 1; }
input:disabled { opacity: 0.6; }
button { font: inherit; color: var(--pc-text); background: var(--pc-background); border: 1px solid var(--pc-faint);
  border-radius: 4px; padding: 3px 10px; cursor: pointer; }
button:hover { background: var(--pc-raised); }
button:disabled, button[aria-disabled=true] { color: var(--pc-faint); border-color: var(--pc-line); cursor: default; }
.actions, .also { display: flex; flex-wrap: wrap; gap: 6px; margin-bottom: 8px; }
.chip { background: var(--pc-raised); border: 1px solid var(--pc-line); border-radius: 12px;
  padding: 2px 4px 2px 10px; }
.chip button { border: 0; background: none; padding: 0 6px; }
.decided div { display: flex; justify-content: space-between; align-items: center; gap: 8px; padding: 2px 0; }
.counts { border-top: 1px solid var(--pc-line); padding-top: 8px; font-variant-numeric: tabular-nums; }
.accepted { margin: 0 0 4px; min-height: 24px; }
.accepted strong { font-size: 18px; color: var(--pc-accepted); }
.truth { display: flex; flex-wrap: wrap; gap: 4px 14px; margin-top: 4px; }
table { border-collapse: collapse; width: 100%; margin-top: 10px; }
th { font-weight: 400; text-align: left; padding: 2px 0; white-space: nowrap; }
thead th, thead td { white-space: normal; color: var(--pc-faint); border-bottom: 1px solid var(--pc-line); }
thead th:nth-child(2), td.number { text-align: right; padding-right: 8px; white-space: nowrap; }
.share { width: 64px; }
.bar { height: 9px; min-width: 1px; background: var(--pc-rejected); }
.binning { display: flex; gap: 8px; align-items: center; color: var(--pc-faint); margin-top: 8px; min-height: 18px; }
progress { flex: 1; min-width: 40px; }
.failure { color: var(--pc-text); font-weight: 600; margin: 6px 0 0; }
.spoken, caption { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); margin: 0; }
"""


class ThresholdsPanel(Component):
    """The component; see thresholds.js."""

    _esm = HERE / "thresholds.js"


class ThresholdsView:
    """Method, thresholds, undo, and what is accepted and rejected under them.

    Parameters
    ----------
    session, look
        As of all views.
    """

    def __init__(self, session: Session, look: Look) -> None:
        self._session = session
        self._heard = 0
        self._controls: list[dict[str, Any]] = []
        self._why: dict[str, str] = {}
        self._words = ScoreWords()
        self.layout = ThresholdsPanel(
            session,
            self._receive,
            first=json.dumps(self._message(ALL)),
            stylesheets=[look.variables(), STYLE, look.focus],
            width=WIDTH,
        )

    def refresh(self, changes: frozenset[str]) -> None:
        """Show what changed, in one message."""
        if changes & ALL:
            self.layout._send_msg(self._message(changes))

    def _message(self, changes: frozenset[str]) -> dict[str, Any]:
        session = self._session
        message: dict[str, Any] = {"version": session.version, "heard": self._heard}
        if "picks" in changes:
            message["methods"] = self._methods()
        if changes & {"picks", "method", "cube"}:
            message |= self._described("picks" in changes)
        message |= {
            "method": session.method,
            "values": {name: getattr(session.settings, name) for name in THRESHOLDS},
            "also": self._also(),
            "decided": self._decided(),
            "undo": session.can_undo,
            "redo": session.can_redo,
            "counts": self._counts(),
        }
        return message | self._binning()

    def _methods(self) -> list[dict[str, str]]:
        """All methods, those that these picks do not allow with the reason; read once for these picks."""
        session = self._session
        self._words = session.inspector.words(session.picks)
        allowed = session.methods
        if "line" not in allowed:
            why = "calibrate these picks first, with 'pickcal calibrate'"
        else:
            why = f"no probabilities: {session.inspector.probability_verdict(session.picks)}"
        self._why = {method: "" if method in allowed else why for method in METHODS}
        return [{"name": method, "title": TITLES[method], "why": self._why[method]} for method in METHODS]

    def _described(self, anew: bool) -> dict[str, Any]:
        """Thresholds that there are, with their edges; nothing if they are as before."""
        cube = self._session.cube
        controls = [self._control(name, cube) for name in (self._session.main, "min_power", "max_power", "edge")]
        if controls == self._controls and not anew:
            return {}
        self._controls = controls
        return {"controls": controls}

    def _control(self, name: str, cube: Cube | None) -> dict[str, Any]:
        label = self._label(name)
        spec = {"name": name, "label": label, "exact": f"{label}, exact value", "edges": [], "step": 0.01, "why": ""}
        spec["far"] = "high" if name in LARGEST else "low"
        if cube is None:
            # until there are grids again, a range that the keyboard is on stays as it is
            return next((old for old in self._controls if (old["name"], old["label"]) == (name, label)), spec)
        grid = cube.border if name == "edge" else cube.power if name.endswith("power") else cube.main
        if grid is None:
            spec["why"] = "these picks have no power score; 'pickcal score' gives them one"
            return spec
        low, high = RANGES.get(name, (-math.inf, math.inf))
        edges = grid.edges[np.isfinite(grid.edges) & (grid.edges >= low) & (grid.edges <= high)]
        return spec | {"edges": edges.tolist(), "step": _step(edges)}

    def _label(self, name: str) -> str:
        kind = "raw" if self._session.settings.raw else "calibrated"
        return {
            "min_ncc": f"Least {self._words.axis('ncc', kind)}",
            "probability": "Least probability of being a particle",
            "fdr": "Largest false discovery rate",
            "min_power": f"Least {self._words.axis('power', kind)}",
            "max_power": f"Largest {self._words.axis('power', kind)}",
            "edge": "Least distance from the border (Å)",
        }[name]

    def _also(self) -> list[dict[str, str]]:
        """List the main thresholds of other methods that hold besides."""
        session = self._session
        found = []
        for name in MAINS:
            value = getattr(session.settings, name)
            if name != MAIN[session.method] and value is not None:
                what = {"min_ncc": self._words.score, "fdr": "false discovery rate"}.get(name, name)
                found.append({"name": name, "text": f"{what} at {'most' if name in LARGEST else 'least'} {value:g}"})
        return found

    def _decided(self) -> list[dict[str, str]]:
        """How many micrographs are excluded and picks decided by hand."""
        settings, read_only = self._session.settings, self._session.read_only
        found = []
        if settings.exclude:
            found.append({"what": "excluded", "text": _many(len(settings.exclude), "micrograph excluded"), "why": ""})
        if settings.accept or settings.reject:
            text = f"By hand: {len(settings.accept):,} accepted, {len(settings.reject):,} rejected"
            found.append({"what": "hands", "text": text, "why": "this page is read-only" if read_only else ""})
        return found

    def _counts(self) -> dict[str, Any] | None:
        session = self._session
        counts, cube = session.counts, session.cube
        if counts is None or cube is None:
            return None
        return {
            "about": "" if counts.exact else "about ",
            "total": int(counts.reasons.sum()),
            "accepted": int(counts.reasons[ACCEPTED]),
            "reasons": _reasons(counts.reasons, session.settings),
            "expected": _expected(counts),
            "truth": _truth(counts),
            "classes": _classes(counts, cube),
        }

    def _binning(self) -> dict[str, Any]:
        """How far the binning is, and why there is none."""
        session = self._session
        cube, key = session.cube, session.key
        failure = session.inspector.failure(*key)
        words = f"These picks could not be counted: {failure}" if failure else ""
        message: dict[str, Any] = {"binning": None, "failure": words}
        if not failure and (cube is None or not cube.complete):
            part = session.inspector.progress(*key)
            how = "counting" if cube is None else "from a sample"
            message["binning"] = {"part": round(part, 2), "text": f"{how}, {100 * part:.0f} % binned"}
        return message

    def _receive(self, message: Mapping[str, Any]) -> None:
        self._heard = max(self._heard, int(message.get("number", 0)))
        if not self._session.attempt(lambda: self._act(message)):
            # what was typed or chosen and is not allowed gives way to what holds
            self.refresh(ALL - {"picks"})

    def _act(self, message: Mapping[str, Any]) -> None:
        session = self._session
        if "threshold" in message:
            value = message["value"]
            final = bool(message["final"])
            session.set_threshold(str(message["threshold"]), None if value is None else float(value), final)
        elif "method" in message:
            session.set_method(message["method"])
        elif "clear" in message:
            self._clear(str(message["clear"]))
        elif "action" in message:
            {"undo": session.undo, "redo": session.redo, "propose": session.propose}[str(message["action"])]()
        elif "ready" in message:
            self._heard = 0
            self.refresh(ALL)

    def _clear(self, what: str) -> None:
        """Take all excluded micrographs back in, or leave all picks to the thresholds."""
        session = self._session
        if what == "excluded":
            session.clear_excluded()
        else:
            session.clear_hands()


def _step(edges: NDArray[np.floating]) -> float:
    """Step of the arrow keys in the field for exact values: one digit, about as wide as the edges are apart."""
    if len(edges) < 2:
        return 0.01
    return float(f"{np.median(np.diff(edges)):.0e}")


def _many(number: int, what: str) -> str:
    first, _, rest = what.partition(" ")
    return f"{number:,} {first}{'' if number == 1 else 's'} {rest}".strip()


def _reasons(totals: NDArray[np.int64], settings: SelectSettings) -> list[tuple[str, int]]:
    """Reasons that occur, or that some threshold can give, with the number of picks."""
    given = {reason for name, reason in REASON_OF.items() if getattr(settings, name) not in (None, ())}
    return [
        (WORDS.get(reason, reason), int(total))
        for reason, total in zip(REASONS[1:], totals[1:], strict=True)
        if total or reason in given
    ]


def _expected(counts: Counts) -> dict[str, float | None] | None:
    """Give the expected false picks among the accepted ones; junk is None where it cannot be told."""
    if not math.isfinite(counts.noise):
        return None
    return {"noise": float(counts.noise), "junk": float(counts.junk) if math.isfinite(counts.junk) else None}


def _truth(counts: Counts) -> list[tuple[str, float | None]] | None:
    if not counts.particles:
        return None
    both = counts.counted + counts.particles
    return [
        ("precision", counts.true / counts.counted if counts.counted else None),
        ("recall", counts.true / counts.particles),
        ("F1", 2 * counts.true / both),
    ]


def _classes(counts: Counts, cube: Cube) -> list[tuple[str, float | None]]:
    """Mean number of accepted picks at low, middle and high defocus, where there are micrographs left."""
    found: list[tuple[str, float | None]] = []
    for name, bins in zip(CLASSES, cube.classes, strict=True):
        micrographs = int(counts.micrographs[bins].sum())
        if micrographs:
            low, high = float(cube.defocus[bins.start]), float(cube.defocus[bins.stop])
            found.append(
                (f"{name}, {low:.2f} to {high:.2f} µm", round(int(counts.accepted[bins].sum()) / micrographs, 1))
            )
    return found
