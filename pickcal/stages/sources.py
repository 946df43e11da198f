"""Sources of an import: which micrographs there are, where their files are, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from pickcal.errors import InputError, PickcalError
from pickcal.formats.images import ImageInfo, image_info, open_image_info, split_stack_name
from pickcal.formats.relion import find_root, read_micrographs_star
from pickcal.settings import ImportSettings

CTF_COLUMNS = (
    "defocus_u",
    "defocus_v",
    "defocus_angle",
    "phase_shift",
    "voltage",
    "spherical_aberration",
    "amplitude_contrast",
    "ctf_fit_resolution",
    "ice_thickness",
)
PIXEL_TOLERANCE = 0.01


def read_sources(sources: Sequence[Path], settings: ImportSettings) -> tuple[pd.DataFrame, Path | None]:
    """List the micrographs of an import.

    Parameters
    ----------
    sources
        One `micrographs_ctf.star`, or MRC and TIFF files.
    settings
        Pixel size, root folder, stacks, CTF.

    Returns
    -------
    table, root
        Columns `name`, `source`, `source_height`, `source_width`, `source_pixel_size`, `exposure_group`, those of
        `CTF_COLUMNS`, and `problem`: why a micrograph cannot be used, else empty. The folder that names of a STAR
        file are relative to.

    Raises
    ------
    InputError, MissingFileError
        If the table is unusable, or not one micrograph can be used.
    """
    stars = [path for path in sources if path.suffix.lower() == ".star"]
    if stars and len(sources) > 1:
        raise InputError(f"{stars[0]}: expected one STAR file or several images, got {len(sources)} sources")
    root = None
    if stars:
        table, root = _from_star(stars[0], settings)
    else:
        table = _from_images(sources, settings)
    bad = table["problem"] != ""
    if bad.all():
        first = table.loc[bad].iloc[0]
        raise InputError(
            f"none of {len(table)} micrographs can be used; the first, {first['name']}: {first['problem']}"
        )
    return table, root


def _from_star(path: Path, settings: ImportSettings) -> tuple[pd.DataFrame, Path]:
    table = read_micrographs_star(path, require_ctf=not settings.without_ctf).table.copy()
    root, _ = find_root(table["name"].tolist(), path, settings.root, Path.cwd())
    root = root.absolute()  # workers may stand in another folder
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda name: _info(root, name), table["name"]))
    rows = []
    for (_, row), (info, problem) in zip(table.iterrows(), found, strict=True):
        rows.append(_row(info, str(row["problem"]) or problem, float(row["pixel_size"]), settings))
    table = table.drop(columns=["problem", "pixel_size"])
    return pd.concat([table.reset_index(drop=True), pd.DataFrame(rows)], axis=1), root


def _from_images(sources: Sequence[Path], settings: ImportSettings) -> pd.DataFrame:
    if not settings.without_ctf:
        raise InputError(
            f"{sources[0]}: no defocus is known for images alone; import the micrographs_ctf.star of a CTF "
            "estimation, or give --without-ctf (no calibration against defocus then)"
        )
    rows, names = [], []
    for source in sources:
        try:
            infos: list[ImageInfo | None] = list(open_image_info(source.absolute(), stacks=settings.stacks))
            problem = ""
        except PickcalError as error:
            infos, problem = [None], str(error)
        for info in infos:
            names.append(info.name if info else str(source))
            rows.append(_row(info, problem, np.nan, settings))
    twice = pd.Series(names).duplicated()
    if twice.any():
        raise InputError(f"{names[int(np.argmax(twice))]}: given twice")
    frame = pd.DataFrame({"name": names, **dict.fromkeys(CTF_COLUMNS, np.nan), "exposure_group": 1})
    return pd.concat([frame, pd.DataFrame(rows)], axis=1)


def _info(root: Path, name: str) -> tuple[ImageInfo | None, str]:
    index, file = split_stack_name(name)
    try:
        return image_info(root / file, index), ""
    except PickcalError as error:
        return None, str(error)


def _row(info: ImageInfo | None, problem: str, table_pixel: float, settings: ImportSettings) -> dict[str, object]:
    if info is None:
        return {
            "source": "",
            "source_height": 0,
            "source_width": 0,
            "source_pixel_size": np.nan,
            "problem": problem,
        }
    pixel, mismatch = _pixel_size(info, table_pixel, settings.source_pixel_size)
    return {
        "source": info.name,
        "source_height": info.height,
        "source_width": info.width,
        "source_pixel_size": pixel,
        "problem": problem or mismatch,
    }


def _pixel_size(info: ImageInfo, table_pixel: float, given: float | None) -> tuple[float, str]:
    """Pixel size of a source, and what is wrong with it."""
    if given is not None:
        return given, ""
    header = info.pixel_size
    if not np.isfinite(table_pixel):
        if header is None:
            return np.nan, f"{info.path}: no pixel size in the header and none in a table; give --source-pixel-size"
        return header, ""
    if header is not None and abs(header / table_pixel - 1) > PIXEL_TOLERANCE:
        return np.nan, (
            f"{info.path}: pixel size {header:g} Å in its header, {table_pixel:g} Å in the STAR file; "
            "give the true one with --source-pixel-size"
        )
    return table_pixel, ""
