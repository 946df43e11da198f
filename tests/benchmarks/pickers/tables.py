"""Tables of the results that read well as text and as Markdown, within 100 columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .goals import verdicts

Results = Mapping[str, Any]


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown table with aligned columns, the first to the left, others to the right.

    Parameters
    ----------
    header, rows
        Cells as text; every row as long as the header.
    """
    lines = [list(header), *[list(row) for row in rows]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    rule = [":" + "-" * (widths[0] - 1), *["-" * (width - 1) + ":" for width in widths[1:]]]
    text = []
    for first, *others in (lines[0], rule, *lines[1:]):
        cells = [first.ljust(widths[0]), *[cell.rjust(w) for cell, w in zip(others, widths[1:], strict=True)]]
        text.append("| " + " | ".join(cells) + " |")
    return "\n".join(text)


def number(value: float | None, digits: int = 2) -> str:
    """Value with decimals, or a dash where there is none."""
    return "-" if value is None or value != value else f"{value:.{digits}f}"


def cost_table(results: Results) -> str:
    """CPU and wall seconds a micrograph, start-up, memory and the ratio to the floor."""
    floor = results["floor"]["floor"] if "floor" in results else float("nan")
    rows = [
        [
            row["program"],
            number(row["cpu"], 3),
            number(row["wall"], 3),
            number(row["start"], 1),
            number(row["memory"], 0),
            number(row["cpu"] / floor, 1),
        ]
        for row in results["costs"]
    ]
    return table(["", "CPU s", "wall s", "start-up CPU s", "memory MB", "CPU / floor"], rows)


def accuracy_table(results: Results) -> str:
    """F1, average precision, ice and centre error on both halves."""
    header = ["", "F1", "AP", "ice", "Å", "hard: F1", "AP", "ice", "Å"]
    rows = []
    for row in results["accuracy"]:
        cells = [row["program"]]
        for half in ("easy", "hard"):
            found = row.get(half)
            ice = "-" if found is None else f"{found['ice']}/{found['ice_blobs']}"
            figures = [None] * 3 if found is None else [found["f1"], found["average_precision"], found["error"]]
            cells += [number(figures[0], 3), number(figures[1], 3), ice, number(figures[2], 1)]
        rows.append(cells)
    return table(header, rows)


def workers_table(results: Results) -> str:
    """One and two workers."""
    found = results["workers"]
    names = {"1": "1 worker", "2": "2 workers"}
    rows = [
        [title, number(found[n]["wall"], 1), number(found[n]["throughput"], 2), f"{found[n]['busy']:.1%}"]
        for n, title in names.items()
    ]
    rows.append(["ratio", number(found["gain_with_start"]), number(found["gain"]), "-"])
    heads = ["wall s with start-up", "micrographs a second after it", "workers at work"]
    return table([f"{found['micrographs']} micrographs", *heads], rows)


def numbers_table(results: Results) -> str:
    """Jobs of more and more small micrographs."""
    stages = ("import", "pick", "calibrate")
    rows = []
    for count, costs in results["numbers"].items():
        cells = [count]
        for stage in stages:
            cells += [number(costs[stage]["wall"], 1), number(1e3 * costs[stage]["cpu"] / int(count), 1)]
        rows.append([*cells, number(max(costs[stage]["memory"] for stage in stages), 0)])
    header = ["micrographs", *[what for stage in stages for what in (f"{stage} s", "ms")], "MB"]
    return table(header, rows)


def goals_table(results: Results) -> str:
    """What was asked and what was measured."""
    return table(["asked", "measured", "met"], verdicts(results))
