"""The example notebook runs from beginning to end, and what it shows is what is stored in it."""

import ast
import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")

NOTEBOOK = Path(__file__).parents[1] / "docs/notebook.ipynb"
MACHINE_PATH = re.compile(r"/(?:work|tmp|root|home|usr|opt|var|Users)/|site-packages|[A-Z]:\\\\")
LARGEST = 500_000


def texts(cell):
    """What the outputs of a cell say, but for pictures."""
    for output in cell.outputs:
        yield output.get("text", "")
        for kind, data in output.get("data", {}).items():
            if kind.startswith("text/"):
                yield data


@pytest.fixture(scope="module")
def stored():
    return nbformat.read(NOTEBOOK, as_version=4)


def test_outputs_are_stored_small_and_of_no_machine(stored):
    """Every cell was run, in order, without an error; no output names a folder of the machine that ran it."""
    cells = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert not [output for cell in cells for output in cell.outputs if output.output_type == "error"]
    assert [text for cell in cells for text in texts(cell) if MACHINE_PATH.search(text)] == []
    assert NOTEBOOK.stat().st_size < LARGEST


def test_it_runs_and_shows_the_same(stored, tmp_path, monkeypatch):
    """Executed anew: pictures where pictures are stored, and the same picks accepted as precisely."""
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    fresh = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(
        fresh, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    for before, after in zip(stored.cells, fresh.cells, strict=True):
        if before.cell_type == "code":
            kinds = [[sorted(out.data) for out in cell.outputs if "data" in out] for cell in (before, after)]
            assert kinds[0] == kinds[1], before.source
    shown = [
        [text for cell in book.cells if cell.cell_type == "code" for text in texts(cell)] for book in (stored, fresh)
    ]
    figures = [next(ast.literal_eval(text) for text in found if text.startswith("{'precision'")) for found in shown]
    assert figures[1] == pytest.approx(figures[0], abs=0.02)
    assert figures[1]["f1"] > 0.9
