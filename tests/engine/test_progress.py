"""Progress goes to standard error and never into a pipe of results."""

import os
import pty
import sys

from terminal import all_said

from pickcal.engine.progress import TerminalReporter


def test_without_a_terminal_one_line_per_stage(capsys):
    """Title, steps and seconds."""
    with TerminalReporter() as reporter:
        reporter.start("pick", 12)
        for _ in range(3):
            reporter.advance(4)
        reporter.finish()
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("pick: 12 of 12 in ")
    assert len(err.splitlines()) == 1


def test_notes_are_not_taken_for_markup(capsys):
    """Square brackets in a file name stay."""
    with TerminalReporter() as reporter:
        reporter.note("a[red]b.mrc: [1, 2]" + " long" * 60)
    err = capsys.readouterr().err
    assert err == "a[red]b.mrc: [1, 2]" + " long" * 60 + "\n"


def test_quiet_says_nothing(capsys):
    """Neither stages nor notes."""
    with TerminalReporter(quiet=True) as reporter:
        reporter.start("pick", 1)
        reporter.note("text")
        reporter.advance(1)
        reporter.finish()
    assert capsys.readouterr() == ("", "")


def test_a_terminal_sees_a_bar_that_goes_away(monkeypatch):
    """Steps and pace on the way; a note stands above it, and no line is left for the stage."""
    ours, theirs = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with TerminalReporter() as reporter:
            reporter.start("pick", 12)
            reporter.advance(4)
            reporter.note("four are done")
            reporter.finish()
            reporter.start("calibrate", 1)
    said = all_said(ours)
    os.close(ours)
    assert "4/12" in said and "four are done" in said and "calibrate" in said
    assert "12 in" not in said and said.rstrip().endswith("\x1b[?25h")  # the cursor is shown again
