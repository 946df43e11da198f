"""Picks and micrographs as files of other programs hold them: what every reader returns and every writer takes.

A module of this package per program offers `recognise(path, head)`, and what it can of `read_picks(path)`,
`read_exposures(path)` and a writer. `registry` finds the module of a file by the file's content.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Column = NDArray[Any] | pd.Categorical
"""Column of a file: numbers `(row,)` or `(row, n)` in the file's own type, or text as categories."""

ROWS = 500_000
"""Most rows that a reader hands out at once."""

HEAD = 65_536
"""Bytes of a file that it is recognised by."""

EXPOSURE_COLUMNS = (
    "pixel_size",
    "source_height",
    "source_width",
    "defocus_u",
    "defocus_v",
    "defocus_angle",
    "phase_shift",
    "voltage",
    "spherical_aberration",
    "amplitude_contrast",
    "exposure_group",
    "ctf_fit_resolution",
    "ice_thickness",
    "dose",
    "uid",
)

CTF_RANGES = {
    "defocus_u": (0.0, math.inf, "above 0 Å"),
    "defocus_v": (0.0, math.inf, "above 0 Å"),
    "defocus_angle": (-math.inf, math.inf, "in degrees"),
    "phase_shift": (-math.inf, math.inf, "in degrees"),
    "voltage": (0.0, math.inf, "above 0 kV"),
    "spherical_aberration": (-1e-9, math.inf, "of 0 mm or more"),
    "amplitude_contrast": (-1e-9, 1.0, "in [0, 1)"),
}
"""Between what values those columns lie, ends excluded, and how that is said after "expected a number"."""

EXPOSURE_RANGES = {**CTF_RANGES, "pixel_size": (0.0, math.inf, "above 0 Å")}
"""The same with the size of a pixel."""

WHOLE_COLUMNS = {"source_height": 0, "source_width": 0, "exposure_group": 1, "uid": 0}
"""Columns of whole numbers, and what stands there for one that is not known."""


@dataclass(frozen=True)
class ForeignPicks:
    """Picks of one file, or of a part of a large one.

    Attributes
    ----------
    program
        Who writes such files: "relion", "cryosparc", "topaz", "cryolo", "eman", "gautomatch", "warp", "table".
    path
        The file.
    columns
        Every column of the file in its order, under its own name, values untouched.
    x, y
        Centre of every particle along columns and rows, float64 `(row,)`, in `unit`, from the centre of the first
        pixel (a box file's corner + size / 2).
    unit
        Pixels of the micrograph that was picked, fractions of its width and height, or Å.
    y_from
        Which row `y` counts from: the first in the file (RELION, Topaz, EMAN, crYOLO), or the last (cryoSPARC).
    micrograph
        Name of every row's micrograph as the file spells it; None: all rows are of the micrograph named `stem`.
    stem
        Name of the micrograph from the file's own name, where the file names none.
    scores
        By the name that the score gets in a project, the main one first: "ncc" and "power" where they are that,
        else the program's word in lower case with underscores ("figure_of_merit", "confidence"). May be empty.
    template
        Index of the template, from 0, int `(row,)`; None if the file has none.
    angle
        In-plane rotation in degrees from x towards y, float `(row,)`; None if the file has none.
    uid
        uint64 `(row,)`; None if the file has none.
    exposure
        What the rows say of their micrographs, by names of `EXPOSURE_COLUMNS`; units as in `schema.MICROGRAPHS`,
        `pixel_size` in Å.
    block, tables
        Name of the block of a STAR file that the rows are from, and its other tables (optics groups) as they are.
    """

    program: str
    path: Path
    columns: dict[str, Column]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    unit: Literal["px", "fraction", "angstrom"] = "px"
    y_from: Literal["first row", "last row"] = "first row"
    micrograph: pd.Categorical | None = None
    stem: str = ""
    scores: dict[str, NDArray[np.floating]] = field(default_factory=dict)
    template: NDArray[np.integer] | None = None
    angle: NDArray[np.floating] | None = None
    uid: NDArray[np.uint64] | None = None
    exposure: dict[str, NDArray[Any]] = field(default_factory=dict)
    block: str = ""
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)


@dataclass(frozen=True)
class ExportBlock:
    """Picks of some micrographs on their way out; writers take an iterator of these, micrograph after micrograph.

    Attributes
    ----------
    micrographs
        One row per micrograph of the block, also of those without picks: `name` and `EXPOSURE_COLUMNS`; `pixel_size`
        is that of the source micrograph in Å, `source_height` and `source_width` its size in pixels (0 if unknown).
        NaN where a value is not known.
    index
        Row of `micrographs` for every pick, rising.
    x, y
        Centre in pixels of the source micrograph, float64, from the centre of its first pixel; y along rows from the
        first.
    ours
        What pickcal has to say of every pick, by name: raw scores, calibrated scores, "probability", "q_value",
        "reason" (text, object), "template" (from 0, -1 for none), "angle" (degrees from x towards y).
    main
        Name in `ours` of the score that stands for the pick where a format has room for one; "" without any score.
    source
        Columns that came in with the picks, untouched; empty for our own picks.
    source_program
        Program whose file `source` comes from, "" for our own picks.
    block, tables
        As `ForeignPicks` had them.
    moved
        Whether `x`, `y` are other numbers than those in `source`: the picks were refined, or the numbers there are
        scaled or swapped. Then the writer replaces the coordinates of the format that it writes.
    scale
        Pixels of the source micrograph to one pixel of `source`; the writer multiplies lengths from there by it.
    swapped
        Whether rows come first in `source`.
    """

    micrographs: pd.DataFrame
    index: NDArray[np.intp]
    x: NDArray[np.float64]
    y: NDArray[np.float64]
    ours: dict[str, Column]
    main: str
    source: dict[str, Column] = field(default_factory=dict)
    source_program: str = ""
    block: str = ""
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    moved: bool = False
    scale: float = 1.0
    swapped: bool = False

    def __len__(self) -> int:
        """Count the picks."""
        return len(self.x)

    @property
    def score(self) -> Column:
        """Score that stands for every pick; 0 for picks that came without any."""
        return self.ours[self.main] if self.main else np.zeros(len(self))


def text_of(column: Column) -> NDArray[Any]:
    """Text of a column as an object array of `str`."""
    values = column.categories.to_numpy(dtype=object)[column.codes] if isinstance(column, pd.Categorical) else column
    return np.asarray(values, dtype=object)


def categorical(values: Any) -> pd.Categorical:
    """Text as categories, in the order of appearance."""
    codes, names = pd.factorize(np.asarray(values, dtype=object))
    return pd.Categorical.from_codes(codes, categories=pd.Index(names, dtype="str"))


def rows_of(columns: Mapping[str, Column], rows: Any) -> dict[str, Column]:
    """Take rows (an index, a mask or a slice) of every column."""
    return {name: values[rows] for name, values in columns.items()}
