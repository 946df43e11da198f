"""What every stage over batches of micrographs shares: plan what is left, run it, account for failures."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from pickcal.engine.executors import Executor
from pickcal.engine.progress import Reporter
from pickcal.errors import ProjectError
from pickcal.project import Project, stage_counts
from pickcal.schema import Status


class BatchTask(Protocol):
    """A task that owns one batch."""

    @property
    def start(self) -> int:
        """First micrograph."""
        ...

    @property
    def stop(self) -> int:
        """One past the last micrograph."""
        ...


Task = TypeVar("Task", bound=BatchTask)


@dataclass(frozen=True)
class StageResult:
    """What a stage has done.

    Attributes
    ----------
    stage
        Name of the stage.
    group
        Group of the project it wrote.
    ran
        Micrographs processed by this call; 0 when everything was there already.
    done, failed, skipped, pending
        Micrographs by status, over the whole project.
    seconds
        Wall time.
    errors
        Name and reason of each micrograph that failed.
    """

    stage: str
    group: str
    ran: int
    done: int
    failed: int
    skipped: int
    pending: int
    seconds: float
    errors: tuple[tuple[str, str], ...]

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        out = asdict(self)
        out["errors"] = [{"micrograph": name, "error": reason} for name, reason in self.errors]
        return out


def pending(project: Project, group: str) -> NDArray[np.bool_]:
    """Micrographs that a stage has not looked at, or skipped before their import was mended."""
    status = project.done(group)
    mended = (status == Status.SKIPPED) & (project.done("micrographs") == Status.DONE)
    return np.asarray((status == Status.PENDING) | mended)


def batches_left(project: Project, group: str, again: bool = True) -> list[tuple[int, int]]:
    """Batches that hold a micrograph not yet done; failed ones are tried again unless told otherwise."""
    left = pending(project, group) | (again & (project.done(group) == Status.FAILED))
    return [(start, stop) for start, stop in project.batches() if left[start:stop].any()]


def run_batches(
    project: Project,
    group: str,
    stage: str,
    function: Callable[[Task], None],
    tasks: Sequence[Task],
    executor: Executor,
    reporter: Reporter,
) -> StageResult:
    """Run tasks that each write their own batch, and mark what a lost task left behind.

    Raises
    ------
    ProjectError
        If the disk is full: what is written stays valid and the same command continues.
    """
    began = time.monotonic()
    before = project.done(group)
    reporter.start(stage, sum(task.stop - task.start for task in tasks))
    for outcome in executor.run(function, tasks):
        task = outcome.task
        if outcome.error is not None:
            _mark_failed(project, group, task, outcome.error)
        reporter.advance(task.stop - task.start)
    reporter.finish()
    status = project.done(group)
    counts = stage_counts(status)
    names = project.read("micrographs", "name")
    errors = project.read(group, "error")
    ran = sum(int((before[t.start : t.stop] != Status.DONE).sum()) for t in tasks)
    return StageResult(
        stage=stage,
        group=group,
        ran=ran,
        seconds=time.monotonic() - began,
        errors=tuple((str(names[i]), str(errors[i])) for i in np.flatnonzero(status == Status.FAILED)),
        done=counts["done"],
        failed=counts["failed"],
        skipped=counts["skipped"],
        pending=counts["pending"],
    )


def _mark_failed(project: Project, group: str, task: BatchTask, reason: str) -> None:
    status = project.read(group, "status", task.start, task.stop)
    errors = project.read(group, "error", task.start, task.stop)
    lost = status != Status.DONE
    status[lost], errors[lost] = Status.FAILED, reason
    try:
        project.write_batch(group, task.start, task.stop, {"error": errors, "status": status})
    except OSError as error:
        raise ProjectError(
            f"{project.path}: writing failed: {error.strerror or error} (while noting: {reason}). What is written is "
            "valid; make room and give the same command again, it goes on from here"
        ) from None
    if "No space left" in reason:
        raise ProjectError(
            f"{project.path}: {reason}. What is written is valid; make room and give the same command again, "
            "it goes on from here"
        )
