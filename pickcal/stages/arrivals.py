"""Arrivals: which micrographs of a running session are complete and can be taken in.

A table may be caught while it is written, and so may an image. What is taken in was the same for a while: the row of
the table with all its numbers, and the size of the file. An image whose header promises more than there is gets more
time.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Hashable
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pandas as pd

from pickcal.engine.executors import explain
from pickcal.errors import InputError, PickcalError
from pickcal.formats import mrc
from pickcal.formats.images import image_info
from pickcal.names import NameIndex
from pickcal.settings import ImportSettings
from pickcal.stages.sources import CTF_COLUMNS, exposures, root_of, with_headers, within
from pickcal.stores.places import Place, Url

IMAGES = frozenset({".mrc", ".tif", ".tiff"})
WILD = frozenset("*?[")
GIVEN_UP = 120.0
"""Seconds without a change after which a file that is damaged or too short is taken in, as failed."""


class Steady:
    """Tells how long things have been as they are."""

    def __init__(self) -> None:
        self._seen: dict[Hashable, tuple[object, float]] = {}

    def seconds(self, key: Hashable, mark: object, now: float) -> float:
        """Seconds since a thing was first seen as it is now; 0 for one that is new or has changed.

        `now` is the time of the look, seconds: one for all things of it, so that what came together is ripe together.
        """
        if key not in self._seen or self._seen[key][0] != mark:
            self._seen[key] = mark, now
        return now - self._seen[key][1]

    def forget(self, key: Hashable) -> None:
        """Forget a thing that is taken in."""
        self._seen.pop(key, None)


class Arrivals:
    """Micrographs of a running session.

    Parameters
    ----------
    source
        Table of micrographs that grows; or folder (or path with `*`) of images, here or in an object store.
    settings
        How sources are read.
    settle
        Seconds for which a row and its file must have been the same.
    ctf
        For a folder: table with the CTF of its images.

    Attributes
    ----------
    waiting
        Micrographs that are known of and not complete, as of the last look.
    trouble
        Why table or folder could not be read at the last look; "" where they could.
    """

    def __init__(self, source: Place, settings: ImportSettings, settle: float, ctf: Place | None = None) -> None:
        self.source, self.settings, self.settle, self.ctf = source, settings, settle, ctf
        self.waiting, self.trouble = 0, ""
        self._looked = False
        self._steady = Steady()
        self._read: tuple[object, pd.DataFrame | None] = (None, None)
        self._folder = is_folder(source)
        if self._folder and ctf is None and not settings.without_ctf:
            raise InputError(
                f"{source}: expected a table with the CTF of its images; give --ctf-table or --without-ctf"
            )
        if not self._folder and ctf is not None:
            raise InputError(f"{source}: expected a folder of images beside --ctf-table, found a table; leave one out")

    def look(self, known: Collection[str], most: int, last: bool = False) -> pd.DataFrame:
        """Find micrographs that can be taken in.

        Parameters
        ----------
        known
            Names of those that were taken in before.
        most
            Take no more at once.
        last
            Nothing will change any more: take also what is damaged or too short.

        Returns
        -------
        DataFrame
            Columns as of `stages.sources.Sources.tables`, in the order of the table. None of them while folder or
            store cannot be read, which passes, as a server that is started anew does; see `trouble`.

        Raises
        ------
        InputError, MissingFileError
            If they cannot be read at the first look: then the session was not given as it should be.
        """
        self.trouble = ""
        try:
            found = self._found(known, most, last)
        except (OSError, PickcalError) as error:
            if not self._looked:
                raise
            self.trouble = explain(error)
            return pd.DataFrame({"name": []})
        self._looked = True
        return found

    def _found(self, known: Collection[str], most: int, last: bool) -> pd.DataFrame:
        table, root = self._listed()
        self.waiting = 0
        if table is None or not len(table):
            return pd.DataFrame({"name": []})
        fresh = table.loc[~table["name"].isin(known) & ~table["name"].duplicated()]
        if root is None and len(fresh):
            root = self._root(fresh)
        now = time.monotonic()
        ready = [] if root is None else [i for i, row in fresh.iterrows() if self._complete(row, root, now, last)]
        self.waiting = len(fresh) - len(ready)
        if not ready or root is None:
            return pd.DataFrame({"name": []})
        taken = fresh.loc[ready[:most]].reset_index(drop=True)
        for name in taken["name"]:
            self._steady.forget(name)
        return with_headers(taken, root, self.settings)

    def _root(self, fresh: pd.DataFrame) -> Place | None:
        """Folder that the names are relative to; None before the first file is there."""
        try:
            return root_of(fresh["name"].tolist(), self.source, self.settings.root)
        except PickcalError:
            self.waiting = len(fresh)
            return None

    def _complete(self, row: pd.Series[Any], root: Place, now: float, last: bool) -> bool:
        """Whether a row of the table and its file have been the same for long enough, and the file is whole."""
        name = str(row["name"])
        try:
            index, place = within(root, name)
        except PickcalError:
            return True  # with_headers says what is wrong
        if isinstance(place, Url):
            from pickcal.stores import objects

            file: object = objects.stat(place)  # an object is there as a whole or not at all
            if file is None:
                return False
        else:
            try:
                found = place.stat()
            except OSError:
                return False
            file = found.st_size, found.st_mtime_ns
        values = tuple(value if value == value else None for value in row.tolist())
        same = self._steady.seconds(name, (values, file), now)
        if last:
            return True
        if same < self.settle:
            return False
        return isinstance(place, Url) or same > max(GIVEN_UP, self.settle) or _whole(place, index)

    def _listed(self) -> tuple[pd.DataFrame | None, Place | None]:
        """Table of all micrographs that are known of, and the folder of their images where that is known."""
        if not self._folder:
            return self._table(self.source), None
        folder, names = listed_images(self.source)
        if self.ctf is None:
            unknown = dict.fromkeys((*CTF_COLUMNS, "dose", "pixel_size"), np.nan)
            sizes = dict.fromkeys(("source_height", "source_width"), 0)
            columns = {"name": names, **unknown, **sizes, "exposure_group": 1, "uid": np.uint64(0), "problem": ""}
            return pd.DataFrame(columns), folder
        table = self._table(self.ctf)
        if table is None:
            return None, folder
        index = NameIndex(table["name"].tolist())
        rows = [index.find(name, str(self.ctf)) for name in names]
        found = table.iloc[[row for row in rows if row >= 0]].reset_index(drop=True)
        found["name"] = [name for name, row in zip(names, rows, strict=True) if row >= 0]
        return found, folder

    def _table(self, source: Place) -> pd.DataFrame | None:
        """Read a table if it is there and has changed; None while it cannot be read."""
        mark = _mark(source)
        if mark is None:
            self.trouble = f"{source}: is not there yet"
            return None
        if mark == self._read[0]:
            return self._read[1]
        try:
            table = exposures(source, self.settings)
        except (PickcalError, OSError) as error:  # perhaps it is being written; the next look tells
            self.trouble = str(error)
            return self._read[1]
        # what was read while somebody wrote is read again
        self._read = (mark if _mark(source) == mark else None, table)
        return table


def is_folder(source: Place) -> bool:
    """Whether a source is a folder of images rather than a table."""
    if WILD.intersection(source.name):
        return True
    return source.is_dir() if isinstance(source, Path) else not source.suffix


def listed_images(source: Place) -> tuple[Place, list[str]]:
    """Images of a folder, or those that fit a name with `*`.

    Returns
    -------
    folder, names
        The folder, and names relative to it, sorted.
    """
    wild = bool(WILD.intersection(source.name))
    folder = source.parent if wild else source
    pattern = source.name if wild else "*"
    if isinstance(folder, Url):
        from pickcal.stores import objects

        names = [name for name in objects.listed(folder) if "/" not in name and PurePosixPath(name).match(pattern)]
    else:
        folder = folder.absolute()
        names = [path.name for path in folder.glob(pattern)] if folder.is_dir() else []
    return folder, sorted(n for n in names if PurePosixPath(n).suffix.lower() in IMAGES and not n.startswith("."))


def _mark(source: Place) -> object:
    """Another one when a file was written; None where there is none."""
    if isinstance(source, Url):
        from pickcal.stores import objects

        return objects.stat(source)
    try:
        found = source.stat()
    except OSError:
        return None
    return found.st_size, found.st_mtime_ns, found.st_ino


def _whole(path: Path, index: int | None) -> bool:
    """Whether an image can be read by its header, and is as long as that says."""
    try:
        image_info(path, index)
        with path.open("rb") as file:
            head = file.read(mrc.HEADER_BYTES)
        if mrc.looks_like_mrc(head):
            mrc.check_complete(path, mrc.read_header(path))
    except (PickcalError, OSError):
        return False
    return True
