from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from pickcal.calibration import calibrated, calibrated_scores
from pickcal.calibration.lines import _depends, fit_lines, line_columns, micrograph_medians, spearman
from pickcal.calibration.robust import Fit
from pickcal.calibration.trends import Trend
from pickcal.errors import InputError
from pickcal.schema import Status
from pickcal.settings import CalibrateSettings

ALL = {"median_of": "all"}
SPREAD = np.linspace(-0.05, 0.05, 21)
NCC, NCC_SLOPE, POWER, LOG_SLOPE = 0.4, 0.06, 2.0, 0.3


def table(defocus, **columns):
    """Micrographs group: defocus, no astigmatism unless given."""
    n = len(defocus)
    values = {
        "defocus_u": np.asarray(defocus, float),
        "defocus_v": np.asarray(defocus, float),
        "exposure_group": np.zeros(n, int),
        **columns,
    }
    return xr.Dataset({name: ("micrograph", np.asarray(value)) for name, value in values.items()})


def picks_of(ncc, power, decoy_ncc=None, decoy_power=None, status=None):
    """Picks group from one list of scores per micrograph, padded with NaN."""
    n = len(ncc)
    decoy_ncc = decoy_ncc or [np.zeros(0)] * n
    decoy_power = decoy_power or [np.zeros(0)] * n

    def padded(rows):
        out = np.full((n, max(1, *(len(row) for row in rows))), np.nan, np.float32)
        for i, row in enumerate(rows):
            out[i, : len(row)] = row
        return out

    return xr.Dataset(
        {
            "ncc": (("micrograph", "pick"), padded(ncc)),
            "power": (("micrograph", "pick"), padded(power)),
            "decoy_ncc": (("micrograph", "decoy"), padded(decoy_ncc)),
            "decoy_power": (("micrograph", "decoy"), padded(decoy_power)),
            "count": ("micrograph", np.array([len(row) for row in ncc], np.int32)),
            "decoy_count": ("micrograph", np.array([len(row) for row in decoy_ncc], np.int32)),
            "status": ("micrograph", np.full(n, Status.DONE, np.int8) if status is None else np.asarray(status)),
        }
    )


def fit_of(picks, micrographs, chosen):
    """Parameters and columns together, as consumers know a calibration."""
    medians = micrograph_medians(picks, chosen.median_of)
    lines = fit_lines(medians, micrographs, chosen)
    return lines.assign(line_columns(lines, medians, micrographs))


def with_medians(ncc, power):
    """Picks whose medians are the values given."""
    return picks_of([m + SPREAD for m in ncc], [m * np.exp(SPREAD) for m in power])


def planted(n=20, seed=0, sigma=0.004, low=8000, high=28000):
    """Shuffled defocus and medians on both lines (NCC 0.4 + 0.06 per µm at 18000 Å, power a factor exp(0.3) per µm)."""
    rng = np.random.default_rng(seed)
    defocus = rng.permutation(np.linspace(low, high, n))
    um = (defocus - 18000) * 1e-4
    ncc = NCC + NCC_SLOPE * um + sigma * rng.standard_normal(n)
    power = POWER * np.exp(LOG_SLOPE * um + 5 * sigma * rng.standard_normal(n))
    return defocus, ncc, power


def medians_after(picks, fit):
    after = calibrated_scores(picks, fit)
    return {name: np.nanmedian(after[name].values, axis=1) for name in ("ncc", "power")}


def test_planted_slopes_lie_within_their_intervals_and_are_taken_away():
    defocus, ncc, power = planted()
    picks = with_medians(ncc, power)
    fit = fit_of(picks, table(defocus), CalibrateSettings(**ALL))
    for score, truth in (("ncc", NCC_SLOPE), ("power", LOG_SLOPE)):
        one = fit.sel(score=score, group=0)
        assert one.slope_low < truth < one.slope_high
        assert 0 < one.slope_high - one.slope_low < 0.2 * truth
        assert one.slope == pytest.approx(truth, rel=0.06)
        assert one.applied == 1 and "turned off" not in str(one.verdict.values)
        assert fit.rho_before.sel(score=score) > 0.95
        assert abs(fit.rho_after.sel(score=score)) < 0.35
    after = medians_after(picks, fit)
    assert np.std(after["ncc"]) < 0.006 and np.std(np.log(after["power"])) < 0.03
    assert np.median(after["ncc"]) == pytest.approx(NCC, abs=0.005)
    assert np.median(after["power"]) == pytest.approx(POWER, rel=0.03)
    assert fit["median"].sel(score="ncc").values == pytest.approx(ncc, abs=1e-6)
    assert fit.rho_before.sel(score="ncc") == pytest.approx(stats.spearmanr(defocus, ncc).statistic)


def test_slopes_are_covered_over_many_data_sets():
    inside = 0
    for seed in range(60):
        defocus, ncc, power = planted(10, seed)
        fit = fit_of(with_medians(ncc, power), table(defocus), CalibrateSettings(**ALL))
        inside += float(fit.slope_low[0, 0]) < NCC_SLOPE < float(fit.slope_high[0, 0])
    assert inside >= 52


def test_the_reference_keeps_its_raw_scores():
    defocus, ncc, power = planted(n=15)
    picks = with_medians(ncc, power)
    fit = fit_of(picks, table(defocus), CalibrateSettings(reference_defocus=float(defocus[4]), **ALL))
    after = calibrated_scores(picks, fit)
    for name in ("ncc", "power"):
        np.testing.assert_allclose(after[name][4], picks[name][4], rtol=1e-5)
        others = np.delete(np.arange(15), 4)
        assert (np.abs(after[name] / picks[name] - 1).isel(micrograph=others).max("pick") > 1e-3).all()
    default = fit_of(picks, table(defocus), CalibrateSettings(**ALL))
    assert default.attrs["reference_defocus"] == np.median(defocus)


def test_an_outlying_micrograph_is_flagged_and_does_not_count():
    defocus, ncc, power = planted()
    clean = fit_of(with_medians(ncc, power), table(defocus), CalibrateSettings(**ALL))
    ncc[7] -= 0.045
    power[3] *= 1.35
    fit = fit_of(with_medians(ncc, power), table(defocus), CalibrateSettings(**ALL))
    assert np.flatnonzero(fit.outlier.sel(score="ncc")).tolist() == [7]
    assert np.flatnonzero(fit.outlier.sel(score="power")).tolist() == [3]
    assert -20 < fit.residual.sel(score="ncc")[7] < -6 < 6 < fit.residual.sel(score="power")[3] < 25
    np.testing.assert_allclose(fit.slope, clean.slope, rtol=0.1)


def test_too_few_micrographs_are_refused_in_words():
    picks = with_medians([0.3, 0.4, 0.5], [1.0, 2.0, 3.0])
    fit = fit_of(picks, table([8000, 16000, 24000]), CalibrateSettings(**ALL))
    for verdict in fit.verdict.values.ravel():
        assert "not fitted" in verdict and "3 micrographs" in verdict and "at least 4" in verdict
    assert (fit.applied == 0).all() and np.isnan(fit.slope).all()
    xr.testing.assert_allclose(calibrated_scores(picks, fit)[["ncc", "power"]], picks[["ncc", "power"]])


def test_a_narrow_range_of_defocus_is_refused_in_words():
    defocus, ncc, power = planted(low=17500, high=19000)
    picks = with_medians(ncc, power)
    fit = fit_of(picks, table(defocus), CalibrateSettings(**ALL))
    assert "0.15 µm" in str(fit.verdict.values[0, 0]) and "0.2 µm" in str(fit.verdict.values[0, 0])
    xr.testing.assert_allclose(calibrated_scores(picks, fit)["ncc"], picks["ncc"])


def test_no_dependence_is_said_in_words():
    rng = np.random.default_rng(1)
    picks = with_medians(0.4 + 0.02 * rng.standard_normal(12), 2 * np.exp(0.1 * rng.standard_normal(12)))
    fit = fit_of(picks, table(np.linspace(8000, 25000, 12)), CalibrateSettings(**ALL))
    assert fit.slope_low[0, 0] < 0 < fit.slope_high[0, 0]
    assert "no dependence on defocus supported" in str(fit.verdict.values[0, 0])


@pytest.mark.parametrize("off", ["ncc", "power"])
def test_what_is_turned_off_is_fitted_but_not_shifted(off):
    defocus, ncc, power = planted()
    picks = with_medians(ncc, power)
    fit = fit_of(picks, table(defocus), CalibrateSettings(**{off: "none"}, **ALL))
    other = "power" if off == "ncc" else "ncc"
    after = calibrated_scores(picks, fit)
    xr.testing.assert_allclose(after[off], picks[off])
    assert np.abs(after[other] / picks[other] - 1).max() > 0.05
    assert fit.applied.sel(score=off, group=0) == 0 and fit.applied.sel(score=other, group=0) == 1
    assert "turned off" in str(fit.verdict.sel(score=off, group=0).values)
    assert np.isfinite(fit.slope.sel(score=off, group=0))
    assert fit.rho_after.sel(score=off) == pytest.approx(float(fit.rho_before.sel(score=off)))


def test_every_group_has_its_own_line():
    defocus, ncc, power = planted(n=30)
    group = np.arange(30) % 2 * 5 + 1
    um = (defocus - 18000) * 1e-4
    ncc[group == 6] += 0.1 - 0.1 * um[group == 6]
    picks = with_medians(ncc, power)
    mics = table(defocus, exposure_group=group)
    fit = fit_of(picks, mics, CalibrateSettings(per_group=True, reference_defocus=18000, **ALL))
    assert fit.group.values.tolist() == [1, 6]
    slopes = fit.slope.sel(score="ncc")
    assert slopes.values == pytest.approx([0.06, -0.04], abs=0.006)
    after = medians_after(picks, fit)["ncc"]
    for one in (1, 6):
        assert np.std(after[group == one]) < 0.006
        assert abs(spearman(defocus[group == one], after[group == one])) < 0.4
    together = fit_of(picks, mics, CalibrateSettings(reference_defocus=18000, **ALL))
    left = medians_after(picks, together)["ncc"]
    assert max(np.std(left[group == one]) for one in (1, 6)) > 0.015


def test_a_group_that_cannot_be_fitted_does_not_hold_up_the_others():
    defocus, ncc, power = planted(n=20)
    group = np.where(np.arange(20) < 3, 2, 1)
    picks = with_medians(ncc, power)
    fit = fit_of(picks, table(defocus, exposure_group=group), CalibrateSettings(per_group=True, **ALL))
    assert fit.applied.sel(score="ncc").values.tolist() == [1, 0]
    assert "3 micrographs" in str(fit.verdict.sel(score="ncc", group=2).values)
    np.testing.assert_allclose(calibrated_scores(picks, fit)["ncc"][:3], picks["ncc"][:3])


def test_a_micrograph_of_a_group_that_was_not_fitted_keeps_its_scores():
    """With a constant per group: that of an unknown one is not known, and another's is not its own."""
    defocus, ncc, power = planted(n=30)
    group = np.arange(30) % 2 + 1
    picks, settings = with_medians(ncc, power), CalibrateSettings(covariates=("exposure_group",), **ALL)
    lines = fit_lines(micrograph_medians(picks, "all"), table(defocus, exposure_group=group), settings)
    group[5] = 7
    laid = line_columns(lines, micrograph_medians(picks, "all"), table(defocus, exposure_group=group))
    assert (laid["shift"].values[:, 5] == 0).all() and laid["gain"].values[5] == 1
    assert (laid["shift"].values[:, np.arange(30) != 5] != 0).all()


def test_a_slope_without_an_interval_supports_nothing():
    """An interval that is no number claims no dependence."""
    trend, fit = Trend(18000.0), Fit(np.ones(2), np.full((2, 2), np.nan), 1.0, 5.0)
    for degree in (1, 2):
        assert not _depends(fit, np.nan, np.nan, replace(trend, degree=degree), 0.95)


def test_a_parabola_takes_away_what_a_line_leaves():
    defocus, ncc, power = planted(n=25)
    um = (defocus - 18000) * 1e-4
    ncc = ncc - 0.05 * um**2
    picks = with_medians(ncc, power)
    line, parabola = (
        fit_of(picks, table(defocus), CalibrateSettings(degree=d, reference_defocus=18000, **ALL)) for d in (1, 2)
    )
    assert parabola.term.values.tolist() == ["constant", "defocus", "defocus^2"]
    assert parabola.coefficients[0, 0].values == pytest.approx([0.4, 0.06, -0.05], abs=0.006)
    assert parabola.covariance.shape == (2, 1, 3, 3)
    spread = [np.std(medians_after(picks, fit)["ncc"]) for fit in (line, parabola)]
    assert spread[1] < 0.006 < 0.01 < spread[0]


def test_further_covariates():
    defocus, ncc, power = planted(n=25)
    rng = np.random.default_rng(9)
    ice, astigmatism = rng.uniform(1, 1.5, 25), rng.uniform(0, 1000, 25)
    ncc = ncc - 0.2 * (ice - np.median(ice)) - 0.3 * (astigmatism - np.median(astigmatism)) * 1e-4
    mics = table(defocus, ice_thickness=ice)
    mics["defocus_u"], mics["defocus_v"] = mics.defocus_u + 0.5 * astigmatism, mics.defocus_v - 0.5 * astigmatism
    chosen = CalibrateSettings(covariates=("ice_thickness", "astigmatism"), reference_defocus=18000, **ALL)
    picks = with_medians(ncc, power)
    fit = fit_of(picks, mics, chosen)
    assert fit.term.values.tolist() == ["constant", "defocus", "ice_thickness", "astigmatism"]
    error = np.sqrt(np.diag(fit.covariance[0, 0]))
    assert (np.abs(fit.coefficients[0, 0] - [0.4, 0.06, -0.2, -0.3]) < 4 * error).all()
    assert np.std(medians_after(picks, fit)["ncc"]) < 0.006
    without = fit_of(picks, mics, CalibrateSettings(reference_defocus=18000, **ALL))
    assert np.std(medians_after(picks, without)["ncc"]) > 0.02


def test_a_covariate_that_nowhere_exists_is_refused():
    medians, mics = session()
    mics["phase_shift"] = ("micrograph", np.full(mics.sizes["micrograph"], np.nan))
    with pytest.raises(InputError, match="phase_shift"):
        fit_lines(medians, mics, CalibrateSettings(covariates=("phase_shift",)))


@pytest.mark.parametrize("reason", ["defocus", "failed", "no picks"])
def test_a_micrograph_that_says_nothing_is_left_out(reason):
    defocus, ncc, power = planted()
    rows = [m + SPREAD for m in ncc], [m * np.exp(SPREAD) for m in power]
    status = np.full(20, Status.DONE, np.int8)
    mics = table(defocus)
    if reason == "defocus":
        mics["defocus_u"][6] = np.nan
    elif reason == "failed":
        status[6] = Status.FAILED
    else:
        rows[0][6] = rows[1][6] = np.zeros(0)
    picks = picks_of(*rows, status=status)
    settings = CalibrateSettings(reference_defocus=18000, **ALL)
    fit = fit_of(picks, mics, settings)
    kept = np.delete(np.arange(20), 6)
    without = fit_of(picks.isel(micrograph=kept), mics.isel(micrograph=kept), settings)
    np.testing.assert_allclose(fit.slope, without.slope)
    assert fit.used.sel(score="ncc").values.sum() == 19 and fit.used[0, 6] == 0
    if reason == "defocus":
        np.testing.assert_array_equal(calibrated_scores(picks, fit)["ncc"][6], picks["ncc"][6])
        assert fit.attrs["reference_defocus"] == 18000


def test_without_any_defocus_scores_stay_raw_and_the_reason_is_given():
    _, ncc, power = planted()
    picks = with_medians(ncc, power)
    fit = fit_of(picks, table(np.full(20, np.nan)), CalibrateSettings(**ALL))
    assert all("not fitted" in verdict for verdict in fit.verdict.values.ravel())
    xr.testing.assert_allclose(calibrated_scores(picks, fit)["power"], picks["power"])
    assert np.isnan(fit.rho_before).all()


def populations(defocus, seed, particle_slope=0.10, noise_slope=0.02, offset=None):
    """Noise and particles that run differently with defocus; the decoys are like the noise."""
    rng = np.random.default_rng(seed)
    offset = np.zeros(len(defocus)) if offset is None else offset
    ncc, power, decoy_ncc, decoy_power = [], [], [], []
    for d, add in zip(defocus, offset, strict=True):
        um = (d - 18000) * 1e-4
        noise, particle = 0.2 + noise_slope * um + add, 0.5 + particle_slope * um + add
        ncc.append(np.r_[particle + 0.04 * rng.standard_normal(300), noise + 0.04 * rng.standard_normal(300)])
        power.append(np.exp(np.r_[1 + 0.1 * rng.standard_normal(300), 0.1 * rng.standard_normal(300)]))
        decoy_ncc.append(noise + 0.04 * rng.standard_normal(300))
        decoy_power.append(np.exp(0.1 * rng.standard_normal(300)))
    return picks_of(ncc, power, decoy_ncc, decoy_power)


def test_particles_and_break_even_both_come_to_rest():
    defocus = np.random.default_rng(0).permutation(np.linspace(8000, 28000, 16))
    picks = populations(defocus, 0)
    fit = fit_of(picks, table(defocus), CalibrateSettings(reference_defocus=18000))
    assert fit.slope.sel(score="ncc", group=0) == pytest.approx(0.10, abs=0.01)
    assert fit.particles.values == pytest.approx(300, abs=70)
    after = calibrated_scores(picks, fit)["ncc"].values
    particles = np.median(after[:, :300], axis=1)
    noise = np.median(after[:, 300:], axis=1)
    um = (defocus - 18000) * 1e-4
    assert abs(np.polyfit(um, particles, 1)[0]) < 0.01
    assert abs(np.polyfit(um, noise, 1)[0]) < 0.03
    assert np.median(particles) == pytest.approx(0.5, abs=0.015)
    # the raw score of break-even goes to one place in every micrograph, that at the reference
    moved = calibrated(fit["break_even_fitted"], fit, "ncc").values
    assert moved == pytest.approx(np.full(16, moved[0]), abs=1e-6)
    at_reference = np.interp(18000, np.sort(defocus), fit["break_even_fitted"].values[np.argsort(defocus)])
    assert moved[0] == pytest.approx(at_reference, abs=1e-3) and 0.25 < moved[0] < 0.45


def test_all_groups_come_to_rest_on_one_value():
    """Groups with different levels and slopes: one threshold serves both, for particles and for noise."""
    defocus = np.tile(np.linspace(8000, 28000, 12), 2)
    group = np.repeat([1, 2], 12)
    picks = populations(defocus, 3, offset=np.where(group == 2, 0.3, 0.0))
    fit = fit_of(
        picks, table(defocus, exposure_group=group), CalibrateSettings(reference_defocus=18000, per_group=True)
    )
    after = calibrated_scores(picks, fit)["ncc"].values
    particles, noise = np.median(after[:, :300], axis=1), np.median(after[:, 300:], axis=1)
    assert np.std(particles) < 0.012 and np.std(noise) < 0.03
    assert particles.mean() - noise.mean() == pytest.approx(0.3, abs=0.03)
    # raw levels are 0.5 and 0.8
    assert 0.5 < particles.mean() < 0.8


@given(seed=st.integers(0, 1000), kind=st.sampled_from(["particles", "all"]))
@settings(max_examples=15)
def test_calibration_keeps_the_order_within_a_micrograph(seed, kind):
    rng = np.random.default_rng(seed)
    defocus = rng.uniform(6000, 30000, 8)
    slopes = rng.uniform(-0.2, 0.3, 2)
    picks = populations(defocus, seed, *slopes)
    fit = fit_of(picks, table(defocus), CalibrateSettings(median_of=kind))
    after = calibrated_scores(picks, fit)
    for name in ("ncc", "power", "decoy_ncc", "decoy_power"):
        raw, new = picks[name].values, after[name].values
        order = np.argsort(raw, axis=1)
        ordered = np.take_along_axis(new, order, axis=1)
        assert (np.diff(ordered, axis=1) >= -1e-7).all() and np.ptp(new) > 0
        assert new.shape == raw.shape


def test_raw_scores_are_handed_back_without_a_fit():
    picks = with_medians([0.3], [1.0])
    xr.testing.assert_identical(calibrated_scores(picks, None)["ncc"], picks["ncc"])
    assert set(calibrated_scores(picks[["ncc", "power"]], None)) == {"ncc", "power"}


def test_spearman_by_hand():
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([1.0, 3, 2, 4])) == pytest.approx(0.8)
    assert spearman(np.array([1.0, 2, np.nan, 3, 4]), np.array([4.0, 3, 9, 2, np.nan])) == -1
    assert np.isnan(spearman(np.array([1.0, 2]), np.array([1.0, 2])))
    assert np.isnan(spearman(np.array([1.0, 2, 3]), np.array([5.0, 5, 5])))


PARAMETERS = {
    "coefficients": (("score", "group", "term"), "f"),
    "covariance": (("score", "group", "term", "term_"), "f"),
    "scale": (("score", "group"), "f"),
    "degrees_of_freedom": (("score", "group"), "f"),
    "slope": (("score", "group"), "f"),
    "slope_low": (("score", "group"), "f"),
    "slope_high": (("score", "group"), "f"),
    "verdict": (("score", "group"), "O"),
    "applied": (("score", "group"), "i"),
    "break_even_coefficients": (("group", "term"), "f"),
    "rho_before": (("score",), "f"),
    "rho_after": (("score",), "f"),
}
COLUMNS = {
    **{name: (("score", "micrograph"), "f") for name in ("median", "fitted", "band", "residual", "shift")},
    **{name: (("score", "micrograph"), "i") for name in ("used", "outlier")},
    **{name: (("micrograph",), "f") for name in ("particles", "break_even", "break_even_fitted", "gain", "defocus")},
}


def described(dataset):
    return {name: (variable.dims, variable.dtype.kind) for name, variable in dataset.data_vars.items()}


def session(n=60, seed=0, **columns):
    """Medians and table of a data set with two exposure groups, an outlier, holes, particles and break-even scores."""
    rng = np.random.default_rng(seed)
    defocus, ncc, power = planted(n, seed)
    ncc[5] += 0.2
    medians = xr.Dataset(
        {
            "median": (("score", "micrograph"), np.stack([ncc, power])),
            "particles": ("micrograph", np.full(n, 200.0)),
            "break_even": ("micrograph", 0.3 + 0.02 * (defocus - 18000) * 1e-4 + 0.004 * rng.standard_normal(n)),
        },
        coords={"score": ["ncc", "power"]},
    )
    medians["median"][:, 11] = np.nan
    defocus[17] = np.nan
    mics = table(defocus, exposure_group=np.arange(n) // 7 % 2 + 3, ice_thickness=rng.uniform(1, 2, n), **columns)
    return medians, mics


CHOICES = [
    {},
    {"degree": 2},
    {"trend": "spline"},
    {"per_group": True},
    {"covariates": ("ice_thickness", "astigmatism", "exposure_group", "template")},
    {"ncc": "none", "bootstrap": 0},
]


@pytest.mark.parametrize("chosen", CHOICES)
def test_parameters_have_no_micrographs_and_columns_all_the_rest(chosen):
    medians, mics = session()
    lines = fit_lines(medians, mics, CalibrateSettings(**chosen))
    assert described(lines) == PARAMETERS and set(lines.coords) == {"score", "group", "term"}
    columns = line_columns(lines, medians, mics)
    assert described(columns) == COLUMNS
    assert {columns[name].dtype for name in ("used", "outlier")} == {np.dtype(np.int8)}
    assert lines.attrs["reference_defocus"] == pytest.approx(18000, abs=400)


@pytest.mark.parametrize("chosen", CHOICES)
def test_blocks_are_laid_on_as_the_whole_is(chosen):
    medians, mics = session()
    lines = fit_lines(medians, mics, CalibrateSettings(**chosen))
    whole = line_columns(lines, medians, mics)
    for cuts in ([0, 60], [0, 1, 8, 9, 33, 60]):
        blocks = [slice(*pair) for pair in pairwise(cuts)]
        parts = [line_columns(lines, medians.isel(micrograph=b), mics.isel(micrograph=b)) for b in blocks]
        xr.testing.assert_identical(xr.concat(parts, "micrograph", data_vars="minimal"), whole)


@pytest.mark.parametrize("column", ["dose", "time", "ice_thickness"])
def test_blocks_are_laid_on_alike_with_covariates_of_the_whole_table(column):
    values = np.random.default_rng(2).uniform(1, 2, 60)
    medians, mics = session(**({column: values} if column != "ice_thickness" else {}))
    mics["image_mean"], mics["name"] = (
        mics["ice_thickness"],
        ("micrograph", [f"m_20240131_11{i:02d}00" for i in range(60)]),
    )
    mics["ice_thickness"][:10] = np.nan
    lines = fit_lines(medians, mics, CalibrateSettings(covariates=(column,)))
    whole = line_columns(lines, medians, mics)
    for block in (slice(0, 10), slice(10, 60)):
        part = line_columns(lines, medians.isel(micrograph=block), mics.isel(micrograph=block))
        xr.testing.assert_identical(part, whole.isel(micrograph=block))


def test_a_fit_on_a_sample_serves_the_whole_data_set():
    medians, mics = session(400)
    chosen = CalibrateSettings(reference_defocus=18000)
    sample = np.sort(np.random.default_rng(3).choice(400, 120, replace=False))
    lines = fit_lines(medians.isel(micrograph=sample), mics.isel(micrograph=sample), chosen)
    everything = fit_lines(medians, mics, chosen)
    width = float((lines.slope_high - lines.slope_low)[0, 0])
    assert width < 0.006 and float(lines.slope[0, 0]) == pytest.approx(float(everything.slope[0, 0]), abs=width)
    laid, full = (line_columns(one, medians, mics) for one in (lines, everything))
    np.testing.assert_allclose(laid["shift"], full["shift"], atol=0.02)
    assert 5 not in sample and laid.outlier[0, 5] == 1 and laid.used[0].sum() == 398


def test_a_group_that_was_not_in_the_sample_stays_raw():
    medians, mics = session()
    sample = np.flatnonzero(mics.exposure_group.values == 3)
    settings = CalibrateSettings(per_group=True)
    lines = fit_lines(medians.isel(micrograph=sample), mics.isel(micrograph=sample), settings)
    laid = line_columns(lines, medians, mics)
    other = mics.exposure_group.values == 4
    assert (laid["shift"].values[:, other] == 0).all() and (laid["gain"].values[other] == 1).all()
    assert np.isnan(laid["fitted"].values[:, other]).all() and (laid["shift"].values[:, ~other] != 0).any()


def test_the_line_of_a_block_is_the_formula():
    """Against a plain evaluation of the stored coefficients."""
    medians, mics = session()
    lines = fit_lines(medians, mics, CalibrateSettings(reference_defocus=17000))
    laid = line_columns(lines, medians, mics)
    um = (mics.defocus_u.values - 17000) * 1e-4
    level, slope = lines.coefficients.values[1, 0]
    np.testing.assert_allclose(laid["fitted"][1], level + slope * um)
    np.testing.assert_allclose(laid["shift"][1].values[um == um], (slope * um)[um == um], atol=1e-12)
    left = np.log(medians["median"].values[1]) - level - slope * um
    np.testing.assert_allclose(laid["residual"][1], left / float(lines.scale[1, 0]), atol=1e-9)


def test_a_spline_takes_away_what_a_parabola_leaves():
    defocus, ncc, power = planted(n=60)
    um = (defocus - 18000) * 1e-4
    ncc = ncc + 0.12 * np.maximum(um + 0.2, 0)
    picks = with_medians(ncc, power)
    spread = {}
    for name, chosen in (("parabola", {"degree": 2}), ("spline", {"trend": "spline"})):
        fit = fit_of(picks, table(defocus), CalibrateSettings(**chosen, **ALL))
        spread[name] = np.std(medians_after(picks, fit)["ncc"])
    assert spread["spline"] < 0.0046 and spread["parabola"] > 1.3 * spread["spline"]
    assert fit.term.values.tolist() == ["constant", "defocus", "spline 1", "spline 2"]
    # the slope is that at the reference, 18000 Å, of what was planted: 0.06 + 0.12, rounded off by the spline
    assert float(fit.slope[0, 0]) == pytest.approx(0.16, abs=0.025)


@pytest.mark.parametrize("chosen", [{"degree": 2}, {"trend": "spline"}])
def test_a_curve_level_at_the_reference_still_depends_on_defocus(chosen):
    rng = np.random.default_rng(4)
    defocus = np.linspace(8000, 28000, 40)
    um = (defocus - 18000) * 1e-4
    bent, flat = (0.4 - bend * um**2 + 0.004 * rng.standard_normal(40) for bend in (0.05, 0.0))
    for ncc, says in ((bent, False), (flat, True)):
        settings = CalibrateSettings(reference_defocus=18000, **chosen, **ALL)
        fit = fit_of(with_medians(ncc, np.exp(ncc)), table(defocus), settings)
        assert fit.slope_low[0, 0] < 0 < fit.slope_high[0, 0]
        assert ("no dependence on defocus" in str(fit.verdict.values[0, 0])) is says


def test_groups_as_a_covariate_and_one_fit_per_group_agree_on_what_rests():
    medians, mics = session()
    medians["median"][0] = medians["median"][0] + 0.1 * (mics.exposure_group == 4)
    together = fit_lines(medians, mics, CalibrateSettings(covariates=("exposure_group",)))
    assert together.term.values.tolist()[2].startswith("exposure group")
    assert abs(float(together.coefficients[0, 0, 2])) == pytest.approx(0.1, abs=0.006)
    both = CalibrateSettings(covariates=("exposure_group",), per_group=True)
    apart = fit_lines(medians, mics, both)
    assert apart.term.values.tolist() == ["constant", "defocus"]
    assert float(apart.coefficients[0, :, 0].diff("group")[0]) == pytest.approx(0.1, abs=0.01)


def test_asymptotic_and_bootstrap_intervals_agree_where_errors_are_alike_everywhere():
    medians, mics = session(200)
    widths = []
    for resamples in (0, 400):
        fit = fit_lines(medians, mics, CalibrateSettings(bootstrap=resamples))
        widths.append((fit.slope_high - fit.slope_low).values)
        inside = (fit.slope_low < fit.slope) & (fit.slope < fit.slope_high)
        assert inside.all()
    np.testing.assert_allclose(widths[0], widths[1], rtol=0.25)
    assert (widths[0] != widths[1]).all()
