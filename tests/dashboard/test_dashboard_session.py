"""One visitor without a browser: decisions, undo, links, drafts, and what is counted."""

import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from planted import plant, planted_project
from small_project import add_calibration, add_selection, make_project

from pickcal.dashboard.address import View
from pickcal.dashboard.background import Background
from pickcal.dashboard.controller import Inspector
from pickcal.dashboard.saved.saving import Conflict
from pickcal.dashboard.session import Session
from pickcal.errors import InputError, ProjectError
from pickcal.schema import Status
from pickcal.selection import ACCEPTED, REASONS, read_thresholds, reason_counts
from pickcal.settings import SelectSettings
from pickcal.stages.select import judge
from pickcal.stages.select_result import thresholds_of

WAIT = 60


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    """Nobody drags anything here: the background need not wait for quiet."""
    monkeypatch.setattr("pickcal.dashboard.controller.Background", lambda: Background(quiet=0))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    project = planted_project(tmp_path_factory.mktemp("session") / "p.zarr", plant(micrographs=9))
    add_calibration(project)
    add_selection(project, "first", SelectSettings(probability=0.9))
    return project.path


@pytest.fixture
def session(made, tmp_path):
    return opened(shutil.copytree(made, tmp_path / "p.zarr"))


def opened(path, query=None, **options):
    session = Session(Inspector(path, read_only=options.get("read_only", False)), **options)
    session.follow(query or {})
    assert session.inspector.background.wait(WAIT)
    return session


def counted(session):
    assert session.inspector.background.wait(WAIT)
    assert session.counts.exact
    return session.counts.reasons.tolist()


def judged(session):
    found = judge(session.inspector.project, session.picks, session.settings)
    return reason_counts(found).sum(axis=1).tolist()


def test_the_first_selection_is_open_with_its_method(session):
    assert (session.picks, session.method, session.base) == ("template", "probability", "first")
    assert session.settings == SelectSettings(probability=0.9)
    assert not session.unsaved
    assert counted(session) == judged(session)


def test_without_a_selection_thresholds_are_proposed(tmp_path):
    made = planted_project(tmp_path / "p.zarr", plant(micrographs=6))
    add_calibration(made)
    session = opened(made.path)
    assert session.settings.probability == 0.5 and session.settings.max_power is not None
    assert session.unsaved
    assert counted(session) == judged(session)


def test_uncalibrated_picks_have_raw_scores_alone(tmp_path):
    session = opened(make_project(tmp_path / "p.zarr", calibrate=False).path)
    assert session.methods == ("raw",) and session.settings.raw
    session.set_threshold("min_ncc", 0.3)
    assert counted(session) == judged(session)
    with pytest.raises(InputError, match="expected one of raw, got 'line'"):
        session.set_method("line")


def test_every_threshold_counts_as_select_does(session):
    for method, name, value in (
        ("probability", "probability", 0.95),
        ("fdr", "fdr", 0.05),
        ("line", "min_ncc", 0.3),
        ("raw", "min_ncc", 0.28),
    ):
        session.set_method(method)
        session.set_threshold(name, value)
        assert session.inspector.background.wait(WAIT)
        cube = session.cube
        session.set_threshold("min_power", float(cube.power.edges[9]))
        session.set_threshold("max_power", float(cube.power.edges[40]))
        session.set_threshold("edge", float(cube.border.edges[5]))
        assert cube.main.holds(value)
        assert counted(session) == judged(session)
        assert session.counts.reasons[ACCEPTED] > 0


def test_a_threshold_of_another_method_goes_on_counting(session):
    session.set_threshold("min_ncc", 0.35)
    assert session.method == "probability"
    found = counted(session)
    assert found == judged(session) and found[REASONS.index("low score")] > 0


def test_limits_of_power_push_each_other(session):
    session.set_threshold("max_power", 2.0)
    session.set_threshold("min_power", 3.0)
    assert (session.settings.min_power, session.settings.max_power) == (3.0, 3.0)
    session.set_threshold("max_power", 1.0)
    assert (session.settings.min_power, session.settings.max_power) == (1.0, 1.0)


def test_a_drag_is_one_step_to_undo(session):
    before = session.settings
    for value in (0.8, 0.7, 0.6):
        session.set_threshold("probability", value, final=False)
    session.set_threshold("probability", 0.6)
    session.set_threshold("edge", 50.0)
    session.undo()
    assert session.settings == before.model_copy(update={"probability": 0.6})
    session.undo()
    assert session.settings == before and not session.can_undo
    session.redo()
    session.redo()
    assert session.settings == before.model_copy(update={"probability": 0.6, "edge": 50.0}) and not session.can_redo


def test_methods_remember_their_thresholds_and_begin_with_as_many_picks(session):
    accepted = (session.reasons("trio") == ACCEPTED).sum()
    session.set_method("line")
    assert (session.reasons("trio") == ACCEPTED).sum() == accepted
    session.set_threshold("min_ncc", 0.4)
    session.set_method("probability")
    assert session.settings.probability == 0.9 and session.settings.min_ncc is None
    session.set_method("line")
    assert session.settings.min_ncc == 0.4 and session.settings.probability is None


def test_picks_are_accepted_and_rejected_by_hand(session):
    row = session.trio.rows[1]
    reasons = session.reasons("trio")[1]
    good, bad = (int(np.flatnonzero(reasons == value)[0]) for value in (ACCEPTED, REASONS.index("probability")))
    session.toggle(row, good)
    session.toggle(row, bad)
    now = session.reasons("trio")[1]
    assert now[good] == REASONS.index("by hand") and now[bad] == ACCEPTED
    assert (len(session.settings.accept), len(session.settings.reject)) == (1, 1)
    assert counted(session) == judged(session)
    session.toggle(row, good)
    assert session.reasons("trio")[1][good] == ACCEPTED and not session.settings.reject
    session.clear_hands()
    assert session.reasons("trio")[1][bad] == REASONS.index("probability")


def test_an_excluded_micrograph_counts_for_nothing(session):
    row = session.trio.rows[0]
    session.toggle_excluded(row)
    assert session.settings.exclude == (session.inspector.micrographs[row],)
    assert (session.reasons("trio")[0] <= REASONS.index("micrograph")).all()
    assert counted(session) == judged(session)
    with pytest.raises(InputError, match="is excluded"):
        session.toggle(row, 0)
    session.toggle_excluded(row)
    assert session.settings.exclude == ()


def test_what_is_saved_is_what_select_stores_and_its_file_replays(session, tmp_path, cli):
    row = session.trio.rows[0]
    session.set_threshold("probability", 0.7)
    session.toggle(row, 3)
    session.toggle_excluded(session.trio.rows[2])
    session.save("mine")
    project = session.inspector.project
    assert thresholds_of(project, "mine") == session.settings and not session.unsaved
    file = tmp_path / "t.toml"
    file.write_text(session.thresholds_text())
    assert read_thresholds(file) == session.settings
    cli("select", project.path, "--picks", "template", "--thresholds", file, "--name", "again", code=0)
    ours, theirs = (project.dataset(f"selection/{name}")["counts"].values for name in ("mine", "again"))
    np.testing.assert_array_equal(ours, theirs)
    assert ours.sum(axis=1).tolist() == counted(session)


def test_somebody_elses_selection_is_not_overwritten(session):
    other = opened(session.inspector.project.path, by="Ada")
    session.set_threshold("probability", 0.7)
    other.set_threshold("probability", 0.8)
    other.save("first")
    with pytest.raises(Conflict, match="Ada"):
        session.save("first")
    assert thresholds_of(session.inspector.project, "first").probability == 0.8
    session.poll()
    session.poll()
    assert sum("saved by Ada" in text for text in session.notes.texts) <= 1
    session.save("first", overwrite=True)
    assert thresholds_of(session.inspector.project, "first").probability == 0.7


def test_a_link_leads_to_the_same_view(session):
    session.set_method("fdr")
    session.set_threshold("fdr", 0.02)
    session.set_threshold("max_power", 2.75)
    session.look_at(4)
    session.look(lowpass=33.0, low=-1.5, sort="picks", descending=True, search="mic", tab="all", rejected=False)
    session.turn()
    there = opened(session.inspector.project.path, session.address())
    assert (there.picks, there.method, there.settings) == (session.picks, session.method, session.settings)
    assert there.view == session.view
    assert there.address() == session.address()


def test_what_a_link_says_wrongly_is_said_and_left_out(made):
    query = {
        "picks": "nothing",
        "method": "magic",
        "probability": "2",
        "min_power": "3",
        "max_power": "2",
        "micrograph": "no.mrc",
        "tab": "x",
        "low": "nan",
        "theme": "dark",
    }
    session = opened(made, query)
    said = " ".join(session.notes.texts)
    for word in ("'nothing'", "'magic'", "'2'", "no.mrc", "'x'", "'nan'", "do not go together"):
        assert word in said
    assert "theme" not in said
    assert session.picks == "template" and session.view.tab == "micrographs"


def test_decisions_are_kept_and_found_again(session):
    row = session.trio.rows[0]
    session.toggle(row, 2)
    session.toggle_excluded(session.trio.rows[1])
    session.set_threshold("probability", 0.77)
    assert session.inspector.background.wait(WAIT)
    query = session.address()
    assert query["draft"] == session.draft != ""
    there = opened(session.inspector.project.path, query)
    assert there.settings == session.settings
    # the one who comes by the link decides for himself
    there.set_threshold("probability", 0.5)
    there.clear_hands()
    assert there.inspector.background.wait(WAIT)
    assert there.draft != session.draft
    again = opened(session.inspector.project.path, query)
    assert again.settings == session.settings


def test_a_link_that_was_given_away_stays_as_it_was(session):
    session.toggle(session.trio.rows[0], 2)
    assert session.inspector.background.wait(WAIT)
    query, settings = session.address(), session.settings
    session.freeze()
    session.clear_hands()
    assert session.inspector.background.wait(WAIT)
    assert session.address()["draft"] != query["draft"]
    assert opened(session.inspector.project.path, query).settings == settings


def test_read_only_writes_nothing_and_decides_nothing_by_hand(made):
    def state():
        return {path: path.stat().st_mtime_ns for path in Path(made).rglob("*")}

    before = state()
    session = opened(made, read_only=True)
    session.set_threshold("probability", 0.6)
    session.toggle_excluded(0)
    with pytest.raises(InputError, match="read-only"):
        session.save("x")
    with pytest.raises(InputError, match="read-only"):
        session.toggle(0, 0)
    assert session.inspector.background.wait(WAIT)
    assert state() == before


def test_picks_that_are_finished_later_appear(tmp_path):
    project = make_project(tmp_path / "p.zarr", calibrate=False)
    status = project.done("picks/template")
    project._array("picks/template", "status")[:8] = np.int8(Status.PENDING)
    session = opened(project.path)
    few = sum(counted(session))
    project._array("picks/template", "status")[:] = status
    session._stamps["finished"] = ()
    session.inspector._stamps.clear()
    session.poll()
    assert sum(counted(session)) == project.read("picks/template", "count")[status == Status.DONE].sum() > few


def test_micrographs_appear_as_the_first_are_finished(tmp_path):
    project = make_project(tmp_path / "p.zarr", calibrate=False)
    status = project.done("picks/template")
    places = project._array("picks/template", "status")
    places[:] = np.int8(Status.PENDING)
    session = opened(project.path)
    assert (len(session.trio.rows), len(session.focus.rows), session.view.row) == (0, 0, -1)
    places[:] = status
    session.inspector._stamps.clear()
    session.poll()
    assert len(session.trio.rows) == 3 and session.view.row == session.trio.rows[0]
    assert sum(counted(session)) == project.read("picks/template", "count")[status == Status.DONE].sum()


def test_picks_that_are_calibrated_anew_are_shown_anew(tmp_path):
    project = make_project(tmp_path / "p.zarr", calibrate=False)
    session = opened(project.path)
    assert session.methods == ("raw",)
    add_calibration(project)
    session.inspector._stamps.clear()
    session.poll()
    assert "line" in session.methods
    assert any("calibrated or picked anew" in text for text in session.notes.texts)


def test_listeners_hear_what_changed(session):
    heard = []
    session.listen(heard.append)
    session.set_threshold("probability", 0.6, final=False)
    assert heard == [frozenset({"thresholds"})]
    session.set_threshold("probability", 0.6)
    assert frozenset({"thresholds", "settled"}) in heard
    session.look_at(3)
    assert frozenset({"focus", "cursor"}) in heard


def test_the_list_is_walked_in_its_order(session):
    session.look(sort="picks", descending=True)
    order = session.inspector.order(session.picks, session.view, session.tally)
    session.look_at(int(order[0]))
    session.go(1)
    assert session.view.row == order[1]
    session.go(-5)
    assert session.view.row == order[0]


def test_the_cursor_begins_at_the_threshold(session):
    session.move_cursor(1)
    columns = session.focus.columns(0)
    nearest = np.argmin(np.abs(columns["probability"] - session.settings.probability))
    assert session.view.cursor == nearest


def test_picks_that_are_not_there_are_refused(session):
    with pytest.raises(ProjectError, match="it has: template"):
        session.choose_picks("blob")


def test_every_field_of_the_view_is_in_the_link():
    assert {item.name for item in fields(View)} == {
        *("row", "cursor", "turn", "tab", "lowpass", "low", "high", "rejected", "sort", "descending", "search")
    }


def test_a_session_follows_micrographs_that_arrive(tmp_path, small_set, small_settings):
    """A round of `pickcal watch` shows up in an open page, with its names, counts and fit; nothing is said of it."""
    from pickcal.engine.executors import SerialExecutor
    from pickcal.engine.progress import Silent
    from pickcal.settings import CalibrateSettings, ImportSettings, WatchSettings
    from pickcal.stages.watch import Session as Watched
    from pickcal.stages.watch import watch

    folder = tmp_path / "sim"
    lines = small_set.micrographs.read_text().rstrip("\n").split("\n")
    rows = [line for line in lines if ".mrc" in line]

    def arrive(count):
        keep = [line for line in lines if line not in rows[count:]]
        (folder / "micrographs_ctf.star").write_text("\n".join(keep) + "\n")
        quick = WatchSettings(interval=0.05, settle=0.0, patience=0.2, first=2)
        source, given = folder / "micrographs_ctf.star", (ImportSettings(batch=2), small_settings, SerialExecutor())
        watch(Watched(source, tmp_path / "p.zarr", quick, *given, Silent(), fitting=CalibrateSettings(bootstrap=0)))

    shutil.copytree(small_set.folder, folder)
    arrive(3)
    session = opened(tmp_path / "p.zarr")
    inspector = session.inspector
    assert (len(inspector.micrographs), judged(session)) == (3, counted(session))
    before = sum(counted(session))
    arrive(5)
    inspector.look("template")
    session.poll()
    assert len(inspector.micrographs) == len(inspector.defocus) == 5
    assert inspector.counts("template")["done"] == 5
    assert inspector.calibration("template").sizes["micrograph"] == 5
    assert counted(session) == judged(session)
    assert sum(counted(session)) > before
    assert session.notes.texts == []
