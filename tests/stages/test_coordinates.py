"""Positions from source pixel to exported file: particles planted in a micrograph with unequal sides and odd pixel."""

import hashlib

import numpy as np
import pandas as pd
import pytest
import starfile
from handmade import write_mrc, write_set

from pickcal.engine.executors import SerialExecutor
from pickcal.engine.progress import Silent
from pickcal.project import Project
from pickcal.settings import BlobSettings, ExportSettings, ImportSettings, SelectSettings, TemplateSettings
from pickcal.stages.export import export
from pickcal.stages.ingest import ingest
from pickcal.stages.pick import pick
from pickcal.stages.select import select

HEIGHT, WIDTH, PIXEL_SIZE = 600, 500, 1.7
# (x, y) in pixels of the source from the centre of the first pixel stored
PLANTED = np.array([[150.37, 431.82], [351.6, 102.25], [103.0, 160.5]])
DIAMETER = 110.0
# a lopsided particle: offsets (x, y) from its centre, widths and weights, in Å; centre of mass at 0
LUMPS = [((-18.0, -12.0), 13.0, 1.0), ((24.0, -6.0), 10.0, 0.75), ((0.0, 27.5), 9.0, 0.6)]


def particle(x, y):
    """Density of the lopsided particle at offsets in Å."""
    return sum(w * np.exp(-((x - cx) ** 2 + (y - cy) ** 2) / (2 * s**2)) for (cx, cy), s, w in LUMPS)


def disc(x, y):
    """Density of a soft disc at offsets in Å."""
    return 1 / (1 + np.exp((np.hypot(x, y) - DIAMETER / 2) / 4))


def scene(density):
    """Dark particles in a little noise, source pixels."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    image = np.random.default_rng(4).normal(100.0, 2.0, (HEIGHT, WIDTH))
    for x, y in PLANTED:
        image -= 12 * density((columns - x) * PIXEL_SIZE, (rows - y) * PIXEL_SIZE)
    return image.astype(np.float32)


@pytest.fixture(scope="module", params=["blob", "template"])
def exported(request, tmp_path_factory):
    """Import, pick, select and export the scene; the sources' state before, and the folder."""
    folder = tmp_path_factory.mktemp(request.param)
    density = disc if request.param == "blob" else particle
    star = write_set(folder, [scene(density)], PIXEL_SIZE)
    if request.param == "blob":
        chosen = BlobSettings(diameter_min=DIAMETER, diameter_max=DIAMETER, shapes=("disc",))
    else:
        # the box's centre is pixel 32 of 64, as RELION has it
        grid = (np.mgrid[:64, :64] - 32) * 2.5
        write_mrc(folder / "t.mrcs", particle(grid[1], grid[0])[None].astype(np.float32), 2.5)
        chosen = TemplateSettings(templates=folder / "t.mrcs", diameter=DIAMETER, ctf=False)
    sources = [star, folder / "mics/m1.mrc"]
    before = [(hashlib.sha256(path.read_bytes()).digest(), path.stat().st_mtime_ns) for path in sources]
    ingest([star], folder / "p.zarr", ImportSettings(), SerialExecutor(), Silent())
    project = Project.open(folder / "p.zarr", "r+")
    pick(project, "it", chosen, SerialExecutor(), Silent())
    scores = np.sort(project.read("picks/it", "ncc")[0])[::-1]
    select(project, "it", "best", SelectSettings(min_ncc=float(np.sort(scores[np.isfinite(scores)])[-3]) - 1e-6))
    for form, out in (("relion", "out"), ("csv", "picks.csv"), ("parquet", "picks.parquet")):
        export(project, "best", ExportSettings(format=form), folder / out)
    after = [(hashlib.sha256(path.read_bytes()).digest(), path.stat().st_mtime_ns) for path in sources]
    assert after == before
    return folder


def assert_planted(x, y):
    """Each planted particle found once, within half a source pixel in x and in y."""
    found = np.column_stack([x, y]).astype(float)
    assert found.shape == PLANTED.shape
    nearest = np.linalg.norm(found[:, None] - PLANTED, axis=2).argmin(axis=0)
    assert sorted(nearest) == [0, 1, 2]
    assert np.abs(found[nearest] - PLANTED).max() < 0.5


def test_relion_files_per_micrograph(exported):
    """Pixels of the source micrograph in the file that autopick.star lists."""
    index = starfile.read(exported / "out/autopick.star")
    assert index["rlnMicrographName"].tolist() == ["mics/m1.mrc"]
    listed = index["rlnMicrographCoordinates"].iloc[0]
    table = starfile.read(listed)
    assert_planted(table["rlnCoordinateX"], table["rlnCoordinateY"])
    assert {"rlnAutopickFigureOfMerit", "pickcalNccScore", "pickcalCalibratedNccScore"} <= set(table)


def test_relion_particles_file(exported):
    """Positions, name and the CTF of the micrograph."""
    blocks = starfile.read(exported / "out/particles.star")
    particles = blocks["particles"]
    assert_planted(particles["rlnCoordinateX"], particles["rlnCoordinateY"])
    assert set(particles["rlnMicrographName"]) == {"mics/m1.mrc"}
    np.testing.assert_allclose(particles["rlnDefocusU"], 10000.0)


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_tables(exported, form):
    """Pixels of the source, and Å."""
    table = pd.read_csv(exported / "picks.csv") if form == "csv" else pd.read_parquet(exported / "picks.parquet")
    assert_planted(table["x_px"], table["y_px"])
    assert_planted(table["x"] / PIXEL_SIZE, table["y"] / PIXEL_SIZE)


def test_project_itself(exported):
    """Å from the centre of the first pixel."""
    project = Project.open(exported / "p.zarr")
    x, y = (project.read("picks/it", name)[0, :3] for name in ("x", "y"))
    assert_planted(x / PIXEL_SIZE, y / PIXEL_SIZE)
