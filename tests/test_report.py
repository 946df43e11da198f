import re
from html.parser import HTMLParser

import numpy as np
import pytest
from small_project import DIAMETER, FAILED_REASON, failed, make_project, outlying

from pickcal.errors import InputError, ProjectError
from pickcal.plots import micrographs_figure, png
from pickcal.project import Project
from pickcal.report import report_content, save_plots, write_report
from pickcal.settings import SelectSettings

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
    assert write_report(Project.open(project.path), path) == path
    assert [item.name for item in path.parent.iterdir()] == ["report.html"]
    return path.read_text(encoding="utf-8")


def test_the_page_needs_nothing_but_itself(text):
    page = Page(text)
    assert not [tag for tag, _ in page.tags if tag in ("script", "iframe", "object", "embed", "base")]
    for tag, attributes in page.tags:
        for key in ("src", "href"):
            assert attributes.get(key, "#").startswith(("#", "data:")), (tag, attributes[key][:80])
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style and "@import" not in style and "http" not in style
    assert "prefers-color-scheme: dark" in style and "@media print" in style


def test_five_plots_are_inside_with_words_for_those_who_cannot_see_them(text):
    images = [attributes for tag, attributes in Page(text).tags if tag == "img"]
    assert len(images) == 5
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
    outlier = next(row for row in rows if row[:2] == [f"mics/stack_{outlying(12) + 1:02d}.mrc", "NCC score"])
    assert float(outlier[2]) < -4
    for verdict in fit["verdict"].values.ravel():
        assert str(verdict) in text


def test_selection_counts_add_up_to_all_picks(text, project):
    row = next(row for row in Page(text).rows if row[0] == "strict")
    assert row[1] == "min_ncc = 0.3, edge = 100.0"
    assert sum(int(cell) for cell in row[2:]) == int(project.read("picks/template", "count").sum())
    assert int(row[2]) == int(project.dataset("selection/strict")["counts"].sel(reason="accepted").sum())


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
    text = write_report(made, tmp_path / "r.html").read_text()
    assert "<script" not in text
    assert "the <disk>" not in text
    assert EVIL % 0 in [cell for row in Page(text).rows for cell in row]


def test_long_tables_are_cut_and_say_so(project, monkeypatch):
    monkeypatch.setattr("pickcal.report.MOST_ROWS", 5)
    group = report_content(project)["groups"][0]
    assert [row["status"] for row in group["rows"]] == ["failed", "skipped", "done, outlying", "done", "done"]
    assert group["left_out"] == 7


def test_the_cut_is_written_on_the_page(project, tmp_path, monkeypatch):
    monkeypatch.setattr("pickcal.report.MOST_ROWS", 1)
    text = write_report(project, tmp_path / "r.html").read_text()
    assert "The 1 most notable of 12 micrographs" in text
    assert "2 failed or skipped" in text and "The first 1 are listed" in text


def test_uncalibrated_picks_are_listed_with_counts(tmp_path):
    made = make_project(tmp_path / "p.zarr", micrographs=8, calibrate=False)
    text = write_report(made, tmp_path / "r.html").read_text()
    assert "<img" not in text
    assert "Not calibrated: run" in text
    assert f"{int(made.read('picks/template', 'count').sum())} picks, {6 * 120} decoys" in text


def test_a_project_without_picks_has_a_page(tmp_path):
    made = make_project(tmp_path / "p.zarr", micrographs=8, calibrate=False)
    made.remove("picks/template")
    text = write_report(made, tmp_path / "r.html").read_text()
    assert "None yet: run" in text


def test_save_plots_writes_whole_files_of_the_selection_and_replaces_old_ones(project, tmp_path):
    old = tmp_path / "plots" / "template_medians.png"
    old.parent.mkdir()
    old.write_bytes(b"old")
    written = save_plots(project, "template", tmp_path / "plots", "strict")
    keys = ("medians", "residuals", "scores", "thresholds", "micrographs")
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
