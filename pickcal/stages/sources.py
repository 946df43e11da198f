"""Sources of an import: which micrographs there are, where their files are, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd

from pickcal.errors import InputError, PickcalError
from pickcal.formats.images import ImageInfo, image_info, open_image_info, split_stack_name
from pickcal.formats.registry import is_table, read_exposures
from pickcal.formats.relion import find_root
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
        Tables of micrographs (see `formats.registry.read_exposures`), or MRC and TIFF files.
    settings
        Pixel size, root folder, stacks, CTF, tables only.

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
    root = None
    tables = [path for path in sources if is_table(path)]
    if tables and len(tables) < len(sources):
        image = next(path for path in sources if path not in tables)
        raise InputError(f"{image}: expected tables of micrographs or images, got both; the table names its images")
    if settings.tables_only:
        table = _from_tables(sources, settings)
    elif tables:
        table, root = _with_images(sources, settings)
    else:
        table = _from_images(sources, settings)
    bad = table["problem"] != ""
    if bad.all():
        first = table.loc[bad].iloc[0]
        raise InputError(
            f"none of {len(table)} micrographs can be used; the first, {first['name']}: {first['problem']}"
        )
    return table, root


def _with_images(sources: Sequence[Path], settings: ImportSettings) -> tuple[pd.DataFrame, Path]:
    """Table of micrographs whose images are read as well."""
    table = read_exposures(sources, require_ctf=not settings.without_ctf)
    root, _ = find_root(table["name"].tolist(), sources[0], settings.root, Path.cwd())
    root = root.absolute()  # workers may stand in another folder
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda name: _info(root, name), table["name"]))
    rows = []
    for (_, row), (info, problem) in zip(table.iterrows(), found, strict=True):
        rows.append(_row(info, str(row["problem"]) or problem, float(row["pixel_size"]), settings))
    table = table.drop(columns=["problem", "pixel_size", "source_height", "source_width"])
    return pd.concat([table.reset_index(drop=True), pd.DataFrame(rows)], axis=1), root


def _from_tables(sources: Sequence[Path], settings: ImportSettings) -> pd.DataFrame:
    """Table of micrographs alone; images are not looked at and need not be there."""
    table = read_exposures(sources, require_ctf=not settings.without_ctf)
    given = settings.source_pixel_size
    table["source_pixel_size"] = table.pop("pixel_size") if given is None else given
    missing = (table["problem"] == "") & ~(table["source_pixel_size"] > 0)
    table.loc[missing, "problem"] = "no pixel size in the table; give --source-pixel-size"
    if settings.size is not None:
        for name, value in zip(("source_height", "source_width"), settings.size, strict=True):
            known = table[name] > 0
            if (known & (table[name] != value)).any():
                row = table[known & (table[name] != value)].iloc[0]
                raise InputError(
                    f"{sources[0]}: {row['name']}: {name} is {row[name]} pixels in the table, {value} in --size; "
                    "leave --size out"
                )
            table[name] = value
    table["source"] = ""
    return table


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
    unknown = dict.fromkeys((*CTF_COLUMNS, "dose"), np.nan)
    frame = pd.DataFrame({"name": names, **unknown, "exposure_group": 1, "uid": np.uint64(0)})
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
