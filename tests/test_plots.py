import io

import numpy as np
import pytest
import xarray as xr
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import EllipseCollection, PathCollection
from matplotlib.image import imread
from planted import plant, planted_project
from small_project import (
    DIAMETER,
    LOG_POWER_SLOPE,
    NCC_SLOPE,
    add_calibration,
    failed,
    make_project,
    outlying,
)

from pickcal.calibration import calibrated_scores
from pickcal.calibration.lines import fit_lines, line_columns, micrograph_medians
from pickcal.errors import ProjectError
from pickcal.plots import (
    medians_figure,
    micrographs_figure,
    png,
    residuals_figure,
    scores_figure,
    threshold_figure,
)
from pickcal.plots.fits import fitted_line, slope_text
from pickcal.plots.images import low_middle_high
from pickcal.plots.project import MIXTURE_FIGURES, project_figures
from pickcal.plots.scores import flat_scores, terciles
from pickcal.plots.style import ORANGE, SKY, label_points, new_figure, short_names
from pickcal.selection import ACCEPTED
from pickcal.settings import CalibrateSettings, SelectSettings
from pickcal.stages.select import Judge

UM = 1e-4


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("plots") / "p.zarr")


@pytest.fixture(scope="module")
def calibration(project):
    return project.dataset("calibration/template").load()


@pytest.fixture(scope="module")
def picks(project):
    return project.dataset("picks/template").load()


@pytest.fixture(scope="module")
def names(project):
    return [str(name) for name in project.read("micrographs", "name")]


def refit(project, **settings):
    micrographs = project.micrographs().drop_vars("image").load()
    wanted = CalibrateSettings(bootstrap=0, **settings)
    medians = micrograph_medians(project.dataset("picks/template").load(), wanted.median_of)
    lines = fit_lines(medians, micrographs, wanted)
    return lines.assign(line_columns(lines, medians, micrographs))


def texts(axes):
    return [text.get_text() for text in axes.texts]


def overlapping(figure):
    """Pairs of titles, axis labels and annotations that cover each other."""
    figure.draw_without_rendering()
    renderer = FigureCanvasAgg(figure).get_renderer()
    found = []
    for axes in figure.axes:
        labels = [axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label, *axes.texts]
        found += [item for item in labels if item.get_text() and item.get_visible()]
    boxes = [(item.get_text(), item.get_window_extent(renderer)) for item in found]
    return [(a, b) for i, (a, box) in enumerate(boxes) for b, other in boxes[i + 1 :] if box.overlaps(other)]


def test_medians_are_drawn_at_the_planted_lines_before_and_level_after(calibration, names):
    figure = medians_figure(calibration, names)
    (ncc_before, ncc_after), (power_before, power_after) = np.array(figure.axes).reshape(2, 2)
    for axes, logarithmic, slope in (
        (ncc_before, False, NCC_SLOPE),
        (ncc_after, False, 0.0),
        (power_before, True, LOG_POWER_SLOPE),
        (power_after, True, 0.0),
    ):
        x, y = next(c for c in axes.collections if c.get_label() == "micrograph").get_offsets().T
        x, y = np.asarray(x), np.log(y) if logarithmic else np.asarray(y)
        ordinary = np.abs(y - np.median(y)) < 0.1 if slope == 0 and not logarithmic else y > -9
        if slope == NCC_SLOPE:
            ordinary = np.abs(y - (0.34 + slope * x)) < 0.05
        assert ordinary.sum() >= 9
        assert np.polyfit(x[ordinary], y[ordinary], 1)[0] == pytest.approx(slope, abs=0.06 if logarithmic else 0.01)


def test_the_line_and_its_band_are_the_fits_at_the_micrographs(project, calibration):
    for degree in (1, 2):
        fit = refit(project, degree=degree)
        for score in ("ncc", "power"):
            one = fit.sel(score=score).isel(group=0)
            x, level, half = fitted_line(one, points=4001)
            used = one["used"].values == 1
            at = one["defocus"].values[used] * UM
            np.testing.assert_allclose(np.interp(at, x, level), one["fitted"].values[used], atol=1e-5)
            np.testing.assert_allclose(np.interp(at, x, half), one["band"].values[used], atol=1e-5)


def test_the_line_after_calibration_is_level(calibration, names):
    for axes in medians_figure(calibration, names).axes[1::2]:
        line = next(line for line in axes.lines if line.get_label() == "fit")
        assert np.ptp(line.get_ydata()) < 1e-9


def test_outliers_are_ringed_and_named(calibration, names):
    figure = medians_figure(calibration, names)
    name = f"stack_{outlying(12) + 1:02d}"
    assert texts(figure.axes[0]) == [name]
    assert texts(figure.axes[1]) == [name]
    assert name in texts(residuals_figure(calibration, names).axes[0])
    ring = next(c for c in figure.axes[0].collections if c.get_label() == "outlying")
    fit = calibration.sel(score="ncc").isel(micrograph=outlying(12))
    np.testing.assert_allclose(ring.get_offsets(), [[float(fit["defocus"]) * UM, float(fit["median"])]])


def test_panel_titles_give_slope_interval_and_rho(calibration, names):
    titles = [axes.get_title(loc="left") for axes in medians_figure(calibration, names).axes]
    fit = calibration.isel(group=0)
    low, high = (float(fit[name].sel(score="ncc")) for name in ("slope_low", "slope_high"))
    assert f"95 % {low:+.4f} to {high:+.4f}" in titles[0]
    assert f"ρ = {float(calibration['rho_before'].sel(score='ncc')):+.2f}" in titles[0]
    assert f"ρ = {float(calibration['rho_after'].sel(score='power')):+.2f}" in titles[3]


def test_the_power_slope_is_a_factor_per_micrometre(calibration):
    one = calibration.sel(score="power").isel(group=0)
    factor = float(slope_text(one, "power", 0.95).split()[1])
    assert factor == pytest.approx(np.exp(LOG_POWER_SLOPE), rel=0.06)


def test_a_calibration_that_is_turned_off_or_refused_says_so(project, names):
    off = medians_figure(refit(project, ncc="none"), names)
    assert "not calibrated" in off.axes[1].get_title(loc="left")
    before, after = (off.axes[i].collections[0].get_offsets() for i in (0, 1))
    np.testing.assert_array_equal(before, after)
    few = refit(project, covariates=("ice_thickness", "astigmatism"))
    few["covariance"][:] = np.nan
    few["slope"][:] = np.nan
    assert "not fitted" in medians_figure(few, names).axes[0].get_title(loc="left")


def test_covariates_and_groups_are_drawn(project, names):
    with_ice = medians_figure(refit(project, covariates=("ice_thickness",)), names)
    dashes = [c for c in with_ice.axes[0].collections if c.get_label() == "fit"]
    assert isinstance(dashes[0], PathCollection) and len(dashes[0].get_offsets()) == 12
    assert png(medians_figure(refit(project, per_group=True), names))


def test_unused_micrographs_are_hollow(calibration, names):
    part = calibration.copy(deep=True)
    part["used"][:, 0] = 0
    hollow = [c for c in medians_figure(part, names).axes[0].collections if c.get_label() == "not used in the fit"]
    assert len(hollow[0].get_facecolor()) == 0
    assert len(hollow[0].get_offsets()) == 1


def test_flat_scores_hold_every_pick_once_and_no_padding(picks, calibration):
    flat = flat_scores(picks, calibration)
    scores = calibrated_scores(picks, calibration)
    expected = [scores["ncc"].values[i, :n] for i, n in enumerate(picks["count"].values)]
    np.testing.assert_array_equal(flat["ncc"], np.concatenate(expected))
    assert len(flat["decoy_ncc"]) == int(picks["decoy_count"].sum())
    assert np.isfinite(flat["power"]).all()


def test_many_scores_are_thinned_evenly(picks, calibration, monkeypatch):
    monkeypatch.setattr("pickcal.plots.scores.MOST_POINTS", 500)
    flat = flat_scores(picks, None)
    assert 400 <= len(flat["ncc"]) <= 500
    full = picks["ncc"].values
    assert np.nanmedian(full) == pytest.approx(np.median(flat["ncc"]), abs=0.02)


def test_thirds_are_equal_and_ordered_by_defocus(picks, calibration):
    defocus = calibration["defocus"].values
    parts = [members for _, members in terciles(picks, defocus)]
    assert [len(part) for part in parts] == [4, 3, 3]
    assert defocus[parts[0]].max() < defocus[parts[1]].min() < defocus[parts[2]].min()
    assert failed(12) not in np.concatenate(parts)
    assert terciles(picks.isel(micrograph=[failed(12)]), defocus[[failed(12)]]) == []


def test_threshold_lines_count_accepted_picks(picks, calibration):
    figure = threshold_figure(picks, calibration)
    for axes, fit in zip(figure.axes, (None, calibration), strict=True):
        ncc = calibrated_scores(picks, fit)["ncc"].values
        for (_, members), line in zip(terciles(picks, calibration["defocus"].values), axes.lines[::2], strict=False):
            x, y = line.get_xdata()[150], line.get_ydata()[150]
            assert y == pytest.approx((ncc[members] >= x).sum() / len(members))


def test_decoys_are_left_out_where_there_are_none(picks, calibration):
    bare = picks.drop_vars(["decoy_ncc", "decoy_power"])
    assert png(scores_figure(bare, calibration))
    assert png(threshold_figure(bare, calibration))


def test_circles_are_the_accepted_picks_at_the_particle_diameter(project, calibration):
    settings = SelectSettings(min_ncc=0.3, edge=100.0)
    figure = micrographs_figure(project, "template", calibration, settings, DIAMETER)
    chosen = low_middle_high(project, project.dataset("picks/template"), calibration)
    accepted = project.dataset("selection/strict")["counts"].sel(reason="accepted").values
    for axes, index in zip(figure.axes, chosen, strict=True):
        circles = {c.get_edgecolor()[0].tobytes(): c for c in axes.collections if isinstance(c, EllipseCollection)}
        drawn = circles[rgba(SKY).tobytes()]
        assert len(drawn.get_offsets()) == accepted[index] > 30
        np.testing.assert_allclose(drawn.get_widths(), DIAMETER / 10)
        assert f"{accepted[index]} accepted" in axes.get_title()
        rejected = circles[rgba(ORANGE).tobytes()].get_offsets() * 10
        height, width = project.image(int(index)).shape
        right, bottom = (width - 1) * 5.0, (height - 1) * 5.0
        near = (rejected < 100).any(axis=1) | (rejected[:, 0] > right - 100) | (rejected[:, 1] > bottom - 100)
        assert near.all()


def rgba(colour):
    from matplotlib.colors import to_rgba_array

    return to_rgba_array(colour)[0]


def test_circles_lie_on_the_dark_discs(project, calibration):
    figure = micrographs_figure(project, "template", calibration, SelectSettings(min_ncc=0.33), DIAMETER)
    axes = figure.axes[2]
    index = low_middle_high(project, project.dataset("picks/template"), calibration)[2]
    image = project.image(int(index))
    centres = np.asarray(axes.collections[-1].get_offsets()) * 10 / 5.0
    means = [image[int(y) - 3 : int(y) + 4, int(x) - 3 : int(x) + 4].mean() for x, y in centres]
    assert np.mean(means) < image.mean() - 0.4
    assert axes.get_ylim()[0] > axes.get_ylim()[1]
    assert axes.get_aspect() == 1


def test_a_selection_by_probability_draws_its_picks_and_no_noise_as_rejected(project, calibration):
    settings = SelectSettings(probability=0.9, max_power=50.0)
    figure = micrographs_figure(project, "template", calibration, settings, DIAMETER)
    chosen = low_middle_high(project, project.dataset("picks/template"), calibration)
    accepted = (Judge(project, "template", settings).block(0, project.count).reasons == ACCEPTED).sum(axis=1)
    for axes, index in zip(figure.axes, chosen, strict=True):
        (circles,) = [c for c in axes.collections if isinstance(c, EllipseCollection)]
        assert len(circles.get_offsets()) == accepted[index] > 40


def test_low_middle_high_are_ordinary_micrographs_in_order(project, picks, calibration):
    chosen = low_middle_high(project, picks, calibration)
    defocus = calibration["defocus"].values
    usable = np.setdiff1d(np.arange(10), [outlying(12)])
    assert defocus[chosen[0]] == defocus[usable].min()
    assert defocus[chosen[2]] == defocus[usable].max()
    assert defocus[chosen[0]] < defocus[chosen[1]] < defocus[chosen[2]]


def test_without_a_selection_the_estimated_number_is_drawn(project, calibration):
    figure = micrographs_figure(project, "template", calibration, None, DIAMETER)
    chosen = low_middle_high(project, project.dataset("picks/template"), calibration)
    for axes, index in zip(figure.axes, chosen, strict=True):
        assert f"{int(calibration['particles'].values[index])} best" in axes.get_title()


def test_excluded_micrographs_elsewhere_do_not_stop_the_plot(project, calibration):
    settings = SelectSettings(exclude=("mics/stack_05.mrc",), min_ncc=0.3)
    assert micrographs_figure(project, "template", calibration, settings, DIAMETER).axes


def test_no_finished_micrograph_is_said(tmp_path):
    made = make_project(tmp_path / "p.zarr", micrographs=8, calibrate=False)
    made._array("picks/template", "status")[:] = np.zeros(8, np.int8)
    figure = micrographs_figure(made, "template", None, None, DIAMETER)
    assert [text.get_text() for text in figure.texts] == ["no finished micrograph"]


def test_no_text_covers_another(project, picks, calibration, names):
    for figure in (
        medians_figure(calibration, names),
        residuals_figure(calibration, names),
        scores_figure(picks, calibration),
        threshold_figure(picks, calibration),
        micrographs_figure(project, "template", calibration, None, DIAMETER),
    ):
        assert overlapping(figure) == []


def test_names_of_crowded_outliers_are_kept_apart_and_few():
    figure = new_figure(6, 4)
    axes = figure.subplots()
    rng = np.random.default_rng(0)
    points = np.column_stack([rng.uniform(0, 1, 9), rng.uniform(0.49, 0.51, 9)])
    axes.scatter(*points.T)
    axes.set(xlim=(0, 1), ylim=(0, 1))
    label_points(axes, *points.T, [f"micrograph_{i}" for i in range(9)], points)
    assert texts(axes) == [f"micrograph_{i}" for i in range(6)]
    assert overlapping(figure) == []


def test_short_names():
    assert short_names(["a/one_fractions.mrc", "b/two_fractions.mrc"]) == ["one", "two"]
    assert short_names(["a/x_01.mrc", "a/x_02.mrc"]) == ["x_01", "x_02"]
    assert short_names(["same.mrc", "same.mrc"]) == ["same", "same"]
    (long,) = short_names(["FoilHole_30001234_Data_30005678_20240101_120000.mrc"])
    assert len(long) == 22 and long.startswith("FoilHol") and long.endswith("_120000")


def test_png_is_a_picture_of_the_asked_size(calibration, names):
    picture = imread(io.BytesIO(png(residuals_figure(calibration, names), dpi=50)))
    assert picture.shape[:2] == (300, 500)
    assert picture.std() > 0.01


def none(um):
    return 0


@pytest.mark.parametrize(
    ("changes", "keys"),
    [
        (dict(micrographs=1), ["medians", "scores", "thresholds"]),
        (dict(micrographs=3), ["medians", "scores", "thresholds", *MIXTURE_FIGURES]),
        (dict(particle_count=none), ["medians", "scores", "thresholds", *MIXTURE_FIGURES]),
        (dict(particle_count=none, noise_count=lambda um: 1, micrographs=4), ["medians", "scores", "thresholds"]),
        (dict(defocus=(15000.0,) * 8), ["medians", "scores", "thresholds", *MIXTURE_FIGURES]),
        (dict(noise_count=none), ["medians", "residuals", "scores", "thresholds", *MIXTURE_FIGURES]),
    ],
    ids=["one", "three", "no particles", "hardly a pick", "one defocus", "no noise"],
)
def test_projects_of_which_little_can_be_said_are_drawn_without_a_warning(tmp_path, changes, keys):
    """Residuals only where a line was fitted; what has nothing to show says so."""
    made = planted_project(tmp_path / "p.zarr", plant(**{"micrographs": 8, **changes}))
    add_calibration(made)
    drawn = {key: figure for key, _, figure in project_figures(made, "template")}
    assert [key for key in drawn if key not in ("plane", "micrographs")] == [key for key in keys if key != "plane"]
    assert all(png(figure) for figure in drawn.values())


def test_without_defocus_there_are_no_thresholds_to_compare(picks, calibration):
    unknown = calibration.assign(defocus=calibration["defocus"] * np.nan)
    (text,) = threshold_figure(picks, unknown).texts
    assert text.get_text() == "no finished micrograph with picks and defocus"


def test_project_figures_without_calibration_and_of_wrong_selections(tmp_path, project):
    made = make_project(tmp_path / "p.zarr", micrographs=8, calibrate=False)
    assert [key for key, _, _ in project_figures(made, "template")] == ["micrographs"]
    add_calibration(made)
    keys = [key for key, _, _ in project_figures(made, "template")]
    assert keys == ["medians", "residuals", "scores", "thresholds", *MIXTURE_FIGURES, "micrographs"]
    add_calibration(made, CalibrateSettings(probability="none"))
    keys = [key for key, _, _ in project_figures(made, "template")]
    assert keys == ["medians", "residuals", "scores", "thresholds", "micrographs"]
    with pytest.raises(ProjectError, match="no selection named 'loose'"):
        list(project_figures(project, "template", "loose"))
    counts = xr.Dataset(
        {"counts": (("reason", "micrograph"), np.zeros((1, 12), np.int32))},
        coords={"reason": ["accepted"]},
        attrs={"picks": "blob"},
    )
    project.write_whole("selection", "other", counts, {"picks": "blob", **SelectSettings().stored()})
    with pytest.raises(ProjectError, match="of picks 'blob', not of 'template'"):
        list(project_figures(project, "template", "other"))
    project.remove("selection/other")
