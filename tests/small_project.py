"""A small project with known scores, written without the stages, for the tests of plots, report and dashboard."""

from pathlib import Path

import numpy as np

from pickcal.project import Project
from pickcal.schema import BANK, Status
from pickcal.settings import CalibrateSettings, ImportSettings, SelectSettings, TemplateSettings
from pickcal.stages.calibrate import calibrate as stage
from pickcal.stages.select import select

PIXEL_SIZE = 5.0
HEIGHT, WIDTH = 300, 340
DIAMETER = 150.0
NOISE = 120
PARTICLES = 58
NCC_SLOPE = 0.05
LOG_POWER_SLOPE = 0.4
FAILED_REASON = "Resource temporarily unavailable: the <disk>"


def outlying(micrographs):
    """Index of the micrograph whose particles score too low."""
    return micrographs // 3


def failed(micrographs):
    """Index of the micrograph that could not be picked."""
    return micrographs - 2


def make_project(path: Path, micrographs: int = 12, seed: int = 0, names=None, calibrate: bool = True) -> Project:
    """Write a project with particles whose scores run with defocus by known slopes, noise, and decoys like the noise.

    The last micrograph was skipped on import, the last but one failed in picking, a third of the way one is an
    outlier in NCC. Names are `mics/stack_01.mrc` and so on.
    """
    rng = np.random.default_rng(seed)
    defocus = rng.permutation(np.linspace(8000.0, 28000.0, micrographs))
    project = _import(path, defocus, rng, names)
    settings = TemplateSettings(templates=Path("templates.mrcs"), diameter=DIAMETER).stored()
    bank = {name: np.ones((1,) * len(v.dims), v.dtype) for name, v in BANK.items()}
    size = NOISE + PARTICLES + 20
    project.create_picks("template", size, settings, bank, {"bank": "small", "diameter": DIAMETER})
    for start, stop in project.batches():
        rows = [_pick(i, defocus, size, rng, project) for i in range(start, stop)]
        project.write_batch("picks/template", start, stop, {k: np.stack([row[k] for row in rows]) for k in rows[0]})
    if calibrate:
        add_calibration(project)
        add_selection(project, "strict", SelectSettings(min_ncc=0.3, edge=100.0))
    return project


def add_calibration(project, settings=None):
    """Fit lines and mixture to the picks and store them."""
    stage(project, "template", settings or CalibrateSettings(bootstrap=0))


def add_selection(project, name, settings):
    """Apply thresholds and store the counts."""
    select(project, "template", name, settings)


def _import(path, defocus, rng, names):
    n = len(defocus)
    names = names or [f"mics/stack_{i + 1:02d}.mrc" for i in range(n)]
    text = np.dtypes.StringDType()
    status = np.full(n, Status.DONE, np.int8)
    status[-1] = Status.SKIPPED
    errors = [""] * (n - 1) + ["no defocus in the STAR file"]
    defocus_u = defocus + 100.0
    defocus_u[-1] = np.nan
    columns = {
        "name": np.array(names, text),
        "source": np.array(names, text),
        "pixel_size": np.full(n, PIXEL_SIZE),
        "source_pixel_size": np.full(n, 1.0),
        "height": np.full(n, HEIGHT, np.int32),
        "width": np.full(n, WIDTH, np.int32),
        "source_height": np.full(n, 5 * HEIGHT, np.int32),
        "source_width": np.full(n, 5 * WIDTH, np.int32),
        "defocus_u": defocus_u,
        "defocus_v": defocus - 100.0,
        "voltage": np.full(n, 300.0),
        "spherical_aberration": np.full(n, 2.7),
        "amplitude_contrast": np.full(n, 0.1),
        "ice_thickness": rng.uniform(1.0, 1.4, n),
        "status": status,
        "error": np.array(errors, text),
    }
    sizes = {"micrograph": n, "y": HEIGHT + 8, "x": WIDTH}
    return Project.create(path, sizes, 4, columns, ImportSettings().stored())


def _pick(index, defocus, size, rng, project):
    n = len(defocus)
    if index >= failed(n):
        skipped = index == n - 1
        row = _empty(size)
        row["status"] = np.int8(Status.SKIPPED if skipped else Status.FAILED)
        row["error"] = np.array("not imported" if skipped else FAILED_REASON, np.dtypes.StringDType())
        return row
    um = defocus[index] * 1e-4
    particles = PARTICLES + int(rng.integers(-4, 5))
    shortfall = 0.14 if index == outlying(n) else 0.0
    ncc = np.r_[0.34 + NCC_SLOPE * um - shortfall + 0.025 * rng.standard_normal(particles), _noise(rng)]
    power = np.exp(np.r_[0.3 + LOG_POWER_SLOPE * um + 0.12 * rng.standard_normal(particles), _noise_power(rng)])
    x, y = _positions(rng, particles)
    _draw(project, index, x, y, rng)
    border = DIAMETER / 2
    x = np.r_[x, rng.uniform(border, WIDTH * PIXEL_SIZE - border, NOISE)]
    y = np.r_[y, rng.uniform(border, HEIGHT * PIXEL_SIZE - border, NOISE)]
    order = np.argsort(-ncc)
    row = _empty(size)
    for name, values in (("x", x), ("y", y), ("ncc", ncc), ("power", power)):
        row[name][: len(order)] = values[order]
    decoy_ncc, decoy_power = _noise(rng), np.exp(_noise_power(rng))
    decoys = {
        "x": rng.uniform(border, WIDTH * PIXEL_SIZE - border, NOISE),
        "y": rng.uniform(border, HEIGHT * PIXEL_SIZE - border, NOISE),
        "ncc": decoy_ncc,
        "power": decoy_power,
    }
    for name, values in decoys.items():
        row[f"decoy_{name}"][:NOISE] = values
    row |= {"count": np.int32(len(order)), "decoy_count": np.int32(NOISE), "status": np.int8(Status.DONE)}
    return row


def _noise(rng):
    return np.sort(0.16 + 0.035 * rng.standard_normal(NOISE))[::-1]


def _noise_power(rng):
    return 0.05 + 0.15 * rng.standard_normal(NOISE)


def _empty(size):
    names = ("x", "y", "ncc", "power")
    row = {f"{prefix}{name}": np.full(size, np.nan, np.float32) for prefix in ("", "decoy_") for name in names}
    zero = np.int32(0)
    return row | {"count": zero, "decoy_count": zero, "error": np.array("", np.dtypes.StringDType())}


def _positions(rng, count):
    """Particle centres on a jittered grid, so that discs do not overlap."""
    step = DIAMETER + 10
    xs = np.arange(90.0, WIDTH * PIXEL_SIZE - 80, step)
    ys = np.arange(90.0, HEIGHT * PIXEL_SIZE - 80, step)
    grid = np.array([(x, y) for y in ys for x in xs])
    chosen = grid[rng.permutation(len(grid))[:count]] + rng.uniform(-5, 5, (count, 2))
    return chosen[:, 0], chosen[:, 1]


def _draw(project, index, x, y, rng):
    image = rng.standard_normal((HEIGHT + 8, WIDTH), dtype=np.float32)
    reach = int(0.5 * DIAMETER / PIXEL_SIZE)
    for cx, cy in zip(x / PIXEL_SIZE, y / PIXEL_SIZE, strict=True):
        rows = np.arange(round(cy) - reach, round(cy) + reach + 1)[:, None]
        columns = np.arange(round(cx) - reach, round(cx) + reach + 1)[None, :]
        inside = np.hypot(rows - cy, columns - cx) < 0.4 * DIAMETER / PIXEL_SIZE
        image[rows, columns] -= 0.8 * inside
    image[HEIGHT:] = np.nan
    project._array("micrographs", "image")[index] = image.astype(np.float16)
