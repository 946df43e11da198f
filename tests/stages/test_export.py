"""What goes out is in pixels of the project's micrographs, belongs to its picks, and leaves the user's files alone."""

import csv
import shutil
import subprocess
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from cryosparc.dataset import Dataset
from foreign_projects import autopick, cs_picks, everything_out, project_of, tables, take, tokens
from handmade import noise, write_set

from pickcal.engine.executors import SerialExecutor
from pickcal.engine.progress import Silent
from pickcal.errors import InputError, ProjectError
from pickcal.project import Project
from pickcal.settings import ExportSettings, ImportSettings, ScoreSettings, SelectSettings
from pickcal.stages.export import export
from pickcal.stages.ingest import ingest
from pickcal.stages.score import score
from pickcal.stages.select import select

ROWS, COLUMNS, PIXEL = 2000, 3000, 2.0
TRUTH = [(400, 1200), (2804, 36), (1234, 1988)]
"""Columns and rows of three particles, whole also where micrographs are binned by 2 or by 4."""
FORMS = ("relion", "topaz", "cryolo", "eman", "csv", "cryosparc")
OPTICS = "data_optics\n\nloop_\n_rlnOpticsGroup #1\n_rlnMicrographPixelSize #2\n1 {pixel}\n\n"


def relion_file(folder, xy, pixel):
    return autopick(folder, "m1", [(x, y, 0.1 * n) for n, (x, y) in enumerate(xy)])


def relion_particles(folder, xy, pixel):
    path = folder / "particles.star"
    path.write_text(
        OPTICS.format(pixel=pixel) + "data_particles\n\nloop_\n_rlnMicrographName #1\n_rlnCoordinateX #2\n"
        "_rlnCoordinateY #3\n_rlnOpticsGroup #4\n_rlnAutopickFigureOfMerit #5\n"
        + "".join(f"binned/m1.mrc {x} {y} 1 0.{n}\n" for n, (x, y) in enumerate(xy))
    )
    return path


def topaz_table(folder, xy, pixel):
    path = folder / "picks.txt"
    rows = "".join(f"m1\t{x}\t{y}\t0.{n}\n" for n, (x, y) in enumerate(xy))
    path.write_text("image_name\tx_coord\ty_coord\tscore\n" + rows)
    return path


def boxes(folder, xy, pixel, sides=((20, 20),) * 3):
    path = folder / "m1.box"
    given = enumerate(zip(xy, sides, strict=True))
    path.write_text("".join(f"{x - w / 2:g}\t{y - h / 2:g}\t{w}\t{h}\t0.{n}\n" for n, ((x, y), (w, h)) in given))
    return path


CBOX = ("CoordinateX", "CoordinateY", "Width", "Height", "EstWidth", "EstHeight", "Confidence")


def cbox(folder, xy, pixel, sides=((20, 20),) * 3):
    path = folder / "m1.cbox"
    labels = "".join(f"_{label} #{n}\n" for n, label in enumerate(CBOX, start=1))
    path.write_text(
        f"data_global\n\n_cbox_format_version 1.0\n\ndata_cryolo\n\nloop_\n{labels}"
        + "".join(
            f"{x - w / 2:g} {y - h / 2:g} {w} {h} {w + 1} {h + 2} 0.{n}\n"
            for n, ((x, y), (w, h)) in enumerate(zip(xy, sides, strict=True))
        )
    )
    return path


def table(folder, xy, pixel):
    path = folder / "picks.csv"
    path.write_text("micrograph,x_px,y_px,score\n" + "".join(f"m1,{x},{y},0.{n}\n" for n, (x, y) in enumerate(xy)))
    return path


def rows_of(path, separator):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter=separator))


def positions(form, out):
    """Columns and rows of what was exported, from each of its files, in pixels."""
    if form == "relion":
        files = [path for path in (out / "m1_autopick.star", out / "particles.star") if path.exists()]
        for path in files:
            labels, rows = tokens(path)
            at = [labels.index(label) for label in ("rlnCoordinateX", "rlnCoordinateY")]
            yield [[float(row[n]) for n in at] for row in rows]
    elif form == "eman":
        corner = np.loadtxt(out / "m1.box", ndmin=2)
        yield corner[:, :2] + corner[:, 2:4] / 2
    elif form == "cryolo":
        labels, rows = tokens(out / "m1.cbox")
        x, y, width, height = (np.array([float(row[labels.index(label)]) for row in rows]) for label in CBOX[:4])
        yield np.column_stack([x + width / 2, y + height / 2])
    elif form == "cryosparc":
        found = Dataset.load(out)
        x, y = (found[f"location/center_{axis}_frac"] for axis in "xy")
        yield np.column_stack([COLUMNS * x, ROWS * (1 - y)])
    else:
        names = ("x_coord", "y_coord") if form == "topaz" else ("x_px", "y_px")
        yield [[float(row[name]) for name in names] for row in rows_of(out, "\t" if form == "topaz" else ",")]


def in_order(xy):
    return sorted([float(x), float(y)] for x, y in xy)


@pytest.mark.parametrize("write", [relion_file, relion_particles, topaz_table, cbox, boxes, table])
@pytest.mark.parametrize(
    ("change", "settings"),
    [
        (lambda x, y: (x, y), {}),
        (lambda x, y: (x // 2, y // 2), {"scale": 2.0}),
        (lambda x, y: (y, x), {"swap_xy": True}),
    ],
    ids=["as they are", "binned", "rows first"],
)
def test_every_form_has_pixels_of_the_micrographs(tmp_path, write, change, settings):
    """Whatever a file counted, each form has the three particles where they are on the full-size micrograph."""
    project = tables(tmp_path / "p.zarr", ["mics/m1.mrc"], size=(ROWS, COLUMNS))
    (tmp_path / "in").mkdir()
    pixel = PIXEL * settings.get("scale", 1.0)
    take(project, write(tmp_path / "in", [change(*xy) for xy in TRUTH], pixel), diameter=100.0, **settings)
    select(project, "theirs", "all", SelectSettings())
    for form in FORMS:
        out = tmp_path / f"out_{form}"
        export(project, "all", ExportSettings(format=form), out)
        found = list(positions(form, out))
        assert found
        for xy in found:
            np.testing.assert_allclose(in_order(xy), in_order(TRUTH), atol=1e-3, err_msg=form)
    # RELION finds the size of a pixel, and the micrographs, in the file with the positions
    text = (tmp_path / "out_relion/particles.star").read_text()
    own = write is relion_particles and not settings
    assert ("binned/m1.mrc" in text) == own and ("mics/m1.mrc" in text) != own
    labels, rows = optics(tmp_path / "out_relion/particles.star")
    assert float(rows[0][labels.index("rlnMicrographPixelSize")]) == PIXEL


def optics(path):
    """Labels and rows of the table of optics groups."""
    text = path.read_text().split("data_optics")[1].split("data_")[0]
    lines = [line.split() for line in text.splitlines() if line.strip() and line.strip() != "loop_"]
    return [line[0][1:] for line in lines if line[0][0] == "_"], [line for line in lines if line[0][0] != "_"]


@pytest.mark.relion
@pytest.mark.parametrize(("write", "scale"), [(relion_file, 2.0), (relion_particles, 2.0), (relion_particles, 1.0)])
def test_relion_extracts_the_particles_of_binned_picks(tmp_path, monkeypatch, write, scale):
    """One bright pixel for each: it is in the middle of the image that RELION cuts from the full-size micrograph."""
    if shutil.which("relion_preprocess") is None:
        pytest.skip("relion_preprocess is not installed")
    monkeypatch.chdir(tmp_path)
    image, spots = noise((200, 300)), [(60, 140), (204, 50), (250, 162)]
    for x, y in spots:
        image[y, x] += 2000.0
    project = project_of([write_set(tmp_path, [image])], tmp_path / "p.zarr", (200, 300))
    (tmp_path / "in").mkdir()
    binned = [(int(x / scale), int(y / scale)) for x, y in spots]
    take(project, write(tmp_path / "in", binned, 5.0 * scale), diameter=100.0, scale=scale)
    everything_out(project, Path("OUT"), layout="autopick")
    command = "relion_preprocess --i OUT/micrographs.star --coord_dir OUT/ --coord_suffix _autopick.star"
    command += " --part_star parts.star --part_dir Extract/ --extract --extract_size 32 --norm --bg_radius 12"
    done = subprocess.run(command.split(), capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    labels, rows = tokens(Path("parts.star"))
    assert len(rows) == len(spots)
    for row in rows:
        number, stack = row[labels.index("rlnImageName")].split("@")
        with mrcfile.open(stack, permissive=True) as file:
            cut = file.data[int(number) - 1]
        assert np.unravel_index(np.argmax(cut), cut.shape) == (16, 16)


@pytest.mark.parametrize("swap", [False, True])
def test_fractions_of_cryosparc_know_no_scale(tmp_path, swap):
    """They go out to the last bit; with rows first they are put right."""
    project = tables(tmp_path / "p.zarr", ["m1.mrc"], source_pixel_size=5.0, size=(200, 300))
    source = cs_picks(tmp_path / "p.cs", [(5, "m1.mrc", 0.3, 0.7, 0.1, 1.0)])
    take(project, source, diameter=100.0, scale=2.0, swap_xy=swap)
    everything_out(project, tmp_path / "out.cs", format="cryosparc")
    x, y = (Dataset.load(tmp_path / "out.cs")[f"location/center_{axis}_frac"][0] for axis in "xy")
    if swap:
        assert (x, y) == pytest.approx((0.7, 0.3), abs=1e-6)
    else:
        assert (x, y) == (np.float32(0.3), np.float32(0.7))


def test_cryosparcs_own_files_keep_their_sense_of_y(tmp_path):
    """They name the micrographs they are of: which way y counts on these was said at import."""
    project = tables(tmp_path / "p.zarr", ["m1.mrc"], source_pixel_size=5.0, size=(200, 300))
    source = cs_picks(tmp_path / "p.cs", [(5, "m1.mrc", 0.3, 0.7, 0.1, 1.0)])
    take(project, source, diameter=100.0, flip_y=False)
    with pytest.raises(InputError, match=r"'theirs' came in with --no-flip-y.*give --no-flip-y here as well"):
        everything_out(project, tmp_path / "out.cs", format="cryosparc")
    everything_out(project, tmp_path / "out.cs", format="cryosparc", flip_y=False)
    assert Dataset.load(tmp_path / "out.cs")["location/center_y_frac"][0] == np.float32(0.7)
    everything_out(project, tmp_path / "out.csv", format="csv")
    assert float(rows_of(tmp_path / "out.csv", ",")[0]["y_px"]) == pytest.approx(0.7 * 200, abs=1e-3)


SIDES = [(20, 20), (30, 24), (16, 16)]


@pytest.mark.parametrize("write", [boxes, cbox])
@pytest.mark.parametrize("form", ["eman", "cryolo"])
def test_boxes_go_out_as_they_came(tmp_path, write, form):
    """Every corner and size to the last digit, although the sizes differ; another size if one is asked for."""
    project = tables(tmp_path / "p.zarr", ["m1.mrc"], size=(ROWS, COLUMNS))
    (tmp_path / "in").mkdir()
    take(project, write(tmp_path / "in", TRUTH, PIXEL, SIDES), diameter=100.0)
    everything_out(project, tmp_path / "out", format=form)
    truth = sorted([x - w / 2, y - h / 2, w, h] for (x, y), (w, h) in zip(TRUTH, SIDES, strict=True))
    assert sorted(corners(form, tmp_path / "out")) == truth
    everything_out(project, tmp_path / "out", format=form, box=64)
    truth = sorted([x - 32, y - 32, 64, 64] for x, y in TRUTH)
    np.testing.assert_allclose(sorted(corners(form, tmp_path / "out")), truth, atol=1e-3)


@pytest.mark.parametrize("write", [boxes, cbox])
@pytest.mark.parametrize("form", ["eman", "cryolo"])
def test_boxes_of_binned_micrographs_grow(tmp_path, write, form):
    """Picked at a quarter of the size, rows first: four times as large, width and height in their places."""
    project = tables(tmp_path / "p.zarr", ["m1.mrc"], size=(ROWS, COLUMNS))
    (tmp_path / "in").mkdir()
    source = write(tmp_path / "in", [(y / 4, x / 4) for x, y in TRUTH], PIXEL, [(h, w) for w, h in SIDES])
    take(project, source, diameter=100.0, scale=4.0, swap_xy=True)
    everything_out(project, tmp_path / "out", format=form)
    truth = sorted([x - 2 * w, y - 2 * h, 4 * w, 4 * h] for (x, y), (w, h) in zip(TRUTH, SIDES, strict=True))
    np.testing.assert_allclose(sorted(corners(form, tmp_path / "out")), truth, atol=1e-3)
    if form == "cryolo" and write is cbox:
        labels, rows = tokens(tmp_path / "out/m1.cbox")
        found = {tuple(float(row[labels.index(label)]) for label in CBOX[2:6]) for row in rows}
        assert found == {(4 * w, 4 * h, 4 * (w + 2), 4 * (h + 1)) for w, h in SIDES}


def corners(form, out):
    if form == "eman":
        return [row[:4] for row in np.loadtxt(out / "m1.box", ndmin=2).tolist()]
    labels, rows = tokens(out / "m1.cbox")
    return [[float(row[labels.index(label)]) for label in CBOX[:4]] for row in rows]


def test_a_file_per_micrograph_of_particles(tmp_path):
    """`autopick` is what was asked for: a file, its index, and the project's micrographs."""
    project = tables(tmp_path / "p.zarr", ["mics/m1.mrc"], size=(ROWS, COLUMNS))
    take(project, relion_particles(tmp_path, TRUTH, PIXEL), diameter=100.0)
    out = tmp_path / "out"
    assert everything_out(project, out, layout="autopick")["picks"] == 3
    (found,) = positions("relion", out) if not (out / "mics").exists() else positions("relion", out / "mics")
    np.testing.assert_allclose(in_order(found), in_order(TRUTH), atol=1e-3)
    assert "mics/m1.mrc" in (out / "autopick.star").read_text() and not (out / "particles.star").exists()
    assert "mics/m1.mrc" in (out / "micrographs.star").read_text()
    everything_out(project, tmp_path / "both", layout="both")
    assert [path.name for path in (tmp_path / "both").iterdir()] == ["particles.star"]


def small(tmp_path):
    """A project with images of 200 rows and 300 columns, 5 Å a pixel."""
    star = write_set(tmp_path, [noise((200, 300), seed) for seed in range(2)])
    ingest([star], tmp_path / "p.zarr", ImportSettings(), SerialExecutor(), Silent())
    return Project.open(tmp_path / "p.zarr", "r+")


def test_scored_picks_do_not_take_the_columns_of_others(tmp_path):
    """The picks that were scored are replaced: their rows are gone, and those of the new ones are not put in."""
    project = small(tmp_path)
    first = [(60, 50, 0.5), (200, 150, 0.7)]
    for stem in ("m1", "m2"):
        autopick(tmp_path / "a", stem, first)
        autopick(tmp_path / "b", stem, [(100, 120, 0.9), (250, 30, 0.8)])
    take(project, tmp_path / "a", diameter=120.0)
    settings = ScoreSettings(diameter=120.0, radius=0.0)
    score(project, "theirs", None, settings, SerialExecutor(), Silent())
    everything_out(project, tmp_path / "out", picks="theirs-scored")
    labels, rows = tokens(tmp_path / "out/mics/m1_autopick.star")
    assert sorted(tuple(map(float, row[:3])) for row in rows) == sorted(first)
    assert "pickcalNccScore" in labels
    with pytest.raises(InputError, match=r"'theirs-scored' came from .*choose a place apart"):
        export(project, "all", ExportSettings(), tmp_path / "a")
    take(project, tmp_path / "b", diameter=120.0, overwrite=True)
    with pytest.raises(ProjectError, match=r"'theirs' were replaced since 'theirs-scored' were scored.*--overwrite"):
        export(project, "all", ExportSettings(), tmp_path / "out")
    take(project, tmp_path / "a", diameter=120.0, overwrite=True)
    assert export(project, "all", ExportSettings(), tmp_path / "out")["picks"] == 4


def everything_of(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def index_of(folder, files):
    path = folder / "autopick.star"
    path.write_text(
        "data_coordinate_files\n\nloop_\n_rlnMicrographName #1\n_rlnMicrographCoordinates #2\n"
        + "".join(f"{file.stem[:2]}.mrc {file}\n" for file in files)
    )
    return path


@pytest.mark.parametrize("given", ["folder", "files", "index"])
@pytest.mark.parametrize("form", ["relion", "eman"])
def test_the_files_that_picks_came_from_are_left_alone(tmp_path, given, form):
    """The second micrograph's only pick is rejected: its file would be removed, and the others overwritten."""
    project = tables(tmp_path / "p.zarr", ["m1.mrc", "m2.mrc"], size=(ROWS, COLUMNS))
    job = tmp_path / "AutoPick/job004"
    files = [autopick(job, "m1", [(100, 200, 0.9)]), autopick(job, "m2", [(300, 400, 0.1)])]
    sources = {"folder": [job], "files": files, "index": [index_of(tmp_path, files)]}[given]
    take(project, *sources, diameter=100.0)
    before = everything_of(tmp_path / "AutoPick")
    select(project, "theirs", "some", SelectSettings(min_score=0.5, raw=True))
    for out in (job, job.parent, job / "../job004"):
        with pytest.raises(InputError, match=r"picks 'theirs' came from .*; choose a place apart from it"):
            export(project, "some", ExportSettings(format=form), out)
    if given == "folder":
        with pytest.raises(InputError, match="came from"):
            export(project, "some", ExportSettings(format=form), job / "new")
    assert everything_of(tmp_path / "AutoPick") == before
    assert export(project, "some", ExportSettings(format=form), tmp_path / "AutoPick/job005")["picks"] == 1


def test_a_table_is_not_written_over_the_one_that_picks_came_from(tmp_path):
    """Not under its own name, nor by the rejected picks; beside it is well."""
    project = tables(tmp_path / "p.zarr", ["m1.mrc"], size=(ROWS, COLUMNS))
    source = table(tmp_path, TRUTH, PIXEL).rename(tmp_path / "a_rejected.csv")
    take(project, source, diameter=100.0)
    before = source.read_bytes()
    for out, rejected in ((source, False), (tmp_path / "a.csv", True)):
        with pytest.raises(InputError, match=r"came from .*a_rejected\.csv"):
            everything_out(project, out, format="csv", rejected=rejected)
    assert source.read_bytes() == before and not (tmp_path / "a.csv").exists()
    everything_out(project, tmp_path / "b.csv", format="csv", rejected=True)


@pytest.mark.parametrize("form", ["relion", "cryosparc", "topaz", "cryolo", "csv", "parquet"])
def test_what_an_earlier_export_said_is_not_said_again(tmp_path, form):
    """Rejected picks come in again from the file of the rejected ones, and are accepted: no reason stays on them."""
    project = tables(tmp_path / "p.zarr", ["m1.mrc"], size=(ROWS, COLUMNS))
    take(project, table(tmp_path, TRUTH, PIXEL), name="first", diameter=100.0)
    select(project, "first", "none", SelectSettings(min_score=9.0, raw=True))
    export(project, "none", ExportSettings(format=form, rejected=True), tmp_path / "out")
    rejected = tmp_path / "out_rejected"
    source = {"relion": rejected / "particles.star", "cryolo": rejected / "m1.cbox"}.get(form, rejected)
    assert b"reason" in source.read_bytes().lower()
    take(project, source, diameter=100.0)
    everything_out(project, tmp_path / "again", format=form)
    kept = {"relion": "again/particles.star", "cryolo": "again/m1.cbox"}.get(form, "again")
    labels = labels_of(form, tmp_path / kept)
    assert not {"pickcalReason", "pickcal/reason", "reason"} & set(labels)
    assert len(labels) == len(set(labels))


def labels_of(form, path):
    if form in ("relion", "cryolo"):
        return tokens(path)[0]
    if form == "cryosparc":
        return Dataset.load(path).fields()
    if form == "parquet":
        import pyarrow.parquet

        return pyarrow.parquet.read_schema(path).names
    return path.read_text().splitlines()[0].split("\t" if form == "topaz" else ",")


def test_calibrated_scores_of_an_earlier_cbox_are_replaced(tmp_path):
    """The column of the file is kept under another name; ours has today's score."""
    project = tables(tmp_path / "p.zarr", ["m1.mrc"], size=(ROWS, COLUMNS))
    path = cbox(tmp_path, TRUTH, PIXEL)
    lines = path.read_text().splitlines()
    at = lines.index("_Confidence #7")
    lines[at] += "\n_calibrated_confidence #8"
    path.write_text("\n".join(line + (" 77" if line.endswith(("0.0", "0.1", "0.2")) else "") for line in lines) + "\n")
    take(project, path, diameter=100.0)
    everything_out(project, tmp_path / "out", format="cryolo")
    labels, rows = tokens(tmp_path / "out/m1.cbox")
    assert {float(row[labels.index("calibrated_confidence")]) for row in rows} == {0.0, 0.1, 0.2}
    assert {float(row[labels.index("source_calibrated_confidence")]) for row in rows} == {77}
