"""Micrographs with their picks, three of them and the list of all, in a real browser."""

import re
from contextlib import contextmanager

import numpy as np
import pytest
from browsing import Opened, eventually, needs_chromium, page_of, serving, watched
from small_project import make_project

from pickcal.dashboard.controller import Inspector
from pickcal.dashboard.views.browser import BrowserView
from pickcal.dashboard.views.micrographs import TrioView
from pickcal.project import Project
from pickcal.selection import ACCEPTED, REASONS

pytestmark = needs_chromium
LOW_SCORE = REASONS.index("low score")
PIXELS = """(plate) => {
  const canvas = plate.querySelector("canvas")
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height)
  let sum = 0, squares = 0
  for (let i = 0; i < data.length; i += 4) { sum += data[i]; squares += data[i] * data[i] }
  const count = data.length / 4
  return [sum / count, Math.sqrt(squares / count - (sum / count) ** 2)]
}"""


@contextmanager
def inspecting(path):
    """Serve both views of a project, without the rest of the page; yields the address and the visitors' sessions."""
    inspector, sessions = Inspector(path), []
    with serving(page_of([TrioView, BrowserView], inspector, sessions)) as address:
        try:
            yield address, sessions
        finally:
            inspector.background.close()


class Shown(Opened):
    """A page with its session."""

    @property
    def plates(self):
        return self.page.locator(".plate[data-painted]")


@contextmanager
def opened(browser, address, sessions, **options):
    """Open a page of its own; yields it with its session."""
    page = browser.new_page(viewport={"width": 1280, "height": 1400}, **options)
    errors, strangers = watched(page)
    page.goto(address)
    page.locator(".plate[data-painted]").nth(3).wait_for()
    yield Shown(page, sessions[-1])
    page.close()
    assert (errors, strangers) == ([], [])


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    path = make_project(tmp_path_factory.mktemp("views") / "p.zarr").path
    with inspecting(path) as found:
        yield found


@pytest.fixture(scope="module")
def once(browser, served):
    with opened(browser, *served) as found:
        yield found


@pytest.fixture
def shown(once):
    """The page, as a new visitor finds it: loading one for every test takes too long."""
    once.page.mouse.move(2, 2)
    once.do(lambda: once.session.follow({}))
    once.settled()
    return once


def drawn(plate):
    found = plate.evaluate("plate => plate.drawn")
    return found["accepted"], found["rejected"]


def judged(session, which, i=0):
    reasons = session.reasons(which)[i]
    return int((reasons == ACCEPTED).sum()), int((reasons > ACCEPTED).sum())


def place_of(session, reason, which="trio", i=0):
    """A pick with this reason that no other pick is near to."""
    columns = getattr(session, which).columns(i)
    places = np.flatnonzero(session.reasons(which)[i, : len(columns["x"])] == reason)
    away = np.hypot(*(columns[name][places, None] - columns[name][None, :] for name in ("x", "y")))
    away[away == 0] = np.inf
    return int(places[np.argmax(away.min(axis=1))])


def to_pick(shown, plate, place):
    """Move the pointer to a pick."""
    at = plate.evaluate("(plate, place) => plate.where(place)", place)
    shown.page.mouse.move(at["x"], at["y"])
    return at["x"], at["y"]


def test_the_circles_drawn_are_what_the_session_judges_also_when_a_threshold_moves(shown):
    for i in range(3):
        assert drawn(shown.plates.nth(i)) == judged(shown.session, "trio", i)
    before, version = drawn(shown.plates.nth(0)), int(shown.plates.nth(0).get_attribute("data-painted"))
    shown.do(lambda: shown.session.set_threshold("min_ncc", 0.42, final=False))
    assert eventually(shown.page, lambda: drawn(shown.plates.nth(0)) != before)
    for i in range(3):
        assert eventually(shown.page, lambda i=i: drawn(shown.plates.nth(i)) == judged(shown.session, "trio", i))
    assert drawn(shown.plates.nth(3)) == judged(shown.session, "focus")
    assert int(shown.plates.nth(0).get_attribute("data-painted")) > version
    accepted, rejected = judged(shown.session, "trio")
    assert f"{accepted} of {accepted + rejected} accepted" in shown.plates.nth(0).inner_text()
    label = shown.plates.nth(0).get_by_role("img").get_attribute("aria-label")
    assert label.startswith(f"low defocus: micrograph {shown.session.trio.names[0]}, 0.80 micrometres defocus, ")


def test_circles_mended_where_picks_change_are_those_of_drawing_all_anew(shown):
    plate, page = shown.plates.nth(0), shown.page
    overlay = """(plate) => { const canvas = plate.querySelectorAll("canvas")[1]
      return canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data.join() }"""
    before = drawn(plate)
    for threshold in (0.34, 0.36, 0.38):
        shown.do(lambda value=threshold: shown.session.set_threshold("min_ncc", value, final=False))
        shown.settled()
    assert eventually(page, lambda: drawn(plate) == judged(shown.session, "trio") != before)
    mended = plate.evaluate(overlay)
    page.set_viewport_size({"width": 1200, "height": 1400})
    assert eventually(page, lambda: plate.evaluate(overlay) != mended)
    page.set_viewport_size({"width": 1280, "height": 1400})
    assert eventually(page, lambda: plate.evaluate(overlay) == mended)


def test_hovering_a_pick_says_why_it_is_rejected_and_its_scores(shown):
    plate, place = shown.plates.nth(0), place_of(shown.session, LOW_SCORE)
    to_pick(shown, plate, place)
    tip = plate.locator(".tip")
    tip.get_by_text("rejected: low score").wait_for()
    columns = shown.session.trio.columns(0)
    text = tip.inner_text()
    assert f"NCC score {columns['ncc'][place]:.3g}"[:14] in text
    assert "calibrated" in text and "power score" in text and "probability" in text
    to_pick(shown, plate, place_of(shown.session, ACCEPTED))
    tip.get_by_text(re.compile("^accepted$")).wait_for()
    shown.page.mouse.move(2, 2)
    tip.wait_for(state="hidden")


def test_a_click_accepts_a_rejected_pick_and_another_leaves_it_to_the_thresholds(shown):
    plate, place = shown.plates.nth(1), place_of(shown.session, LOW_SCORE, i=1)
    before = drawn(plate)
    shown.page.mouse.click(*to_pick(shown, plate, place))
    assert eventually(shown.page, lambda: drawn(plate) == (before[0] + 1, before[1] - 1))
    (hand,) = shown.session.settings.accept
    columns = shown.session.trio.columns(1)
    assert (hand.micrograph, hand.x) == (shown.session.trio.names[1], columns["x"][place])
    assert plate.evaluate("plate => plate.drawn.byHand") == 1
    plate.locator(".tip").get_by_text("accepted by hand").wait_for()
    shown.page.mouse.click(*to_pick(shown, plate, place))
    assert eventually(shown.page, lambda: drawn(plate) == before)
    assert shown.session.settings.accept == ()


def test_the_wheel_zooms_about_the_pointer_dragging_pans_and_a_double_click_resets(shown):
    plate, place = shown.plates.nth(0), place_of(shown.session, ACCEPTED)
    other = place_of(shown.session, LOW_SCORE)
    where = lambda of: plate.evaluate("(plate, place) => { const at = plate.where(place); return [at.x, at.y] }", of)  # noqa: E731
    apart = lambda: float(np.hypot(*np.subtract(where(place), where(other))))  # noqa: E731
    start, before = where(other), apart()
    x, y = to_pick(shown, plate, place)
    shown.page.mouse.wheel(0, -300)
    assert eventually(shown.page, lambda: apart() > 1.3 * before)
    hands = shown.session.settings
    shown.page.mouse.move(x, y)
    shown.page.mouse.down()
    shown.page.mouse.move(x - 30, y - 20, steps=3)
    shown.page.mouse.up()
    assert shown.session.settings == hands
    shown.page.mouse.dblclick(x, y)
    assert eventually(shown.page, lambda: where(other) == pytest.approx(start))


def test_contrast_and_low_pass_change_the_picture(shown):
    plate, page = shown.plates.nth(0), shown.page
    assert eventually(page, lambda: plate.get_attribute("data-picture") == f"{shown.session.trio.rows[0]} 20")
    shown.settled()
    row = shown.session.trio.rows[0]
    start = plate.evaluate(PIXELS)
    low = page.get_by_label("Low-pass of the pictures").first
    low.fill("60")
    assert eventually(page, lambda: plate.get_attribute("data-picture") == f"{row} 60")
    assert shown.session.view.lowpass == 60
    assert eventually(page, lambda: plate.evaluate(PIXELS) != start)
    before = plate.evaluate(PIXELS)
    page.get_by_label("Contrast: drawn white").first.fill("1")
    assert eventually(page, lambda: shown.session.view.high == 1)
    assert eventually(page, lambda: plate.evaluate(PIXELS)[0] > before[0] + 15)
    other = page.get_by_label("Contrast: drawn white").nth(1)
    assert eventually(page, lambda: other.input_value() == "1")


def test_rejected_picks_can_be_hidden(shown):
    plate = shown.plates.nth(0)
    ink = """(plate) => { const canvas = plate.querySelectorAll("canvas")[1]
      const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height)
      return data.reduce((sum, value, i) => sum + (i % 4 === 3 && value > 0), 0) }"""
    before = plate.evaluate(ink)
    shown.page.get_by_label("Rejected picks").first.uncheck()
    assert eventually(shown.page, lambda: plate.evaluate(ink) < before)
    assert eventually(shown.page, lambda: not shown.session.view.rejected)


def test_an_excluded_micrograph_is_dimmed_and_named(shown):
    plate, session = shown.plates.nth(2), shown.session
    plate.get_by_role("button", name="Exclude").click()
    plate.get_by_text("excluded", exact=True).wait_for()
    assert session.settings.exclude == (session.trio.names[2],)
    assert float(plate.locator("canvas").first.evaluate("canvas => getComputedStyle(canvas).opacity")) < 0.5
    assert drawn(plate)[0] == 0
    shown.page.mouse.click(*to_pick(shown, plate, 0))
    assert eventually(shown.page, lambda: any("is excluded" in note for note in session.notes.texts))
    plate.get_by_role("button", name="Take back in").click()
    assert eventually(shown.page, lambda: session.settings.exclude == ())


def test_other_three_and_the_three_before(shown):
    first = shown.session.trio.names
    shown.page.get_by_role("button", name="Other three").click()
    assert eventually(shown.page, lambda: shown.session.trio.names != first)
    assert eventually(
        shown.page, lambda: shown.plates.nth(0).locator(".name").get_attribute("title") == shown.session.trio.names[0]
    )
    assert eventually(
        shown.page,
        lambda: shown.plates.nth(0).get_attribute("data-picture") == f"{shown.session.trio.rows[0]} 20",
    )
    shown.page.get_by_title("The three micrographs before").click()
    assert eventually(shown.page, lambda: shown.session.trio.names == first)


def listed(shown):
    """Names and accepted picks in the list, from its top."""
    lines = shown.page.locator(".space .line").evaluate_all(
        "lines => lines.map(line => [parseFloat(line.style.top), line.children[0].textContent, "
        "line.children[3].textContent])"
    )
    return [tuple(line[1:]) for line in sorted(lines)]


def test_the_list_has_exact_counts_and_can_be_sorted_and_searched(shown):
    session, page = shown.session, shown.page
    names = session.inspector.micrographs
    assert eventually(page, lambda: session.tally.complete)
    counts = {name: f"{count:,}" for name, count in zip(names, session.tally.accepted, strict=True)}
    order = np.argsort(session.inspector.defocus, kind="stable")
    assert eventually(page, lambda: listed(shown) == [(names[row], counts[names[row]]) for row in order])
    page.get_by_role("button", name="Name").click()
    assert eventually(page, lambda: [name for name, _ in listed(shown)] == sorted(names))
    page.get_by_role("button", name="Name").click()
    assert eventually(page, lambda: [name for name, _ in listed(shown)] == sorted(names, reverse=True))
    assert (session.view.sort, session.view.descending) == ("name", True)
    page.get_by_label("Search micrographs by name").fill("stack_1")
    assert eventually(page, lambda: [name for name, _ in listed(shown)] == [names[11], names[10], names[9]])
    page.get_by_text("3 of 12 micrographs").wait_for()


def test_a_micrograph_of_the_list_is_looked_at_by_click_by_key_and_by_button(shown):
    session, page, large = shown.session, shown.page, shown.plates.nth(3)
    order = session.inspector.order(session.picks, session.view, session.tally)

    def at(place):
        row = int(order[place])
        chosen = page.locator(".space .line[aria-selected=true]")
        return (
            session.view.row == row
            and large.locator(".name").get_attribute("title") == session.inspector.micrographs[row]
            and chosen.count() == 1
            and chosen.get_attribute("data-row") == str(row)
        )

    page.locator(".space .line").nth(4).click()
    assert eventually(page, lambda: at(4))
    page.get_by_role("grid").press("ArrowDown")
    assert eventually(page, lambda: at(5))
    page.get_by_role("button", name="‹ Micrograph").click()
    assert eventually(page, lambda: at(4))
    page.get_by_role("button", name="Micrograph ›").click()
    assert eventually(page, lambda: at(5))
    assert eventually(page, lambda: drawn(large) == judged(session, "focus"))
    assert eventually(page, lambda: large.get_attribute("data-picture") == f"{session.view.row} 20")


def test_the_pick_of_the_keyboard_is_told_and_decided_on(shown):
    session, page, large = shown.session, shown.page, shown.plates.nth(3)
    page.get_by_role("button", name="Pick ›", exact=True).click()
    assert eventually(page, lambda: session.view.cursor >= 0)
    large.locator(".tip").wait_for()
    before = drawn(large)
    page.get_by_role("button", name=re.compile("(Accept|Reject) this pick")).click()
    assert eventually(page, lambda: len(session.settings.accept) + len(session.settings.reject) == 1)
    assert eventually(page, lambda: drawn(large) != before)
    page.get_by_role("button", name="Leave this pick to the thresholds").click()
    assert eventually(page, lambda: drawn(large) == before)
    large.locator(".live").get_by_text(re.compile("NCC score")).wait_for(state="attached")


def test_a_project_of_tables_has_circles_and_no_picture(browser, tmp_path, monkeypatch):
    path = make_project(tmp_path / "p.zarr").path
    monkeypatch.setattr(Project, "has_images", property(lambda self: False))
    with inspecting(path) as found, opened(browser, *found) as shown:
        shown.plates.nth(0).get_by_text("tables only, no picture").wait_for()
        assert drawn(shown.plates.nth(0)) == judged(shown.session, "trio")
        assert shown.page.get_by_label("Low-pass of the pictures").count() == 0


def test_it_is_sharp_on_dense_screens_and_nothing_overflows_on_narrow_ones(browser, served):
    with opened(browser, *served, device_scale_factor=2) as shown:
        canvas = shown.plates.nth(0).locator("canvas").first
        assert canvas.evaluate("canvas => canvas.width / canvas.clientWidth") == pytest.approx(2, abs=0.01)
        shown.page.set_viewport_size({"width": 700, "height": 900})
        assert eventually(shown.page, lambda: shown.page.evaluate("document.documentElement.scrollWidth <= innerWidth"))
