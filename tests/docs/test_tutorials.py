"""The commands of the tutorials, as they stand there, one after the other in an empty folder."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr

from pickcal.project import Project

DOCS = Path(__file__).parents[2] / "docs"
sys.path.insert(0, str(DOCS / "site"))


def run(page, folder, **environment):
    """Run the blocks marked `bash` of a page in one shell."""
    text = (DOCS / page).read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert blocks
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", "\n".join(blocks)],
        cwd=folder,
        env={**os.environ, "PATH": path, **environment},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tutorial")
    return folder, run("tutorial.md", folder)


def test_the_tutorial_on_simulated_micrographs(simulated):
    folder, out = simulated
    assert (folder / "report.html").stat().st_size > 10_000
    assert (folder / "out/autopick.star").is_file()
    assert list((folder / "plots").glob("*.png"))
    found = re.search(r"selection auto: \d+ accepted, precision ([\d.]+), recall ([\d.]+)", out)
    assert found, out
    assert float(found[1]) > 0.8, out
    assert float(found[2]) > 0.8, out


def test_every_array_of_its_project_is_in_the_reference_of_the_store(simulated):
    pytest.importorskip("mkdocs", reason="mkdocs is not installed: pip install 'pickcal[docs]'")
    import store_page

    text = store_page.markdown()
    folder, _ = simulated
    root = zarr.open_group(folder / "p.zarr", mode="r")
    names = {path.rsplit("/", 1)[-1] for path, member in root.members(max_depth=None) if isinstance(member, zarr.Array)}
    names -= {"files"}  # a place that readers do not see: docs/design.md
    assert {"image", "ncc", "coefficients", "particle_ncc", "counts"} <= names
    assert sorted(name for name in names if f"`{name}`" not in text) == []


def test_the_tutorial_on_real_micrographs(data, tmp_path):
    out = run("tutorial_micrographs.md", tmp_path, PICKCAL_TEST_DATA=str(data))
    assert (tmp_path / "apo.html").is_file()
    assert (tmp_path / "apo.csv").is_file()
    project = Project.open(tmp_path / "apo.zarr")
    assert project.names("selection") == ["auto", "sure", "without"]
    names = [str(name) for name in project.read("micrographs", "name")]
    left = project.dataset("selection/without")["counts"].sel(reason="accepted").values
    assert left[names.index("micrographs/May08_06.09.02.mrc")] == 0
    assert np.count_nonzero(left) == 7
    assert re.search(r"selection sure: \d+ accepted, precision [\d.]+, recall 0\.9", out), out
