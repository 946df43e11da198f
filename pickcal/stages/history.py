"""What the event records of a project say: how fast stages went, what was slow, what failed and why, time left."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pickcal.engine.journal import runs
from pickcal.engine.one_job import job_at_work
from pickcal.project import Project
from pickcal.schema import Status

MOST_SLOW = 5
MOST_REASONS = 20
LATEST = 200
"""Batches that the present speed is taken from."""


@dataclass
class History:
    """All runs of one group, summed up.

    Attributes
    ----------
    stage
        Name of the stage, for people.
    runs, batches, lost
        Runs, batches recorded, and those of them that failed as a whole.
    statuses
        Status of micrographs as last recorded, by first micrograph of their batch.
    totals
        What the stage counted in a batch, likewise.
    micrographs, busy
        Micrographs that batches ran for, and the seconds that they ran, over all workers.
    peak_memory
        Largest memory of a worker, bytes.
    workers
        Their names.
    reasons
        Why micrographs failed in the latest run, and how many for each reason.
    slow
        Seconds and index of the slowest micrographs, at most `MOST_SLOW`, the slowest last.
    latest
        Begin and end (seconds since 1970) and micrographs of the latest run's last batches, at most `LATEST`.
    wall
        Seconds from the first to the last moment of each run, summed up.
    left
        Micrographs that the latest run has still to do.
    """

    stage: str = ""
    runs: int = 0
    batches: int = 0
    lost: int = 0
    micrographs: int = 0
    busy: float = 0.0
    peak_memory: int = 0
    workers: set[str] = field(default_factory=set)
    reasons: Counter[str] = field(default_factory=Counter)
    slow: list[tuple[float, int]] = field(default_factory=list)
    statuses: dict[int, str] = field(default_factory=dict)
    totals: dict[int, dict[str, int]] = field(default_factory=dict)
    latest: list[tuple[float, float, int]] = field(default_factory=list)
    wall: float = 0.0
    left: int = 0

    def take(self, run: Iterable[dict[str, Any]]) -> None:
        """Add the records of one run; its reasons of failure take the place of those of earlier runs."""
        spans: deque[tuple[float, float, int]] = deque(maxlen=LATEST)
        first, last = np.inf, -np.inf
        for record in run:
            if record["event"] == "begin":
                self.stage, self.left = str(record["stage"]), int(record["micrographs"])
                self.runs += 1
                self.reasons.clear()
            elif record["event"] == "batch":
                self._batch(record)
                count = int(record["stop"]) - int(record["start"])
                self.left -= count
                if record["began"]:
                    spans.append((float(record["began"]), float(record["ended"]), count))
                    first, last = min(first, spans[-1][0]), max(last, spans[-1][1])
        if spans:
            self.wall += last - first
            self.latest = sorted(spans, key=lambda span: span[1])

    def _batch(self, record: dict[str, Any]) -> None:
        self.batches += 1
        count = int(record["stop"]) - int(record["start"])
        if record["error"] is not None:
            self.lost += 1
            self.reasons[str(record["error"])] += count
        self.reasons.update({str(reason): int(n) for reason, n in record["reasons"].items()})
        if record["statuses"]:
            self.statuses[int(record["start"])] = str(record["statuses"])
            self.totals[int(record["start"])] = dict(record.get("totals") or {})
        if not record["began"]:
            return
        self.micrographs += count
        self.busy += float(record["ended"]) - float(record["began"])
        self.peak_memory = max(self.peak_memory, int(record["peak_memory"]))
        self.workers.add(str(record["worker"]))
        if record["slowest"] >= 0:
            self.slow = sorted([*self.slow, (float(record["slowest_seconds"]), int(record["slowest"]))])[-MOST_SLOW:]

    @property
    def rate(self) -> float:
        """Micrographs a second, all workers together, over the latest batches; 0 if unknown."""
        if not self.latest:
            return 0.0
        seconds = max(end for _, end, _ in self.latest) - min(began for began, _, _ in self.latest)
        return sum(count for _, _, count in self.latest) / seconds if seconds > 0 else 0.0


def history(project: Project, group: str) -> History | None:
    """Sum up the event records of a group; None if there are none."""
    mark = project.group_mark(group)
    found = History()
    for run in runs(project.path, group, mark) if mark else ():
        found.take(run)
    return found if found.runs else None


def words(project: Project, group: str, found: History, status: NDArray[np.int8]) -> dict[str, Any]:
    """Give plain values of a history for `pickcal status` and the report.

    Parameters
    ----------
    project, group, found
        Whose.
    status
        Of every micrograph in the group, from `statuses`: what a job wrote just before it was killed is not recorded.
    """
    now = job_at_work(project.path, group)
    out: dict[str, Any] = {
        "stage": found.stage,
        "running": now is not None,
        "runs": found.runs,
        "batches": found.batches,
        "micrographs_left": min(max(0, found.left), int((status == Status.PENDING).sum())),
        "micrographs_per_minute": round(60 * found.rate, 1),
        "seconds_per_micrograph": round(found.busy / found.micrographs, 3) if found.micrographs else None,
        "wall_seconds": round(found.wall, 1),
        "workers": len(found.workers),
        "peak_memory_mb": round(found.peak_memory / 1e6),
        "slowest": [
            {"micrograph": str(project.read("micrographs", "name", index, index + 1)[0]), "seconds": seconds}
            for seconds, index in reversed(found.slow)
        ],
        "failures_by_reason": dict(found.reasons.most_common(MOST_REASONS)),
    }
    if now is not None:
        out["by"] = f"{now.get('command')} on {now.get('host')}, process {now.get('pid')}"
        if now["elsewhere"]:  # whether it lives is concluded from this
            renewed = time.strftime("%H:%M:%S", time.localtime(float(now.get("renewed", 0.0))))
            out["by"] += f", last heard of at {renewed} by its clock"
        out["running_for"] = round(time.time() - float(now.get("since", time.time())))
        out["seconds_left"] = round(max(0, found.left) / found.rate) if found.rate else None
    return out


def statuses(project: Project, group: str, found: History | None) -> NDArray[np.int8]:
    """Status of every micrograph, the quick way: batches recorded as complete are not read again.

    A batch that is done never changes, and the records are of this very group; what is not recorded as done is read.
    """
    if found is None:
        return project.done(group)
    out = np.full(project.count, -1, dtype=np.int8)
    for start, length in _complete(found).items():
        out[start : start + length] = Status.DONE
    for start, stop in _gaps(out >= 0, project.batch):
        out[start:stop] = project.read(group, "status", start, stop)
    return out


def totals(project: Project, group: str, found: History | None, columns: dict[str, str]) -> dict[str, int]:
    """Sum columns over all micrographs, the quick way, as `statuses`.

    Parameters
    ----------
    project, group, found
        Whose.
    columns
        Column of the group by the name that records have for its sum.
    """
    known, out = np.zeros(project.count, dtype=bool), dict.fromkeys(columns, 0)
    if found is not None:
        for start, length in _complete(found).items():
            recorded = found.totals[start]
            if columns.keys() <= recorded.keys():
                known[start : start + length] = True
                for name in columns:
                    out[name] += recorded[name]
    for start, stop in _gaps(known, project.batch):
        for name, column in columns.items():
            out[name] += int(project.read(group, column, start, stop)[~known[start:stop]].sum())
    return out


def _complete(found: History) -> dict[int, int]:
    """First micrograph and length of the batches that are recorded as done in all micrographs."""
    done = str(int(Status.DONE))
    return {start: len(text) for start, text in found.statuses.items() if text == done * len(text)}


def _gaps(known: NDArray[np.bool_], batch: int) -> list[tuple[int, int]]:
    """Stretches of whole batches of which something is not known."""
    edges = np.flatnonzero(np.diff(np.r_[False, ~known, False].astype(np.int8)))
    return [(int(a) // batch * batch, int(b)) for a, b in edges.reshape(-1, 2)]
