"""What every stage over batches of micrographs shares: plan what is left, run it, account for failures."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

import pickcal
from pickcal.engine.executors import Executor, Outcome
from pickcal.engine.journal import BatchRecord, Journal
from pickcal.engine.laps import laps
from pickcal.engine.one_job import only_job
from pickcal.engine.progress import Reporter
from pickcal.errors import ProjectError
from pickcal.project import Project, mended, stage_counts
from pickcal.schema import Status
from pickcal.stores.lease import Lease


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


def batches_left(project: Project, group: str, again: bool = True) -> list[tuple[int, int]]:
    """Batches that hold a micrograph not yet done; failed ones are tried again unless told otherwise."""
    return _left(project, project.done(group), again)


def _left(project: Project, status: NDArray[np.int8], again: bool) -> list[tuple[int, int]]:
    left = (status == Status.PENDING) | (again & (status == Status.FAILED))
    if (status == Status.SKIPPED).any():
        left |= mended(status, project.done("micrographs"))
    return [(start, stop) for start, stop in project.batches() if left[start:stop].any()]


def run_batches(
    project: Project,
    group: str,
    stage: str,
    function: Callable[[Task], dict[str, int] | None],
    task_of: Callable[[int, int], Task],
    executor: Executor,
    reporter: Reporter,
    memory: int = 0,
    again: bool = True,
) -> StageResult:
    """Run what is left, a task for each batch, keep a record of each, and mark what a lost task left behind.

    Parameters
    ----------
    project, group, stage
        What is written, and the stage's name for people.
    function
        Called with a task, on a worker.
    task_of
        Makes the task of a batch from its first micrograph and one past its last.
    executor, reporter
        Where tasks run and who is told.
    memory
        Bytes that a worker needs for one of the tasks; see `pickcal.stages.memory`.
    again
        Try micrographs again that failed; default True.

    Raises
    ------
    ProjectError
        If another job works on the group, or the disk is full: what is written stays valid and the same command
        continues.
    InputError
        If a worker has too little memory, or the cluster goes away.
    """
    began = time.monotonic()
    with only_job(project.path, group) as lease:
        if group.startswith("picks/"):
            project.lengthen(group)
        status = before = project.done(group)  # a file per batch: seconds for very many micrographs
        tasks = [task_of(start, stop) for start, stop in _left(project, before, again)]
        if tasks:
            _run(project, group, stage, function, tasks, executor, reporter, memory, lease)
            status = project.done(group)
        else:
            reporter.start(stage, 0)
            reporter.finish()
    ran = sum(int((before[t.start : t.stop] != Status.DONE).sum()) for t in tasks)
    return _result(project, group, stage, status, ran, time.monotonic() - began)


def standing(project: Project, group: str, stage: str) -> StageResult:
    """How a group stands of which this call runs nothing; parameters as of `run_batches`."""
    return _result(project, group, stage, project.done(group), 0, 0.0)


def _result(
    project: Project, group: str, stage: str, status: NDArray[np.int8], ran: int, seconds: float
) -> StageResult:
    counts = stage_counts(status)
    return StageResult(
        stage=stage,
        group=group,
        ran=ran,
        seconds=seconds,
        errors=tuple(failures(project, group, status)),
        done=counts["done"],
        failed=counts["failed"],
        skipped=counts["skipped"],
        pending=counts["pending"],
    )


def _run(
    project: Project,
    group: str,
    stage: str,
    function: Callable[[Task], dict[str, int] | None],
    tasks: Sequence[Task],
    executor: Executor,
    reporter: Reporter,
    memory: int,
    lease: Lease,
) -> None:
    executor.require(memory)
    journal = Journal(project.path, stage, group, project.group_mark(group))
    total = sum(task.stop - task.start for task in tasks)
    journal.begin(
        micrographs=total, batches=len(tasks), workers=executor.workers, pickcal=pickcal.__version__, memory=memory
    )
    reporter.start(stage, total)
    how = "stopped"
    try:
        for outcome in executor.run(partial(_reported, function, str(project.path.absolute()), group), tasks):
            lease.check()
            task = outcome.task
            journal.batch(_record(outcome))
            if outcome.error is not None:
                _mark_failed(project, group, task, outcome.error)
            reporter.advance(task.stop - task.start)
        how = "finished"
    finally:
        journal.end(how=how)
    reporter.finish()


@dataclass(frozen=True)
class BatchReport:
    """What a worker tells of a batch that it has written.

    Attributes
    ----------
    statuses
        Status of each micrograph, one digit each.
    reasons
        How many micrographs failed for each reason.
    totals
        What the stage counts, such as picks and decoys: the sums over the batch.
    slowest, seconds
        The micrograph that took longest and its seconds; -1 and 0 if the stage does not say when it begins one.
    """

    statuses: str
    reasons: dict[str, int]
    totals: dict[str, int]
    slowest: int
    seconds: float


def _reported(function: Callable[[Task], dict[str, int] | None], path: str, group: str, task: Task) -> BatchReport:
    """Run a task on a worker and read back what it has written."""
    with laps() as measured:
        totals = function(task)
    project = Project.open(path)
    status = project.read(group, "status", task.start, task.stop)
    reasons: Counter[str] = Counter()
    if (status == Status.FAILED).any():
        errors = project.read(group, "error", task.start, task.stop)
        reasons.update(str(reason) for reason in errors[status == Status.FAILED])
    slowest, seconds = measured.slowest()
    return BatchReport("".join(str(int(one)) for one in status), dict(reasons), totals or {}, slowest, seconds)


def _record(outcome: Outcome[Task, BatchReport]) -> BatchRecord:
    task, report, measure = outcome.task, outcome.result, outcome.measure
    ran = {} if measure is None else asdict(measure)
    if report is None:
        return BatchRecord(task.start, task.stop, **ran, error=outcome.error)
    return BatchRecord(
        task.start,
        task.stop,
        **ran,
        statuses=report.statuses,
        slowest=report.slowest,
        slowest_seconds=round(report.seconds, 3),
        reasons=report.reasons,
        totals=report.totals,
    )


def failures(project: Project, group: str, status: NDArray[np.int8]) -> Iterator[tuple[str, str]]:
    """Name and reason of every micrograph that failed; reads no batch without one."""
    batch, count = project.batch, project.count
    for number in np.unique(np.flatnonzero(status == Status.FAILED) // batch):
        start, stop = int(number) * batch, min(int(number + 1) * batch, count)
        names, errors = project.read("micrographs", "name", start, stop), project.read(group, "error", start, stop)
        failed = np.flatnonzero(status[start:stop] == Status.FAILED)
        yield from ((str(names[i]), str(errors[i])) for i in failed)


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
