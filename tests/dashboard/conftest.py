import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from browsing import CHROMIUM, FLAGS, ServerProcess
from small_project import make_project


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Show what servers of a failed test said and do: what a browser waits for in vain is to be found there."""
    report = yield
    if report.failed:
        report.sections += [("server", server.threads()) for server in ServerProcess.running]
    return report


@pytest.fixture(scope="session")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("dashboard") / "p.zarr")


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as player:
        launched = player.chromium.launch(executable_path=str(CHROMIUM), args=FLAGS)
        yield launched
        launched.close()
