"""Progress goes to standard error and never into a pipe of results."""

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
