"""A Dask cluster of real processes, each of which a test may kill: scheduler, and workers with their nannies."""

import os
import socket
import subprocess
import sys
import time
from contextlib import suppress

import psutil

PYTHON = sys.executable
QUICK = {
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "12s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s",
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "15s",
}


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


class Lab:
    """Starts and kills the processes of one cluster.

    `before` are words that go before each command, by host: ("ip", "netns", "exec", ...).
    """

    def __init__(self, env, host="127.0.0.1", folder=None, tls=()):
        env = {**env, "PYTHONPATH": os.pathsep.join(sys.path)}  # workers import the functions of tests
        self.env, self.host, self.port, self.folder, self.tls = env, host, free_port(), folder, list(tls)
        self.scheduler = None
        self.workers, self._how = [], []

    @property
    def address(self):
        return f"{'tls' if self.tls else 'tcp'}://{self.host}:{self.port}"

    def _start(self, module, *arguments, before=(), env=None):
        command = [*before, PYTHON, "-m", f"distributed.cli.{module}", *self.tls, *map(str, arguments)]
        return subprocess.Popen(
            command,
            env={**self.env, **QUICK, **(env or {})},
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def start_scheduler(self, before=()):
        self.scheduler = self._start(
            "dask_scheduler", "--host", self.host, "--port", self.port, "--no-dashboard", before=before
        )
        return self

    def start_worker(self, *more, before=(), env=None, nanny=True):
        arguments = [self.address, "--nthreads", 1, "--no-dashboard", "--death-timeout", 60, *more]
        if not nanny:
            arguments.append("--no-nanny")
        self._how.append((arguments, before, env))
        self.workers.append(self._start("dask_worker", *arguments, before=before, env=env))
        return self.workers[-1]

    def supervise(self):
        """Start workers again whose nanny has ended, as systemd or Kubernetes do."""
        for number, (arguments, before, env) in enumerate(self._how):
            if self.workers[number].poll() is not None:
                self.workers[number] = self._start("dask_worker", *arguments, before=before, env=env)

    def worker_processes(self):
        """The processes that run tasks: the nannies' children, or those of the process that nannies fork from."""
        found = []
        for nanny in self.workers:
            with suppress(psutil.Error):
                found += [p for p in psutil.Process(nanny.pid).children(recursive=True) if _runs_tasks(p)]
        return found

    def kill_scheduler(self):
        self.scheduler.kill()
        self.scheduler.wait()

    def close(self):
        for process in [*self.workers, *([self.scheduler] if self.scheduler else [])]:
            with suppress(psutil.Error):
                for child in psutil.Process(process.pid).children(recursive=True):
                    with suppress(psutil.Error):
                        child.kill()
            process.kill()
            process.wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def _runs_tasks(process):
    with suppress(psutil.Error, AttributeError):  # one that ends meanwhile has no parent
        return "spawn_main" in " ".join(process.cmdline()) or "forkserver" in " ".join(process.parent().cmdline())
    return False


def until(condition, seconds=180, step=0.05):
    """Wait for a condition; fail when it takes too long."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited too long"
        time.sleep(step)
