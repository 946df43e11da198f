"""What a worker is said to need is what it uses, as the system measures it: not less, and little more."""

import subprocess
import sys

import pytest
from handmade import noise, write_set

from pickcal.project import Project
from pickcal.stages.memory import import_memory, search_memory

SIDE = 1640
"""Of a working image: as of 8192 x 8192 pixels of 1 Å."""
MOST = 1.25
"""Estimates are at most this much above what was used; they are fitted to be 4 to 13 % above."""
PICKCAL = """
from runpy import run_module
from pickcal.engine.clusters import local
local.BEGIN_BY = "spawn"
run_module("pickcal", run_name="__main__")
"""
MEASURED = f"""
import resource, subprocess, sys
code = subprocess.run([sys.executable, "-c", {PICKCAL!r}, *sys.argv[1:], "--workers", "1"]).returncode
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024)
sys.exit(code)
"""
"""The worker loads all of it anew, as those of queues do: a copy has some of it from the process it is a copy of."""


def peak_of(folder, *command):
    """Largest memory of the command and of its worker, bytes: whichever is larger, which is the worker."""
    words = [sys.executable, "-c", MEASURED, *map(str, command)]
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A project with one large working image."""
    made = tmp_path_factory.mktemp("memory")
    write_set(made, [noise((SIDE, SIDE))])
    command = ["import", "micrographs_ctf.star", "--project", "p.zarr", "--cluster", "serial"]
    subprocess.run([sys.executable, "-m", "pickcal", *command], cwd=made, capture_output=True, check=True, timeout=240)
    return made


def assert_close(estimate, peak):
    assert peak < estimate < MOST * peak, f"estimate {estimate / 1e6:.0f} MB, used {peak / 1e6:.0f} MB"


def test_import(tmp_path):
    """Two sources of 4096 x 4096, one after the other in the same memory."""
    write_set(tmp_path, [noise((4096, 4096), seed) for seed in range(2)], pixel_size=1.0)
    peak = peak_of(tmp_path, "import", "micrographs_ctf.star", "--project", "p.zarr", "--batch", 2)
    assert_close(import_memory(Project.open(tmp_path / "p.zarr")), peak)


@pytest.mark.parametrize(
    "low_pass", [pytest.param(20, id="coarse grid", marks=pytest.mark.nightly), pytest.param(10, id="working grid")]
)
def test_blobs(folder, low_pass):
    name = f"blob{low_pass}"
    settings = ["--diameter-min", 140, "--diameter-max", 200, "--low-pass", low_pass, "--name", name]
    peak = peak_of(folder, "pick", "blob", "p.zarr", *settings)
    assert_close(search_memory(Project.open(folder / "p.zarr"), name), peak)


def test_templates_and_scoring_with_them(folder, small_set):
    """Scoring given picks makes the same maps."""
    bank = ["--templates", small_set.folder / "templates.mrcs", "--diameter", 150]
    peak = peak_of(folder, "pick", "template", "p.zarr", *bank)
    assert_close(search_memory(Project.open(folder / "p.zarr"), "template"), peak)
    peak = peak_of(folder, "score", "p.zarr", "--picks", "template", *bank)
    assert_close(search_memory(Project.open(folder / "p.zarr"), "template-scored", screened=False), peak)
