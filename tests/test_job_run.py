"""Whole jobs that begin in the middle: picks of others that are scored, thresholds of a file, what cannot go on."""

import pytest

from pickcal.engine.executors import SerialExecutor
from pickcal.engine.progress import Silent
from pickcal.errors import InputError
from pickcal.job_file import Job
from pickcal.job_run import run
from pickcal.selection import read_thresholds, write_thresholds
from pickcal.settings import SelectSettings


def done(values):
    return run(Job.model_validate(values), SerialExecutor(), Silent())


@pytest.fixture
def scoring(own, imported, small_set):
    """Sections that take the true positions into a project that is there, score them, and fit."""
    search = {"templates": small_set.templates, "diameter": 150, "rotation_step": 30}
    return {
        "project": own(imported),
        "import_picks": {"files": [small_set.truth], "diameter": 150},
        "score": search,
        "calibrate": {"bootstrap": 0},
        "evaluate": {"truth": small_set.truth},
    }


def test_a_job_scores_imported_picks_and_replays_thresholds(scoring, tmp_path):
    """Nothing is imported anew; what is judged are the scored picks, with the very thresholds of the file."""
    file = tmp_path / "t.toml"
    write_thresholds(file, SelectSettings(min_ncc=0.2), "imported-scored")
    out = done({**scoring, "select": {"thresholds": file, "name": "again"}})
    assert "import" not in out
    taken = out["import_picks"]["imported"]
    assert out["score"]["done"] == 6
    accepted = out["select"]["accepted"]
    assert 0.8 * taken < accepted <= taken
    assert read_thresholds(file).min_ncc == 0.2
    assert out["evaluate"]["selection"] == "again" and out["evaluate"]["precision"] > 0.9
    # without a selection it is the picks that are held against the truth, as many stages as are left
    bare = done(scoring)
    assert not bare["score"]["ran"] and "select" not in bare
    assert bare["evaluate"]["picks"] == "imported-scored"


def test_micrographs_are_not_simulated_into_a_bucket(tmp_path):
    job = {
        "project": tmp_path / "p.zarr",
        "simulate": {},
        "import": {"sources": ["s3://bucket/sim/micrographs_ctf.star"]},
    }
    with pytest.raises(InputError, match=r"s3://bucket/sim/micrographs_ctf\.star: .*give a path as import\.sources"):
        done(job)


def test_other_settings_of_the_simulation_do_not_take_the_old_micrographs(tmp_path):
    """They would be judged for what they are not; the same settings go on with them."""
    job = {
        "project": tmp_path / "p.zarr",
        "simulate": {"micrographs": 1, "height": 512, "width": 512, "pixel_size": 4.0, "particles_min": 1}
        | {"particles_max": 5, "empty": 0, "crowded": 0, "templates": 2, "signal": 1.0},
        "import": {"sources": [tmp_path / "sim/micrographs_ctf.star"]},
    }
    assert done(job)["import"]["done"] == 1
    again = done(job)
    assert again["import"]["ran"] == 0
    job["simulate"]["signal"] = 0.5
    with pytest.raises(
        InputError, match=r"simulated otherwise:\n  signal: stored 1\.0, asked 0\.5\ngive another folder"
    ):
        done(job)


def test_a_session_in_which_nothing_arrived_ends_in_words(tmp_path):
    """Export and report would have nothing to tell of."""
    source = tmp_path / "micrographs_ctf.star"
    job = {
        "project": tmp_path / "p.zarr",
        "import": {"sources": [source]},
        "watch": {"patience": 0.1, "settle": 0, "interval": 0.1},
        "pick": {"method": "blob", "diameter_min": 120, "diameter_max": 120},
    }
    with pytest.raises(InputError, match=r"micrographs_ctf\.star: no micrograph has arrived"):
        done(job)
