"""What all visitors of a project share."""

import shutil
import subprocess
import sys

import numpy as np
import pytest
from planted import plant, planted_project
from small_project import add_calibration, add_selection, make_project, outlying

from pickcal.dashboard.controller import Inspector, shared_inspector
from pickcal.dashboard.facts import FIGURES
from pickcal.errors import InputError, MissingFileError, ProjectError
from pickcal.plots.project import MIXTURE_FIGURES
from pickcal.schema import Status
from pickcal.settings import CalibrateSettings, HandPick, SelectSettings


def test_the_session_brings_no_web_libraries():
    unwanted = ("panel", "bokeh", "matplotlib.pyplot")
    code = f"import sys, pickcal.dashboard.session; print([m for m in {unwanted} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_counts_say_what_became_of_the_micrographs(project):
    counts = Inspector(project.path).counts("template")
    assert (counts["done"], counts["failed"], counts["skipped"]) == (10, 1, 1)
    assert counts["decoys"] == 10 * 120


def test_verdicts_name_both_scores_and_the_mixture(project):
    *lines, chance = Inspector(project.path).verdicts("template")
    assert [score for score, _ in lines] == ["NCC score", "natural logarithm of the power score"]
    assert all(text.startswith("slope +") for _, text in lines)
    assert chance == ("probability of being a particle", project.mixture("template").attrs["verdict"])


def test_methods_are_those_that_the_fit_allows(project, tmp_path):
    assert Inspector(project.path).methods("template") == ("raw", "line", "probability", "fdr")
    made = make_project(tmp_path / "p.zarr", micrographs=8, calibrate=False)
    assert Inspector(made.path).methods("template") == ("raw",)
    assert "pickcal calibrate" in Inspector(made.path).verdicts("template")[0][1]
    add_calibration(made, CalibrateSettings(bootstrap=0, probability="none"))
    inspector = Inspector(made.path)
    assert inspector.methods("template") == ("raw", "line")
    assert inspector.verdicts("template")[-1] == ("probability of being a particle", "none (turned off)")
    assert inspector.figures("template") == FIGURES
    with pytest.raises(InputError, match="have no probabilities"):
        inspector.figure("template", "plane")


def test_every_figure_is_drawn_and_others_are_refused(project):
    inspector = Inspector(project.path)
    assert inspector.figures("template") == (*FIGURES, *MIXTURE_FIGURES)
    for kind in inspector.figures("template"):
        picture = inspector.picture("template", kind)
        assert picture.startswith(b"\x89PNG") and inspector.picture("template", kind) is picture
    with pytest.raises(InputError, match="expected one of medians"):
        inspector.figure("template", "pie")


def test_three_micrographs_are_of_low_middle_and_high_defocus(project):
    inspector = Inspector(project.path)
    usable = [
        row
        for row in np.argsort(inspector.defocus)
        if inspector.finished("template")[row] and row != outlying(len(inspector.micrographs))
    ]
    found = inspector.trio("template", 0)
    assert list(found) == [usable[0], usable[len(usable) // 2], usable[-1]]
    seen = [tuple(inspector.trio("template", turn)) for turn in range(3)]
    assert len({row for three in seen for row in three}) == 9
    assert all(inspector.defocus[a] < inspector.defocus[b] < inspector.defocus[c] for a, b, c in seen)
    assert list(inspector.trio("template", 3)) == list(found)


def test_a_project_with_few_finished_micrographs_shows_what_there_is(tmp_path):
    made = make_project(tmp_path / "p.zarr", calibrate=False)
    status = np.full(made.count, Status.PENDING, np.int8)
    made._array("picks/template", "status")[:] = status
    assert len(Inspector(made.path).trio("template", 0)) == 0
    status[4] = Status.DONE
    made._array("picks/template", "status")[:] = status
    assert list(Inspector(made.path).trio("template", 5)) == [4]


def test_thresholds_that_do_not_fit_the_project_are_refused(project):
    inspector = Inspector(project.path)
    name = inspector.micrographs[0]
    with pytest.raises(InputError, match=r"no micrograph named 'x\.mrc'"):
        inspector.check("template", SelectSettings(exclude=("x.mrc",)))
    with pytest.raises(InputError, match="no pick of"):
        inspector.check("template", SelectSettings(reject=(HandPick(micrograph=name, x=-900, y=-900),)))
    inspector.check("template", SelectSettings(min_ncc=0.2, exclude=(name,)))


def test_visitors_share_what_was_read_until_the_project_is_made_anew(tmp_path):
    made = planted_project(tmp_path / "p.zarr", plant(micrographs=6))
    add_calibration(made)
    first = shared_inspector(made.path)
    assert shared_inspector(str(made.path)) is first
    add_selection(made, "sure", SelectSettings(probability=0.95))
    assert shared_inspector(made.path) is first and first.selections("template") == ["sure"]
    shutil.rmtree(made.path)
    planted_project(tmp_path / "p.zarr", plant(micrographs=7))
    assert shared_inspector(made.path) is not first
    shutil.rmtree(made.path)
    with pytest.raises(MissingFileError):
        shared_inspector(made.path)


def test_what_is_not_there_is_named(project, tmp_path):
    with pytest.raises(MissingFileError):
        Inspector(tmp_path / "none.zarr")
    with pytest.raises(ProjectError, match="it has: template"):
        Inspector(project.path).counts("blob")
