"""Help that teaches: examples that run, 80 columns, exit codes, colours only on a terminal, completion."""

import os
import pty
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
from ran import in_this_process
from terminal import all_said

from pickcal.cli import app
from pickcal.cli.help import example, example_commands, examples
from pickcal.cli.output import EXIT_CODES

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
COLOURED = re.compile(r"\x1b\[(?:\d+;)*(?:3[0-7]|38|9[0-7])[0-9;]*m")


def commands(found, chain=()) -> Iterator[tuple[tuple[str, ...], object]]:
    """All commands and groups of commands with their names, but for flags."""
    for name in found:
        if not name.startswith("-"):
            yield (*chain, name), found[name]
            yield from commands(found[name], (*chain, name))


COMMANDS = dict(commands(app))
NAMES = [" ".join(chain) for chain in COMMANDS]


@pytest.fixture
def said(monkeypatch):
    """Run a command in this process at 80 columns; its code and standard output."""

    def run(*words):
        monkeypatch.setenv("COLUMNS", "80")
        ran = in_this_process(*words, code=None)
        return ran.code, ran.out

    return run


def test_commands_are_those_of_the_readme():
    """The list that people know; a command lost in a move of code would be missed here."""
    stages = {
        "simulate",
        "import",
        "import-picks",
        "pick",
        "pick template",
        "pick blob",
        "score",
        "calibrate",
        "select",
    }
    assert {*stages, "control", "export", "evaluate", "status", "report", "run", "watch", "inspect"} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_help_has_examples_and_fits_80_columns(said, name):
    """Every line, of every command; every command ends with an example of itself."""
    code, text = said(*name.split(), "--help")
    assert code == 0
    assert [line for line in text.splitlines() if len(line) > 80] == []
    shown = example_commands(text[text.index("Example") :])
    assert any(words[: len(name.split())] == name.split() for words in shown)


@pytest.mark.parametrize(
    "words",
    [
        pytest.param(words, id=" ".join(words))
        for one in (app, *COMMANDS.values())
        for words in example_commands(one.help_epilogue or "")
    ],
)
def test_examples_are_valid_command_lines(words):
    """Each example of each help, as the parser takes it: a flag that was renamed would fail."""
    if words[0].startswith("-") or ">" in words:
        words = words[: words.index(">")] if ">" in words else words
    command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    assert command is not None
    assert bound is not None


def test_examples_fold_into_lines_that_a_shell_joins(tmp_path):
    """What is printed is pasted: a shell sees the very words."""
    long = "echo " + " ".join(f"--flag-{i}=value{i}" for i in range(12))
    folded = example(long)
    assert len(folded.splitlines()) > 1
    assert max(map(len, folded.splitlines())) <= 80
    done = subprocess.run(["sh", "-c", folded], capture_output=True, text=True, check=True)
    assert done.stdout.split() == long.split()[1:]
    text = examples("pickcal status p.zarr", "# a remark", f"pickcal {long}")
    assert example_commands(text) == [["status", "p.zarr"], long.split()]


def test_defaults_of_several_values_stand_as_they_are_typed(said):
    """Nobody types brackets and quotes at a shell."""
    _, out = said("pick", "blob", "--help")
    assert "[default: disc ring]" in re.sub(r"[\s│]+", " ", out)


def test_root_help_tells_exit_codes(said):
    """Every code with its meaning, each in one line."""
    _, text = said("--help")
    for code, meaning in EXIT_CODES:
        assert re.search(rf"^  {code} +{re.escape(meaning)}$", text, re.MULTILINE), (code, text)


def test_stars_and_angles_of_descriptions_stay(said):
    """`'*' for every account` is no emphasis, `<` no tag."""
    _, text = said("inspect", "--help")
    assert "'*'" in text


def on_terminal(words, **environment):
    """What a process writes to a terminal of 80 columns."""
    parent, child = pty.openpty()
    env = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR", "PYTEST_VERSION")}
    env |= {"TERM": "xterm-256color", "COLUMNS": "80", **environment}
    command = [sys.executable, "-m", "pickcal", *words]
    process = subprocess.Popen(command, stdout=child, stderr=child, stdin=child, env=env)
    os.close(child)
    said = all_said(parent)
    os.close(parent)
    process.wait(60)
    return said


def test_colours_on_a_terminal_alone(cli):
    """There, unless NO_COLOR is set; never in a pipe. Errors too."""
    assert COLOURED.search(on_terminal(["status", "nowhere.zarr"]))
    assert not COLOURED.search(on_terminal(["status", "nowhere.zarr"], NO_COLOR="1"))
    assert not COLOUR.search(cli("status", "nowhere.zarr", code=1).err)
    assert not COLOUR.search(cli("--help", code=0).out)


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_and_flags(said, shell):
    """The script of every shell names them."""
    code, script = said("completion", shell)
    assert code == 0
    assert [word for word in ("calibrate", "import-picks", "low-pass", "rotation-step") if word not in script] == []


def test_bash_completes(said, tmp_path):
    """A real bash: commands, a command's flags, the values of one."""
    script = tmp_path / "pickcal"
    script.write_text(said("completion", "bash")[1])

    def complete(line):
        words = line.split(" ")
        quoted = " ".join(f"'{word}'" for word in words)
        text = (
            f"source {script}; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; "
            f"COMP_LINE='{line}'; COMP_POINT={len(line)}; "
            "function=$(complete -p pickcal | sed 's/.*-F \\([^ ]*\\) .*/\\1/'); $function; "
            "printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        done = subprocess.run(["bash", "-c", text], capture_output=True, text=True, check=True)
        return {word.strip() for word in done.stdout.splitlines()}

    assert "calibrate" in complete("pickcal ca")
    assert "--min-ncc" in complete("pickcal select --min")
    assert {"relion", "cryosparc"} <= complete("pickcal export p.zarr out --format ")


def test_completion_is_set_up_for_the_shell_that_is_named(cli, tmp_path, monkeypatch):
    """In the home of who asks: a script, and a line in the start-up file."""
    monkeypatch.setenv("HOME", str(tmp_path))
    cli("--install-completion", "--shell", "bash", code=0)
    script = tmp_path / ".local/share/bash-completion/completions/pickcal"
    assert "calibrate" in script.read_text()
    assert str(script) in (tmp_path / ".bashrc").read_text()
