"""Saving, thresholds files, exports and links in a real browser, worked by keyboard."""

import shutil
import threading
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from bokeh.client import pull_session
from bokeh.events import ButtonClick
from bokeh.models import Button, CheckboxGroup, Select, TextInput
from browsing import Opened, eventually, needs_chromium, page_of, serving, watched

from pickcal.dashboard.controller import Inspector
from pickcal.dashboard.saved.saving import load
from pickcal.dashboard.session import Session
from pickcal.dashboard.views.exporting import listing
from pickcal.dashboard.views.forms import beside
from pickcal.dashboard.views.look import Look
from pickcal.dashboard.views.saving import SavingView, another_name
from pickcal.project import Project
from pickcal.settings import SelectSettings
from pickcal.stages.select import select

START = SelectSettings(min_ncc=0.3, edge=100.0)


class Seen(Opened):
    """A page with its session and the folder of the project."""

    def __init__(self, page, session):
        super().__init__(page, session)
        self.root = session.inspector.project.path.parent

    def press(self, name):
        """Press a button with the keyboard."""
        button = self.page.get_by_role("button", name=name, exact=True)
        button.focus()
        button.press("Enter")

    def field(self, label):
        return self.page.get_by_label(label, exact=True)

    def check(self, label):
        box = self.page.get_by_role("checkbox", name=label)
        box.focus()
        box.press("Space")

    def type(self, label, text):
        self.field(label).focus()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.type(text)
        self.page.keyboard.press("Tab")

    def shows(self, text):
        self.page.get_by_text(text).first.wait_for()
        return True

    def move(self, value):
        self.do(lambda: self.session.set_threshold("min_ncc", value))
        assert self.session.settings.min_ncc == value

    def stored(self, name):
        return load(Project.open(self.session.inspector.project.path), name)

    def names(self):
        return Project.open(self.session.inspector.project.path).names("selection")


@contextmanager
def shown(browser, path, **options):
    sessions, inspector = [], Inspector(path)
    with serving({"/": page_of([SavingView], inspector, sessions, by="Ada", **options)}) as address:
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        errors, strangers = watched(page)
        page.goto(address)
        page.get_by_text("selection strict, saved").wait_for()
        page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=address)
        yield Seen(page, sessions[-1])
        page.close()
    inspector.background.close()
    assert (errors, strangers) == ([], [])


@pytest.fixture(scope="module")
def opened(browser, project, tmp_path_factory):
    path = shutil.copytree(project.path, tmp_path_factory.mktemp("saving") / "p.zarr")
    with shown(browser, path) as found:
        yield found


@pytest.fixture
def seen(opened):
    """The page with one stored selection, as it is when it is opened."""
    path = opened.session.inspector.project.path
    for name in opened.names():
        shutil.rmtree(path / "selection" / name)
    select(Project.open(path, "r+"), "template", "strict", START)
    for beside_it in [other for other in opened.root.iterdir() if other != path]:
        shutil.rmtree(beside_it) if beside_it.is_dir() else beside_it.unlink()
    opened.session.notes.texts.clear()
    opened.do(lambda: opened.session.follow({}))
    assert eventually(opened.page, lambda: opened.session.settings == START and not opened.session.unsaved)
    opened.settled()
    assert opened.shows("selection strict, saved")
    assert eventually(opened.page, lambda: opened.field("Save as").input_value() == "strict")
    return opened


@needs_chromium
def test_the_line_says_what_is_open_and_saving_stores_what_is_on_the_page(seen):
    seen.move(0.25)
    assert seen.shows("unsaved changes to strict")
    seen.press("Save")
    assert seen.shows("selection strict, saved")
    stored = seen.stored("strict")
    assert stored.settings == seen.session.settings and stored.settings.min_ncc == 0.25
    assert stored.by == "Ada"


@needs_chromium
def test_a_new_name_stores_a_second_selection_and_both_can_be_loaded(seen):
    seen.move(0.28)
    seen.type("Save as", "second")
    seen.press("Save")
    assert seen.shows("selection second, saved")
    assert seen.names() == ["second", "strict"]
    assert seen.stored("strict").settings == START
    seen.field("Stored selections").select_option("strict")
    seen.press("Load")
    assert seen.shows("selection strict, saved")
    assert seen.session.settings == START
    assert eventually(seen.page, lambda: seen.field("Save as").input_value() == "strict")  # sent after the words


@needs_chromium
def test_a_name_that_is_not_allowed_is_said_and_nothing_is_stored(seen):
    seen.type("Save as", "../other")
    seen.press("Save")
    assert eventually(seen.page, lambda: any("expected a name" in text for text in seen.session.notes.texts))
    assert seen.names() == ["strict"]
    assert eventually(seen.page, lambda: seen.page.get_by_role("button", name="Save", exact=True).is_enabled())


def somebody_else_saves(seen, value):
    other = Session(Inspector(seen.session.inspector.project.path), by="Grace")
    other.follow({})
    other.set_threshold("min_ncc", value)
    other.save("strict")
    other.inspector.background.close()


@needs_chromium
def test_what_somebody_else_saved_meanwhile_is_kept_under_its_name(seen):
    seen.move(0.25)
    somebody_else_saves(seen, 0.33)
    seen.press("Save")
    assert seen.shows("saved by Grace")
    assert seen.stored("strict").settings.min_ncc == 0.33
    seen.press("Save under another name")
    field = seen.field("Save as")
    assert eventually(seen.page, lambda: field.input_value() == "strict-2")
    assert eventually(seen.page, lambda: field.evaluate("field => field.getRootNode().activeElement === field"))
    seen.page.keyboard.press("Enter")
    assert seen.shows("selection strict-2, saved")
    assert seen.stored("strict").settings.min_ncc == 0.33 and seen.stored("strict-2").settings.min_ncc == 0.25


@needs_chromium
def test_what_somebody_else_saved_is_replaced_on_purpose_only(seen):
    seen.move(0.25)
    somebody_else_saves(seen, 0.33)
    seen.press("Save")
    assert seen.shows("saved by Grace")
    seen.press("Replace theirs")
    assert seen.shows("selection strict, saved")
    assert seen.stored("strict").settings.min_ncc == 0.25
    assert not seen.page.get_by_text("saved by Grace").is_visible()


@needs_chromium
def test_the_thresholds_file_goes_out_and_comes_back(seen, tmp_path):
    seen.move(0.2875)
    with seen.page.expect_download() as found:
        seen.press("Download thresholds file")
    file = tmp_path / "strict.toml"
    found.value.save_as(file)
    assert found.value.suggested_filename == "strict.toml"
    assert file.read_text() == seen.session.thresholds_text()
    seen.move(0.4)
    seen.field("Read a thresholds file").set_input_files(file)
    assert eventually(seen.page, lambda: seen.session.settings.min_ncc == 0.2875)
    (tmp_path / "wrong.toml").write_bytes(b"\xff\xfe")
    seen.field("Read a thresholds file").set_input_files(tmp_path / "wrong.toml")
    assert eventually(seen.page, lambda: any("wrong.toml" in text for text in seen.session.notes.texts))
    assert seen.session.settings.min_ncc == 0.2875


def content(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@needs_chromium
@pytest.mark.nightly
def test_exports_and_downloads_are_those_of_the_command_line(seen, cli, tmp_path):
    seen.move(0.27)
    seen.press("Save")
    assert seen.shows("selection strict, saved")
    with seen.page.expect_download() as found:
        seen.press("Download thresholds file")
    found.value.save_as(tmp_path / "t.toml")
    path = tmp_path / "p.zarr"
    shutil.copytree(seen.session.inspector.project.path, path)
    wanted = ["--picks", "template", "--name", "strict", "--overwrite"]
    cli("select", path, *wanted, "--thresholds", "t.toml", cwd=tmp_path, code=0)
    wanted = ["--selection", "strict", "--rejected"]
    cli("export", path, "strict", *wanted, "--format", "relion", cwd=tmp_path, code=0)
    cli("export", path, "out/picks.cs", *wanted, "--format", "cryosparc", "--no-flip-y", cwd=tmp_path, code=0)

    seen.check("Rejected picks as well, and why")
    assert seen.field("Write to").input_value() == "strict"
    seen.press("Export")
    assert seen.shows("Written, ")
    seen.field("Format").select_option("cryoSPARC (.cs)")
    assert eventually(seen.page, lambda: seen.field("Write to").input_value() == "strict.cs")
    seen.check("Count y from the last row (not of Patch Motion)")
    seen.type("Write to", "out/picks.cs")
    seen.press("Export")
    assert seen.shows("out/picks.cs")
    with seen.page.expect_download() as found:
        seen.press("Download (ZIP)")
    for folder in ("strict", "strict_rejected", "out"):
        ours, theirs = content(seen.root / folder), content(tmp_path / folder)
        assert ours and ours == theirs
    found.value.save_as(tmp_path / "d.zip")
    packed = zipfile.ZipFile(tmp_path / "d.zip")
    out = content(tmp_path / "out")
    assert {packed.read(name) for name in packed.namelist()} == set(out.values()) and len(packed.namelist()) == len(out)
    seen.field("Format").select_option("Topaz (.txt)")
    assert eventually(seen.page, lambda: seen.field("Write to").input_value() == "out/picks.txt")
    seen.field("Format").select_option("cryoSPARC (.cs)")
    assert eventually(seen.page, lambda: seen.field("Write to").input_value() == "out/picks.cs")
    seen.press("Export")
    assert eventually(seen.page, lambda: any("already" in text for text in seen.session.notes.texts))
    seen.check("Rejected picks as well, and why")


@needs_chromium
def test_an_export_with_unsaved_changes_asks_and_saves_first(seen):
    seen.field("Format").select_option("CSV table")
    assert eventually(seen.page, lambda: seen.field("Write to").input_value().endswith(".csv"))
    seen.type("Write to", "picks.csv")
    seen.move(0.24)
    seen.press("Export")
    assert seen.shows("There are unsaved changes to strict")
    assert not (seen.root / "picks.csv").exists()
    seen.press("Take it as it was saved")
    assert seen.shows("Written, 1 file")
    before = (seen.root / "picks.csv").read_bytes()
    assert seen.session.unsaved
    seen.check("Replace files that are there")
    seen.press("Export")
    assert seen.shows("There are unsaved changes to strict")
    seen.press("Save first")
    assert eventually(seen.page, lambda: seen.stored("strict").settings.min_ncc == 0.24)
    assert eventually(seen.page, lambda: (seen.root / "picks.csv").read_bytes() != before)
    seen.check("Replace files that are there")


@needs_chromium
def test_the_link_is_copied_or_shown_to_be_copied(seen):
    seen.press("Copy link to this view")
    assert seen.shows("Copied.")
    assert seen.page.evaluate("navigator.clipboard.readText()") == seen.page.url
    seen.page.evaluate("Object.defineProperty(navigator, 'clipboard', { value: undefined })")
    seen.press("Copy link to this view")
    field = seen.field("Link to this view")
    field.wait_for()
    assert field.input_value() == seen.page.url
    assert field.evaluate("field => field.selectionEnd - field.selectionStart === field.value.length")


@needs_chromium
def test_read_only_pages_save_nothing_but_give_out_what_is_saved(browser, project, tmp_path):
    path = shutil.copytree(project.path, tmp_path / "p.zarr")
    with shown(browser, path, read_only=True) as seen:
        for name in ("Save", "Export"):
            assert seen.page.get_by_role("button", name=name, exact=True).count() == 0
        for name in ("Save as", "Write to"):
            assert not seen.field(name).is_visible()
        with seen.page.expect_download() as found:
            seen.press("Download (ZIP)")
        assert found.value.suggested_filename == "strict_relion.zip"
        seen.move(0.2)
        seen.press("Download (ZIP)")
        assert seen.shows("There are unsaved changes to strict")
        assert seen.page.get_by_role("button", name="Save first", exact=True).count() == 0
        with seen.page.expect_download():
            seen.press("Take it as it was saved")
        with seen.page.expect_download() as found:
            seen.press("Download thresholds file")
        assert "min_ncc = 0.2" in found.value.path().read_text()
    assert sorted(other.name for other in tmp_path.iterdir()) == ["p.zarr"]


def test_other_picks_are_chosen_while_a_selection_is_saved(project, tmp_path):
    """The page goes on with those, and what is saved is of the picks that were there before."""
    path = shutil.copytree(project.path, tmp_path / "p.zarr")
    for group in ("picks", "calibration"):
        shutil.copytree(path / group / "template", path / group / "other")
    session, held, go = Session(Inspector(path)), threading.Event(), threading.Event()
    session.follow({"picks": "template"})
    view = SavingView(session, Look())
    session.listen(view.refresh)

    def hold():
        held.set()
        assert go.wait(60)
        yield 1.0

    for name, text in (("mine", "of picks 'template' is saved"), ("strict", "saved by Grace")):
        session.inspector.background.submit("hold", hold, priority=-1)
        assert held.wait(60)
        if name == "strict":
            select(Project.open(path, "r+"), "template", name, SelectSettings(min_ncc=0.4), overwrite=True, by="Grace")
        view._save(name)
        session.choose_picks("other")
        go.set()
        assert session.inspector.background.wait(60)
        assert (session.base, view._name.value, view._conflict.visible) == ("", "first", False)
        assert any(text in said for said in session.notes.texts)
        session.choose_picks("template")
        held.clear(), go.clear()
    stored = [load(session.inspector.project, name) for name in ("mine", "strict")]
    assert [(found.picks, found.settings.min_ncc) for found in stored] == [("template", 0.3), ("template", 0.4)]
    session.inspector.background.close()


def test_a_read_only_page_exports_nothing_to_whoever_writes_to_its_socket(project, tmp_path):
    """Without a browser: a client that presses buttons that are not shown, as Bokeh's protocol lets it."""
    path = shutil.copytree(project.path, tmp_path / "p.zarr")
    mine = tmp_path / "strict.csv"
    mine.write_text("mine")
    sessions, inspector = [], Inspector(path, read_only=True)

    def press(address):
        client = pull_session(url=address)
        (format_,) = client.document.select({"type": Select, "title": "Format"})
        format_.value = "CSV table"
        (place,) = client.document.select({"type": TextInput, "title": "Write to"})
        place.value = mine.name
        (replace,) = (box for box in client.document.select({"type": CheckboxGroup}) if "Replace" in box.labels[0])
        replace.active = [0]
        (button,) = (found for found in client.document.select({"type": Button}) if found.label == "Export")
        assert not button.visible
        client.document.models.flush_synced()  # models go by their ids, as a browser sends them
        client.document.callbacks.send_event(ButtonClick(button))
        client.force_roundtrip()
        for _ in range(200):
            if sessions[0].notes.texts:
                break
            client.force_roundtrip()
            time.sleep(0.05)
        client.close()

    with (
        serving({"/": page_of([SavingView], inspector, sessions, read_only=True)}) as address,
        ThreadPoolExecutor(1) as thread,  # the browser of other tests has a loop in this one
    ):
        thread.submit(press, address).result(120)
    (session,) = sessions
    inspector.background.close()
    assert mine.read_text() == "mine" and sorted(tmp_path.iterdir()) == [path, mine]
    assert "read-only" in session.notes.texts[-1]


def test_proposed_names_are_not_taken():
    assert another_name("first", ["first"]) == "first-2"
    assert another_name("first-2", ["first", "first-2", "first-3"]) == "first-4"


def test_long_lists_of_files_are_counted_and_names_are_not_taken_as_html():
    text = listing([f"{i}.star" for i in range(1200)], "/a<b>")
    assert "1,200 files" in text and "and 1,190 more" in text and text.count("<li>") == 11 and "<b>" not in text


def test_something_long_is_done_beside_other_jobs_and_its_error_comes_back():
    steps = beside(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        while True:
            next(steps)
