"""Event records: what happened to every batch, one JSON line each, beside the project.

A run of a stage writes objects `RUN.0001.jsonl`, `RUN.0002.jsonl` ... of its own, so that no two processes write one.
Records know the group they belong to by its mark (`Project.group_mark`); a group made anew begins without any. The
journal is for people and for estimates: what is done is known from the project itself, and a journal that cannot be
written stops nothing.
"""

from __future__ import annotations

import datetime
import io
import json
import time
import uuid
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

from pickcal.engine.logs import log
from pickcal.errors import PickcalError
from pickcal.stores.credentials import redacted
from pickcal.stores.places import Url
from pickcal.stores.small_objects import SmallObjects, beside

RECORDS_PER_OBJECT = 1000
SUFFIX = ".jsonl"


@dataclass(frozen=True)
class BatchRecord:
    """What happened to one batch.

    Attributes
    ----------
    start, stop
        Its micrographs.
    worker
        Host and process that ran it; "" if it never came back from one.
    began, ended
        Seconds of the epoch, by the worker's clock.
    peak_memory
        Largest resident memory of the worker process during the batch, bytes; 0 where the system does not tell.
    statuses
        Status of each micrograph afterwards, one digit of `schema.Status` each; "" if unknown.
    slowest, slowest_seconds
        The micrograph that took longest, and how long; -1 and 0 where the stage does not measure it.
    reasons
        How many micrographs failed for each reason.
    totals
        What the stage counted, such as picks and decoys, over the whole batch.
    error
        Why the batch as a whole failed; None if it did not.
    """

    start: int
    stop: int
    worker: str = ""
    began: float = 0.0
    ended: float = 0.0
    peak_memory: int = 0
    statuses: str = ""
    slowest: int = -1
    slowest_seconds: float = 0.0
    reasons: dict[str, int] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)
    error: str | None = None


class Journal:
    """Writes the records of one run of a stage.

    Parameters
    ----------
    project
        Folder of the project or its address.
    stage, group, mark
        What runs, what it writes, and the mark of that group.
    """

    def __init__(self, project: Path | Url | str, stage: str, group: str, mark: str) -> None:
        self._kept: SmallObjects = beside(project)
        stamp = datetime.datetime.now(datetime.UTC).strftime("%Y%m%dT%H%M%S.%f")
        self.run = f"{stamp}-{group.replace('/', '.')}-{uuid.uuid4().hex[:6]}"
        self._head = {"run": self.run, "stage": stage, "group": group, "mark": mark}
        self._count = 0
        self._failed = False

    def begin(self, **facts: Any) -> None:
        """Say that the run begins, and with what."""
        self._append({"event": "begin", "at": time.time(), **self._head, **facts})

    def batch(self, record: BatchRecord) -> None:
        """Keep the record of a batch."""
        self._append({"event": "batch", **asdict(record)})

    def end(self, **facts: Any) -> None:
        """Say that the run is over, and how it went."""
        self._append({"event": "end", "at": time.time(), **facts})

    def _append(self, record: dict[str, Any]) -> None:
        name = f"{self.run}.{1 + self._count // RECORDS_PER_OBJECT:04d}{SUFFIX}"
        self._count += 1
        log(f"stage.{record['event']}", run=self.run, **{k: v for k, v in record.items() if k not in ("event", "run")})
        try:
            self._kept.append(name, redacted(json.dumps(record)).encode() + b"\n")
            if record["event"] != "batch":
                self._kept.flush()
        except (OSError, PickcalError) as error:
            if not self._failed:
                log("journal", level="warning", text=f"events are not kept: {error}")
            self._failed = True


def runs(project: Path | Url | str, group: str, mark: str) -> Iterator[Iterator[dict[str, Any]]]:
    """Give the records of every run of a group, oldest run first; those of older groups of its name are left out.

    Parameters
    ----------
    project
        Folder of the project or its address.
    group, mark
        The group, and its mark.

    Yields
    ------
    iterator of dict
        Records of one run as they were written, the first with `event` "begin"; read as they are asked for, since a
        long run has very many.
    """
    kept = beside(project)
    objects: dict[str, list[str]] = {}
    for name in kept.names():
        if name.endswith(SUFFIX):
            objects.setdefault(name.rsplit(".", 2)[0], []).append(name)
    for run, names in sorted(objects.items()):
        if f"-{group.replace('/', '.')}-" not in run:
            continue
        records = chain.from_iterable(_records(kept, name) for name in sorted(names))
        first = next(records, {})
        if first.get("event") == "begin" and first.get("mark") == mark:
            yield chain((first,), records)


def _records(kept: SmallObjects, name: str) -> Iterator[dict[str, Any]]:
    found = kept.read(name)
    for line in io.BytesIO(found[0]) if found is not None else ():
        try:
            record = json.loads(line)
        except ValueError:
            continue  # the last line of a driver that was killed while writing
        if isinstance(record, dict):
            yield record
