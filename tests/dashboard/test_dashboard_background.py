"""The background thread: order, replacement, cancelling, failures, waiting for quiet."""

import threading

import pytest
from browsing import PATIENCE

from pickcal.dashboard.background import Background, remaining


@pytest.fixture
def background():
    made = Background(quiet=0.0)
    yield made
    made.close()


def counting(steps, log=None, name=""):
    """A job of some steps that notes each and returns its name."""

    def job():
        for i in range(steps):
            if log is not None:
                log.append((name, i))
            yield (i + 1) / steps
        return name

    return job


class Held:
    """A job that stops in its first step until it is let go."""

    def __init__(self):
        self.began, self.go, self.closed = threading.Event(), threading.Event(), threading.Event()

    def __call__(self):
        try:
            self.began.set()
            assert self.go.wait(PATIENCE)
            yield 0.5
            yield 1.0
        finally:
            self.closed.set()


def test_a_job_gives_progress_after_every_step_and_its_result_at_the_end(background):
    seen, results, threads = [], [], set()

    def done(result):
        results.append(result)
        threads.add(threading.current_thread())

    background.submit("a", counting(4, name="result"), done, seen.append)
    assert background.wait(PATIENCE)
    assert seen == [0.25, 0.5, 0.75, 1.0]
    assert results == ["result"]
    (thread,) = threads
    assert thread.daemon and thread is not threading.main_thread()
    assert not background.running("a")


def test_no_thread_before_the_first_job():
    before = threading.active_count()
    background = Background()
    assert threading.active_count() == before
    assert background.wait(0) and not background.running("a")
    background.close()


def test_lower_priorities_first_and_equal_ones_take_turns(background):
    log, held = [], Held()
    background.submit("first", held, priority=-1)
    assert held.began.wait(PATIENCE)
    background.submit("late", counting(2, log, "late"), priority=5)
    background.submit("a", counting(3, log, "a"), priority=1)
    background.submit("b", counting(3, log, "b"), priority=1)
    held.go.set()
    assert background.wait(PATIENCE)
    assert sorted(log[:6]) == [(name, i) for name in "ab" for i in range(3)]
    assert [i for _, i in log[:6]] == [0, 0, 1, 1, 2, 2]
    assert log[6:] == [("late", 0), ("late", 1)]


def test_a_new_job_under_the_same_key_replaces_the_old_one(background):
    held, results, progress = Held(), [], []
    background.submit("a", held, results.append, progress.append)
    assert held.began.wait(PATIENCE)
    background.submit("a", counting(1, name="new"), results.append)
    assert not held.closed.is_set()
    held.go.set()
    assert background.wait(PATIENCE)
    assert results == ["new"]
    assert progress == []
    assert held.closed.is_set()


def test_a_cancelled_job_stops_and_calls_nothing_back(background):
    held, calls = Held(), []
    background.submit("a", held, calls.append, calls.append, calls.append)
    assert held.began.wait(PATIENCE)
    assert background.running("a")
    background.cancel("a")
    assert not background.running("a")
    held.go.set()
    assert background.wait(PATIENCE)
    assert held.closed.is_set() and calls == []
    background.cancel("nothing")


def test_a_failing_job_or_callback_does_not_end_the_thread(background, caplog):
    failures, results = [], []

    def bad():
        yield 0.5
        raise ValueError("broken")

    def worse(_):
        raise RuntimeError("of the caller")

    background.submit("a", bad, results.append, failed=failures.append)
    background.submit("b", bad)
    background.submit("c", counting(2, name="c"), worse, worse)
    background.submit("d", bad, failed=worse)
    background.submit("e", counting(1, name="e"), results.append)
    assert background.wait(PATIENCE)
    assert [str(error) for error in failures] == ["broken"]
    assert results == ["e"]
    assert "job 'b' failed" in caplog.text and "of the caller" in caplog.text
    background.submit("f", counting(1, name="f"), results.append)
    assert background.wait(PATIENCE)
    assert results == ["e", "f"]


def test_a_job_may_be_submitted_from_a_callback(background):
    results = []
    background.submit(
        "a",
        counting(1, name="a"),
        lambda _: background.submit("a", counting(1, name="again"), results.append),
    )
    assert background.wait(PATIENCE)
    assert results == ["again"]


@pytest.mark.parametrize(
    ("now", "touched", "began", "expected"),
    [
        (10.0, float("-inf"), 10.0, float("-inf")),
        (10.0, 10.0, 10.0, 0.25),
        (10.2, 10.0, 10.0, 0.05),
        (10.3, 10.0, 10.0, -0.05),
        (11.9, 11.9, 10.0, 0.1),
        (12.1, 12.1, 10.0, -0.1),
    ],
)
def test_a_step_waits_for_quiet_but_not_for_ever(now, touched, began, expected):
    assert remaining(now, touched, began, quiet=0.25, longest=2.0) == pytest.approx(expected)


def test_nothing_is_done_while_somebody_moves():
    background = Background(quiet=1000.0, longest=1000.0)
    log = []
    background.touch()
    background.submit("a", counting(1, log, "a"))
    assert not background.wait(0.2)
    assert log == []
    background.close()
    assert log == [] and background.wait(PATIENCE)


def test_progress_does_not_starve_while_somebody_moves():
    background = Background(quiet=1000.0, longest=0.01)
    results = []
    background.touch()
    background.submit("a", counting(3, name="a"), results.append)
    assert background.wait(PATIENCE)
    assert results == ["a"]
    background.close()


def test_what_somebody_waits_for_is_done_between_the_moves_of_others():
    background = Background(quiet=0.05, longest=1000.0)
    background._touched = float("inf")  # somebody never stops moving
    log, drawn = [], threading.Event()
    background.submit("count", counting(1, log, "count"), priority=1)
    background.submit("picture", counting(2, log, "picture"), lambda _: drawn.set())
    assert drawn.wait(PATIENCE)
    assert log == [("picture", 0), ("picture", 1)]
    background.close()


def test_after_closing_nothing_is_done(background):
    held, log = Held(), []
    background.submit("a", held, log.append)
    assert held.began.wait(PATIENCE)
    thread = background._thread
    threading.Timer(0.05, held.go.set).start()
    background.close()
    assert not thread.is_alive() and held.closed.is_set()
    background.submit("b", counting(1, log, "b"))
    assert log == [] and not background.running("b") and background.wait(0)
