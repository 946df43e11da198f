"""Calls that any thread leaves for the thread of a document."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from bokeh.document import Document

LATEST = 1000
"""Milliseconds after which a call is made whose tick was lost."""


class Posted:
    """Runs what it is called with in the document's thread, in order, each once.

    `Document.add_next_tick_callback` alone is not enough. While the document holds its events, the tick is held with
    them, and one that another thread adds just as the hold ends is lost: `unhold` takes a copy of the list before it
    puts an empty one in its place. So the calls are kept here, a tick only says that there are some, and what has lost
    its tick is found by the next, or by a look once a second.

    Parameters
    ----------
    document
        Of a page that is served.
    """

    def __init__(self, document: Document) -> None:
        self._document = document
        self._calls: deque[Callable[[], None]] = deque()
        document.add_periodic_callback(self.run, LATEST)

    def __call__(self, call: Callable[[], None]) -> None:
        """Run something soon; from any thread."""
        self._calls.append(call)
        self._document.add_next_tick_callback(self.run)

    def run(self) -> None:
        """Make the calls that wait now; those that they add have a tick of their own."""
        for _ in range(len(self._calls)):
            self._calls.popleft()()
