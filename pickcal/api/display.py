"""What a project holds and what is left, as text and as HTML for notebooks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

Row = Sequence[str]
MOST_LEFT = 8
MOST_FAILURES = 5
NUMBER = "text-align:right"


def as_text(status: dict[str, Any], writable: bool) -> str:
    """Write a few lines for the interpreter's prompt.

    Parameters
    ----------
    status
        From `pickcal.stages.status.status`.
    writable
        Whether the project is open for writing.
    """
    how = "open for writing" if writable else "open for reading"
    lines = [f"pickcal project {status['project']}, {how}", f"  {_micrographs(status)}"]
    for name, picks, decoys, _, calibrated in picks_rows(status):
        lines.append(f"  picks        {name}: {picks} picks, {decoys} decoys, {calibrated}")
    for name, of, accepted, total in selection_rows(status):
        lines.append(f"  selection    {name}: {accepted} of {total} picks accepted ({of})")
    if status["failures"]:
        lines.append(f"  failures     {len(status['failures'])}; status()['failures'] names them")
    left = what_is_left(status)
    lines += [f"  left         {item}" for item in left[:MOST_LEFT]]
    if len(left) > MOST_LEFT:
        lines.append(f"  left         {len(left) - MOST_LEFT} more; status()['left'] has them")
    return "\n".join(lines)


def as_html(status: dict[str, Any], writable: bool) -> str:
    """Write a small page without colours of its own, for light and dark notebooks; every word is escaped."""
    how = "open for writing" if writable else "open for reading"
    parts = [
        f"<div><strong>pickcal project</strong> <code>{escape(str(status['project']))}</code>, {how}<br>",
        f"{escape(_micrographs(status))}",
    ]
    picks = list(picks_rows(status))
    if picks:
        parts.append(_table(("picks", "number", "decoys", "micrographs done", "calibration"), picks, (1, 2, 3)))
    selections = list(selection_rows(status))
    if selections:
        parts.append(_table(("selection", "of picks", "accepted", "of"), selections, (2, 3)))
    failures = status["failures"]
    if failures:
        shown = [(item["micrograph"], item["stage"], item["error"]) for item in failures[:MOST_FAILURES]]
        parts.append(_table((f"failed ({len(failures)})", "stage", "why"), shown, ()))
    left = what_is_left(status)
    if left:
        items = "".join(f"<li>{escape(item)}</li>" for item in left[:MOST_LEFT])
        more = f"<li>{len(left) - MOST_LEFT} more</li>" if len(left) > MOST_LEFT else ""
        parts.append(f"<div>Left to do:<ul>{items}{more}</ul></div>")
    return "".join(parts) + "</div>"


def picks_rows(status: dict[str, Any]) -> Iterable[Row]:
    """Name, numbers of picks, decoys and finished micrographs, and state of the calibration of all picks."""
    for name, counts in status["picks"].items():
        fit = status["calibration"].get(name)
        words = "not calibrated" if fit is None else "calibrated" + _probability(fit)
        yield name, str(counts["picks"]), str(counts["decoys"]), str(counts["done"]), words


def _probability(fit: dict[str, Any]) -> str:
    expected = fit.get("probability", {}).get("expected_particles")
    return "" if expected is None else f": {expected:.0f} particles"


def selection_rows(status: dict[str, Any]) -> Iterable[Row]:
    """Name, picks, number accepted and number of all picks of every selection."""
    for name, counts in status["selection"].items():
        numbers = [value for key, value in counts.items() if key != "picks"]
        yield name, str(counts["picks"]), str(counts.get("accepted", 0)), str(sum(numbers))


def what_is_left(status: dict[str, Any]) -> list[str]:
    """Say what is left to do, and what comes next where nothing is."""
    left = [str(item) for item in status["left"]]
    if left:
        return left
    if not status["picks"]:
        return ["pick: pick_template(...) or pick_blob(...)"]
    if not status["selection"]:
        name = next(iter(status["picks"]))
        return [f"select: select({name!r}, 'auto', auto=True), or inspect() to choose in the browser"]
    return []


def _micrographs(status: dict[str, Any]) -> str:
    counts = status["micrographs"]
    parts = [f"{number} {word}" for word, number in counts.items() if word != "total" and number]
    return f"{counts['total']} micrographs ({', '.join(parts)})"


def _table(head: Row, rows: Iterable[Row], numbers: Sequence[int]) -> str:
    """Lay out a table, its columns of numbers to the right."""
    styles = [f' style="{NUMBER}"' if column in numbers else ' style="text-align:left"' for column in range(len(head))]

    def line(cells: Row, tag: str) -> str:
        inner = "".join(f"<{tag}{style}>{escape(cell)}</{tag}>" for cell, style in zip(cells, styles, strict=True))
        return f"<tr>{inner}</tr>"

    body = "".join(line(row, "td") for row in rows)
    return f"<table><thead>{line(head, 'th')}</thead><tbody>{body}</tbody></table>"
