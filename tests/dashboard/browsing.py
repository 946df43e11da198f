"""What tests in a real browser share: where it is, how it is started, and pages served from a thread of the test.

Tests look at sessions from another thread than the one that works on them: halfway through an action nothing of it can
be trusted, so tests act with `Opened.do` and look at the page when it is `settled`.
"""

import asyncio
import signal
import subprocess
import tempfile
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar
from urllib.parse import urlparse
from urllib.request import urlopen

import panel as pn
import pytest
from panel.io.server import get_server

from pickcal.dashboard.session import Session
from pickcal.dashboard.views.look import Look
from pickcal.dashboard.views.posting import Posted

ROOT = Path(__file__).parents[2]
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
]
PATIENCE = 120.0
"""Seconds until a test says that something does not come: other programs may keep the machine busy."""
needs_chromium = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no Chromium at {CHROMIUM}")


def foreign(url):
    """Whether something is asked of another host."""
    url = url.removeprefix("blob:")
    return not url.startswith("data:") and urlparse(url).hostname != "127.0.0.1"


def watched(page):
    """Lists that fill with the page's console errors and with what it asks of other hosts; makes its waits patient."""
    page.set_default_timeout(1000 * PATIENCE)
    errors, strangers = [], []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: strangers.append(request.url) if foreign(request.url) else None)
    return errors, strangers


def eventually(page, condition):
    """Whether a condition holds within some time; it is asked between what the page does."""
    end = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > end:
            return False
        page.wait_for_timeout(25)
    return True


def act_in_page(post, act):
    """Do something in the thread of a page, and wait for the end of it: halfway nothing of it can be trusted."""
    done = threading.Event()
    post(lambda: [act(), done.set()])
    assert done.wait(PATIENCE)


class ServerProcess:
    """A server in a process of its own, with what it says: a failed test shows it, see `conftest.py`."""

    running: ClassVar[list["ServerProcess"]] = []

    def __init__(self, process, said, stacks):
        self.process, self._said, self._stacks = process, said, stacks

    def said(self):
        """All that it printed."""
        self._said.seek(0)
        return self._said.read()

    def threads(self):
        """What it printed, and what its threads do now if it can tell."""
        if self._stacks and self.process.poll() is None:
            self.process.send_signal(signal.SIGUSR1)
            time.sleep(1)
        return self.said()

    def wait_for(self, condition):
        """Wait until something holds of what it said; refused if it ends before."""
        end = time.monotonic() + PATIENCE
        while not (found := condition(self.said())):
            assert self.process.poll() is None and time.monotonic() < end, self.said()
            time.sleep(0.05)
        return found

    def end(self):
        self.process.terminate()
        self.process.wait(20)


@contextmanager
def server_process(command, stacks=False):
    """Run a server in the root of the repository until the block ends.

    Its output goes to a file: a pipe that nobody reads stops the server once it is full. `stacks` says that it takes a
    `SIGUSR1` as a wish to print what its threads do (`faulthandler.register`).
    """
    # what is appended is not moved by reading
    with tempfile.TemporaryFile("a+") as said:
        process = subprocess.Popen(command, cwd=ROOT, stdout=said, stderr=subprocess.STDOUT)
        server = ServerProcess(process, said, stacks)
        ServerProcess.running.append(server)
        try:
            yield server
        finally:
            ServerProcess.running.remove(server)
            server.end()


def answers(address):
    """Whether a server is there already."""
    try:
        urlopen(address, timeout=20).close()
    except OSError:
        return False
    return True


@contextmanager
def serving(pages):
    """Serve pages from a thread of this process, so that tests see the sessions; yields the address.

    The thread has a loop of its own: that of the main thread belongs to Playwright.
    """
    ready, found = threading.Event(), []

    def run():
        asyncio.set_event_loop(asyncio.new_event_loop())
        server = get_server(pages, port=0, address="127.0.0.1", websocket_origin=["*"])
        found.append(server)
        server.io_loop.add_callback(ready.set)
        server.start()
        server.io_loop.start()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(PATIENCE)
    yield f"http://127.0.0.1:{found[0].port}"
    found[0].io_loop.add_callback(found[0].stop, False)
    found[0].io_loop.add_callback(found[0].io_loop.stop)
    thread.join(10)


def page_of(views, inspector, sessions, **options):
    """Page of some views with a session of its own, refreshed as the page of the dashboard does it.

    An element tells the version that all of it shows.
    """

    def build():
        pn.extension(design="bootstrap")
        document, look = pn.state.curdoc, Look(pn.config.theme == "dark")
        post = Posted(document)
        session = Session(inspector, post, **options)
        session.follow({})
        made = [view(session, look) for view in views]
        told = pn.pane.HTML("", margin=0)
        pending, lock = set(), threading.Lock()

        def tell(version):
            told.object = f"<i id='version' hidden>{version}</i>"

        def refresh():
            with lock:
                changes = frozenset(pending)
                pending.clear()
            document.hold("combine")
            for view in made:
                view.refresh(changes)
            document.unhold()
            version = session.version
            post(lambda: tell(version))

        def changed(changes):
            with lock:
                first = not pending
                pending.update(changes)
            if first:
                post(refresh)

        session.listen(changed)
        sessions.append(session)
        return pn.Column(*(view.layout for view in made), told, sizing_mode="stretch_width")

    return build


class Opened:
    """A page with its session."""

    def __init__(self, page, session):
        self.page, self.session = page, session

    def do(self, act):
        act_in_page(self.session.post, act)

    def settled(self):
        """Wait until the newest version is on the screen."""
        version = self.page.locator("#version")
        assert eventually(self.page, lambda: int(version.text_content() or -1) >= self.session.version)
        # components of our own paint in the next frame
        self.page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
