"""The tables of docs/calibration.md hold every verdict of the code, and none that it does not give."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NUMBER = re.compile(r"[+-]?\b\d+(\.\d+)?\b( %)?|\b[nm]\b( %)?")
SAYING = {"verdict_of", "doubts_of", "refusal", "verdict", "cautions"}
"""Functions that make verdicts: by what they return, append to a list, or add to a text."""


def plain(text):
    """Words with … for every number, and without what joins them to others."""
    return NUMBER.sub("…", text).removesuffix(" ...").lstrip("; ")


def text_of(node):
    """Text with … for what is filled in; None for anything else."""
    if isinstance(node, ast.BoolOp):
        node = node.values[-1]
    if isinstance(node, ast.JoinedStr):
        return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def said(path):
    """Verdicts in a module of the package."""
    tree = ast.parse((ROOT / "pickcal" / path).read_text(encoding="utf-8"))
    makers = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name in SAYING]
    assert makers, path
    for node in (inner for maker in makers for inner in ast.walk(maker)):
        if isinstance(node, ast.Return) and node.value is not None:
            yield text_of(node.value)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "append":
            yield text_of(node.args[0])
        elif isinstance(node, ast.Assign | ast.AugAssign):
            target = node.target if isinstance(node, ast.AugAssign) else node.targets[0]
            if getattr(target, "id", "") == "text":
                yield text_of(node.value)
    for node in ast.walk(tree):
        if isinstance(node, ast.Raise) and getattr(getattr(node.exc, "func", None), "id", "") == "NotFitted":
            yield text_of(node.exc.args[0])


MODULES = ("calibration/mixture/fit.py", "calibration/verdicts.py")
VERDICTS = sorted({plain(text) for path in MODULES for text in said(path) if text})
PAGE = (ROOT / "docs/calibration.md").read_text(encoding="utf-8")
SECTION = PAGE.split("## What to believe")[1].split("\n## ")[0]
ROWS = [plain(row) for row in re.findall(r"^\| ([^|]+) \|", SECTION, re.MULTILINE) if row not in ("verdict", "---")]


def test_there_are_verdicts():
    assert len(VERDICTS) > 18 and len(ROWS) > 18


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_verdict_has_its_row(verdict):
    assert any(verdict.startswith(row) for row in ROWS)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_is_a_verdict(row):
    assert any(verdict.startswith(row) for verdict in VERDICTS)
