"""Picks as files that RELION reads: one per micrograph with both kinds of index, and particles of the whole data set.

Source: RELION 3.1 and 4 as installed and as their tutorial writes them; positions are 0-based pixels of the
micrograph, like pickcal's. What came from RELION goes out again as it came, with pickcal's columns behind it.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self

import numpy as np
import pandas as pd

from pickcal.errors import InputError
from pickcal.formats.atomic import Within, atomic_path
from pickcal.formats.foreign import Column, ExportBlock, categorical
from pickcal.formats.relion_write import FIT, micrograph_tables, pipeline_stem, write_micrographs_star
from pickcal.formats.star import write_star
from pickcal.formats.star_rows import star_head, star_lines

NAME = "rlnMicrographName"
X, Y = "rlnCoordinateX", "rlnCoordinateY"
LABELS = {
    "ncc": "pickcalNccScore",
    "calibrated_ncc": "pickcalCalibratedNccScore",
    "power": "pickcalPowerScore",
    "calibrated_power": "pickcalCalibratedPowerScore",
}
OURS = "pickcal"
"""How labels of ours begin."""
LEFT_OUT = ("template", "angle", "peak_power", "background", "background_variance", "defocus")
"""Ours that RELION's own columns tell, or that are of no use to it."""

Layout = Literal["both", "autopick", "particles"]


def label_of(name: str) -> str:
    """Label of one of our columns: `calibrated_figure_of_merit` is `pickcalCalibratedFigureOfMerit`."""
    return LABELS.get(name, OURS + "".join(word.capitalize() for word in name.split("_")))


def write_picks(
    out: Path,
    blocks: Iterable[ExportBlock],
    micrographs: pd.DataFrame,
    *,
    suffix: str = "autopick",
    layout: Layout = "both",
    root: Path | None = None,
) -> list[Path]:
    """Write picks for RELION.

    Parameters
    ----------
    out
        Output folder.
    blocks
        The picks, micrograph after micrograph.
    micrographs
        All micrographs of the data set, as `ExportBlock.micrographs`; the blocks' are rows of it, told by its index.
    suffix
        Files per micrograph are `out/<stem>_<suffix>.star`, see `pipeline_stem`. A micrograph without picks gets
        none, and one left by an earlier export is removed: RELION takes what it finds.
    layout
        Files per micrograph ("autopick"), `out/particles.star` ("particles"), or both. Particles that came from
        RELION go out as particles alone, with the micrographs and optics groups that their file names, unless
        "autopick" asks for files per micrograph, or their positions were scaled or swapped: then they go out as picks
        of the project's micrographs, without the file's other columns.
    root
        RELION's project folder, to which paths inside the files are relative; default: the working folder. Paths
        outside it are absolute.

    Returns
    -------
    list of Path
        The files written; `out/<suffix>.star` (RELION 4 and later) and `out/coords_suffix_<suffix>.star` (up to 3.1)
        come after the files per micrograph, then `out/particles.star`.

    Raises
    ------
    InputError
        If a position is not finite, a micrograph has no pixel size, or two micrographs would share a file.
    """
    with ExitStack() as stack:
        known = micrographs[micrographs["pixel_size"] > 0]
        autopick = AutopickFiles(out, suffix, root)
        particles: ParticlesFile | None = None
        for block in blocks:
            _check(block)
            if layout == "autopick" or (layout == "both" and not _as_particles(block)):
                autopick.add(block)
            if layout != "autopick":
                particles = particles or stack.enter_context(ParticlesFile(out / "particles.star", known))
                particles.add(block)
        written = autopick.close(known)
    return [*written, out / "particles.star"] if particles is not None else written


class AutopickFiles:
    """Files of picks per micrograph, as RELION's own picking writes them.

    Parameters
    ----------
    out, suffix, root
        As for `write_picks`.
    """

    def __init__(self, out: Path, suffix: str, root: Path | None = None) -> None:
        self.out, self.suffix, self.root = out, suffix, root
        self.written: list[Path] = []
        self._within = Within(out)
        self._owners: dict[Path, str] = {}
        self._index: list[tuple[str, str]] = []

    def add(self, block: ExportBlock) -> None:
        """Write the files of some micrographs."""
        files = []
        for name in block.micrographs["name"]:
            file = self._within.file(f"{pipeline_stem(name)}_{self.suffix}.star", str(name))
            if file in self._owners:
                raise InputError(
                    f"{file}: micrographs {self._owners[file]} and {name} would share this file by RELION's naming "
                    "rule; export them separately, or as one particles file"
                )
            self._owners[file] = name
            files.append((name, file))
        columns = _pick_columns(block)
        head = star_head("", columns)
        lines = star_lines(str(self.out), columns).split(b"\n")
        starts = np.searchsorted(block.index, np.arange(len(files) + 1))
        for i, (name, file) in enumerate(files):
            if starts[i] == starts[i + 1]:
                file.unlink(missing_ok=True)
                continue
            body = b"\n".join(lines[starts[i] : starts[i + 1]])
            with atomic_path(file) as temporary:
                temporary.write_bytes(head + body + b"\n\n")
            self.written.append(file)
            self._index.append((name, _inside(file, self.root)))

    def close(self, micrographs: pd.DataFrame | Path) -> list[Path]:
        """Write the indices, and the table of micrographs unless its file is given; nothing without any block."""
        if not self._owners:
            return []
        if isinstance(micrographs, Path):
            table = micrographs
        else:
            table = self.out / "micrographs.star"
            write_micrographs_star(table, micrographs)
            self.written.append(table)
        columns = [NAME, "rlnMicrographCoordinates"]
        index = self.out / f"{self.suffix}.star"
        write_star(index, {"coordinate_files": pd.DataFrame(self._index, columns=columns)})
        pointer = self.out / f"coords_suffix_{self.suffix}.star"
        with atomic_path(pointer) as temporary:
            temporary.write_text(_inside(table, self.root) + "\n", encoding="utf-8")
        return [*self.written, index, pointer]


class ParticlesFile:
    """Particles of a whole data set in one file, written block by block, whole or not at all.

    Parameters
    ----------
    path
        The file.
    micrographs
        As for `write_picks`, each with its pixel size.
    """

    def __init__(self, path: Path, micrographs: pd.DataFrame) -> None:
        self.path, self.micrographs = path, micrographs
        self._labels: list[str] = []
        self._file: BinaryIO

    def __enter__(self) -> Self:
        """Open a temporary file."""
        with ExitStack() as stack:
            self._file = stack.enter_context(stack.enter_context(atomic_path(self.path)).open("wb"))
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        """Put the file in its place, or remove it after an error."""
        if error[0] is None and self._labels:
            self._file.write(b"\n")
        self._stack.__exit__(*error)

    def add(self, block: ExportBlock) -> None:
        """Write the rows of some micrographs."""
        own = _as_particles(block)
        columns = _source_columns(block) if own else self._with_micrographs(block)
        if not self._labels:
            name, tables = (block.block, block.tables) if own else ("particles", {"optics": self._optics})
            for key, table in tables.items():
                columns_of = {str(label): _plain(table[label]) for label in table}
                self._file.write(star_head(key, columns_of) + star_lines(str(self.path), columns_of))
            self._file.write(star_head(name, columns))
            self._labels = list(columns)
        if list(columns) != self._labels:
            raise InputError(f"{self.path}: expected the columns {', '.join(self._labels)}, got {', '.join(columns)}")
        self._file.write(star_lines(str(self.path), columns))

    @cached_property
    def _tables(self) -> tuple[pd.DataFrame, pd.DataFrame]:
        optics, rows = micrograph_tables(self.path, self.micrographs)
        rows.index = self.micrographs.index
        return optics, rows.drop(columns=[label for label in FIT.values() if label in rows])

    @property
    def _optics(self) -> pd.DataFrame:
        return self._tables[0]

    def _with_micrographs(self, block: ExportBlock) -> dict[str, Column]:
        """Names, picks, what the table of micrographs says of each, and ours."""
        per_pick = self._tables[1].loc[block.micrographs.index[block.index]]
        picks = _pick_columns(block)
        ours = {label: picks.pop(label) for label in list(picks) if label.startswith(OURS)}
        ctf = {str(label): per_pick[label].to_numpy() for label in per_pick.columns if label not in (NAME, *picks)}
        return {NAME: categorical(per_pick[NAME].to_numpy()), **picks, **ctf, **ours}


def _check(block: ExportBlock) -> None:
    for name, values in (("x", block.x), ("y", block.y)):
        bad = ~np.isfinite(values)
        if bad.any():
            row = int(np.argmax(bad))
            raise InputError(
                f"picks: {name}: expected a finite number, found {values[row]} in row {row + 1} "
                f"(micrograph {block.micrographs['name'].iloc[block.index[row]]})"
            )


def _as_particles(block: ExportBlock) -> bool:
    """Whether the picks are particles that go out beside the micrographs and optics groups of their own file.

    Where positions were scaled or swapped, that file's pixel sizes are not those of the positions that go out.
    """
    return block.source_program == "relion" and NAME in block.source and block.scale == 1 and not block.swapped


def _our_columns(block: ExportBlock) -> dict[str, Column]:
    ours = {label_of(name): values for name, values in block.ours.items() if name not in LEFT_OUT}
    if "pickcalReason" in ours:
        reason = ours["pickcalReason"]
        ours["pickcalReason"] = categorical([str(word).replace(" ", "_") for word in np.asarray(reason, dtype=object)])
    return ours


def _source_columns(block: ExportBlock) -> dict[str, Column]:
    """Columns as they came from RELION, and ours in the place of those of an earlier export."""
    source = {label: values for label, values in block.source.items() if not label.startswith(OURS)}
    if block.moved:
        source[X], source[Y] = block.x, block.y
    ours = _our_columns(block)
    ours.pop("pickcalFigureOfMerit", None)
    return {**source, **ours}


def _pick_columns(block: ExportBlock) -> dict[str, Column]:
    """Columns of picks beside the project's micrographs: as they came from RELION, or in its words; ours behind."""
    if block.source_program == "relion" and NAME not in block.source:
        return _source_columns(block)
    zeros = np.zeros(len(block))
    template = np.asarray(block.ours["template"], dtype=float) + 1 if "template" in block.ours else zeros
    angle = np.mod(-np.asarray(block.ours["angle"], dtype=float), 360.0) if "angle" in block.ours else zeros
    return {
        X: block.x,
        Y: block.y,
        "rlnClassNumber": np.nan_to_num(template).astype(int),
        "rlnAutopickFigureOfMerit": np.asarray(block.score, dtype=float),
        "rlnAnglePsi": np.nan_to_num(angle),
        **_our_columns(block),
    }


def _plain(values: pd.Series) -> Column:
    return np.asarray(values) if values.dtype.kind in "iuf" else categorical(values.map(str).to_numpy(dtype=object))


def _inside(path: Path, root: Path | None) -> str:
    absolute, folder = path.absolute(), (root or Path()).absolute()
    return (absolute.relative_to(folder) if absolute.is_relative_to(folder) else absolute).as_posix()
