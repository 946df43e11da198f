"""Command lines of README and of all pages are ones that the parser takes: a flag that was renamed would fail."""

import re
import shlex

import pytest
from pages import DOCS

from pickcal.cli import app

ROOT = DOCS.parent
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md")), ROOT / "deploy/README.md"]
BLOCK = re.compile(r"^```(?:bash)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINES = [
    pytest.param(line, id=f"{page.relative_to(ROOT)}-{line[:60]}")
    for page in PAGES
    for block in BLOCK.findall(page.read_text(encoding="utf-8"))
    for line in block.replace("\\\n", " ").splitlines()
    if line.startswith("pickcal ")
]


def test_there_are_many():
    assert len(LINES) > 60


@pytest.mark.parametrize("line", LINES)
def test_a_command_line_is_valid(line):
    words = shlex.split(line, comments=True)[1:]
    words = words[: words.index(">")] if ">" in words else words
    if words[0] == "--install-completion":
        return
    command, bound, _ = app.parse_args(
        [word for word in words if word != "..."], exit_on_error=False, print_error=False
    )
    assert command is not None
    assert bound is not None
