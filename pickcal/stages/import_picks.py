"""Import picks: what other programs picked becomes picks of the project, every column of theirs kept.

All files are read and checked before anything is written. Rows are ordered micrograph by micrograph, best first, one
column at a time, so that memory holds the table once.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from pandas.api.types import union_categoricals
from scipy.spatial import KDTree

from pickcal.engine.one_job import only_job
from pickcal.engine.progress import Reporter
from pickcal.errors import InputError, ProjectError
from pickcal.formats.foreign import Column
from pickcal.formats.registry import pick_files
from pickcal.project import Project, check_name, mended
from pickcal.schema import Status, Variable, score_variable
from pickcal.settings import ImportPicksSettings
from pickcal.stages.coordinates import Frame, check_inside, outside
from pickcal.stages.gathering import Gathered, gather, json_tables

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
BLOCK = 500_000
"""Places for picks that are written at once."""
NEIGHBOURS = 20_000
"""Picks that the usual distance of neighbours is taken from."""
LONE_DIAMETER, LEAST_DIAMETER = 100.0, 20.0
"""Å: diameter where no micrograph has two picks, and the least that is taken from the distance of neighbours."""
SOURCE_ROW = Variable(
    ("micrograph", "pick"), np.int64, "", "row of the source, over all files in order; -1 for none", -1
)


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
        `picks`, `imported`, `micrographs` (with picks), `program`, `score`, `diameter` (Å), `files`, picks left out as
        `dropped_outside` and `dropped_unknown`, `seconds`.

    Raises
    ------
    InputError, MissingFileError, ProjectError
        If a file cannot be read or does not fit the project, or the name is taken by other picks.
    """
    check_name("picks", name)
    with only_job(project.path, f"picks/{name}"):
        return _import_picks(project, paths, name, settings, reporter, overwrite)


def _import_picks(
    project: Project,
    paths: Sequence[Path],
    name: str,
    settings: ImportPicksSettings,
    reporter: Reporter,
    overwrite: bool,
) -> dict[str, Any]:
    began = time.monotonic()
    frame = Frame.of(project.table())
    reporter.start("import picks", len(files := pick_files(paths)))
    gathered = gather(files, frame, settings, reporter)
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
    order = _best_first(index, values.get(main), keep)
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


def _best_first(index: NDArray[np.int32], scores: Any, keep: NDArray[np.bool_]) -> NDArray[np.intp]:
    """Order rows by micrograph and falling score, those without one last; without scores as they came in."""
    ranking = np.zeros(len(index)) if scores is None else -np.nan_to_num(scores, nan=-np.inf)
    order = np.lexsort((ranking, index))
    return np.asarray(order[keep[order]])


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
    there = np.unique(index)
    sized = there[np.isfinite(frame.pixel_size[there])]  # NaN where a micrograph was not read
    for micrograph in np.random.default_rng(0).permutation(sized):
        rows = np.flatnonzero(index == micrograph)
        if len(rows) > 1:
            points = np.column_stack([x[rows], y[rows]]) * frame.pixel_size[micrograph]
            found.append(KDTree(points).query(points, k=2)[0][:, 1])
        if sum(len(part) for part in found) > NEIGHBOURS:
            break
    if not found:
        return LONE_DIAMETER
    return float(max(np.percentile(np.concatenate(found), 5), LEAST_DIAMETER))


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
        "tables": json_tables(gathered.tables),
    }
    return identity, attributes


def _there_already(project: Project, name: str, identity: dict[str, Any], digest: str, overwrite: bool) -> bool:
    if overwrite or name not in project.names("picks"):
        return False
    remedy = "choose another --name, or give --overwrite to replace them"
    project.check_same(f"picks/{name}", identity, remedy)
    if project.attributes(f"picks/{name}")["bank"] != digest:
        raise ProjectError(f"{project.path}: picks {name!r} hold other picks than these files do now; {remedy}")
    # a micrograph that could not be read then has no picks yet
    return not mended(project.done(f"picks/{name}"), project.done("micrographs")).any()


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
    index = places[0]
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
        block = _stored_columns(rows, places, pixel, values, gathered.scores)
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


def _stored_columns(
    rows: NDArray[np.intp],
    places: tuple[NDArray[np.int32], NDArray[np.float64], NDArray[np.float64]],
    pixel: NDArray[np.float64],
    values: dict[str, Any],
    scores: Sequence[str],
) -> dict[str, tuple[NDArray[Any], Any, Any]]:
    """Values of some rows as the store takes them: by name, with its type and what stands where there is no pick."""
    index, x, y = places
    size = pixel[index[rows]]
    out: dict[str, tuple[NDArray[Any], Any, Any]] = {
        "x": (x[rows] * size, np.float32, np.nan),
        "y": (y[rows] * size, np.float32, np.nan),
        "source_row": (rows, np.int64, -1),
    }
    for key, kind, fill in (("template", np.int32, -1), ("angle", np.float32, np.nan)):
        if values.get(key) is not None:
            out[key] = (values[key][rows], kind, fill)
    for key in scores:
        out[key] = (values[key][rows], np.float32 if key in OUR_SCORES else np.float64, np.nan)
    return out


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
