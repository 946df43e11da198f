import re
from html.parser import HTMLParser

import numpy as np
import pytest
from small_project import (
    DIAMETER,
    FAILED_REASON,
    PARTICLES,
    add_calibration,
    add_selection,
    failed,
    make_project,
    outlying,
)

from pickcal.calibration.mixture import probabilities
from pickcal.errors import InputError, ProjectError
from pickcal.plots import micrographs_figure, png
from pickcal.plots.project import MIXTURE_FIGURES
from pickcal.project import Project
from pickcal.report import report_content, save_plots, write_report
from pickcal.settings import CalibrateSettings, HandPick, SelectSettings
from pickcal.stages.calibrate import lay_on_more

EVIL = "mics/<script>alert('&\"x')</script>_%02d.mrc"


class Page(HTMLParser):
    """What a page holds: tags with attributes, and the text of every table cell."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.cells, self.rows, self.depth = [], [], [], 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.depth = 1

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.depth = 0

    def handle_data(self, data):
        if self.depth:
            self.rows[-1][-1] += data


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    return make_project(tmp_path_factory.mktemp("report") / "p.zarr")


@pytest.fixture(scope="module")
def text(project, tmp_path_factory):
    path = tmp_path_factory.mktemp("out") / "deep" / "report.html"
    assert write_report(Project.open(project.path), path) == [path]
    assert [item.name for item in path.parent.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


@pytest.fixture
def unrendered(monkeypatch):
    """Leave the pictures out of a page whose words are asked for: rendering takes as long as all else."""
    monkeypatch.setattr("pickcal.report.page.png", lambda _figure: b"")


def test_the_page_needs_nothing_but_itself(text):
    page = Page(text)
    assert not [tag for tag, _ in page.tags if tag in ("script", "iframe", "object", "embed", "base")]
    for tag, attributes in page.tags:
        for key in ("src", "href"):
            assert attributes.get(key, "#").startswith(("#", "data:")), (tag, attributes[key][:80])
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style and "@import" not in style and "http" not in style
    assert "prefers-color-scheme: dark" in style and "@media print" in style


def test_all_plots_are_inside_with_words_for_those_who_cannot_see_them(text):
    images = [attributes for tag, attributes in Page(text).tags if tag == "img"]
    assert len(images) == 5 + len(MIXTURE_FIGURES)
    assert all(image["src"].startswith("data:image/png;base64,iVBOR") and image["alt"] for image in images)


def test_failures_come_first_with_stage_and_reason(text):
    rows = Page(text).rows
    assert ["mics/stack_12.mrc", "import", "skipped", "no defocus in the STAR file"] in rows
    assert [f"mics/stack_{failed(12) + 1}.mrc", "pick template", "failed", FAILED_REASON] in rows
    assert text.index('id="failures"') < text.index('id="picks-template"') < text.index("<img")
    assert "2 failed or skipped" in text


def test_table_of_scores_and_outlying_micrographs(text, project):
    rows = Page(text).rows
    fit = project.dataset("calibration/template").load()
    ncc = next(row for row in rows if row[0] == "NCC score" and "per µm" in row[1])
    assert ncc[1].startswith(f"{fit['slope'].sel(score='ncc').item():+.4f} per µm (95 %")
    assert ncc[2:] == [f"{fit[f'rho_{w}'].sel(score='ncc').item():+.2f}" for w in ("before", "after")]
    name, residual = f"mics/stack_{outlying(12) + 1:02d}.mrc", float(fit["residual"].sel(score="ncc")[outlying(12)])
    (outlier,) = [row for row in rows if len(row) == 3 and row[0] == name]
    assert residual < -4
    assert f"NCC score {residual:+.1f} deviations from the fit" in outlier[2]
    for verdict in fit["verdict"].values.ravel():
        assert str(verdict) in text


def test_selection_counts_add_up_to_all_picks(text, project):
    row = next(row for row in Page(text).rows if row[0] == "strict")
    assert row[1] == "NCC score at least 0.3, at least 100 Å from the border"
    assert sum(int(cell) for cell in row[2:]) == int(project.read("picks/template", "count").sum())
    assert int(row[2]) == int(project.dataset("selection/strict")["counts"].sel(reason="accepted").sum())


@pytest.fixture(scope="module")
def judged_picks(project):
    """Probability and junk of every pick, and q-values."""
    micrographs = project.micrographs().drop_vars("image").load()
    picks = project.dataset("picks/template").load()
    found = probabilities(picks, micrographs, project.mixture("template"))
    return {name: found[name].values[np.isfinite(found[name].values)] for name in ("probability", "junk", "q_value")}


def test_table_of_thresholds_counts_accepted_and_expected_false_picks(text, judged_picks):
    probability, junk, q_value = judged_picks.values()
    rows = {row[0]: row[1:] for row in Page(text).rows if len(row) == 5}
    masks = {f"probability at least {p:g}": probability >= p for p in (0.5, 0.9, 0.95, 0.99)}
    masks |= {f"false discovery rate at most {100 * rate:g} %": q_value <= rate for rate in (0.01, 0.05, 0.1)}
    for threshold, mask in masks.items():
        accepted, noise, dirt, rate = rows[threshold]
        assert int(accepted) == mask.sum() > 100
        false = 1 - probability[mask].astype(float)
        assert float(dirt) == pytest.approx(junk[mask].sum(), abs=0.06)
        assert float(noise) == pytest.approx(false.sum() - junk[mask].sum(), abs=0.06)
        assert float(rate.removesuffix(" %")) == pytest.approx(100 * false.mean(), abs=0.06)


def test_expected_numbers_add_up_to_all_picks_and_particles_are_those_planted(text, project):
    found = re.search(r"Expected among all picks: (\d+) particles, (\d+) noise, (\d+) junk", text)
    particles, noise, junk = (int(number) for number in found.groups())
    assert abs(particles + noise + junk - int(project.read("picks/template", "count").sum())) <= 2
    assert particles + junk == pytest.approx(10 * PARTICLES, abs=40)
    assert str(project.calibration("template").attrs["probability"]) in text


@pytest.mark.usefixtures("unrendered")
def test_every_selection_says_what_is_false_in_it(tmp_path):
    made = make_project(tmp_path / "p.zarr", micrographs=9)
    add_selection(made, "sure", SelectSettings(fdr=0.02, max_power=40.0))
    text = write_report(made, tmp_path / "r.html")[0].read_text()
    counts = made.dataset("selection/sure")
    accepted = int(counts["counts"].sel(reason="accepted").sum())
    noise, junk = (counts.attrs[f"expected_{what}"] for what in ("noise", "junk"))
    rate = 100 * (noise + junk) / accepted
    assert f"sure: of {accepted} accepted picks {noise + junk:.0f} are expected to be false ({rate:.1f} %)" in text
    assert "power score at most 40, false discovery rate at most 2 %" in text
    add_calibration(made, CalibrateSettings(bootstrap=0, junk=False))
    stale = write_report(made, tmp_path / "r.html")[0].read_text()
    assert "sure: made before more micrographs were picked" in stale
    assert f"selection sure is stale, accepted {accepted}" in stale


def captions(made, path):
    """Captions of the micrographs drawn."""
    page = Page(write_report(made, path)[0].read_text())
    return [at["alt"] for tag, at in page.tags if tag == "img" and at["alt"].startswith("Low, middle and high")]


@pytest.mark.usefixtures("unrendered")
def test_selections_of_older_picks_are_in_the_tables_and_not_drawn(tmp_path):
    """Among them what cannot be judged now: a probability without a mixture, a pick by hand that is gone."""
    made = make_project(tmp_path / "p.zarr", micrographs=9)
    x, y = (float(made.read("picks/template", name)[0, 0]) for name in ("x", "y"))
    hand = HandPick(micrograph="mics/stack_01.mrc", x=x, y=y)
    add_selection(made, "sure", SelectSettings(probability=0.9))
    add_selection(made, "zhand", SelectSettings(min_ncc=0.3, reject=(hand,)))
    assert captions(made, tmp_path / "r.html") == ["Low, middle and high defocus: accepted by selection zhand."]
    made._array("picks/template", "x")[0, 0] = x + DIAMETER
    add_calibration(made, CalibrateSettings(bootstrap=0, probability="none"))
    assert captions(made, tmp_path / "r.html") == ["Low, middle and high defocus: the best picks."]
    for name in ("sure", "zhand"):
        with pytest.raises(ProjectError, match="select command again"):
            save_plots(made, "template", tmp_path / "plots", name)
    add_selection(made, "again", SelectSettings(min_ncc=0.3))
    assert captions(made, tmp_path / "r.html") == ["Low, middle and high defocus: accepted by selection again."]


@pytest.mark.usefixtures("unrendered")
def test_a_selection_made_before_the_project_grew_has_no_counts_of_what_came(tmp_path):
    made = Project.open(make_project(tmp_path / "p.zarr", micrographs=9).path, "r+", whole=True)
    before = made.table()
    late = {name: before[name].values[:2] for name in before.data_vars if before[name].dims == ("micrograph",)}
    made.extend(late | {"name": np.array(["mics/late_1.mrc", "mics/late_2.mrc"], np.dtypes.StringDType())})
    assert lay_on_more(made, "template", 9)
    made.show()
    page = Page(write_report(Project.open(made.path), tmp_path / "r.html")[0].read_text())
    rows = {row[0]: row for row in page.rows if len(row) == 8 and row[0].startswith("mics/")}
    accepted = made.dataset("selection/strict")["counts"].sel(reason="accepted").values
    assert len(rows) == 11 and [rows[f"mics/late_{i}.mrc"][6] for i in (1, 2)] == ["–", "–"]
    assert [int(rows[f"mics/stack_{i + 1:02d}.mrc"][6]) for i in range(7)] == accepted[:7].tolist()


@pytest.mark.usefixtures("unrendered")
def test_picks_without_a_mixture_say_why(tmp_path):
    made = make_project(tmp_path / "p.zarr", micrographs=8, calibrate=False)
    add_calibration(made, CalibrateSettings(bootstrap=0, probability="none"))
    text = write_report(made, tmp_path / "r.html")[0].read_text()
    assert "No probabilities: turned off." in text
    assert len([tag for tag, _ in Page(text).tags if tag == "img"]) == 5


@pytest.mark.usefixtures("unrendered")
def test_the_control_is_told_where_there_is_one(project, tmp_path, monkeypatch):
    part = {"defocus_low": 8000.0, "defocus_high": 12_000.0, "control_accepted": 1.5, "real_accepted": 57.25}
    told = {"micrographs": 8, "of": 10, "verdict": "on noise it accepts few", "warning": "", "terciles": [part]}
    monkeypatch.setattr("pickcal.report.probability.stored_control", lambda _project, _picks: told)
    page = write_report(project, tmp_path / "r.html")[0].read_text()
    assert "On noise it accepts few (8 of 10 micrographs tried)." in page
    assert ["0.800 to 1.200", "1.5", "57.2"] in Page(page).rows


def test_without_a_control_nothing_is_said_of_it(text):
    assert "Noise-only control" not in text


def test_every_micrograph_has_its_row_failed_ones_first(text, project):
    rows = [row for row in Page(text).rows if len(row) == 8 and row[0].startswith("mics/")]
    assert len(rows) == 12
    status = [row[-1] for row in rows]
    assert status[:3] == ["failed", "skipped", "done, outlying"]
    third = rows[3]
    assert third[0] == "mics/stack_01.mrc"
    fit = project.dataset("calibration/template").load()
    defocus = 0.5 * (project.read("micrographs", "defocus_u") + project.read("micrographs", "defocus_v"))[0]
    assert third[1] == f"{defocus * 1e-4:.3f}"
    assert third[4] == f"{fit['median'].values[0, 0]:.4f}"


def test_settings_of_every_stage_and_the_version_are_kept(text):
    for stage in ("import", "pick template", "calibrate template", "select strict"):
        assert f"<summary>{stage}</summary>" in text
    assert ["median_of", "particles"] in Page(text).rows
    assert re.search(r"pickcal \d+\.\d+\S* · \d{4}-\d\d-\d\d", text)


def test_names_and_reasons_are_escaped(tmp_path):
    made = make_project(tmp_path / "p.zarr", micrographs=8, names=[EVIL % i for i in range(8)])
    text = write_report(made, tmp_path / "r.html")[0].read_text()
    assert "<script" not in text
    assert "the <disk>" not in text
    assert EVIL % 0 in [cell for row in Page(text).rows for cell in row]


@pytest.mark.usefixtures("unrendered")
def test_long_tables_are_cut_and_say_so(project, monkeypatch):
    monkeypatch.setattr("pickcal.report.page.MOST_ROWS", 5)
    group = report_content(project)["groups"][0]
    assert [row["status"] for row in group["rows"]] == ["failed", "skipped", "done, outlying", "done", "done"]
    assert group["left_out"] == 7


@pytest.mark.usefixtures("unrendered")
def test_the_cut_is_written_on_the_page(project, tmp_path, monkeypatch):
    monkeypatch.setattr("pickcal.report.page.MOST_ROWS", 1)
    text = write_report(project, tmp_path / "r.html")[0].read_text()
    assert "The 1 most notable of 12 micrographs" in text
    assert "2 failed or skipped" in text and "The first 1 are listed" in text


def test_uncalibrated_picks_are_listed_with_counts(tmp_path):
    made = make_project(tmp_path / "p.zarr", micrographs=8, calibrate=False)
    text = write_report(made, tmp_path / "r.html")[0].read_text()
    assert "<img" not in text
    assert "Not calibrated: run" in text
    assert f"{int(made.read('picks/template', 'count').sum())} picks, {6 * 120} decoys" in text


def test_a_project_without_picks_has_a_page(tmp_path):
    made = make_project(tmp_path / "p.zarr", micrographs=8, calibrate=False)
    made.remove("picks/template")
    text = write_report(made, tmp_path / "r.html")[0].read_text()
    assert "None yet: run" in text


def test_save_plots_writes_whole_files_of_the_selection_and_replaces_old_ones(project, tmp_path):
    old = tmp_path / "plots" / "template_medians.png"
    old.parent.mkdir()
    old.write_bytes(b"old")
    written = save_plots(project, "template", tmp_path / "plots", "strict")
    keys = ("medians", "residuals", "scores", "thresholds", *MIXTURE_FIGURES, "micrographs")
    assert [path.name for path in written] == [f"template_{key}.png" for key in keys]
    assert sorted(old.parent.iterdir()) == sorted(written)
    assert all(path.read_bytes().startswith(b"\x89PNG\r\n") for path in written)
    fit = project.dataset("calibration/template").load()
    drawn = micrographs_figure(project, "template", fit, SelectSettings(min_ncc=0.3, edge=100.0), DIAMETER)
    assert written[-1].read_bytes() == png(drawn)


def test_wrong_names_and_places_are_refused(project, tmp_path):
    with pytest.raises(ProjectError, match="no picks named 'blob'"):
        save_plots(project, "blob", tmp_path)
    with pytest.raises(ProjectError, match="no selection named 'loose'"):
        save_plots(project, "template", tmp_path, "loose")
    with pytest.raises(InputError, match="found a folder"):
        write_report(project, tmp_path)
    assert np.all([not path.is_file() for path in tmp_path.iterdir()])
