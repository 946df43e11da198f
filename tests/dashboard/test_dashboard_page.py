"""The page in a real browser: it loads, asks nobody else, and its slider counts."""

import re
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import urlopen

import pytest

from pickcal.dashboard.controller import Inspector
from pickcal.dashboard.views import serve
from pickcal.errors import InputError, MissingFileError

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
ROOT = Path(__file__).parents[2]
SERVE = "import sys; from pickcal.dashboard.views import serve; serve(sys.argv[1], show=False)"


@contextmanager
def running(command, pattern):
    """Run a server until the block ends; yields the address that it prints."""
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        address, lines = None, []
        for line in process.stdout:
            lines.append(line)
            if found := re.search(pattern, line):
                address = found[1]
                break
        assert address, "".join(lines)
        for _ in range(100):
            try:
                urlopen(address, timeout=20).close()
                break
            except OSError:
                time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()


@contextmanager
def browsing(address, width=1280):
    """Open the page; yields it with the lists of console errors and of requests to other hosts."""
    from playwright.sync_api import sync_playwright

    errors, strangers = [], []
    with sync_playwright() as player:
        browser = player.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        page = browser.new_page(viewport={"width": width, "height": 900})
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda request: strangers.append(request.url) if foreign(request.url) else None)
        page.goto(address)
        page.get_by_text("picks accepted on").wait_for(timeout=60_000)
        yield page, errors, strangers
        browser.close()


def foreign(url):
    url = url.removeprefix("blob:")
    return not url.startswith("data:") and urlparse(url).hostname != "127.0.0.1"


@pytest.fixture(scope="module")
def address(project):
    with running([sys.executable, "-c", SERVE, str(project.path)], r"(http://127\.0\.0\.1:\d+/)") as found:
        yield found


def accepted(page):
    """Number that the page shows; None while a tab is being drawn."""
    shown = re.search(r"(\d+) picks accepted", page.get_by_text("picks accepted on").inner_text())
    return int(shown[1]) if shown else None


@needs_chromium
@pytest.mark.parametrize("width", [1280, 700])
def test_the_page_loads_without_errors_and_without_other_hosts(address, width):
    with browsing(address, width) as (page, errors, strangers):
        page.get_by_alt_text("Medians of picks template").wait_for(timeout=30_000)
        page.get_by_text("mics/stack_01.mrc").wait_for(timeout=30_000)
        assert page.get_by_text("NCC score: slope +").is_visible()
        page.get_by_text("Scores", exact=True).click()
        page.get_by_alt_text("Scores of picks template").wait_for(timeout=30_000)
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert errors == []
    assert strangers == []


@needs_chromium
def test_moving_the_slider_changes_the_count_to_that_of_the_controller(address, project):
    inspector = Inspector(project.path)
    with browsing(address) as (page, errors, _):
        assert accepted(page) == inspector.accepted("template", 0.3).sum()
        before = accepted(page)
        handle = page.locator(".noUi-handle")
        handle.focus()
        for _ in range(12):
            handle.press("ArrowLeft")

        def agrees():
            shown = float(re.search(r"score: (-?[\d.]+)", page.get_by_text("Least calibrated").inner_text())[1])
            fewest, most = (inspector.accepted("template", shown + d).sum() for d in (1e-4, -1e-4))
            return shown < 0.3 and before < fewest <= accepted(page) <= most

        assert eventually(page, agrees)
        assert errors == []


def false_picks(page):
    shown = re.search(r"expected false picks: ([\d.]+)", page.get_by_text("picks accepted on").inner_text())
    return float(shown[1]) if shown else None


@needs_chromium
def test_moving_the_probability_slider_changes_accepted_and_expected_false_picks(address, project):
    inspector = Inspector(project.path)

    def agrees(likely):
        total = likely.accepted.sum(), likely.noise.sum() + likely.junk.sum()
        return lambda: (accepted(page), false_picks(page)) == (total[0], pytest.approx(total[1], abs=0.06))

    with browsing(address) as (page, errors, _):
        assert "expected false picks" not in page.get_by_text("picks accepted on").inner_text()
        page.get_by_text("By probability", exact=True).click()
        page.get_by_text("expected false picks").wait_for(timeout=30_000)
        start = inspector.likely("template", 0.5)
        assert eventually(page, agrees(start))
        handle = page.locator(".noUi-handle")
        handle.focus()
        handle.press("Home")
        everything = inspector.likely("template", 0.0)
        assert everything.accepted.sum() > start.accepted.sum() + 500
        assert eventually(page, agrees(everything))
        rate = page.get_by_placeholder("no limit")
        rate.fill("0.05")
        rate.press("Enter")
        limited = inspector.likely("template", 0.0, 0.05)
        assert limited.accepted.sum() < everything.accepted.sum() - 500
        assert eventually(page, agrees(limited))
        rate.fill("")
        rate.press("Enter")
        assert eventually(page, agrees(everything))
        page.get_by_text("By NCC score", exact=True).click()
        assert eventually(page, lambda: accepted(page) == inspector.accepted("template", 0.3).sum())
        assert errors == []


@needs_chromium
def test_plots_of_the_mixture_are_beside_the_others(address):
    with browsing(address, 700) as (page, errors, _):
        for title in ("Components", "Score plane", "False picks", "Trends"):
            button = page.get_by_text(title, exact=True)
            box = button.bounding_box()
            assert box["x"] >= 0 and box["x"] + box["width"] <= 700
            button.click()
            page.get_by_alt_text(f"{title} of picks template").wait_for(timeout=30_000)
        assert errors == []


def eventually(page, condition):
    for _ in range(100):
        if condition():
            return True
        page.wait_for_timeout(100)
    return False


@needs_chromium
def test_the_panel_serve_target_shows_the_same_page(project):
    target = [sys.executable, "-m", "panel", "serve", "dashboards/inspect_picks.py", "--port", "0"]
    target += ["--address", "127.0.0.1", "--args", str(project.path)]
    with running(target, r"(http://(?:127\.0\.0\.1|localhost):\d+/inspect_picks)") as address:
        with browsing(address.replace("localhost", "127.0.0.1")) as (page, errors, strangers):
            assert accepted(page) > 0
        assert (errors, strangers) == ([], [])


def test_it_listens_on_this_machine_only(project):
    with pytest.raises(InputError, match=r"expected 127\.0\.0\.1 or localhost, got '0\.0\.0\.0'"):
        serve(project.path, address="0.0.0.0", show=False)


def test_a_missing_project_is_said_before_anything_is_served(tmp_path):
    with pytest.raises(MissingFileError, match=r"none\.zarr"):
        serve(tmp_path / "none.zarr", show=False)


def test_a_port_in_use_is_named(address, project):
    port = urlparse(address).port
    with pytest.raises(InputError, match=f"port: {port} cannot be listened on"):
        serve(project.path, port=port, show=False)
