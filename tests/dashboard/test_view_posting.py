"""Calls for a document's thread: in order, each once, whichever thread they come from and whatever is held back."""

import asyncio
import sys
import threading

import pytest
from bokeh.document import Document
from tornado.ioloop import IOLoop

from pickcal.dashboard.views.posting import Posted


class Served:
    """Makes a document's ticks in the loop's thread, and tells which threads they were asked for in."""

    def __init__(self):
        self.document, self.threads, self.loop = Document(), set(), IOLoop.current()
        self.document.callbacks.on_change_dispatch_to(self)

    def _session_callback_added(self, event):
        self.threads.add(threading.current_thread())
        self.loop.add_callback(event.callback.callback)

    def _session_callback_removed(self, event):
        pass


def in_loop(scene):
    """Let something happen in the thread of a loop, with a document; gives it once what is waited for has come."""

    async def play():
        served = Served()
        condition = scene(served, Posted(served.document))
        for _ in range(10_000):
            if condition():
                return served
            await asyncio.sleep(0.001)
        raise AssertionError("it did not come")

    return asyncio.run(play())


def test_calls_come_in_order_and_what_a_call_posts_waits_for_a_tick_of_its_own():
    """One that posts itself again and again keeps nobody else waiting."""
    made = []

    def scene(served, post):
        post(lambda: (made.append("first"), post(lambda: made.append("third"))))
        post(lambda: made.append("second"))
        assert made == []
        return lambda: len(made) == 3

    in_loop(scene)
    assert made == ["first", "second", "third"]


def test_a_call_that_fails_takes_no_other_with_it():
    made = []

    def scene(served, post):
        post(lambda: 1 / 0)
        post(lambda: made.append(1))
        return lambda: made

    in_loop(scene)
    assert made == [1]


@pytest.fixture
def restless():
    """Threads that take turns as often as possible."""
    usual = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(usual)


def test_none_of_another_thread_is_lost_while_the_document_holds_and_lets_go(restless):
    """Of as many ticks of Bokeh's that a thread asks for, one in a hundred or so is lost here."""
    count, made = 5000, []

    def scene(served, post):
        thread = threading.Thread(target=lambda: [post(lambda n=n: made.append(n)) for n in range(count)])
        thread.start()
        while thread.is_alive():
            served.document.hold("combine")
            served.document.unhold()
        return lambda: len(made) == count

    served = in_loop(scene)
    assert made == list(range(count))
    assert served.threads == {threading.main_thread()}


def test_a_page_that_is_not_served_runs_nothing():
    made = []
    Posted(Document())(lambda: made.append(1))
    assert made == []
