"""The whole fit on planted tables: calibrated probabilities, fractions, trends, covariates, and sets that are odd."""

import re
from dataclasses import replace
from datetime import datetime, timedelta

import numpy as np
import pytest
import xarray as xr
from planted import DIAMETER, NOISE, PARTICLE, plant, straight

from pickcal.calibration.mixture import NotFitted, fit_mixture, mixture_columns, power_limit, probabilities
from pickcal.calibration.mixture.observations import SHADOW
from pickcal.schema import Status
from pickcal.settings import CalibrateSettings

FAST = CalibrateSettings(bootstrap=0)
LINE = CalibrateSettings(bootstrap=0, trend="line")


def fitted(planted, settings=FAST):
    return fit_mixture(planted.picks, planted.micrographs, DIAMETER, settings)


def stored(model, picks, micrographs):
    """As a project holds it: the model with the columns of the micrographs."""
    found = model.to_dataset()
    return found.merge(mixture_columns(picks, micrographs, model)).assign_attrs(found.attrs)


def judged(planted, settings=FAST):
    """Model, what would be stored, and the probabilities of all picks."""
    model = fitted(planted, settings)
    held = stored(model, planted.picks, planted.micrographs)
    return model, held, probabilities(planted.picks, planted.micrographs, held)


def log_score(planted, likelihood, rows=slice(None)):
    """Mean log probability given to what the picks truly are."""
    kind, chance = planted.kind[rows], likelihood["probability"].values[rows].astype(float)
    there = kind >= 0
    right = np.where(kind == PARTICLE, chance, 1 - chance)[there]
    return float(np.log(np.clip(right, 1e-6, 1)).mean())


def assert_reliable(chance, true, within=0.05):
    """Where a tenth holds more than 1 % of the picks, probability and truth agree within 0.05 and counting errors."""
    tenth = np.clip((chance * 10).astype(int), 0, 9)
    seen = 0
    for i in range(10):
        here = tenth == i
        if here.mean() > 0.01:
            share = true[here].mean()
            error = np.sqrt(share * (1 - share) / here.sum())
            assert chance[here].mean() == pytest.approx(share, abs=within + error), i
            seen += 1
    return seen


CROWDED = {"particle_count": straight(45.0, 28.0), "noise_count": straight(90.0, -30.0)}
JUNKY = {**CROWDED, "junk_count": straight(8.0, 3.0)}


@pytest.mark.parametrize(
    ("changes", "away", "within"),
    [
        (CROWDED, 0.012, 0.05),
        (JUNKY, 0.015, 0.05),
        ({**CROWDED, "power": False}, 0.015, 0.05),
        # where the noise ends and particles begin is a guess without decoys
        ({**CROWDED, "decoys": False}, 0.02, 0.09),
    ],
    ids=["crowding with defocus", "with junk", "without power", "without decoys"],
)
def test_probabilities_are_calibrated_and_fractions_right(changes, away, within):
    planted = plant(micrographs=200, seed=1, **changes)
    model, held, likelihood = judged(planted)
    there = planted.kind >= 0
    chance, true = likelihood["probability"].values[there], planted.kind[there] == PARTICLE
    assert chance.min() >= 0 and chance.max() <= 1
    assert assert_reliable(chance, true, within) >= 7
    assert np.abs(chance - planted.oracle[there]).mean() < away
    for component in range(3):
        counts = (planted.kind == component).sum(axis=1)
        assert held["expected"].values[:, component].sum() == pytest.approx(
            counts.sum(), rel=0.04 if planted.plan.decoys else 0.08, abs=60
        )
    particles = (planted.kind == PARTICLE).sum(axis=1)
    assert np.abs(held["expected"].values[:, PARTICLE] - particles).mean() < 4
    assert np.corrcoef(held["expected"].values[:, PARTICLE], particles)[0, 1] > 0.97
    np.testing.assert_allclose(held["fraction"].sum("component"), 1)
    if changes is JUNKY:
        junk = likelihood["junk"].values[there]
        assert assert_reliable(junk, planted.kind[there] == 2) >= 2
    assert model.report["converged"]


def test_noise_that_is_not_gaussian():
    """Gumbel scores, as maxima of correlation are: the tail reaches far into the particles."""
    from scipy.stats import gumbel_r

    shape = gumbel_r(loc=-np.euler_gamma * np.sqrt(6) / np.pi, scale=np.sqrt(6) / np.pi)
    planted = plant(micrographs=150, seed=2, shape=shape)
    _, _, likelihood = judged(planted)
    there = planted.kind >= 0
    assert_reliable(likelihood["probability"].values[there], planted.kind[there] == PARTICLE)


@pytest.mark.parametrize("decoys", [True, False])
def test_an_empty_micrograph_gets_next_to_nothing(decoys):
    """Three micrographs of noise among sixty: under one accepted pick each, in number and in expectation."""
    planted = plant(micrographs=60, seed=4, decoys=decoys, junk_count=straight(3.0))
    for i in (5, 20, 40):
        noise = np.flatnonzero(planted.kind[i] == NOISE)
        for name in ("x", "y", "ncc", "power", "template"):
            values = planted.picks[name].values[i]
            values[: len(noise)] = values[noise]
        planted.picks["count"].values[i] = len(noise)
    _, held, likelihood = judged(planted)
    chance = likelihood["probability"].values[[5, 20, 40]]
    assert (held["expected"].values[[5, 20, 40], PARTICLE] < 3).all()
    assert (chance > 0.5).sum() <= 3
    assert (likelihood["q_value"].values[[5, 20, 40]] < 0.05).sum() < 3


@pytest.mark.parametrize("seed", range(3))
def test_a_line_where_it_is_straight(seed):
    model = fitted(plant(seed=seed))
    assert model.report["trend"] == "line" and not model.trend.knots
    assert model.report["cross_validation"]["chosen"] == "line"


@pytest.mark.parametrize("decoys", [True, False])
@pytest.mark.parametrize("degree", [1, 2])
def test_a_spline_where_it_bends(decoys, degree):
    """An S in the particles' mean, which no parabola has: chosen, and it judges better."""
    planted = plant(micrographs=80, particle_mean=lambda um: 0.31 + 0.03 * np.sin(4 * um), decoys=decoys)
    model, _, likelihood = judged(planted, CalibrateSettings(bootstrap=0, degree=degree))
    assert model.report["trend"] == "spline"
    validation = model.report["cross_validation"]
    assert validation["gain"] > 2 * validation["error"] > 0
    _, _, straightly = judged(planted, CalibrateSettings(bootstrap=0, degree=degree, trend="line"))
    assert log_score(planted, likelihood) > log_score(planted, straightly) + 0.001


@pytest.mark.parametrize("trend", ["line", "spline"])
def test_slopes_are_at_the_reference_with_honest_intervals(trend):
    """Of a bent trend the report gives the slope at the reference; the interval is neither nothing nor everything."""
    bent = -0.02 if trend == "spline" else 0.0
    planted = plant(micrographs=150, particle_mean=straight(0.33, 0.03, bent), particle_power=straight(0.6, 0.2))
    slopes = fitted(planted, CalibrateSettings(trend=trend, reference_defocus=17_500.0, bootstrap=400)).report["slopes"]
    for name, true in (("ncc", 0.03), ("power", 0.2)):
        low, high = slopes[name]["interval"]
        assert low < slopes[name]["slope"] < high
        assert abs(slopes[name]["slope"] - true) < 1.5 * (high - low)
        assert 0 < high - low < 0.5 * true


def test_intervals_are_as_wide_as_the_slopes_scatter():
    """Overlapping populations, eight data sets: the half-width is 1.96 of their standard deviation within a factor."""
    found, widths = [], []
    for seed in range(8):
        planted = plant(micrographs=40, seed=seed, power=False, particle_mean=straight(0.27, 0.03))
        slopes = fitted(planted, CalibrateSettings(trend="line")).report["slopes"]["ncc"]
        found.append(slopes["slope"])
        widths.append(0.5 * (slopes["interval"][1] - slopes["interval"][0]))
    assert np.mean(widths) / 1.96 > 0.65 * np.std(found, ddof=1)
    assert np.mean(widths) / 1.96 < 2.5 * np.std(found, ddof=1)


def test_empty_micrographs_do_not_widen_the_intervals():
    """As many micrographs again that have no pick tell nothing: the interval of the slope stays as it was."""
    widths = []
    for empty in (0, 40):
        defocus = np.tile(np.linspace(6e3, 29e3, 40), 2)[: 40 + empty]
        planted = plant(micrographs=40 + empty, power=False, defocus=defocus)
        planted.picks["count"].values[40:] = planted.picks["decoy_count"].values[40:] = 0
        model = fitted(planted, CalibrateSettings(trend="line"))
        assert model.report["micrographs"] == 40
        low, high = model.report["slopes"]["ncc"]["interval"]
        widths.append(high - low)
    assert widths[1] == pytest.approx(widths[0], rel=0.02)


def test_without_decoys_it_is_said():
    model = fitted(plant(decoys=False))
    assert not model.from_decoys and "no decoys" in model.verdict
    assert model.to_dataset().attrs["noise_from"] == "low scores"
    assert "no decoys" not in fitted(plant()).verdict


@pytest.mark.parametrize(("scale", "shift"), [(30.0, 0.0), (30.0, -8.0), (1.0, -0.27), (0.01, 0.0)])
@pytest.mark.parametrize("decoys", [True, False])
def test_the_scale_of_the_scores_does_not_matter(scale, shift, decoys):
    """As other programs scale them: figures of merit, log likelihoods below zero."""
    plain, other = plant(decoys=decoys), plant(decoys=decoys)
    for name in ("ncc", "decoy_ncc"):
        other.picks[name] = (other.picks[name].astype(float) * scale + shift).astype(np.float32)
    one, two = judged(plain, LINE)[2], judged(other, LINE)[2]
    np.testing.assert_allclose(two["probability"], one["probability"], atol=2e-3)
    np.testing.assert_allclose(two["q_value"], one["q_value"], atol=2e-3)


def test_the_order_of_the_micrographs_does_not_matter():
    planted = plant(seed=3, junk_count=straight(4.0))
    order = np.random.default_rng(0).permutation(60)
    one = judged(planted, LINE)[2]
    picks, micrographs = planted.picks.isel(micrograph=order), planted.micrographs.isel(micrograph=order)
    model = fit_mixture(picks, micrographs, DIAMETER, LINE)
    two = probabilities(picks, micrographs, stored(model, picks, micrographs))
    np.testing.assert_allclose(two["probability"], one["probability"].values[order], atol=1e-4)


@pytest.mark.parametrize("count", [40, 199])
def test_too_few_picks_are_refused_with_numbers(count):
    planted = plant(micrographs=4)
    each = -(-count // 4)
    planted.picks["count"].values[:] = [each, each, each, count - 3 * each]
    with pytest.raises(NotFitted, match=f"{count} picks, at least 200"):
        fitted(planted)


def test_odd_micrographs_survive_and_harm_no_other():
    """No defocus, no power, no picks, no decoys, failed: the others are judged as if these were not there."""
    planted = plant(micrographs=60, seed=5)
    picks, micrographs = planted.picks.copy(deep=True), planted.micrographs.copy(deep=True)
    micrographs["defocus_u"].values[0] = np.nan
    picks["power"].values[1], picks["decoy_power"].values[1] = np.nan, np.nan
    picks["count"].values[2] = picks["decoy_count"].values[2] = 0
    picks["decoy_count"].values[3] = 0
    picks["status"].values[4] = Status.FAILED
    model = fit_mixture(picks, micrographs, DIAMETER, LINE)
    likelihood = probabilities(picks, micrographs, stored(model, picks, micrographs))
    chance = likelihood["probability"].values
    assert np.isnan(chance[[2, 4]]).all()
    assert (np.isfinite(chance) == (planted.kind >= 0))[[0, 1, 3, *range(5, 60)]].all()
    plain = judged(planted, LINE)[2]["probability"].values
    np.testing.assert_allclose(chance[5:], plain[5:], atol=0.1)
    assert np.nanmean(np.abs(chance[5:] - plain[5:])) < 0.01
    assert np.nanmean(np.abs(chance[3] - plain[3])) < 0.1
    assert likelihood["q_value"].values[np.isfinite(chance)].max() <= 1


def test_missing_power_is_unknown_not_noise():
    """On a fifth of the micrographs there is no power score: their picks are judged by the NCC score alone."""
    planted = plant(micrographs=100, seed=6)
    rows = np.arange(0, 100, 5)
    planted.picks["power"].values[rows] = planted.picks["decoy_power"].values[rows] = np.nan
    _, held, likelihood = judged(planted, LINE)
    true = (planted.kind[rows] == PARTICLE).sum()
    assert held["expected"].values[rows, PARTICLE].sum() == pytest.approx(true, rel=0.08)
    there = planted.kind[rows] >= 0
    chance, particle = likelihood["probability"].values[rows][there], (planted.kind[rows] == PARTICLE)[there]
    for low, high in ((0.0, 0.2), (0.8, 1.01)):
        here = (chance >= low) & (chance < high)
        assert chance[here].mean() == pytest.approx(particle[here].mean(), abs=0.05)


def test_no_defocus_at_all():
    """Picks of another program without CTF: one population of micrographs, whatever the trend."""
    planted = plant(micrographs=60, particle_mean=straight(0.29), noise_mean=straight(0.2))
    planted.micrographs["defocus_u"].values[:] = np.nan
    _, _, likelihood = judged(planted, FAST)
    there = planted.kind >= 0
    assert_reliable(likelihood["probability"].values[there], planted.kind[there] == PARTICLE, within=0.1)


@pytest.mark.parametrize("micrographs", [1, 2, 3])
def test_very_few_micrographs(micrographs):
    planted = plant(micrographs=micrographs, noise_count=straight(300.0), particle_count=straight(120.0))
    _, held, likelihood = judged(planted, CalibrateSettings(bootstrap=100))
    assert held["expected"].values[:, PARTICLE].sum() == pytest.approx((planted.kind == PARTICLE).sum(), rel=0.15)
    assert np.isfinite(likelihood["probability"].values[planted.kind >= 0]).all()


def test_a_micrograph_with_one_pick():
    planted = plant(micrographs=40)
    planted.picks["count"].values[7] = 1
    _, held, likelihood = judged(planted)
    assert (
        np.isfinite(likelihood["probability"].values[7, 0]) and np.isnan(likelihood["probability"].values[7, 1:]).all()
    )
    assert 0 <= held["expected"].values[7, PARTICLE] <= 1


def test_only_noise():
    """No particles anywhere: next to none accepted, and it is said. A narrow heap of noise is no population."""
    for seed in range(3):
        planted = plant(micrographs=40, particle_count=straight(0.0), seed=seed)
        model, _, likelihood = judged(planted, LINE)
        assert (likelihood["q_value"].values < 0.05).sum() <= 8
        assert (likelihood["probability"].values > 0.5).sum() < 0.02 * len(planted.kind.ravel())
        assert "hardly any particles" in model.verdict or "hard to tell" in model.verdict
        particles, noise = model.mixture.particles, model.mixture.noise
        assert particles.deviation[0] > noise.deviation[0] - 1.5


def test_a_population_that_has_the_power_of_ice_is_doubted():
    """A few picks far above the noise in both scores: told with their power and number; particles are not doubted."""
    ice = plant(
        micrographs=20,
        particle_count=straight(6.0),
        particle_mean=straight(0.85),
        particle_deviation=straight(np.log(0.04)),
        particle_power=straight(np.log(60.0)),
        slope=0.0,
    )
    model = fitted(ice, LINE)
    number = round(model.report["particles"])
    assert number == pytest.approx((ice.kind == PARTICLE).sum(), rel=0.05)
    words = rf"particles would have (\d+) times the power of the noise \({number} of {(ice.kind >= 0).sum()} picks\)"
    assert float(re.match(words, model.verdict)[1]) == pytest.approx(60, rel=0.1)
    assert model.verdict.startswith("; ".join(model.report["doubts"])) and len(model.report["doubts"]) == 1
    assert fitted(plant(), LINE).report["doubts"] == []


@pytest.mark.parametrize("score", [0.5, 0.7, 0.85])
@pytest.mark.parametrize("number", [6.0, 40.0])
def test_particles_far_above_the_noise_are_found(number, score):
    """10 to 22 deviations of the noise above it, few and many: all of them are particles, whatever junk there is."""
    planted = plant(
        micrographs=20, particle_count=straight(number), particle_mean=straight(score), junk_count=straight(2.0)
    )
    _, held, likelihood = judged(planted, LINE)
    assert (likelihood["probability"].values[planted.kind == PARTICLE] > 0.5).mean() > 0.98
    assert held["expected"].values[:, PARTICLE].sum() == pytest.approx((planted.kind == PARTICLE).sum(), rel=0.03)


def test_one_score_for_all():
    """Every pick and every decoy scores the same: refused, or hardly a verdict, but no crash and no NaN."""
    planted = plant(micrographs=20)
    for name in ("ncc", "decoy_ncc"):
        planted.picks[name] = planted.picks[name] * 0 + np.float32(0.3)
    try:
        _, _, likelihood = judged(planted)
    except NotFitted as error:
        assert "not fitted" in str(error)
    else:
        assert np.isfinite(likelihood["probability"].values[planted.kind >= 0]).all()


def test_saturated_scores():
    """Confidences of a network, a tenth of them exactly 1: the probability still rises with the score."""
    planted = plant(micrographs=80, decoys=False, power=False)
    top = np.float32(np.nanquantile(planted.picks["ncc"], 0.9))
    planted.picks["ncc"] = planted.picks["ncc"].clip(max=top)
    _, _, likelihood = judged(planted, LINE)
    score, chance = planted.picks["ncc"].values, likelihood["probability"].values
    assert np.nanmean(chance[score >= top]) > 0.9
    just_below = (score < top) & (score > top - 0.01)
    assert np.nanmean(chance[just_below]) > 0.5


def packed(planted, seed=0):
    """Move particles to a lattice of 1.1 diameters, and all noise and all decoys between them, within 0.74."""
    rng = np.random.default_rng(seed)
    for i in range(planted.picks.sizes["micrograph"]):
        mine, rest = np.flatnonzero(planted.kind[i] == PARTICLE), np.flatnonzero(planted.kind[i] == NOISE)
        side = int(np.ceil(np.sqrt(len(mine))))
        place = rng.permutation(side * side)[: len(mine)]
        at = 500 + 1.1 * DIAMETER * np.column_stack([place // side, place % side])
        planted.picks["y"].values[i, mine], planted.picks["x"].values[i, mine] = at.T
        for prefix, where in (("", rest), ("decoy_", np.arange(int(planted.picks["decoy_count"][i])))):
            angle, reach = rng.uniform(0, 2 * np.pi, len(where)), rng.uniform(0.6, 0.74, len(where)) * DIAMETER
            near = at[rng.integers(0, len(mine), len(where))]
            planted.picks[f"{prefix}y"].values[i, where] = near[:, 0] + reach * np.sin(angle)
            planted.picks[f"{prefix}x"].values[i, where] = near[:, 1] + reach * np.cos(angle)
    return planted


def test_packed_micrographs():
    """Particles everywhere, so that every decoy lies beside one: the particles are found all the same."""
    planted = packed(plant(micrographs=30, particle_count=straight(100.0), particle_mean=straight(0.34, 0.03)))
    _, _, likelihood = judged(planted)
    chance = likelihood["probability"].values
    assert (chance[planted.kind == PARTICLE] > 0.5).mean() > 0.9
    assert (chance[planted.kind == NOISE] > 0.5).mean() < 0.1


def test_noise_in_shadows_scores_otherwise():
    """Noise beside particles is 0.02 lower and stronger: found from the picks, and reliable all the same."""
    planted = plant(micrographs=120, particle_mean=straight(0.32, 0.03))
    rng = np.random.default_rng(0)
    for i in range(120):
        noise, mine = np.flatnonzero(planted.kind[i] == NOISE), np.flatnonzero(planted.kind[i] == PARTICLE)
        beside = rng.permutation(noise)[: len(noise) // 2]
        at, angle = rng.choice(mine, len(beside)), rng.uniform(0, 2 * np.pi, len(beside))
        for name, part in (("y", np.sin(angle)), ("x", np.cos(angle))):
            planted.picks[name].values[i, beside] = planted.picks[name].values[i, at] + 0.6 * DIAMETER * part
        planted.picks["ncc"].values[i, beside] -= 0.02
        planted.picks["power"].values[i, beside] *= np.exp(0.1)
    model, _, likelihood = judged(planted)
    assert model.radius == SHADOW * DIAMETER
    there = planted.kind >= 0
    assert_reliable(likelihood["probability"].values[there], planted.kind[there] == PARTICLE)
    noise = model.mixture.noise
    assert noise.shadow_power_mean - noise.power_mean == pytest.approx(0.1, abs=0.05)
    assert noise.shadow_mean < -0.3


def halves(planted, settings):
    """Log score on the second half of the micrographs with the fit of the first."""
    middle = planted.micrographs.sizes["micrograph"] // 2
    first, second = slice(0, middle), slice(middle, None)
    picks, micrographs = planted.picks.isel(micrograph=second), planted.micrographs.isel(micrograph=second)
    model = fit_mixture(
        planted.picks.isel(micrograph=first), planted.micrographs.isel(micrograph=first), DIAMETER, settings
    )
    likelihood = probabilities(picks, micrographs, stored(model, picks, micrographs))
    kind, chance = planted.kind[second], likelihood["probability"].values.astype(float)
    there = kind >= 0
    right = np.where(kind == PARTICLE, chance, 1 - chance)[there]
    return model, float(np.log(np.clip(right, 1e-6, 1)).mean())


N = 100
_RNG = np.random.default_rng(11)
_ICE, _GREY = _RNG.uniform(1.0, 1.4, N), _RNG.uniform(95.0, 105.0, N)
_GROUP = _RNG.choice([1, 4], N, p=[0.7, 0.3]).astype(np.int32)
_HOURS = np.sort(_RNG.uniform(0.0, 20.0, N))
_START = datetime(2024, 3, 1)
_STAMPS = np.array([f"m_{_START + timedelta(hours=h):%Y%m%d_%H%M%S}.mrc" for h in _HOURS], dtype=object)
COVARIATES = {
    # name: column, its values, what a unit of the covariate adds to the particles' NCC score, the values per unit
    "ice_thickness": ({"ice_thickness": _ICE}, -0.2, _ICE - 1.2),
    "dose": ({"image_mean": _GREY}, 1.2, _GREY / 100.0 - 1.0),
    "time": ({"name": _STAMPS}, -0.004, _HOURS - 10.0),
    "exposure_group": ({"exposure_group": _GROUP}, 0.05, (_GROUP == 4).astype(float)),
}


def test_a_fit_per_group_is_one_of_probabilities_too():
    """Groups planted apart, in particles and in noise: with `per_group`, their other micrographs are judged better."""
    planted = plant(micrographs=N, seed=7, power=False, columns={"exposure_group": _GROUP})
    for name in ("ncc", "decoy_ncc"):
        planted.picks[name].values[_GROUP == 4] += np.float32(0.05)
    model, better = halves(planted, CalibrateSettings(bootstrap=0, trend="line", per_group=True))
    _, plain = halves(planted, LINE)
    assert model.trend.groups == (1, 4)
    assert model.mixture.particles.ncc[-1] == pytest.approx(0.05, abs=0.005)
    assert model.mixture.noise.mean[-1] == pytest.approx(0.05, abs=0.005)
    assert better > plain + 0.01


@pytest.mark.parametrize("name", COVARIATES)
def test_a_planted_covariate_is_found_and_helps_on_other_micrographs(name):
    columns, effect, values = COVARIATES[name]
    planted = plant(micrographs=N, seed=7, power=False, shifts=effect * values, columns=columns)
    with_it = CalibrateSettings(bootstrap=0, trend="line", covariates=(name,))
    model, better = halves(planted, with_it)
    _, plain = halves(planted, LINE)
    found = model.mixture.particles.ncc[-1]
    first = slice(0, N // 2)
    error = 0.035 / np.sqrt((planted.kind[first] == PARTICLE).sum()) / np.std(values[first])
    assert found == pytest.approx(effect, abs=5 * error + 0.05 * abs(effect))
    assert better > plain + 0.003


def test_planted_template_offsets_help():
    planted = plant(micrographs=N, seed=8, power=False, template_offsets=(0.04, 0.0, -0.04))
    model, better = halves(planted, CalibrateSettings(bootstrap=0, trend="line", covariates=("template",)))
    _, plain = halves(planted, LINE)
    offsets = model.mixture.particles.offsets
    np.testing.assert_allclose(offsets - offsets.mean(), [0.04, 0, -0.04], atol=0.006)
    assert better > plain + 0.003


def test_a_template_that_the_fit_never_saw():
    """It has no offset: it is judged as an average one, and breaks nothing."""
    planted = plant(micrographs=40, template_offsets=(0.02, -0.02))
    settings = CalibrateSettings(bootstrap=0, trend="line", covariates=("template",))
    model = fitted(planted, settings)
    picks = planted.picks.copy(deep=True)
    picks["template"].values[0, 0] = 9
    likelihood = probabilities(picks, planted.micrographs, stored(model, picks, planted.micrographs))
    assert np.isfinite(likelihood["probability"].values[0, 0])


def lines_of(planted, shift=0.0):
    """A fit of the power score that moves every micrograph by as much."""
    n = planted.micrographs.sizes["micrograph"]
    return xr.Dataset({"shift": (("score", "micrograph"), np.full((2, n), shift))}, coords={"score": ["ncc", "power"]})


@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_the_power_limit_rejects_junk_and_hardly_a_particle(shift):
    planted = plant(
        micrographs=100, particle_power=straight(0.5, 0.1), junk_count=straight(8.0), junk_scale=0.9, seed=9
    )
    model = fitted(planted)
    held = stored(model, planted.picks, planted.micrographs)
    limit = power_limit(held, lines_of(planted, shift), planted.micrographs) * np.exp(shift)
    power = planted.picks["power"].values
    assert (power[planted.kind == PARTICLE] > limit).mean() < 0.01
    strong = (planted.kind == 2) & (power > np.exp(0.5 + 1.5))
    assert strong.sum() > 300 and (power[strong] > limit).mean() > 0.75


def test_the_power_limit_without_junk_keeps_every_particle():
    planted = plant(micrographs=60)
    model = fitted(planted, CalibrateSettings(bootstrap=0, junk=False))
    assert model.mixture.junk is None
    limit = power_limit(stored(model, planted.picks, planted.micrographs), lines_of(planted), planted.micrographs)
    assert not (planted.picks["power"].values[planted.kind == PARTICLE] > limit).any()


@pytest.mark.parametrize("floor", [-np.inf, 0.0, 0.8])
def test_scores_cut_off_below_a_floor_are_no_other_population(floor):
    """Picks as another program writes them: no decoys, nothing below its threshold, here up to 60 % of the noise."""
    rates, recalls = [], []
    for seed in range(3):
        rng = np.random.default_rng(seed)
        shape, defocus = (20, 400), rng.uniform(8000, 28000, 20)
        offset = (defocus[:, None] - 18000) * 1e-4
        true = rng.random(shape) < rng.uniform(0.1, 0.5, (20, 1))
        score = np.where(true, rng.normal(4 + offset, 0.9, shape), rng.normal(0.5 + 0.2 * offset, 1.0, shape))
        score = np.where(score >= floor, score, -np.inf)
        order = np.argsort(-score, axis=1)
        score, true = np.take_along_axis(score, order, 1), np.take_along_axis(true, order, 1)
        both = ("micrograph", "pick")
        picks = xr.Dataset(
            {
                "ncc": (both, np.where(np.isfinite(score), score, np.nan)),
                "x": (both, rng.uniform(0, 4e4, shape)),
                "y": (both, rng.uniform(0, 4e4, shape)),
                "count": ("micrograph", np.isfinite(score).sum(axis=1)),
                "status": ("micrograph", np.ones(20, dtype=np.int8)),
            }
        )
        micrographs = xr.Dataset({name: ("micrograph", defocus) for name in ("defocus_u", "defocus_v")})
        model = fit_mixture(picks, micrographs, 150.0, CalibrateSettings())
        stored = model.to_dataset().merge(mixture_columns(picks, micrographs, model), combine_attrs="override")
        accepted = probabilities(picks, micrographs, stored)["q_value"].values <= 0.05
        rates.append((accepted & ~true).sum() / accepted.sum())
        recalls.append((accepted & true).sum() / true.sum())
        assert "no decoys" in model.verdict
    assert 0.03 < np.mean(rates) < 0.07
    assert np.mean(recalls) > 0.85


def beside_ice(planted, share, seed=0):
    """Give a share of noise and particles ice beside them: much variance around them, of which some reaches them."""
    rng = np.random.default_rng(seed)
    picks = planted.picks.copy(deep=True)
    chosen = np.isin(planted.kind, (NOISE, PARTICLE)) & (rng.random(planted.kind.shape) < share)
    around = rng.uniform(2.0, 8.0, chosen.sum())
    level = picks["background_variance"].values[chosen]
    picks["background_variance"].values[chosen] = level * (1 + around)
    picks["power"].values[chosen] += level * around * rng.uniform(0.05, 0.5, chosen.sum())
    return replace(planted, picks=picks), chosen


def test_particles_beside_ice_are_no_junk():
    """Most that would be lost to their power are kept, and no more noise than is said is taken for particles."""
    planted, chosen = beside_ice(plant(micrographs=60, **JUNKY), 0.1)
    particles = chosen & (planted.kind == PARTICLE)
    _, _, known = judged(planted)
    unknown = replace(planted, picks=planted.picks.drop_vars("background_variance"))
    _, _, without = judged(unknown)
    kept, lost = ((found["probability"].values[particles] >= 0.5).mean() for found in (known, without))
    there = planted.kind >= 0
    oracle = (planted.oracle[~chosen & (planted.kind == PARTICLE)] >= 0.5).mean()
    assert particles.sum() > 150
    assert kept > oracle - 0.1 > lost + 0.1
    q_value = known["q_value"].values
    accepted = there & (q_value <= 0.05)
    false = (planted.kind[accepted] != PARTICLE).mean()
    assert false <= 0.05 + 3 * np.sqrt(0.05 / accepted.sum())
