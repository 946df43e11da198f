"""Keyword arguments that become settings: checked by their names, shown in signatures and docstrings."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

from pydantic_core import PydanticUndefined

from pickcal.errors import InputError
from pickcal.refusals import nearest, setting_names
from pickcal.settings import ClusterSettings, Settings, validated

P = ParamSpec("P")
R = TypeVar("R")
Model = TypeVar("Model", bound=Settings)

OWN = "__pickcal_own__"


def takes(model: type[Settings]) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Show the settings of a model in signature and docstring of a function that takes them as `**settings`."""

    def wrap(function: Callable[P, R]) -> Callable[P, R]:
        signature = inspect.signature(function)
        own = [one for one in signature.parameters.values() if one.kind is not inspect.Parameter.VAR_KEYWORD]
        fields = {key: field for key, field in model.model_fields.items() if key != "method"}
        added = [
            inspect.Parameter(
                key,
                inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if field.default is PydanticUndefined else field.default,
                annotation=field.annotation,
            )
            for key, field in fields.items()
        ]

        @functools.wraps(function)
        def called(*arguments: P.args, **keywords: P.kwargs) -> R:
            return function(*arguments, **keywords)

        called.__signature__ = signature.replace(parameters=[*own, *added])  # type: ignore[attr-defined]
        setattr(called, OWN, [one.name for one in own])
        lines = [f"{key}\n    {field.description}" for key, field in fields.items()]
        called.__doc__ = "\n".join([inspect.cleandoc(function.__doc__ or ""), "", "Settings", "--------", *lines])
        return called

    return wrap


def settings_of(model: type[Model], values: dict[str, Any], function: Callable[..., Any]) -> Model:
    """Make settings of keyword arguments.

    Parameters
    ----------
    model
        Which settings.
    values
        The arguments.
    function
        The function that took them, made with `takes`.

    Raises
    ------
    InputError
        If there is no argument of some name, which suggests the nearest one, or a value is wrong.
    """
    where = f"{function.__name__}()"
    known = setting_names(model)
    others = [name for name in getattr(function, OWN, ()) if name != "self"]
    for name in values:
        if name in known:
            continue
        close = nearest(name, [*known, *others])
        hint = f"did you mean {close!r}?" if close else f"it takes {', '.join([*others, *known])}"
        raise InputError(f"{where}: no such argument {name!r}; {hint}")
    return validated(model, values, where)


def cluster_of(cluster: str | ClusterSettings, workers: int | None) -> ClusterSettings:
    """Make cluster settings of the name of a kind, or of an address, and a number of workers."""
    if isinstance(cluster, ClusterSettings):
        return cluster
    return validated(ClusterSettings, {"kind": cluster, "workers": workers}, "cluster")
