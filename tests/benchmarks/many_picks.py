"""Make a project of very many picks with known kinds, calibrated and with a first selection, for benchmarks.

python tests/benchmarks/many_picks.py OUT.zarr [--picks 1e6] [--micrographs N] [--images]

Particles, noise and junk have scores that run with defocus, as in tests/planted.py. Batches are written one after the
other, so that a hundred million picks need no more memory than a million. Working images, if wanted, are noise with a
disc at every particle and a darker, larger one at junk.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pickcal.project import Project
from pickcal.schema import BANK, Status
from pickcal.settings import CalibrateSettings, ImportSettings, SelectSettings, TemplateSettings
from pickcal.stages.calibrate import calibrate
from pickcal.stages.select import automatic, select

Floats = NDArray[np.floating]

PICKS = "template"
SELECTION = "auto"
BATCH = 32
PIXEL = 8.0
STEP = 94.0
"""Distance of the places where picks may lie, Å: farther apart than a particle's fringes reach."""
JITTER = 6.0
DIAMETER = 100.0
REFERENCE = 17_500.0
SHARES = (0.55, 0.41, 0.04)
"""Of noise, particles and junk."""
NOISE, PARTICLE, JUNK, NONE = range(4)


@dataclass(frozen=True)
class Layout:
    """How many micrographs of how many picks, on how large a grid of places.

    Attributes
    ----------
    micrographs, picks
        Numbers; picks are per micrograph on average.
    """

    micrographs: int
    picks: int

    @property
    def across(self) -> int:
        """Places along one side of a micrograph."""
        return int(np.ceil(np.sqrt(1.1 * self.picks + 30)))

    @property
    def pixels(self) -> int:
        """Side of a micrograph."""
        return int(np.ceil(self.across * STEP / PIXEL))


def make(path: Path, layout: Layout, images: bool = False, seed: int = 0) -> Project:
    """Write a project of picks that is not calibrated yet.

    Parameters
    ----------
    path
        The project; replaced if it exists.
    layout
        Its size.
    images
        Write working images too, about 0.3 MB per micrograph.
    seed
        Of all random numbers.
    """
    shutil.rmtree(path, ignore_errors=True)
    rng = np.random.default_rng(seed)
    defocus = rng.uniform(6000.0, 29_000.0, layout.micrographs)
    project = _project(path, layout, defocus, images)
    pixels = project._array("micrographs", "image")
    for start, stop in project.batches():
        kinds, values = batch_of(layout, defocus[start:stop], rng)
        project.write_batch(f"picks/{PICKS}", start, stop, values)
        for row in range(stop - start) if images else ():
            pixels[start + row] = image_of(layout, kinds[row], values["x"][row], values["y"][row], rng)
    return project


def _project(path: Path, layout: Layout, defocus: Floats, images: bool) -> Project:
    count = layout.micrographs
    text = np.dtypes.StringDType()
    names = np.array([f"mics/m_{i:06d}.mrc" for i in range(count)], text)
    columns: dict[str, Any] = {
        "name": names,
        "source": names,
        "defocus_u": defocus + 100.0,
        "defocus_v": defocus - 100.0,
        "status": np.full(count, Status.DONE, np.int8),
        "exposure_group": np.ones(count, np.int32),
    }
    sides = {"height": layout.pixels, "width": layout.pixels}
    columns |= {name: np.full(count, n, np.int32) for name, n in sides.items()}
    columns |= {f"source_{name}": np.full(count, 8 * n, np.int32) for name, n in sides.items()}
    optics = {"voltage": 300.0, "spherical_aberration": 2.7, "amplitude_contrast": 0.1}
    columns |= {name: np.full(count, value) for name, value in optics.items()}
    columns |= {"pixel_size": np.full(count, PIXEL), "source_pixel_size": np.full(count, PIXEL / 8)}
    side = layout.pixels if images else 0
    project = Project.create(
        path, {"micrograph": count, "y": side, "x": side}, BATCH, columns, ImportSettings().stored()
    )
    settings = TemplateSettings(templates=Path("templates.mrcs"), diameter=DIAMETER).stored()
    bank = {name: np.ones((1,) * len(v.dims), v.dtype) for name, v in BANK.items()}
    attributes = {"method": "template", "bank": f"many {count} x {layout.picks}", "diameter": DIAMETER}
    project.create_picks(PICKS, layout.across**2, settings, bank, attributes)
    return project


def batch_of(layout: Layout, defocus: Floats, rng: np.random.Generator) -> tuple[NDArray[np.int8], dict[str, Any]]:
    """Draw kinds (0 noise, 1 particle, 2 junk, 3 no pick) and what is stored of the picks of some micrographs.

    Parameters
    ----------
    layout
        Size of the project.
    defocus
        Of these micrographs, Å.
    rng
        Source of random numbers.
    """
    width, rows = layout.across**2, len(defocus)
    um = ((defocus - REFERENCE) * 1e-4)[:, None]
    wanted = rng.poisson(np.array(SHARES) * layout.picks, (rows, 3))
    ends = np.minimum(wanted.cumsum(axis=1), width)
    kinds = (np.arange(width) >= ends[:, :, None]).sum(axis=1).astype(np.int8)
    ncc, power = _scores(kinds, um, _outlying(rows, rng), rng)
    order = np.argsort(-np.where(kinds == NONE, -np.inf, ncc), axis=1)
    kinds = np.take_along_axis(kinds, order, axis=1)
    x, y = _positions(layout, kinds.shape, rng)
    table = {"x": x, "y": y, "ncc": np.take_along_axis(ncc, order, axis=1)}
    table["power"] = np.take_along_axis(power, order, axis=1)
    out: dict[str, Any] = {name: _stored(values, kinds != NONE) for name, values in table.items()}
    out["count"] = ends[:, 2].astype(np.int32)
    out |= _decoys(layout, um, wanted[:, NOISE], rng)
    out["status"] = np.full(rows, Status.DONE, np.int8)
    return kinds, out


def _stored(values: Floats, present: NDArray[np.bool_]) -> NDArray[np.float32]:
    return np.where(present, values, np.nan).astype(np.float32)


def _outlying(rows: int, rng: np.random.Generator) -> Floats:
    """Give how far the scores of particles lie above the trend: a little, but in one of 200 micrographs far below."""
    shift = 0.004 * rng.standard_normal(rows)
    return np.where(rng.random(rows) < 0.005, shift - 0.08, shift)[:, None]


def _scores(kinds: NDArray[np.int8], um: Floats, shift: Floats, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Main score and power; those of noise, particles and junk as `planted.Plan` has them."""
    z = rng.standard_normal(kinds.shape, dtype=np.float32)
    rest = rng.standard_normal(kinds.shape, dtype=np.float32)
    noise, spread = 0.20 + 0.012 * um, 0.03 * np.exp(0.1 * um)
    residual = 0.032 * np.exp(0.15 * um) * z
    particle = kinds == PARTICLE
    ncc = np.where(
        particle, 0.31 + 0.03 * um + shift + residual, noise + np.where(kinds == JUNK, 2.5, 1.0) * spread * z
    )
    log_power = np.where(particle, 0.4 + 0.1 * um + 2.0 * residual + 0.2 * rest, 0.03 * z + 0.15 * rest)
    junk = kinds == JUNK
    log_power[junk] = rng.gamma(3.0, 0.5, int(junk.sum()))
    return ncc, np.exp(log_power)


def _positions(layout: Layout, shape: tuple[int, ...], rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Give every place of the table its own place of the grid, jittered, Å."""
    places = rng.permuted(np.tile(np.arange(shape[1]), (shape[0], 1)), axis=1)
    x, y = (
        (0.5 + along) * STEP + rng.uniform(-JITTER, JITTER, shape)
        for along in (places % layout.across, places // layout.across)
    )
    return x, y


def _decoys(layout: Layout, um: Floats, wanted: NDArray[np.integer], rng: np.random.Generator) -> dict[str, Any]:
    """Draw decoys: as many as there is noise, and like it, best first."""
    shape = (len(um), layout.across**2)
    most = int(min(wanted.max(initial=1) * 1.1 + 20, shape[1]))
    counts = np.minimum(rng.poisson(wanted), most)
    present = np.arange(most) < counts[:, None]
    kinds = np.where(present, NOISE, NONE).astype(np.int8)
    ncc, power = _scores(kinds, um, np.zeros_like(um), rng)
    order = np.argsort(-np.where(present, ncc, -np.inf), axis=1)
    x, y = (rng.uniform(0.0, layout.across * STEP, present.shape) for _ in range(2))
    columns = {"x": x, "y": y, "ncc": ncc, "power": power}
    out: dict[str, Any] = {}
    for name, values in columns.items():
        padded = np.full(shape, np.nan, np.float32)
        padded[:, :most] = _stored(np.take_along_axis(values, order, axis=1), present)
        out[f"decoy_{name}"] = padded
    return {**out, "decoy_count": counts.astype(np.int32)}


def image_of(layout: Layout, kinds: NDArray[np.int8], x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    """Draw noise with a disc at every particle and a larger, darker one at junk, float16 (y, x)."""
    side = layout.pixels
    image = rng.standard_normal((side, side), dtype=np.float32)
    for kind, depth, radius in ((PARTICLE, 0.9, 0.4 * DIAMETER), (JUNK, 2.5, 0.45 * DIAMETER)):
        reach = int(np.ceil(radius / PIXEL))
        down, across = np.mgrid[-reach : reach + 1, -reach : reach + 1]
        inside = np.hypot(down, across) <= radius / PIXEL
        centres = np.round(np.stack([y[kinds == kind], x[kinds == kind]]) / PIXEL).astype(np.intp)
        rows, columns = centres[0][:, None] + down[inside], centres[1][:, None] + across[inside]
        kept = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
        np.subtract.at(image, (rows[kept], columns[kept]), np.float32(depth))
    return ((image - image.mean()) / image.std()).astype(np.float16)


def main() -> None:
    """Make, calibrate and select; say how long each took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--picks", type=float, default=1e6)
    parser.add_argument("--micrographs", type=int, default=None)
    parser.add_argument("--images", action="store_true")
    options = parser.parse_args()
    picks = int(options.picks)
    micrographs = options.micrographs or max(picks // (1000 if picks <= 1_000_000 else 5000), 1)
    started = time.perf_counter()

    def say(what: str) -> None:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(f"{what}: {time.perf_counter() - started:.0f} s, at most {memory:.0f} MB of memory", flush=True)

    project = make(options.out, Layout(micrographs, max(picks // micrographs, 1)), options.images)
    say("written")
    calibrate(project, PICKS, CalibrateSettings())
    say("calibrated")
    select(project, PICKS, SELECTION, automatic(project, PICKS, SelectSettings()))
    say("selected")
    say(f"{options.out} of {int(project.read(f'picks/{PICKS}', 'count').sum())} picks")


if __name__ == "__main__":
    main()
