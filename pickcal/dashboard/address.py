"""The address of a view: everything that a link has to say, in the words of the thresholds file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from pickcal.dashboard.methods import THRESHOLDS, Method
from pickcal.errors import InputError
from pickcal.settings import SelectSettings, validated

TABS = ("micrographs", "all", "montage", "calibration", "save")
SORTS = ("name", "defocus", "picks", "accepted", "residual", "power")


@dataclass(frozen=True)
class View:
    """How a visitor looks at the picks.

    Attributes
    ----------
    row
        Micrograph that is looked at closely; -1 for none.
    cursor
        Pick of it that the keyboard is on; -1 for none.
    turn
        Which three micrographs are shown: 0 those of the lowest, the middle and the highest defocus, 1 those next to
        them, and so on.
    tab
        One of `TABS`.
    lowpass
        Low-pass of the pictures, Å; 0 for none.
    low, high
        Grey values drawn black and white, in standard deviations.
    rejected
        Whether rejected picks are drawn.
    sort, descending, search
        Order of the list of all micrographs, one of `SORTS`, and a part of the names in it.
    """

    row: int = -1
    cursor: int = -1
    turn: int = 0
    tab: str = "micrographs"
    lowpass: float = 20.0
    low: float = -3.0
    high: float = 3.0
    rejected: bool = True
    sort: str = "defocus"
    descending: bool = False
    search: str = ""

    def but(self, **values: Any) -> View:
        """Return another view with some things changed."""
        return replace(self, **values)


@dataclass(frozen=True)
class Found:
    """What an address says.

    Attributes
    ----------
    method, settings, view
        What is wanted; where the address says nothing, what was there before.
    refused
        What of it could not be followed, in sentences.
    """

    method: str
    settings: SelectSettings
    view: View
    refused: tuple[str, ...]


def write_address(
    picks: str,
    method: Method,
    settings: SelectSettings,
    view: View,
    selection: str,
    stamp: str | None,
    draft: str,
    names: Sequence[str],
) -> dict[str, str]:
    """Query of a link to a view; what is as at the start is left out.

    Parameters
    ----------
    picks, method, settings, view
        What is looked at.
    selection, draft
        Selection that was loaded, and key of the decisions kept automatically; "" for none.
    stamp
        Stamp of the selection as it was loaded, see `saving.load`; None where that is not known.
    names
        Names of all micrographs.
    """
    query = {"picks": picks, "method": method}
    for name in THRESHOLDS:
        value = getattr(settings, name)
        if value is not None:
            query[name] = repr(float(value))
    query |= {key: value for key, value in (("selection", selection), ("stamp", stamp), ("draft", draft)) if value}
    start = View()
    for item in fields(View):
        value = getattr(view, item.name)
        if item.name in ("row", "cursor") or value == getattr(start, item.name):
            continue
        query[item.name] = str(int(value)) if isinstance(value, bool) else str(value)
    if view.row >= 0:
        query["micrograph"] = names[view.row]
    return query


def read_address(
    query: Mapping[str, str], settings: SelectSettings, methods: Sequence[Method], view: View, names: Sequence[str]
) -> Found:
    """Read the query of a link.

    Parameters
    ----------
    query
        Names and values; those that are not of pickcal are left alone.
    settings, view
        What holds where the address says nothing.
    methods
        Methods that the picks allow.
    names
        Names of all micrographs.
    """
    refused: list[str] = []
    method = query.get("method", "")
    if method and method not in methods:
        refused.append(f"The link asks for method {method!r}; these picks allow {', '.join(methods)}.")
        method = ""
    if method or any(name in query for name in THRESHOLDS):
        settings = _thresholds(query, settings, method, methods, refused)
    view = _view(query, view, names, refused)
    return Found(method, settings, view, tuple(refused))


def _thresholds(
    query: Mapping[str, str], settings: SelectSettings, method: str, methods: Sequence[Method], refused: list[str]
) -> SelectSettings:
    """Thresholds of an address; all of them, so that what it leaves out does not reject."""
    values: dict[str, Any] = {**settings.model_dump(), **dict.fromkeys(THRESHOLDS), "raw": method == "raw"}
    for name in THRESHOLDS:
        if name not in query:
            continue
        try:
            found = validated(SelectSettings, {name: query[name]}, "link")
        except InputError:
            refused.append(f"The link has {name} = {query[name]!r}, which is no such threshold.")
            continue
        values[name] = getattr(found, name)
    if "probability" not in methods:
        values |= {"probability": None, "fdr": None}
    try:
        return validated(SelectSettings, values, "link")
    except InputError as error:
        refused.append(f"The thresholds of the link do not go together: {error}")
        return settings


def _view(query: Mapping[str, str], view: View, names: Sequence[str], refused: list[str]) -> View:
    readers: dict[str, Callable[[str], Any]] = {
        "turn": lambda text: _within(int(text), 0, 10_000),
        "tab": lambda text: TABS[TABS.index(text)],
        "lowpass": lambda text: _within(float(text), 0.0, 1000.0),
        "low": lambda text: _within(float(text), -20.0, 20.0),
        "high": lambda text: _within(float(text), -20.0, 20.0),
        "rejected": lambda text: bool(int(text)),
        "sort": lambda text: SORTS[SORTS.index(text)],
        "descending": lambda text: bool(int(text)),
        "search": str,
    }
    for name, read in readers.items():
        if name in query:
            try:
                view = view.but(**{name: read(query[name])})
            except ValueError:
                refused.append(f"The link has {name} = {query[name]!r}, which this page does not know.")
    if query.get("micrograph"):
        found = [row for row, name in enumerate(names) if name == query["micrograph"]]
        if found:
            view = view.but(row=found[0])
        else:
            refused.append(f"The link is to micrograph {query['micrograph']!r}, which is not in this project.")
    return view


def _within(value: float, low: float, high: float) -> Any:
    if not low <= value <= high:
        raise ValueError(value)
    return value
