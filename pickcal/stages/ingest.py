"""Ingest: source micrographs to working images in the project. Sources are only read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from pickcal.engine.executors import Executor, explain
from pickcal.engine.laps import begin
from pickcal.engine.one_job import only_job
from pickcal.engine.progress import Reporter
from pickcal.errors import InputError, ProjectError
from pickcal.formats.exposures import PART
from pickcal.formats.images import image_info, read_measured
from pickcal.picking.filters import crop_to_working_pixel, plan_crop
from pickcal.pixels import Summary, summarise
from pickcal.project import Project, differing
from pickcal.project.arrays import ROWS_PER_CHUNK
from pickcal.project.creating import new_project
from pickcal.schema import MICROGRAPHS, STATIC, Status
from pickcal.settings import ImportSettings
from pickcal.stages.batches import StageResult, run_batches, standing
from pickcal.stages.memory import import_memory
from pickcal.stages.sources import CTF_COLUMNS, Sources, listed
from pickcal.stores.fetching import fetched_image, into_cache, split_place
from pickcal.stores.homes import home_of
from pickcal.stores.places import Place, place

TABLE_BATCH = 256
"""Micrographs per chunk where there are no images: everything is small then, and few large files are quicker."""
SHOWN = 10
"""Differences that are told."""
Shape = tuple[int, int, float]
"""Height, width and pixel size, Å, of an image."""
UNREADABLE: Shape = (0, 0, float("nan"))


@dataclass(frozen=True)
class IngestTask:
    """One batch of micrographs to read."""

    project: str
    start: int
    stop: int
    pixel_size: float
    clip: float


def ingest(
    sources: Sequence[Place], path: Place, settings: ImportSettings, executor: Executor, reporter: Reporter
) -> StageResult:
    """Import micrographs into a project, new or begun earlier with the same settings.

    Parameters
    ----------
    sources
        Tables of micrographs (RELION, cryoSPARC, CTFFIND, Gctf, CSV), or MRC and TIFF files.
    path
        The project store.
    settings
        Working pixel and how to read the sources.
    executor, reporter
        Where tasks run and who is told.

    Raises
    ------
    InputError, MissingFileError, ProjectError
        If the sources are unusable as a whole, the project holds something else, or the disk is too small.
    """
    with only_job(place(path), "micrographs"):
        return _ingest(sources, place(path).absolute(), settings, executor, reporter)


def _ingest(
    sources: Sequence[Place], path: Place, settings: ImportSettings, executor: Executor, reporter: Reporter
) -> StageResult:
    project, new = _project_of(sources, path, settings, reporter)
    if settings.tables_only:
        reporter.note(f"{project.count} micrographs from tables, without their images")
        result = standing(project, "micrographs", "import")
        return replace(result, ran=result.done if new else 0)
    task_of = partial(IngestTask, str(path), pixel_size=settings.pixel_size, clip=settings.clip)
    memory = import_memory(project)
    return run_batches(project, "micrographs", "import", ingest_batch, task_of, executor, reporter, memory)


def _project_of(
    sources: Sequence[Place], path: Place, settings: ImportSettings, reporter: Reporter
) -> tuple[Project, bool]:
    """Project for the sources, and whether it is new."""
    sources = [place(source) for source in sources]
    stored = {**settings.stored(), "sources": [str(source.absolute()) for source in sources]}
    with listed(sources, settings) as found:
        if found.root is not None:
            reporter.note(f"names in {sources[0]} are relative to {found.root}")
        if home_of(path).exists():
            return _resume(path, found, stored, settings), False
        return create(path, found.count, (table for _, table in found.tables(ROWS_PER_CHUNK)), stored, settings), True


def shapes_of(table: pd.DataFrame, settings: ImportSettings) -> list[Shape]:
    """Shapes of the working images of a table of sources; where there are none, those of the sources themselves.

    Positions are then relative to the sources.
    """
    if not settings.tables_only:
        return working_shapes(table, settings.pixel_size)
    columns = ("source_height", "source_width", "source_pixel_size")
    return [(int(h), int(w), float(p)) for h, w, p in zip(*(table[name] for name in columns), strict=True)]


def working_shapes(table: pd.DataFrame, pixel_size: float) -> list[Shape]:
    """Shapes of the working images of a table of sources, pixel size in Å; zeros and NaN where one cannot be read.

    Micrographs of one kind share one tuple.
    """
    made: dict[Shape, Shape] = {}
    out = []
    columns = ("problem", "source_height", "source_width", "source_pixel_size")
    for problem, height, width, source in zip(*(table[name] for name in columns), strict=True):
        if problem:
            out.append(UNREADABLE)
            continue
        key = (int(height), int(width), float(source))
        if key not in made:
            plan = plan_crop(key[:2], key[2], pixel_size)
            made[key] = (*plan.shape, key[2] * plan.numerator / plan.denominator)
        out.append(made[key])
    return out


def too_large(shape: Shape, room: tuple[float, ...]) -> str:
    """Why a working image does not fit into a project that was made for smaller ones; "" if it does.

    Parameters
    ----------
    shape
        From `working_shapes`.
    room
        Rows and columns of the project's images.
    """
    if shape[0] <= room[0] and shape[1] <= room[1]:
        return ""
    return f"working image {shape[:2]} does not fit the project's {room}; import anew"


def columns_of(table: pd.DataFrame, shapes: list[Shape], images: bool = True) -> dict[str, NDArray[Any]]:
    """Columns of `schema.MICROGRAPHS` for a table of sources, with the shapes of the working images."""
    failed = (table["problem"] != "").to_numpy()
    height, width, pixel = zip(*shapes, strict=True)
    columns = {name: table[name].to_numpy() for name in STATIC if name in table}
    columns.update(height=np.array(height), width=np.array(width), pixel_size=np.array(pixel))
    columns["status"] = np.where(failed, Status.FAILED, Status.PENDING if images else Status.DONE).astype(np.int8)
    columns["error"] = table["problem"].to_numpy()
    out = {}
    for name, values in columns.items():
        kind = MICROGRAPHS[name].dtype
        out[name] = values.astype(object) if kind is str else values.astype(kind)
    return out


def batch_of(count: int, images: bool = True) -> int:
    """Micrographs per task and chunk where nothing else is asked for.

    Workers wait at the end for the last task, so that there should be many: 16 at least, and of images 64 if that does
    not need tasks of fewer than 4.

    Examples
    --------
    >>> [batch_of(count) for count in (10, 48, 200, 288, 800, 100_000)]
    [1, 3, 4, 5, 13, 16]
    """
    sixteenth = -(-count // 16)
    return min(16, sixteenth, max(4, -(-count // 64))) if images else min(TABLE_BATCH, sixteenth)


def create(
    path: Place,
    count: int,
    tables: Iterable[pd.DataFrame],
    stored: dict[str, Any],
    settings: ImportSettings,
    growing: bool = False,
) -> Project:
    """Create a project for a table of sources, if there is room for it.

    Parameters
    ----------
    path
        Where.
    count
        Number of micrographs.
    tables
        Parts of the table, from `Sources.tables`; one is held at a time.
    stored
        Settings as they are stored and compared.
    settings
        Batch, and whether there are images.
    growing
        More micrographs will come: see `new_project`.

    Raises
    ------
    ProjectError
        If something is at `path`, or the disk is too small.
    """
    images = not settings.tables_only
    batch = settings.batch or batch_of(count, images)
    start, height, width = 0, 0, 0
    with new_project(path, count, batch, growing) as made:
        for table in tables:
            shapes = shapes_of(table, settings)
            made.write(start, start + len(table), columns_of(table, shapes, images))
            start += len(table)
            if images:
                height, width = max(height, *(s[0] for s in shapes)), max(width, *(s[1] for s in shapes))
        needed, free = 2 * count * height * width, home_of(path).room()
        if free is not None and needed > free:
            raise ProjectError(
                f"{path}: {count} working images need up to {needed / 1e9:.1f} GB, the disk has {free / 1e9:.1f} GB "
                "free; make room or give a larger --pixel-size"
            )
        made.finish((height, width), stored)
    return Project.open(path, mode="r+")


def _resume(path: Place, found: Sources, stored: dict[str, Any], settings: ImportSettings) -> Project:
    """Open a project begun earlier; what failed for its source file is looked at again."""
    project = Project.open(path, mode="r+")
    if stored["batch"] is None:
        stored["batch"] = project.settings("micrographs")["batch"]
    differences = differing(project.settings("micrographs"), stored)
    others = f"micrographs: stored {project.count}, asked {found.count} or others"
    rows = project.batch * max(1, PART // project.batch)
    status = project.done("micrographs")
    if found.count != project.count:
        differences.append(others)
    else:
        for start, table in found.as_listed(rows):
            names = project.read("micrographs", "name", start, start + len(table))
            if [str(name) for name in names] != table["name"].tolist():
                differences.append(others)
                break
            imported = status[start : start + len(table)] == Status.DONE
            differences += _moved(project, table, start, imported)[:SHOWN]
    if differences:
        lines = "\n".join(f"  {line}" for line in differences[:SHOWN])
        raise ProjectError(f"{path}: exists and was imported otherwise:\n{lines}\nchoose another --project")
    again = status == Status.FAILED
    if again.any():
        _look_again(project, found.tables(rows, again), again, settings)
    return project


def _look_again(
    project: Project, tables: Iterable[tuple[int, pd.DataFrame]], again: NDArray[np.bool_], settings: ImportSettings
) -> None:
    """Write anew what the table tells of micrographs that failed."""
    room = project.micrographs()["image"].shape[1:] if project.has_images else (np.inf, np.inf)
    for start, table in tables:
        stop = start + len(table)
        some, shapes = again[start:stop], shapes_of(table, settings)
        for i in np.flatnonzero(some & (table["problem"] == "").to_numpy()):
            table.loc[i, "problem"] = too_large(shapes[i], room)
        columns = columns_of(table, shapes, project.has_images)
        values = project.read_rows("micrographs", list(columns), start, stop)
        for name, column in columns.items():
            values[name][some] = column[some]
        project.write_blocks("micrographs", start, stop, values)


def _moved(project: Project, table: pd.DataFrame, start: int, imported: NDArray[np.bool_]) -> list[str]:
    """Describe values of the CTF table that differ from those of imported micrographs, from `start` on."""
    out = []
    names = (*CTF_COLUMNS, "exposure_group", "source_pixel_size")
    stored = project.read_rows("micrographs", names, start, start + len(table))
    for name, old in stored.items():
        new = table[name].to_numpy()
        same = np.isclose(old.astype(float), new.astype(float), rtol=1e-9, atol=1e-9, equal_nan=True)
        if name == "source_pixel_size":
            same |= np.isnan(new)  # known from the image, which was read
        out += [
            f"{table['name'][i]}: {name} stored {old[i]:g}, now {new[i]:g}" for i in np.flatnonzero(imported & ~same)
        ]
    return out


def ingest_batch(task: IngestTask) -> None:
    """Read, clip, crop and scale the micrographs of one batch and write them with their status."""
    project = Project.open(task.project, mode="r+", whole=True)
    names = ("image_mean", "image_std", "status", "error")
    found = project.read_rows("micrographs", (*names, "source", "source_pixel_size"), task.start, task.stop)
    values = {name: found[name] for name in names}
    sources, pixel_sizes = [str(source) for source in found["source"]], found["source_pixel_size"]
    images: dict[int, NDArray[np.float16]] = {}
    left = [i for i in range(len(sources)) if values["status"][i] == Status.PENDING]
    for i, read in zip(left, read_ahead([sources[i] for i in left]), strict=True):
        begin(task.start + i)
        try:
            pixels, found_there = read()
            size = float(pixel_sizes[i])
            image, mean, deviation = working_image(pixels, found_there, sources[i], size, task.pixel_size, task.clip)
        except Exception as error:
            values["status"][i], values["error"][i] = Status.FAILED, explain(error)
            continue
        images[task.start + i] = image.astype(np.float16)
        values["image_mean"][i], values["image_std"][i] = mean, deviation
        values["status"][i], values["error"][i] = Status.DONE, ""
    project.write_images(images)
    project.write_batch("micrographs", task.start, task.stop, values)


Measured = tuple[NDArray[np.float32], Summary]


def read_ahead(sources: Sequence[str]) -> Iterator[Callable[[], Measured]]:
    """Read micrographs, of which the next one comes from its disk or store while one is worked on.

    That takes no processor time, which is the other workers', and no second image in memory.

    Parameters
    ----------
    sources
        Files, with `n@` before them for an image of a stack.

    Yields
    ------
    callable
        For each source: gives its pixels, float32 `(y, x)`, and their summary, or raises what went wrong; to be called
        once. The pixels are there until the next one is called.
    """
    memory = np.empty((0, 0), np.float32)

    def read(made_ready: Future[Ready]) -> Measured:
        nonlocal memory
        ready = made_ready.result()
        with ready.held:
            info = image_info(ready.path, ready.index)
            if memory.shape != (info.height, info.width):
                memory = np.empty((info.height, info.width), np.float32)
            return read_measured(info, memory)

    with ThreadPoolExecutor(1) as pool:
        following = [pool.submit(_ready, source) for source in sources[:1]]
        for i in range(len(sources)):
            current = following.pop()
            wait((current,))  # never more than two copies of remote files are on the disk
            if i + 1 < len(sources):
                following.append(pool.submit(_ready, sources[i + 1]))
            yield partial(read, current)


@dataclass(frozen=True)
class Ready:
    """An image file at hand: `held` keeps it so until it is closed."""

    path: Path
    index: int | None
    held: ExitStack


def _ready(source: str) -> Ready:
    index, where = split_place(source)
    with ExitStack() as held:
        path = held.enter_context(fetched_image(where, index))
        if isinstance(where, Path):
            into_cache(path, index)
        return Ready(path, index, held.pop_all())


def _clip(image: NDArray[np.float32], found: Summary, clip: float) -> None:
    """Clip in place, again until the deviation settles: one hot pixel would set the limits of a single pass."""
    before = np.inf
    for _ in range(10):
        low, high = found.mean - clip * found.deviation, found.mean + clip * found.deviation
        if found.low >= low and found.high <= high:
            return
        np.clip(image, np.float32(low), np.float32(high), out=image)
        if found.deviation > 0.99 * before:
            return
        before = found.deviation
        found = summarise(image)


def working_image(
    image: NDArray[np.float32], found: Summary, source: str, source_pixel_size: float, pixel_size: float, clip: float
) -> tuple[NDArray[np.float32], float, float]:
    """Bring one source image to the working pixel.

    Parameters
    ----------
    image
        Pixels of the source, float32 `(y, x)`; they are clipped in place.
    found
        What they are, from `summarise`.
    source
        Its name, for messages.
    source_pixel_size, pixel_size
        Å.
    clip
        Source pixels further than this many standard deviations from the mean are set to that limit.

    Returns
    -------
    image, mean, deviation
        float32 `(y, x)` of mean 0 and deviation 1; the mean and deviation taken away.

    Raises
    ------
    InputError
        If nothing but one grey value is left of the image.
    """
    _clip(image, found, clip)
    plan = plan_crop((image.shape[0], image.shape[1]), source_pixel_size, pixel_size)
    small = crop_to_working_pixel(image, plan)
    mean, deviation = float(small.mean(dtype=np.float64)), float(small.std(dtype=np.float64))
    if not deviation > 0:
        raise InputError(f"{source}: constant after cropping to {pixel_size:g} Å")
    return ((small - mean) / deviation).astype(np.float32), mean, deviation
