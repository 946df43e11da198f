"""Calls that any thread leaves for the thread of a document."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from bokeh.document import Document
from tornado.ioloop import IOLoop


class Posted:
    """Runs what it is called with in the document's thread, with the document locked, in order, each once.

    `Document.add_next_tick_callback` is not for other threads: it works on what the document holds back and on the list
    of current documents while the loop does, so that a tick which comes as a hold ends is lost. Only the loop itself
    takes calls of other threads safely; it adds the ticks.

    Parameters
    ----------
    document
        Of a page that is being made in the thread of its server's loop. Of a page that is not served, nothing that is
        posted is ever run.
    """

    def __init__(self, document: Document) -> None:
        self._document = document
        self._loop = IOLoop.current(instance=False)
        self._calls: deque[Callable[[], None]] = deque()

    def __call__(self, call: Callable[[], None]) -> None:
        """Run something soon; from any thread."""
        self._calls.append(call)
        if self._loop is not None:
            self._loop.add_callback(self._tick)

    def _tick(self) -> None:
        self._document.add_next_tick_callback(self._run)

    def _run(self) -> None:
        """Make the calls that wait now; those that they add have a tick of their own."""
        for _ in range(len(self._calls)):
            self._calls.popleft()()
