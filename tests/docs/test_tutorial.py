"""The commands of the tutorial on simulated micrographs, and the store that they leave."""

import re
import sys

import pytest
import zarr
from pages import DOCS, run

sys.path.insert(0, str(DOCS / "site"))


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
    assert float(found[1]) > 0.95, out
    assert float(found[2]) > 0.95, out
    false = re.search(r"--fdr 0.05: ([\d.]+)% of the accepted are false", out)
    assert false and float(false[1]) < 8, out
    assert "all starts to one solution" in " ".join(out.split()), out


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
