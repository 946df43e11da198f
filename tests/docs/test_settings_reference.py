"""No setting without a description that tells its unit, and no number without a range."""

import sys
from pathlib import Path

import pytest
from kinds import all_of

from pickcal.settings import Settings, TemplateSettings

sys.path.insert(0, str(Path(__file__).parents[2] / "docs/site"))
import settings_page

ANY = {"min_ncc", "x", "y"}
"""Scores of other programs and positions may be any number."""
FIELDS = [
    pytest.param(name, field, id=f"{section.model.__name__}-{name}")
    for section in settings_page.SECTIONS
    for name, field in settings_page.fields(section).items()
    if not settings_page.is_section(field)
]


def test_all_models_are_in_the_reference():
    known = {
        model for section in settings_page.SECTIONS for model in (section.model, section.job, *section.model.__mro__)
    }
    assert {model.__name__ for model in all_of(Settings)} <= {m.__name__ for m in known if m} | {"WatchJob"}


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_description_unit_and_range(name, field):
    assert field.description, "no description"
    assert field.description.endswith("."), field.description
    if settings_page.is_number(field):
        assert settings_page.unit(field), f"no unit in {field.description!r}; say 'no unit' if there is none"
        assert name in ANY or settings_page.value_range(field).removeprefix("whole number ") != "any"


def test_the_parsing_of_a_description():
    fields = TemplateSettings.model_fields
    assert settings_page.unit(fields["low_pass"]) == "Å"
    assert settings_page.unit(fields["rotation_step"]) == "degrees"
    assert settings_page.unit(fields["min_distance"]) == "diameters"
    assert settings_page.unit(fields["whiten"]) == "none"
    assert settings_page.value_range(fields["low_pass"]) == "≥ 5, ≤ 200"
    assert settings_page.value_range(fields["contrast"]) == "`dark`, `light`"
    assert settings_page.value_range(fields["max_picks"]) == "whole number ≥ 1, ≤ 100000"
    assert settings_page.default(fields["diameter"]) == "**must be given**"
    assert settings_page.default(fields["low_pass"]) == "`20`"
