import numpy as np
import pytest
import xarray as xr
from scipy import interpolate

from pickcal.calibration.trends import Trend, covariate, mean_defocus
from pickcal.errors import InputError


def micrographs(n=30, seed=0, **columns):
    rng = np.random.default_rng(seed)
    defocus, half = rng.uniform(8000, 28000, n), rng.uniform(0, 300, n)
    values = {
        "defocus_u": defocus + half,
        "defocus_v": defocus - half,
        "exposure_group": np.zeros(n, int),
        "ice_thickness": rng.uniform(1, 2, n),
        "image_mean": rng.uniform(80, 120, n),
        "name": [f"m_{i}.mrc" for i in range(n)],
        **columns,
    }
    return xr.Dataset({name: ("micrograph", np.asarray(value)) for name, value in values.items()})


def test_every_column_but_the_first_is_zero_at_the_reference():
    """A micrograph at the reference defocus, in the largest group, with the median of every covariate."""
    table = micrographs(31, exposure_group=np.r_[np.ones(11, int), np.full(20, 4)])
    for chosen in ({"degree": 2}, {"spline": True}):
        trend = Trend.of(table, 18000.0, covariates=("ice_thickness", "astigmatism", "exposure_group"), **chosen)
        at = table.isel(micrograph=[20]).copy(deep=True)
        astigmatism = np.median(np.abs(table.defocus_u - table.defocus_v))
        at["defocus_u"][:], at["defocus_v"][:] = 18000 + astigmatism / 2, 18000 - astigmatism / 2
        at["ice_thickness"][:] = np.median(table.ice_thickness)
        row = trend.design(at)[0]
        assert len(row) == len(trend.terms)
        np.testing.assert_allclose(row, np.eye(len(row))[0], atol=1e-9)


def test_a_line_and_a_parabola_by_hand():
    table = micrographs(8)
    um = (mean_defocus(table) - 15000) * 1e-4
    trend = Trend.of(table, 15000.0, degree=2)
    assert trend.terms == ["constant", "defocus", "defocus^2"]
    np.testing.assert_allclose(trend.design(table), np.column_stack([np.ones(8), um, um**2]))
    assert Trend.of(table, 15000.0).terms == ["constant", "defocus"]
    assert Trend.of(table).reference == np.median(mean_defocus(table))


def test_the_spline_spans_the_natural_cubic_splines_of_its_knots():
    """Any interpolating natural spline (SciPy's) is a combination of the columns, also beyond the last knot: a line."""
    table = micrographs(200)
    trend = Trend.of(table, 16000.0, spline=True)
    assert trend.terms == ["constant", "defocus", "spline 1", "spline 2"]
    knots = np.array(trend.knots)
    um = (mean_defocus(table) - 16000) * 1e-4
    assert knots[0] == pytest.approx(um.min()) and knots[-1] == pytest.approx(um.max())
    natural = interpolate.CubicSpline(knots, np.random.default_rng(1).standard_normal(4), bc_type="natural")
    design = trend.design(table)
    combination, *_ = np.linalg.lstsq(design, natural(um), rcond=None)
    np.testing.assert_allclose(design @ combination, natural(um), atol=1e-9)
    beyond = micrographs(3, defocus_u=[30000.0, 31000, 32000], defocus_v=[30000.0, 31000, 32000])
    np.testing.assert_allclose(np.diff(trend.design(beyond) @ combination, 2), 0, atol=1e-9)


def test_a_spline_of_few_different_defoci_is_a_line():
    table = micrographs(6, defocus_u=[8000.0, 8000, 8000, 8000, 9000, 9000], defocus_v=[8000.0] * 4 + [9000.0] * 2)
    assert Trend.of(table, spline=True).terms == ["constant", "defocus"]


@pytest.mark.parametrize("spline", [True, False])
def test_json_gives_the_same_design(spline):
    table = micrographs(20, exposure_group=np.arange(20) % 3)
    trend = Trend.of(table, degree=2, covariates=("dose", "exposure_group"), spline=spline)
    again = Trend.from_json(trend.to_json())
    assert again == trend
    np.testing.assert_array_equal(again.design(table), trend.design(table))


def test_groups_have_a_constant_each_but_the_largest():
    group = np.array([7, 7, 7, 2, 2, 9])
    trend = Trend.of(micrographs(6, exposure_group=group), covariates=("exposure_group",))
    assert trend.groups == (7, 2, 9) and trend.terms[2:] == ["exposure group 2", "exposure group 9"]
    other = micrographs(4, exposure_group=[9, 7, 2, 5])
    # what a group adds that was not there is not known
    np.testing.assert_array_equal(trend.design(other)[:, 2:], [[0, 1], [0, 0], [1, 0], [np.nan, np.nan]])


def test_a_group_without_scores_has_no_constant():
    """Nothing is fitted to it: what it adds stays unknown, as of a group that is not there."""
    group, scored = np.array([7, 7, 2, 2, 2, 9]), np.array([1, 1, 1, 0, 0, 0], bool)
    table = micrographs(6, exposure_group=group)
    trend = Trend.of(table, covariates=("exposure_group",), scored=scored)
    assert trend.groups == (7, 2)
    np.testing.assert_array_equal(trend.design(table)[:, 2], [0, 0, 1, 1, 1, np.nan])


def test_unknown_values_stay_unknown_and_covariates_known_nowhere_are_refused():
    ice = np.r_[np.nan, np.linspace(1, 2, 9)]
    table = micrographs(10, ice_thickness=ice, phase_shift=np.full(10, np.nan))
    design = Trend.of(table, covariates=("ice_thickness",)).design(table)
    assert np.isnan(design[0, 2]) and np.isfinite(design[1:]).all()
    np.testing.assert_allclose(design[1:, 2], ice[1:] - 1.5)
    with pytest.raises(InputError, match="expected phase_shift of the micrographs, found it on none of 10"):
        Trend.of(table, covariates=("ice_thickness", "phase_shift"))
    with pytest.raises(InputError, match="time stamp"):
        Trend.of(table, covariates=("time",))
    empty = table.isel(micrograph=[])
    assert Trend.of(empty).design(empty).shape == (0, 2)


def test_astigmatism_and_dose():
    table = micrographs(3, defocus_u=[10000.0, 11000, 9000], defocus_v=[9000.0, 11000, 9500], image_mean=[50, 100, 0])
    np.testing.assert_allclose(covariate(table, "astigmatism"), [0.1, 0, 0.05])
    np.testing.assert_allclose(covariate(table, "dose"), [np.log(50), np.log(100), np.nan])
    told = table.assign(dose=("micrograph", [40.0, np.nan, 60.0]))
    np.testing.assert_allclose(covariate(told, "dose"), [np.log(40), np.nan, np.log(60)])
    untold = table.assign(dose=("micrograph", np.full(3, np.nan)))
    np.testing.assert_allclose(covariate(untold, "dose"), covariate(table, "dose"))


def test_a_dose_of_nothing_is_not_told():
    """Tables that know no dose may say 0: the grey values tell then, and of one such micrograph nothing is known."""
    table = micrographs(3, image_mean=[50, 100, 70])
    np.testing.assert_allclose(covariate(table.assign(dose=("micrograph", np.zeros(3))), "dose"), np.log([50, 100, 70]))
    some = table.assign(dose=("micrograph", [40.0, 0.0, 60.0]))
    np.testing.assert_allclose(covariate(some, "dose"), [np.log(40), np.nan, np.log(60)])


@pytest.mark.parametrize("otherwise", [0.0, np.nan])
@pytest.mark.parametrize("told", [0, 7])
def test_a_row_of_the_design_is_the_same_in_any_block(told, otherwise):
    """Also where only some micrographs have a dose: what it is taken from is settled by the fit, and is stored."""
    doses = np.r_[np.linspace(40, 60, told), np.full(20 - told, otherwise)]
    table = micrographs(20, dose=doses)
    trend = Trend.from_json(Trend.of(table, covariates=("dose",)).to_json())
    whole = trend.design(table)
    parts = [trend.design(table.isel(micrograph=slice(i, i + 5))) for i in range(0, 20, 5)]
    np.testing.assert_array_equal(np.vstack(parts), whole)
    assert np.isfinite(whole[:, 2]).sum() == (told or 20)


def test_a_recipe_from_before_the_source_of_the_dose_was_kept_is_read():
    table = micrographs(5)
    text = '{"reference": 18000.0, "degree": 1, "knots": [], "covariates": ["dose"], "centres": [4.6], "groups": []}'
    np.testing.assert_allclose(Trend.from_json(text).design(table)[:, 2], np.log(table["image_mean"].values) - 4.6)


def test_time_is_hours_by_the_time_stamps_in_the_names():
    names = [
        "a_20240131_235900_x.mrc",
        "a_20240201_015900_x.mrc",
        "a_20240201-002900.mrc",
        "b.mrc",
        "a_20241331_235900.mrc",
    ]
    hours = covariate(micrographs(5, name=names), "time")
    np.testing.assert_allclose(hours - hours[0], [0, 2, 0.5, np.nan, np.nan])
