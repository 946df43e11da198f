"""Gathering: the rows of all files of picks, with the micrographs and the coordinates of the project."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pickcal.engine.progress import Reporter
from pickcal.errors import InputError
from pickcal.formats.foreign import Column, ForeignPicks, rows_of
from pickcal.formats.registry import PickFiles
from pickcal.names import NameIndex
from pickcal.settings import ImportPicksSettings
from pickcal.stages.coordinates import Frame, pixels

OF_FILE = ("program", "path", "unit", "y_from", "stem", "block", "tables")


@dataclass
class Gathered:
    """Rows of all files, part by part, not yet ordered.

    Attributes
    ----------
    index
        Micrograph of every row; rows of micrographs that the project does not hold are left out.
    x, y
        Positions, pixels of the source.
    values
        Scores and what else has a place of its own in a project, by name; None for a part without.
    columns
        Columns of the files, untouched.
    program, scores, block, tables
        Who picked, names of the scores, and what the first file says of itself: see `ForeignPicks`.
    unknown
        Picks on micrographs that the project does not hold, counted by the name that the file has for these.
    endings
        How names of files go on after the micrograph's, and the first file of each.
    owners
        File that the picks of a micrograph came from, by its index.
    dropped
        Picks that were left out for lying outside.
    """

    index: list[NDArray[np.int32]] = field(default_factory=list)
    x: list[NDArray[np.float64]] = field(default_factory=list)
    y: list[NDArray[np.float64]] = field(default_factory=list)
    values: dict[str, list[NDArray[Any] | None]] = field(default_factory=dict)
    columns: list[dict[str, Column]] = field(default_factory=list)
    program: str = ""
    scores: tuple[str, ...] = ()
    block: str = ""
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)
    endings: dict[str, str] = field(default_factory=dict)
    owners: dict[int, str] = field(default_factory=dict)
    dropped: int = 0

    @property
    def count(self) -> int:
        """Number of rows."""
        return sum(len(part) for part in self.x)


def gather(files: Sequence[PickFiles], frame: Frame, settings: ImportPicksSettings, reporter: Reporter) -> Gathered:
    """Read all files; names and coordinates are those of the project from here on."""
    names = NameIndex([str(name) for name in frame.names])
    out = Gathered()
    for one in files:
        for part in one.read():
            _add(out, part, _micrographs(part, one, names, out), frame, settings)
        reporter.advance(1)
    if out.unknown and not (settings.skip_unknown and out.count):
        first = next(iter(out.unknown))
        known = frame.names[0]
        raise InputError(
            f"{files[0].paths[0]}: {sum(out.unknown.values())} picks are on {len(out.unknown)} micrographs that the "
            f"project does not hold, the first being {first!r} (the project's first is {known!r}); "
            + ("--skip-unknown leaves them out" if out.count else "are these picks of another data set?")
        )
    if not out.count:
        raise InputError(f"{files[0].paths[0]}: expected picks, found none in {len(files)} files")
    return out


def _micrographs(part: ForeignPicks, one: PickFiles, names: NameIndex, out: Gathered) -> NDArray[np.int32]:
    """Micrograph of every row, -1 where the project does not hold it."""
    what = str(part.path)
    if part.micrograph is not None:
        # a row without a name (code -1) takes the last place, which is that of no micrograph
        texts = [*map(str, part.micrograph.categories), ""]
        places = np.full(len(texts), -1, dtype=np.int32)
        for code, count in zip(*np.unique(part.micrograph.codes, return_counts=True), strict=True):
            text = texts[code]
            places[code] = names.find(text.lstrip(">"), what) if text else -1
            if places[code] < 0:
                out.unknown[text] = out.unknown.get(text, 0) + int(count)
        return np.asarray(places[part.micrograph.codes])
    found = names.find(one.micrograph, what) if one.micrograph is not None else -1
    if found < 0:
        found, ending = names.find_file(part.path.with_name(part.stem) if part.stem else part.path, what)
        if found >= 0:
            _same_ending(out, what, ending)
    if found >= 0 and out.owners.setdefault(found, what) != what:
        raise InputError(
            f"{what}: its picks are of {names.names[found]}, and so are those of {out.owners[found]}; give one of them"
        )
    if found < 0 and len(part.x):
        out.unknown[str(part.path)] = out.unknown.get(str(part.path), 0) + len(part.x)
    return np.full(len(part.x), found, dtype=np.int32)


def _same_ending(out: Gathered, what: str, ending: str) -> None:
    """Refuse a file whose name ends otherwise than the others': it would be laid on a micrograph it is not of."""
    known = out.endings.setdefault(ending, what)
    if len(out.endings) > 1:
        other, first = next((key, value) for key, value in out.endings.items() if key != ending)
        raise InputError(
            f"{known}: the names of the files of picks end in {ending!r} here and in {other!r} in {first}; the "
            "micrograph of one of them is not in the project, or these are two kinds of picks: import them apart"
        )


def _add(
    out: Gathered, part: ForeignPicks, index: NDArray[np.int32], frame: Frame, settings: ImportPicksSettings
) -> None:
    if not len(part.x):
        return
    scores = _chosen_scores(part, settings)
    if not out.program:
        out.program, out.scores, out.block, out.tables = part.program, tuple(scores), part.block, part.tables
    elif out.program != part.program:
        raise InputError(f"{part.path}: expected picks of {out.program} as in the files before, found {part.program}")
    elif set(out.scores) != set(scores):
        raise InputError(
            f"{part.path}: expected the scores {', '.join(out.scores) or 'none'} as in the files before, found "
            f"{', '.join(scores) or 'none'}; import them under another name"
        )
    if json_tables(out.tables) != json_tables(part.tables):
        raise InputError(
            f"{part.path}: its optics groups differ from those of the files before; join the files first "
            "(relion_star_handler --combine), or import them under two names"
        )
    known = index >= 0
    if not known.all():
        part = _only(part, known)
        index, scores = index[known], {key: values[known] for key, values in scores.items()}
    x, y = pixels(part, index, frame, settings)
    optional = {"template": part.template, "angle": part.angle, "uid": part.uid}
    for key, values in {**scores, **optional}.items():
        before: list[NDArray[Any] | None] = [None] * len(out.x)
        out.values.setdefault(key, before).append(values)
    out.index.append(index)
    out.x.append(x)
    out.y.append(y)
    out.columns.append(part.columns)


def _only(part: ForeignPicks, rows: NDArray[np.bool_]) -> ForeignPicks:
    def some(values: Any) -> Any:
        return None if values is None else values[rows]

    return ForeignPicks(
        **{
            **{key: getattr(part, key) for key in OF_FILE},
            **{key: some(getattr(part, key)) for key in ("x", "y", "micrograph", "template", "angle", "uid")},
            "columns": rows_of(part.columns, rows),
            "scores": {key: values[rows] for key, values in part.scores.items()},
            "exposure": {key: values[rows] for key, values in part.exposure.items()},
        }
    )


def _chosen_scores(part: ForeignPicks, settings: ImportPicksSettings) -> dict[str, NDArray[np.floating]]:
    """Scores with the main one first; a column of the file if one was asked for."""
    if settings.score is None:
        return part.scores
    if settings.score in part.scores:
        return {settings.score: part.scores[settings.score], **part.scores}
    column = part.columns.get(settings.score)
    if column is None or isinstance(column, pd.Categorical) or column.ndim > 1:
        usable = [key for key, c in part.columns.items() if not isinstance(c, pd.Categorical) and c.ndim == 1]
        raise InputError(
            f"{part.path}: --score: expected a column of numbers, found no {settings.score!r}; there are "
            f"{', '.join(usable)}"
        )
    name = "".join(letter if letter.isalnum() else "_" for letter in settings.score).strip("_").lower()
    others = {key: values for key, values in part.scores.items() if key != name}
    return {name: np.asarray(column, dtype=np.float64), **others}


def json_tables(tables: dict[str, pd.DataFrame]) -> str:
    """Other tables of a file as text, to keep and to compare."""
    plain = {
        name: {str(label): [None if pd.isna(v) else v for v in table[label].tolist()] for label in table}
        for name, table in tables.items()
    }
    return json.dumps(plain)
