"""What the executor on Dask promises when things are not well: words, bounds, and no write by who lost its batch."""

import mmap
import os
import signal
import threading
import time
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
from distributed.system import MEMORY_LIMIT
from lab import Lab, until

import pickcal
from pickcal import guard
from pickcal.engine import calls
from pickcal.engine.calls import Call, LostTask, Unsuitable
from pickcal.engine.executors import open_executor
from pickcal.errors import InputError
from pickcal.settings import ClusterSettings


def nothing(task):
    return task


def hang_on_three(folder, task):
    if task == 3:
        (folder / f"{os.getpid()}").touch()
        time.sleep(600)
    return task


def fail_twice(folder, task):
    (folder / f"{time.time_ns()}").touch()
    if len(list(folder.iterdir())) < 3:
        raise OSError("the network was away")
    return task


def big(task):
    with mmap.mmap(-1, task) as held:  # workers keep the memory that malloc gave, this goes back at once
        for page in range(0, task, mmap.PAGESIZE):
            held[page] = 1
    return task


def note_and_wait(folder, task):
    (folder / f"{task}.{os.getpid()}").touch()
    until((folder / "go").exists, 60)
    return task


def may_write(folder, task):
    """Ask the guard at once, and after the scheduler has taken the task back."""
    guard.ask()
    (folder / "asked").touch()
    until((folder / "cancelled").exists, 60)
    try:
        until(asked_in_vain, 30)
        (folder / "refused").touch()
    except AssertionError:
        (folder / "allowed").touch()


def asked_in_vain():
    try:
        guard.ask()
    except LostTask:
        return True
    return False


@pytest.fixture(scope="module")
def cluster():
    with open_executor(ClusterSettings(workers=1, batch_limit=2, wait=60)) as executor:
        yield executor.started


@pytest.fixture
def lab(tmp_path):
    with Lab(dict(os.environ), folder=tmp_path) as made:
        yield made


def test_every_outcome_says_where_when_and_how_much(cluster):
    """Host and process, the time it took, and the memory while it ran, not that of the task before it."""
    began = time.time()
    outcomes = {o.task: o.measure for o in cluster.run(big, [200_000_000, 1])}
    for measure in outcomes.values():
        assert began - 1 < measure.began <= measure.ended < time.time() + 1
        assert int(measure.worker.rpartition(":")[2]) != os.getpid()
    assert outcomes[200_000_000].ended <= outcomes[1].began
    assert outcomes[200_000_000].worker == outcomes[1].worker
    assert outcomes[200_000_000].peak_memory > 200e6 > outcomes[1].peak_memory > 50e6


def test_a_worker_of_another_version_is_refused(dask_executor, monkeypatch):
    """Before any work, naming both versions."""
    monkeypatch.setattr(pickcal, "__version__", "99.1")
    with pytest.raises(InputError, match=r"expected pickcal 99\.1 .* found .*; install the same version"):
        dask_executor.wait_for_workers()
    with pytest.raises(InputError, match=r"expected pickcal 99\.1"):
        list(dask_executor.run(nothing, range(3)))


def test_too_little_memory_is_refused(dask_executor):
    """Before any work; and a worker that comes later is held to it."""
    with pytest.raises(InputError, match=r"a batch needs up to 1000000\.00 GB of memory, the worker may use"):
        dask_executor.require(10**15)
    with pytest.raises(InputError, match="a batch needs up to"):
        list(dask_executor.run(nothing, range(3)))
    dask_executor.require(0)
    assert len(list(dask_executor.run(nothing, range(3)))) == 3


def test_without_dask_a_call_checks_its_version():
    call = Call(nothing, pickcal.__version__, 0, 60)
    assert call(3).result == 3
    with pytest.raises(Unsuitable, match=r"expected pickcal 0\.0\.0"):
        replace(call, version="0.0.0")(3)


def test_a_batch_that_hangs_is_reported_and_alone(cluster, tmp_path):
    """Its worker ends itself after the limit, three times, as a store may hang once; others have their results."""
    outcomes = {o.task: o for o in cluster.run(partial(hang_on_three, tmp_path), range(6))}
    assert {task for task, o in outcomes.items() if o.error is None} == {0, 1, 2, 4, 5}
    assert outcomes[3].error == "it took longer than 2 s (--batch-limit)"
    assert len(list(tmp_path.iterdir())) == 3  # processes; one about to end may begin the next try


def test_an_error_that_passes_costs_nothing(cluster, tmp_path):
    """A task that fails with an error is tried three times."""
    (outcome,) = cluster.run(partial(fail_twice, tmp_path), [7])
    assert (outcome.error, outcome.result, len(list(tmp_path.iterdir()))) == (None, 7, 3)


def test_a_worker_of_this_machine_may_use_its_even_share(cluster):
    """One worker has all of it, however many cores there are."""
    (worker,) = cluster.client.scheduler_info()["workers"].values()
    assert worker["memory_limit"] == pytest.approx(MEMORY_LIMIT, rel=1e-3)


def test_who_lost_its_batch_does_not_write(dask_executor, tmp_path):
    """The guard lets the owner write, and refuses once the scheduler has taken the task back."""
    call = Call(partial(may_write, tmp_path), pickcal.__version__, 0, 120)
    future = dask_executor.client.submit(call, 1, pure=False)
    until((tmp_path / "asked").exists)
    future.cancel()
    (tmp_path / "cancelled").touch()
    until(lambda: (tmp_path / "refused").exists() or (tmp_path / "allowed").exists())
    assert (tmp_path / "refused").exists()


def test_who_hears_nothing_from_the_scheduler_does_not_write(monkeypatch):
    """After a bounded wait. A stand-in for a worker, whose scheduler is silent; cut off for real in tests/chaos."""
    monkeypatch.setattr(calls, "PATIENCE", 0.2)

    worker = SimpleNamespace(
        status=SimpleNamespace(name="running"),
        state=SimpleNamespace(tasks={"key": SimpleNamespace(state="executing")}),
        periodic_callbacks={"heartbeat": SimpleNamespace(callback_time=500)},
    )
    calls._still_mine(worker, "key", lambda: 14.0)
    with pytest.raises(LostTask, match="heard nothing from the scheduler for 16 s"):
        calls._still_mine(worker, "key", lambda: 16.0)
    with pytest.raises(LostTask, match="taken this task back"):
        calls._still_mine(worker, "other", lambda: 0.0)


def test_no_worker_comes(lab):
    """Said so after the wait that was asked for."""
    lab.start_scheduler()
    refused = pytest.raises(InputError, match="no worker for 2 s; expected at least one")
    with refused, open_executor(ClusterSettings(kind=lab.address, wait=2)):
        pass


def test_the_scheduler_dies_and_comes_back(lab, tmp_path):
    """What was not finished runs again on the workers of the new one."""
    lab.start_scheduler().start_worker()
    notes, outcomes = [], []

    def run():
        with open_executor(ClusterSettings(kind=lab.address, wait=60), notes.append) as executor:
            outcomes.extend(executor.run(partial(note_and_wait, tmp_path), range(3)))

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: list(tmp_path.glob("0.*")), 60)
    lab.kill_scheduler()
    lab.start_scheduler().start_worker()
    until(lambda: len(list(tmp_path.glob("0.*"))) > 1, 60)
    (tmp_path / "go").touch()
    thread.join(60)
    assert sorted(o.result for o in outcomes) == [0, 1, 2]
    assert any("lost the scheduler" in note for note in notes)


def test_the_scheduler_dies_for_good(lab, tmp_path):
    """An error after the wait, not a hang."""
    lab.start_scheduler().start_worker()
    raised = []

    def run():
        try:
            with open_executor(ClusterSettings(kind=lab.address, wait=10)) as executor:
                list(executor.run(partial(note_and_wait, tmp_path), range(3)))
        except InputError as error:
            raised.append(str(error))

    thread = threading.Thread(target=run)
    thread.start()
    until(lambda: list(tmp_path.glob("0.*")) or raised, 120)
    assert not raised
    lab.scheduler.send_signal(signal.SIGKILL)
    thread.join(120)
    assert len(raised) == 1 and "went away and did not come back for 10 s" in raised[0]
