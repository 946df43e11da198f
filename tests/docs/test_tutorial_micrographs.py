"""The commands of the tutorial on real micrographs."""

import re

import numpy as np
from pages import run

from pickcal.project import Project


def test_the_tutorial_on_real_micrographs(data, tmp_path):
    out = run("tutorial_micrographs.md", tmp_path, PICKCAL_TEST_DATA=str(data))
    assert (tmp_path / "own/autopick.star").is_file()
    assert (tmp_path / "apo.html").is_file() and (tmp_path / "own.toml").is_file()
    project = Project.open(tmp_path / "apo.zarr")
    assert project.names("selection") == ["own", "sure"]
    names = [str(name) for name in project.read("micrographs", "name")]
    left = project.dataset("selection/own")["counts"].sel(reason="accepted").values
    assert left[names.index("micrographs/May08_06.09.02.mrc")] == 0
    assert np.count_nonzero(left) == 7
    for name in ("sure", "own"):
        assert re.search(rf"selection {name}: \d+ accepted, precision 0\.9\d+, recall 0\.9", out), out
