"""What a second process gains on this machine now: as many reads and transforms, shared by one process or by two."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from scipy import fft

from .floor import ROOT, SIDE

WORK = 96
"""Reads and transforms, a few seconds."""


def attainable(work: Path) -> float:
    """Measure how many times the throughput of one process two of them reach."""
    path = work / "control.raw"
    np.zeros((SIDE, SIDE), dtype=np.float32).tofile(path)
    try:
        return _wall(path.resolve(), 1) / _wall(path.resolve(), 2)
    finally:
        path.unlink()


def _wall(path: Path, processes: int) -> float:
    """Seconds from the moment when all processes are ready to the end of the last."""
    command = [sys.executable, "-m", "tests.benchmarks.pickers.control", str(path), str(WORK // processes)]
    running = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(processes)
    ]
    for process in running:
        assert process.stdout is not None
        process.stdout.readline()
    begin = time.monotonic()
    for process in running:
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.flush()
    for process in running:
        process.communicate()
    return time.monotonic() - begin


def main(path: Path, times: int) -> None:
    """Say that this process is ready, wait for the word, and work."""
    image = np.empty((SIDE, SIDE), dtype=np.float32)
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(times):
        with path.open("rb", buffering=0) as file:
            file.readinto(memoryview(image).cast("B"))
        fft.rfft2(image, workers=1)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
