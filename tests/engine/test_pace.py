"""Rate and time left from a clock that the test moves."""

import pytest

from pickcal.engine import progress
from pickcal.engine.pace import REMEMBERED, Pace, rate_text, seconds_text


class Clock:
    """Seconds as the test sets them."""

    now = 100.0

    def __call__(self):
        return self.now


def test_time_left_follows_from_the_rate():
    """Ten steps in five seconds: two a second, forty left take twenty, which run down."""
    clock = Clock()
    pace = Pace(50, clock)
    assert (pace.rate, pace.left, pace.in_words()) == (None, None, "")
    clock.now += 5
    pace.advance(10)
    assert pace.rate == pytest.approx(2)
    assert pace.left == pytest.approx(20)
    clock.now += 6
    assert pace.left == pytest.approx(14)
    assert pace.in_words() == "2/s, 14 s left"
    clock.now += 60
    assert pace.left == 0
    pace.advance(40)
    assert pace.in_words().endswith("in 71 s")


def test_the_rate_is_that_of_late():
    """A cluster that becomes ten times as fast is soon believed."""
    clock = Clock()
    pace = Pace(10_000, clock)
    for step in (10.0,) * 30 + (1.0,) * (REMEMBERED + 1):
        clock.now += step
        pace.advance(1)
    assert pace.rate == pytest.approx(1)


@pytest.mark.parametrize(("rate", "text"), [(350, "350/s"), (3.21, "3.2/s"), (0.6, "36/min"), (0.001, "3.6/h")])
def test_rates_in_plain_numbers(rate, text):
    assert rate_text(rate) == text


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0 s"), (89, "89 s"), (600, "10 min"), (7500, "2 h 5 min")])
def test_durations_in_words(seconds, text):
    assert seconds_text(seconds) == text


def test_without_a_terminal_a_line_now_and_then(capsys, monkeypatch):
    """Half a minute apart, with rate and time left; the last line is that of the stage."""
    clock = Clock()
    monkeypatch.setattr(progress, "Pace", lambda total: Pace(total, clock))
    with progress.TerminalReporter() as reporter:
        reporter.start("pick", 12)
        for _ in range(12):
            clock.now += 10
            reporter.advance(1)
        reporter.finish()
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "pick: 3 of 12, 6/min, 2 min left",
        "pick: 6 of 12, 6/min, 60 s left",
        "pick: 9 of 12, 6/min, 30 s left",
        "pick: 12 of 12 in 120.0 s",
    ]
