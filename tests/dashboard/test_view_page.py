"""The page without a browser: what one part of it cannot show does not keep the others from being shown."""

import panel as pn
import pytest
from small_project import add_selection, make_project

from pickcal.dashboard.controller import Inspector, close_shared
from pickcal.dashboard.views.look import Look
from pickcal.dashboard.views.page import Page, prepare
from pickcal.errors import InputError
from pickcal.settings import SelectSettings

WAIT = 60


class Part:
    """A part of the page that notes what it is told, and fails as long as it is to."""

    layout = None

    def __init__(self, fails=""):
        self.fails, self.heard = fails, set()

    def refresh(self, changes):
        self.heard |= changes
        if self.fails:
            raise InputError(self.fails)


@pytest.fixture
def page(project):
    made = Page(pn.Column(), Inspector(project.path), Look(), read_only=True)
    assert made.session.inspector.background.wait(WAIT)
    yield made
    made.session.close()
    made.session.inspector.background.close()


def test_a_part_that_fails_leaves_the_others_and_is_said_once(page):
    session, failing, other = page.session, Part("no such thing"), Part()
    page._always[:0] = [failing]
    page._always.append(other)

    def move(value):
        other.heard.clear()
        session.set_threshold("min_ncc", value)
        assert session.inspector.background.wait(WAIT)
        return session.notes.texts.count("no such thing")

    assert move(0.31) == 1 and {"thresholds", "settled", "notes"} <= other.heard
    assert move(0.32) == 1 and "thresholds" in other.heard
    failing.fails = ""
    assert move(0.33) == 1
    failing.fails = "no such thing"
    assert move(0.34) == 2


def test_a_page_opens_whose_selection_no_longer_fits(tmp_path):
    """As after `pickcal pick --overwrite`, which takes the calibration away."""
    project = make_project(tmp_path / "p.zarr")
    add_selection(project, "auto", SelectSettings(probability=0.5))
    project.remove("selection/strict")
    project.remove("calibration/template")
    try:
        prepare(project.path)
    finally:
        close_shared()
