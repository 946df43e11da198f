"""Settings that are refused, in words: what was expected, what was found, and which name was probably meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from cyclopts import Parameter
from pydantic import AliasChoices, BaseModel, ValidationError
from pydantic.fields import FieldInfo

Models = list[type[BaseModel]]
HOW_MADE = {
    "picks": "'pickcal pick' or 'pickcal import-picks'",
    "calibration": "'pickcal calibrate'",
    "selection": "'pickcal select'",
    "control": "'pickcal control'",
}


def describe(error: ValidationError, where: str, model: type[BaseModel] | None = None) -> str:
    """Turn a pydantic error into lines of `section.setting: expected ..., got ...`.

    Parameters
    ----------
    error
        What pydantic found.
    where
        What the values come from, for the first line (a file, a command).
    model
        The settings that were refused; with it, unknown names suggest the right one. Default: they do not.
    """
    lines = [f"{where}: settings refused"]
    for item in error.errors():
        parts = [str(part).rstrip("_") for part in item["loc"]]
        if parts[:1] == ["pick"] and parts[1:2] in (["blob"], ["template"]):
            del parts[1]  # the tag that pydantic puts in for the method is not part of the name
        place = ".".join(parts) or "settings"
        if item["type"] == "extra_forbidden":
            lines.append(f"  {place}: no such setting{_meant(model, [str(part) for part in item['loc']])}")
        elif item["type"] == "missing":
            lines.append(f"  {place}: expected a value, got none")
        elif item["type"] in ("union_tag_not_found", "union_tag_invalid"):
            got = item["input"].get("method") if isinstance(item["input"], dict) else item["input"]
            lines.append(f"  {place}.method: expected 'blob' or 'template', got {'none' if got is None else repr(got)}")
        elif item["type"] == "value_error":
            lines.append(f"  {item['msg'].removeprefix('Value error, ')}")
        else:
            expected = item["msg"].removeprefix("Input should be ").removeprefix("Value should be ")
            lines.append(f"  {place}: expected {expected}, got {item['input']!r}")
    return "\n".join(lines)


def nearest(name: str, known: Sequence[str]) -> str | None:
    """Known name that is most like a name; None where none is like it."""
    close = difflib.get_close_matches(name.replace("-", "_"), known, n=1)
    return close[0] if close else None


def no_such(kind: str, name: str, known: Sequence[str]) -> str:
    """Say that a project holds nothing of a kind under a name, what it has instead, and how to make one."""
    close = nearest(name, known)
    if close:
        hint = f"; did you mean {close!r}?"
    else:
        hint = "" if known else f"; {HOW_MADE[kind]} makes one" if kind in HOW_MADE else ""
    return f"no {kind} named {name!r}; it has: {', '.join(known) or 'none'}{hint}"


def beside(path: Path) -> str:
    """Name the file that was probably meant by one that is not there; "" where none is like it."""
    try:
        known = [one.name for one in path.parent.iterdir() if one.is_file()]
    except OSError:
        return ""
    close = difflib.get_close_matches(path.name, known, n=1)
    return f"; did you mean {str(path.with_name(close[0]))!r}?" if close else ""


def setting_names(model: type[BaseModel]) -> list[str]:
    """Names under which a model takes its settings, in order; as job files and Python have them."""
    return [name for key, field in model.model_fields.items() for name in _names(key, field)]


def _names(key: str, field: FieldInfo) -> Iterator[str]:
    shown = [item for item in field.metadata if isinstance(item, Parameter)]
    flags = [str(flag).lstrip("-").replace("-", "_") for item in shown for flag in item.name or ()]
    yield (flags[0] if flags else key).rstrip("_")  # --cluster is the kind of [cluster]
    if isinstance(field.validation_alias, AliasChoices):
        yield from (str(choice) for choice in field.validation_alias.choices if choice != key)


def _meant(model: type[BaseModel] | None, place: list[str]) -> str:
    """Say which name was probably meant by one that does not exist, or which there are."""
    if model is None:
        return ""
    *sections, name = place
    here = list(dict.fromkeys(known for found in _at(model, sections) for known in setting_names(found)))
    close = nearest(name, here)
    if close:
        return f"; did you mean {close!r}?"
    for kind in _at(model, sections[:1]):  # settings of another method of the same section
        if sections and name in setting_names(kind):
            return f"; it is a setting of method {_tag(kind)!r}"
    others = {
        f"[{section.rstrip('_')}]": [known for found in _models_of(field.annotation) for known in setting_names(found)]
        for section, field in model.model_fields.items()
        if sections[:1] != [section.rstrip("_")]
    }
    homes = [section for section, names in others.items() if name in names]
    if homes:
        return f"; it is a setting of {' and of '.join(homes)}"
    for section, names in others.items():
        close = nearest(name, names)
        if close:
            return f"; did you mean {close!r} of {section}?"
    return f"; there are {', '.join(here)}" if here else ""


def _at(model: type[BaseModel], sections: Sequence[str]) -> Models:
    """Models of a section of another one: several where the kind of settings is open."""
    found: Models = [model]
    for section in sections:
        inner = [
            kind
            for one in found
            for key, field in one.model_fields.items()
            if key.rstrip("_") == section
            for kind in _models_of(field.annotation)
        ]
        # the tag that pydantic puts in names one of several kinds
        found = inner or [one for one in found if _tag(one) == section] or found
    return found


def _tag(model: type[BaseModel]) -> Any:
    method = model.model_fields.get("method")
    return None if method is None else method.default


def _models_of(annotation: Any) -> Models:
    """Find the settings models within a type such as `BlobSettings | TemplateSettings | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_of(part)]
