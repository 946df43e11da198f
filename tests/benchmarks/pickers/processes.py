"""Whole processes and what they cost: CPU of the process and all it started, wall time, largest memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SINGLE = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")}
"""One thread per process for every library: what is compared is CPU seconds, not the luck of the scheduler."""
PR_SET_CHILD_SUBREAPER = 36


class ProcessFailedError(RuntimeError):
    """A command ended with an error; the message holds the end of what it said."""


@dataclass(frozen=True)
class Cost:
    """What one process took.

    Attributes
    ----------
    cpu, wall
        Seconds; CPU is user and system of the process and of all processes below it.
    memory
        Largest resident memory of any one of these processes, MB (2^20 bytes).
    before, wall_before
        CPU and wall seconds when the process first printed the mark it was run with, else NaN.
    output
        What it printed.
    """

    cpu: float
    wall: float
    memory: float
    before: float = float("nan")
    wall_before: float = float("nan")
    output: str = ""


@dataclass(frozen=True)
class Slope:
    """Cost of one more micrograph, and of a job without any.

    Attributes
    ----------
    cpu, wall
        Seconds a micrograph.
    start
        CPU seconds of start-up.
    memory
        Largest memory of a process, MB.
    """

    cpu: float
    wall: float
    start: float
    memory: float


def slope(costs: Mapping[int, Cost]) -> Slope:
    """Tell the cost of a micrograph from start-up by a line through jobs of different length.

    Parameters
    ----------
    costs
        Cost by number of micrographs, at least two numbers.

    Raises
    ------
    ValueError
        If there are fewer than two.
    """
    if len(costs) < 2:
        raise ValueError(f"slope: expected jobs of at least two lengths, got {sorted(costs)}")
    counts = np.array(sorted(costs), dtype=np.float64)
    cpu = np.polyfit(counts, [costs[int(n)].cpu for n in counts], 1)
    wall = np.polyfit(counts, [costs[int(n)].wall for n in counts], 1)
    return Slope(float(cpu[0]), float(wall[0]), float(cpu[1]), max(cost.memory for cost in costs.values()))


def added(slopes: Sequence[Slope]) -> Slope:
    """Cost of stages that run one after the other."""
    return Slope(
        sum(s.cpu for s in slopes),
        sum(s.wall for s in slopes),
        sum(s.start for s in slopes),
        max(s.memory for s in slopes),
    )


def run(
    command: Sequence[str | Path], cwd: Path, mark: str | None = None, env: Mapping[str, str] | None = None
) -> Cost:
    """Run one command to its end and measure it.

    Parameters
    ----------
    command
        Program and arguments.
    cwd
        Folder to run it in.
    mark
        Text by which the program says that start-up is over: the CPU spent until then becomes `before`.
    env
        Environment variables on top of this process's and of `SINGLE`.

    Raises
    ------
    ProcessFailedError
        If it exits with anything but 0.
    """
    _adopt_orphans()
    begin = time.monotonic()
    process = subprocess.Popen(
        [str(word) for word in command],
        cwd=cwd,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **SINGLE, **(env or {})},
        start_new_session=True,
    )
    try:
        said, before, reached = _listen(process, mark)
        code, cpu, memory = _reap(process)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise
    wall = time.monotonic() - begin
    output = said.decode(errors="replace")
    if code:
        raise ProcessFailedError(f"{' '.join(map(str, command))[:200]}: exit code {code}: {output.strip()[-400:]}")
    return Cost(cpu, wall, memory, before, reached - begin, output)


def _adopt_orphans() -> None:
    """Become the parent of processes whose own parent has gone, so that their CPU is counted (Linux alone can)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _listen(process: subprocess.Popen[bytes], mark: str | None) -> tuple[bytes, float, float]:
    """Collect output until all writers are gone; with the CPU and the time of day at the mark."""
    assert process.stdout is not None
    said, before, reached = b"", float("nan"), float("nan")
    while part := os.read(process.stdout.fileno(), 65536):
        said += part
        if mark is not None and before != before and mark.encode() in said:
            before, reached = _cpu_now(process.pid), time.monotonic()
    process.stdout.close()
    return said, before, reached


def _cpu_now(pid: int) -> float:
    """User and system seconds of a running process, from /proc."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _reap(process: subprocess.Popen[bytes]) -> tuple[int, float, float]:
    """Wait for every process of the job's group: exit code of the first, CPU seconds and largest memory of all."""
    cpu = memory = 0.0
    code = 0
    while True:
        try:
            pid, status, usage = os.wait4(-process.pid, 0)
        except ChildProcessError:
            return code, cpu, memory
        cpu += usage.ru_utime + usage.ru_stime
        memory = max(memory, usage.ru_maxrss / 1024.0 * (1.0 if sys.platform == "linux" else 1 / 1024.0))
        if pid == process.pid:
            code = os.waitstatus_to_exitcode(status)
            process.returncode = code
