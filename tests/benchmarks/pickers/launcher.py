"""Run one command and measure it, from a process that is small itself.

Linux counts the memory that a process had before it became another program as its own, so that a command started by a
large process can seem no smaller than that. This file is run as a script with the standard library alone.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

PR_SET_CHILD_SUBREAPER = 36


def adopt_orphans() -> None:
    """Become the parent of processes whose own parent has gone, so that their CPU is counted (Linux alone can)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def listen(process: subprocess.Popen[bytes], mark: bytes) -> tuple[bytes, float | None, float | None]:
    """Collect output until all writers are gone; with the CPU and the clock at the mark."""
    assert process.stdout is not None
    said, before, reached = b"", None, None
    while part := os.read(process.stdout.fileno(), 65536):
        said += part
        if mark and before is None and mark in said:
            before, reached = cpu_now(process.pid), time.monotonic()
    return said, before, reached


def cpu_now(pid: int) -> float:
    """User and system seconds of a running process, from /proc."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def reap(process: subprocess.Popen[bytes]) -> tuple[int, float, float]:
    """Wait for every process of the job's group: exit code of the first, CPU seconds and largest memory (MB) of all."""
    cpu = memory = 0.0
    code = 0
    unit = 1024.0 if sys.platform == "linux" else 1024.0**2
    while True:
        try:
            pid, status, usage = os.wait4(-process.pid, 0)
        except ChildProcessError:
            return code, cpu, memory
        cpu += usage.ru_utime + usage.ru_stime
        memory = max(memory, usage.ru_maxrss / unit)
        if pid == process.pid:
            code = process.returncode = os.waitstatus_to_exitcode(status)


def main(mark: str, command: list[str]) -> dict[str, object]:
    """Run the command in a group of its own; an interrupted run leaves nothing of it behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    adopt_orphans()
    begin = time.monotonic()
    process = subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        said, before, reached = listen(process, mark.encode())
        code, cpu, memory = reap(process)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        raise
    return {
        "code": code,
        "cpu": cpu,
        "wall": time.monotonic() - begin,
        "memory": memory,
        "before": before,
        "wall_before": None if reached is None else reached - begin,
        "output": said.decode(errors="replace"),
    }


if __name__ == "__main__":
    print(json.dumps(main(sys.argv[1], sys.argv[2:])))
