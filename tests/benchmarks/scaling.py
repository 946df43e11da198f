"""What a job costs beside its work: python tests/benchmarks/scaling.py FOLDER [--numbers N ...]

Micrographs are 64 x 64 pixels of noise (links to fifty files), so that nearly everything that is measured is overhead.
A Dask scheduler and two workers run as processes of their own; `pickcal import` and `pickcal pick blob` use them as
users do. For every number of micrographs it prints

- CPU ms of the scheduler and of the driver (the `pickcal` process) a micrograph, and the largest memory of both;
- seconds until a first import begins its work, and until a finished one says so;
- seconds until work begins when a job that was killed half-way is started again, and until a finished one says so;
- seconds of `pickcal calibrate` and of an automatic `pickcal select`;
- seconds of `pickcal status` before and after these, the whole command and without the start of Python;
- files and bytes of the project.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))
from handmade import noise, write_mrc, write_star
from lab import Lab

from pickcal.engine.journal import runs
from pickcal.project import Project
from pickcal.stages.status import status

DIFFERENT = 50
BLOBS = ["--diameter-min", "70", "--diameter-max", "70", "--shapes", "disc"]


def micrographs(folder: Path, count: int) -> Path:
    """Write a STAR table of so many micrographs, links to a few files of noise."""
    (folder / "mics").mkdir(parents=True)
    for seed in range(DIFFERENT):
        write_mrc(folder / f"noise{seed}.mrc", noise((64, 64), seed), 5.0)
    names = [f"mics/m{i}.mrc" for i in range(count)]
    for i, name in enumerate(names):
        (folder / name).symlink_to(folder / f"noise{i % DIFFERENT}.mrc")
    return write_star(folder / "micrographs.star", names, 5.0, defocus=8000.0, step=20000.0 / count)


class Watched:
    """A command whose CPU and largest memory are watched, and those of the scheduler meanwhile."""

    def __init__(self, lab: Lab, *words: str | Path, cwd: Path) -> None:
        self.began = time.time()
        command = [sys.executable, "-m", "pickcal", *map(str, words), "--json"]
        self.process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._driver, self._scheduler = psutil.Process(self.process.pid), psutil.Process(lab.scheduler.pid)
        self._before = sum(self._scheduler.cpu_times()[:2])
        self.memory, self.cpu, self.scheduler_memory = 0, 0.0, 0
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while self.process.poll() is None:
            try:
                self.memory = max(self.memory, self._driver.memory_info().rss)
                self.cpu = sum(self._driver.cpu_times()[:2])
            except psutil.Error:
                return
            self.scheduler_memory = max(self.scheduler_memory, self._scheduler.memory_info().rss)
            time.sleep(0.1)

    def result(self) -> dict:
        """Wait for the end; refuse anything but success."""
        out, err = self.process.communicate()
        self.wall = time.time() - self.began
        if self.process.returncode:
            raise RuntimeError(err[-2000:])
        self.scheduler_cpu = sum(self._scheduler.cpu_times()[:2]) - self._before
        return json.loads(out.splitlines()[-1]) if out.strip() else {}


def begun(project: Path, group: str) -> float:
    """When the last run of a group began its work, seconds of the epoch."""
    *_, last = runs(project, group, Project.open(project).group_mark(group))
    return float(next(last)["at"])


def seconds(do, times: int = 3) -> float:
    """Median time of something."""
    spent = []
    for _ in range(times):
        began = time.perf_counter()
        do()
        spent.append(time.perf_counter() - began)
    return statistics.median(spent)


def size(folder: Path) -> tuple[int, int]:
    """Files of a folder and their bytes."""
    files = [entry.stat().st_size for entry in folder.rglob("*") if entry.is_file()]
    return len(files), sum(files)


def measure(folder: Path, count: int) -> dict:
    """One number of micrographs."""
    shutil.rmtree(folder, ignore_errors=True)
    table = micrographs(folder, count)
    project = folder / "p.zarr"
    out: dict = {"micrographs": count}
    with Lab(dict(os.environ), folder=folder) as lab:
        lab.start_scheduler()
        for _ in range(2):
            lab.start_worker("--preload", "pickcal.engine.worker")
        cluster = ("--cluster", lab.address)
        pick = ("pick", "blob", project, *BLOBS, *cluster)
        done = Watched(lab, "import", table, "--project", project, *cluster, cwd=folder)
        done.result()
        out["import"] = figures(done, count)
        out["import_begun_after_s"] = round(begun(project, "micrographs") - done.began, 2)
        nothing = Watched(lab, "import", table, "--project", project, *cluster, cwd=folder)
        assert nothing.result()["ran"] == 0
        out["finished_import_again_s"] = round(nothing.wall, 2)
        first = Watched(lab, *pick, cwd=folder)
        half_way(first, project, count)
        again = Watched(lab, *pick, cwd=folder)
        again.result()
        out["resumed_after_s"] = round(begun(project, "picks/blob") - again.began, 2)
        whole = Watched(lab, *pick, "--name", "whole", cwd=folder)
        whole.result()
        out["pick"] = figures(whole, count)
        nothing = Watched(lab, *pick, cwd=folder)
        assert nothing.result()["ran"] == 0
        out["finished_job_again_s"] = round(nothing.wall, 2)
    files, held = size(project)
    out["files_a_micrograph"], out["bytes_a_micrograph"] = round(files / count, 1), round(held / count)
    out |= status_seconds(project)
    out["calibrate_s"] = round(seconds(lambda: command("calibrate", project, "--picks", "whole"), 1), 1)
    select = ("select", project, "--picks", "whole", "--auto", "--name", "auto")
    out["select_s"] = round(seconds(lambda: command(*select), 1), 1)
    out |= {f"calibrated_{name}": value for name, value in status_seconds(project).items()}
    shutil.rmtree(folder)
    return out


def command(*words: str | Path) -> None:
    """Run a command of pickcal to its end."""
    subprocess.run([sys.executable, "-m", "pickcal", *map(str, words), "--json"], check=True, capture_output=True)


def status_seconds(project: Path) -> dict:
    """Time of a status: of the command, and within a process that has started."""
    return {
        "status_command_s": round(seconds(lambda: command("status", project)), 2),
        "status_s": round(seconds(lambda: status(Project.open(project))), 2),
    }


def half_way(job: Watched, project: Path, count: int) -> None:
    """Kill a job when about half of it is done."""
    events = Path(f"{project}.events")
    while job.process.poll() is None:
        lines = sum(path.read_bytes().count(b'"event": "batch"') for path in events.glob("*picks.blob*.jsonl"))
        if lines * Project.open(project).batch > count / 2:
            job.process.send_signal(signal.SIGKILL)
            break
        time.sleep(0.2)
    job.process.communicate()


def figures(job: Watched, count: int) -> dict:
    """Cost of a stage."""
    return {
        "scheduler_ms_a_micrograph": round(1000 * job.scheduler_cpu / count, 2),
        "driver_ms_a_micrograph": round(1000 * job.cpu / count, 2),
        "driver_memory_MB": round(job.memory / 1e6),
        "scheduler_memory_MB": round(job.scheduler_memory / 1e6),
        "wall_s": round(job.wall, 1),
    }


def main() -> None:
    """Measure all numbers, and print a JSON object for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--numbers", type=int, nargs="+", default=[1000, 10_000, 100_000])
    given = parser.parse_args()
    for count in given.numbers:
        print(json.dumps(measure(given.folder.resolve() / f"scaling-{count}", count)), flush=True)


if __name__ == "__main__":
    main()
