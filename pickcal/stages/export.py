"""Export: accepted picks, and rejected ones with their reasons, as files of other programs.

Picks are judged and written block by block, so that memory does not grow with their number. Columns that came in with
picks of another program go out again untouched, with pickcal's beside them.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pickcal.calibration import calibrated_scores
from pickcal.errors import InputError, MissingFileError, ProjectError
from pickcal.formats import cryolo, cryosparc, eman, relion_export, relion_picks, tables, topaz
from pickcal.formats.boxes_write import box_columns
from pickcal.formats.foreign import EXPOSURE_COLUMNS, Column, ExportBlock, categorical, rows_of
from pickcal.formats.opening import head_of
from pickcal.project import Project
from pickcal.selection import ACCEPTED, NO_PICK, REASONS
from pickcal.settings import ExportSettings
from pickcal.stages.calibrate_result import made_with
from pickcal.stages.select import Judge, Judged
from pickcal.stages.select_result import stored_selection
from pickcal.stores.places import Place, Url

ORDERS = ("source_row", "source_pick")
"""Variables that tell the order in which picks came in."""

FOLDERS = ("relion", "cryolo", "eman")
"""Formats that are a folder of files."""

OF_OUR_PICKS = ("peak_power", "background", "background_variance", "template", "angle")


def export(
    project: Project, selection: str, settings: ExportSettings, path: Place, root: Path | None = None
) -> dict[str, Any]:
    """Write the picks of a selection.

    Parameters
    ----------
    project
        Opened for reading.
    selection
        Name of the selection.
    settings
        Format, and whether rejected picks are written as well.
    path
        Folder (RELION, crYOLO, EMAN) or file, also at a URL. Rejected picks go beside it, with `_rejected` in the name.
    root
        Folder to which paths within RELION's index files are relative; default: the working folder.

    Returns
    -------
    dict
        `picks`, `micrographs` and `files` written, and `rejected` picks if they were.

    Raises
    ------
    ProjectError, InputError
        If the selection is not there or is stale, the format needs what is not known, or `path` would write among the
        files that the picks came from.
    """
    if isinstance(path, Url):
        with tempfile.TemporaryDirectory(prefix="pickcal-") as folder:
            done = export(project, selection, settings, Path(folder) / path.name, Path(folder))
            return _sent(done, Path(folder), path.parent)
    picks, thresholds = stored_selection(project, selection)
    table = micrograph_table(project)
    source = Outgoing.of(project, picks, Judge(project, picks, thresholds), table)
    beside = path.with_name(f"{path.stem}_rejected{path.suffix}")
    _check(source, settings, [path, beside] if settings.rejected else [path])
    files = _write(source, path, settings, table, False, root)
    out: dict[str, Any] = {
        "selection": selection,
        "picks": source.written,
        "micrographs": source.micrographs_written,
        "files": [str(file) for file in files],
    }
    if settings.rejected:
        more = _write(source, beside, settings, table, True, root)
        out |= {"rejected": source.written, "rejected_files": [str(file) for file in more]}
    return out


def _check(source: Outgoing, settings: ExportSettings, paths: list[Path]) -> None:
    """Refuse what would be written among the files that the picks came from, or would be upside down in one of them."""
    real = {path: path.resolve() for path in paths}
    for own in _source_files(source.project, source.picks):
        for path in paths:
            if _meet(real[path], own, settings.format in FOLDERS):
                raise InputError(
                    f"{path}: picks {source.picks!r} came from {own}, which an export to this place could overwrite, "
                    "or mix with what it writes; choose a place apart from it, a new folder for one"
                )
    origin = source.origin
    if settings.format == "cryosparc" and origin is not None and origin.program == "cryosparc":
        flip = origin.settings.get("flip_y", True)
        if settings.flip_y != flip:
            came = "--flip-y" if flip else "--no-flip-y"
            raise InputError(
                f"flip_y: picks {origin.picks!r} came in with {came}, and go out with the micrographs that their own "
                f"file names; give {came} here as well"
            )


def _source_files(project: Project, picks: str) -> Iterator[Path]:
    """Give the files and folders that picks came from, and what an index among them lists, as far as they are there.

    Of picks that were scored anew, those of the picks that were scored.
    """
    settings = project.settings(f"picks/{picks}")
    if settings.get("method") == "score" and settings["picks"] in project.names("picks"):
        yield from _source_files(project, settings["picks"])
    real = cache(Path.resolve)  # of thousands of files in a few folders
    for path in map(Path, settings["files"] if settings.get("method") == "import" else ()):
        if path.is_dir():
            yield real(path)
        elif path.is_file():
            yield real(path.parent) / path.name
            if path.is_symlink():
                yield path.resolve()
            with suppress(InputError, MissingFileError):
                if path.suffix == ".star" and relion_picks.recognise_index(path, head_of(path)):
                    yield from (real(file.parent) / file.name for _, file in relion_picks.read_index(path))


def _meet(path: Path, own: Path, folder: bool) -> bool:
    """Whether a file or folder to write is, holds or lies within a file or folder that picks came from."""
    if path.is_relative_to(own) and own.is_dir():
        return True
    return own.is_relative_to(path) if folder else own == path


def _sent(done: dict[str, Any], folder: Path, url: Url) -> dict[str, Any]:
    """Send the files of an export to an object store, and name them as they are called there."""
    from pickcal.stores import objects

    out = dict(done)
    for key in ("files", "rejected_files"):
        names = [Path(file).relative_to(folder).as_posix() for file in done.get(key, ())]
        for name in names:
            objects.write(url / name, (folder / name).read_bytes())
        if key in done:
            out[key] = [str(url / name) for name in names]
    return out


def micrograph_table(project: Project) -> pd.DataFrame:
    """One row per micrograph as the writers of `formats` want it; `pixel_size` is that of the source."""
    dataset = project.table()
    frame = pd.DataFrame({"name": [str(name) for name in dataset["name"].values]})
    for name in EXPOSURE_COLUMNS:
        frame[name] = dataset["source_pixel_size" if name == "pixel_size" else name].values
    return frame


@dataclass(frozen=True)
class Origin:
    """What came in with picks of another program, or with the picks that were scored anew.

    Attributes
    ----------
    picks
        The picks that hold the columns.
    settings, attributes
        Settings of their import, and attributes of those picks.
    starts
        First row of every micrograph among the columns.
    refined
        Whether scoring may have moved the picks.
    place
        Variable that says which pick of the origin each pick was; "" where they are the same picks.
    """

    picks: str
    settings: dict[str, Any]
    attributes: dict[str, Any]
    starts: NDArray[np.int64]
    refined: bool = False
    place: str = ""

    @classmethod
    def of(cls, project: Project, picks: str) -> Origin | None:
        """Find the origin of some picks; None for those that pickcal found itself.

        Raises
        ------
        ProjectError
            If other picks have taken the place of those that were scored: the columns are of those.
        """
        settings = project.settings(f"picks/{picks}")
        if settings.get("method") == "score" and settings["picks"] in project.names("picks"):
            before = cls.of(project, settings["picks"])
            if before is None or before.place:
                return None
            if settings.get("picks_made_with") != made_with(project, settings["picks"]):
                raise ProjectError(
                    f"{project.path}: picks {settings['picks']!r} were replaced since {picks!r} were scored from them, "
                    "and their columns are those of other picks now; give the same 'pickcal score' command again, with "
                    "--overwrite"
                )
            return replace(before, refined=float(settings["radius"]) > 0, place="source_pick")
        if settings.get("method") != "import":
            return None
        dataset = project.dataset(f"picks/{picks}")
        starts = np.concatenate([[0], np.cumsum(dataset["count"].values, dtype=np.int64)])
        return cls(picks, settings, dict(dataset.attrs), starts)

    @property
    def program(self) -> str:
        """Who wrote the files."""
        return str(self.attributes["program"])

    @property
    def scale(self) -> float:
        """Pixels of the source micrograph to one pixel of the files; cryoSPARC's count fractions of the side."""
        return 1.0 if self.program == "cryosparc" else float(self.settings.get("scale") or 1.0)

    @property
    def swapped(self) -> bool:
        """Whether rows come first in the files."""
        return bool(self.settings.get("swap_xy"))

    @property
    def moved(self) -> bool:
        """Whether positions may be other numbers than those that came in."""
        return self.refined or self.swapped or self.scale != 1

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """Other tables of the files."""
        stored = json.loads(str(self.attributes.get("tables", "{}")))
        return {name: pd.DataFrame(columns) for name, columns in stored.items()}


@dataclass
class Outgoing:
    """Picks of a project on their way out.

    Attributes
    ----------
    project, picks
        Where they are.
    judge
        What accepts or rejects them.
    micrographs
        From `micrograph_table`.
    attributes
        Attributes of the picks.
    variables
        Names of their variables.
    origin
        What came in with them.
    written, micrographs_written
        Counts of the last pass.
    """

    project: Project
    picks: str
    judge: Judge
    micrographs: pd.DataFrame
    attributes: dict[str, Any]
    variables: frozenset[str]
    origin: Origin | None
    written: int = field(default=0)
    micrographs_written: int = field(default=0)

    @classmethod
    def of(cls, project: Project, picks: str, judge: Judge, micrographs: pd.DataFrame) -> Outgoing:
        """Gather what all blocks share."""
        dataset = project.picks(picks)
        names = frozenset(str(name) for name in dataset.data_vars)
        return cls(project, picks, judge, micrographs, dict(dataset.attrs), names, Origin.of(project, picks))

    @property
    def foreign(self) -> bool:
        """Whether the scores are those of another program."""
        return bool(self.attributes.get("program"))

    @property
    def main(self) -> str:
        """Name of the score that stands for a pick; "" where there is none."""
        if self.foreign and not self.attributes.get("scores"):
            return ""
        return f"calibrated_{self.attributes.get('score', 'ncc')}"

    def blocks(self, rejected: bool) -> Iterator[ExportBlock]:
        """Yield accepted or rejected picks, block by block, in the order in which they came in."""
        self.written = self.micrographs_written = 0
        extra = [name for name in (*ORDERS, *OF_OUR_PICKS) if name in self.variables]
        for start, stop in self.judge.blocks():
            found = self.judge.block(start, stop, extra)
            chosen = (found.reasons > ACCEPTED) if rejected else (found.reasons == ACCEPTED)
            index, place = np.nonzero(chosen)
            for name in ORDERS:
                if name in found.picks:
                    order = np.lexsort((found.picks[name].values[index, place], index))
                    index, place = index[order], place[order]
            self.written += len(index)
            self.micrographs_written += len(np.unique(index))
            yield self._block(found, start, stop, index, place, rejected)

    def _block(
        self, found: Judged, start: int, stop: int, index: NDArray[np.intp], place: NDArray[np.intp], rejected: bool
    ) -> ExportBlock:
        micrographs = self.micrographs.iloc[start:stop]
        picks = found.picks
        pixel = micrographs["pixel_size"].to_numpy(dtype=float)[index]
        block = ExportBlock(
            micrographs,
            index,
            picks["x"].values[index, place].astype(np.float64) / pixel,
            picks["y"].values[index, place].astype(np.float64) / pixel,
            self._ours(found, index, place, micrographs, rejected),
            self.main,
        )
        origin = self.origin
        if origin is None:
            return block
        first = int(origin.starts[start])
        columns = self.project.columns(origin.picks, first, int(origin.starts[stop]))
        theirs = picks[origin.place].values[index, place] if origin.place else place
        return replace(
            block,
            source=rows_of(columns, origin.starts[start:stop][index] - first + theirs),
            source_program=origin.program,
            block=str(origin.attributes["block"]),
            tables=origin.tables,
            moved=origin.moved,
            scale=origin.scale,
            swapped=origin.swapped,
        )

    def _ours(
        self,
        found: Judged,
        index: NDArray[np.intp],
        place: NDArray[np.intp],
        micrographs: pd.DataFrame,
        rejected: bool,
    ) -> dict[str, Column]:
        """Raw and calibrated scores, probability, q-value, and what else is known of every pick."""
        calibrated = calibrated_scores(found.picks, found.calibration)
        main = str(self.attributes.get("score", "ncc"))
        scores = self.attributes.get("scores", ["ncc", "power"]) if self.foreign else ["ncc", "power"]
        out: dict[str, Column] = {}
        for name in scores:
            key = "ncc" if name == main else name
            if key not in found.picks:
                continue
            out[name] = found.picks[key].values[index, place]
            if key in calibrated:
                out[f"calibrated_{name}"] = calibrated[key].values[index, place]
        if found.likelihood is not None:
            for name in ("probability", "q_value"):
                out[name] = found.likelihood[name].values[index, place]
        for name in OF_OUR_PICKS:
            values = found.picks[name].values[index, place]
            if not self.foreign or name in ("template", "angle"):
                out[name] = values
        defocus = 0.5 * (micrographs["defocus_u"] + micrographs["defocus_v"]).to_numpy(dtype=float)
        out["defocus"] = defocus[index]
        if rejected:
            out["reason"] = categorical([REASONS[i] for i in found.reasons[index, place] if i != NO_PICK])
        return out


def _write(
    source: Outgoing,
    path: Path,
    settings: ExportSettings,
    micrographs: pd.DataFrame,
    rejected: bool,
    root: Path | None,
) -> list[Path]:
    blocks = source.blocks(rejected)
    if settings.format == "relion":
        return relion_export.write_picks(
            path, blocks, micrographs, suffix=settings.suffix, layout=settings.layout, root=root
        )
    if settings.format == "cryosparc":
        return cryosparc.write_picks(path, blocks, flip_y=settings.flip_y)
    if settings.format == "topaz":
        return topaz.write_picks(path, blocks)
    if settings.format == "cryolo":
        return cryolo.write_picks(path, blocks, box_px=_box(source, settings, micrographs))
    if settings.format == "eman":
        return eman.write_picks(path, blocks, box_px=_box(source, settings, micrographs))
    return tables.write_picks(path, blocks, format=settings.format)


def _box(source: Outgoing, settings: ExportSettings, micrographs: pd.DataFrame) -> float | None:
    """Side of the boxes, pixels: what is asked for, None for boxes as they came, else 1.5 diameters, even."""
    if settings.box is not None:
        return settings.box
    origin = source.origin
    if origin is not None and box_columns(origin.program, source.project.columns(origin.picks, 0, 0)):
        return None
    pixel = micrographs["pixel_size"].to_numpy(dtype=float)
    if not np.isfinite(pixel).any():
        raise InputError("box: no pixel size is known; give --box")
    return float(2 * round(0.75 * float(source.attributes["diameter"]) / float(np.nanmedian(pixel))))
