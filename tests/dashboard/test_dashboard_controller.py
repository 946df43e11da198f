import shutil
import subprocess
import sys

import numpy as np
import pytest
from planted import plant, planted_project, straight
from small_project import add_calibration, add_selection, failed, make_project, outlying

from pickcal.calibration import calibrated_scores
from pickcal.dashboard.controller import FIGURES, Inspector, shared_inspector
from pickcal.errors import InputError, MissingFileError, ProjectError
from pickcal.plots.project import MIXTURE_FIGURES
from pickcal.project import Project
from pickcal.schema import Status
from pickcal.selection import ACCEPTED, rejection_reasons
from pickcal.settings import CalibrateSettings, SelectSettings
from pickcal.stages.expected import sorted_probabilities
from pickcal.stages.select import Judge


def counted(project, threshold):
    """Accepted picks as the selection counts them."""
    picks = project.dataset("picks/template").load()
    fit = project.dataset("calibration/template").load()
    micrographs = project.micrographs().drop_vars("image").load()
    micrographs["name"] = ("micrograph", micrographs["name"].values.astype(object))
    reasons = rejection_reasons(picks, fit, micrographs, SelectSettings(min_ncc=threshold))
    return (reasons == ACCEPTED).sum(axis=1)


def test_the_controller_brings_no_web_libraries():
    unwanted = ("panel", "bokeh", "matplotlib.pyplot")
    code = f"import sys, pickcal.dashboard.controller; print([m for m in {unwanted} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_accepted_counts_are_those_of_the_selection(project):
    inspector = Inspector(project.path)
    for threshold in (-1.0, 0.1, 0.2345, 0.3, 0.41, 0.5, 2.0):
        np.testing.assert_array_equal(inspector.accepted("template", threshold), counted(project, threshold))


def test_a_pick_exactly_at_the_threshold_is_accepted(project):
    fit = project.dataset("calibration/template").load()
    ncc = calibrated_scores(project.dataset("picks/template"), fit)["ncc"].values
    inspector = Inspector(project.path)
    for place in (0, 7, 60):
        exact = float(ncc[2, place])
        assert inspector.accepted("template", exact)[2] == place + 1
        assert inspector.accepted("template", np.nextafter(exact, 1))[2] == place


def test_scores_that_are_not_in_order_are_counted_right(tmp_path):
    made = make_project(tmp_path / "p.zarr", micrographs=8, calibrate=False)
    ncc = made.read("picks/template", "ncc")
    counts = made.read("picks/template", "count")
    for row, count in zip(ncc, counts, strict=True):
        row[:count] = row[:count][::-1]
    made._array("picks/template", "ncc")[:] = ncc
    inspector = Inspector(made.path)
    expected = [(row[:count] >= 0.25).sum() for row, count in zip(ncc, counts, strict=True)]
    np.testing.assert_array_equal(inspector.accepted("template", 0.25), expected)


def test_unfinished_micrographs_give_nothing(tmp_path):
    made = make_project(tmp_path / "p.zarr", micrographs=8)
    made._array("picks/template", "status")[0] = np.int8(Status.PENDING)
    assert Inspector(made.path).accepted("template", -1.0)[0] == 0


def test_range_and_start(project):
    inspector = Inspector(project.path)
    low, high = inspector.threshold_range("template")
    total = int(inspector.project.read("picks/template", "count").sum())
    assert inspector.accepted("template", low).sum() == total
    assert inspector.accepted("template", high).sum() == 1
    assert inspector.starting_threshold("template") == 0.3


def test_without_a_selection_the_start_accepts_the_estimated_particles(tmp_path):
    made = make_project(tmp_path / "p.zarr", calibrate=False)
    add_calibration(made)
    inspector = Inspector(made.path)
    wanted = np.nansum(inspector.calibration("template")["particles"].values)
    assert abs(inspector.accepted("template", inspector.starting_threshold("template")).sum() - wanted) <= 1


def test_table_and_counts_say_what_became_of_each_micrograph(project):
    inspector = Inspector(project.path)
    table = inspector.table("template", 0.3)
    assert table["status"][failed(12)] == "failed"
    assert table["status"][11] == "skipped"
    assert table["status"][outlying(12)] == "done, outlying"
    assert table["accepted"].sum() == inspector.accepted("template", 0.3).sum()
    counts = inspector.counts("template")
    assert (counts["done"], counts["failed"], counts["skipped"]) == (10, 1, 1)
    assert counts["decoys"] == 10 * 120


def test_verdicts_name_both_scores_and_the_mixture(project):
    *lines, chance = Inspector(project.path).verdicts("template")
    assert [score for score, _ in lines] == ["NCC score", "natural logarithm of the power score"]
    assert all(text.startswith("slope +") for _, text in lines)
    assert chance == ("probability of being a particle", project.mixture("template").attrs["verdict"])


def test_uncalibrated_picks_are_counted_by_raw_scores(tmp_path):
    made = make_project(tmp_path / "p.zarr", micrographs=8, calibrate=False)
    inspector = Inspector(made.path)
    raw = made.dataset("picks/template")["ncc"].values
    np.testing.assert_array_equal(inspector.accepted("template", 0.3), (raw >= 0.3).sum(axis=1))
    assert "pickcal calibrate" in inspector.verdicts("template")[0][1]
    with pytest.raises(InputError, match="not calibrated"):
        inspector.figure("template", "medians")
    assert list(inspector.table("template", 0.3)) == [
        "micrograph",
        "defocus (µm)",
        "picks",
        "accepted",
        "status",
    ]


def test_every_figure_is_drawn_and_others_are_refused(project):
    inspector = Inspector(project.path)
    assert inspector.figures("template") == (*FIGURES, *MIXTURE_FIGURES)
    for kind in inspector.figures("template"):
        assert inspector.figure("template", kind).axes
        picture = inspector.picture("template", kind)
        assert picture.startswith(b"\x89PNG") and inspector.picture("template", kind) is picture
    with pytest.raises(InputError, match="expected one of medians"):
        inspector.figure("template", "pie")


@pytest.fixture(scope="module")
def blurred(tmp_path_factory):
    """A project whose particles overlap with the noise, so that probabilities are not all 0 or 1."""
    plan = {"micrographs": 12, "junk_count": straight(6.0), "particle_count": straight(40.0, 20.0)}
    made = planted_project(tmp_path_factory.mktemp("blurred") / "p.zarr", plant(**plan))
    add_calibration(made)
    return made


@pytest.mark.parametrize(
    ("probability", "fdr"),
    [(0.0, None), (0.5, None), (0.0, 0.05), (0.3, 0.1), (0.8, 0.02), (0.999, None), (1.0, None)],
)
def test_likely_picks_are_those_of_the_selection_with_its_expected_false_ones(blurred, probability, fdr):
    found = Inspector(blurred.path).likely("template", probability, fdr)
    judge = Judge(blurred, "template", SelectSettings(probability=probability, fdr=fdr))
    whole = judge.block(0, blurred.count)
    likelihood, accepted = whole.likelihood, whole.reasons == ACCEPTED
    np.testing.assert_array_equal(found.accepted, accepted.sum(axis=1))
    junk = np.where(accepted, likelihood["junk"].values.astype(float), 0).sum(axis=1)
    sure = np.where(accepted, likelihood["probability"].values.astype(float), 0).sum(axis=1)
    np.testing.assert_allclose(found.junk, junk, atol=1e-4)
    np.testing.assert_allclose(found.noise, accepted.sum(axis=1) - sure - junk, atol=1e-4)
    table = Inspector(blurred.path).likely_table("template", found)
    np.testing.assert_allclose(table["expected noise"], found.noise, atol=0.006)
    assert list(table["accepted"]) == list(found.accepted)


def test_more_is_accepted_at_lower_probability_and_higher_rate(blurred):
    inspector = Inspector(blurred.path)
    counts = [inspector.likely("template", p).accepted.sum() for p in (0.99, 0.9, 0.5, 0.1, 0.0)]
    assert np.all(np.diff(counts) > 0)
    assert counts[-1] == blurred.read("picks/template", "count").sum()
    assert np.all(np.diff([inspector.likely("template", 0.0, rate).accepted.sum() for rate in (0.01, 0.05, 0.2)]) > 0)


def test_probabilities_read_in_blocks_are_the_same(blurred, monkeypatch):
    whole = sorted_probabilities(blurred, "template")
    monkeypatch.setattr("pickcal.stages.calibrate.BLOCK_PLACES", 500)
    parts = sorted_probabilities(blurred, "template")
    for name, values in vars(whole).items():
        np.testing.assert_allclose(getattr(parts, name), values, rtol=1e-6, atol=1e-7)


def test_the_start_is_the_probability_of_a_selection_or_one_half(project, tmp_path):
    assert Inspector(project.path).starting_probability("template") == 0.5
    made = planted_project(tmp_path / "p.zarr", plant(micrographs=6))
    add_calibration(made)
    add_selection(made, "sure", SelectSettings(probability=0.95))
    assert Inspector(made.path).starting_probability("template") == 0.95


def test_without_a_mixture_the_reason_is_given_and_probabilities_are_refused(tmp_path):
    made = make_project(tmp_path / "p.zarr", micrographs=8, calibrate=False)
    add_calibration(made, CalibrateSettings(bootstrap=0, probability="none"))
    inspector = Inspector(made.path)
    assert inspector.verdicts("template")[-1] == ("probability of being a particle", "none (turned off)")
    assert inspector.figures("template") == FIGURES
    assert inspector.probabilities("template") is None
    with pytest.raises(InputError, match="have no probabilities"):
        inspector.likely("template", 0.5)
    with pytest.raises(InputError, match="have no probabilities"):
        inspector.figure("template", "plane")


def test_visitors_share_what_was_read_until_the_project_changes(tmp_path):
    made = planted_project(tmp_path / "p.zarr", plant(micrographs=6))
    add_calibration(made)
    first = shared_inspector(made.path)
    assert shared_inspector(str(made.path)) is first
    add_selection(made, "sure", SelectSettings(probability=0.95))
    second = shared_inspector(made.path)
    assert second is not first and second.starting_probability("template") == 0.95
    start, stop = made.batches()[0]
    made.write_batch("picks/template", start, stop, {"status": np.full(stop - start, Status.FAILED, np.int8)})
    assert shared_inspector(made.path).counts("template")["failed"] == stop - start
    shutil.rmtree(made.path)
    with pytest.raises(MissingFileError):
        shared_inspector(made.path)


def test_what_is_not_there_is_named(project, tmp_path):
    with pytest.raises(MissingFileError):
        Inspector(tmp_path / "none.zarr")
    with pytest.raises(ProjectError, match="it has: template"):
        Inspector(project.path).counts("blob")


def test_reading_changes_nothing(project):
    def state():
        return {path: path.stat().st_mtime_ns for path in project.path.rglob("*")}

    before = state()
    inspector = Inspector(project.path)
    inspector.table("template", 0.3)
    inspector.figure("template", "scores")
    assert state() == before
    assert Project.open(project.path).names("picks") == ["template"]
