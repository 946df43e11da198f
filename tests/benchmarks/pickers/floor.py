"""The floor: what reading one micrograph and one Fourier transform of its full size cost on this machine."""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np

from .processes import run

REPEATS = 15
SIDE = 4096
ROOT = Path(__file__).resolve().parents[3]


def measure_floor(work: Path) -> dict[str, Any]:
    """Measure in a process of its own, with one thread.

    Returns
    -------
    dict
        CPU seconds, medians of `REPEATS`: `read` of a 4096 x 4096 float32 file that the page cache holds, `fft`, a
        real transform of it by the fastest library installed, `library`, and `floor`, the sum of both.
    """
    path = work / "floor.raw"
    np.random.default_rng(0).standard_normal((SIDE, SIDE), dtype=np.float32).tofile(path)
    try:
        done = run([sys.executable, "-m", "tests.benchmarks.pickers.floor", path.resolve()], ROOT)
    finally:
        path.unlink()
    return dict(json.loads(done.output.splitlines()[-1]))


def _transforms() -> dict[str, Any]:
    """Real transforms of float32 by every library that is installed, single-threaded."""
    from ducc0 import fft as ducc
    from scipy import fft

    spectrum = np.empty((SIDE, SIDE // 2 + 1), dtype=np.complex64)
    found: dict[str, Any] = {
        "scipy": lambda image: fft.rfft2(image, workers=1),
        "ducc0": lambda image: ducc.r2c(image, axes=(0, 1), out=spectrum, nthreads=1),
    }
    try:
        import pyfftw
    except ImportError:
        return found
    buffer = pyfftw.empty_aligned((SIDE, SIDE), dtype="float32")
    plan = pyfftw.builders.rfft2(buffer, threads=1, planner_effort="FFTW_MEASURE")

    def by_fftw(image: np.ndarray) -> np.ndarray:
        buffer[:] = image
        return plan()

    found["pyfftw"] = by_fftw
    return found


def _cpu() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main(path: Path) -> None:
    """Print the medians as JSON."""
    image = np.empty((SIDE, SIDE), dtype=np.float32)
    spent: dict[str, list[float]] = {"read": []}
    transforms = _transforms()
    for _ in range(REPEATS):
        begin = _cpu()
        with path.open("rb", buffering=0) as file:
            file.readinto(memoryview(image).cast("B"))
        spent["read"].append(_cpu() - begin)
        for name, transform in transforms.items():
            begin = _cpu()
            transform(image)
            spent.setdefault(name, []).append(_cpu() - begin)
    medians = {name: float(np.median(values)) for name, values in spent.items()}
    best = min(transforms, key=lambda name: medians[name])
    print(
        json.dumps(
            {"read": medians["read"], "fft": medians[best], "library": best, "floor": medians["read"] + medians[best]}
        )
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
