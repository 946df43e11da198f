"""The whole page in a real browser, served by `pickcal inspect`: on real micrographs, and against the command line."""

import os
import re
import shutil
import sys
from contextlib import chdir, contextmanager
from pathlib import Path
from urllib.parse import parse_qs, urlparse

import numpy as np
import pytest
from browsing import ROOT, answers, eventually, needs_chromium, server_process, watched
from small_project import make_project

from pickcal.dashboard.controller import Inspector
from pickcal.dashboard.saved.drafts import Drafts
from pickcal.project import Project
from pickcal.schema import Status
from pickcal.selection import ACCEPTED, read_thresholds, reason_counts
from pickcal.settings import SelectSettings
from pickcal.stages.select import judge
from pickcal.stages.select_result import thresholds_of

pytestmark = needs_chromium
PICTURES = Path(os.environ["PICKCAL_SCREENSHOTS"]) if "PICKCAL_SCREENSHOTS" in os.environ else None
TABS = ("Low, middle and high defocus", "All micrographs", "Montage", "Calibration", "Save and export")


@contextmanager
def running(command, pattern=r"(http://127\.0\.0\.1:\d+\S*)"):
    """Run a server until the block ends; yields the address that it prints, and finds no warning in what it says."""
    with server_process(command) as server:
        address = server.wait_for(lambda said: re.search(pattern, said))[1]
        server.wait_for(lambda _: answers(address))
        yield address
        server.end()
        assert "Warning" not in (said := server.said()), said


def inspecting(path, *options):
    return running([sys.executable, "-m", "pickcal", "inspect", str(path), "--no-show", *map(str, options)])


class Seen:
    """A page and what is on it."""

    def __init__(self, page):
        self.page = page
        self.errors, self.strangers = watched(page)

    def go(self, address):
        self.page.goto(address)
        self.page.locator(".counts").get_by_text("picks accepted").first.wait_for()
        assert self.eventually(lambda: "sample" not in self.text())
        self.plots.nth(1).wait_for()
        return self

    @property
    def plots(self):
        return self.page.locator(".bk-Figure[data-painted]")

    def text(self):
        return self.page.locator(".counts").inner_text()

    def accepted(self):
        found = re.search(r"^([\d,]+) of ([\d,]+) picks accepted", self.text(), re.M)
        return int(found[1].replace(",", "")) if found else None

    def drawn(self, count=3):
        plates = self.page.locator(".plate[data-painted]")
        return [plates.nth(i).evaluate("plate => [plate.drawn.accepted, plate.drawn.rejected]") for i in range(count)]

    def range(self, name):
        return self.page.locator(f"[data-threshold={name}] input[type=range]")

    def number(self, name):
        return self.page.locator(f"[data-threshold={name}] input[type=number]")

    def query(self):
        return {name: values[0] for name, values in parse_qs(urlparse(self.page.url).query).items()}

    def tab(self, name):
        self.page.locator(".bk-tab").get_by_text(name, exact=True).click()

    def button(self, name):
        return self.page.get_by_role("button", name=name, exact=True)

    def eventually(self, condition):
        return eventually(self.page, condition)


@contextmanager
def visiting(browser, address, width=1280, height=1000, **options):
    page = browser.new_page(viewport={"width": width, "height": height}, **options)
    seen = Seen(page)
    try:
        yield seen.go(address)
        assert (seen.errors, seen.strangers) == ([], [])
    finally:
        page.close()


@pytest.fixture
def own(tmp_path):
    """A project of one's own, calibrated, with a selection."""
    return make_project(tmp_path / "p.zarr")


def judged(project, settings):
    reasons = judge(project, "template", settings)
    return reason_counts(reasons).sum(axis=1), reasons


def rows_of(project):
    """Rows of the lowest, the middle and the highest defocus, as the page chooses them."""
    return Inspector(project.path).trio("template", 0)


def test_a_threshold_changes_counts_and_colours_and_all_of_it_is_saved(browser, own, tmp_path, in_process):
    rows = rows_of(own)
    with inspecting(own.path) as address:
        with visiting(browser, address) as seen:

            def agrees(settings):
                counts, reasons = judged(own, settings)
                circles = [[int((r == ACCEPTED).sum()), int((r > ACCEPTED).sum())] for r in reasons[rows]]
                return lambda: seen.accepted() == counts[ACCEPTED] and seen.drawn() == circles

            start = thresholds_of(own, "strict")
            assert seen.eventually(agrees(start))
            # the middle of the range's grip is taken and moved, as with a mouse
            box = seen.range("min_ncc").bounding_box()
            part = seen.range("min_ncc").evaluate("r => (r.value - r.min) / (r.max - r.min)")
            at = box["x"] + 8 + (box["width"] - 16) * part
            seen.page.mouse.move(at, box["y"] + box["height"] / 2)
            seen.page.mouse.down()
            for step in range(1, 9):
                seen.page.mouse.move(at + 4 * step, box["y"] + box["height"] / 2)
            seen.page.mouse.up()

            def there():
                return start.model_copy(update={"min_ncc": float(seen.query()["min_ncc"])})

            assert seen.eventually(lambda: there().min_ncc > 0.31 and agrees(there())())
            moved = there()
            assert judged(own, moved)[0][ACCEPTED] < judged(own, start)[0][ACCEPTED]
            # a pick by hand and an excluded micrograph
            plate = seen.page.locator(".plate[data-painted]").nth(1)
            place = int(np.flatnonzero(judged(own, moved)[1][rows[1]] == ACCEPTED)[0])
            where = plate.evaluate("(plate, place) => plate.where(place)", place)
            seen.page.mouse.click(where["x"], where["y"])
            assert seen.eventually(lambda: "draft" in seen.query())
            seen.page.get_by_role("button", name=re.compile("Exclude")).nth(2).click()
            seen.page.keyboard.press("5")
            seen.page.get_by_label("Save as").fill("mine")
            seen.button("Save").click()
            assert seen.eventually(lambda: "mine" in own.names("selection"))
            saved = thresholds_of(own, "mine")
            assert saved.min_ncc == moved.min_ncc and len(saved.reject) == 1 and len(saved.exclude) == 1
            assert saved.exclude == (str(own.read("micrographs", "name")[rows[2]]),)
            assert seen.eventually(lambda: seen.accepted() == judged(own, saved)[0][ACCEPTED])
            seen.page.keyboard.press("Escape")
            with seen.page.expect_download() as download:
                seen.button("Download thresholds file").click()
            file = tmp_path / "t.toml"
            download.value.save_as(file)
            assert read_thresholds(file) == saved
            url = seen.page.url
        with visiting(browser, url) as again:
            # a reload, or the link in other hands, shows the same
            assert again.eventually(lambda: again.accepted() == judged(own, saved)[0][ACCEPTED])
            assert again.query() == {**again.query(), **dict(min_ncc=repr(saved.min_ncc), selection="mine")}
            again.tab(TABS[4])
            again.page.get_by_text("selection mine, saved").wait_for()
            export_everything(again, own, tmp_path, file, in_process)


def export_everything(seen, own, tmp_path, file, command):
    """Files exported by the page are those of the command line with the thresholds file, byte for byte."""
    other = shutil.copytree(own.path, tmp_path / "other" / "p.zarr")
    assert command("select", other, "--picks", "template", "--thresholds", file, "--name", "again")[0] == 0
    for label, name, out in (
        ("RELION (STAR)", "relion", "r"),
        ("CSV table", "csv", "p.csv"),
        ("cryoSPARC (.cs)", "cryosparc", "p.cs"),
    ):
        place = seen.page.get_by_label("Write to")
        proposed = place.input_value()
        seen.page.get_by_label("Format").select_option(label=label)
        # another format gives the path its suffix first; what is typed then stays
        assert name == "relion" or seen.eventually(lambda place=place, old=proposed: place.input_value() != old)
        place.fill(out)
        place.press("Tab")
        seen.button("Export").click()
        ours = own.path.parent / out
        assert seen.eventually(ours.exists), label
        # paths in RELION's files are relative to the folder in which the command is given
        theirs = other.parent / out
        with chdir(other.parent):
            assert command("export", "p.zarr", out, "--selection", "again", "--format", name)[0] == 0
        pairs = (
            [(ours, theirs)] if ours.is_file() else [(ours / p.relative_to(theirs), p) for p in theirs.rglob("*.star")]
        )
        assert pairs
        for mine, its in pairs:
            assert seen.eventually(
                lambda mine=mine, its=its: mine.is_file() and mine.read_bytes() == its.read_bytes()
            ), mine


def test_the_keyboard_does_all_of_it(browser, own):
    rows = rows_of(own)
    names = own.read("micrographs", "name")
    with inspecting(own.path) as address, visiting(browser, address) as seen:
        press = seen.page.keyboard.press
        start = seen.accepted()
        for _ in range(3):
            press("]")
        assert seen.eventually(lambda: seen.accepted() < start)
        for _ in range(3):
            press("u")
        assert seen.eventually(lambda: seen.accepted() == start)
        press("r")
        assert seen.eventually(lambda: seen.accepted() < start)
        press("Control+z")
        assert seen.eventually(lambda: seen.accepted() == start)
        press("2")
        assert seen.eventually(lambda: seen.query().get("tab") == "all")
        first = seen.query()["micrograph"]
        press("n")
        assert seen.eventually(lambda: seen.query()["micrograph"] != first)
        press("p")
        assert seen.eventually(lambda: seen.query()["micrograph"] == first == names[rows[0]])
        press(".")
        press("a")
        assert seen.eventually(lambda: abs(seen.accepted() - start) == 1)
        press("x")
        count = int((judged(own, thresholds_of(own, "strict"))[1][rows[0]] == ACCEPTED).sum())
        assert seen.eventually(lambda: start - count - 1 <= seen.accepted() <= start - count + 1)
        press("x")
        press("v")
        assert seen.eventually(lambda: seen.query().get("rejected") == "0")
        press("c")
        assert seen.eventually(lambda: seen.query()["method"] == "raw")
        press("c")
        assert seen.eventually(lambda: seen.query()["method"] == "line")
        for key, tab in (("3", "montage"), ("4", "calibration"), ("5", "save"), ("1", None)):
            press(key)
            assert seen.eventually(lambda tab=tab: seen.query().get("tab") == tab)
        press("?")
        seen.page.get_by_role("dialog", name="Keyboard").wait_for()
        press("Escape")
        # Tab reaches controls, and what has the focus is framed
        press("Tab")
        press("Tab")
        framed = seen.page.evaluate(
            """() => { let e = document.activeElement
              while (e.shadowRoot && e.shadowRoot.activeElement) e = e.shadowRoot.activeElement
              return [e.tagName, getComputedStyle(e).outlineStyle, parseFloat(getComputedStyle(e).outlineWidth)] }"""
        )
        assert framed[0] in ("BUTTON", "SELECT", "INPUT") and framed[1] == "solid" and framed[2] >= 2


@pytest.mark.nightly
def test_two_people_do_not_overwrite_each_other(browser, own):
    with inspecting(own.path) as address, visiting(browser, address) as one, visiting(browser, address) as two:
        for seen, key in ((one, "]"), (two, "[")):
            seen.page.keyboard.press(key)
            seen.page.keyboard.press("5")
            seen.button("Save").wait_for()
        one.button("Save").click()
        one.page.get_by_text("selection strict, saved").wait_for()
        mine = thresholds_of(own, "strict")
        two.button("Save").click()
        two.page.get_by_text(re.compile("was saved by")).first.wait_for()
        assert thresholds_of(own, "strict") == mine
        two.page.get_by_role("button", name=re.compile("[Rr]eplace")).last.click()
        assert two.eventually(lambda: thresholds_of(own, "strict") != mine)


def test_a_running_job_is_seen(browser, tmp_path):
    project = make_project(tmp_path / "p.zarr", calibrate=False)
    status = project.done("picks/template")
    places = project._array("picks/template", "status")
    places[: 2 * project.batch] = np.int8(Status.PENDING)
    with inspecting(project.path) as address, visiting(browser, address) as seen:
        header = seen.page.locator("header")
        assert seen.eventually(lambda: f"of {project.count} micrographs picked" in header.inner_text())
        seen.page.locator("header progress").wait_for()
        few = int(re.search(r"([\d,]+) picks accepted", seen.text().replace("of ", ""))[1].replace(",", ""))
        places[:] = status
        total = int(project.read("picks/template", "count")[status == Status.DONE].sum())
        assert seen.eventually(lambda: f"{total:,} picks accepted" in seen.text().replace("of ", "")) and few < total
        assert seen.eventually(lambda: "of 12 micrographs picked" not in header.inner_text())


def test_decisions_outlive_the_server(browser, own):
    with inspecting(own.path) as address:
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        seen = Seen(page).go(address)
        for key in "]2.a":
            seen.page.keyboard.press(key)
        assert seen.eventually(lambda: "draft" in seen.query())
        drafts = Drafts(own.path)

        def kept():
            draft = drafts.read(seen.query()["draft"])
            return draft is not None and (draft.settings.accept or draft.settings.reject) and draft.settings

        assert seen.eventually(kept)
        # of both keys that decide something; the page may show the count of the first for a while
        accepted = int(judged(own, kept())[0][ACCEPTED])
        assert seen.eventually(lambda: seen.accepted() == accepted)
        query = urlparse(page.url).query
    # the connection is lost, which the page says; how it comes back by itself is in test_dashboard_serving.py
    page.locator("#pickcal-connection").wait_for()
    page.close()
    with inspecting(own.path) as address, visiting(browser, f"{address}?{query}") as again:
        assert again.eventually(lambda: again.accepted() == accepted)


@pytest.fixture(scope="module")
def read_only(tmp_path_factory):
    """A project, when each of its files was written, and the address of its page, on which nothing can be saved."""
    project = make_project(tmp_path_factory.mktemp("read_only") / "p.zarr")
    written = {path: path.stat().st_mtime_ns for path in project.path.rglob("*")}
    with inspecting(project.path, "--read-only") as address:
        yield project, written, address


def test_read_only_saves_nothing(browser, read_only):
    project, written, address = read_only
    with visiting(browser, address) as seen:
        start = seen.accepted()
        seen.page.keyboard.press("]")
        assert seen.eventually(lambda: seen.accepted() != start)
        assert "read-only" in seen.page.locator("header").inner_text()
        seen.page.keyboard.press("5")
        seen.button("Download thresholds file").wait_for()
        assert seen.button("Save").count() == 0 or seen.button("Save").is_disabled()
    assert {path: path.stat().st_mtime_ns for path in project.path.rglob("*")} == written


def test_thresholds_counts_and_micrographs_come_with_the_document(browser, read_only):
    project, _, address = read_only
    rows = rows_of(project)
    with visiting(browser, address):
        pass
    page = browser.new_page()
    asked = []

    def between(socket):
        server = socket.connect_to_server()
        # three frames ask for the document; of what the page says afterwards the server hears nothing
        socket.on_message(lambda message: (asked.append(message), len(asked) <= 3 and server.send(message)))

    page.route_web_socket(re.compile("/ws"), between)
    page.goto(address)
    seen = Seen(page)
    counts, reasons = judged(project, thresholds_of(project, "strict"))
    circles = [[int((r == ACCEPTED).sum()), int((r > ACCEPTED).sum())] for r in reasons[rows]]
    page.locator(".plate[data-painted]").nth(2).wait_for()
    assert seen.eventually(lambda: seen.accepted() == counts[ACCEPTED] and seen.drawn() == circles)
    assert seen.range("min_ncc").is_enabled() and seen.number("min_ncc").input_value() == "0.3"
    assert f"{counts.sum():,} picks" in page.locator("header").inner_text()
    assert "PULL-DOC-REQ" in asked[0] and len(asked) > 3 and seen.plots.count() == 0
    page.close()


@pytest.mark.nightly
def test_tables_without_images_are_inspected_too(browser, tmp_path, data, cli):
    cli(
        "import",
        data / "relion_10204" / "micrographs_ctf.star",
        "--tables-only",
        "--project",
        tmp_path / "q.zarr",
        code=0,
    )
    cli(
        "import-picks",
        tmp_path / "q.zarr",
        data / "relion_10204" / "AutoPick_template",
        "--name",
        "relion",
        "--diameter",
        150,
        code=0,
    )
    cli("calibrate", tmp_path / "q.zarr", "--picks", "relion", code=0)
    project = Project.open(tmp_path / "q.zarr")
    with inspecting(project.path) as address, visiting(browser, address) as seen:
        seen.page.get_by_label("Calibrated score", exact=True).check()
        seen.number("min_ncc").fill("0.6")
        seen.number("min_ncc").press("Tab")
        assert seen.eventually(lambda: seen.query().get("min_ncc") == "0.6")
        settings = SelectSettings(
            **{k: float(v) for k, v in seen.query().items() if k in ("min_ncc", "probability", "max_power")}
        )
        count = int((judge(project, "relion", settings) == ACCEPTED).sum())
        assert seen.eventually(lambda: seen.accepted() == count)
        seen.page.get_by_text("tables only").first.wait_for()
        for key in "2345":
            seen.page.keyboard.press(key)
            seen.page.wait_for_timeout(300)


@contextmanager
def under_panel_serve(path, *options):
    """Run the target with the options of a line of the documentation; yields the address."""
    target = [sys.executable, "-m", "panel", "serve", "dashboards/inspect_picks.py", "--port", "0"]
    address = r"(http://(?:127\.0\.0\.1|localhost):\d+/inspect_picks)"
    with running([*target, *options, "--args", str(path)], address) as found:
        yield found


def test_the_panel_serve_target_shows_the_same_page(browser, own):
    (line,) = re.findall(
        r"^panel serve dashboards/inspect_picks.py (.*) --args", (ROOT / "docs/inspect.md").read_text(), re.M
    )
    with (
        under_panel_serve(own.path, *line.split()) as found,
        visiting(browser, found.replace("localhost", "127.0.0.1")) as seen,
    ):
        assert seen.accepted() == judged(own, thresholds_of(own, "strict"))[0][ACCEPTED]


def test_the_panel_serve_target_is_not_shown_where_everybody_can_come(browser, own):
    with under_panel_serve(own.path) as found:
        page = browser.new_page()
        watched(page)
        page.goto(found)
        page.get_by_text("open to other machines without a login").wait_for()
        assert page.locator(".counts").count() == 0
        page.close()


def test_a_project_without_picks_waits_for_them(browser, tmp_path, imported, picked):
    own = shutil.copytree(imported, tmp_path / "p.zarr")
    with inspecting(own) as address:
        page = browser.new_page()
        seen = Seen(page)
        page.goto(address)
        page.get_by_text("This project has no picks yet").wait_for()
        shutil.copytree(picked / "picks", own / "picks", dirs_exist_ok=True)
        total = int(Project.open(picked).read("picks/template", "count").sum())
        page.locator(".counts").wait_for()
        assert seen.eventually(lambda: f"{total:,} picks" in page.locator("header").inner_text())
        assert seen.eventually(lambda: f"of {total:,} picks accepted" in seen.text())
        assert (seen.errors, seen.strangers) == ([], [])
        page.close()


@pytest.fixture(scope="module")
def labelled(apoferritin, data):
    """Address of the page of real micrographs with hand labels."""
    with inspecting(apoferritin, "--truth", data / "apoferritin_10146" / "truth_particles.star") as address:
        yield address


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_the_page_on_real_data_light_and_dark_narrow_and_wide(browser, labelled, tmp_path, theme):
    with visiting(browser, f"{labelled}?theme={theme}") as seen:
        grounds = {"light": "rgb(255, 255, 255)", "dark": "rgb(24, 24, 24)"}
        for key, tab in zip("12345", ("micrographs", "all", "montage", "calibration", "save"), strict=True):
            seen.page.keyboard.press(key)
            assert seen.eventually(lambda tab=tab: seen.query().get("tab", "micrographs") == tab)
            seen.page.wait_for_timeout(1500 if PICTURES else 300)
            keep(seen.page, f"{tab}_{theme}_1280")
            for width in (1000, 2200, 1280) if theme == "light" or PICTURES else ():
                seen.page.set_viewport_size({"width": width, "height": 1000})
                seen.page.wait_for_timeout(150)
                assert seen.page.evaluate("document.documentElement.scrollWidth <= innerWidth"), (tab, width)
                if width == 2200:
                    keep(seen.page, f"{tab}_{theme}_2200")
        assert grounds[theme] in seen.page.evaluate(GROUNDS)


GROUNDS = """() => { const found = []
  const look = (root) => { for (const element of root.querySelectorAll("*")) {
    found.push(getComputedStyle(element).backgroundColor)
    if (element.shadowRoot) look(element.shadowRoot) } }
  look(document)
  return found }"""


def test_precision_and_recall_follow_the_thresholds(browser, labelled, apoferritin, data, cli):
    truth = data / "apoferritin_10146" / "truth_particles.star"
    figures = cli("evaluate", apoferritin, "--selection", "auto", "--truth", truth, "--json", code=0).json
    with visiting(browser, labelled) as seen:
        text = seen.text()
        for word, key in (("Precision", "precision"), ("Recall", "recall"), ("F1", "f1")):
            shown = re.search(rf"{word}\s+([\d.]+)", text, re.I)
            assert shown and float(shown[1]) == pytest.approx(figures[key], abs=6e-4), (word, text)
        seen.page.keyboard.press("}")
        assert seen.eventually(lambda: seen.text() != text)


def keep(page, name):
    """Take a screenshot into the folder PICKCAL_SCREENSHOTS, if there is one."""
    if PICTURES is not None:
        page.mouse.move(2, 2)
        page.screenshot(path=PICTURES / f"inspect_{name}.png")
