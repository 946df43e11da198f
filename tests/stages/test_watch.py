"""Following a session: what arrives late, torn or out of order ends as if it had been there, and readers see rounds."""

import errno
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import zarr
from alike import assert_identical

from pickcal.engine.executors import SerialExecutor
from pickcal.engine.progress import Silent
from pickcal.errors import InputError, ProjectError
from pickcal.job_file import load_job
from pickcal.project import Project
from pickcal.schema import Status
from pickcal.settings import (
    BlobSettings,
    CalibrateSettings,
    ExportSettings,
    ImportSettings,
    SelectSettings,
    TemplateSettings,
    WatchPickSettings,
    WatchSettings,
    validated,
)
from pickcal.stages import arrivals
from pickcal.stages.batches import batches_left
from pickcal.stages.calibrate import calibrate
from pickcal.stages.control_result import stored_control
from pickcal.stages.export import export
from pickcal.stages.pick import pick
from pickcal.stages.select import select
from pickcal.stages.select_result import is_stale
from pickcal.stages.status import status
from pickcal.stages.watch import Session, watch

QUICK = {"interval": 0.05, "settle": 0.1, "patience": 0.3, "first": 2, "most": 3}
FIT = CalibrateSettings(bootstrap=0)
IMPORT = ImportSettings(batch=2)


class Microscope:
    """A session that plays the small set: a folder in which micrographs and rows of a table appear."""

    def __init__(self, small_set, folder):
        self.source, self.folder = small_set.folder, folder
        text = small_set.micrographs.read_text().rstrip("\n").split("\n")
        self.rows = [line for line in text if ".mrc" in line]
        self.head = text[: text.index(self.rows[0])]
        self.names = [next(word for word in row.split() if word.endswith(".mrc")) for row in self.rows]
        self.table, self.shown = folder / "micrographs_ctf.star", []
        for name in self.names:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)

    def image(self, number, part=1.0):
        content = (self.source / self.names[number]).read_bytes()
        (self.folder / self.names[number]).write_bytes(content[: int(part * len(content))])

    def rewrite(self, *numbers):
        """Write the whole table anew, with more rows."""
        self.shown += numbers
        self.table.write_text("\n".join([*self.head, *(self.rows[n] for n in self.shown)]) + "\n")

    def arrive(self, *numbers):
        for number in numbers:
            self.image(number)
        self.rewrite(*numbers)


@pytest.fixture
def microscope(small_set, tmp_path):
    return Microscope(small_set, tmp_path / "session")


@pytest.fixture
def follow(microscope, small_settings, tmp_path):
    """Follow the microscope until it is quiet, or as told."""

    def run(picking=small_settings, path=tmp_path / "p.zarr", source=microscope.table, **more):
        watching = WatchSettings(**{**QUICK, **{k: more.pop(k) for k in list(more) if k in WatchSettings.model_fields}})
        given = {"executor": SerialExecutor(), "reporter": Silent(), "fitting": FIT, "importing": IMPORT, **more}
        return watch(Session(source, path, watching, picking=picking, **given))

    run.path = tmp_path / "p.zarr"
    return run


def named(project, group):
    """Dataset of a group with the names of micrographs in the place of their numbers."""
    found = project.dataset(group).load().drop_vars("source", errors="ignore")
    return found.assign_coords(micrograph=[str(name) for name in project.read("micrographs", "name")])


def defocus_by_name(path):
    """Defocus of every micrograph, by the end of its name: the rest differs between a folder and a table."""
    names, defocus = (Project.open(path).read("micrographs", name) for name in ("name", "defocus_u"))
    return {str(name).split("/")[-1]: float(one) for name, one in zip(names, defocus, strict=True)}


def chunks(path, full):
    """Files of full batches: name, time and inode of every chunk below that index, and of images."""
    found = {}
    for file in path.rglob("c/*"):
        group = file.relative_to(path).parts[0]
        if group not in ("micrographs", "picks") or "bank" in file.parts:
            continue
        index = int(file.name)
        image = "image" in file.parts
        if index < (2 * full if image else full):
            for one in [file] if file.is_file() else [f for f in file.rglob("*") if f.is_file()]:
                found[one] = one.stat().st_mtime_ns, one.stat().st_ino
    return found


def test_it_ends_as_if_all_had_been_there(microscope, follow, imported, own):
    """Out of order, with gaps, in four rounds: images and picks are those of a job that had all at once."""
    microscope.arrive(4, 1)
    assert follow()["done"] == 2
    for numbers in ((5,), (0, 2), (3,)):
        microscope.arrive(*numbers)
        result = follow()
    assert (result["micrographs"], result["done"], result["failed"], result["waiting"]) == (6, 6, 0, 0)
    project = Project.open(follow.path)
    order = [microscope.names[n] for n in (4, 1, 5, 0, 2, 3)]
    assert [str(name) for name in project.read("micrographs", "name")] == order

    whole = named(Project.open(imported), "micrographs").sel(micrograph=order)
    assert_identical(named(project, "micrographs").drop_attrs(), whole.drop_attrs())
    again = Project.open(own(follow.path), "r+")
    for start, stop in again.batches():
        again.write_batch("picks/template", start, stop, {"status": np.zeros(stop - start, np.int8)})
    picking = project.settings("picks/template")
    picking.pop("templates_sha256")
    pick(again, "template", validated(TemplateSettings, picking, "picks"), SerialExecutor(), Silent())
    assert_identical(again.dataset("picks/template").load(), project.dataset("picks/template").load())
    assert not any("import" in line or "picks" in line for line in status(project)["left"])


def test_full_batches_are_never_written_again(microscope, follow):
    """Files of full batches keep time and inode while others come; a last, short batch is filled up."""
    microscope.arrive(0, 1, 2)
    follow()
    path = follow.path
    before, names = chunks(path, 1), Project.open(path).read("micrographs", "name")
    values = Project.open(path).dataset("picks/template").load()
    assert len(before) > 30
    microscope.arrive(3, 4)
    follow()
    project = Project.open(path)
    assert project.batches() == [(0, 2), (2, 4), (4, 5)]
    assert chunks(path, 1) == before
    assert_identical(project.dataset("picks/template").isel(micrograph=slice(3)).load(), values)
    assert list(project.read("micrographs", "name")[:3]) == list(names)
    assert (path / "micrographs/image/c/2").exists()


def test_readers_see_finished_rounds_only(microscope, follow):
    """While others come, whoever opens the project finds every micrograph picked and calibrated."""
    microscope.arrive(0, 1)
    follow()
    ended, seen, wrong = threading.Event(), set(), []

    def read():
        while not ended.is_set():
            project = Project.open(follow.path)
            count = project.count
            picks, fit = project.dataset("picks/template"), project.calibration("template")
            names, status = project.read("micrographs", "name"), picks["status"].values
            if project.count == count:  # else a round was shown while we looked
                seen.add(count)
                sizes = {len(names), len(status), count if fit is None else fit.sizes["micrograph"]}
                if sizes != {count} or not (status == Status.DONE).all() or "" in names:
                    wrong.append((count, sizes, status.tolist()))
            time.sleep(0.01)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        microscope.arrive(2, 3, 4, 5)
        follow(most=2)
    finally:
        ended.set()
        thread.join()
    assert wrong == []
    assert len(seen) >= 2


def test_torn_tables_and_half_copied_images_are_left_until_they_are_whole(microscope, follow):
    microscope.arrive(0, 1)
    microscope.image(2, part=0.5)
    microscope.image(3)
    microscope.rewrite(2, 3, 4)  # 4 has no image at all
    whole = microscope.table.read_text()
    result = follow()
    assert (result["micrographs"], result["failed"], result["waiting"]) == (4, 1, 1)  # the session has ended
    assert "truncated" in result["errors"][0]["error"]

    shutil.rmtree(follow.path)
    ended = threading.Event()
    thread = threading.Thread(target=lambda: follow(patience=None, stop=ended.is_set))
    thread.start()
    try:
        wait_for(lambda: Project.open(follow.path).count == 3 and not left(follow.path))
        microscope.table.write_text(whole[: int(0.8 * len(whole))].rstrip("0123456789. \n"))
        time.sleep(0.5)
        microscope.image(2, part=0.8)
        time.sleep(0.2)
        assert Project.open(follow.path).count == 3
        microscope.table.write_text(whole)
        microscope.image(2)
        microscope.image(4)
        wait_for(lambda: Project.open(follow.path).count == 5)
    finally:
        ended.set()
        thread.join()
    assert (Project.open(follow.path).done("picks/template") == Status.DONE).all()


def test_a_server_that_is_away_for_a_while_ends_no_session(microscope, follow, monkeypatch):
    """A stand-in for a stale handle of NFS, which cannot be had here; away from the start, it is said at once."""
    microscope.arrive(0, 1)
    listed, looks, notes = arrivals.listed_images, [], []

    def away(numbers):
        def look(source):
            looks.append(source)
            if len(looks) in numbers:
                raise OSError(errno.ESTALE, "Stale file handle", str(source))
            return listed(source)

        looks.clear()
        monkeypatch.setattr(arrivals, "listed_images", look)

    class Told(Silent):
        def note(self, text):
            notes.append(text)

    given = {"source": (microscope.folder / microscope.names[0]).parent, "ctf_table": microscope.table}
    away({1})
    with pytest.raises(OSError, match="Stale file handle"):
        follow(**given)
    away({2, 3})
    assert follow(**given, reporter=Told())["done"] == 2
    assert [note for note in notes if "Stale" in note] == [f"waiting: Stale file handle: {given['source']}"]
    assert "the source can be read again" in notes


def wait_for(condition, seconds=60.0):
    end = time.monotonic() + seconds
    while True:
        try:
            if condition():
                return
        except (ProjectError, FileNotFoundError, KeyError):
            pass
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.05)


def left(path):
    return batches_left(Project.open(path), "picks/template", again=False)


class After(SerialExecutor):
    """Does something once, after so many tasks: while what has arrived is not shown yet."""

    def __init__(self, tasks, doing):
        self.tasks, self.doing = tasks, doing

    def run(self, function, tasks):
        for outcome in super().run(function, tasks):
            yield outcome
            self.tasks -= 1
            if self.tasks == 0:
                self.doing()


def interrupt():
    """End like Ctrl-C."""
    raise KeyboardInterrupt


@pytest.mark.parametrize("tasks", [1, 3])
def test_an_interrupted_round_goes_on(microscope, follow, tasks):
    """What had arrived is hidden until the same command ends the round; nothing is there twice."""
    microscope.arrive(0, 1)
    follow()
    microscope.arrive(2, 3, 4)
    with pytest.raises(KeyboardInterrupt):
        follow(executor=After(tasks, interrupt))
    project = Project.open(follow.path)
    assert project.count == 2 and project.arrived == 5
    assert project.picks("template").sizes["micrograph"] == 2
    assert status(project)["micrographs"]["total"] == 2
    result = follow()
    assert (result["micrographs"], result["done"], result["rounds"]) == (5, 5, 1)
    project = Project.open(follow.path)
    assert project.count == project.arrived == 5
    assert project.calibration("template").sizes["micrograph"] == 5


def test_the_fit_is_laid_on_what_comes_and_made_anew_when_much_has(microscope, follow):
    """Laid on, old micrographs keep their values bit for bit, and new ones have what a fit of those gives them."""
    microscope.arrive(0, 1, 2, 3)
    assert follow(most=4, refit=1.5)["fits"] == 1
    before = Project.open(follow.path).calibration("template")
    microscope.arrive(4)
    assert follow(refit=1.5)["fits"] == 0
    project = Project.open(follow.path)
    laid, mixture = project.calibration("template"), project.mixture("template")
    assert laid.sizes["micrograph"] == 5 and laid.attrs["micrographs_done"] == 5 and laid.attrs["fitted_done"] == 4
    assert_identical(laid.isel(micrograph=slice(4)).drop_attrs(deep=False), before.drop_attrs(deep=False))
    assert np.isfinite(laid["shift"].values).all() and np.isfinite(laid["median"].values).all()
    if mixture is not None:
        assert np.isfinite(mixture["power_level"].values).all() and mixture.sizes["micrograph"] == 5
    assert not any("calibrate" in line for line in status(project)["left"])
    microscope.arrive(5)
    assert follow(refit=1.5)["fits"] == 1
    assert Project.open(follow.path).calibration("template").attrs["fitted_done"] == 6


def test_other_picks_and_selections_of_the_project_stay_usable(microscope, follow):
    """Picks that somebody else made wait for their own stage; a selection counts as stale, not as complete."""
    microscope.arrive(0, 1, 2)
    follow(selection="live")
    project = Project.open(follow.path, "r+")
    blobs = BlobSettings(diameter_min=140, diameter_max=160, sizes=1)
    pick(project, "blob", blobs, SerialExecutor(), Silent())
    calibrate(project, "blob", FIT)
    select(project, "blob", "mine", SelectSettings(min_ncc=0.2))
    microscope.arrive(3, 4)
    follow(selection="live")
    project = Project.open(follow.path, "r+")
    assert project.calibration("blob").sizes["micrograph"] == 5
    assert status(project)["picks"]["blob"]["pending"] == 2
    assert is_stale(project, "mine")
    if "live" in project.names("selection"):
        assert not is_stale(project, "live")
        assert project.dataset("selection/live").sizes["micrograph"] == 5
    assert stored_control(project, "template") is None
    assert (
        pick(project, "blob", BlobSettings(diameter_min=140, diameter_max=160, sizes=1), SerialExecutor(), Silent()).ran
        == 2
    )


def test_the_selection_of_a_session_holds_after_every_round(microscope, follow, tmp_path):
    """It is exported as it is: of all that is picked, with a micrograph that failed and one that came later."""
    for number, (first, last) in enumerate([(0, 2), (2, 4)]):
        for i in range(first, last):
            microscope.image(i, part=0.5 if i == 1 else 1.0)
        microscope.rewrite(*range(first, last))
        follow(selection="live", selecting=SelectSettings(min_ncc=0.3))
        done = export(Project.open(follow.path), "live", ExportSettings(), tmp_path / f"out{number}")
        assert done["micrographs"] == last - 1
        assert not any("select" in line for line in status(Project.open(follow.path))["left"])


def test_picks_begun_within_a_round_are_finished_after_it(microscope, follow):
    """They are of the micrographs shown, others are left to do; after the round the same command picks those.

    A fit of them that was begun before the round's end, and is ready after it, holds for all micrographs too.
    """
    blobs = BlobSettings(diameter_min=140, diameter_max=160, sizes=1)
    began, before = [], []

    def pick_blobs():
        return pick(Project.open(follow.path, "r+"), "blob", blobs, SerialExecutor(), Silent())

    def begin():
        began.append(pick_blobs().done)
        before.append(Project.open(follow.path, "r+"))
        assert before[0].count == 3  # which it remembers

    microscope.arrive(0, 1, 2)
    follow()
    microscope.arrive(3, 4)
    follow(executor=After(1, begin))
    assert began == [3]
    calibrate(before[0], "blob", FIT)
    project = Project.open(follow.path)
    assert project.count == project.calibration("blob").sizes["micrograph"] == 5
    told = status(project)
    assert (told["picks"]["blob"]["done"], told["picks"]["blob"]["pending"]) == (3, 2)
    assert "picks blob: 2 micrographs" in told["left"]
    select(Project.open(follow.path, "r+"), "blob", "mine", SelectSettings(min_ncc=0.2))
    assert pick_blobs().ran == 2
    assert status(project)["picks"]["blob"]["done"] == 5


def test_picks_that_lack_the_last_micrographs_are_read_as_if_those_were_pending(microscope, follow):
    """As a version left them that gave such picks too few rows, or one that was overtaken while it made them."""
    blobs = BlobSettings(diameter_min=140, diameter_max=160, sizes=1)
    microscope.arrive(0, 1, 2)
    follow()
    pick(Project.open(follow.path, "r+"), "blob", blobs, SerialExecutor(), Silent())
    whole = Project.open(follow.path).dataset("picks/blob").load()
    for _, array in zarr.open_group(follow.path / "picks/blob").arrays():
        array.resize((2, *array.shape[1:]))
    project = Project.open(follow.path)
    assert project.done("picks/blob").tolist() == [Status.DONE, Status.DONE, Status.PENDING]
    assert_identical(project.dataset("picks/blob").isel(micrograph=slice(2)).load(), whole.isel(micrograph=slice(2)))
    assert project.read("picks/blob", "count", 1, 3).tolist() == [int(whole["count"][1]), 0]
    assert np.isnan(project.picks("blob")["ncc"][2].values).all()
    shutil.rmtree(f"{follow.path}.events")  # they say that all were done
    assert status(project)["picks"]["blob"]["pending"] == 1
    assert pick(Project.open(follow.path, "r+"), "blob", blobs, SerialExecutor(), Silent()).ran == 1
    assert_identical(project.dataset("picks/blob").load(), whole)


def test_a_folder_with_a_table_of_its_ctf(microscope, follow):
    """Images that the table does not know yet wait for it, by name without folder."""
    for number in (0, 1, 2):
        microscope.image(number)
    microscope.rewrite(0, 1)
    folder = (microscope.folder / microscope.names[0]).parent
    with pytest.raises(InputError, match="--ctf-table or --without-ctf"):
        follow(source=folder)
    with pytest.raises(InputError, match="beside --ctf-table, found a table"):
        follow(ctf_table=microscope.table)
    assert follow(source=folder, ctf_table=microscope.table)["micrographs"] == 2
    microscope.rewrite(2)
    result = follow(source=folder / "*.mrc", ctf_table=microscope.table, picking=None)
    assert (result["picks"], result["micrographs"]) == ("template", 3)
    defocus = Project.open(follow.path).read("micrographs", "defocus_u")
    assert len(set(defocus)) == 3 and np.isfinite(defocus).all()


def test_a_bucket_is_followed_as_a_folder_is(microscope, follow, s3):
    """Images and their table as objects, found by a pattern or by the table; what is not there yet is waited for."""
    session = s3.bucket() / "session"
    table = session / "micrographs_ctf.star"
    for number in (0, 1, 2):
        microscope.image(number)
    microscope.rewrite(0, 1)
    s3.send(microscope.folder, session)
    folder = (session / microscope.names[0]).parent
    assert follow(source=folder / "*.mrc", ctf_table=table)["micrographs"] == 2
    microscope.rewrite(2)
    s3.send(microscope.folder, session)
    assert follow(source=folder, ctf_table=table, picking=None)["micrographs"] == 3
    microscope.rewrite(3)  # it has a row and no image
    s3.send(microscope.folder, session)
    other = follow.path.with_name("by_table.zarr")
    found = follow(source=table, path=other)
    assert (found["micrographs"], found["waiting"]) == (3, 1)
    assert Project.open(other).read("micrographs", "status").tolist() == [Status.DONE] * 3
    assert defocus_by_name(other) == defocus_by_name(follow.path)


def test_what_does_not_fit_the_project_fails_alone(microscope, follow):
    """A larger micrograph than the first ones has no room in the stack of images."""
    from handmade import noise, write_mrc

    microscope.arrive(0, 1)
    follow()
    microscope.rewrite(2, 3)
    write_mrc(microscope.folder / microscope.names[2], noise((700, 700)), 4.0)
    microscope.image(3)
    result = follow()
    assert (result["done"], result["failed"]) == (3, 1)
    assert "does not fit the project's" in result["errors"][0]["error"]
    with pytest.raises(ProjectError, match=r"pixel_size: stored 5\.0, asked 6\.0"):
        follow(importing=ImportSettings(batch=2, pixel_size=6.0))


def test_nothing_to_go_on_with(follow, tmp_path):
    with pytest.raises(InputError, match="say what to pick with"):
        follow(picking=None)
    with pytest.raises(InputError, match="beside the templates"):
        WatchPickSettings(templates=tmp_path / "t.mrcs").as_pick()
    with pytest.raises(InputError, match="rotation_step: expected only with templates"):
        WatchPickSettings(diameter=150, rotation_step=10).as_pick()
    assert isinstance(WatchPickSettings(diameter=150).as_pick(), BlobSettings)
    assert follow()["micrographs"] == 0


def test_other_settings_count_although_nothing_new_has_come(microscope, follow, small_settings):
    """A fit and a selection as asked now; other picking is refused before it is too late."""
    microscope.arrive(0, 1, 2, 3)
    follow()
    parabola = CalibrateSettings(bootstrap=0, degree=2)
    picked = SelectSettings(min_ncc=0.2)
    assert follow(fitting=parabola)["fits"] == 1
    assert follow(fitting=parabola)["fits"] == 0
    project = Project.open(follow.path, "r+")
    assert project.settings("calibration/template")["degree"] == 2
    with pytest.raises(ProjectError, match=r"diameter: stored 150\.0, asked 140\.0\n.*leave out what to pick with"):
        follow(picking=small_settings.model_copy(update={"diameter": 140.0}))

    assert follow(selection="live", selecting=picked, fitting=None)["fits"] == 0
    assert not is_stale(project, "live")
    calibrate(project, "template", FIT)
    assert is_stale(project, "live")
    assert follow(selection="live", selecting=picked, fitting=None)["fits"] == 0
    assert not is_stale(project, "live")
    assert project.settings("calibration/template")["degree"] == 1


def test_a_session_with_a_failed_micrograph_ends_in_words(microscope, small_set, follow, cli):
    microscope.arrive(0, 1)
    microscope.image(2, part=0.5)
    microscope.rewrite(2)
    ran = cli(
        *("watch", microscope.table, follow.path, "--templates", small_set.templates, "--diameter", 150),
        *("--rotation-step", 30, "--batch", 2, "--settle", 0.2, "--interval", 0.2, "--patience", 1, "--first", 2),
        *("--cluster", "serial"),
        code=3,
    )
    assert f"{microscope.names[2]} (micrographs): " in ran.out and "truncated" in ran.out


def test_ctrl_c_ends_the_command_and_the_same_one_goes_on(microscope, small_set, follow, tmp_path, cli):
    """A process is told to stop after its first round; later more has come, and a job file ends the session."""
    microscope.arrive(0, 1)
    command = [
        *(sys.executable, "-m", "pickcal", "watch", microscope.table, follow.path, "--templates", small_set.templates),
        *("--diameter", "150", "--rotation-step", "30", "--batch", "2", "--settle", "0.2", "--interval", "0.2"),
        *("--first", "2", "--cluster", "serial", "--json"),
    ]
    process = subprocess.Popen([str(c) for c in command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for(lambda: Project.open(follow.path).calibration("template") is not None, 120)
    refused = cli(*command[3:], code=1)
    assert "another job works on it" in refused.err or str(process.pid) in refused.err
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert '"micrographs": 2' in out and "ending after this round" in err and "Traceback" not in err

    microscope.arrive(2, 3)
    job = tmp_path / "job.toml"
    job.write_text(f"""
        project = "{follow.path}"
        [cluster]
        cluster = "serial"
        [watch]
        patience = 1
        settle = 0.2
        interval = 0.2
        [import]
        sources = ["{microscope.table}"]
        batch = 2
        [pick]
        method = "template"
        templates = "{small_set.templates}"
        diameter = 150
        rotation_step = 30
        [select]
        name = "first"
        min_ncc = 0.3
        [export]
        path = "{tmp_path / "out"}"
    """)
    result = cli("run", job, "--json", code=0).json
    assert (result["watch"]["micrographs"], result["watch"]["done"]) == (4, 4)
    assert result["export"]["micrographs"] == 4


@pytest.mark.parametrize(
    ("sections", "words"),
    [
        ('[pick]\nmethod = "blob"\ndiameter_min = 100\ndiameter_max = 100', "one source with its images in"),
        ('[import]\nsources = ["a.star"]', r"a \[pick\] section"),
    ],
)
def test_job_files_say_what_a_watch_needs(tmp_path, sections, words):
    (tmp_path / "job.toml").write_text(f'project = "p.zarr"\n[watch]\n{sections}\n')
    with pytest.raises(InputError, match=words):
        load_job(tmp_path / "job.toml")
