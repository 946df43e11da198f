"""Plots, report and dashboard of other programs' picks: the right words, and nothing about what is not there."""

import re
from pathlib import Path

import numpy as np
import pytest
from matplotlib.collections import PathCollection
from small_project import DIAMETER, HEIGHT, WIDTH, make_project
from test_plots import overlapping
from test_report import Page

from pickcal.calibration import calibrated_scores
from pickcal.calibration.trends import mean_defocus
from pickcal.calibration.verdicts import ScoreWords, heading, ranked_outliers
from pickcal.dashboard.controller import Inspector
from pickcal.dashboard.session import Session
from pickcal.plots import medians_figure, residuals_figure, scores_figure, threshold_figure
from pickcal.plots.images import ordinary_by_defocus
from pickcal.plots.project import project_figures
from pickcal.plots.style import beyond_text, robust_limits
from pickcal.project import Project
from pickcal.report import report_content, save_plots, write_report
from pickcal.report.probability import thresholds_in_words
from pickcal.schema import Status, score_variable
from pickcal.selection import ACCEPTED, reason_counts
from pickcal.settings import CalibrateSettings, SelectSettings
from pickcal.stages.calibrate import calibrate
from pickcal.stages.select import Judge, select

POWER_FACTOR = 840.0
LABELS = {"figure_of_merit": "RELION figure of merit", "score": "Topaz score"}


def figure_of_merit(ncc):
    """Scores with a tail: one in 173 picks is far above the others."""
    scores = 6 * ncc - 0.5
    scores.reshape(-1)[5::173] *= 20
    return scores


def topaz_score(ncc):
    return 20 * ncc - 6


def foreign_project(path: Path, program: str, images: bool = True) -> Project:
    """Write the picks of the small project as those of another program: without decoys, with its own scores."""
    made = make_project(path, calibrate=False)
    values = {name: made.read("picks/template", name) for name in ("x", "y", "ncc", "power", "count", "status")}
    made.remove("picks/template")
    attributes = {"bank": program, "diameter": DIAMETER, "program": program}
    extra = {}
    if program == "cryosparc":
        attributes |= {"score": "ncc", "score_label": "NCC score", "scores": ["ncc", "power"]}
        attributes |= {"power_label": "cryoSPARC power"}
        values["power"] = values["power"] * np.float32(POWER_FACTOR)
    else:
        key, scored = {"relion": ("figure_of_merit", figure_of_merit), "topaz": ("score", topaz_score)}[program]
        attributes |= {"score": key, "score_label": LABELS[key], "scores": [key]}
        extra = {key: score_variable(LABELS[key])}
        values[key] = scored(values.pop("ncc").astype(np.float64))
        del values["power"]
        order = np.argsort(-np.nan_to_num(values[key], nan=-np.inf), axis=1, kind="stable")
        values |= {name: np.take_along_axis(values[name], order, axis=1) for name in ("x", "y", key)}
    made.create_picks(program, values["x"].shape[1], None, {}, attributes, extra)
    made.write_blocks(f"picks/{program}", 0, made.count, values)
    made.finish(f"picks/{program}", {"method": "import", "diameter": DIAMETER})
    if not images:
        empty = {"shape": (made.count, 0, 0), "chunks": (1, 1, 1), "dimension_names": ("micrograph", "y", "x")}
        made._group("micrographs").create_array("image", dtype="f2", overwrite=True, **empty)
        made = Project.open(path, "r+")
    calibrate(made, program, CalibrateSettings(bootstrap=0))
    return made


@pytest.fixture(scope="module")
def relion(tmp_path_factory):
    """Tables only."""
    made = foreign_project(tmp_path_factory.mktemp("relion") / "p.zarr", "relion", images=False)
    select(made, "relion", "strict", SelectSettings(min_ncc=1.5))
    return made


@pytest.fixture(scope="module")
def topaz(tmp_path_factory):
    return foreign_project(tmp_path_factory.mktemp("topaz") / "p.zarr", "topaz")


@pytest.fixture(scope="module")
def cryosparc(tmp_path_factory):
    return foreign_project(tmp_path_factory.mktemp("cryosparc") / "p.zarr", "cryosparc")


def parts(made, name):
    """Calibration, names, and scores of all picks."""
    names = [str(text) for text in made.read("micrographs", "name")]
    return made.calibration(name), names, made.picks(name).load()


def words_of(figure):
    """All text of a figure, legends included."""
    figure.draw_without_rendering()
    from matplotlib.text import Text

    return "\n".join(found.get_text() for found in figure.findobj(Text))


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({}, ScoreWords("NCC score", "power score", "noise variances")),
        ({"score_label": "Topaz score", "program": "topaz"}, ScoreWords("Topaz score", "power score", "")),
        ({"power_label": "cryoSPARC power", "program": "cryosparc"}, ScoreWords("NCC score", "cryoSPARC power", "")),
        ({"score_label": "", "program": ""}, ScoreWords("NCC score", "power score", "noise variances")),
    ],
)
def test_words_come_from_the_attributes(attributes, words):
    assert ScoreWords.of(attributes) == words


def test_axes_have_units_only_for_our_own_power():
    assert ScoreWords().axis("power", "calibrated") == "calibrated power score (noise variances)"
    assert ScoreWords(power="cryoSPARC power", unit="").axis("power") == "cryoSPARC power"
    assert ScoreWords("Topaz score").axis("ncc", "calibrated") == "calibrated Topaz score"


def test_headings_keep_names_that_begin_in_lower_case():
    assert [heading(text) for text in ("power score", "figure of merit", "crYOLO confidence", "RELION x", "")] == [
        "Power score",
        "Figure of merit",
        "crYOLO confidence",
        "RELION x",
        "",
    ]


def test_limits_hold_everything_unless_a_few_values_lie_far_out():
    rng = np.random.default_rng(0)
    normal = rng.standard_normal(5000)
    assert robust_limits(normal) == (normal.min(), normal.max())
    heavy = np.r_[normal, np.full(10, 60.0), -np.inf, np.nan]
    low, high = robust_limits(heavy)
    assert low == normal.min() and 2 < high < 4
    assert beyond_text(heavy, (-9.0, high)).startswith("not shown: ")
    assert robust_limits(np.empty(0)) == (0.0, 1.0) == robust_limits(np.full(3, np.nan))
    assert robust_limits(np.full(9, 2.0)) == (2.0, 2.0)


def test_the_note_counts_what_lies_beyond():
    values = np.array([-3.0, 0.1, 0.5, 7.0, 31.88])
    assert beyond_text(values, (0.0, 1.0)) == "not shown: 1 pick, down to -3; 2 picks, up to 31.9"
    assert beyond_text(values, (-5.0, 40.0)) == ""


def test_all_figures_without_power_decoys_and_images(relion):
    figures = {key: figure for key, _, figure in project_figures(relion, "relion", "strict")}
    assert list(figures) == [
        *("medians", "residuals", "scores", "thresholds"),
        *("components", "false_discovery", "probability_trends"),
    ]
    for key, figure in figures.items():
        text = words_of(figure)
        assert not re.search("NCC|power|decoy|junk|noise variances", text), (key, text)
        assert overlapping(figure) == [], key
        if key not in ("residuals", "false_discovery"):
            assert "RELION figure of merit" in text, key


def test_captions_say_what_is_drawn(relion, cryosparc):
    for made, name, caption in (
        (relion, "relion", "RELION figure of merit of picks, before and after calibration."),
        (cryosparc, "cryosparc", "NCC score and cryoSPARC power of picks, before and after calibration."),
    ):
        assert caption in [text for _, text, _ in project_figures(made, name)]


def test_without_power_there_is_one_row(relion):
    fit, names, picks = parts(relion, "relion")
    assert len(medians_figure(fit, names).axes) == 2
    assert len(residuals_figure(fit, names).axes) == 1
    assert [axes.get_xlabel() for axes in scores_figure(picks, fit).axes] == [
        "RELION figure of merit",
        "calibrated RELION figure of merit",
    ]


def test_medians_of_another_score_are_drawn_where_they_are(topaz):
    fit, names, picks = parts(topaz, "topaz")
    axes = medians_figure(fit, names).axes[0]
    (dots,) = [c for c in axes.collections if isinstance(c, PathCollection) and c.get_label() == "micrograph"]
    counts = picks["count"].values
    expected = [np.median(topaz.read("picks/topaz", "score")[i, :n]) for i, n in enumerate(counts) if n]
    # of an even number of picks it may be either of the middle ones
    np.testing.assert_allclose(np.sort(dots.get_offsets()[:, 1]), np.sort(expected), atol=0.02)
    assert axes.get_ylabel() == "median Topaz score"
    assert axes.get_title(loc="left").startswith("Topaz score, before")


def test_far_scores_are_counted_and_do_not_stretch_the_axes(relion):
    fit, _, picks = parts(relion, "relion")
    for figure in (scores_figure(picks, fit), threshold_figure(picks, fit)):
        for axes, lines in zip(figure.axes, (None, fit), strict=True):
            scores = calibrated_scores(picks, lines)["ncc"].values
            scores = scores[np.isfinite(scores)]
            (note,) = [text.get_text() for text in axes.texts]
            number = int(re.match(r"not shown: (\d+) picks, up to", note)[1])
            low, high = axes.get_xlim()
            assert high < 0.5 * scores.max()
            # margins beside the drawn range may hold one or two of them
            assert 0 <= number - (scores > high).sum() <= 3 and number > 5
            assert low <= scores.min()


def test_power_of_another_program_has_no_unit_of_ours(cryosparc):
    fit, names, picks = parts(cryosparc, "cryosparc")
    for figure in (medians_figure(fit, names), scores_figure(picks, fit)):
        text = words_of(figure)
        assert "cryoSPARC power" in text and "NCC score" in text
        assert "noise variances" not in text and "power score" not in text and "decoys" not in text
    assert "decoys" not in words_of(threshold_figure(picks, fit))
    figures = {key: figure for key, _, figure in project_figures(cryosparc, "cryosparc")}
    assert figures["plane"].axes[0].get_ylabel() == "calibrated cryoSPARC power"
    assert "micrographs" in figures
    for key, figure in figures.items():
        assert overlapping(figure) == [], key


def test_outlying_micrographs_are_named_by_the_score(relion):
    fit = relion.calibration("relion").copy(deep=True)
    fit["outlier"].values[:, 2] = 1
    fit["residual"].values[:, 2] = 5.0, -6.0
    names = [str(i) for i in range(12)]
    (row,) = [row for row in ranked_outliers(fit, names, np.full(12, np.nan)) if row["index"] == 2]
    assert row["why"] == "RELION figure of merit +5.0 deviations from the fit; power score -6.0 deviations from the fit"


def test_micrographs_are_shown_without_the_outlying_one_where_there_is_no_power(relion):
    fit, finished = relion.calibration("relion").copy(deep=True), relion.done("picks/relion") == Status.DONE
    assert np.isnan(fit["median"].sel(score="power")).all() and finished[4]
    fit["outlier"].values[0, 4] = 1
    shown = ordinary_by_defocus(finished, mean_defocus(relion.table()), fit)
    assert set(shown) == set(np.flatnonzero(finished)) - {4}


def test_the_report_of_tables_only(relion, tmp_path):
    text = write_report(relion, tmp_path / "r.html")[0].read_text()
    rows = {row[0]: row[1:] for row in Page(text).rows}
    assert rows["Images"] == ["none: this project holds tables only"]
    assert rows["Source size"] == [f"{5 * HEIGHT} rows × {5 * WIDTH} columns"]
    assert "Working pixel" not in rows
    header = next(row for row in Page(text).rows if row[:1] == ["Micrograph"] and "Picks" in row)
    assert header[3:] == ["Median RELION figure of merit", "strict: accepted", "Status"]
    assert len(rows["mics/stack_01.mrc"]) == len(header) - 1
    assert rows["strict"][0] == "RELION figure of merit at least 1.5"
    titles = next(row for row in Page(text).rows if row[:1] == ["Selection"])
    assert "low power" not in titles and "high power" not in titles and "low score" in titles
    assert sum(map(int, rows["strict"][1:])) == int(relion.read("picks/relion", "count").sum())
    assert "Imported from RELION; their score is the RELION figure of merit." in text
    assert "No power score." in text and "<code>pickcal score<" not in text
    visible = re.sub(r'src="data:[^"]*"', "", text[: text.index('id="settings"')])
    assert " decoys." not in visible and "NCC" not in visible and "Expected junk" not in visible
    assert "<summary>import picks relion</summary>" in text


def test_the_report_says_how_to_get_a_power_score_where_there_are_images(topaz, tmp_path):
    text = write_report(topaz, tmp_path / "r.html")[0].read_text()
    assert "No power score; <code>pickcal score</code> adds one." in text
    assert ["mics/stack_11.mrc", "import picks topaz"] in [row[:2] for row in Page(text).rows]


def test_the_report_names_the_power_of_another_program(cryosparc, monkeypatch):
    monkeypatch.setattr("pickcal.report.page.project_figures", lambda *_: [])
    (group,) = report_content(cryosparc)["groups"]
    assert group["columns"] == ["Median NCC score", "Median cryoSPARC power"] and group["no_power"] == ""
    assert [row["score"] for row in group["scores"]] == ["NCC score", "cryoSPARC power"]


def test_sizes_that_differ_are_listed_and_unknown_ones_left_out(topaz, monkeypatch):
    monkeypatch.setattr("pickcal.report.page.project_figures", lambda *_: [])
    table = topaz.table()
    table["source_height"].values[:5] = 4000
    table["source_width"].values[5:7] = 0
    monkeypatch.setattr(type(topaz), "table", lambda _self: table)
    size = f"{5 * HEIGHT} rows × {5 * WIDTH} columns"
    assert dict(report_content(topaz)["facts"])["Source size"] in (
        f"4000 rows × {5 * WIDTH} columns; {size}",
        f"{size}; 4000 rows × {5 * WIDTH} columns",
    )
    table["source_width"].values[:] = 0
    assert "Source size" not in dict(report_content(topaz)["facts"])


def test_plots_are_saved_without_images(relion, tmp_path):
    written = {path.name for path in save_plots(relion, "relion", tmp_path)}
    assert "relion_medians.png" in written
    assert not written & {"relion_micrographs.png", "relion_plane.png"}


def test_thresholds_in_the_words_of_the_program():
    words = ScoreWords("crYOLO confidence", "cryoSPARC power", "")
    settings = {"min_ncc": 0.3, "max_power": 4000.0, "fdr": 0.05}
    expected = "crYOLO confidence at least 0.3, cryoSPARC power at most 4000, false discovery rate at most 5 %"
    assert thresholds_in_words(settings, words) == expected


def inspected(project, picks):
    """A visitor of the dashboard, with all picks binned."""
    session = Session(Inspector(project.path, read_only=True), read_only=True)
    session.follow({"picks": picks})
    assert session.inspector.background.wait(60)
    return session


@pytest.mark.parametrize("threshold", [-20.0, -1.0, 0.5, 1.5, 4.0])
def test_the_dashboard_counts_the_scores_of_the_program(relion, threshold):
    session = inspected(relion, "relion")
    assert session.method == "line" and session.settings.min_ncc == 1.5
    session.set_threshold("min_ncc", session.cube.main.snap(threshold))
    judged = Judge(relion, "relion", session.settings).block(0, relion.count)
    assert session.counts.exact
    np.testing.assert_array_equal(session.counts.reasons, reason_counts(judged.reasons).sum(axis=1))


def test_the_sliders_edges_end_before_the_far_scores(relion, topaz):
    edges = inspected(relion, "relion").cube.main.edges
    scores = calibrated_scores(relion.picks("relion"), relion.calibration("relion"))["ncc"].values
    assert edges[0] <= np.nanmin(scores) and edges[-1] < 0.6 * np.nanmax(scores)
    session = inspected(topaz, "topaz")
    session.set_method("line")
    assert session.inspector.background.wait(60)
    assert session.cube.main.edges[0] < 0 < session.cube.main.edges[-1]


def test_the_dashboard_shows_no_power_and_no_decoys_that_are_not_there(relion, cryosparc):
    session = inspected(relion, "relion")
    inspector = session.inspector
    assert [title for title, _ in inspector.verdicts("relion")] == [
        "RELION figure of merit",
        "probability of being a particle",
    ]
    assert "plane" not in inspector.figures("relion") and not inspector.has_images and session.cube.power is None
    inspector = Inspector(cryosparc.path)
    assert [title for title, _ in inspector.verdicts("cryosparc")][1] == "natural logarithm of the cryoSPARC power"
    assert "plane" in inspector.figures("cryosparc") and inspector.has_images


def test_picks_without_a_score_do_not_count_above_a_threshold(tmp_path):
    made = foreign_project(tmp_path / "p.zarr", "topaz")
    values = made.read("picks/topaz", "score")
    counts = made.read("picks/topaz", "count")
    for row, count in zip(values, counts, strict=True):
        row[max(count - 7, 0) : count] = np.nan
    made._array("picks/topaz", "score")[:] = values
    session = inspected(made, "topaz")
    session.set_method("line")
    assert session.inspector.background.wait(60)
    session.set_threshold("min_ncc", float(session.cube.main.edges[0]))
    judged = Judge(made, "topaz", session.settings).block(0, made.count)
    assert session.counts.reasons[ACCEPTED] == (judged.reasons == ACCEPTED).sum() <= np.isfinite(values).sum()
