"""Settings from plain values and from TOML files; what is wrong with them is said in words."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from pickcal.errors import InputError, MissingFileError
from pickcal.refusals import beside, describe
from pickcal.settings.base import Settings

Model = TypeVar("Model", bound=Settings)


def validated(model: type[Model], values: dict[str, Any], where: str) -> Model:
    """Build a settings model and turn what pydantic finds into one readable error.

    Parameters
    ----------
    model
        The settings class.
    values
        Names and values.
    where
        What the values come from, for the message (a file, a command).

    Raises
    ------
    InputError
        Naming each setting, what was expected and what was found; unknown names suggest the nearest known one.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InputError(describe(error, where, model)) from None


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Read a TOML file; errors name it and say what it was to be.

    Raises
    ------
    MissingFileError, InputError
        If it is not there or is not TOML.
    """
    if not path.is_file():
        raise MissingFileError(f"{path}: no such {what}{beside(path)}")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not a TOML file: {error}") from None
