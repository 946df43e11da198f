"""Projects with picks of other programs, small and by hand, and readings of what is exported that know no pickcal."""

import shlex

import numpy as np
from cryosparc.dataset import Dataset

from pickcal.engine.executors import SerialExecutor
from pickcal.engine.progress import Silent
from pickcal.project import Project
from pickcal.settings import ExportSettings, ImportPicksSettings, ImportSettings, SelectSettings
from pickcal.stages.export import export
from pickcal.stages.import_picks import import_picks
from pickcal.stages.ingest import ingest
from pickcal.stages.select import select

HEAD = "data_\n\nloop_\n_rlnMicrographName #1\n_rlnDefocusU #2\n_rlnVoltage #3\n_rlnSphericalAberration #4\n"
HEAD += "_rlnAmplitudeContrast #5\n_rlnMicrographPixelSize #6\n"
PICKS = "data_\n\nloop_\n_rlnCoordinateX #1\n_rlnCoordinateY #2\n_rlnAutopickFigureOfMerit #3\n"


def tables(path, names, size=None, **settings):
    """A project of tables alone, of micrographs of 2 Å per pixel."""
    star = path.parent / f"{path.stem}_ctf.star"
    star.write_text(HEAD + "".join(f"{name} {10000 + 1000 * i} 300 2.7 0.1 2.0\n" for i, name in enumerate(names)))
    return project_of([star], path, size, **settings)


def project_of(sources, path, size=None, **settings):
    ingest(sources, path, ImportSettings(tables_only=True, size=size, **settings), SerialExecutor(), Silent())
    return Project.open(path, "r+")


def take(project, *paths, name="theirs", overwrite=False, **settings):
    return import_picks(project, paths, name, ImportPicksSettings(**settings), Silent(), overwrite)


def autopick(folder, stem, rows):
    folder.mkdir(exist_ok=True, parents=True)
    path = folder / f"{stem}_autopick.star"
    path.write_text(PICKS + "".join(f"{x} {y} {fom}\n" for x, y, fom in rows))
    return path


def tokens(path):
    """Rows and labels of the largest table of a STAR file, read with nothing but split."""
    best, labels, rows = ([], []), [], []
    for line in [*path.read_text().splitlines(), "data_end"]:
        if line.strip().startswith("data_"):
            best = max(best, (labels, rows), key=lambda table: len(table[1]))
            labels, rows = [], []
        elif line.startswith("_"):
            labels.append(line.split()[0][1:])
        elif line.strip() and not line.startswith("#") and "loop_" not in line:
            rows.append(shlex.split(line))
    return best


def same(theirs, ours):
    """The same text, or text of the same number to the last bit."""
    try:
        return float(theirs) == float(ours)
    except ValueError:
        return theirs == ours


def everything_out(project, out, picks="theirs", **settings):
    select(project, picks, "all", SelectSettings(), overwrite=True)
    return export(project, "all", ExportSettings(**settings), out)


def cs_picks(path, rows, **fields):
    """Picks as Inspect Picks writes them: uid, micrograph, x and y fraction, NCC, power; 200 rows, 300 columns."""
    data = Dataset.allocate(
        len(rows),
        fields=[
            ("location/micrograph_path", "O"),
            ("location/micrograph_shape", "u4", (2,)),
            ("location/center_x_frac", "f4"),
            ("location/center_y_frac", "f4"),
            ("location/micrograph_psize_A", "f4"),
            ("pick_stats/ncc_score", "f4"),
            ("pick_stats/power", "f4"),
            ("note", "O"),
        ],
    )
    data["uid"] = np.array([row[0] for row in rows], dtype=np.uint64)
    data["location/micrograph_path"] = np.array([row[1] for row in rows], dtype=object)
    data["location/micrograph_shape"] = np.array([[200, 300]] * len(rows), dtype=np.uint32)
    data["location/micrograph_psize_A"] = np.full(len(rows), 5.0, np.float32)
    keys = ("location/center_x_frac", "location/center_y_frac", "pick_stats/ncc_score", "pick_stats/power")
    for place, key in enumerate(keys, start=2):
        data[key] = np.array([row[place] for row in rows], dtype=np.float32)
    data["note"] = np.array([f"n{row[0]}" for row in rows], dtype=object)
    for key, values in fields.items():
        data[key] = values
    data.save(path)
    return path
