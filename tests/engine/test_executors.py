"""One suite for all executors; what a dead worker costs on Dask."""

import os
import signal
from functools import partial

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from pickcal.engine.executors import Executor, SerialExecutor, explain, open_executor
from pickcal.errors import InputError
from pickcal.settings import ClusterSettings


def square(number):
    return number * number


def refuse_odd(number):
    if number % 2:
        raise InputError(f"{number}: expected an even number")
    return number


def crash(number):
    raise ZeroDivisionError("by nought") if number == 2 else OSError(28, "No space left on device", "/full/disk")


def threads(_):
    np.ones((2, 2)) @ np.ones((2, 2))
    return max((pool["num_threads"] for pool in threadpool_info()), default=1), os.getpid()


def die_always(number):
    if number == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def die_once(marker, number):
    if number == 3 and not marker.exists():
        marker.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


@pytest.fixture(params=["serial", "dask"])
def executor(request) -> Executor:
    return SerialExecutor() if request.param == "serial" else request.getfixturevalue("dask_executor")


@pytest.fixture(scope="module")
def mortal_cluster():
    """A cluster whose workers may be killed."""
    with open_executor(ClusterSettings(workers=2)) as opened:
        yield opened


def test_every_task_has_one_outcome(executor):
    """In whatever order; the result belongs to its task."""
    outcomes = list(executor.run(square, range(20)))
    assert {outcome.task: outcome.result for outcome in outcomes} == {i: i * i for i in range(20)}
    assert len(outcomes) == 20
    assert all(outcome.error is None for outcome in outcomes)


def test_no_tasks(executor):
    """Nothing to do is no error."""
    assert list(executor.run(square, [])) == []


def test_a_local_cluster_starts_with_the_first_task():
    """A command with nothing left to do waits for no workers; those that one task started serve the next."""
    notes = []
    with open_executor(ClusterSettings(workers=1), notes.append) as opened:
        assert list(opened.run(square, [])) == []
        assert notes == []
        for i in range(2):
            assert [outcome.result for outcome in opened.run(square, [i])] == [i * i]
        assert opened.workers == 1
    assert len(notes) == 1 and "Dask dashboard" in notes[0]


def test_equal_tasks_are_all_run(executor):
    """Results are not shared between equal tasks."""
    assert [outcome.result for outcome in executor.run(square, [3, 3, 3])] == [9, 9, 9]


def test_an_error_is_the_outcome_of_its_own_task(executor):
    """User errors keep their words; the others go on."""
    outcomes = {outcome.task: outcome for outcome in executor.run(refuse_odd, range(6))}
    assert [outcomes[i].error for i in range(6)] == [
        None if i % 2 == 0 else f"{i}: expected an even number" for i in range(6)
    ]
    assert [outcomes[i].result for i in (0, 2, 4)] == [0, 2, 4]


def test_other_errors_say_type_and_file(executor):
    """One line each."""
    errors = {outcome.task: outcome.error for outcome in executor.run(crash, [2, 4])}
    assert errors == {2: "ZeroDivisionError: by nought", 4: "No space left on device: /full/disk"}


def test_tasks_have_one_thread(executor):
    """Parallelism comes from tasks alone."""
    assert {outcome.result[0] for outcome in executor.run(threads, range(4))} == {1}


def test_the_cluster_is_processes(dask_executor):
    """Two of them, and none is this one."""
    pids = {outcome.result[1] for outcome in dask_executor.run(threads, range(40))}
    assert dask_executor.workers == 2
    assert os.getpid() not in pids


def test_the_caller_may_stop_early(executor):
    """What is left is given up; the executor can be used again."""
    run = executor.run(square, range(50))
    assert next(iter(run)).error is None
    run.close()
    assert len(list(executor.run(square, range(3)))) == 3


def test_address_of_a_running_scheduler(dask_executor):
    """Any cluster is reached by its address, and stays when the client leaves."""
    address = dask_executor.client.scheduler.address
    with open_executor(ClusterSettings(cluster=address)) as executor:
        assert sorted(outcome.result for outcome in executor.run(square, range(4))) == [0, 1, 4, 9]
    assert len(list(dask_executor.run(square, range(2)))) == 2


def test_a_task_that_kills_its_worker_is_reported_and_alone(mortal_cluster):
    """It is tried again, by itself; its neighbours have their results."""
    outcomes = {outcome.task: outcome for outcome in mortal_cluster.run(die_always, range(8))}
    assert {i: outcome.result for i, outcome in outcomes.items() if i != 3} == {i: i for i in range(8) if i != 3}
    assert [i for i, outcome in outcomes.items() if outcome.error] == [3]
    assert "worker process died" in outcomes[3].error


def test_a_task_whose_worker_died_once_succeeds(mortal_cluster, tmp_path):
    """As when a node goes away."""
    function = partial(die_once, tmp_path / "died")
    outcomes = {outcome.task: outcome for outcome in mortal_cluster.run(function, range(8))}
    assert (tmp_path / "died").exists()
    assert {i: outcome.result for i, outcome in outcomes.items()} == {i: i for i in range(8)}


def test_explain_has_one_form_per_kind():
    """A user error's own words; else what happened."""
    assert explain(InputError("a: b")) == "a: b"
    assert explain(OSError(13, "Permission denied")) == "Permission denied"
    assert explain(ValueError("x")) == "ValueError: x"
