"""Score: give NCC and power to the coordinates of some picks, wherever they come from, as a new set of picks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pickcal.engine.executors import Executor, explain
from pickcal.engine.laps import begin
from pickcal.engine.one_job import only_job
from pickcal.engine.progress import Reporter
from pickcal.errors import InputError
from pickcal.picking.bank import Bank
from pickcal.picking.filters import Float32, RadialFilter
from pickcal.picking.scoring import COLUMNS, LEAST_DECOYS, score_at
from pickcal.project import Project, check_name, differing
from pickcal.schema import PICKS, Status, Variable
from pickcal.settings import PickSettings, ScoreSettings
from pickcal.stages.batches import StageResult, run_batches
from pickcal.stages.calibrate_result import made_with
from pickcal.stages.memory import search_memory
from pickcal.stages.pick import identity_of, stored_bank, totals_of
from pickcal.stages.search import NEEDED, Search, image_of, load_bank, padded, search_of, suited

SOURCE_PICK = "source_pick"
EXTRA: dict[str, Variable] = {
    SOURCE_PICK: Variable(("micrograph", "pick"), np.int32, "", "place of the pick among those that were scored", -1)
}


@dataclass(frozen=True)
class ScoreTask:
    """One batch of micrographs whose picks are to be scored.

    Attributes
    ----------
    search
        The search whose maps give the scores; its `name` is that of the new picks.
    picks
        Name of the picks to score.
    radius
        How far they may be refined, Å.
    start, stop
        Micrographs.
    """

    search: Search
    picks: str
    radius: float
    start: int
    stop: int


def score(
    project: Project,
    picks: str,
    name: str | None,
    settings: ScoreSettings,
    executor: Executor,
    reporter: Reporter,
    overwrite: bool = False,
) -> StageResult:
    """Score the coordinates of some picks on all micrographs, or on those that an earlier call left.

    The new picks are those of the old group, every one, best NCC score first; `source_pick` says which each was. A
    pick outside its micrograph has no scores and comes last. `decoys` are random positions, as many as there are
    picks and at least 50, scored in the same way on the contrast-inverted micrograph. They stand for false picks that
    know nothing of the score. Where the false picks are peaks of such a score themselves (candidates of a template
    search without a threshold) they score lower than those, and a calibration against them takes noise for particles.

    Parameters
    ----------
    project
        Opened for writing, with images.
    picks
        Name of the picks to score; they stay as they are.
    name
        Name of the new picks; None for `picks` with "-scored" behind it.
    settings
        Templates or blobs, and how far to look.
    executor, reporter
        Where tasks run and who is told.
    overwrite
        Replace picks of this name that were made with other settings.

    Raises
    ------
    InputError, MissingFileError, ProjectError
        If there are no such picks or no images, templates or diameter do not fit, or the name is that of `picks` or
        of picks made with other settings.
    """
    name = name or f"{picks}-scored"
    check_name("picks", name)
    project.require("picks", picks)
    if name == picks:
        raise InputError(f"--name: expected another name than that of the picks to score, got {name!r}")
    project.require_images("score")
    with only_job(project.path, f"picks/{name}"):
        return _score(project, picks, name, settings, executor, reporter, overwrite)


def _score(
    project: Project,
    picks: str,
    name: str,
    settings: ScoreSettings,
    executor: Executor,
    reporter: Reporter,
    overwrite: bool,
) -> StageResult:
    group = f"picks/{name}"
    search_settings = settings.as_pick()
    identity = _score_identity(project, picks, settings, search_settings)
    there = name in project.names("picks")
    if not there or (overwrite and differing(project.settings(group), identity)):
        _create(project, picks, name, search_settings, identity, reporter)
    else:
        project.check_same(group, identity, "choose another --name, or give --overwrite to replace these picks")
    made = search_of(project, name, search_settings)
    task_of = partial(ScoreTask, made, picks, settings.reach)
    memory = search_memory(project, name, screened=False)
    result = run_batches(project, group, f"score {picks}", score_batch, task_of, executor, reporter, memory)
    without = _without_score(project, group)
    if without:
        reporter.note(f"{without} picks lie outside their micrographs and got no scores")
    return result


def _score_identity(
    project: Project, picks: str, settings: ScoreSettings, search_settings: PickSettings
) -> dict[str, Any]:
    """Give settings as they are stored and compared: defaults filled in, and what the scored picks were made with."""
    files = {key: value for key, value in identity_of(search_settings).items() if key.startswith("templates")}
    return {
        **settings.stored(),
        **files,
        "method": "score",
        "ctf": search_settings.ctf,
        "radius": settings.reach,
        "picks": picks,
        "picks_made_with": made_with(project, picks),
    }


def _create(
    project: Project, picks: str, name: str, settings: PickSettings, identity: Mapping[str, Any], reporter: Reporter
) -> None:
    arrays, attributes = stored_bank(project, settings, reporter)
    digest = hashlib.sha256((attributes["bank"] + json.dumps(identity, sort_keys=True)).encode())
    places = max(int(project.dataset(f"picks/{picks}").sizes["pick"]), LEAST_DECOYS)
    project.remove(f"calibration/{name}")  # a fit of picks that are about to go
    project.create_picks(name, places, identity, arrays, {**attributes, "bank": digest.hexdigest()}, extra=EXTRA)


def _without_score(project: Project, group: str) -> int:
    total = 0
    for start, stop in project.batches():
        ncc, count = (project.read(group, variable, start, stop) for variable in ("ncc", "count"))
        total += int((np.isnan(ncc) & (np.arange(ncc.shape[1]) < count[:, None])).sum())
    return total


def score_batch(task: ScoreTask) -> dict[str, int]:
    """Score the picks of one batch of micrographs and write scores, decoys and status; see `totals_of`."""
    project = Project.open(task.search.project, mode="r+", whole=True)
    group, source_group = f"picks/{task.search.name}", f"picks/{task.picks}"
    bank, whitening = load_bank(task.search)
    values = {name: project.read(group, name, task.start, task.stop) for name in (*PICKS, *EXTRA)}
    names = ("x", "y", "count", "capped", "status", "error")
    source = {name: project.read(source_group, name, task.start, task.stop) for name in names}
    micrographs = project.micrographs()[["name", *NEEDED]].isel(micrograph=slice(task.start, task.stop)).load()
    for i in range(task.stop - task.start):
        if values["status"][i] == Status.DONE:
            continue
        begin(task.start + i)
        row = micrographs.isel(micrograph=i)
        refused = _refusal(row, task.picks, Status(int(source["status"][i])), str(source["error"][i]))
        if refused is not None:
            values["status"][i], values["error"][i] = refused
            continue
        x, y = (source[name][i, : source["count"][i]] for name in ("x", "y"))
        try:
            image = image_of(project, task.start + i, row)
            found = score_micrograph(image, row, bank, whitening, task, x, y)
        except Exception as error:
            values["status"][i], values["error"][i] = Status.FAILED, explain(error)
            continue
        for name, column in found.items():
            values[name][i] = column
        values["capped"][i] = source["capped"][i]
        values["status"][i], values["error"][i] = Status.DONE, ""
    project.write_batch(group, task.start, task.stop, values)
    return totals_of(values)


def _refusal(row: xr.Dataset, picks: str, status: Status, error: str) -> tuple[Status, str] | None:
    """Status and reason of a micrograph that cannot be scored; what may be mended by an earlier stage is skipped."""
    if row["status"].item() != Status.DONE:
        return Status.SKIPPED, f"not imported: {row['error'].item()}"
    if status == Status.FAILED:
        return Status.FAILED, f"picks {picks!r} failed here: {error}"
    if status != Status.DONE:
        return Status.SKIPPED, f"picks {picks!r} are not made here yet"
    return None


def score_micrograph(
    image: Float32,
    row: xr.Dataset,
    bank: Bank,
    whitening: RadialFilter | None,
    task: ScoreTask,
    x: NDArray[np.floating],
    y: NDArray[np.floating],
) -> dict[str, NDArray[Any] | int]:
    """Score points of one image.

    Parameters
    ----------
    image
        Working image `(y, x)`.
    row
        Row of the table of micrographs that the image belongs to: name, pixel size and CTF.
    bank, whitening
        From `load_bank`.
    task
        Search and radius.
    x, y
        Points, Å.

    Returns
    -------
    dict
        Columns of `schema.PICKS` and `EXTRA` for this micrograph, padded to the places there are, best NCC score
        first, points without scores last.

    Raises
    ------
    InputError
        If pixel size, diameter or CTF do not suit the search.
    """
    ctf = suited(image, row, bank, task.search)
    seed = int.from_bytes(hashlib.sha256(str(row["name"].item()).encode()).digest()[:8], "big")
    pixel_size, parameters = float(row["pixel_size"]), task.search.parameters
    points, decoys = score_at(image, pixel_size, bank, parameters, x, y, task.radius, ctf, whitening, seed=seed)
    order, decoy_order = (np.argsort(-found.ncc, kind="stable") for found in (points, decoys))
    places = task.search.slots
    out: dict[str, NDArray[Any] | int] = {
        name: padded(getattr(points, name)[order], places, PICKS[name].fill) for name in COLUMNS
    }
    out[SOURCE_PICK] = padded(order.astype(np.int32), places, EXTRA[SOURCE_PICK].fill)
    for name in ("x", "y", "ncc", "power"):
        out[f"decoy_{name}"] = padded(getattr(decoys, name)[decoy_order], places, np.nan)
    out["count"], out["decoy_count"] = len(order), len(decoy_order)
    return out
