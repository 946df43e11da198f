"""One writer at a time in an object store: a lock object that its holder keeps writing anew while it lives.

Stores write an object only if it is not there, or only if it is still the one that was seen: that decides between
two who want the lock. A holder that died is known by its object not changing any more, so no clocks need to agree.
"""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from contextlib import suppress

from pickcal.errors import PickcalError, ProjectError
from pickcal.stores import objects
from pickcal.stores.objects import Changed, Stat
from pickcal.stores.places import Url

LEASE = 20.0
"""Seconds without a sign of life after which the holder of a lock counts as dead."""
BEAT = 4.0
"""Seconds between two signs of life."""
POLL = 0.2
"""Seconds between two looks at the lock of another."""


class Lease:
    """A lock on a place; `acquire`, then `release`.

    Parameters
    ----------
    url
        The lock object.
    what
        Words for messages: the project.

    Attributes
    ----------
    lost
        Whether another process has taken the lock over, because this one showed no sign of life; see `check`.
    """

    def __init__(self, url: Url, what: str) -> None:
        self.url, self.what = url, what
        self.lost = False
        self._token = uuid.uuid4().hex
        self._mine: Stat | None = None
        self._beats = 0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def acquire(self, longest_wait: float) -> None:
        """Take the lock, or wait for it.

        Raises
        ------
        ProjectError
            If another one holds it for longer than `longest_wait` seconds.
        """
        end = time.monotonic() + longest_wait
        seen, since = "", time.monotonic()
        while not self._taken(None):
            found = objects.stat(self.url)
            if found is None:
                continue
            if found.mark != seen:
                seen, since = found.mark, time.monotonic()
            elif time.monotonic() - since > LEASE and self._taken(found):
                break
            if time.monotonic() > end:
                raise ProjectError(
                    f"{self.what}: another process has been writing in this project for {longest_wait:g} s "
                    f"({self._holder()}); try again, and look for a process that hangs if that goes on"
                )
            time.sleep(POLL)
        self._thread = threading.Thread(target=self._beat, name="pickcal lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise a `ProjectError` if somebody else holds the lock by now."""
        if self.lost:
            raise ProjectError(
                f"{self.what}: this process was silent for longer than {LEASE:g} s while it saved, and another one "
                "took over; what was stored before is still there, save again"
            )

    def release(self) -> None:
        """Give the lock back."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        with suppress(PickcalError):
            found = objects.stat(self.url)
            if found is not None and self._mine is not None and found.mark == self._mine.mark:
                objects.remove(self.url)

    def _taken(self, old: Stat | None) -> bool:
        """Try to write the lock object, if none is there or in the place of a dead holder's."""
        try:
            self._mine = objects.write(self.url, self._words(), "none" if old is None else old)
        except Changed:
            return False
        return True

    def _beat(self) -> None:
        while not self._ended.wait(BEAT):
            self._beats += 1
            try:
                assert self._mine is not None
                self._mine = objects.write(self.url, self._words(), self._mine)
            except Changed:
                self.lost = True
                return
            except PickcalError:
                continue  # the store does not answer now; LEASE leaves time to try again

    def _words(self) -> bytes:
        return f"{self._token} {self._beats} {socket.gethostname()} {os.getpid()}".encode()

    def _holder(self) -> str:
        with suppress(PickcalError):
            words = objects.read(self.url).decode("utf-8", "replace").split()
            if len(words) == 4:
                return f"process {words[3]} on {words[2]}"
        return "it is not known which"
