"""Whole processes and what they cost: CPU of the process and all it started, wall time, largest memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

SINGLE = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")}
"""One thread per process for every library: what is compared is CPU seconds, not the luck of the scheduler."""
LAUNCHER = Path(__file__).with_name("launcher.py")


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


def median(slopes: Sequence[Slope]) -> Slope:
    """Median of repeated measurements, of each figure by itself."""
    middle = np.median([[s.cpu, s.wall, s.start, s.memory] for s in slopes], axis=0)
    return Slope(*map(float, middle))


def added(slopes: Sequence[Slope]) -> Slope:
    """Cost of stages that run one after the other."""
    return Slope(
        sum(s.cpu for s in slopes),
        sum(s.wall for s in slopes),
        sum(s.start for s in slopes),
        max(s.memory for s in slopes),
    )


def run(command: Sequence[str | Path], cwd: Path, mark: str = "", env: Mapping[str, str] | None = None) -> Cost:
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
    done = subprocess.run(
        [sys.executable, "-I", "-S", str(LAUNCHER), mark, *map(str, command)],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env={**os.environ, **SINGLE, **(env or {})},
    )
    found = json.loads(done.stdout)
    if code := found.pop("code"):
        words = " ".join(map(str, command))[:200]
        raise ProcessFailedError(f"{words}: exit code {code}: {found['output'].strip()[-400:]}")
    return Cost(**{key: float("nan") if value is None else value for key, value in found.items()})
