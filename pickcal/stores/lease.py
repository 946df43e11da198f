"""A lease: who has it may write, renews it meanwhile, and loses it by dying.

A lease is a small object that its holder writes anew every fifth of its time. One that was not renewed in time, or
whose process on this machine is gone, belongs to whoever comes next. Nobody takes a lease by comparing clocks of
different machines: who finds one of another machine watches it for as long as it takes to see it renewed. Only what is
told to people, who do not want to wait, goes by the clocks; see `living_holder`.
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

from pickcal.errors import PickcalError, ProjectError
from pickcal.stores.small_objects import SmallObjects

LOOK_SECONDS = 0.2
"""Seconds between looks at the lease of another."""

_held = threading.local()


@contextmanager
def held(among: SmallObjects, name: str, what: str, seconds: float, wait: float = 0.0) -> Iterator[Lease]:
    """Have a lease until the block ends; may be nested in one thread.

    Parameters
    ----------
    among, name
        The object that is the lease.
    what
        Words for messages: what only the holder writes.
    seconds
        Time after which a lease that nobody renews is over.
    wait
        Seconds to wait for another who has it; default: none.

    Raises
    ------
    ProjectError
        If another thread or process has it, and keeps it for as long as one waits. Whether a process of another
        machine lives is known after `seconds` at the latest.
    """
    mine: dict[tuple[str, str], Lease] = _held.__dict__.setdefault("leases", {})
    key = (str(among.where), name)
    if key in mine:
        yield mine[key]
        return
    lease = Lease(among, name, what, seconds)
    try:
        lease.take(wait)
        mine[key] = lease
        yield lease
    finally:
        mine.pop(key, None)
        lease.release()


def living_holder(among: SmallObjects, name: str, seconds: float) -> dict[str, Any] | None:
    """Who has a lease now, as far as it tells; None if nobody.

    Parameters
    ----------
    among, name, seconds
        See `held`.

    Returns
    -------
    dict or None
        `host`, `pid`, `since` and `renewed` (seconds of the epoch, by the holder's clock), and `elsewhere`: it is on
        another machine, and counts as living because it renewed the lease no longer ago than twice its time. Clocks
        that differ by more than that make a living one seem dead, or a dead one seem living for as long.
    """
    found = among.read(name)
    if found is None:
        return None
    record = _parsed(found[0])
    recent = time.time() - float(record.get("renewed", 0.0)) < 2 * seconds
    alive = _lives_here(record)
    return {**record, "elsewhere": alive is None} if alive or (alive is None and recent) else None


class Lease:
    """A lease of this process; see `held` for its parameters.

    Attributes
    ----------
    lost
        Whether another process has taken it over, because this one could not renew it in time.
    """

    def __init__(self, among: SmallObjects, name: str, what: str, seconds: float) -> None:
        self.among, self.name, self.what, self.seconds = among, name, what, seconds
        self.lost = False
        self._record: dict[str, Any] = {"owner": uuid.uuid4().hex, **this_process(), "since": time.time(), "count": 0}
        self._tag = ""
        self._renewed = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="pickcal-lease", daemon=True)

    def take(self, wait: float = 0.0) -> None:
        """Take the lease, also from a holder that is gone.

        Raises
        ------
        ProjectError
            If another one has it for longer than `wait` seconds.
        """
        end = time.monotonic() + wait
        seen, since, renewed = "", time.monotonic(), False
        while True:
            began = time.monotonic()
            tag = self.among.create(self.name, self._content())
            found = self.among.read(self.name) if tag is None else None
            if found is not None:
                record = _parsed(found[0])
                if found[1] != seen:
                    seen, since, renewed = found[1], time.monotonic(), bool(seen)
                alive = _lives_here(record)
                if alive is False or (alive is None and time.monotonic() - since > self.seconds):
                    tag = self.among.replace(self.name, self._content(), seen)
                elif (alive or renewed) and time.monotonic() >= end:
                    raise ProjectError(_refusal(self.what, record, wait, self.seconds))
                else:
                    time.sleep(LOOK_SECONDS)
            if tag is not None:
                self._tag, self._renewed = tag, began
                self._thread.start()
                return

    def check(self) -> None:
        """Raise a `ProjectError` if the lease is not this process's any more."""
        if self.lost or time.monotonic() - self._renewed > self.seconds:
            raise ProjectError(
                f"{self.what}: this process could not renew its lease for {self.seconds:g} s, so that another may have "
                "taken over; what is finished is kept: give the same command, or save, again"
            )

    def release(self) -> None:
        """Give the lease back."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(self.seconds)
        with suppress(OSError, PickcalError):
            found = self.among.read(self.name)
            if found is not None and self._is_mine(found[0]):
                self.among.remove(self.name, found[1])

    def _content(self) -> bytes:
        return json.dumps({**self._record, "renewed": time.time()}, sort_keys=True).encode()

    def _is_mine(self, content: bytes) -> bool:
        return bool(_parsed(content).get("owner") == self._record["owner"])

    def _keep(self) -> None:
        while not self._over.wait(self.seconds / 5):
            # a full disk or a store that does not answer is no reason to stop yet: `check` says when it is
            with suppress(OSError, PickcalError):
                self._renew()
            if self.lost:
                return

    def _renew(self) -> None:
        began = time.monotonic()
        self._record["count"] += 1
        tag = self.among.replace(self.name, self._content(), self._tag)
        if tag is None:  # another's; or our own, written by a request whose answer was lost
            found = self.among.read(self.name)
            self.lost = found is None or not self._is_mine(found[0])
            self._tag = found[1] if found is not None else ""
            return
        self._tag, self._renewed = tag, began


def this_process() -> dict[str, Any]:
    """Facts by which others find out whether a holder lives, and tell people who it is."""
    return {
        "machine": _machine(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "command": Path(sys.argv[0]).name or "python",
    }


def _parsed(content: bytes) -> dict[str, Any]:
    try:
        record = json.loads(content)
    except ValueError:
        return {}
    return record if isinstance(record, dict) else {}


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


def _refusal(what: str, record: dict[str, Any], waited: float, seconds: float) -> str:
    since = time.strftime("%H:%M:%S", time.localtime(float(record.get("since", 0.0))))
    return (
        f"{what}: another job works on it, {record.get('command', 'a process')} on {record.get('host', '?')}, process "
        f"{record.get('pid', '?')}, since {since}{f', waited for {waited:g} s' if waited else ''}; wait until it is "
        f"done, or stop it. A job that was killed gives its lease up by itself, after {seconds:g} s at the latest"
    )
