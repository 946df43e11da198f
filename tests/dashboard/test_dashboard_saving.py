"""Saving, drafts and exports: truths are the command line, naive counts, and processes that are really killed."""

import contextlib
import errno
import fcntl
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
import warnings
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
import zarr
from browsing import PATIENCE
from ran import in_this_process
from small_project import make_project

from pickcal import locking
from pickcal.dashboard.controller import close_shared, shared_inspector
from pickcal.dashboard.saved.drafts import DAY, Draft, Drafts
from pickcal.dashboard.saved.saving import (
    Conflict,
    destination,
    export_selection,
    load,
    packed,
    save,
    suggested,
)
from pickcal.dashboard.saved.zipping import zipped
from pickcal.errors import InputError, MissingFileError, PickcalError, ProjectError
from pickcal.project import UNLISTED, Project
from pickcal.selection import read_thresholds, read_thresholds_text, thresholds_text, write_thresholds
from pickcal.settings import CalibrateSettings, ExportSettings, HandPick, SelectSettings
from pickcal.stages.select import judge
from pickcal.stages.select import select as stage
from pickcal.stages.status import status

HANDS = SelectSettings(min_ncc=0.3, reject=tuple(HandPick(micrograph="m", x=i / 7, y=-i) for i in range(40)))
FORMATS = ("relion", "cryosparc", "topaz", "cryolo", "eman", "csv", "parquet")
ONE, OTHER = SelectSettings(min_ncc=0.31), SelectSettings(min_ncc=0.37, edge=90.0)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Project with picks `template` and selection `strict`; copy it to write."""
    path = tmp_path_factory.mktemp("saving") / "p.zarr"
    make_project(path)
    return path


@pytest.fixture
def path(made, tmp_path):
    return shutil.copytree(made, tmp_path / "p.zarr")


def by_hand(path, seed=0):
    """Thresholds, and decisions by hand on real picks, at positions that are not those of the picks to the last bit."""
    project, rng = Project.open(path), np.random.default_rng(seed)
    picks, names = project.picks("template").load(), project.read("micrographs", "name")
    hands = []
    for row in range(8):
        for place in rng.permutation(int(picks["count"][row]))[:6]:
            near = [float(picks[axis][row, place]) + rng.uniform(-1e-3, 1e-3) for axis in "xy"]
            hands.append(HandPick(micrograph=str(names[row]), x=near[0], y=near[1]))
    return SelectSettings(
        min_ncc=0.3, max_power=9.0, exclude=(str(names[9]),), accept=tuple(hands[::2]), reject=tuple(hands[1::2])
    )


def counts_of(path, name):
    return Project.open(path).dataset(f"selection/{name}")["counts"].values


def is_whole(path, name, choices):
    """Assert that a stored selection is one of several, settings and counts alike, and say which."""
    project = Project.open(path)
    found = load(project, name)
    (which,) = [i for i, settings in enumerate(choices) if settings == found.settings]
    reasons = judge(project, "template", choices[which])
    counts = counts_of(path, name)
    assert [(reasons == i).sum() for i in range(len(counts))] == counts.sum(axis=1).tolist()
    return which


def pickcal(*arguments):
    """Run the command line in this process; its exit code."""
    return in_this_process(*arguments, code=None).code


FORKING = """
import json, os, resource, signal, sys, time, traceback
import dask.array, xarray
from pathlib import Path
import pickcal.project.results as project_results
from pickcal import locking
from pickcal.dashboard.saved.drafts import Draft, Drafts
from pickcal.dashboard.saved.saving import Conflict, load, save
from pickcal.errors import PickcalError
from pickcal.project import Project
from pickcal.settings import HandPick, SelectSettings
ONE, OTHER = SelectSettings(min_ncc=0.31), SelectSettings(min_ncc=0.37, edge=90.0)

def fork(function, *arguments):
    child = os.fork()
    if not child:
        code = 1
        try:
            function(*arguments)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    return child

def die(*arguments):
    os.kill(os.getpid(), signal.SIGKILL)

def killed(function, path, delay):
    # how a process ends that is killed so long after its first sign
    reading, writing = os.pipe()
    child = fork(function, path, lambda: os.write(writing, b"."))
    os.read(reading, 1)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    return os.waitpid(child, 0)[1]

xarray.backends.list_engines()
for line in sys.stdin:
    task = json.loads(line)
    def run(arguments):
        for number in (1, 2):
            os.dup2(os.open(task["out"], os.O_WRONLY | os.O_APPEND | os.O_CREAT), number)
        exec(task["body"], {**globals(), "arguments": arguments})
    print(os.waitpid(fork(run, task["arguments"]), 0)[1], flush=True)
"""


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """Run a script in a process that has everything imported, no thread yet, and so can fork; its output lines."""
    out = tmp_path_factory.mktemp("processes") / "out"
    pipe = subprocess.PIPE
    server = subprocess.Popen([sys.executable, "-c", FORKING], stdin=pipe, stdout=pipe, text=True)

    def run(body, *arguments):
        out.unlink(missing_ok=True)
        server.stdin.write(json.dumps({"body": body, "arguments": [*map(str, arguments)], "out": str(out)}) + "\n")
        server.stdin.flush()
        code, text = server.stdout.readline().strip(), out.read_text()
        assert code == "0" and "Traceback" not in text, text
        return text.splitlines()

    yield run
    server.stdin.close()
    assert server.wait(PATIENCE) == 0


def test_what_is_saved_is_loaded(path):
    """Picks, thresholds to the last bit, who and when; every saving has another stamp, the same settings too."""
    settings = by_hand(path)
    before = time.time()
    first = save(path, "template", "mine", settings, None, by="Ada")
    found = load(Project.open(path), "mine")
    assert (found.picks, found.settings, found.stamp, found.by, found.stale) == (
        "template",
        settings,
        first,
        "Ada",
        False,
    )
    saved = np.datetime64(found.saved[:19]).astype(int) - int(found.saved[19:22]) * 3600
    assert int(before) - 1 <= saved <= time.time() + 1
    second = save(path, "template", "mine", settings, first)
    assert second != first and load(Project.open(path), "mine").stamp == second
    assert is_whole(path, "mine", [settings]) == 0


def test_it_is_what_pickcal_select_stores(path, tmp_path):
    """Counts, settings and expected false picks; the thresholds file is the same whoever writes it."""
    settings = by_hand(path).model_copy(update={"probability": 0.4})
    save(path, "template", "page", settings, None)
    (tmp_path / "t.toml").write_bytes(thresholds_text(settings, "template").encode())
    arguments = ["--thresholds", tmp_path / "t.toml", "--save", tmp_path / "again.toml"]
    assert pickcal("select", path, "--picks", "template", "--name", "line", *arguments) == 0
    assert (tmp_path / "again.toml").read_bytes() == (tmp_path / "t.toml").read_bytes()
    page, line = (Project.open(path).dataset(f"selection/{name}").load() for name in ("page", "line"))
    np.testing.assert_array_equal(page["counts"], line["counts"])
    assert page["counts"].sel(reason="by hand").sum() > 0
    apart = ("stamp", "saved", "by")
    assert {k: v for k, v in page.attrs.items() if k not in apart} == {
        k: v for k, v in line.attrs.items() if k not in apart
    }


def test_selections_of_older_versions(path):
    """They hold no stamp: the digest tells them apart, and they can be saved over."""
    file = path / "selection/strict/zarr.json"
    content = json.loads(file.read_text())
    for key in ("stamp", "saved", "by"):
        del content["attributes"][key]
    file.write_text(json.dumps(content))
    old = load(Project.open(path), "strict")
    assert old.stamp == load(Project.open(path), "strict").stamp and (old.by, old.saved) == ("", "")
    content["attributes"]["settings"]["min_ncc"] = 0.33
    file.write_text(json.dumps(content))
    assert load(Project.open(path), "strict").stamp != old.stamp
    with pytest.raises(Conflict, match="saved by somebody who gave no name, of picks"):
        save(path, "template", "strict", ONE, old.stamp)
    save(path, "template", "strict", ONE, load(Project.open(path), "strict").stamp)
    assert is_whole(path, "strict", [ONE]) == 0


def test_stale_and_lost_selections(path):
    """A selection of picks that were calibrated anew loads and says so; one of picks that are gone does not."""
    from pickcal.stages.calibrate import calibrate

    project = Project.open(path, "r+")
    calibrate(project, "template", CalibrateSettings(bootstrap=0, ncc="none"))
    assert load(project, "strict").stale
    save(path, "template", "strict", ONE, load(project, "strict").stamp)
    assert not load(project, "strict").stale
    with pytest.raises(ProjectError, match="no selection named 'none'; it has: strict"):
        load(project, "none")
    project.remove("picks/template")
    with pytest.raises(ProjectError, match="'strict' is of picks 'template', which are gone; pick them again"):
        load(project, "strict")


def test_nothing_is_overwritten_in_silence(path):
    """A name that appeared, and one that was saved again by another; on purpose both are replaced."""
    mine = save(path, "template", "first", ONE, None, by="Ada")
    with pytest.raises(Conflict, match=r"'first' exists already \(saved by Ada on 20.* at .*\); save under another"):
        save(path, "template", "first", OTHER, None, by="Bo")
    theirs = save(path, "template", "first", OTHER, mine, by="Bo")
    with pytest.raises(Conflict, match=r"saved by somebody else since it was opened here \(saved by Bo on") as caught:
        save(path, "template", "first", ONE, mine, by="Ada")
    assert (caught.value.name, caught.value.found.stamp, caught.value.found.settings) == ("first", theirs, OTHER)
    assert load(Project.open(path), "first").stamp == theirs
    last = save(path, "template", "first", ONE, mine, by="Ada", overwrite=True)
    assert load(Project.open(path), "first").stamp == last and is_whole(path, "first", [ONE, OTHER]) == 0


@pytest.mark.parametrize("new", [True, False], ids=["new name", "known name"])
def test_of_threads_that_save_at_once_one_wins(path, new):
    """The others are told, and what is stored is the winner's."""
    known = None if new else load(Project.open(path), "strict").stamp
    name, together = "fresh" if new else "strict", threading.Barrier(4)
    choices = [SelectSettings(min_ncc=0.25 + 0.02 * i) for i in range(4)]

    def one(i):
        together.wait()
        try:
            return save(path, "template", name, choices[i], known, by=f"visitor {i}")
        except Conflict as error:
            return error

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(one, range(4)))
    (winner,) = [i for i, result in enumerate(found) if isinstance(result, str)]
    assert is_whole(path, name, choices) == winner
    assert load(Project.open(path), name).stamp == found[winner]
    assert all(f"visitor {winner}" in str(result) for i, result in enumerate(found) if i != winner)


def test_of_processes_that_save_at_once_one_wins(path, processes):
    """Four rounds; in each, two processes know the same stamp and save at the same instant."""
    body = """
path = arguments[0]
def one(i, name, known, start):
    time.sleep(max(0.0, start - time.time()))
    try:
        print(i, save(path, "template", name, (ONE, OTHER)[i], known, by=f"process {i}"))
    except Conflict as error:
        print(i, "Conflict" if f"process {1 - i}" in str(error) else error)
for turn in range(4):
    start = time.time() + 0.1
    for child in [fork(one, i, f"turn{turn}", None, start) for i in range(2)]:
        assert os.waitpid(child, 0)[1] == 0
    print("turn")
"""
    turns = "\n".join(processes(body, path)).split("turn")[:-1]
    assert len(turns) == 4
    for turn, text in enumerate(turns):
        results = dict(line.split() for line in text.strip().splitlines())
        assert set(results) == {"0", "1"}
        (winner,) = [i for i in results if results[i] != "Conflict"]
        assert is_whole(path, f"turn{turn}", [ONE, OTHER]) == int(winner)
        assert load(Project.open(path), f"turn{turn}").stamp == results[winner]


def test_the_command_line_waits_its_turn(path, monkeypatch):
    """`select` that has judged its picks finds the name taken by what was saved meanwhile, and leaves it."""
    waits, outcome = threading.Event(), []
    wait = locking._wait
    monkeypatch.setattr(locking, "_wait", lambda *given: (waits.set(), wait(*given)))

    def run():
        with pytest.raises(ProjectError) as caught:
            stage(Project.open(path, "r+"), "template", "shared", OTHER)
        outcome.append(str(caught.value))

    with Project.open(path, "r+").locked():
        thread = threading.Thread(target=run)
        thread.start()
        assert waits.wait(PATIENCE) and thread.is_alive()
        save(path, "template", "shared", ONE, None)
    thread.join(30)
    assert "selection/shared holds other settings" in outcome[0]
    assert is_whole(path, "shared", [ONE, OTHER]) == 0


def holds(process, file):
    """Whether a process has a file open."""
    with contextlib.suppress(OSError):
        return any(link.readlink() == file for link in Path(f"/proc/{process}/fd").iterdir())
    return False


def test_a_running_pickcal_select_beside_the_page(path):
    """Its process is held up before it writes; then it finds what the page saved, says so, and changes nothing."""
    command = [sys.executable, "-m", "pickcal", "select", path, "--picks", "template", "--name", "both"]
    with Project.open(path, "r+").locked():
        ran = subprocess.Popen([*command, "--min-ncc", "0.2"], stderr=subprocess.PIPE, text=True)
        seen = 0
        while seen < 8 and ran.poll() is None:
            seen = seen + 1 if holds(ran.pid, path.resolve() / "zarr.json") else 0
            time.sleep(0.02)
        save(path, "template", "both", ONE, None)
    _, errors = ran.communicate(timeout=60)
    assert ran.returncode == 1 and "selection/both holds other settings" in errors and "--overwrite" in errors
    assert is_whole(path, "both", [ONE]) == 0


def test_a_lock_that_is_held_too_long_is_said(path, monkeypatch):
    monkeypatch.setattr(locking, "LONGEST_WAIT", 0.05)
    failed = []

    def run():
        with pytest.raises(ProjectError, match=r"another process has been saving in this project for 0.05 s") as caught:
            save(path, "template", "late", ONE, None)
        failed.append(caught.value)

    with Project.open(path).locked():
        thread = threading.Thread(target=run)
        thread.start()
        thread.join(30)
    assert failed and Project.open(path).names("selection") == ["strict"]
    save(path, "template", "late", ONE, None)


def test_without_file_locks_a_folder_serves(path, monkeypatch):
    """As on file systems that cannot lock; one that a killed process left is taken over."""

    def refuse(*given):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", lambda handle, how: refuse() if how != fcntl.LOCK_UN else None)
    test_of_threads_that_save_at_once_one_wins(path, True)
    left = path.with_name(".p.zarr.lock")
    assert not left.exists()
    left.mkdir()
    os.utime(left, (time.time() - 100,) * 2)
    save(path, "template", "later", ONE, None)
    assert not left.exists()


KILLED = """
def run(path, point, known):
    if point == "half":
        project_results.finish_group = die
    if point == "complete":
        locking._take_place = die
    if point == "swapped":
        exchanged = locking._exchanged
        locking._exchanged = lambda *given: (exchanged(*given), die())
    if point in ("away", "put"):
        locking._exchanged = lambda *given: False
        rename, names = Path.rename, []
        def counted(one, other):
            rename(one, other)
            names.append(other)
            if len(names) == ("away", "put").index(point) + 1:
                die()
        Path.rename = counted
    save(path, "template", "strict", OTHER, known)
for i in range(1, len(arguments), 2):
    print(os.waitpid(fork(run, *arguments[i : i + 2], arguments[0]), 0)[1])
"""
POINTS = {"half": 0, "complete": 0, "swapped": 1, "away": None, "put": 1}


def test_processes_killed_at_the_worst_moments(made, tmp_path, processes):
    """The old or the new selection is there, complete; what is left of the other is seen by nobody and cleared away.

    `away` is between two renames, on systems that cannot exchange folders: the next one who saves puts it back.
    """
    strict = load(Project.open(made), "strict")
    paths = {point: shutil.copytree(made, tmp_path / f"{point}.zarr") for point in POINTS}
    given = [text for point, path in paths.items() for text in (path, point)]
    assert processes(KILLED, strict.stamp, *given) == ["9"] * len(POINTS)
    for point, path in paths.items():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tree = xr.open_datatree(path, engine="zarr", consolidated=False)
        assert set(tree["selection"].children) == (set() if point == "away" else {"strict"})
        if point == "away":
            Project.open(path, "r+").write_whole("selection", "other", xr.Dataset(), {"picks": "template"})
        assert is_whole(path, "strict", [strict.settings, OTHER]) == (POINTS[point] or 0)
        save(path, "template", "strict", ONE, load(Project.open(path), "strict").stamp)
        assert [file.name for file in (path / UNLISTED).iterdir()] == ["zarr.json"]


def test_a_process_killed_in_its_first_saving(path, processes):
    """Nobody sees a name, and xarray no group; saving goes on."""
    body = """
def run(path, finish):
    project_results.finish_group = die
    save(path, "template", "fresh", ONE, None)
print(os.waitpid(fork(run, *arguments, None), 0)[1])
"""
    assert processes(body, path) == ["9"]
    tree = xr.open_datatree(path, engine="zarr", consolidated=False)
    assert set(tree["selection"].children) == {"strict"} and Project.open(path).names("selection") == ["strict"]
    save(path, "template", "fresh", ONE, None)
    assert is_whole(path, "fresh", [ONE]) == 0


def test_processes_killed_at_any_moment(made, tmp_path, processes):
    """Processes that save over and over; after `kill -9` one of their selections is there, and saving goes on."""
    body = """
def run(path, sign):
    for i in range(100000):
        save(path, "template", "strict", (ONE, OTHER)[i % 2], None, overwrite=True)
        sign()
for i, path in enumerate(arguments):
    print(killed(run, path, 0.017 * i))
"""
    paths = [shutil.copytree(made, tmp_path / f"{i}.zarr") for i in range(5)]
    assert processes(body, *paths) == ["9"] * 5
    for path in paths:
        is_whole(path, "strict", [ONE, OTHER])
        save(path, "template", "strict", ONE, load(Project.open(path), "strict").stamp)
        assert [file.name for file in (path / UNLISTED).iterdir()] == ["zarr.json"]


def test_readers_never_miss_a_selection_that_is_being_replaced(path):
    """Two writers and a reader: what is read is always one of the two, stamp and settings of one moment."""
    ended, stamps, read = threading.Event(), {load(Project.open(path), "strict").stamp: None}, []

    def write(settings):
        for _ in range(4):
            stamps[save(path, "template", "strict", settings, None, overwrite=True)] = settings

    def watch():
        while not ended.is_set():
            read.append(load(Project.open(path), "strict"))

    with ThreadPoolExecutor(3) as pool:
        reader = pool.submit(watch)
        try:
            for writer in [pool.submit(write, settings) for settings in (ONE, OTHER)]:
                writer.result()
        finally:
            ended.set()
        reader.result()
    assert len(stamps) == 9 and len({found.stamp for found in read}) > 1
    assert all(stamps[found.stamp] in (None, found.settings) for found in read)


def test_a_full_disk(path, made, processes):
    """Files cannot grow: said in words, the old selection stays, nothing is left behind."""
    body = """
def run(name, told):
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, 300))
    try:
        save(arguments[0], "template", name, ONE, None, overwrite=True)
    except PickcalError as error:
        os.write(told, f"{type(error).__name__} {error}".encode())
for name in ("strict", "fresh"):
    reading, writing = os.pipe()
    assert os.waitpid(fork(run, name, writing), 0)[1] == 0
    os.close(writing)
    print(os.read(reading, 4000).decode())
"""
    for left in ({"zarr.json"}, set()):  # whether the folder for drafts is there already
        if not left:
            shutil.rmtree(path / "drafts")
        lines = processes(body, path)
        for line, name in zip(lines, ("strict", "fresh"), strict=True):
            assert line.startswith("ProjectError") and f"selection '{name}' was not saved (File too large)" in line
            assert "still there; make room" in line
        assert {file.name for file in path.glob("selection/*")} == {"strict", "zarr.json"}
        assert {file.name for file in path.glob("drafts/files/*") if not file.name.startswith("new.")} == left
        xr.open_datatree(path, engine="zarr", consolidated=False)
        assert counts_of(path, "strict").tolist() == counts_of(made, "strict").tolist()
    save(path, "template", "fresh", ONE, None)
    assert [file.name for file in (path / UNLISTED).iterdir()] == ["zarr.json"]


def test_a_project_that_cannot_be_written(path, monkeypatch):
    def refuse(*given, **more):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(zarr.Group, "create_array", refuse)
    with pytest.raises(ProjectError, match=r"'x' was not saved \(Permission denied\).*right to write in this folder"):
        save(path, "template", "x", ONE, None)
    monkeypatch.undo()
    assert Project.open(path).names("selection") == ["strict"]


@pytest.mark.parametrize("name", ["", " ", "a b", "../x", "a/b", ".hidden", "ok\n", "zarr.json", "x" * 65, "ä"])
def test_names_that_are_not_allowed(path, name):
    with pytest.raises(InputError, match="selection: expected a name"):
        save(path, "template", name, ONE, None)
    assert Project.open(path).names("selection") == ["strict"]


def test_names_that_look_like_files_of_ours(path):
    """Dots and words of the swap in a name change nothing."""
    for name in ("x.old", "x", "old.new", "new.1.selection.x"):
        for settings in (OTHER, ONE):
            save(path, "template", name, settings, None, overwrite=True)
        assert is_whole(path, name, [ONE]) == 0
    assert Project.open(path).names("selection") == ["new.1.selection.x", "old.new", "strict", "x", "x.old"]


@pytest.mark.parametrize(
    ("picks", "settings", "words"),
    [
        ("none", ONE, "no picks named 'none'"),
        ("template", SelectSettings(exclude=("gone.mrc",)), "no micrograph named 'gone.mrc'"),
        ("template", SelectSettings(reject=(HandPick(micrograph="mics/stack_01.mrc", x=-900, y=0),)), "no pick of"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_anything_is_written(path, picks, settings, words):
    known = load(Project.open(path), "strict").stamp
    with pytest.raises(PickcalError, match=words):
        save(path, picks, "strict", settings, known)
    assert load(Project.open(path), "strict").stamp == known
    with pytest.raises(MissingFileError, match="no such project"):
        save(path.with_name("q.zarr"), "template", "strict", ONE, None)


def test_thresholds_round_trip_exactly(tmp_path):
    """Every float comes back to the last bit, as text, as uploaded bytes and as a file; names with quotes too."""
    rng = random.Random(1)
    floats = [rng.uniform(0, 1) * 10.0 ** rng.randint(-12, 12) for _ in range(400)]
    names = ['a "quoted" \\ name.mrc', "mics/ünï.mrc", "plain"]
    hands = [HandPick(micrograph=names[i % 3], x=floats[i], y=-floats[i + 200]) for i in range(200)]
    settings = SelectSettings(
        min_ncc=0.1 + 0.2, max_power=floats[0], accept=tuple(hands[:100]), reject=tuple(hands[100:]), raw=True
    )
    text = thresholds_text(settings, "template")
    write_thresholds(tmp_path / "t.toml", settings, "template")
    assert (tmp_path / "t.toml").read_text() == text
    for found in (
        read_thresholds_text(text, "x"),
        read_thresholds_text(text.encode(), "x"),
        read_thresholds(tmp_path / "t.toml"),
    ):
        assert found == settings
        assert [hand.x.hex() for hand in found.accept] == [hand.x.hex() for hand in settings.accept]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a = ", "upload.toml: not a TOML file"),
        (b"\xff\xfe", "upload.toml: not a TOML file"),
        ("picks = 'a'", r"upload.toml: expected a \[thresholds\] table, found picks"),
        ("", "found nothing"),
        ("[thresholds]\nmin_nc = 1", "min_nc: no such setting; did you mean 'min_ncc'"),
        ("[thresholds]\nfdr = 2", "upload.toml: settings refused\n  fdr: expected"),
    ],
)
def test_uploads_that_are_no_thresholds(text, words):
    with pytest.raises(InputError, match=words):
        read_thresholds_text(text, "upload.toml")


def contents(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.fixture(scope="module")
def twice(made, tmp_path_factory):
    """Folder of a project with one selection that the page saved, and the same one that the command line replayed."""
    folder = tmp_path_factory.mktemp("exports")
    path = shutil.copytree(made, folder / "p.zarr")
    settings = by_hand(path)
    save(path, "template", "page", settings, None)
    (folder / "t.toml").write_text(thresholds_text(settings, "template"))
    replay = ["--picks", "template", "--name", "line", "--thresholds", folder / "t.toml"]
    assert pickcal("select", path, *replay) == 0
    return folder


@pytest.mark.parametrize("format", FORMATS)
def test_exports_are_those_of_the_command_line(twice, monkeypatch, format):
    """Saved and exported by the page, and by `select --thresholds` and `export`: byte for byte, rejected picks too."""
    monkeypatch.chdir(twice)
    out, name = Path(f"out-{format}"), suggested("picks", format)
    out.mkdir()
    place = destination(twice, f"{out}/{name}", format, rejected=True)
    files = export_selection(Project.open("p.zarr"), "page", ExportSettings(format=format, rejected=True), place)
    page = contents(out)
    assert sorted(file.relative_to(twice / out).as_posix() for file in files) == sorted(page)
    shutil.rmtree(out)
    out.mkdir()
    assert pickcal("export", "p.zarr", out / name, "--selection", "line", "--format", format, "--rejected") == 0
    assert page == contents(out) and len(page) >= 2 and all(page.values())


@pytest.mark.parametrize("format", ["relion", "cryosparc"])
def test_downloads_unpack_to_exports_beside_the_project(twice, tmp_path, monkeypatch, format):
    """Names within the files too, wherever the server runs."""
    settings = ExportSettings(format=format, rejected=True)
    archive = packed(Project.open(twice / "p.zarr"), "page", settings, tmp_path / "a.zip")
    (tmp_path / "line").mkdir()
    monkeypatch.chdir(tmp_path / "line")
    name = suggested("page", format)
    assert pickcal("export", twice / "p.zarr", name, "--selection", "line", "--format", format, "--rejected") == 0
    with zipfile.ZipFile(archive) as found:
        assert found.testzip() is None
        found.extractall(tmp_path / "page")
    assert contents(tmp_path / "page") == contents(Path())


def test_zip_files_of_the_same_files_are_the_same(tmp_path):
    """Whatever their dates and order; names are relative to the folder that they share."""
    for name in ("b/two.txt", "a.txt"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_text(name * 1000)
    paths = [tmp_path / "in/b/two.txt", tmp_path / "in/a.txt"]
    first = zipped(paths, tmp_path / "1.zip").read_bytes()
    os.utime(paths[0], (1, 1))
    assert zipped(paths[::-1], tmp_path / "2.zip").read_bytes() == first
    with zipfile.ZipFile(tmp_path / "1.zip") as archive:
        assert archive.namelist() == ["a.txt", "b/two.txt"]
        assert archive.read("b/two.txt") == b"b/two.txt" * 1000
    with pytest.raises(InputError, match="expected files to pack, found none"):
        zipped([], tmp_path / "3.zip")
    with pytest.raises(InputError, match="cannot be written"):
        zipped([*paths, tmp_path / "in/gone.txt"], tmp_path / "1.zip")
    assert (tmp_path / "1.zip").read_bytes() == first and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("text", "format", "words"),
    [
        ("", "relion", "expected the name of a folder"),
        ("  ", "csv", "expected the name of a file"),
        ("a\0b", "csv", "expected the name of a file"),
        ("/etc/out", "relion", "found one that does not begin there"),
        ("~/out", "relion", "found one that does not begin there"),
        ("../out", "relion", "leads to"),
        ("a/../../out", "relion", "leads to"),
        ("link/out", "relion", "leads to"),
        (".", "relion", "add a name"),
        ("a/..", "relion", "add a name"),
        ("out/", "csv", "add a name"),
        ("out/.", "csv", "add a name"),
        (".profile", "csv", "hidden"),
        (".ssh/keys", "csv", "hidden"),
        ("p.zarr", "relion", "do not go into a .zarr"),
        ("p.zarr/selection/out.csv", "csv", "do not go into a .zarr"),
        ("a/../P.ZARR/out", "relion", "do not go into a .zarr"),
        ("store", "relion", "do not go into a .zarr"),
        ("full", "csv", "add a file name such as picks.csv"),
        ("full/one.txt", "relion", "found a file"),
        ("full", "relion", "holds files already"),
        ("full/one.txt", "csv", "one.txt exists already"),
        ("full/fresh.txt", "csv", "fresh_rejected.txt exists already"),
    ],
)
def test_places_where_no_export_goes(tmp_path, text, format, words):
    root = tmp_path / "root"
    (root / "full").mkdir(parents=True)
    (root / "p.zarr").mkdir()
    (root / "full/one.txt").write_text("mine")
    (root / "full/fresh_rejected.txt").write_text("mine")
    (root / "link").symlink_to(tmp_path)
    (root / "store").symlink_to(root / "p.zarr")
    with pytest.raises(InputError, match=words):
        destination(root, text, format, rejected=True)


def test_places_where_an_export_goes(tmp_path, monkeypatch):
    """Relative to the root, whether that is given relative or not; what is there is replaced only when asked."""
    (tmp_path / "full").mkdir()
    (tmp_path / "full/one.txt").write_text("mine")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    for root in (tmp_path, Path()):
        assert destination(root, "empty", "eman") == tmp_path / "empty"
        assert destination(root, " new/deep ", "relion") == tmp_path / "new/deep"
        assert destination(root, "a/../b.cs", "cryosparc") == tmp_path / "b.cs"
        assert destination(root, "full/fresh.txt", "topaz") == tmp_path / "full/fresh.txt"
        assert destination(root, "full", "relion", overwrite=True) == tmp_path / "full"
        assert destination(root, "full/one.txt", "csv", overwrite=True) == tmp_path / "full/one.txt"
    assert {format for format in FORMATS if suggested("x", format) == "x"} == {"relion", "cryolo", "eman"}


def test_exports_that_cannot_be_written(path, tmp_path, monkeypatch):
    """A stale or missing selection, and a disk that refuses."""
    project = Project.open(path)
    with pytest.raises(ProjectError, match="no selection named 'none'"):
        export_selection(project, "none", ExportSettings(), tmp_path / "out")

    def full(*given, **more):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("pickcal.formats.tables.write_picks", full)
    with pytest.raises(InputError, match=r"out.csv: cannot be written \(No space left on device\); make room"):
        export_selection(project, "strict", ExportSettings(format="csv"), tmp_path / "out.csv")


def draft_of(**changes):
    values = {"picks": "template", "base": "strict", "stamp": "0a", "settings": HANDS}
    return Draft(**{**values, **changes})


def test_drafts_come_back(path):
    """All of it, to the last bit; another server of the project reads it, and writes its own beside."""
    drafts = Drafts(path)
    key = drafts.new_key()
    draft = draft_of(base="ü\n \u2028")
    assert drafts.read(key) is None
    assert drafts.write(key, draft) == ""
    other = Drafts(str(path))
    found = other.read(key)
    assert found.saved[:2] == "20"
    assert found == Draft("template", "ü\n \u2028", "0a", draft.settings, found.saved)
    assert other.write(other.new_key(), draft_of(base="", stamp=None)) == ""
    assert other.write(key, draft_of(settings=ONE)) == ""
    assert drafts.read(key).settings == ONE
    assert len(list((path / UNLISTED).glob("*.json"))) == 3  # zarr.json, this one and the other's


def test_keys_are_no_paths(path):
    """They come from addresses that people can type."""
    drafts = Drafts(path)
    keys = {drafts.new_key() for _ in range(100)}
    assert len(keys) == 100 and all(len(key) == 12 and int(key, 16) >= 0 for key in keys)
    for key in ("", "zarr", "../../zarr", "0123456789ab\n", "0123456789AB", "0123456789abc"):
        assert drafts.read(key) is None
        with pytest.raises(InputError, match="expected a key of 12 hexadecimal digits"):
            drafts.write(key, draft_of())


def test_drafts_that_cannot_be_used(path):
    """Damaged ones, those of other versions and those whose picks are gone are as if they were not there."""
    drafts = Drafts(path)
    key = drafts.new_key()
    drafts.write(key, draft_of())
    file = path / UNLISTED / f"{key}.json"
    whole = file.read_text()
    head, _ = whole.split("\n", 1)
    damaged = [
        "",
        whole[: len(whole) // 2],
        head,
        whole + "x\n",
        "\x00" * 50,
        "[]\n{}\n",
        "[" * 100_000 + "\n{}\n",
        whole.replace('"version": 1', '"version": 2'),
        whole.replace('"template"', "3"),
        whole.replace('"base"', '"bass"'),
        whole.replace('"stamp": "0a"', '"stamp": 3'),
        whole.replace("min_ncc", "min_nc"),
        f'{head}\n{{"fdr": 7}}\n',
    ]
    for text in damaged:
        file.write_text(text)
        assert drafts.read(key) is None, text[:200]
    file.write_bytes(b"\xff\xfe")
    assert drafts.read(key) is None
    file.write_text(whole)
    assert drafts.read(key) is not None
    Project.open(path, "r+").remove("picks/template")
    assert drafts.read(key) is None


def test_read_only_drafts(path):
    """Nothing is written, and the visitor is told."""
    writing, reading = Drafts(path), Drafts(path, read_only=True)
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
    assert reading.write(reading.new_key(), draft_of()) == "read-only: changes are not kept"
    assert (reading.prune(0), {file: file.stat().st_mtime_ns for file in path.rglob("*")}) == (0, before)
    key = writing.new_key()
    writing.write(key, draft_of())
    assert reading.prune(-1) == 0 and reading.read(key) is not None


def test_drafts_of_a_folder_that_cannot_be_written(path, monkeypatch):
    """Words instead of errors; a project that is gone is not made again."""
    (path / "drafts").rename(path.with_name("aside"))
    (path / "drafts").write_text("a file in the way")
    assert "changes are not kept until they are saved" in Drafts(path).write("0" * 12, draft_of())
    (path / "drafts").unlink()
    assert Drafts(path).write("0" * 12, draft_of()) == ""  # makes the folder
    draft = draft_of()

    def refuse(*given, **more):
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patched:
        patched.setattr(Path, "write_text", refuse)
        assert Drafts(path).write("0" * 12, draft).endswith("cannot be written (Permission denied)")
    path.rename(path.with_name("moved.zarr"))
    assert "no such project" in Drafts(path).write("0" * 12, draft)
    assert not path.exists() and Drafts(path).read("0" * 12) is None and Drafts(path).prune() == 0


def test_old_drafts_are_forgotten(path):
    """By their age; half-written ones too, and nothing that is not ours."""
    drafts = Drafts(path)
    names = ["a" * 12 + ".json", "b" * 12 + ".json", f".{'c' * 12}.{'d' * 12}.json", "zarr.json", "other.json"]
    drafts.write("a" * 12, draft_of())
    drafts.write("b" * 12, draft_of())
    for name in names[2:]:
        (path / UNLISTED / name).touch()
    for name in [names[0], *names[2:]]:
        os.utime(path / UNLISTED / name, (time.time() - 31 * DAY,) * 2)
    assert drafts.prune() == 2
    assert {file.name for file in (path / UNLISTED).iterdir()} == {names[1], *names[3:]}
    assert drafts.prune(days=32) == 0


def test_old_drafts_are_forgotten_when_a_server_opens_the_project(path):
    """Not by one that only reads."""
    Drafts(path).write("a" * 12, draft_of())
    file = path / UNLISTED / ("a" * 12 + ".json")
    os.utime(file, (time.time() - 31 * DAY,) * 2)
    try:
        shared_inspector(path, read_only=True)
        assert file.exists()
        shared_inspector(path)
        assert not file.exists()
    finally:
        close_shared()


def test_drafts_survive_a_killed_process(path, processes):
    """Eight processes write thousands of decisions over and over; what is read after `kill -9` is whole, and late."""
    body = """
def run(key, sign):
    hands = [HandPick(micrograph="m", x=i, y=0.1 * i) for i in range(3000)]
    for turn in range(1000):
        settings = SelectSettings(reject=tuple(hands[: 2000 + turn]))
        assert not Drafts(arguments[0]).write(key, Draft("template", "", str(turn), settings))
        sign()
for i in range(8):
    print(killed(run, f"{i:012x}", 0.013 * i))
"""
    assert processes(body, path) == ["9"] * 8
    found = [Drafts(path).read(f"{i:012x}") for i in range(8)]
    assert all(draft is not None for draft in found) and max(int(draft.stamp) for draft in found) > 0
    for draft in found:
        assert len(draft.settings.reject) == 2000 + int(draft.stamp)
        assert draft.settings.reject[-1].x == 1999 + int(draft.stamp)
    Drafts(path).prune(-1)
    assert [file.name for file in (path / UNLISTED).iterdir()] == ["zarr.json"]


def test_drafts_disturb_no_reader(path):
    """While drafts are written, xarray, the names and status see what they saw, without a warning."""
    project, ended = Project.open(path), threading.Event()
    names, before = project.names("selection"), repr(status(project))
    Drafts(path).write("0" * 12, draft_of())

    def run():
        drafts, draft, count = Drafts(path), draft_of(), 0
        while not ended.wait(0.002):
            assert drafts.write(f"{count % 50:012x}", draft) == ""
            count += 1
        return count

    with ThreadPoolExecutor(1) as pool, warnings.catch_warnings():
        warnings.simplefilter("error")
        writer = pool.submit(run)
        try:
            for _ in range(4):
                tree = xr.open_datatree(path, engine="zarr", consolidated=False)
                assert dict(tree["drafts"].sizes) == {} and set(tree["drafts"].children) == set()
            assert project.names("selection") == names and repr(status(project)) == before
        finally:
            ended.set()
        assert writer.result() > 10
    root = zarr.open_group(path, mode="r")
    assert set(root) == {"micrographs", "picks", "calibration", "selection", "control", "drafts"}
