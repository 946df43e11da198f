"""Plots of the mixture, held against what was planted and against numbers counted anew."""

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr
from matplotlib.collections import PathCollection, PolyCollection
from planted import JUNK, NOISE, PARTICLE, REFERENCE, plant, straight
from scipy.integrate import trapezoid
from scipy.stats import multivariate_normal, norm
from test_plots import overlapping, texts

from pickcal.calibration import calibrated_scores
from pickcal.calibration.lines import fit_lines, line_columns, micrograph_medians
from pickcal.calibration.mixture import Model, fit_mixture, mixture_columns, power_limit, probabilities
from pickcal.plots import components_figure, false_discovery_figure, plane_figure, trends_figure
from pickcal.plots.densities import Expected, expected_numbers, reference_plane
from pickcal.plots.discovery import THRESHOLDS
from pickcal.plots.probability import pooled_by_defocus
from pickcal.plots.style import enclosing_level
from pickcal.settings import CalibrateSettings

UM = 1e-4
MICROGRAPHS = 40


class Fitted:
    """A planted data set with its lines, mixture and probabilities."""

    def __init__(self, **changes):
        settings = CalibrateSettings(bootstrap=changes.pop("bootstrap", 0), covariates=changes.pop("covariates", ()))
        self.planted = plant(**changes)
        self.picks, self.micrographs = self.planted.picks, self.planted.micrographs
        medians = micrograph_medians(self.picks, "particles")
        lines = fit_lines(medians, self.micrographs, settings)
        self.lines = lines.assign(line_columns(lines, medians, self.micrographs))
        model = fit_mixture(self.picks, self.micrographs, self.picks.attrs["diameter"], settings)
        columns = mixture_columns(self.picks, self.micrographs, model)
        self.mixture = model.to_dataset().merge(columns, combine_attrs="override")
        self.likelihood = probabilities(self.picks, self.micrographs, self.mixture)
        self.names = [str(name) for name in self.micrographs["name"].values]
        self.defocus = 0.5 * (self.micrographs["defocus_u"].values + self.micrographs["defocus_v"].values)
        self.valid = self.planted.kind >= 0

    def figure(self, key):
        common = (self.mixture, self.likelihood)
        if key == "components":
            return components_figure(self.picks, self.micrographs, *common)
        if key == "plane":
            has_power = np.isfinite(self.mixture["power_level"].values).any()
            limit = None if not has_power else power_limit(self.mixture, self.lines, self.micrographs)
            return plane_figure(self.picks, self.lines, *common, limit)
        if key == "false_discovery":
            return false_discovery_figure(self.picks, *common)
        return trends_figure(self.micrographs, self.lines, self.mixture, self.names)


@pytest.fixture(scope="module")
def fitted():
    return Fitted(micrographs=MICROGRAPHS, junk_count=straight(6.0), bootstrap=30)


@pytest.fixture(scope="module")
def bare():
    """No decoys, no power, no bootstrap."""
    return Fitted(micrographs=20, decoys=False, power=False)


def line(axes, label):
    (found,) = [found for found in axes.lines if found.get_label() == label]
    return np.asarray(found.get_xdata(), float), np.asarray(found.get_ydata(), float)


def test_panels_hold_the_micrographs_around_the_percentiles_of_defocus(fitted):
    groups = pooled_by_defocus(fitted.picks, fitted.defocus)
    rank = np.argsort(np.argsort(fitted.defocus))
    for (title, rows), word, part in zip(groups, ("low", "middle", "high"), (0.1, 0.5, 0.9), strict=True):
        assert title.startswith(f"{word} defocus") and len(rows) == MICROGRAPHS // 4
        ranks = np.sort(rank[rows])
        assert np.all(np.diff(ranks) == 1)
        # the pool is around the percentile, or ends where the data set does
        assert abs(ranks.mean() - part * (MICROGRAPHS - 1)) <= 1 or ranks[0] == 0 or ranks[-1] == MICROGRAPHS - 1
    assert "0.61 to" in groups[0][0] or "0.60 to" in groups[0][0]


@pytest.mark.parametrize(("left", "panels"), [(5, 3), (2, 2), (1, 1), (0, 0)])
def test_few_micrographs_give_few_panels(fitted, left, panels):
    picks = fitted.picks.copy(deep=True)
    picks["status"].values[left:] = 2
    groups = pooled_by_defocus(picks, fitted.defocus)
    assert len(groups) == panels
    if left < 3:
        assert sorted(np.concatenate([rows for _, rows in groups]) if groups else []) == list(range(left))
    figure = components_figure(picks, fitted.micrographs, fitted.mixture, fitted.likelihood)
    assert len(figure.axes) == panels
    if not panels:
        assert [text.get_text() for text in figure.texts] == ["no finished micrograph with picks and defocus"]


def test_bars_are_the_picks_and_steps_the_decoys_of_the_panel(fitted):
    figure = fitted.figure("components")
    for axes, (_, rows) in zip(figure.axes, pooled_by_defocus(fitted.picks, fitted.defocus), strict=True):
        edges = np.array([bar.get_x() for bar in axes.containers[0]] + [axes.containers[0][-1].get_x()])
        edges[-1] += axes.containers[0][-1].get_width()
        counted = np.histogram(fitted.picks["ncc"].values[rows][fitted.valid[rows]], edges)[0]
        np.testing.assert_array_equal([bar.get_height() for bar in axes.containers[0]], counted)
        (steps,) = [patch for patch in axes.patches if patch.get_label() == "decoys off particles"]
        # positions are planted so far apart that no decoy is near a particle
        decoys = fitted.picks["decoy_ncc"].values[rows]
        expected = np.histogram(decoys[np.isfinite(decoys)], edges)[0]
        np.testing.assert_allclose(steps.get_data().values, expected, atol=0.3)


def test_components_are_drawn_in_the_numbers_and_at_the_scores_that_were_planted(fitted):
    figure, kind = fitted.figure("components"), fitted.planted.kind
    plan = fitted.planted.plan
    for axes, (_, rows) in zip(figure.axes, pooled_by_defocus(fitted.picks, fitted.defocus), strict=True):
        um = fitted.planted.um[rows]
        for name, code, mean in (("noise", NOISE, plan.noise_mean), ("particles", PARTICLE, plan.particle_mean)):
            x, y = line(axes, name)
            number = (kind[rows] == code).sum()
            assert y.sum() == pytest.approx(number, rel=0.1), name
            assert (x * y).sum() / y.sum() == pytest.approx(mean(um).mean(), abs=0.006), name
        total = sum(line(axes, name)[1] for name in ("noise", "particles", "junk"))
        np.testing.assert_allclose(line(axes, "all expected")[1], total)
        assert line(axes, "junk")[1].sum() == pytest.approx((kind[rows] == JUNK).sum(), abs=30)


def test_the_mark_is_where_half_the_picks_of_a_score_are_particles(fitted):
    figure, kind, ncc = fitted.figure("components"), fitted.planted.kind, fitted.picks["ncc"].values
    marks = []
    for axes, (_, rows) in zip(figure.axes, pooled_by_defocus(fitted.picks, fitted.defocus), strict=True):
        x, _ = line(axes, "probability 0.5, by this score alone")
        marks.append(x[0])
        near = np.abs(ncc[rows] - x[0]) < 0.01
        assert (kind[rows][near] == PARTICLE).mean() == pytest.approx(0.5, abs=0.15)
    assert marks[0] < marks[1] < marks[2]


def test_even_odds_of_known_curves():
    grid = np.linspace(-5, 10, 3001)
    zero = np.zeros(len(grid))
    found = Expected(grid, 100 * norm.pdf(grid), 100 * norm.pdf(grid, 3), zero, zero, zero, zero)
    assert found.even_odds == pytest.approx(1.5, abs=1e-4)
    assert np.isnan(replace(found, particle=0.01 * found.particle, noise=found.particle).even_odds)


def test_expected_numbers_integrate_to_those_of_the_probabilities_in_shadows_too(fitted):
    near = fitted.picks.copy(deep=True)
    for name in ("x", "y", "decoy_x", "decoy_y"):
        near[name][:] = near[name] * 0.2
    likelihood = probabilities(near, fitted.micrographs, fitted.mixture)
    found = expected_numbers(near, fitted.micrographs, fitted.mixture, likelihood, np.linspace(-0.6, 1.2, 2001))
    particle, junk = (likelihood[name].values[fitted.valid].astype(float) for name in ("probability", "junk"))
    for curve, number in ((found.particle, particle.sum()), (found.junk, junk.sum())):
        assert trapezoid(curve, found.grid) == pytest.approx(number, rel=1e-3)
    assert trapezoid(found.noise, found.grid) == pytest.approx((1 - particle - junk).sum(), rel=0.01)
    assert found.decoy_weight.sum() < 0.9 * len(found.decoys)


def test_offsets_of_templates_move_the_particles():
    made = Fitted(micrographs=30, template_offsets=(-0.04, 0.04), covariates=("template",))
    found = expected_numbers(made.picks, made.micrographs, made.mixture, made.likelihood, np.linspace(0, 0.6, 1201))
    mean = trapezoid(found.particle * found.grid, found.grid) / trapezoid(found.particle, found.grid)
    spread = np.sqrt(
        trapezoid(found.particle * (found.grid - mean) ** 2, found.grid) / trapezoid(found.particle, found.grid)
    )
    scores = made.picks["ncc"].values[made.planted.kind == PARTICLE]
    assert mean == pytest.approx(scores.mean(), abs=0.005)
    assert spread == pytest.approx(scores.std(), rel=0.06)


def test_dots_are_the_calibrated_picks_in_the_colour_of_their_probability(fitted):
    figure = fitted.figure("plane")
    (dots,) = [c for c in figure.axes[0].collections if isinstance(c, PathCollection) and len(c.get_offsets()) > 100]
    scores = calibrated_scores(fitted.picks, fitted.lines)
    expected = np.column_stack(
        [scores[name].values[fitted.valid] for name in ("ncc", "power")]
        + [fitted.likelihood["probability"].values[fitted.valid]]
    )
    drawn = np.column_stack([dots.get_offsets(), dots.get_array()])
    assert len(drawn) == len(expected) == fitted.valid.sum()
    np.testing.assert_allclose(drawn[np.lexsort(drawn.T)], expected[np.lexsort(expected.T)], rtol=1e-6)
    assert (dots.norm.vmin, dots.norm.vmax, dots.cmap.name) == (0, 1, "cividis")
    assert not np.array_equal(drawn, expected)


def test_many_picks_are_thinned_evenly(fitted, monkeypatch):
    monkeypatch.setattr("pickcal.plots.probability.MOST_DOTS", 700)
    (dots,) = [
        c
        for c in fitted.figure("plane").axes[0].collections
        if isinstance(c, PathCollection) and len(c.get_offsets()) > 100
    ]
    assert 500 <= len(dots.get_offsets()) <= 700
    assert dots.get_array().mean() == pytest.approx(float(fitted.likelihood["probability"].mean()), abs=0.05)


def test_the_power_maximum_is_that_of_the_automatic_selection(fitted):
    limit = power_limit(fitted.mixture, fitted.lines, fitted.micrographs)
    _, y = line(fitted.figure("plane").axes[0], f"power maximum of --auto: {limit:.3g}")
    assert list(y) == [limit, limit]


def test_contours_enclose_half_and_nine_tenths_of_what_was_planted_at_the_reference(fitted):
    plane = reference_plane(fitted.mixture, fitted.lines)
    scores = calibrated_scores(fitted.picks, fitted.lines)
    near = np.abs(fitted.planted.um) < 0.5
    for density, code in ((plane.noise, NOISE), (plane.particle, PARTICLE)):
        assert density.sum() == pytest.approx(1, abs=0.01)
        chosen = (fitted.planted.kind == code) & near[:, None]
        x, y = (scores[name].values[chosen] for name in ("ncc", "power"))
        at = density[
            np.clip(np.searchsorted(plane.power, y), 0, len(plane.power) - 1),
            np.clip(np.searchsorted(plane.ncc, x), 0, len(plane.ncc) - 1),
        ]
        for part in (0.5, 0.9):
            assert (at >= enclosing_level(density, part)).mean() == pytest.approx(part, abs=0.07)


def test_the_enclosing_level_of_a_gaussian():
    x = np.linspace(-6, 6, 401)
    density = multivariate_normal(cov=np.eye(2)).pdf(np.dstack(np.meshgrid(x, x)))
    # of a circle that holds a part p of it, the density at the rim is (1 - p) / 2 pi
    for part in (0.5, 0.9):
        assert enclosing_level(density, part) == pytest.approx((1 - part) / (2 * np.pi), rel=0.02)


def test_rates_and_accepted_picks_are_those_counted(fitted):
    rate, accepted = fitted.figure("false_discovery").axes
    probability, junk = (fitted.likelihood[name].values[fitted.valid].astype(float) for name in ("probability", "junk"))
    x, picks = line(accepted, "accepted picks")
    _, noise = line(accepted, "noise among them")
    _, dirt = line(accepted, "junk among them")
    tops = [c.get_paths()[0].vertices for c in rate.collections if isinstance(c, PolyCollection)]
    for i in range(0, len(x), 37):
        above = probability >= x[i]
        assert picks[i] == pytest.approx(above.sum() / MICROGRAPHS)
        assert dirt[i] == pytest.approx(junk[above].sum() / MICROGRAPHS)
        assert noise[i] == pytest.approx((1 - probability - junk)[above].sum() / MICROGRAPHS)
        heights = [vertices[np.isclose(vertices[:, 0], x[i], rtol=1e-12), 1].max() for vertices in tops]
        assert heights[0] == pytest.approx(100 * (1 - probability - junk)[above].mean())
        assert heights[1] == pytest.approx(100 * (1 - probability)[above].mean())


def test_marks_accept_as_many_as_the_rate_allows(fitted):
    rate, accepted = fitted.figure("false_discovery").axes
    probability = np.sort(fitted.likelihood["probability"].values[fitted.valid].astype(float))[::-1]
    running = np.cumsum(1 - probability) / np.arange(1, len(probability) + 1)
    for wanted, text in zip((0.01, 0.05, 0.10), texts(rate), strict=True):
        number = (running <= wanted).sum()
        assert text == f"{100 * wanted:g} % at {probability[number - 1]:.2f}"
        assert f"{number / MICROGRAPHS:.1f}" in texts(accepted)


def test_the_control_counts_decoys_where_noise_comes_from_them(fitted, bare):
    rate, accepted = fitted.figure("false_discovery").axes
    x, share = line(rate, "decoys per pick (control)")
    _, decoys = line(accepted, "decoys")
    model = Model.from_dataset(fitted.mixture)
    picks = fitted.picks
    swapped = picks.assign(
        {name: (("micrograph", "pick"), picks[f"decoy_{name}"].values) for name in ("x", "y", "ncc", "power")}
    )
    swapped["count"] = picks["decoy_count"]
    columns = {name: fitted.mixture[name] for name in ("fraction", "power_level")}
    alike = probabilities(swapped, fitted.micrographs, model.to_dataset().assign(columns))["probability"].values
    for i in range(0, len(x), 10):
        # some decoys fall into the shadow of others here, none of those in the fit
        assert np.nan_to_num(decoys[i]) * MICROGRAPHS == pytest.approx(
            (alike >= x[i]).sum(), abs=3 + 0.1 * (alike >= x[i]).sum()
        )
    assert np.all((share >= 0) & (share < 100)) and THRESHOLDS[0] <= x.min() < x.max() <= THRESHOLDS[1]
    assert "decoys" not in [found.get_label() for found in bare.figure("false_discovery").axes[1].lines]


def test_trends_are_those_planted_with_the_interval_of_the_slope(fitted):
    upper, lower = fitted.figure("trends").axes
    plan = fitted.planted.plan
    for label, mean in (("particles, mean", plan.particle_mean), ("noise, mean", plan.noise_mean)):
        x, y = line(upper, label)
        np.testing.assert_allclose(y, mean(x - REFERENCE * UM), atol=0.01)
    low, high = Model.from_dataset(fitted.mixture).report["slopes"]["ncc"]["interval"]
    assert f"(95 % {low:+.4f} to {high:+.4f})" in upper.get_title(loc="left")
    (band,) = [c for c in upper.collections if c.get_label() == "interval of its slope"]
    vertices = band.get_paths()[0].vertices
    right = vertices[np.isclose(vertices[:, 0], vertices[:, 0].max()), 1]
    reach = vertices[:, 0].max() - Model.from_dataset(fitted.mixture).trend.reference * UM
    assert np.ptp(right) == pytest.approx((high - low) * reach, rel=1e-6)
    (dots,) = [c for c in lower.collections if c.get_label() == "micrograph"]
    planted = [(row == PARTICLE).sum() / (row >= 0).sum() for row in fitted.planted.kind]
    np.testing.assert_allclose(dots.get_offsets()[:, 0], fitted.defocus * UM)
    np.testing.assert_allclose(dots.get_offsets()[:, 1], planted, atol=0.1)


def test_without_a_bootstrap_there_is_no_interval_and_without_junk_nobody_is_named(bare):
    upper, lower = bare.figure("trends").axes
    assert "interval of its slope" not in [c.get_label() for c in upper.collections]
    assert "95 %" not in upper.get_title(loc="left")
    assert texts(lower) == [] or bare.lines["outlier"].values.any()


def test_outlying_micrographs_are_ringed_and_named():
    shifts = np.zeros(24)
    shifts[5] = -0.12
    counts = iter([8.0 if i != 9 else 90.0 for i in range(24)])
    made = Fitted(
        micrographs=24, shifts=shifts, particle_mean=straight(0.42, 0.03), junk_count=lambda _um: next(counts)
    )
    lower = made.figure("trends").axes[1]
    (rings,) = [c for c in lower.collections if c.get_label() == "outlying"]
    assert {"m_0005", "m_0009"} <= set(texts(lower))
    for index in (5, 9):
        assert np.isclose(rings.get_offsets()[:, 0], made.defocus[index] * UM).any()


def test_a_spline_is_drawn_as_a_curve_without_the_interval_of_a_line(fitted):
    model = Model.from_dataset(fitted.mixture)
    bent = replace(model.trend, knots=(-1.0, -0.3, 0.3, 1.0))
    particles = replace(
        model.mixture.particles,
        ncc=np.array([0.4, 0.0, 0.5, -0.5]),
        deviation=np.append(model.mixture.particles.deviation, [0, 0]),
    )
    noise = model.mixture.noise
    noise = replace(noise, mean=np.append(noise.mean, [0, 0]), deviation=np.append(noise.deviation, [0, 0]))
    particles = replace(particles, power=np.append(particles.power, [0, 0]))
    mixture = replace(model.mixture, particles=particles, noise=noise)
    stored = replace(model, trend=bent, mixture=mixture, report={**model.report, "trend": "spline"}).to_dataset()
    stored = stored.merge(fitted.mixture[["fraction", "expected", "power_level"]], combine_attrs="override")
    axes = trends_figure(fitted.micrographs, fitted.lines, stored, fitted.names).axes[0]
    x, y = line(axes, "particles, mean")
    table = xr.Dataset({name: ("micrograph", x / UM) for name in ("defocus_u", "defocus_v")})
    np.testing.assert_allclose(y, bent.design(table) @ particles.ncc)
    assert "interval of its slope" not in [c.get_label() for c in axes.collections]
    assert "spline" in axes.get_title(loc="left")


def test_without_power_the_plane_says_so_and_the_rest_is_drawn(bare):
    assert [text.get_text() for text in bare.figure("plane").texts] == ["no picks with a power score"]
    for key in ("components", "false_discovery", "trends"):
        assert bare.figure(key).axes
    assert "decoys off particles" not in [patch.get_label() for patch in bare.figure("components").axes[0].patches]


def test_a_data_set_without_finished_micrographs_is_said(fitted):
    picks = fitted.picks.assign(status=fitted.picks["status"] * 0)
    figure = false_discovery_figure(picks, fitted.mixture, fitted.likelihood)
    assert [text.get_text() for text in figure.texts] == ["no finished micrograph with picks"]


@pytest.mark.parametrize("key", ["components", "plane", "false_discovery", "trends"])
def test_no_text_covers_another(fitted, key):
    assert overlapping(fitted.figure(key)) == []
