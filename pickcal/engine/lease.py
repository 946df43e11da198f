"""One job at a time on a stage of a project: a lease that its holder renews, and that ends with the holder.

A lease is an object in the project's place. Its holder renews it every quarter of `LEASE_SECONDS`; one that was not
renewed for that long, or whose process on this machine is gone, belongs to whoever comes next. Clocks of different
machines are not compared: who finds a lease of another machine watches it for as long as it takes to see it renewed.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from pickcal.engine.place import Place, place_beside
from pickcal.errors import PickcalError, ProjectError
from pickcal.stores.places import Url, place

LEASE_SECONDS = 60.0
"""Seconds after which a lease that nobody renews is over."""
LOOK_SECONDS = 0.5
"""Seconds between looks at the lease of another machine."""

_held: dict[tuple[str, str], Lease] = {}
_guard = threading.RLock()


@contextmanager
def held(project: Path | Url | str, group: str) -> Iterator[Lease]:
    """Be the only job that works on a group of a project until the block ends; may be nested.

    Parameters
    ----------
    project
        Folder of the project or its address; need not exist.
    group
        Group that the stage writes: "micrographs", "picks/NAME".

    Raises
    ------
    ProjectError
        If another job works on it: at once if that can be known, else after `LEASE_SECONDS` at the latest.
    """
    key = (str(place(project).absolute()), group)
    with _guard:
        outer = _held.get(key)
        if outer is None:
            lease = _held[key] = Lease(place_beside(project), group.replace("/", ".") + ".lease", f"{project}: {group}")
    if outer is not None:
        outer.join(f"{project}: {group}")
        yield outer
        return
    try:
        lease.take()
        yield lease
    finally:
        _held.pop(key, None)
        lease.release()


def holder(project: Path | Url | str, group: str) -> dict[str, Any] | None:
    """Who works on a group now, as far as its lease tells: host, pid, since (seconds of the epoch); None if nobody."""
    found = place_beside(project).read(group.replace("/", ".") + ".lease")
    if found is None:
        return None
    record = _parsed(found[0])
    recent = time.time() - float(record.get("renewed", 0.0)) < 2 * LEASE_SECONDS
    alive = _lives_here(record)
    return record if alive or (alive is None and recent) else None


class Lease:
    """The lease that this process holds; made by `held`.

    Attributes
    ----------
    lost
        Whether another process has taken the stage over, because this one could not renew its lease in time.
    """

    def __init__(self, place: Place, name: str, what: str) -> None:
        self.place, self.name, self.what = place, name, what
        self.lost = False
        self._record: dict[str, Any] = {"owner": uuid.uuid4().hex, **_this_process(), "since": time.time(), "count": 0}
        self._thread_of_holder = threading.get_ident()
        self._renewed = time.monotonic()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="pickcal-lease", daemon=True)

    def take(self) -> None:
        """Take the lease, also from a holder that is gone.

        Raises
        ------
        ProjectError
            If another process holds it.
        """
        while not self.place.create(self.name, self._content()):
            if self._taken_over():
                break
        self._renewed = time.monotonic()
        self._thread.start()

    def join(self, what: str) -> None:
        """Enter again in the thread that holds the lease; a `ProjectError` in any other."""
        if threading.get_ident() != self._thread_of_holder:
            raise ProjectError(_refusal(what, self._record))

    def check(self) -> None:
        """Raise a `ProjectError` if the lease is not this process's any more."""
        if self.lost or time.monotonic() - self._renewed > LEASE_SECONDS:
            raise ProjectError(
                f"{self.what}: this job could not renew its lease for {LEASE_SECONDS:g} s, so that another may have "
                "taken over; what is finished is kept, and the same command goes on from there"
            )

    def release(self) -> None:
        """Give the lease back."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(LEASE_SECONDS)
        with suppress(OSError, PickcalError):
            found = self.place.read(self.name)
            if found is not None and self._is_mine(found[0]):
                self.place.remove(self.name, found[1])

    def _taken_over(self) -> bool:
        """Watch another's lease until it is over; True if it is ours then, False if it is gone."""
        found, end = self.place.read(self.name), time.monotonic() + LEASE_SECONDS
        while found is not None:
            record = _parsed(found[0])
            alive = _lives_here(record)
            if alive:
                raise ProjectError(_refusal(self.what, record))
            if (alive is False or time.monotonic() > end) and self.place.replace(self.name, self._content(), found[1]):
                return True
            time.sleep(LOOK_SECONDS)
            again = self.place.read(self.name)
            if again is not None and again[1] != found[1]:
                raise ProjectError(_refusal(self.what, _parsed(again[0])))
            found = again
        return False

    def _content(self) -> bytes:
        return json.dumps({**self._record, "renewed": time.time()}, sort_keys=True).encode()

    def _is_mine(self, content: bytes) -> bool:
        return bool(_parsed(content).get("owner") == self._record["owner"])

    def _keep(self) -> None:
        while not self._over.wait(LEASE_SECONDS / 4):
            began = time.monotonic()
            # a full disk or a store that does not answer is no reason to stop yet: `check` says when it is
            with suppress(OSError, PickcalError):
                found = self.place.read(self.name)
                if found is None or not self._is_mine(found[0]):
                    self.lost = True
                    return
                self._record["count"] += 1
                if self.place.replace(self.name, self._content(), found[1]):
                    self._renewed = began


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        record = json.loads(content)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


def _this_process() -> dict[str, Any]:
    return {
        "machine": _machine(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "command": Path(sys.argv[0]).name or "python",
    }


def _machine() -> str:
    """Name of this running machine and its processes' name space: containers on one host do not see each other's."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip())
        parts.append(str(Path("/proc/self/ns/pid").readlink()))
    return " ".join(parts)


def _lives_here(record: dict[str, Any]) -> bool | None:
    """Whether the holder is a living process of this machine; None for one of another machine."""
    if record.get("machine") != _machine():
        return None
    try:
        process = psutil.Process(int(record["pid"]))
        same = abs(process.create_time() - float(record["started"])) < 1.0
        return bool(same and process.status() != psutil.STATUS_ZOMBIE)
    except (psutil.Error, KeyError, ValueError):
        return False


def _refusal(what: str, record: dict[str, Any]) -> str:
    since = time.strftime("%H:%M:%S", time.localtime(float(record.get("since", 0.0))))
    return (
        f"{what}: another job works on it, {record.get('command', 'a process')} on {record.get('host', '?')}, process "
        f"{record.get('pid', '?')}, since {since}; wait until it is done, or stop it. A job that was killed gives its "
        f"lease up by itself, after {LEASE_SECONDS:g} s at the latest"
    )
