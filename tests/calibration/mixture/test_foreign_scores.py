"""Scores of other programs, without decoys and power: two humps are found, one is refused, a tail does not decide."""

import os
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from scipy.integrate import trapezoid
from scipy.special import expit
from scipy.stats import norm

from pickcal.calibration.mixture import Model, NotFitted, fit_mixture, mixture_columns, probabilities
from pickcal.calibration.mixture.components import Mixture, Particles
from pickcal.calibration.mixture.em import expectation_maximisation
from pickcal.calibration.mixture.humps import gain_over_one_hump, score_limit, valley
from pickcal.calibration.mixture.noise import Noise, gaussian_shape
from pickcal.calibration.mixture.observations import Observations
from pickcal.formats.star import read_star
from pickcal.schema import Status
from pickcal.settings import CalibrateSettings

LINE = CalibrateSettings(bootstrap=0, trend="line")
DIAMETER = 150.0


def relion(rng, um, noise, particles):
    """Figure of merit: noise falls from 0, particles are skewed to the right."""
    return rng.normal(0, 0.3, noise), 0.15 + 0.95 * rng.gamma(6.25, 0.16, particles) - 0.12 * um


def topaz(rng, um, noise, particles):
    """Log-likelihood ratios: two wide humps."""
    return rng.normal(-3, 1.5, noise), rng.normal(1.5 - 0.48 * um, 1.6, particles)


def cryolo(rng, um, noise, particles):
    """Confidences in [0, 1]: a hump at 0.8 with a tail to the left."""
    return expit(rng.normal(-2.5, 1, noise)), expit(rng.normal(1.4 - 0.22 * um, 0.75, particles))


def scored(program, floor=-np.inf, noise=200, particles=150, tail=0.0, seed=0, micrographs=40):
    """Draw picks above a floor, best first: the padded table, its micrographs, and which picks are particles.

    The tail is a part of the picks with scores up to tens of times the others; nothing tells it from particles.
    """
    rng = np.random.default_rng(seed)
    um = rng.permutation(np.linspace(-0.85, 0.85, micrographs))
    rows = []
    for value in um:
        counts = rng.poisson(noise * rng.lognormal(0, 0.3)), rng.poisson(particles * rng.lognormal(0, 0.4))
        parts = [
            *program(rng, value, *counts),
            0.5 + 1.5 * np.exp(rng.exponential(0.7, rng.poisson(tail * sum(counts)))),
        ]
        score = np.concatenate(parts)
        true = np.arange(len(score)) >= counts[0]
        kept = np.argsort(-score)[: int((score >= floor).sum())]
        rows.append((score[kept], true[kept]))
    ncc = padded([score for score, _ in rows])
    true = padded([label.astype(float) for _, label in rows]) == 1
    # on a lattice, none in the shadow of another
    places = np.stack([rng.permutation(60 * 60)[: ncc.shape[1]] for _ in ncc])
    table = {"x": 400.0 * (places % 60), "y": 400.0 * (places // 60), "ncc": ncc, "power": np.full(ncc.shape, np.nan)}
    picks = xr.Dataset({name: (("micrograph", "pick"), values) for name, values in table.items()})
    picks["count"] = ("micrograph", np.isfinite(ncc).sum(axis=1).astype(np.int32))
    picks["status"] = ("micrograph", np.full(micrographs, Status.DONE, np.int8))
    defocus = 16_500 + 1e4 * um
    columns = {"defocus_u": defocus, "defocus_v": defocus, "exposure_group": np.ones(micrographs, np.int32)}
    return picks, xr.Dataset({name: ("micrograph", values) for name, values in columns.items()}), true


def padded(rows):
    width = max(len(row) for row in rows)
    return np.stack([np.pad(row, (0, width - len(row)), constant_values=np.nan) for row in rows])


def judged(picks, micrographs, diameter=DIAMETER):
    model = fit_mixture(picks, micrographs, diameter, LINE)
    held = model.to_dataset()
    held = held.merge(mixture_columns(picks, micrographs, model)).assign_attrs(held.attrs)
    return model, held, probabilities(picks, micrographs, held)


def f1(accepted, true):
    return 2 * (accepted & true).sum() / (accepted.sum() + true.sum())


def best_f1(score, true):
    order = np.argsort(-score)
    return float((2 * np.cumsum(true[order]) / (np.arange(1, len(order) + 1) + true.sum())).max())


@pytest.mark.parametrize(
    ("program", "changes", "away"),
    [
        (relion, {"floor": 1e-4, "particles": 200}, 0.06),
        (relion, {"floor": 1e-4, "particles": 200, "tail": 0.03}, 0.06),
        (relion, {"floor": 1e-4, "noise": 500, "particles": 120, "tail": 0.03}, 0.06),
        (topaz, {"floor": -6}, 0.02),
        (topaz, {"floor": -6, "noise": 450, "particles": 80}, 0.02),
        (topaz, {"floor": -3}, 0.06),
        (cryolo, {"floor": 0.02, "noise": 300}, 0.03),
        (cryolo, {"floor": 0.1, "noise": 300}, 0.03),
        (cryolo, {"floor": 0.3, "noise": 400}, 0.08),
    ],
)
@pytest.mark.parametrize("seed", [1])
def test_two_humps_are_noise_and_particles(program, changes, away, seed):
    """As good as the best threshold that the labels give, and probabilities are right on the whole."""
    picks, micrographs, true = scored(program, seed=seed, **changes)
    model, held, likelihood = judged(picks, micrographs)
    there = np.isfinite(picks["ncc"].values)
    chance, true = likelihood["probability"].values[there].astype(float), true[there]
    assert f1(chance > 0.5, true) > best_f1(picks["ncc"].values[there], true) - 0.015
    tenth = np.clip((chance * 10).astype(int), 0, 9)
    wrong = sum(abs(chance[tenth == i].sum() - true[tenth == i].sum()) for i in range(10)) / len(chance)
    assert wrong < away
    # the particles of the figure of merit are skewed, which costs
    accepted = likelihood["q_value"].values[there] <= 0.1
    assert (accepted & ~true).sum() / accepted.sum() < (0.16 if program is relion else 0.13)
    assert held["expected"].sel(component="particle").sum() == pytest.approx(chance.sum(), rel=1e-3)
    assert model.report["populations"]["apart"] > 1.5


@pytest.mark.parametrize(
    ("program", "changes"),
    [
        (relion, {"noise": 0, "particles": 250, "tail": 0.03}),
        (relion, {"floor": 0.8, "tail": 0.03, "particles": 200}),
        (relion, {"floor": 1e-4, "noise": 500, "particles": 0}),
        (topaz, {"noise": 0, "particles": 250}),
        (topaz, {"noise": 0, "particles": 300, "floor": 0.0}),
        (topaz, {"floor": 1.0}),
        (topaz, {"noise": 250, "particles": 0}),
        (cryolo, {"noise": 0, "particles": 250, "floor": 0.3}),
        (cryolo, {"floor": 0.5}),
    ],
)
@pytest.mark.parametrize("seed", [1])
def test_one_hump_is_refused_with_a_reason(program, changes, seed):
    """Lists of particles alone, with the noise cut away, or of noise alone: no split of the hump."""
    picks, micrographs, _ = scored(program, seed=seed, **changes)
    with pytest.raises(NotFitted, match=r"^not fitted: one hump.*thresholds on the calibrated score remain") as caught:
        judged(picks, micrographs)
    assert "'pickcal score' adds a power score, given the images" in str(caught.value)


def test_the_tail_does_not_decide():
    """Ten times higher scores in the tail change nothing below it."""
    picks, micrographs, _ = scored(relion, floor=1e-4, particles=200, tail=0.03)
    ncc = picks["ncc"].values
    limit = score_limit(ncc[np.isfinite(ncc)])
    assert 0.005 < (ncc > limit).mean() < 0.05
    higher = picks.copy(deep=True)
    higher["ncc"].values[ncc > limit] *= 10
    one, two = judged(picks, micrographs)[2], judged(higher, micrographs)[2]
    np.testing.assert_allclose(two["probability"], one["probability"], atol=1e-6)
    assert one["probability"].values[ncc > limit].min() > 0.99


@pytest.mark.parametrize(("program", "floor"), [(relion, 1e-4), (topaz, -6.0), (cryolo, 0.1)])
def test_a_higher_score_is_never_less_of_a_particle(program, floor):
    picks, micrographs, _ = scored(program, floor=floor, tail=0.02)
    chance, q = (judged(picks, micrographs)[2][name].values for name in ("probability", "q_value"))
    assert np.nanmax(np.diff(chance, axis=1)) < 1e-6
    assert np.nanmin(np.diff(q, axis=1)) > -1e-6


@pytest.mark.parametrize(("scale", "shift"), [(1000.0, 0.0), (1e-3, 0.0), (1.0, -30.0)])
def test_units_of_the_score_do_not_matter(scale, shift):
    picks, micrographs, _ = scored(topaz, floor=-6)
    other = picks.assign(ncc=picks["ncc"] * scale + shift)
    one, two = judged(picks, micrographs)[2], judged(other, micrographs)[2]
    np.testing.assert_allclose(two["probability"], one["probability"], atol=0.01)


def test_rounded_scores():
    """Two decimals, as some files have them: steps are no valleys, and the answer is that of full precision."""
    picks, micrographs, _ = scored(cryolo, floor=0.1, noise=300)
    rounded = picks.assign(ncc=picks["ncc"].round(2))
    one, two = judged(picks, micrographs)[2], judged(rounded, micrographs)[2]
    assert float(np.abs(one["probability"] - two["probability"]).mean()) < 0.01
    picks, micrographs, _ = scored(cryolo, floor=0.3, noise=0)
    with pytest.raises(NotFitted):
        judged(picks.assign(ncc=picks["ncc"].round(2)), micrographs)


def test_the_verdict_says_what_is_not_known():
    picks, micrographs, _ = scored(topaz, floor=-6)
    verdict = judged(picks, micrographs)[0].verdict
    assert (
        "junk cannot be told from particles ('pickcal score' adds one, given the images)" in verdict
        and "no decoys" in verdict
    )


def test_the_stored_model_gives_the_same_in_blocks():
    picks, micrographs, _ = scored(relion, floor=1e-4, particles=200, tail=0.03)
    model, held, whole = judged(picks, micrographs)
    read = Model.from_dataset(held)
    assert (read.mixture.particles.tail, read.mixture.particles.tail_scale) == (
        model.mixture.particles.tail,
        model.mixture.particles.tail_scale,
    )
    assert model.mixture.particles.tail > 0.01
    for start in range(0, 40, 7):
        rows = slice(start, start + 7)
        part, table = picks.isel(micrograph=rows), micrographs.isel(micrograph=rows)
        columns = mixture_columns(part, table, read)
        np.testing.assert_array_equal(columns["fraction"], held["fraction"].values[rows])
        found = probabilities(part, table, held.isel(micrograph=rows))
        np.testing.assert_array_equal(found["probability"], whole["probability"].values[rows])


def alone(scores, noise, particles, micrographs=4):
    """Observations of one score, in so many micrographs of one kind, and a mixture of half and half."""
    scores = scores if micrographs == 1 else np.random.default_rng(0).permutation(scores)
    index = np.sort(np.arange(len(scores)) % micrographs)
    design = np.column_stack([np.ones(micrographs), np.linspace(-1, 1, micrographs)])
    nothing = np.zeros((len(scores), 2))
    dark = np.zeros(len(scores), bool)
    data = Observations(
        np.asarray(scores, float), None, index, design, nothing, None, dark, np.ones(len(scores)), 0 * scores
    )
    half = np.array([0.5, 0.5, 0.0])
    return data, Mixture(noise, particles, None, half, half)


NOISE = Noise(np.array([0.0, 0.0]), np.array([0.0, 0.0]), gaussian_shape())
PARTICLES = Particles(
    np.array([3.0, 0.0]), np.zeros(2), np.array([0.5, 0.0]), tail=0.1, tail_scale=2.0
)  # deviation exp(0.5)


def test_the_density_of_particles_with_a_tail():
    """By scipy above where it stops rising against the noise; parallel to the noise below; integral 1."""
    grid = np.linspace(-12, 80, 40_001)
    data, mixture = alone(grid, NOISE, PARTICLES, micrographs=1)
    found = mixture.log_densities(data)
    spread = np.exp(0.5)
    z = (grid - 3) / spread
    expected = 0.9 * norm.pdf(z) + np.where(z > 0, 0.1 * np.exp(-z / 2) / 2, 0)
    # where the slopes of both log densities agree: -x = -(x - 3) / spread^2
    turn = -3 / (spread**2 - 1)
    high = grid > turn
    np.testing.assert_allclose(np.exp(found[1][high]), expected[high] / spread, rtol=1e-9, atol=1e-300)
    ratio = found[1] - norm.logpdf(grid)
    assert np.ptp(ratio[~high]) < 1e-6
    assert (np.diff(ratio[high]) > -1e-9).all()
    assert trapezoid(np.exp(found[1]), grid) == pytest.approx(1, abs=0.02)


def test_noise_is_not_wider_than_particles():
    """Scores whose upper hump is the narrower: both get one deviation, which lies between those drawn."""
    rng = np.random.default_rng(0)
    scores = np.r_[rng.normal(0, 1.5, 4000), rng.normal(5, 0.7, 4000)]
    data, start = alone(scores, NOISE, PARTICLES)
    for tail, expected in ((0.0, 1.5), (0.02, np.sqrt(0.5 * (1.5**2 + 0.7**2)))):
        particles = Particles(np.array([4.0, 0.0]), np.zeros(2), np.zeros(2), tail=tail, tail_scale=2.0 * (tail > 0))
        found = expectation_maximisation(
            data, Mixture(NOISE, particles, None, start.fractions, start.shadow), free_noise=True
        )
        assert np.exp(found.mixture.noise.deviation[0]) == pytest.approx(expected, rel=0.06)
    assert found.mixture.noise.deviation[0] == found.mixture.particles.deviation[0]


def test_planted_noise_particles_and_tail_come_back():
    rng = np.random.default_rng(1)
    beyond = 6 + 1.2 * rng.exponential(3.0, 600)
    data, start = alone(np.r_[rng.normal(0, 1, 6000), rng.normal(6, 1.2, 5400), beyond], NOISE, PARTICLES)
    path = [
        expectation_maximisation(data, start, free_noise=True, tolerance=-np.inf, iterations=k).log_likelihood
        for k in range(2, 30)
    ]
    assert np.diff(path).min() > -1e-5 * len(data.ncc) and path[-1] > path[0] + 1
    found = expectation_maximisation(data, start, free_noise=True).mixture
    assert found.noise.mean[0] == pytest.approx(0, abs=0.08)
    assert found.particles.ncc[0] == pytest.approx(6, abs=0.08)
    assert np.exp(found.particles.deviation[0]) == pytest.approx(1.2, rel=0.04)
    assert found.particles.tail == pytest.approx(0.1, abs=0.03)
    assert found.particles.tail_scale == pytest.approx(3.0, rel=0.2)


@pytest.mark.parametrize("seed", range(3))
def test_a_valley_lies_where_two_known_densities_have_it(seed):
    """Least density of two normals between them; none in one hump, skewed, truncated or rounded."""
    rng = np.random.default_rng(seed)
    scores = np.r_[rng.normal(0, 1, 6000), rng.normal(4, 1, 4000)]
    grid = np.linspace(0, 4, 4001)
    expected = grid[np.argmin(0.6 * norm.pdf(grid) + 0.4 * norm.pdf(grid, 4))]
    found = valley(scores)
    assert found is not None and found.score == pytest.approx(expected, abs=0.25)
    assert found.depth > 0.4
    folded = valley(np.abs(np.r_[rng.normal(0, 1, 5000), rng.normal(4, 1, 5000)]))
    assert folded is not None and 1.5 < folded.score < 2.8
    for one in (rng.normal(0, 1, 10_000), rng.gamma(3, 1, 10_000), np.abs(rng.normal(0, 1, 10_000)),
                rng.beta(8, 2, 10_000).round(2), rng.standard_t(2, 10_000)):  # fmt: skip
        assert valley(one) is None
    assert valley(np.ones(100)) is None


def test_skewness_alone_gains_nothing():
    """One skewed hump fits draws from it as well as two do, and draws from two humps worse."""
    rng = np.random.default_rng(2)
    for scores, gains in (
        (np.r_[rng.normal(0, 1, 5000), rng.normal(3.2, 1, 5000)], True),
        (np.sinh(0.6 * rng.normal(0, 1, 10_000) + 0.4), False),
    ):
        data, start = alone(scores, NOISE, PARTICLES)
        found = expectation_maximisation(data, start, free_noise=True).mixture
        gain = gain_over_one_hump(data, found)
        assert gain > 0.01 if gains else gain < 0.001


def test_the_one_hump_is_as_likely_as_the_truth():
    """Of truncated normal scores: two components with the truth twice gain nothing, and lose next to nothing."""
    rng = np.random.default_rng(3)
    scores = rng.normal(0, 1, 40_000)
    scores = scores[scores > -0.5]
    data, _ = alone(scores, NOISE, PARTICLES)
    noise = Noise(np.zeros(2), np.zeros(2), gaussian_shape(), floor=-0.5)
    nothing = np.array([1 - 1e-9, 1e-9, 0.0])
    gain = gain_over_one_hump(data, Mixture(noise, PARTICLES, None, nothing, nothing))
    assert -0.002 < gain < 0.0005


def test_half_of_the_scores_equal():
    assert score_limit(np.r_[np.ones(60), np.zeros(40)]) == np.inf
    picks, micrographs, _ = scored(cryolo, floor=0.1, noise=100)
    top = float(np.nanquantile(picks["ncc"], 0.4))
    try:
        _, _, likelihood = judged(picks.assign(ncc=picks["ncc"].clip(max=top)), micrographs)
    except NotFitted as error:
        assert "not fitted" in str(error)
    else:
        assert np.isfinite(likelihood["probability"].values[np.isfinite(picks["ncc"].values)]).all()


def test_figures_of_merit_of_the_tutorial():
    """RELION's tutorial: a valley at 0.4; well above it particles, well below noise, and not the tail alone."""
    root = Path(os.environ.get("PICKCAL_TEST_DATA", Path(__file__).parents[4] / "shared" / "data")) / "relion_10204"
    folder = root / "AutoPick_template" / "Movies"
    if not folder.is_dir():
        pytest.skip(f"{folder}: no picks of the tutorial")
    paths = sorted(folder.glob("*.star"))
    tables = [next(iter(read_star(path).values())) for path in paths]
    exposures = read_star(root / "micrographs_ctf.star")["micrographs"]
    stems = [Path(str(name)).stem for name in exposures["rlnMicrographName"]]
    order = [next(i for i, stem in enumerate(stems) if path.stem.startswith(stem)) for path in paths]
    columns = {"x": "rlnCoordinateX", "y": "rlnCoordinateY", "ncc": "rlnAutopickFigureOfMerit"}
    table = {
        ours: (
            ("micrograph", "pick"),
            padded([found[theirs].to_numpy(float) * 0.885 ** (ours != "ncc") for found in tables]),
        )
        for ours, theirs in columns.items()
    }
    picks = xr.Dataset(table)
    ncc = picks["ncc"].values
    picks["count"] = ("micrograph", np.isfinite(ncc).sum(axis=1))
    picks["status"] = ("micrograph", np.full(len(paths), Status.DONE, np.int8))
    defoci = {
        ours: ("micrograph", exposures[theirs].to_numpy(float)[order])
        for ours, theirs in (("defocus_u", "rlnDefocusU"), ("defocus_v", "rlnDefocusV"))
    }
    model, held, likelihood = judged(picks, xr.Dataset(defoci), diameter=100.0)
    assert 0.3 < model.report["populations"]["valley"] < 0.5
    assert 5000 < float(held["expected"].sel(component="particle").sum()) < 7000
    chance = likelihood["probability"].values
    assert np.nanmean(chance[ncc < 0.2]) < 0.1 and np.nanmean(chance[(ncc > 0.9) & (ncc < 1.2)]) > 0.75
    assert chance[ncc > 3].min() > 0.95
