from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from test_lines import planted, table

from pickcal.calibration.lines import fit_lines, line_columns
from pickcal.calibration.verdicts import (
    Findings,
    groups_differ,
    is_bimodal,
    ranked_outliers,
    refusal,
    verdict,
)
from pickcal.settings import CalibrateSettings

ROUGH = "fewer than 10 micrographs: the interval is rough"
NARROW = "defocus range only"
GROUPS = "two populations: calibrate per exposure group"
BIMODAL = "two populations of micrographs: are these two exposure groups?"
NONE = "no dependence on defocus supported by these data"


def fitted(defocus, ncc, group=None, **chosen):
    """Verdict on the NCC score of a data set with these medians and no power scores."""
    medians = xr.Dataset(
        {
            "median": (("score", "micrograph"), np.stack([ncc, np.full(len(ncc), np.nan)])),
            "particles": ("micrograph", np.full(len(ncc), 200.0)),
            "break_even": ("micrograph", np.full(len(ncc), np.nan)),
        },
        coords={"score": ["ncc", "power"]},
    )
    mics = table(defocus, **({} if group is None else {"exposure_group": group}))
    return str(fit_lines(medians, mics, CalibrateSettings(**chosen)).verdict.values[0, 0])


ORDINARY = Findings(
    slope=0.05,
    low=0.04,
    high=0.06,
    confidence=0.95,
    depends=True,
    wanted=True,
    residuals=np.random.default_rng(0).standard_normal(30),
    defocus=np.linspace(8000, 28000, 30),
    exposure_groups=np.zeros(30, int),
)


def test_an_ordinary_data_set_has_a_plain_verdict():
    assert verdict(ORDINARY) == "slope +0.0500 per µm (95 % interval +0.0400 to +0.0600)"


def test_all_findings_make_one_readable_text():
    few = replace(
        ORDINARY,
        depends=False,
        wanted=False,
        confidence=0.9,
        residuals=ORDINARY.residuals[:6],
        defocus=np.linspace(10000, 13500, 6),
        exposure_groups=np.zeros(6, int),
    )
    assert verdict(few) == (
        "slope +0.0500 per µm (90 % interval +0.0400 to +0.0600); no dependence on defocus supported by these data; "
        "turned off, not applied. Caution: fewer than 10 micrographs: the interval is rough; defocus range only 0.35 µm"
    )


@pytest.mark.parametrize(("n", "warned"), [(4, True), (9, True), (10, False), (30, False)])
def test_few_micrographs_are_said(n, warned):
    defocus, ncc, _ = planted(n)
    assert (ROUGH in fitted(defocus, ncc)) is warned


@pytest.mark.parametrize(("span", "warned"), [(2500, True), (4900, True), (5100, False), (20000, False)])
def test_a_narrow_range_is_said(span, warned):
    defocus, ncc, _ = planted(20, low=10000, high=10000 + span)
    text = fitted(defocus, ncc)
    assert (NARROW in text) is warned and "not fitted" not in text
    assert not warned or f"defocus range only {span / 10000:.2f} µm" in text


def test_refusals():
    assert refusal(np.linspace(8000, 20000, 4), 2) == ""
    assert refusal(np.linspace(8000, 20000, 3), 2) == "not fitted: 3 micrographs with a median, at least 4 are needed"
    assert refusal(np.linspace(8000, 20000, 4), 4) == "not fitted: 4 micrographs with a median, at least 6 are needed"
    expected = "not fitted: defocus range only 0.15 µm, at least 0.2 µm is needed"
    assert refusal(np.linspace(8000, 9500, 9), 2) == expected
    assert refusal(np.zeros(0), 2).startswith("not fitted: 0 micrographs")


def test_no_dependence_is_said_where_there_is_none():
    said = [NONE in fitted(*planted(20, seed)[:2]) for seed in range(30)]
    assert not any(said)
    for seed in range(30):
        rng = np.random.default_rng(seed)
        defocus = rng.uniform(8000, 28000, 20)
        said[seed] = NONE in fitted(defocus, 0.4 + 0.01 * rng.standard_normal(20))
    assert sum(said) >= 25


@pytest.mark.parametrize("minority", [0.2, 0.4, 0.5])
@pytest.mark.parametrize("known", [True, False])
def test_two_populations_are_said(minority, known):
    """Groups 0.04 apart where micrographs scatter by 0.004 to 0.006: known by their number, or only by their scores."""
    said = 0
    for seed in range(20):
        defocus, ncc, _ = planted(60, seed)
        second = np.random.default_rng(1000 + seed).permutation(60) < minority * 60
        group = np.where(second, 8, 2) if known else None
        text = fitted(defocus, ncc + 0.04 * second, group, bootstrap=0)
        said += (GROUPS if known else BIMODAL) in text
        assert (BIMODAL if known else GROUPS) not in text
    assert said >= 18


@pytest.mark.parametrize("kind", ["one group", "two groups", "thirty groups", "outliers", "heavy tails", "uneven"])
def test_ordinary_data_sets_raise_no_false_alarm(kind):
    alarms = 0
    for seed in range(80):
        rng = np.random.default_rng(seed)
        n = 90 if kind == "thirty groups" else 40
        defocus = rng.uniform(8000, 28000, n)
        noise = rng.standard_t(3, n) if kind == "heavy tails" else rng.standard_normal(n)
        ncc = 0.3 + 0.05e-4 * (defocus - 18000) + 0.01 * noise * (defocus / 18000 if kind == "uneven" else 1)
        if kind == "outliers":
            ncc[:5] -= rng.uniform(0.1, 0.3, 5)
        groups = {"two groups": 2, "thirty groups": 30}.get(kind)
        group = rng.integers(groups, size=n) if groups else None
        text = fitted(defocus, ncc, group, bootstrap=0)
        alarms += "two populations" in text
        assert ROUGH not in text and NARROW not in text
    assert alarms < 5


def test_a_fit_per_group_says_nothing_of_groups():
    defocus, ncc, _ = planted(60)
    group = np.arange(60) % 2
    together, apart, as_covariate = (
        fitted(defocus, ncc + 0.05 * group, group, **chosen)
        for chosen in ({}, {"per_group": True}, {"covariates": ("exposure_group",)})
    )
    assert GROUPS in together
    assert "populations" not in apart and "populations" not in as_covariate


def test_groups_of_three_do_not_count():
    residuals = np.r_[np.zeros(20), np.full(3, 9.0)] + 0.3 * np.random.default_rng(0).standard_normal(23)
    group = np.r_[np.zeros(20, int), np.ones(3, int)]
    assert not groups_differ(residuals, group)
    assert groups_differ(np.append(residuals, 9.0), np.append(group, 1))
    # clear, but no more than half a deviation of the fit
    assert not groups_differ(np.r_[np.zeros(200), np.full(200, 0.5)], np.repeat([0, 1], 200))


@pytest.mark.parametrize("n", [200, 5000])
def test_skewed_flat_and_lumpy_values_are_one_population(n):
    found = 0
    for seed in range(20):
        rng = np.random.default_rng(seed)
        found += sum(map(is_bimodal, (rng.exponential(size=n), rng.uniform(size=n), rng.standard_t(2, n))))
    assert found <= 3
    assert not is_bimodal(np.zeros(n)) and not is_bimodal(np.r_[np.zeros(n), 1.0])


def test_stray_values_do_not_hide_two_populations():
    rng = np.random.default_rng(0)
    values = np.r_[rng.standard_normal(60), 6 + rng.standard_normal(30), -80.0, 95.0, 300.0]
    assert is_bimodal(values) and not is_bimodal(values[:60]) and not is_bimodal(values[[*range(60), 90, 91, 92]])
    assert not is_bimodal(np.r_[values[:10], values[60:69]])


def laid(n=40):
    defocus, ncc, power = planted(n)
    ncc[3] -= 0.05
    ncc[8] -= 0.2
    power[5] *= 6
    medians = xr.Dataset(
        {
            "median": (("score", "micrograph"), np.stack([ncc, power])),
            "particles": ("micrograph", np.full(n, 200.0)),
            "break_even": ("micrograph", np.full(n, np.nan)),
        },
        coords={"score": ["ncc", "power"]},
    )
    medians["median"][:, 20] = np.nan
    lines = fit_lines(medians, table(defocus), CalibrateSettings(bootstrap=0))
    return lines.assign(line_columns(lines, medians, table(defocus)))


NAMES = [f"mic_{i:02d}.mrc" for i in range(40)]


def test_outliers_are_ranked_by_the_larger_residual():
    fit = laid()
    rows = ranked_outliers(fit, NAMES, np.full(40, np.nan))
    sizes = np.abs(fit["residual"].values).max(axis=0)
    expected = sorted((3, 5, 8), key=lambda i: -sizes[i])
    assert [row["index"] for row in rows] == expected
    assert [row["name"] for row in rows] == [NAMES[i] for i in expected]
    for row in rows:
        i = row["index"]
        assert row["furthest"] == sizes[i] > 4 and row["ncc"] == float(fit["residual"][0, i])
        assert row["defocus"] == float(fit["defocus"][i]) and np.isnan(row["share"])
        assert ("power score" if i == 5 else "NCC score") in row["why"] and "high power" not in row["why"]


def test_micrographs_with_much_high_power_are_listed_too():
    share = np.random.default_rng(1).uniform(0.01, 0.03, 40)
    share[[2, 8, 20]] = 0.3, 0.5, 0.4
    share[9] = np.nan
    rows = ranked_outliers(laid(), NAMES, share)
    assert {row["index"] for row in rows} == {2, 3, 5, 8, 20}
    by_index = {row["index"]: row for row in rows}
    assert by_index[8]["why"].endswith("; 50 % of its picks have high power") and "NCC" in by_index[8]["why"]
    assert by_index[2]["why"] == "30 % of its picks have high power" and by_index[2]["share"] == 0.3
    # without a median there is no residual; it comes last
    assert rows[-1]["index"] == 20 and np.isnan(rows[-1]["ncc"])


@pytest.mark.parametrize("level", [0.0, 0.005, 0.3])
def test_shares_that_are_alike_are_not_far_above_the_rest(level):
    share = level + 0.02 * np.random.default_rng(2).uniform(0, 1, 40) * (level > 0.1)
    share[0] = min(level + 0.04, 1) if level < 0.1 else level + 0.02
    assert {row["index"] for row in ranked_outliers(laid(), NAMES, share)} == {3, 5, 8}
