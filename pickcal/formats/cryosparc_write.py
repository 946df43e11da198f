"""Picks as cryoSPARC imports them: its fields made of blocks of picks, or handed on as they came from there."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pickcal.errors import InputError
from pickcal.formats.atomic import atomic_path
from pickcal.formats.cryosparc_files import file_fraction
from pickcal.formats.cryosparc_spool import Spool, Texts, Values, write_numpy
from pickcal.formats.foreign import EXPOSURE_COLUMNS, Column, ExportBlock

OURS = "pickcal/"
"""How fields of ours begin."""
CENTERS = {"location/center_x_frac": "x", "location/center_y_frac": "y"}


def write_picks(path: Path, blocks: Iterable[ExportBlock], *, flip_y: bool = True) -> list[Path]:
    """Write picks as one `.cs` file, in the NumPy form, which every version of cryoSPARC reads.

    Parameters
    ----------
    path
        File to write; folders are created, an existing file is replaced.
    blocks
        Picks, micrograph after micrograph.
    flip_y
        True (default): for the micrograph files the picks were made on. False: for the same micrographs corrected by
        cryoSPARC's Patch Motion, which are upside down; y, the defocus angle and the angle of the template change
        their sense. See `cryosparc_files.file_rows`.

    Returns
    -------
    list of Path
        The file.

    Raises
    ------
    InputError
        If the size of a micrograph is not known, a place is not finite, a uid comes twice, a number does not fit its
        field, a field changes its kind between blocks, or a text holds a null character.

    Notes
    -----
    Columns of picks that came from cryoSPARC go out as they came in, except location/center_*_frac if the block was
    moved, and pickcal/* of an earlier export, which are left out. Otherwise the file has uid, location/*, pick_stats/*,
    and ctf/* where a defocus is known. pick_stats/ncc_score is our "ncc", else the main score; power, template_idx and
    angle_rad are 0 where we have none, location/min_dist_A is 0 (not known). Everything of ours follows as
    pickcal/<name>, float32 or text. Blocks that lack a field of others get NaN, 0 or empty text in it. Columns of other
    programs are left out.

    A uid is the source's, else SplitMix64 (Steele, Lea and Flood 2014) of the BLAKE2b-64 hash of the micrograph's name
    plus the number of the pick in the micrograph; it depends on nothing else. location/micrograph_uid is `uid` of the
    micrographs, else the BLAKE2b-64 hash of the name.
    """
    with atomic_path(path) as temporary, tempfile.TemporaryFile(dir=temporary.parent) as handle:
        spool, counts = Spool(path, handle), dict[str, int]()
        for block in blocks:
            if len(block):
                spool.add(len(block), _fields(path, block, flip_y, counts))
        if not spool.rows:
            spool.add(0, _fields(path, _nothing(), flip_y, counts))
        spool.flush()
        spool.check_uids()
        with temporary.open("wb") as out:
            write_numpy(out, spool)
    return [path]


TOLD = {
    "ncc": "pick_stats/ncc_score",
    "power": "pick_stats/power",
    "template": "pick_stats/template_idx",
    "angle": "pick_stats/angle_rad",
    "defocus": "ctf/df1_A",
}
"""What cryoSPARC's own fields tell already of ours."""


def _nothing() -> ExportBlock:
    table = pd.DataFrame({"name": pd.Series(dtype="str")} | dict.fromkeys(EXPOSURE_COLUMNS, pd.Series(dtype=float)))
    return ExportBlock(table, np.empty(0, np.intp), np.empty(0), np.empty(0), {"ncc": np.empty(0)}, "ncc")


def _fields(path: Path, block: ExportBlock, flip: bool, counts: dict[str, int]) -> dict[str, Values]:
    """All fields of a block in the order of the file."""
    source = block.source if block.source_program == "cryosparc" else {}
    out = {name: _values(values) for name, values in source.items() if not name.startswith(OURS)}
    micrographs = _Micrographs(path, block, flip)
    index = block.index
    if "uid" not in out:
        uids: dict[str, Values] = {"uid": _pick_uids(micrographs.hashes, micrographs.names, index, counts)}
        out = uids | out
    centers = CENTERS if block.moved or not out.keys() >= CENTERS.keys() else {}
    for name in centers:
        given = out.get(name)
        out[name] = micrographs.centers(CENTERS[name]).astype(
            np.float32 if given is None or isinstance(given, Texts) else given.dtype
        )
    wanted = micrographs.location()
    if not all(name in out for name in ("ctf/df1_A", "ctf/df2_A")):
        wanted |= micrographs.ctf()
    for name, values in wanted.items():
        if name not in out:
            out[name] = Texts(values.codes[index], values.names) if isinstance(values, Texts) else values[index]
    out |= {name: values for name, values in _pick_stats(path, block, flip).items() if name not in out}
    told = {name for name, field in TOLD.items() if field in out}
    return out | {f"{OURS}{name}": _small(_values(values)) for name, values in block.ours.items() if name not in told}


class _Micrographs:
    """What the table of a block says of its micrographs, one row per micrograph, as cryoSPARC's fields."""

    def __init__(self, path: Path, block: ExportBlock, flip: bool) -> None:
        self.path, self.block, self.flip = path, block, flip
        self.table = block.micrographs
        self._numbers: dict[str, NDArray[np.float64]] = {}
        self.names = np.array([str(name) for name in self.table["name"]], dtype=object)
        digests = [hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8) for name in self.names]
        self.hashes = np.array([int.from_bytes(digest.digest(), "little") for digest in digests], dtype=np.uint64)

    def number(self, name: str) -> NDArray[np.float64]:
        """Column of the table as it is there, NaN where it is not."""
        if name not in self._numbers:
            given = name in self.table
            column = (
                self.table[name].to_numpy(np.float64, na_value=np.nan) if given else np.full(len(self.names), np.nan)
            )
            self._numbers[name] = column
        return self._numbers[name]

    def whole(self, name: str) -> NDArray[np.uint32]:
        """Column of whole numbers, 0 where they are not known."""
        values = np.nan_to_num(self.number(name), nan=0.0, posinf=-1.0)
        bad = np.flatnonzero((values < 0) | (values >= 2**32) | (values != np.round(values)))
        if len(bad):
            raise InputError(
                f"{self.path}: micrograph {self.names[bad[0]]}: {name}: expected a whole number from 0 to 2^32 - 1, "
                f"found {self.number(name)[bad[0]]:g}"
            )
        return values.astype(np.uint32)

    def centers(self, axis: str) -> NDArray[np.float64]:
        """Place of every pick along an axis, fraction of the micrograph's size; y as `file_fraction` has it."""
        size = self.number("source_width" if axis == "x" else "source_height")
        used = np.unique(self.block.index)
        unknown = used[~(size[used] > 0)]
        if len(unknown):
            raise InputError(
                f"{self.path}: micrograph {self.names[unknown[0]]}: its size is not known, and cryoSPARC counts places "
                "in fractions of it; give it at import, with --size ROWS COLUMNS"
            )
        place, size = (self.block.x if axis == "x" else self.block.y), size[self.block.index]
        bad = np.flatnonzero(~np.isfinite(place))
        if len(bad):
            name = self.names[self.block.index[bad[0]]]
            raise InputError(f"{self.path}: micrograph {name}: {axis}: expected a finite number, found {place[bad[0]]}")
        return place / size if axis == "x" else file_fraction(place, size, self.flip)

    def uids(self) -> NDArray[np.uint64]:
        """Give the unique numbers: those of the table, else made of the names."""
        out = self.hashes.copy()
        if "uid" not in self.table:
            return out
        column = self.table["uid"]
        if column.dtype.kind in "iu":
            given = column.to_numpy(dtype=np.uint64, na_value=0)
            return np.where(given != 0, given, out)
        for row, value in enumerate(column):
            if pd.isna(value) or value == 0:
                continue
            if isinstance(value, float) and value >= 2**53:
                raise InputError(
                    f"{self.path}: micrograph {self.names[row]}: uid: expected a 64-bit whole number, found the float "
                    f"{value!r}, which has lost digits"
                )
            out[row] = int(value)
        return out

    def location(self) -> dict[str, Values]:
        """Fields location/* that are of the micrograph."""
        sizes = [self.whole("source_height"), self.whole("source_width")]
        return {
            "location/micrograph_uid": self.uids(),
            "location/exp_group_id": self.whole("exposure_group"),
            "location/micrograph_path": Texts(np.arange(len(self.names)), self.names),
            "location/micrograph_shape": np.stack(sizes, axis=1),
            "location/micrograph_psize_A": self.number("pixel_size").astype(np.float32),
            "location/min_dist_A": np.zeros(len(self.names), np.float32),
        }

    def ctf(self) -> dict[str, Values]:
        """Fields ctf/*, in cryoSPARC's units; {} where no defocus is known."""
        if not np.isfinite(self.number("defocus_u")).any():
            return {}
        sense = 1.0 if self.flip else -1.0
        numbers = {
            "ctf/accel_kv": self.number("voltage"),
            "ctf/cs_mm": self.number("spherical_aberration"),
            "ctf/amp_contrast": self.number("amplitude_contrast"),
            "ctf/df1_A": self.number("defocus_u"),
            "ctf/df2_A": self.number("defocus_v"),
            "ctf/df_angle_rad": sense * np.radians(self.number("defocus_angle")),
            "ctf/phase_shift_rad": np.nan_to_num(np.radians(self.number("phase_shift"))),
        }
        fields: dict[str, Values] = {
            "ctf/type": Texts(np.zeros(len(self.names), np.intp), np.array(["imported"], dtype=object)),
            "ctf/exp_group_id": self.whole("exposure_group"),
        }
        return fields | {name: _small(values) for name, values in numbers.items()}


def _pick_stats(path: Path, block: ExportBlock, flip: bool) -> dict[str, Values]:
    none = np.zeros(len(block))
    ours = block.ours
    template = np.asarray(ours.get("template", none), dtype=np.float64)
    template = np.where(template > 0, template, 0.0)
    if (template >= 2**32).any():
        raise InputError(f"{path}: template: expected an index below 2^32, found {template.max():g}")
    angle = np.nan_to_num(np.radians(np.asarray(ours.get("angle", none), dtype=np.float64)))
    numbers = {
        "pick_stats/ncc_score": np.asarray(ours.get("ncc", block.score)),
        "pick_stats/power": np.asarray(ours.get("power", none)),
        "pick_stats/angle_rad": -angle if flip else angle,
    }
    return {name: _small(values) for name, values in numbers.items()} | {
        "pick_stats/template_idx": template.astype(np.uint32)
    }


def _pick_uids(
    hashes: NDArray[np.uint64], names: NDArray[Any], index: NDArray[np.intp], counts: dict[str, int]
) -> NDArray[np.uint64]:
    starts = np.searchsorted(index, np.arange(len(names) + 1))
    before = np.array([counts.get(name, 0) for name in names], dtype=np.int64)
    for name, count in zip(names, np.diff(starts).tolist(), strict=True):
        if count:
            counts[name] = counts.get(name, 0) + count
    number = np.arange(len(index)) - starts[index] + before[index]
    mixed = hashes[index] + (number + 1).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))


def _values(column: Column) -> Values:
    if isinstance(column, pd.Categorical):
        return Texts(np.asarray(column.codes).astype(np.intp), column.categories.to_numpy(dtype=object))
    if column.dtype.kind in "OSUT":
        codes, names = pd.factorize(np.asarray(column, dtype=object))
        decoded = [name.decode("utf-8") if isinstance(name, bytes) else str(name) for name in names]
        return Texts(codes, np.array(decoded, dtype=object))
    return np.asarray(column)


def _small(values: Values) -> Values:
    with np.errstate(over="ignore"):
        return values if isinstance(values, Texts) else values.astype(np.float32)
