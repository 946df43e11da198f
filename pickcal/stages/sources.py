"""Sources of an import: which micrographs there are, where their files are, and what is wrong with them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pickcal.errors import InputError, MissingFileError, PickcalError
from pickcal.formats.exposures import PART, sampled, slices
from pickcal.formats.images import ImageInfo, image_info, open_image_info, split_name
from pickcal.formats.registry import is_table, open_exposures, read_exposures
from pickcal.formats.relion import find_root
from pickcal.settings import ImportSettings
from pickcal.stores.credentials import redacted
from pickcal.stores.fetching import fetched, fetched_image
from pickcal.stores.places import Place, Url, place

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
Info = tuple[ImageInfo | None, Place, str]
"""Header of a micrograph, where its file is, and what is wrong with it."""
AT_ONCE = 16
"""Headers that are read at once where each is waited for."""
QUICK = 0.0005
"""Seconds for a header of a file that is at hand: threads that read such ones wait for one another alone."""


@dataclass(frozen=True)
class Sources:
    """The micrographs of an import.

    Attributes
    ----------
    count
        Their number.
    root
        Folder that the names of a table are relative to; None where there is no such folder.
    """

    count: int
    root: Place | None
    _parts: Callable[[int], Iterator[pd.DataFrame]]
    _completed: Callable[[pd.DataFrame], pd.DataFrame]
    _pixel_size: float | None

    def as_listed(self, rows: int) -> Iterator[tuple[int, pd.DataFrame]]:
        """List what the sources themselves tell, in parts of so many rows; no image that a table names is looked at.

        Yields
        ------
        start, table
            As of `tables`, `source_pixel_size` being NaN where the image alone tells it; columns for the other
            properties of sources may be missing.

        Raises
        ------
        InputError
            At the end of all parts, if their number is another one now.
        """
        at = 0
        for part in self._parts(rows):
            if "source_pixel_size" not in part:
                known = part["pixel_size"] if self._pixel_size is None else self._pixel_size
                part = part.assign(source_pixel_size=known)
            yield at, part
            at += len(part)
        self._check(at)

    def tables(self, rows: int, only: NDArray[np.bool_] | None = None) -> Iterator[tuple[int, pd.DataFrame]]:
        """List the micrographs, in parts of so many rows.

        Parameters
        ----------
        rows
            Micrographs a part.
        only
            Leave out the parts that hold none of these, one value for every micrograph; default all parts.

        Yields
        ------
        start, table
            First micrograph of a part; its columns `name`, `source`, `source_height`, `source_width`,
            `source_pixel_size`, `exposure_group`, those of `CTF_COLUMNS`, and `problem`: why a micrograph cannot be
            used, else empty.

        Raises
        ------
        InputError
            At the end of all parts, if not one micrograph can be used or their number is another one now.
        """
        at, bad, name, problem = 0, 0, "", ""
        for part in self._parts(rows):
            if only is None or only[at : at + len(part)].any():
                table = self._completed(part)
                wrong = table.loc[table["problem"] != ""]
                if not bad and len(wrong):
                    name, problem = wrong["name"].iloc[0], wrong["problem"].iloc[0]
                bad += len(wrong)
                yield at, table
            at += len(part)
        self._check(at)
        if bad == self.count:
            raise InputError(f"none of {bad} micrographs can be used; the first, {name}: {problem}")

    def _check(self, found: int) -> None:
        if found != self.count:
            raise InputError(
                f"expected {self.count} micrographs as at first, found {found}: the table was written meanwhile; give "
                "the same command again"
            )


@contextmanager
def listed(sources: Sequence[Place], settings: ImportSettings) -> Iterator[Sources]:
    """List the micrographs of an import.

    Parameters
    ----------
    sources
        Tables of micrographs (see `formats.registry.open_exposures`), or MRC and TIFF files; here or at URLs.
    settings
        Pixel size, root folder, stacks, CTF, tables only.

    Raises
    ------
    InputError, MissingFileError
        If the table is unusable.
    """
    tables = [source for source in sources if _is_table(source, len(sources) > 1)]
    if tables and len(tables) < len(sources):
        image = next(source for source in sources if source not in tables)
        raise InputError(f"{image}: expected tables of micrographs or images, got both; the table names its images")
    if not tables and not settings.tables_only:
        table = _from_images(sources, settings)
        yield Sources(len(table), None, lambda rows: slices(table, rows), lambda part: part, settings.source_pixel_size)
        return
    with ExitStack() as stack:
        paths = [stack.enter_context(fetched(source)) for source in sources]
        found = open_exposures(paths, require_ctf=not settings.without_ctf)

        def parts(rows: int) -> Iterator[pd.DataFrame]:
            return map(_redacted, found.parts(rows))

        if settings.tables_only:
            completed = partial(_by_table, source=sources[0], settings=settings)
            yield Sources(found.count, None, parts, completed, settings.source_pixel_size)
            return
        root = root_of([redacted(name) for name in found.names], sources[0], settings.root)
        completed = partial(with_headers, root=root, settings=settings)
        yield Sources(found.count, root, parts, completed, settings.source_pixel_size)


def _is_table(source: Place, one_of_many: bool) -> bool:
    """Whether a source is a table; one of many that cannot be read is none, and fails alone as an image."""
    if source.suffix.lower() == ".star":
        return True
    with fetched_image(source, pixels=False) as path:
        try:
            return is_table(path)
        except (OSError, InputError):
            if one_of_many:
                return False
            raise


def exposures(source: Place, settings: ImportSettings) -> pd.DataFrame:
    """Read a table of micrographs as a whole, here or at a URL; as `formats.registry.read_exposures`."""
    with fetched(source) as path:
        return _redacted(read_exposures([path], require_ctf=not settings.without_ctf))


def _redacted(table: pd.DataFrame) -> pd.DataFrame:
    """Leave out the passwords of names that are URLs, so that none is stored; such micrographs fail."""
    addresses = table["name"].str.contains("://", regex=False)
    table.loc[addresses, "name"] = table.loc[addresses, "name"].map(redacted)
    return table


def with_headers(table: pd.DataFrame, root: Place, settings: ImportSettings) -> pd.DataFrame:
    """Add to a table of micrographs what the headers of their files say.

    Parameters
    ----------
    table
        From `formats.registry.read_exposures`.
    root
        Folder that its names are relative to.
    settings
        Pixel size.

    Returns
    -------
    DataFrame
        Columns as of `Sources.tables`.
    """
    infos = [info for part in slices(table, PART) for info in _infos(root, list(part["name"]))]
    known, pixel = table["problem"].tolist(), table["pixel_size"].to_numpy(np.float64)
    told = [(info, place, problem or new) for (info, place, new), problem in zip(infos, known, strict=True)]
    table = table.drop(columns=["problem", "pixel_size", "source_height", "source_width"]).reset_index(drop=True)
    return pd.concat([table, _described(told, pixel, settings)], axis=1)


def root_of(names: Sequence[str], source: Place, root: Place | None) -> Place:
    """Find the folder, here or in an object store, that the names of a table are relative to.

    Parameters
    ----------
    names
        Names of micrographs.
    source
        The table.
    root
        The folder, if known.

    Raises
    ------
    MissingFileError
        If no folder holds any of them, with the folders tried.
    """
    if isinstance(root, Path) or (root is None and isinstance(source, Path)):
        star = source if isinstance(source, Path) else Path(source.name)
        found = find_root(names, star, root, Path.cwd())
        return found.absolute()  # workers may stand in another folder
    folders = [root] if root is not None else source.parents
    return _remote_root(names, source, [folder for folder in folders if isinstance(folder, Url)])


def _remote_root(names: Sequence[str], source: Place, folders: Sequence[Url]) -> Url:
    """As `formats.relion.find_root`, among folders of an object store."""
    from pickcal.stores import objects

    sample = sampled(names)

    def there(folder: Url, name: str) -> bool:
        place = within(folder, name)[1]
        return isinstance(place, Url) and objects.stat(place) is not None

    with ThreadPoolExecutor(AT_ONCE) as pool:
        hits = [sum(pool.map(lambda name, folder=folder: there(folder, name), sample)) for folder in folders]
    if not any(hits):
        looked = ", ".join(str(folder) for folder in folders)
        raise MissingFileError(
            f"{source}: none of its micrographs found, the first being {names[0] if names else 'any micrograph'}; "
            f"looked in {looked}. Names are relative to RELION's project folder: give it with --root"
        )
    best = hits.index(len(sample)) if len(sample) in hits else next(i for i, hit in enumerate(hits) if hit)
    return folders[best]


def within(root: Place, name: str) -> tuple[int | None, Place]:
    """Slice and place of a micrograph that a table names: relative to a folder, or a URL of its own."""
    index, text = split_name(name)
    if ":" in text:  # or else it is no URL
        found = place(text)
        if isinstance(found, Url):
            return index, found
    return index, root / text


def _by_table(table: pd.DataFrame, source: Place, settings: ImportSettings) -> pd.DataFrame:
    """Complete a table of micrographs by itself; images are not looked at and need not be there."""
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
                    f"{source}: {row['name']}: {name} is {row[name]} pixels in the table, {value} in --size; "
                    "leave --size out"
                )
            table[name] = value
    table["source"] = ""
    return table


def _from_images(sources: Sequence[Place], settings: ImportSettings) -> pd.DataFrame:
    if not settings.without_ctf:
        raise InputError(
            f"{sources[0]}: no defocus is known for images alone; import the micrographs_ctf.star of a CTF "
            "estimation, or give --without-ctf (no calibration against defocus then)"
        )
    found: list[Info] = []
    for source in sources:
        try:
            with fetched_image(source.absolute(), pixels=False) as path:
                found += [(info, source.absolute(), "") for info in open_image_info(path, stacks=settings.stacks)]
        except PickcalError as error:
            found.append((None, source, str(error)))
    names = [str(place) if info is None else _named(info.index, place) for info, place, _ in found]
    twice = pd.Series(names).duplicated()
    if twice.any():
        raise InputError(f"{names[int(np.argmax(twice))]}: given twice")
    unknown = dict.fromkeys((*CTF_COLUMNS, "dose"), np.nan)
    frame = pd.DataFrame({"name": names, **unknown, "exposure_group": 1, "uid": np.uint64(0)})
    return pd.concat([frame, _described(found, np.full(len(found), np.nan), settings)], axis=1)


def _infos(root: Place, names: Sequence[str]) -> list[Info]:
    """Look at the headers of many micrographs: at several at once as soon as most have to be waited for."""
    out: list[Info] = []
    at_hand = isinstance(root, Path)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for start in range(0, len(names), AT_ONCE):
            if not at_hand:
                out += pool.map(partial(_info, root), names[start:])
                break
            spent = []
            for name in names[start : start + AT_ONCE]:
                began = time.perf_counter()
                out.append(_info(root, name))
                spent.append(time.perf_counter() - began)
            at_hand = median(spent) < QUICK  # not the mean: a single file may be slow for any reason
    return out


def _info(root: Place, name: str) -> Info:
    """Look at a micrograph that a table names."""
    try:
        index, place = within(root, name)
        with fetched_image(place, index, pixels=False) as path:
            return image_info(path, index), place, ""
    except PickcalError as error:
        return None, Path(name), str(error)


def _named(index: int | None, place: Place) -> str:
    return str(place) if index is None else f"{index + 1:06d}@{place}"


def _described(found: Sequence[Info], table_pixel: NDArray[np.float64], settings: ImportSettings) -> pd.DataFrame:
    """Columns of the sources' properties and problems, from their headers and the pixel sizes of a table, Å."""
    there = [info for info, _, _ in found if info is not None]
    readable = np.array([info is not None for info, _, _ in found])
    header = np.full(len(found), np.nan)
    header[readable] = [np.nan if info.pixel_size is None else info.pixel_size for info in there]
    height, width = np.zeros((2, len(found)), np.int64)
    height[readable], width[readable] = [info.height for info in there], [info.width for info in there]
    problem = [reason for _, _, reason in found]
    given = settings.source_pixel_size
    if given is not None:
        pixel = np.full(len(found), given)
    else:
        told = np.isfinite(table_pixel)
        pixel = np.where(told, table_pixel, header)
        differ = told & (np.abs(header - table_pixel) > PIXEL_TOLERANCE * np.abs(table_pixel))
        for i in map(int, np.flatnonzero(readable & (np.isnan(pixel) | differ))):
            problem[i] = problem[i] or _which_pixel_size(found[i][1], header[i], table_pixel[i])
            pixel[i] = np.nan
    pixel[~readable] = np.nan
    return pd.DataFrame(
        {
            "source": ["" if info is None else _named(info.index, place) for info, place, _ in found],
            "source_height": height,
            "source_width": width,
            "source_pixel_size": pixel,
            "problem": problem,
        }
    )


def _which_pixel_size(place: Place, header: float, table: float) -> str:
    """Why the pixel size of a source is not known."""
    if not np.isfinite(table):
        return f"{place}: no pixel size in the header and none in a table; give --source-pixel-size"
    return (
        f"{place}: pixel size {header:g} Å in its header, {table:g} Å in the STAR file; "
        "give the true one with --source-pixel-size"
    )
