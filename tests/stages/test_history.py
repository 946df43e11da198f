"""Event records: one per batch, read by status and report, and of this very group only."""

import json
import shutil
import threading
import time

import numpy as np
import pytest
from handmade import noise, write_set

from pickcal.engine.executors import Outcome, SerialExecutor
from pickcal.engine.journal import Journal, runs
from pickcal.engine.one_job import only_job
from pickcal.engine.progress import Silent
from pickcal.errors import ProjectError
from pickcal.present import render
from pickcal.project import Project
from pickcal.schema import Status
from pickcal.settings import BlobSettings, ImportSettings
from pickcal.stages.history import history, statuses, totals
from pickcal.stages.ingest import ingest
from pickcal.stages.memory import import_memory, search_memory
from pickcal.stages.pick import pick
from pickcal.stages.status import status
from pickcal.stores.small_objects import beside

BLOBS = BlobSettings(diameter_min=140.0, diameter_max=140.0, shapes=("disc",))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Six micrographs in batches of two, the fifth of which cannot be read; imported and picked."""
    folder = tmp_path_factory.mktemp("history")
    star = write_set(folder, [noise(seed=i) for i in range(6)])
    (folder / "mics/m5.mrc").write_bytes(b"not an image")
    ingest([star], folder / "p.zarr", ImportSettings(batch=2), SerialExecutor(), Silent())
    pick(Project.open(folder / "p.zarr", "r+"), "blob", BLOBS, SerialExecutor(), Silent())
    return folder / "p.zarr"


@pytest.fixture
def copied(made, tmp_path):
    shutil.copytree(made, tmp_path / "p.zarr")
    shutil.copytree(made.with_name("p.zarr.events"), tmp_path / "p.zarr.events")
    return Project.open(tmp_path / "p.zarr", "r+")


def records(project, group="picks/blob"):
    return [list(run) for run in runs(project.path, group, project.group_mark(group))]


def test_one_record_for_every_batch(made):
    """Worker, times, memory, what became of each micrograph; between the begin and the end of the run."""
    ((begin, *batches, end),) = records(Project.open(made))
    assert (begin["event"], begin["stage"], begin["micrographs"], begin["batches"]) == ("begin", "pick blob", 6, 3)
    assert (end["event"], end["how"]) == ("end", "finished")
    assert [(record["start"], record["stop"]) for record in batches] == [(0, 2), (2, 4), (4, 6)]
    assert [record["statuses"] for record in batches] == ["11", "11", f"{int(Status.SKIPPED)}1"]
    counts = Project.open(made).read("picks/blob", "count")
    assert [record["totals"]["picks"] for record in batches] == counts.reshape(3, 2).sum(axis=1).tolist()
    for record in batches:
        assert begin["at"] <= record["began"] <= record["ended"] <= end["at"]
        assert record["worker"] and record["peak_memory"] > 50e6 and record["error"] is None
        assert record["start"] <= record["slowest"] < record["stop"]
        assert 0 < record["slowest_seconds"] <= record["ended"] - record["began"] + 0.001


def test_status_sums_them_up(made, cli):
    """Throughput, slowest micrographs, failures by reason."""
    found = status(Project.open(made))
    ours, imported = found["runs"]["picks/blob"], found["runs"]["micrographs"]
    assert (ours["stage"], ours["runs"], ours["batches"], ours["running"]) == ("pick blob", 1, 3, False)
    assert ours["micrographs_per_minute"] > 0 and ours["seconds_per_micrograph"] > 0
    assert {item["micrograph"] for item in ours["slowest"]} <= {f"mics/m{i}.mrc" for i in range(1, 7)}
    assert len(ours["slowest"]) == 3
    assert ours["failures_by_reason"] == {}
    assert imported["batches"] == 3  # the damaged file was found before any batch ran
    assert cli("status", made, "--json", code=3).json["runs"]["picks/blob"]["batches"] == 3


def test_running_stages_are_shown_with_time_left(copied):
    """While somebody holds the lease and half is done."""
    journal = Journal(copied.path, "pick blob", "picks/blob", copied.group_mark("picks/blob"))
    journal.begin(micrographs=6, batches=3)
    for record in records(copied)[0][1:2]:
        beside(copied.path).append(f"{journal.run}.0001.jsonl", json.dumps(record).encode() + b"\n")
    with only_job(copied.path, "picks/blob"):
        found = status(copied)["runs"]["picks/blob"]
    assert found["running"] is True and "process" in found["by"]
    # two of six took as long as the only batch recorded; four are left
    seconds = records(copied)[-1][1]["ended"] - records(copied)[-1][1]["began"]
    assert found["seconds_left"] == pytest.approx(2 * seconds, abs=1)
    assert f"pick blob: running for {found['running_for']} s, " in (text := render({"runs": {"picks/blob": found}}))
    assert f" s left; {found['by']}" in text
    whole = status(copied)["runs"]["picks/blob"]
    assert whole["running"] is False and whole["micrographs_left"] == 0  # what is there counts, not what was recorded
    assert "pick blob: finished" in render({"runs": {"picks/blob": whole}})


def test_of_a_job_elsewhere_it_is_told_when_it_was_heard_of(copied):
    """Whether it lives is concluded from another machine's clock, which may be wrong."""
    renewed = time.time() - 90
    record = {"owner": "x", "machine": "another", "host": "node7", "pid": 1, "command": "pickcal"}
    record |= {"since": renewed - 60, "renewed": renewed}
    beside(copied.path).create("picks.blob.lease", json.dumps(record).encode())
    found = status(copied)["runs"]["picks/blob"]
    at = time.strftime("%H:%M:%S", time.localtime(renewed))
    assert found["running"] is True
    assert found["by"] == f"pickcal on node7, process 1, last heard of at {at} by its clock"


def test_a_run_that_was_stopped_is_told_from_one_that_finished(copied):
    """Four of six are left, and no job is at work."""
    records_of = beside(copied.path)
    (name,) = (name for name in records_of.names() if "-picks.blob-" in name)
    records_of.remove(name)
    journal = Journal(copied.path, "pick blob", "picks/blob", copied.group_mark("picks/blob"))
    journal.begin(micrographs=6, batches=3)
    copied._array("picks/blob", "status")[2:] = np.int8(Status.PENDING)
    stopped = status(copied)["runs"]["picks/blob"]
    assert stopped["running"] is False and stopped["micrographs_left"] == 4
    assert "pick blob: stopped with 4 micrographs left" in render({"runs": {"picks/blob": stopped}})


def test_failures_are_counted_by_reason(copied, tmp_path):
    """A batch that fails as a whole, and micrographs that fail alone."""
    project = copied
    project.remove("picks/blob")

    class Losing(SerialExecutor):
        def run(self, function, tasks):
            yield Outcome(tasks[1], error="the node went away")
            yield from super().run(function, [tasks[0], tasks[2]])

    pick(project, "blob", BLOBS, Losing(), Silent())
    found = status(project)["runs"]["picks/blob"]
    assert found["failures_by_reason"] == {"the node went away": 2}
    text = render(status(project))
    assert "failed: 2 for: the node went away" in text and "(picks/blob): the node went away" in text
    pick(project, "blob", BLOBS, SerialExecutor(), Silent())
    found = status(project)["runs"]["picks/blob"]
    assert found["runs"] == 2 and found["failures_by_reason"] == {}


def test_a_group_made_anew_has_no_past(copied):
    """Nor has a project that was copied without its records."""
    assert history(copied, "picks/blob").batches == 3
    pick(copied, "blob", BlobSettings(diameter_min=150.0, diameter_max=150.0), SerialExecutor(), Silent(), True)
    assert history(copied, "picks/blob").runs == 1
    shutil.rmtree(copied.path.with_name("p.zarr.events"))
    assert history(copied, "picks/blob") is None
    assert status(copied)["picks"]["blob"]["done"] == 5


def test_status_trusts_records_only_where_a_batch_is_done(copied):
    """What they call done is not read again; everything else is."""
    past = history(copied, "picks/blob")
    assert statuses(copied, "picks/blob", past).tolist() == copied.done("picks/blob").tolist()
    past.statuses = {0: "11", 2: "10"}
    values = copied.read("picks/blob", "status")
    values[:] = Status.FAILED
    for start, stop in copied.batches():
        copied.write_batch("picks/blob", start, stop, {"status": values[start:stop]})
    assert statuses(copied, "picks/blob", past).tolist() == [Status.DONE] * 2 + [Status.FAILED] * 4


def test_sums_are_those_of_the_columns_with_and_without_records(copied):
    """A record is believed for a batch that is done; without one, or without its sums, the column is read."""
    columns = {"picks": "count", "decoys": "decoy_count"}
    truth = {name: int(copied.read("picks/blob", column).sum()) for name, column in columns.items()}
    assert truth["picks"] > 10 and truth["decoys"] > 10
    past = history(copied, "picks/blob")
    assert totals(copied, "picks/blob", past, columns) == totals(copied, "picks/blob", None, columns) == truth
    past.totals[0] = {}
    assert totals(copied, "picks/blob", past, columns) == truth
    past.totals[2]["picks"] += 1000  # the record is what is asked
    assert totals(copied, "picks/blob", past, columns)["picks"] == truth["picks"] + 1000
    assert status(copied)["picks"]["blob"]["picks"] == truth["picks"]


def test_half_a_line_of_a_killed_driver_is_passed_over(copied):
    name = next(name for name in beside(copied.path).names() if "picks.blob" in name)
    beside(copied.path).append(name, b'{"event": "ba')
    assert history(copied, "picks/blob").batches == 3


def test_a_journal_that_cannot_be_written_stops_nothing(copied, monkeypatch):
    """The picks are what counts."""

    def full(self, name, content):
        raise OSError(28, "No space left on device", name)

    monkeypatch.setattr("pickcal.stores.folder_objects.FolderObjects.append", full)
    copied.remove("picks/blob")
    assert pick(copied, "blob", BLOBS, SerialExecutor(), Silent()).done == 5


def test_a_finished_stage_writes_no_records(copied):
    before = beside(copied.path).names()
    assert pick(copied, "blob", BLOBS, SerialExecutor(), Silent()).ran == 0
    assert beside(copied.path).names() == before


def test_the_same_stage_is_not_begun_twice(copied):
    """Also before the picks are there: the second would replace what the first just made."""
    refused = []

    class Meanwhile(SerialExecutor):
        def run(self, function, tasks):
            def other():
                try:
                    pick(Project.open(copied.path, "r+"), "blob", BLOBS, SerialExecutor(), Silent(), overwrite=True)
                except ProjectError as error:
                    refused.append(str(error))

            thread = threading.Thread(target=other)
            thread.start()
            thread.join(60)
            yield from super().run(function, tasks)

    copied.remove("picks/blob")
    assert pick(copied, "blob", BLOBS, Meanwhile(), Silent()).done == 5
    assert len(refused) == 1 and "picks/blob: another job works on it" in refused[0]


def test_memory_that_a_batch_needs_is_not_guessed_low(made, tmp_path, cli):
    """What a process of its own was measured to need is within the estimate, and not far below."""
    shutil.copytree(made, tmp_path / "p.zarr")
    command = ["pick", "blob", tmp_path / "p.zarr", "--name", "blob", "--diameter-min", 120, "--diameter-max", 120]
    cli(*command, "--overwrite", "--cluster=serial", code=0)
    project = Project.open(tmp_path / "p.zarr")
    assert import_memory(project) < 1e9
    needed = search_memory(project, "blob")
    ours = [record for record in records(project)[0] if record["event"] == "batch"]
    assert max(record["peak_memory"] for record in ours) < 2 * needed < 2e9


def test_structured_log(made, tmp_path, cli):
    """One JSON object a line: begin, batches, end."""
    shutil.copytree(made, tmp_path / "p.zarr")
    log = tmp_path / "job.log"
    command = ["pick", "blob", tmp_path / "p.zarr", "--name", "second", "--diameter-min", 140, "--diameter-max", 140]
    cli(*command, "--cluster=serial", "--log", log, code=0)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["event"] for line in lines] == ["stage.begin", *["stage.batch"] * 3, "stage.end"]
    assert all(line["time"] and line["level"] == "info" and line["run"] == lines[0]["run"] for line in lines)
