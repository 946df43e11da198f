"""Calls for a document's thread: in order, each once, also those whose tick Bokeh loses at the end of a hold."""

import queue
import sys
import threading
from contextlib import suppress

import pytest
from bokeh.document import Document
from bokeh.server.callbacks import PeriodicCallback

from pickcal.dashboard.views.posting import Posted


class Loop:
    """Makes ticks in the thread that works, as the loop of a server does; periodic ones when they are asked for."""

    def __init__(self, document):
        self.ticks, self.document = queue.SimpleQueue(), document
        document.callbacks.on_change_dispatch_to(self)

    def _session_callback_added(self, event):
        if not isinstance(event.callback, PeriodicCallback):
            self.ticks.put(event.callback.callback)

    def _session_callback_removed(self, event):
        pass

    def work(self):
        with suppress(queue.Empty):
            while True:
                self.ticks.get_nowait()()

    def look(self):
        for callback in self.document.session_callbacks:
            if isinstance(callback, PeriodicCallback):
                callback.callback()


@pytest.fixture
def loop():
    return Loop(Document())


def post_in_vain(loop, post, call):
    """What `unhold` does to an event that comes after it has made its copy of what was held."""
    loop.document.hold("combine")
    post(call)
    loop.document.callbacks._held_events = []
    loop.document.unhold()
    loop.work()


def test_a_call_whose_tick_is_lost_is_made_with_the_next_one(loop):
    post, made = Posted(loop.document), []
    post_in_vain(loop, post, lambda: made.append(1))
    assert made == []
    post(lambda: made.append(2))
    loop.work()
    assert made == [1, 2]
    loop.look()
    assert made == [1, 2]


def test_a_look_makes_it_when_no_other_comes(loop):
    post, made = Posted(loop.document), []
    post_in_vain(loop, post, lambda: made.append(1))
    assert made == []
    loop.look()
    assert made == [1]


def test_what_a_call_posts_waits_for_a_tick_of_its_own(loop):
    """One that posts itself again and again keeps nobody else waiting."""
    post, made = Posted(loop.document), []
    post(lambda: (made.append("first"), post(lambda: made.append("third"))))
    post(lambda: made.append("second"))
    loop.look()
    assert made == ["first", "second"]
    loop.work()
    assert made == ["first", "second", "third"]


def test_a_call_that_fails_takes_no_other_with_it(loop):
    post, made = Posted(loop.document), []
    post(lambda: 1 / 0)
    post(lambda: made.append(1))
    with pytest.raises(ZeroDivisionError):
        loop.work()
    loop.work()
    assert made == [1]


def test_none_is_lost_while_the_document_holds_and_lets_go(loop):
    """Of as many ticks Bokeh alone loses one in a hundred or so, when threads change as often as here."""
    count, made, usual = 5000, [], sys.getswitchinterval()
    post = Posted(loop.document)
    thread = threading.Thread(target=lambda: [post(lambda n=n: made.append(n)) for n in range(count)])
    sys.setswitchinterval(1e-6)
    try:
        thread.start()
        while thread.is_alive():
            loop.document.hold("combine")
            loop.document.unhold()
            loop.work()
    finally:
        sys.setswitchinterval(usual)
        thread.join()
    loop.look()
    assert made == list(range(count))
