"""The threshold panel in a real browser: moves set exact thresholds, and what it counts is what `Judge` counts."""

import re
import shutil

import numpy as np
import pytest
from browsing import PATIENCE, Opened, eventually, needs_chromium, page_of, serving, watched

from pickcal.dashboard.controller import Inspector
from pickcal.dashboard.session import Session
from pickcal.dashboard.views.look import Look
from pickcal.dashboard.views.thresholds import ALL, ThresholdsView
from pickcal.selection import REASONS, reason_counts
from pickcal.settings import SelectSettings
from pickcal.stages.select import Judge


class Seen(Opened):
    """A page with its session and project."""

    def __init__(self, page, session, project):
        super().__init__(page, session)
        self.project = project

    def text(self):
        return self.page.locator(".counts").inner_text()

    def accepted(self):
        found = re.search(r"^([\d,]+) of ([\d,]+) picks accepted", self.text(), re.M)
        return found and (int(found[1].replace(",", "")), int(found[2].replace(",", "")))

    def truth(self):
        block = Judge(self.project, "template", self.session.settings).block(0, self.project.count)
        return reason_counts(block.reasons).sum(axis=1)

    def rejected(self):
        rows = self.page.locator("table").first.locator("tbody tr").all()
        return {
            row.locator("th").inner_text(): int(row.locator("td").first.inner_text().replace(",", "")) for row in rows
        }

    def agrees(self):
        """What is shown is what the stage counts for the thresholds of the session."""
        counts = self.truth()
        return eventually(self.page, lambda: self.accepted() == (counts[0], counts.sum()))

    def range(self, name):
        return self.page.locator(f"[data-threshold={name}] input[type=range]")

    def number(self, name):
        return self.page.locator(f"[data-threshold={name}] input[type=number]")

    def holds(self, **values):
        def all_hold():
            return all(getattr(self.session.settings, name) == value for name, value in values.items())

        return eventually(self.page, all_hold)

    def button(self, name):
        return self.page.get_by_role("button", name=name, exact=True)


@pytest.fixture(scope="module")
def opened(browser, project):
    sessions, inspector = [], Inspector(project.path)
    with serving({"/": page_of([ThresholdsView], inspector, sessions)}) as address:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        errors, strangers = watched(page)
        page.goto(address)
        page.get_by_text("picks accepted").first.wait_for()
        found = Seen(page, sessions[-1], project)
        found.sessions = sessions
        yield found
        page.close()
    inspector.background.close()
    assert (errors, strangers) == ([], [])


@pytest.fixture
def seen(opened):
    """The page as it is when it is opened."""
    session = opened.session
    session.notes.texts.clear()
    opened.do(lambda: session.follow({}))
    assert opened.holds(min_ncc=0.3, edge=100.0)
    assert eventually(opened.page, lambda: session.cube is not None and session.cube.complete and not session.can_undo)
    opened.settled()
    assert opened.agrees()
    return opened


def drag(seen, name, positions):
    """Move a range as the mouse does: `input` at every position, `change` at the last."""
    seen.range(name).evaluate(
        """(range, positions) => {
          for (const position of positions) {
            range.value = position
            range.dispatchEvent(new Event("input", { bubbles: true }))
          }
          range.dispatchEvent(new Event("change", { bubbles: true }))
        }""",
        positions,
    )


@needs_chromium
@pytest.mark.parametrize(
    ("name", "position", "edge"),
    [
        ("min_ncc", 150, lambda cube: cube.main.edges[149]),
        ("min_power", 45, lambda cube: cube.power.edges[44]),
        ("max_power", 40, lambda cube: cube.power.edges[40]),
        ("edge", 12, lambda cube: cube.border.edges[11]),
        ("min_ncc", 0, lambda cube: None),
        ("edge", 0, lambda cube: None),
    ],
)
def test_a_range_sets_exactly_an_edge_and_the_counts_are_those_of_the_stage(seen, name, position, edge):
    expected = edge(seen.session.cube)
    before = seen.truth()
    drag(seen, name, [position])
    assert seen.holds(**{name: expected})
    assert seen.agrees()
    counts = seen.truth()
    assert counts[0] != before[0]
    words = {"near the border": "edge"}
    assert {words.get(word, word): number for word, number in seen.rejected().items() if number} == {
        reason: number for reason, number in zip(REASONS[1:], counts[1:], strict=True) if number
    }
    assert seen.number(name).input_value() == ("" if expected is None else str(float(expected)).removesuffix(".0"))


@needs_chromium
def test_a_drag_is_one_step_for_undo_and_redo(seen):
    start = seen.session.settings
    assert seen.button("Undo").is_disabled() and seen.button("Redo").is_disabled()
    drag(seen, "min_ncc", [200, 180, 160])
    moved = seen.session.cube.main.edges[159]
    assert seen.holds(min_ncc=moved) and eventually(seen.page, lambda: seen.session.can_undo)
    seen.button("Undo").press("Enter")
    assert eventually(seen.page, lambda: seen.session.settings == start)
    assert eventually(seen.page, lambda: seen.number("min_ncc").input_value() == "0.3")
    assert seen.agrees() and seen.button("Undo").is_disabled()
    seen.button("Redo").press("Enter")
    assert seen.holds(min_ncc=moved) and seen.agrees()


@needs_chromium
def test_typed_values_are_taken_as_they_are_and_nothing_typed_is_no_limit(seen):
    field = seen.number("min_ncc")
    field.fill("0.31234")
    field.press("Enter")
    assert seen.holds(min_ncc=0.31234)
    assert eventually(seen.page, lambda: "about" in seen.text())
    field.fill("")
    field.press("Enter")
    assert seen.holds(min_ncc=None) and seen.agrees()
    assert field.get_attribute("placeholder") == "no limit"
    assert seen.range("min_ncc").input_value() == "0"


@needs_chromium
def test_what_is_not_allowed_is_said_and_gives_way_to_what_holds(seen):
    seen.number("edge").fill("-5")
    seen.number("edge").press("Enter")
    assert eventually(seen.page, lambda: any("edge" in text for text in seen.session.notes.texts))
    assert eventually(seen.page, lambda: seen.number("edge").input_value() == "100")
    assert seen.session.settings.edge == 100.0


@needs_chromium
def test_the_limits_of_the_power_push_each_other_along(seen):
    edges = seen.session.cube.power.edges
    drag(seen, "max_power", [10])
    assert seen.holds(max_power=edges[10])
    drag(seen, "min_power", [31])
    assert seen.holds(min_power=edges[30], max_power=edges[30])
    assert eventually(seen.page, lambda: seen.range("max_power").input_value() == "30")


@needs_chromium
def test_methods_are_switched_with_the_keyboard_and_bring_their_own_threshold(seen):
    page = seen.page
    page.get_by_label("Calibrated score").focus()
    page.keyboard.press("ArrowDown")
    assert eventually(page, lambda: seen.session.method == "probability")
    page.get_by_text("Least probability of being a particle").wait_for()
    assert seen.number("min_ncc").count() == 0
    assert seen.holds(probability=0.5, min_ncc=None) and seen.agrees()
    assert eventually(page, lambda: "noise" in seen.text() and "junk" in seen.text())
    page.keyboard.press("ArrowDown")
    assert eventually(page, lambda: seen.session.method == "fdr")
    page.get_by_text("Largest false discovery rate").wait_for()
    assert seen.agrees()
    drag(seen, "fdr", [len(seen.session.cube.main.edges)])
    assert seen.holds(fdr=None)
    page.get_by_label("Raw score").check()
    page.get_by_text("Least raw NCC score").wait_for()
    assert eventually(page, lambda: seen.range("min_ncc").is_enabled())
    drag(seen, "edge", [6])
    drag(seen, "min_ncc", [90])
    assert seen.holds(raw=True, edge=seen.session.cube.border.edges[5], min_ncc=seen.session.cube.main.edges[89])
    assert seen.agrees()


@needs_chromium
def test_arrow_keys_move_by_an_edge_and_a_held_key_is_one_step(seen):
    edges = seen.session.cube.main.edges
    here = int(np.searchsorted(edges, 0.3))
    moving = seen.range("min_ncc")
    moving.focus()
    for _ in range(5):
        seen.page.keyboard.down("ArrowRight")
    seen.page.keyboard.up("ArrowRight")
    assert seen.holds(min_ncc=edges[here + 5])
    assert eventually(seen.page, lambda: seen.session.can_undo)
    assert seen.agrees()
    seen.do(seen.session.undo)
    assert seen.holds(min_ncc=0.3)


@needs_chromium
def test_what_a_slow_server_says_of_before_takes_no_control_back(browser, opened, seen):
    held, holding = [], []

    def between(socket):
        server = socket.connect_to_server()
        socket.on_message(lambda message: held.append((server, message)) if holding else server.send(message))

    page = browser.new_page(viewport={"width": 1280, "height": 900})
    watched(page)
    page.route_web_socket(re.compile("/ws"), between)
    page.goto(opened.page.url)
    page.get_by_text("picks accepted").first.wait_for()
    slow = Seen(page, opened.sessions[-1], opened.project)
    slow.settled()
    edges = slow.session.cube.main.edges
    here = int(np.searchsorted(edges, 0.3))

    def stale():
        slow.do(lambda: slow.session.tell("progress"))
        slow.settled()

    holding.append(True)
    slow.range("min_ncc").focus()
    for step in (1, 2):
        page.keyboard.press("ArrowRight")
        page.wait_for_timeout(400)  # by then the page waits for no answer any more before it sends the next move
        stale()
        assert slow.range("min_ncc").evaluate("range => Number(range.value)") == here + 1 + step
    page.get_by_label("Calibrated score").focus()
    for name in ("Probability", "False discovery rate"):
        page.keyboard.press("ArrowDown")
        stale()
        assert page.get_by_label(name, exact=True).is_checked()
    assert slow.session.method == "line" and slow.session.settings.min_ncc == 0.3
    holding.clear()
    for server, message in held:
        server.send(message)
    assert eventually(page, lambda: slow.session.method == "fdr")
    assert slow.holds(fdr=0.05)
    slow.do(lambda: slow.session.set_method("line"))
    assert slow.holds(min_ncc=edges[here + 2])
    page.get_by_label("Calibrated score").and_(page.locator(":checked")).wait_for()
    page.close()


@needs_chromium
def test_a_threshold_beside_the_methods_own_is_a_chip_that_can_be_removed(seen):
    seen.do(lambda: seen.session.read_thresholds("[thresholds]\nprobability = 0.6\nmin_ncc = 0.25\n", "a file"))
    assert seen.holds(probability=0.6, min_ncc=0.25) and seen.session.method == "line"
    seen.page.get_by_text("also: probability at least 0.6").wait_for()
    assert seen.agrees()
    remove = seen.button("remove: probability at least 0.6")
    remove.focus()
    remove.press("Enter")
    assert seen.holds(min_ncc=0.25, probability=None) and seen.agrees()
    assert eventually(seen.page, lambda: seen.page.locator(".chip").count() == 0)


@needs_chromium
def test_excluded_micrographs_and_decisions_by_hand_are_counted_and_cleared(seen):
    session = seen.session
    seen.do(lambda: [session.toggle_excluded(row) for row in (0, 1)])
    seen.do(lambda: session.toggle(2, 0))
    seen.page.get_by_text("2 micrographs excluded").wait_for()
    seen.page.get_by_text(re.compile("By hand: (1 accepted, 0|0 accepted, 1) rejected")).wait_for()
    assert seen.agrees() and seen.rejected()["micrograph excluded"] > 0
    seen.button("clear: 2 micrographs excluded").press("Enter")
    assert seen.holds(exclude=()) and seen.agrees()
    seen.page.get_by_role("button", name=re.compile("clear: By hand")).press("Enter")
    assert seen.holds(accept=(), reject=()) and seen.agrees()
    assert eventually(seen.page, lambda: seen.page.locator(".decided button").count() == 0)


@needs_chromium
def test_the_proposed_thresholds_are_taken(seen):
    from pickcal.stages.select import automatic

    seen.button("Propose").press("Enter")
    proposed = automatic(seen.project, "template", SelectSettings())
    assert seen.holds(probability=proposed.probability, max_power=proposed.max_power, min_ncc=None, edge=100.0)
    assert seen.agrees()


@needs_chromium
def test_what_is_painted_carries_the_version_of_the_session(seen):
    before = seen.session.version
    drag(seen, "min_ncc", [140])
    painted = seen.page.locator("[data-painted]")
    assert eventually(seen.page, lambda: before < int(painted.get_attribute("data-painted")) <= seen.session.version)


def message(inspector, act=lambda session: None, **options):
    """All that the view says of a session, without a browser."""
    session = Session(inspector, **options)
    session.follow({})
    assert inspector.background.wait(PATIENCE)
    view, sent = ThresholdsView(session, Look()), []
    view.layout._send_msg = sent.append
    act(session)
    view.refresh(ALL)
    return sent[-1]


def test_methods_that_the_picks_do_not_allow_say_why(project, tmp_path):
    path = shutil.copytree(project.path, tmp_path / "p.zarr")
    shutil.rmtree(path / "calibration")
    shutil.rmtree(path / "selection")
    inspector = Inspector(path)
    sent = message(inspector)
    assert sent["method"] == "raw"
    assert [(method["name"], bool(method["why"])) for method in sent["methods"]] == [
        ("raw", False),
        ("line", True),
        ("probability", True),
        ("fdr", True),
    ]
    assert "pickcal calibrate" in sent["methods"][1]["why"]
    assert sent["counts"]["expected"] is None
    assert [spec["label"] for spec in sent["controls"]][:2] == [
        "Least raw NCC score",
        "Least raw power score (noise variances)",
    ]


@pytest.mark.parametrize("excluded", [(), (0, 1, 5)])
def test_means_per_micrograph_are_those_of_the_micrographs_of_each_third(project, excluded):
    inspector = Inspector(project.path)
    defocus, done = inspector.defocus, inspector.finished("template")
    order = np.argsort(np.where(done, defocus, np.inf))
    rows = [int(order[place]) for place in excluded]
    sent = message(inspector, lambda session: [session.toggle_excluded(row) for row in rows])
    settings = SelectSettings(min_ncc=0.3, edge=100.0)
    accepted = reason_counts(Judge(project, "template", settings).block(0, project.count).reasons)[0]
    done[rows] = False
    for word, mean in sent["counts"]["classes"]:
        low, high = map(float, re.search(r"([\d.]+) to ([\d.]+)", word).groups())
        inside = done & (defocus >= low - 0.006) & (defocus <= high + 0.006)
        assert mean == pytest.approx(accepted[inside].mean(), abs=0.06)
    assert [word.split(",")[0] for word, _ in sent["counts"]["classes"]] == ["low", "middle", "high"]


def test_binning_that_fails_is_said_in_words(project, monkeypatch):
    from pickcal.dashboard import controller

    class Failing:
        cube, up_to_date = None, False

        def __init__(self, *_):
            pass

        def job(self, _):
            raise OSError("the disk is gone")
            yield

    monkeypatch.setattr(controller, "Binning", Failing)
    sent = message(Inspector(project.path))
    assert "the disk is gone" in sent["failure"] and sent["counts"] is None and sent["binning"] is None


def test_precision_recall_and_f1_are_shown_where_truth_is_given(project, monkeypatch):
    from dataclasses import replace

    inspector = Inspector(project.path)

    def with_truth(session):
        counts = replace(session.counts, true=60, counted=80, particles=100)
        monkeypatch.setattr(Session, "counts", property(lambda _: counts))

    truth = message(inspector, with_truth)["counts"]["truth"]
    assert truth == [("precision", 0.75), ("recall", 0.6), ("F1", pytest.approx(2 * 0.75 * 0.6 / 1.35))]
