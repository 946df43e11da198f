"""What all settings share: frozen, unknown names refused, ranges in order."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9_.-]*$"
Name = Annotated[str, Field(pattern=NAME_PATTERN, max_length=64)]
PixelCount = Annotated[int, Field(ge=1)]


class Settings(BaseModel):
    """Base of all settings: frozen, and unknown names are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    def stored(self) -> dict[str, Any]:
        """Plain values for the project's attributes (paths as given, tuples as lists)."""
        return self.model_dump(mode="json")


def ordered(settings: Settings, low: str, high: str) -> None:
    """Refuse a range whose lower end (field `low`) is above its upper one (field `high`).

    Raises
    ------
    ValueError
        With both values; pydantic makes a `ValidationError` of it.
    """
    below, above = getattr(settings, low), getattr(settings, high)
    if below > above:
        raise ValueError(f"{low}: expected at most {high} ({above:g}), got {below:g}")
