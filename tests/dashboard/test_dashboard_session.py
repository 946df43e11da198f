"""One visitor without a browser: decisions, undo, links, drafts, and what is counted."""

import os
import shutil
import threading
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from planted import plant, planted_project
from small_project import add_calibration, add_selection, make_project

from pickcal.dashboard.address import View
from pickcal.dashboard.background import Background
from pickcal.dashboard.controller import Inspector
from pickcal.dashboard.saved.saving import Conflict, load
from pickcal.dashboard.session import Session
from pickcal.errors import InputError, ProjectError
from pickcal.project import Project
from pickcal.schema import Status
from pickcal.selection import ACCEPTED, REASONS, read_thresholds, reason_counts
from pickcal.settings import EvaluateSettings, SelectSettings
from pickcal.stages.evaluate import evaluate_picks
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


def opened(path, query=None, truth=None, **options):
    session = Session(Inspector(path, truth, read_only=options.get("read_only", False)), **options)
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


def saved_by_ada(session, probability=0.8):
    other = opened(session.inspector.project.path, by="Ada")
    other.set_threshold("probability", probability)
    other.save("first")


def refused(session, probability):
    """Saving what is on the page is refused, and what Ada saved is still there."""
    assert session.unsaved and session.settings.probability == probability
    with pytest.raises(Conflict, match="Ada"):
        session.save("first")
    return thresholds_of(session.inspector.project, "first").probability == 0.8


def test_a_reload_does_not_overwrite_what_somebody_else_saved(session):
    """With decisions of one's own, and with the address alone."""
    path, untouched = session.inspector.project.path, session.address()
    session.set_threshold("probability", 0.7)
    assert session.inspector.background.wait(WAIT)
    saved_by_ada(session)
    for query, probability in ((session.address(), 0.7), (untouched, 0.9)):
        again = opened(path, query)
        assert sum("saved by Ada" in text for text in again.notes.texts) == 1
        assert refused(again, probability)
    # a reload of the reload is not another one
    again.set_threshold("edge", 20.0)
    assert again.inspector.background.wait(WAIT)
    assert refused(opened(path, again.address()), 0.9)
    again.load("first")
    again.set_threshold("probability", 0.6)
    again.save("first")
    assert thresholds_of(session.inspector.project, "first").probability == 0.6


def test_a_link_that_knows_of_no_selection_overwrites_none(session):
    path = session.inspector.project.path
    saved_by_ada(session)
    assert refused(opened(path, {"probability": "0.7"}), 0.7)
    assert refused(opened(path, {"probability": "0.7", "selection": "first"}), 0.7)
    there = opened(path, {"selection": "first"})
    there.set_threshold("probability", 0.6)
    there.save("first")
    assert thresholds_of(there.inspector.project, "first").probability == 0.6


def test_after_a_reload_one_saves_what_one_saved_before(session):
    path = session.inspector.project.path
    for probability in (0.7, 0.75):
        session.set_threshold("probability", probability)
        session.toggle_excluded(session.trio.rows[0])
        assert session.inspector.background.wait(WAIT)
        session = opened(path, session.address())
        assert session.settings.probability == probability and session.unsaved
        session.save("first")
        assert thresholds_of(session.inspector.project, "first") == session.settings
        session = opened(path, session.address())
        assert not session.unsaved and session.notes.texts == []


def test_what_is_saved_is_what_was_there_when_it_was_asked_for(session):
    """Whatever is moved, and whatever others save, until that is done."""
    calls = []
    session.post = calls.append
    save = session.saving("first")
    settings = session.settings
    session.set_threshold("probability", 0.7)
    save()
    saved_by_ada(session)
    assert session.inspector.background.wait(WAIT)
    session.post = lambda call: call()
    while calls:
        calls.pop(0)()
    assert session.saved.settings == settings and refused(session, 0.7)
    session.inspector.look("template")
    session.poll()
    assert sum("saved by Ada" in text for text in session.notes.texts) == 1


def test_picks_that_were_left_while_saving_are_not_mixed_with_others(session):
    path = session.inspector.project.path
    for group in ("picks", "calibration"):
        shutil.copytree(path / group / "template", path / group / "other")
    session.set_threshold("probability", 0.7)
    save = session.saving("first")
    session.choose_picks("other")
    save()
    assert (session.picks, session.base, session.saved) == ("other", "", None)
    with pytest.raises(Conflict, match="of picks 'template'"):
        session.save("first")
    assert load(session.inspector.project, "first").picks == "template"
    assert thresholds_of(session.inspector.project, "first").probability == 0.7


def move_a_pick(project, row, place):
    """Pick anew, as it were: one pick is 40 Å away, farther than a decision by hand reaches."""
    x = project._array("picks/template", "x")
    x[row, place] = x[row, place] + 40.0
    later = (project.path / "picks/template/zarr.json").stat().st_mtime + 10
    os.utime(project.path / "picks/template/zarr.json", (later, later))


def test_decisions_on_picks_that_are_gone_are_left_out_and_said(session):
    path, row = session.inspector.project.path, int(session.trio.rows[0])
    for place in (2, 5):
        session.toggle(row, place)
    session.save("first")
    session.toggle_excluded(session.trio.rows[1])
    assert session.inspector.background.wait(WAIT)
    hands = {*session.settings.accept, *session.settings.reject}
    query, gone = session.address(), float(session.focus.columns(0)["x"][2])
    move_a_pick(Project.open(path, "r+"), row, 2)
    for there in (opened(path), opened(path, query)):
        left = {*there.settings.accept, *there.settings.reject}
        assert left == {hand for hand in hands if hand.x != gone} and len(left) == 1
        assert any("no pick of" in text for text in there.notes.texts)
        assert counted(there) == judged(there)
    assert there.settings.exclude == session.settings.exclude
    session.inspector._stamps.clear()
    session.poll()
    assert session.settings == there.settings and not session.can_undo
    assert counted(session) == judged(session)
    with pytest.raises(InputError, match="no pick of"):
        session.inspector.check("template", load(session.inspector.project, "first").settings)
    session.load("first")
    assert {*session.settings.accept, *session.settings.reject} == left


def test_a_selection_that_no_longer_fits_does_not_keep_the_page_from_opening(session):
    path = session.inspector.project.path
    session.set_threshold("probability", 0.7)
    session.toggle_excluded(session.trio.rows[0])
    assert session.inspector.background.wait(WAIT)
    Project.open(path, "r+").remove("calibration/template")
    for there in (opened(path), opened(path, session.address())):
        assert there.methods == ("raw",) and there.settings.probability is None
        assert any("no probabilities" in text for text in there.notes.texts)
        assert counted(there) == judged(there)
    assert there.settings.exclude == session.settings.exclude
    there.load("first")
    assert counted(there) == judged(there)
    # nobody has touched it
    assert thresholds_of(there.inspector.project, "first").probability == 0.9


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


def test_a_decision_that_was_undone_does_not_come_back(session):
    session.toggle(session.trio.rows[0], 2)
    assert session.inspector.background.wait(WAIT)
    session.undo()
    assert session.inspector.background.wait(WAIT)
    there = opened(session.inspector.project.path, session.address())
    assert there.settings == session.settings == SelectSettings(probability=0.9)


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


def test_a_change_that_could_not_be_read_is_followed_when_it_can(tmp_path):
    project = make_project(tmp_path / "p.zarr", calibrate=False)
    session = opened(project.path)
    add_calibration(project)
    (project.path / "micrographs/name").rename(tmp_path / "aside")
    session.inspector.look("template")
    with pytest.raises(KeyError, match="name"):
        session.poll()
    (tmp_path / "aside").rename(project.path / "micrographs/name")
    session.poll()
    assert any("calibrated or picked anew" in text for text in session.notes.texts)
    assert counted(session) == judged(session)


def test_a_project_that_cannot_be_read_is_said_once(session, tmp_path):
    path = session.inspector.project.path
    path.rename(tmp_path / "aside")
    for _ in range(3):
        session.inspector._stamps.clear()
        session.poll()
    assert ["cannot be read now" in text for text in session.notes.texts] == [True]
    (tmp_path / "aside").rename(path)
    session.inspector._stamps.clear()
    session.poll()
    assert len(session.notes.texts) == 1 and counted(session) == judged(session)


def test_nobody_takes_the_counts_of_others_away(made):
    inspector = Inspector(made)
    visitors = [Session(inspector) for _ in range(5)]
    for visitor, method in zip(visitors, ("probability", "fdr", "line", "raw", "line"), strict=True):
        visitor.follow({})
        visitor.set_method(method)
        assert inspector.background.wait(WAIT)
    visitors[-1].set_threshold("probability", 0.6)
    assert inspector.background.wait(WAIT)
    keys = [visitor.key for visitor in visitors]
    assert len(set(keys)) == 5
    assert all(visitor.cube.complete for visitor in visitors)
    # what nobody looks at is forgotten, the longest unused first
    for visitor in visitors[:3]:
        visitor.close()
    visitors[3].set_threshold("fdr", 0.1)
    assert inspector.background.wait(WAIT)
    assert [inspector.cube(*key) is None for key in keys[:2]] == [True, True]
    assert inspector.progress(*keys[0]) == 0
    assert visitors[3].cube.complete and visitors[4].cube.complete
    # and made anew where somebody needs it after all
    inspector._forget("template")
    assert visitors[4].cube is None
    visitors[4].poll()
    assert inspector.background.wait(WAIT)
    assert visitors[4].cube.complete


def write_truth(path, project, micrographs):
    """Truth of the first micrographs: a particle at every third pick."""
    names, found = project.read("micrographs", "name"), project.picks("template")
    pixel, rows, particles = project.read("micrographs", "source_pixel_size"), [], 0
    for row in range(micrographs):
        count = int(found["count"][row])
        places = [(found[axis].values[row, :count:3] / pixel[row]).tolist() for axis in ("x", "y")]
        rows += [f"{names[row]} {x} {y}" for x, y in zip(*places, strict=True)]
        particles += len(places[0])
    head = ["data_particles", "", "loop_", "_rlnMicrographName #1", "_rlnCoordinateX #2", "_rlnCoordinateY #3"]
    path.write_text("\n".join([*head, *rows]) + "\n")
    return particles


def test_truth_is_matched_in_the_background_and_with_what_is_finished_later(tmp_path):
    """Particles are where picks are: each of them is found."""
    project = make_project(tmp_path / "p.zarr", calibrate=False)
    particles = write_truth(tmp_path / "truth.star", project, 6)
    status = project.done("picks/template")
    project._array("picks/template", "status")[:3] = np.int8(Status.PENDING)
    session = Session(Inspector(project.path, tmp_path / "truth.star"))
    begun, go = threading.Event(), threading.Event()

    def held():
        begun.set()
        assert go.wait(WAIT)
        yield 1.0

    session.inspector.background.submit("held", held, priority=-1)
    assert begun.wait(WAIT)
    session.follow({})
    rows = session.inspector.truth.of("template")
    assert rows._known == {}
    go.set()
    assert session.inspector.background.wait(WAIT)
    assert sorted(rows._known) == [3, 4, 5]
    first = session.counts
    assert 0 < first.true == first.particles < particles
    project._array("picks/template", "status")[:] = status
    session.inspector._stamps.clear()
    session.poll()
    assert session.inspector.background.wait(WAIT)
    evaluated = evaluate_picks(project, "template", tmp_path / "truth.star", EvaluateSettings())
    assert session.counts.true == session.counts.particles == evaluated["particles"] > first.particles
    assert session.counts.counted == sum(row.counted.sum() for row in rows._known.values())


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
    """A round of `pickcal watch` shows up in an open page: names, counts, fit, truth, images; nothing is said of it."""
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
    session = opened(tmp_path / "p.zarr", truth=small_set.truth)
    inspector = session.inspector
    assert (len(inspector.micrographs), judged(session)) == (3, counted(session))
    before = sum(counted(session))
    evaluated = [evaluate_picks(inspector.project, "template", small_set.truth, EvaluateSettings())["particles"]]
    assert session.counts.particles == evaluated[0]
    with pytest.raises(InputError, match="expected a row from 0 to 2, got 3"):
        inspector.images.picture(3)
    arrive(5)
    inspector.look("template")
    session.poll()
    assert len(inspector.micrographs) == len(inspector.defocus) == 5
    assert inspector.counts("template")["done"] == 5
    assert inspector.calibration("template").sizes["micrograph"] == 5
    assert counted(session) == judged(session)
    assert sum(counted(session)) > before
    assert session.notes.texts == []
    evaluated.append(evaluate_picks(inspector.project, "template", small_set.truth, EvaluateSettings())["particles"])
    assert session.counts.particles == evaluated[1] > evaluated[0]
    assert inspector.images.picture(4).pixels.std() > 0
    there = Session(inspector)  # another visitor of the same server
    there.follow({})
    assert inspector.background.wait(WAIT)
    assert there.counts.particles == evaluated[1]
