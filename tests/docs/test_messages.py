"""What the docs quote is what the program says, word for word: messages of docs/errors.md, keys of docs/inspect.md."""

import ast
import re
from pathlib import Path

import pytest

from pickcal.dashboard.views.frame import KEYS

ROOT = Path(__file__).parents[2]
MESSAGES = re.findall(r"^### `(.*)`$", (ROOT / "docs/errors.md").read_text(encoding="utf-8"), re.MULTILINE)


@pytest.fixture(scope="module")
def texts():
    """Every text of the code, with … for what is filled in."""
    found = []
    for path in (ROOT / "pickcal").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append(
                    "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_there_are_messages():
    assert len(MESSAGES) > 30


@pytest.mark.parametrize("message", MESSAGES)
def test_message_is_one_of_the_code(message, texts):
    pattern = re.compile(".*".join(re.escape(part) for part in message.split("…")), re.DOTALL)
    assert any(pattern.match(text) for text in texts)


def test_keys_are_those_of_the_page():
    rows = re.findall(r"^\| (.*?) \| (.*) \|$", (ROOT / "docs/inspect.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert set(KEYS) <= set(rows)
    start = rows.index(KEYS[0])
    assert tuple(rows[start : start + len(KEYS)]) == KEYS
