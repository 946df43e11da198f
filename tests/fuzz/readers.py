"""Every reader of foreign files, by name: how it is called, and valid files to start from.

Modules are imported when a reader runs, so that one that is missing fails its own test and no other.
"""

import importlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import seeds as valid

from pickcal.formats.foreign import EXPOSURE_COLUMNS, HEAD, ROWS, Column, ForeignPicks


@dataclass(frozen=True)
class Reader:
    """A reader under test.

    Attributes
    ----------
    name
        For the command line and the test's name.
    module
        Its module below `pickcal.formats`.
    suffix
        Of the files it reads.
    seeds
        Makes valid files.
    read
        Takes module and path, reads all and checks the form of what comes.
    odd
        Makes, of a `random.Random`, a file that is whole but has odd contents.
    share
        Of the usual number of inputs: less for what goes through the code of other readers of this list.
    """

    name: str
    module: str
    suffix: str
    seeds: Callable[[], list[bytes]]
    read: Callable[[object, Path], object]
    odd: Callable[[random.Random], bytes] | None = None
    share: float = 1.0

    def __call__(self, path: Path) -> object:
        """Read a file."""
        module = importlib.import_module(f"pickcal.formats.{self.module}")
        with path.open("rb") as file:
            head = file.read(HEAD)
        for name in ("recognise", "recognise_exposures", "recognise_index"):
            if hasattr(module, name):
                assert isinstance(getattr(module, name)(path, head), bool), f"{name} is no bool"
        return self.read(module, path)


def _check(part: ForeignPicks) -> int:
    assert isinstance(part, ForeignPicks)
    rows = len(part.x)
    assert rows <= ROWS
    assert part.x.dtype == part.y.dtype == "float64"
    assert part.x.shape == part.y.shape == (rows,)
    parts: list[Column | None] = [*part.columns.values(), *part.scores.values(), *part.exposure.values()]
    for column in (*parts, part.micrograph, part.template, part.angle, part.uid):
        assert column is None or len(column) == rows
    if part.micrograph is not None:
        assert isinstance(part.micrograph, pd.Categorical)
        assert (part.micrograph.codes >= 0).all(), "a micrograph without name"
    assert part.micrograph is not None or part.stem
    assert set(part.exposure) <= set(EXPOSURE_COLUMNS)
    assert all(score.dtype.kind == "f" for score in part.scores.values())
    return rows


def picks(module, path):
    """Read picks to the end."""
    return sum(_check(part) for part in module.read_picks(path))


def joined_picks(module, path):
    """Read picks of a reader that takes several files."""
    return sum(_check(part) for part in module.read_picks([path]))


def any_picks(module, path):
    """Read picks through the registry."""
    return sum(_check(part) for files in module.pick_files([path]) for part in files.read())


def exposures(module, path):
    """Read micrographs, and check the columns."""
    frame = module.read_exposures([path])
    missing = {"name", "problem", *EXPOSURE_COLUMNS} - set(frame.columns)
    assert not missing, f"no column {missing}"
    assert all(isinstance(problem, str) for problem in frame["problem"])
    assert all(isinstance(name, str) and name for name in frame["name"])
    return len(frame)


def relion_micrographs(module, path):
    """Read RELION's table of micrographs, with or without CTF by the file's size."""
    odd = path.is_file() and path.stat().st_size % 2
    return sum(map(len, module.open_micrographs_star(path, require_ctf=not odd).parts(100)))


def image(module, path):
    """Read the header of an image or of each image of a stack."""
    infos = module.open_image_info(path, stacks=True)
    assert len(infos) == infos[0].images
    return module.image_info(path, 0)


def every(*makers: Callable[[], list[bytes]]) -> Callable[[], list[bytes]]:
    """Seeds of several formats."""
    return lambda: [seed for maker in makers for seed in maker()]


PICKS = every(
    valid.relion_picks,
    valid.cryosparc_picks,
    valid.topaz,
    valid.cbox,
    valid.cryolo_box,
    valid.eman_box,
    valid.eman_json,
    valid.gautomatch,
    valid.warp,
    valid.csv,
    valid.parquet,
)
EXPOSURES = every(
    valid.relion_micrographs,
    valid.cryosparc_exposures,
    valid.ctffind,
    valid.gctf,
    valid.csv_exposures,
    valid.parquet_exposures,
)

READERS = {
    reader.name: reader
    for reader in (
        Reader("relion_micrographs", "relion", ".star", valid.relion_micrographs, relion_micrographs),
        Reader(
            "relion_coordinates",
            "relion",
            ".star",
            lambda: valid.relion_picks()[1:],
            lambda module, path: module.read_coordinates_star(path),
            share=0.25,
        ),
        Reader("relion_picks", "relion_picks", ".star", valid.relion_picks, picks),
        Reader(
            "relion_index",
            "relion_picks",
            ".star",
            valid.relion_index,
            lambda module, path: module.read_index(path),
            share=0.25,
        ),
        Reader(
            "cryosparc_picks",
            "cryosparc",
            ".cs",
            valid.cryosparc_picks,
            joined_picks,
            valid.odd_cryosparc(valid.PICK_FIELDS),
        ),
        Reader(
            "cryosparc_exposures",
            "cryosparc",
            ".cs",
            valid.cryosparc_exposures,
            exposures,
            valid.odd_cryosparc(valid.EXPOSURE_FIELDS),
        ),
        Reader("ctffind", "ctffind", ".txt", valid.ctffind, exposures),
        Reader("gctf", "gctf", ".log", valid.gctf, exposures),
        Reader("topaz", "topaz", ".txt", valid.topaz, picks),
        Reader("cryolo_cbox", "cryolo", ".cbox", valid.cbox, picks),
        Reader("cryolo_box", "cryolo", ".box", valid.cryolo_box, picks),
        Reader("eman_box", "eman", ".box", valid.eman_box, picks),
        Reader("eman_json", "eman", ".json", valid.eman_json, picks),
        Reader("gautomatch", "gautomatch", ".star", valid.gautomatch, picks),
        Reader("warp", "warp", ".star", valid.warp, picks),
        Reader("csv", "tables", ".csv", valid.csv, picks),
        Reader("csv_exposures", "tables", ".csv", valid.csv_exposures, exposures),
        Reader("parquet", "tables", ".parquet", valid.parquet, picks, valid.odd_parquet(valid.TABLE)),
        Reader(
            "parquet_exposures",
            "tables",
            ".parquet",
            valid.parquet_exposures,
            exposures,
            valid.odd_parquet(valid.EXPOSURES),
        ),
        Reader("mrc", "images", ".mrc", valid.mrc, image),
        Reader("tiff", "images", ".tif", valid.tiff, image),
        Reader("any_picks", "registry", ".dat", PICKS, any_picks, share=0.25),
        Reader("any_exposures", "registry", ".dat", EXPOSURES, exposures, share=0.25),
    )
}
