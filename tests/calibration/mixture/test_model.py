"""The stored model is the model: exactly, through a real store, in blocks as at once."""

import dataclasses

import numpy as np
import pytest
import xarray as xr
from planted import DIAMETER, plant, planted_project, straight

from pickcal.calibration.mixture import Model, fit_mixture, mixture_columns, probabilities
from pickcal.calibration.mixture.fit import Table, _find
from pickcal.calibration.mixture.observations import SHADOW, power_levels
from pickcal.settings import CalibrateSettings
from pickcal.stages.calibrate import calibrate

KINDS = {
    "plain": ({}, {}),
    "junk, covariates, templates": (
        {
            "junk_count": straight(5.0),
            "template_offsets": (0.01, -0.01),
            "columns": {"ice_thickness": np.linspace(1, 1.4, 24)},
        },
        {"covariates": ("ice_thickness", "exposure_group", "template")},
    ),
    "spline": ({}, {"trend": "spline"}),
    "without decoys or power": ({"decoys": False, "power": False}, {}),
    "no junk": ({}, {"junk": False}),
}


def fit(planted, **settings):
    return fit_mixture(planted.picks, planted.micrographs, DIAMETER, CalibrateSettings(**{"bootstrap": 0, **settings}))


def assert_same(one, other, where="model"):
    """Bit for bit, through dataclasses, arrays and datasets."""
    assert type(one) is type(other), where
    if dataclasses.is_dataclass(one):
        for field in dataclasses.fields(one):
            assert_same(getattr(one, field.name), getattr(other, field.name), f"{where}.{field.name}")
    elif isinstance(one, np.ndarray):
        np.testing.assert_array_equal(one, other, where, strict=True)
    elif isinstance(one, xr.Dataset):
        assert set(one.variables) == set(other.variables), where
        for name in one.variables:
            np.testing.assert_array_equal(one[name].values, other[name].values, f"{where}.{name}")
    else:
        assert one == other or (one != one and other != other), where


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_comes_back_as_it_was(kind):
    changes, settings = KINDS[kind]
    model = fit(plant(micrographs=24, **changes), **settings)
    assert_same(Model.from_dataset(model.to_dataset()), model)


def test_a_model_comes_back_from_a_project(tmp_path):
    """And the stored columns are those that the model gives."""
    changes, settings = KINDS["junk, covariates, templates"]
    planted = plant(micrographs=24, **changes)
    project = planted_project(tmp_path / "p.zarr", planted)
    calibrate(project, "template", CalibrateSettings(bootstrap=0, **settings))
    held = project.mixture("template")
    model = fit(planted, **settings)
    assert_same(Model.from_dataset(held), model)
    for name, column in mixture_columns(planted.picks, planted.micrographs, model).data_vars.items():
        np.testing.assert_allclose(held[name].values, column.values, rtol=1e-12, err_msg=str(name))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [1, 7])
def test_blocks_of_micrographs_give_what_all_together_give(kind, size):
    """Columns and probabilities, with a micrograph without decoys, one without defocus and one without power."""
    changes, settings = KINDS[kind]
    planted = plant(micrographs=24, **changes)
    picks, micrographs = planted.picks, planted.micrographs
    picks["decoy_count"].values[3] = 0
    micrographs["defocus_u"].values[5] = np.nan
    picks["power"].values[8] = picks["decoy_power"].values[8] = np.nan
    model = fit_mixture(picks, micrographs, DIAMETER, CalibrateSettings(**{"bootstrap": 0, **settings}))
    whole = model.to_dataset().merge(mixture_columns(picks, micrographs, model))
    whole.attrs = model.to_dataset().attrs
    expected = probabilities(picks, micrographs, whole)
    for start in range(0, 24, size):
        rows = {"micrograph": slice(start, start + size)}
        part = mixture_columns(picks.isel(rows), micrographs.isel(rows), model)
        for name, column in part.data_vars.items():
            np.testing.assert_allclose(column, whole[name].isel(rows), atol=1e-3, err_msg=f"{name} {start}")
        found = probabilities(picks.isel(rows), micrographs.isel(rows), whole.isel(rows))
        for name, values in found.data_vars.items():
            np.testing.assert_allclose(values, expected[name].isel(rows), atol=1e-6, err_msg=f"{name} {start}")


@pytest.mark.parametrize("name", ["dose", "time"])
def test_covariates_mean_the_same_in_every_block(name):
    """Dose and time are relative to the data set that was fitted, not to the block that is being read."""
    stamps = np.array([f"m_20240301_{h:02d}3000.mrc" for h in range(24)], dtype=object)
    columns = {"image_mean": np.linspace(90.0, 110.0, 24), "name": stamps}
    planted = plant(micrographs=24, columns=columns)
    model = fit(planted, trend="line", covariates=(name,))
    whole = model.trend.design(planted.micrographs)
    parts = [model.trend.design(planted.micrographs.isel(micrograph=slice(i, i + 6))) for i in range(0, 24, 6)]
    np.testing.assert_allclose(np.vstack(parts), whole)


def test_probabilities_are_those_of_the_fit():
    """Of picks in the light; those in the shadow get what the last round gave them."""
    planted = plant(micrographs=40, junk_count=straight(4.0))
    settings = CalibrateSettings(bootstrap=0, trend="line")
    model = fit_mixture(planted.picks, planted.micrographs, DIAMETER, settings)
    table = Table(
        planted.picks,
        planted.micrographs,
        power_levels(planted.picks, True, SHADOW * DIAMETER),
        True,
        False,
        SHADOW * DIAMETER,
        True,
    )
    found = _find(table, model.trend)
    held = model.to_dataset().merge(mixture_columns(planted.picks, planted.micrographs, model))
    held.attrs = model.to_dataset().attrs
    chance = probabilities(planted.picks, planted.micrographs, held)["probability"].values[planted.kind >= 0]
    lit = ~found.data.shadowed
    assert lit.mean() > 0.99
    np.testing.assert_allclose(chance[lit], found.shares[1][lit], atol=0.01)


def test_a_stored_model_is_a_few_kilobytes():
    stored = fit(plant(micrographs=24)).to_dataset()
    assert stored.nbytes < 40_000
