"""What tests in a real browser share: where it is, how it is started, and pages served from a thread of the test."""

import asyncio
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlparse

import pytest
from panel.io.server import get_server

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--no-first-run",
    "--disable-component-update",
    "--disable-sync",
]
needs_chromium = pytest.mark.skipif(not CHROMIUM.exists(), reason=f"no Chromium at {CHROMIUM}")


def foreign(url):
    """Whether something is asked of another host."""
    url = url.removeprefix("blob:")
    return not url.startswith("data:") and urlparse(url).hostname != "127.0.0.1"


def watched(page):
    """Lists that fill with the page's console errors and with what it asks of other hosts."""
    errors, strangers = [], []
    page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda request: strangers.append(request.url) if foreign(request.url) else None)
    return errors, strangers


def eventually(page, condition, seconds=30):
    """Whether a condition holds within some time; it is asked between what the page does."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        page.wait_for_timeout(25)
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
    assert ready.wait(30)
    yield f"http://127.0.0.1:{found[0].port}"
    found[0].io_loop.add_callback(found[0].stop, False)
    found[0].io_loop.add_callback(found[0].io_loop.stop)
    thread.join(10)
