import subprocess
import sys

import numpy as np
import pytest
from small_project import add_calibration, failed, make_project, outlying

from pickcal.calibration import calibrated_scores
from pickcal.dashboard.controller import FIGURES, Inspector
from pickcal.errors import InputError, MissingFileError, ProjectError
from pickcal.project import Project
from pickcal.schema import Status
from pickcal.selection import ACCEPTED, rejection_reasons
from pickcal.settings import SelectSettings


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


def test_verdicts_name_both_scores(project):
    verdicts = Inspector(project.path).verdicts("template")
    assert [score for score, _ in verdicts] == ["NCC score", "natural logarithm of the power score"]
    assert all(text.startswith("slope +") for _, text in verdicts)


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
    for kind in FIGURES:
        assert inspector.figure("template", kind).axes
    with pytest.raises(InputError, match="expected one of medians"):
        inspector.figure("template", "pie")


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
