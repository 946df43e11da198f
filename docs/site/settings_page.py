"""The reference of settings: every one with its flag, unit, range and default, from the models that check them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import AnyUrl
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from pickcal import job_file, settings
from pickcal.cli import app
from pickcal.dashboard.serving.settings import ServeSettings
from pickcal.stores.places import Url

INTRODUCTION = """# Settings

Each setting is defined once. It is a flag of a command (`--low-pass 15`), a key of a job file (`low_pass = 15` in
`[pick]`, or `--set pick.low_pass=15`), and an argument in Python (`TemplateSettings(low_pass=15)`). A wrong value is
refused before any work.

Lengths are in Å, angles in degrees. "None" as a default means that the description says what happens. Range: what is
outside is refused; "any" is any number.
"""


@dataclass(frozen=True)
class Section:
    """Settings that belong together.

    Attributes
    ----------
    title
        Heading.
    model
        The class that checks them.
    command
        Words of the command that takes them as flags; empty for none.
    key
        Section of a job file; "" for none.
    job
        Class of that section, which may have more keys than the command has flags.
    """

    title: str
    model: type[settings.Settings]
    command: tuple[str, ...]
    key: str = ""
    job: type[settings.Settings] | None = None


SECTIONS = (
    Section("A job file as a whole", job_file.Job, ()),
    Section("Simulating", settings.SimulateSettings, ("simulate",), "simulate"),
    Section("Importing micrographs", settings.ImportSettings, ("import",), "import", job_file.ImportJob),
    Section(
        "Importing picks", settings.ImportPicksSettings, ("import-picks",), "import_picks", job_file.ImportPicksJob
    ),
    Section("Picking with templates", settings.TemplateSettings, ("pick", "template"), "pick"),
    Section("Picking with blobs", settings.BlobSettings, ("pick", "blob"), "pick"),
    Section("Scoring given coordinates", settings.ScoreSettings, ("score",), "score", job_file.ScoreJob),
    Section("Calibrating", settings.CalibrateSettings, ("calibrate",), "calibrate"),
    Section("Selecting", settings.SelectSettings, ("select",), "select", job_file.SelectJob),
    Section("A pick decided on by hand", settings.HandPick, ()),
    Section("Trying a selection on noise", settings.ControlSettings, ("control",)),
    Section("Exporting", settings.ExportSettings, ("export",), "export", job_file.ExportJob),
    Section("Evaluating", settings.EvaluateSettings, ("evaluate",), "evaluate", job_file.EvaluateJob),
    Section("Following a session", settings.WatchSettings, ("watch",), "watch"),
    Section("What a session is picked with, as flags", settings.WatchPickSettings, ("watch",)),
    Section("Where tasks run", settings.ClusterSettings, ("simulate",), "cluster"),
    Section("Serving Inspect Picks", ServeSettings, ("inspect",)),
)

UNITS = (
    (r"per Å\^2", "electrons per Å²"),
    (r"in (mean |particle )?diameters", "diameters"),
    (r"Å", "Å"),
    (r"\bpixels\b", "pixels"),
    (r"\bdegrees\b", "degrees"),
    (r"\bkV\b", "kV"),
    (r"\bmm\b", "mm"),
    (r"\b[Ss]econds\b", "s"),
    (r"\b[Mm]inutes\b", "min"),
    (r"noise variances", "noise variances"),
    (r"standard deviations", "standard deviations"),
    (r"\bfraction\b", "fraction"),
    (r"\b[Ff]actor\b|so many times|[Rr]elative", "factor"),
    (r"no unit", "none"),
    (
        r"\b[Nn]umber of|^(Most|Fewest|Micrographs|Resamples|Projections|Worker processes)\b|mean\.$"
        r"|so many micrographs",
        "count",
    ),
)
"""Unit of a number, by the words of its description."""


def markdown() -> str:
    """Write the page."""
    parts = [INTRODUCTION]
    for section in SECTIONS:
        parts.append(f"## {section.title}\n\n{_where(section)}\n\n{_table(section)}")
    return "\n\n".join(parts) + "\n"


def fields(section: Section) -> dict[str, FieldInfo]:
    """Give the settings of a section by name, those of its job file first."""
    own = dict(section.model.model_fields)
    more = {} if section.job is None else {k: v for k, v in section.job.model_fields.items() if k not in own}
    return {**more, **own}


def is_section(field: FieldInfo) -> bool:
    """Whether a key of a job file is a section of its own."""
    if get_origin(field.annotation) is tuple:
        return False
    return any(isinstance(kind, type) and issubclass(kind, settings.Settings) for kind in kinds(field.annotation))


def kinds(annotation: Any) -> Iterator[Any]:
    """Plain types of an annotation: parts of unions and items of tuples; `Literal` as it is."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        for part in get_args(annotation):
            yield from kinds(part)
    elif origin in (tuple, Annotated):
        yield from kinds(get_args(annotation)[0])
    elif annotation is not type(None):
        yield annotation


def is_number(field: FieldInfo) -> bool:
    """Whether a setting is a number (or several)."""
    return any(kind in (int, float) for kind in kinds(field.annotation))


def unit(field: FieldInfo) -> str:
    """Read the unit of a number from its description: "" if it does not, "none" for what is no number."""
    if not is_number(field):
        return "none"
    return next((name for pattern, name in UNITS if re.search(pattern, field.description or "")), "")


def value_range(field: FieldInfo) -> str:
    """Which values are taken."""
    out = []
    for kind in kinds(field.annotation):
        if get_origin(kind) is Literal:
            out.append(", ".join(f"`{value}`" for value in get_args(kind)))
        elif kind is bool:
            out.append("`true`, `false`")
        elif kind in (int, float):
            out.append(("whole number " if kind is int else "") + _bounds(field))
        elif isinstance(kind, type) and issubclass(kind, settings.Settings):
            out.append(f"tables of `{kind.__name__}`")
        elif kind in (Path, AnyUrl):
            out.append("path")
        elif kind is Url:
            out.append("URL")
        elif kind is str:
            out.append("text")
        else:
            out.append("table")
    several = (
        " (several)"
        if any(get_origin(part) is tuple for part in (field.annotation, *get_args(field.annotation)))
        else ""
    )
    return " or ".join(dict.fromkeys(part.strip() for part in out)) + several


def _bounds(field: FieldInfo) -> str:
    found = {}
    for limit in (*field.metadata, *_of_items(field.annotation)):
        for name in ("gt", "ge", "lt", "le"):
            if getattr(limit, name, None) is not None:
                found[name] = getattr(limit, name)
    if "above 0" in (field.description or ""):  # what a validator of the model checks
        found.setdefault("gt", 0)
    low = f"> {found['gt']:g}" if "gt" in found else f"≥ {found['ge']:g}" if "ge" in found else ""
    high = f"< {found['lt']:g}" if "lt" in found else f"≤ {found['le']:g}" if "le" in found else ""
    if not low and not high:
        return "any"
    return f"{low}, {high}" if low and high else low or high


def _of_items(annotation: Any) -> Iterator[Any]:
    """Limits of the items of a tuple."""
    if get_origin(annotation) is Annotated:
        for given in annotation.__metadata__:
            yield from given.metadata if isinstance(given, FieldInfo) else (given,)
    for part in get_args(annotation):
        if get_origin(part) in (Annotated, Union, UnionType, tuple):
            yield from _of_items(part)


def default(field: FieldInfo) -> str:
    """Value that is taken when none is given."""
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "**must be given**"
    if value is None or value in ((), {}):
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return ", ".join(f"`{part}`" for part in value)
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"


def flags(section: Section) -> dict[str, tuple[str, ...]]:
    """Name the flags of every setting that its command takes, as cyclopts does."""
    command = app
    for word in section.command:
        command = command[word]
    found = {a.keys[0]: a.names for a in command.assemble_argument_collection() if a.parse and len(a.keys) == 1}
    return {name: tuple(flag for flag in names if not flag.startswith("--empty-")) for name, names in found.items()}


def _where(section: Section) -> str:
    words = []
    if section.command and section.key != "cluster":
        words.append(f"`pickcal {' '.join(section.command)}`")
    if section.key == "cluster":
        words.append("every command that has tasks")
    if section.key:
        words.append(f"`[{section.key}]` of a job file")
    words.append(f"`{_importable(section.model)}`")
    return f"{_first_words(section.model)} {'; '.join(words)}."


def _importable(model: type[settings.Settings]) -> str:
    """Name a class by the module that users import it from."""
    public = getattr(settings, model.__name__, None) is model
    return f"{settings.__name__ if public else model.__module__}.{model.__qualname__}"


def _first_words(model: type[settings.Settings]) -> str:
    return (model.__doc__ or "").strip().split("\n\n")[0].replace("\n", " ")


def _table(section: Section) -> str:
    names = flags(section) if section.command else {}
    lines = ["| setting, flag | unit | range | default | meaning |", "|---|---|---|---|---|"]
    for name, field in fields(section).items():
        if is_section(field) and section.model is job_file.Job:
            continue
        flag = "<br>".join(f"`{flag}`" for flag in names.get(name, ())) or "(job file)"
        if name == "method":
            flag = "(the command)"
        cells = (
            f"`{name.rstrip('_')}`<br>{flag}", unit(field), value_range(field), default(field), field.description or ""
        )  # fmt: skip
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)
