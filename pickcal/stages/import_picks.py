"""Import picks: what other programs picked becomes picks of the project, every column of theirs kept.

All files are read and checked before anything is written. Rows are ordered micrograph by micrograph, best first, one
column at a time, so that memory holds the table once.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import union_categoricals
from scipy.spatial import KDTree

from pickcal.engine.progress import Reporter
from pickcal.errors import InputError, ProjectError
from pickcal.formats.foreign import Column, ForeignPicks, rows_of
from pickcal.formats.registry import PickFiles, pick_files
from pickcal.names import NameIndex
from pickcal.project import Project
from pickcal.schema import Status, Variable, score_variable
from pickcal.settings import ImportPicksSettings
from pickcal.stages.coordinates import Frame, check_inside, outside, pixels

LABELS = {"ncc": "NCC score", "figure_of_merit": "figure of merit", "confidence": "confidence", "score": "score"}
PROGRAMS = {
    "relion": "RELION",
    "cryosparc": "cryoSPARC",
    "topaz": "Topaz",
    "cryolo": "crYOLO",
    "eman": "EMAN",
    "gautomatch": "Gautomatch",
    "warp": "Warp",
}
OUR_SCORES = ("ncc", "power")
OF_FILE = ("program", "path", "unit", "y_from", "stem", "box", "block", "tables")
BLOCK = 500_000
NEIGHBOURS = 20_000
SOURCE_ROW = Variable(
    ("micrograph", "pick"), np.int64, "", "row of the source, over all files in order; -1 for none", -1
)


@dataclass
class Gathered:
    """Rows of all files, part by part, not yet ordered."""

    index: list[NDArray[np.int32]] = field(default_factory=list)
    x: list[NDArray[np.float64]] = field(default_factory=list)
    y: list[NDArray[np.float64]] = field(default_factory=list)
    values: dict[str, list[NDArray[Any] | None]] = field(default_factory=dict)
    columns: list[dict[str, Column]] = field(default_factory=list)
    program: str = ""
    scores: tuple[str, ...] = ()
    block: str = ""
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    boxes: list[float] = field(default_factory=list)
    unknown: dict[str, int] = field(default_factory=dict)
    endings: dict[str, str] = field(default_factory=dict)
    dropped: int = 0

    @property
    def count(self) -> int:
        """Number of rows."""
        return sum(len(part) for part in self.x)


def import_picks(
    project: Project,
    paths: Sequence[Path],
    name: str,
    settings: ImportPicksSettings,
    reporter: Reporter,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Take the picks of other programs into a project.

    Parameters
    ----------
    project
        Opened for writing; with images or of tables only.
    paths
        Files or folders of picks, or RELION's index of them.
    name
        Name of the picks.
    settings
        How coordinates and scores are to be taken.
    reporter
        Who is told.
    overwrite
        Replace picks of this name that are others.

    Returns
    -------
    dict
        `picks`, `imported`, `micrographs` (with picks), `program`, `score`, `diameter` (Å), `files`, `dropped`.

    Raises
    ------
    InputError, MissingFileError, ProjectError
        If a file cannot be read or does not fit the project, or the name is taken by other picks.
    """
    began = time.monotonic()
    frame = Frame.of(project.table())
    reporter.start("import picks", len(files := pick_files(paths)))
    gathered = _gather(files, frame, settings, reporter)
    reporter.finish()
    index, x, y = np.concatenate(gathered.index), np.concatenate(gathered.x), np.concatenate(gathered.y)
    what = str(paths[0])
    if settings.drop_outside:
        keep = ~outside(x, y, index, frame)
        gathered.dropped = int((~keep).sum())
    else:
        keep = np.ones(len(x), dtype=bool)
    check_inside(x[keep], y[keep], index[keep], frame, settings, what)
    values = {key: _joined(parts) for key, parts in gathered.values.items()}
    _check_uids(values.get("uid"), index, frame, what)
    main = gathered.scores[0] if gathered.scores else ""
    ranking = np.zeros(len(x)) if not main else -np.nan_to_num(values[main], nan=-np.inf)
    order = np.lexsort((ranking, index))
    order = order[keep[order]]
    diameter = settings.diameter or _usual_distance(x, y, index, frame)
    identity, attributes = _identity(paths, settings, gathered, main, diameter, (index, x, y, values.get(main)))
    out = {
        "picks": name,
        "imported": len(order),
        "micrographs": len(np.unique(index[order])),
        "program": PROGRAMS.get(gathered.program, gathered.program),
        "score": attributes["score_label"] if main else "none",
        "diameter": diameter,
        "files": sum(len(one.paths) for one in files),
        "dropped_outside": gathered.dropped,
        "dropped_unknown": sum(gathered.unknown.values()),
    }
    if not _there_already(project, name, identity, attributes["bank"], overwrite):
        _write(project, name, identity, attributes, gathered, values, (index, x, y), order)
    _note(project, reporter, out, settings, index)
    return {**out, "seconds": round(time.monotonic() - began, 2)}


def _note(
    project: Project, reporter: Reporter, out: dict[str, Any], settings: ImportPicksSettings, index: NDArray[np.int32]
) -> None:
    if settings.diameter is None:
        reporter.note(f"no diameter given: took {out['diameter']:.0f} Å, the distance that neighbouring picks keep")
    if out["score"] == "none":
        reporter.note("these picks have no score, and nothing can be calibrated; 'pickcal score' gives them two")
    empty = np.setdiff1d(np.arange(project.count), index)
    if len(empty):
        first = str(project.read("micrographs", "name", int(empty[0]), int(empty[0]) + 1)[0])
        reporter.note(
            f"{len(empty)} of {project.count} micrographs have no picks in the files, the first being {first}"
        )


def _gather(files: Sequence[PickFiles], frame: Frame, settings: ImportPicksSettings, reporter: Reporter) -> Gathered:
    """Read all files; names and coordinates are those of the project from here on."""
    names = NameIndex([str(name) for name in frame.names])
    out = Gathered()
    for one in files:
        for part in one.read():
            _add(out, part, _micrographs(part, one, names, out, settings), frame, settings)
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


def _micrographs(
    part: ForeignPicks, one: PickFiles, names: NameIndex, out: Gathered, settings: ImportPicksSettings
) -> NDArray[np.int32]:
    """Micrograph of every row, -1 where the project does not hold it."""
    what = str(part.path)
    if part.micrograph is not None:
        used = np.unique(part.micrograph.codes)
        texts = part.micrograph.categories
        places = np.full(len(texts), -1, dtype=np.int32)
        for code in used:
            places[code] = names.find(str(texts[code]).lstrip(">"), what)
            if places[code] < 0:
                before = out.unknown.get(str(texts[code]), 0)
                out.unknown[str(texts[code])] = before + int((part.micrograph.codes == code).sum())
        return np.asarray(places[part.micrograph.codes])
    found = names.find(one.micrograph, what) if one.micrograph is not None else -1
    if found < 0:
        found, ending = names.find_file(part.path.with_name(part.stem) if part.stem else part.path, what)
        if found >= 0:
            _same_ending(out, what, ending)
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
    if _json_tables(out.tables) != _json_tables(part.tables):
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
    if np.isfinite(part.box):
        out.boxes.append(float(part.box))


def _only(part: ForeignPicks, rows: NDArray[np.bool_]) -> ForeignPicks:
    def some(values: Any) -> Any:
        return None if values is None else values[rows]

    return ForeignPicks(
        **{
            **{
                key: getattr(part, key)
                for key in ("program", "path", "unit", "y_from", "stem", "box", "block", "tables")
            },
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


def _joined(parts: list[NDArray[Any] | None]) -> Any:
    return None if any(part is None for part in parts) else np.concatenate([p for p in parts if p is not None])


def _check_uids(uid: NDArray[np.uint64] | None, index: NDArray[np.int32], frame: Frame, what: str) -> None:
    if uid is None:
        return
    ordered = np.sort(uid)
    twice = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(twice):
        rows = np.flatnonzero(uid == twice[0])[:2]
        where = " and ".join(f"row {row + 1} ({frame.names[index[row]]})" for row in rows)
        raise InputError(
            f"{what}: {len(np.unique(twice))} uids are there more than once, the first, {twice[0]}, in {where}; "
            "are there two sets of the same particles?"
        )


def _usual_distance(x: NDArray[np.float64], y: NDArray[np.float64], index: NDArray[np.int32], frame: Frame) -> float:
    """Distance that all but one in twenty picks keep from their nearest neighbour, Å; of some 20,000 picks."""
    found: list[NDArray[np.float64]] = []
    for micrograph in np.random.default_rng(0).permutation(np.unique(index)):
        rows = np.flatnonzero(index == micrograph)
        if len(rows) > 1:
            points = np.column_stack([x[rows], y[rows]]) * frame.pixel_size[micrograph]
            found.append(KDTree(points).query(points, k=2)[0][:, 1])
        if sum(len(part) for part in found) > NEIGHBOURS:
            break
    if not found:
        return 100.0
    return float(max(np.percentile(np.concatenate(found), 5), 20.0))


def _json_tables(tables: dict[str, pd.DataFrame]) -> str:
    plain = {
        name: {str(label): [None if pd.isna(v) else v for v in table[label].tolist()] for label in table}
        for name, table in tables.items()
    }
    return json.dumps(plain)


def _identity(
    paths: Sequence[Path],
    settings: ImportPicksSettings,
    gathered: Gathered,
    main: str,
    diameter: float,
    digested: tuple[NDArray[Any] | None, ...],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Give the settings to compare a later import with, and the attributes of the group."""
    digest = hashlib.sha256()
    for values in digested:
        if values is not None:
            digest.update(np.ascontiguousarray(values).tobytes())
    program = PROGRAMS.get(gathered.program, "")
    label = LABELS.get(main, main.replace("_", " "))
    identity = {
        **settings.stored(),
        "method": "import",
        "program": gathered.program,
        "files": [str(path.absolute()) for path in paths],
        "diameter": diameter,
    }
    attributes = {
        "bank": digest.hexdigest(),
        "diameter": diameter,
        "program": gathered.program,
        "score": main or "ncc",
        **({"score_label": label if main == "ncc" or not program else f"{program} {label}"} if main else {}),
        "power_label": f"{program} power".strip(),
        "scores": list(gathered.scores),
        "block": gathered.block,
        "tables": _json_tables(gathered.tables),
        "box": float(np.median(gathered.boxes)) if gathered.boxes else 0.0,
    }
    return identity, attributes


def _there_already(project: Project, name: str, identity: dict[str, Any], digest: str, overwrite: bool) -> bool:
    if overwrite or name not in project.names("picks"):
        return False
    remedy = "choose another --name, or give --overwrite to replace them"
    project.check_same(f"picks/{name}", identity, remedy)
    if project.dataset(f"picks/{name}").attrs["bank"] != digest:
        raise ProjectError(f"{project.path}: picks {name!r} hold other picks than these files do now; {remedy}")
    return True


def _write(
    project: Project,
    name: str,
    identity: dict[str, Any],
    attributes: dict[str, Any],
    gathered: Gathered,
    values: dict[str, Any],
    places: tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.float64]],
    order: NDArray[np.intp],
) -> None:
    index, x, y = places
    counts = np.bincount(index[order], minlength=project.count)
    extra = {key: score_variable(LABELS.get(key, key)) for key in gathered.scores if key not in OUR_SCORES}
    project.remove(f"calibration/{name}")  # a fit of picks that are about to go
    most = max(1, int(counts.max()))
    project.create_picks(name, most, None, {}, attributes, {**extra, "source_row": SOURCE_ROW})
    starts = np.concatenate([[0], np.cumsum(counts)])
    pixel = project.read("micrographs", "source_pixel_size")
    imported = project.done("micrographs")
    step = project.batch * max(1, BLOCK // (most * project.batch))
    for first in range(0, project.count, step):
        last = min(first + step, project.count)
        rows = order[starts[first] : starts[last]]
        block = {
            "x": (x[rows] * pixel[index[rows]], np.float32, np.nan),
            "y": (y[rows] * pixel[index[rows]], np.float32, np.nan),
            "source_row": (rows, np.int64, -1),
        }
        for key, kind, fill in (("template", np.int32, -1), ("angle", np.float32, np.nan)):
            if values.get(key) is not None:
                block[key] = (values[key][rows], kind, fill)
        for key in gathered.scores:
            block[key] = (values[key][rows], np.float32 if key in OUR_SCORES else np.float64, np.nan)
        inside = index[rows] - first
        at = np.arange(len(rows)) - (starts[first:last] - starts[first])[inside]
        padded = {key: _padded((last - first, most), inside, at, *column) for key, column in block.items()}
        failed = imported[first:last] != Status.DONE
        padded["count"] = counts[first:last].astype(np.int32)
        padded["status"] = np.where(failed, Status.SKIPPED, Status.DONE).astype(np.int8)
        padded["error"] = np.where(failed, "not imported", "").astype(object)
        project.write_blocks(f"picks/{name}", first, last, padded)
    project.write_columns(name, _ordered(gathered, order))
    project.finish(f"picks/{name}", identity)


def _padded(
    shape: tuple[int, int], row: NDArray[Any], column: NDArray[Any], values: NDArray[Any], kind: Any, fill: Any
) -> NDArray[Any]:
    out = np.full(shape, fill, dtype=kind)
    out[row, column] = values
    return out


def _ordered(gathered: Gathered, order: NDArray[np.intp]) -> Iterator[tuple[str, Column]]:
    """Columns of all files one after the other, each over all rows in the order of the store."""
    labels = list(dict.fromkeys(label for part in gathered.columns for label in part))
    sizes = [len(part) for part in gathered.x]
    for label in labels:
        parts = [columns.get(label) for columns in gathered.columns]
        joined = _one_column(parts, sizes)
        for columns in gathered.columns:
            columns.pop(label, None)
        yield label, joined[order]


def _one_column(parts: Sequence[Column | None], sizes: Sequence[int]) -> Column:
    known = [part for part in parts if part is not None]
    if any(isinstance(part, pd.Categorical) for part in known):
        texts = [_as_text(part, size) for part, size in zip(parts, sizes, strict=True)]
        return texts[0] if len(texts) == 1 else union_categoricals(texts)
    if len(known) < len(parts):
        shape, kind = np.shape(known[0])[1:], np.result_type(np.float64 if known[0].dtype.kind != "f" else known[0])
        parts = [np.full((n, *shape), np.nan, kind) if p is None else p for p, n in zip(parts, sizes, strict=True)]
    arrays = [np.asarray(part) for part in parts]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def _as_text(part: Column | None, size: int) -> pd.Categorical:
    if part is None:
        return pd.Categorical.from_codes(np.zeros(size, dtype=np.int32), categories=pd.Index([""], dtype="str"))
    if isinstance(part, pd.Categorical):
        return part
    codes, values = pd.factorize(np.asarray(part).astype(str).astype(object))
    return pd.Categorical.from_codes(codes, categories=pd.Index(values, dtype="str"))
