"""Pick: search every micrograph with a bank of blobs or templates; picks and decoys go to the project."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pickcal.engine.executors import Executor, explain
from pickcal.engine.progress import Reporter
from pickcal.errors import InputError, MissingFileError
from pickcal.formats.images import is_volume, read_stack, read_volume
from pickcal.picking.bank import ENERGY, Bank, bank_from_templates
from pickcal.picking.blobs import blob_bank, blob_diameters
from pickcal.picking.ctf import Ctf, electron_wavelength
from pickcal.picking.filters import RadialFilter, noise_spectrum, whitening_filter
from pickcal.picking.projection import Volume, even_angles
from pickcal.picking.projection import project as project_volume
from pickcal.picking.search import SearchParameters, search
from pickcal.project import Project, check_name, differing
from pickcal.schema import PICKS, Status
from pickcal.settings import BlobSettings, PickSettings, TemplateSettings
from pickcal.stages.batches import StageResult, batches_left, run_batches

PIXEL_TOLERANCE = 0.03
NOISE_SAMPLE = 24
CTF_NAMES = (
    "defocus_u",
    "defocus_v",
    "defocus_angle",
    "voltage",
    "spherical_aberration",
    "amplitude_contrast",
    "phase_shift",
)


@dataclass(frozen=True)
class PickTask:
    """One batch of micrographs to search."""

    project: str
    name: str
    start: int
    stop: int
    bank: str
    parameters: SearchParameters
    ctf: bool
    slots: int


def pick(
    project: Project, name: str, settings: PickSettings, executor: Executor, reporter: Reporter, overwrite: bool = False
) -> StageResult:
    """Search all micrographs of a project, or those that an earlier call with the same settings left.

    Parameters
    ----------
    project
        Opened for writing.
    name
        Name of the picks group.
    settings
        Blobs or templates.
    executor, reporter
        Where tasks run and who is told.
    overwrite
        Replace picks of this name that were made with other settings.

    Raises
    ------
    InputError, ProjectError
        If templates or diameter do not fit, or the name holds picks with other settings.
    """
    check_name("picks", name)
    group = f"picks/{name}"
    identity = _identity(settings)
    there = name in project.names("picks")
    if not there or (overwrite and differing(project.settings(group), identity)):
        _create(project, name, settings, identity, reporter)
    else:
        project.check_same(group, identity, "choose another --name, or give --overwrite to replace these picks")
    parameters = search_parameters(settings)
    stored = project.dataset(group)
    digest, slots = str(stored.attrs["bank"]), int(stored.sizes["pick"])
    tasks = [
        PickTask(str(project.path.absolute()), name, start, stop, digest, parameters, settings.ctf, slots)
        for start, stop in batches_left(project, group)
    ]
    result = run_batches(project, group, f"pick {name}", pick_batch, tasks, executor, reporter)
    capped = int(project.read(group, "capped").sum())
    if capped:
        reporter.note(f"{capped} micrographs had more than {settings.max_picks} picks; the best are kept (--max-picks)")
    return result


def search_parameters(settings: PickSettings) -> SearchParameters:
    """Translate settings for the picking functions."""
    return SearchParameters(
        diameter=settings.diameter,
        diameter_min=settings.diameter_min,
        diameter_max=settings.diameter_max,
        low_pass=settings.low_pass,
        high_pass=settings.high_pass or 3 * settings.diameter_max,
        sign=-1.0 if settings.contrast == "dark" else 1.0,
        min_distance=settings.min_distance * settings.diameter,
        max_picks=settings.max_picks,
    )


def _identity(settings: PickSettings) -> dict[str, Any]:
    """Give settings as they are stored and compared: templates by absolute path and content."""
    out = settings.stored()
    if isinstance(settings, TemplateSettings):
        if not settings.templates.is_file():
            raise MissingFileError(f"{settings.templates}: no such file of templates")
        out["templates"] = str(settings.templates.absolute())
        out["templates_sha256"] = hashlib.sha256(settings.templates.read_bytes()).hexdigest()
    return out


def _create(project: Project, name: str, settings: PickSettings, identity: dict[str, Any], reporter: Reporter) -> None:
    micrographs = project.micrographs()
    usable = micrographs["status"].values == Status.DONE
    if not usable.any():
        raise InputError(f"{project.path}: no micrograph is imported yet; finish 'pickcal import' first")
    pixel_size = float(np.median(micrographs["pixel_size"].values[usable]))
    extent = micrographs["pixel_size"].values * np.minimum(micrographs["height"].values, micrographs["width"].values)
    if settings.diameter_max >= np.max(extent[usable]):
        raise InputError(
            f"diameter: expected less than the micrographs' side of {np.max(extent[usable]):.0f} Å, "
            f"got {settings.diameter_max:g} Å"
        )
    if settings.low_pass < 2 * pixel_size:
        raise InputError(
            f"low_pass: expected at least twice the working pixel of {pixel_size:.3g} Å, got {settings.low_pass:g} Å; "
            "import with a smaller --pixel-size"
        )
    if settings.ctf and not np.isfinite(micrographs["defocus_u"].values[usable]).any():
        raise InputError(f"{project.path}: no micrograph has a defocus; pick with --no-ctf")
    reporter.note(f"preparing the {settings.method} bank")
    bank = make_bank(settings, pixel_size, _ctf_reach(micrographs, settings))
    if bank.energy < ENERGY:
        reporter.note(
            f"the bank's {len(bank.basis)} basis images keep {100 * bank.energy:.1f} % of the templates' energy, "
            f"{100 * ENERGY:g} % is usual: scores are those of slightly smoothed templates"
        )
    whitening = _whitening(project, settings, pixel_size)
    arrays = {
        "basis": bank.basis,
        "coefficients": bank.coefficients,
        "template": bank.template,
        "angle": bank.angle,
        "whitening": np.zeros(0, dtype=np.float32) if whitening is None else whitening.gain,
    }
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays.values())).hexdigest()
    attributes = {
        "bank": digest,
        "bank_pixel_size": bank.pixel_size,
        "bank_mask_radius": bank.mask_radius,
        "bank_mask_edge": bank.mask_edge,
        "bank_energy": bank.energy,
        "whitening_step": 0.0 if whitening is None else whitening.step,
        "diameter": settings.diameter,
    }
    project.remove(f"calibration/{name}")  # a fit of picks that are about to go
    project.create_picks(name, _slots(project, settings), identity, arrays, attributes)


def _whitening(project: Project, settings: PickSettings, pixel_size: float) -> RadialFilter | None:
    """Estimate the noise of the data set from micrographs spread evenly over the defocus range."""
    if not settings.whiten:
        return None
    micrographs = project.micrographs().drop_vars("image").load()
    usable = np.flatnonzero(micrographs["status"].values == Status.DONE)
    usable = usable[np.argsort(micrographs["defocus_u"].values[usable], kind="stable")]
    sample = usable[np.unique(np.linspace(0, len(usable) - 1, NOISE_SAMPLE).round().astype(int))]
    shortest = int(np.minimum(micrographs["height"].values, micrographs["width"].values)[sample].min())
    tile = min(shortest, max(16, round(2 * settings.diameter_max / pixel_size)))
    spectra = [noise_spectrum(project.image(int(i)), pixel_size, settings.low_pass, tile) for i in sample]
    return whitening_filter(spectra, 1.0 / (tile * pixel_size))


def _slots(project: Project, settings: PickSettings) -> int:
    """Most picks that fit a micrograph: no more discs of the least distance can be packed."""
    distance = settings.min_distance * settings.diameter
    micrographs = project.micrographs()
    pixel = micrographs["pixel_size"].values
    sides = [micrographs[name].values * pixel - settings.diameter + distance for name in ("height", "width")]
    fits = np.nanmax(np.maximum(sides[0], 0) * np.maximum(sides[1], 0)) / (np.sqrt(0.75) * distance**2)
    return int(min(settings.max_picks, max(16, np.ceil(fits))))


def _ctf_reach(micrographs: xr.Dataset, settings: PickSettings) -> float:
    """How far the CTF carries signal at the largest defocus and the low-pass, Å (0 without CTF)."""
    if not settings.ctf:
        return 0.0
    defocus, voltage = float(np.nanmax(micrographs["defocus_u"].values)), micrographs["voltage"].values
    wavelength = electron_wavelength(float(np.nanmin(voltage))) if np.isfinite(voltage).any() else 0.0
    return wavelength * defocus / settings.low_pass


def make_bank(settings: PickSettings, pixel_size: float, ctf_reach: float = 0.0) -> Bank:
    """Build the bank that settings ask for, at a working pixel (Å); `ctf_reach` widens the templates' mask (Å)."""
    if isinstance(settings, BlobSettings):
        diameters = blob_diameters(settings.diameter_min, settings.diameter_max, settings.sizes)
        return blob_bank(diameters, settings.shapes, pixel_size, settings.low_pass)
    images, template_pixel = load_templates(settings)
    side = min(images.shape[1:]) * template_pixel
    if side < 0.9 * settings.diameter:
        raise InputError(
            f"{settings.templates}: expected a box of at least the diameter of {settings.diameter:g} Å, "
            f"found {side:.0f} Å ({images.shape[2]} pixels of {template_pixel:g} Å); is the template pixel size right?"
        )
    return bank_from_templates(
        images, template_pixel, pixel_size, settings.diameter, settings.low_pass, settings.rotation_step, ctf_reach
    )


def load_templates(settings: TemplateSettings) -> tuple[NDArray[np.float32], float]:
    """Read 2D templates, or project a 3D map evenly over the sphere.

    Returns
    -------
    images, pixel_size
        float32 `(n, y, x)`, and Å per pixel.
    """
    path = settings.templates
    volume = is_volume(path)
    images, header = read_volume(path) if volume else read_stack(path)
    pixel_size = settings.template_pixel_size or header
    if pixel_size is None:
        raise InputError(f"{path}: no pixel size in the header; give --template-pixel-size in Å")
    if volume:
        # a cap of angular radius `step / 2` covers pi (step / 2)^2 of the sphere's 4 pi
        count = int(np.ceil(16 / np.deg2rad(settings.projection_step) ** 2))
        model = Volume(images.astype(np.float32), pixel_size)
        box = images.shape[0] + images.shape[0] % 2
        images = np.stack([project_volume(model, angles, box, pixel_size) for angles in even_angles(count)])
    constant = [i for i, image in enumerate(images) if np.ptp(image) == 0]
    if len(constant) == len(images):
        raise InputError(f"{path}: every template is constant")
    return np.asarray(images, dtype=np.float32), float(pixel_size)


@lru_cache(maxsize=2)
def _load_bank(path: str, name: str, digest: str) -> tuple[Bank, RadialFilter | None]:
    """Bank of a picks group, once per process; the digest keeps a replaced group from being mistaken for the old."""
    project = Project.open(path)
    attributes = project.dataset(f"picks/{name}").attrs
    arrays = {key: project.read(f"picks/{name}/bank", key) for key in ("basis", "coefficients", "template", "angle")}
    gain = project.read(f"picks/{name}/bank", "whitening")
    whitening = RadialFilter(float(attributes["whitening_step"]), gain) if len(gain) else None
    bank = Bank(
        **arrays,
        pixel_size=float(attributes["bank_pixel_size"]),
        mask_radius=float(attributes["bank_mask_radius"]),
        mask_edge=float(attributes["bank_mask_edge"]),
        energy=float(attributes["bank_energy"]),
    )
    return bank, whitening


def pick_batch(task: PickTask) -> None:
    """Search the micrographs of one batch and write picks, decoys and status."""
    project = Project.open(task.project, mode="r+")
    group = f"picks/{task.name}"
    bank, whitening = _load_bank(task.project, task.name, task.bank)
    values = {name: project.read(group, name, task.start, task.stop) for name in PICKS}
    micrographs = project.micrographs().drop_vars("image").isel(micrograph=slice(task.start, task.stop)).load()
    for i in range(task.stop - task.start):
        if values["status"][i] == Status.DONE:
            continue
        row = micrographs.isel(micrograph=i)
        if row["status"] != Status.DONE:
            values["status"][i] = Status.SKIPPED
            values["error"][i] = f"not imported: {row['error'].item()}"
            continue
        try:
            found = _search_one(project.image(task.start + i), row, bank, whitening, task)
        except Exception as error:
            values["status"][i], values["error"][i] = Status.FAILED, explain(error)
            continue
        for name, column in found.items():
            values[name][i] = column
        values["status"][i], values["error"][i] = Status.DONE, ""
    project.write_batch(group, task.start, task.stop, values)


def _search_one(
    image: NDArray[np.float32], row: xr.Dataset, bank: Bank, whitening: RadialFilter | None, task: PickTask
) -> dict[str, NDArray[Any] | int]:
    pixel_size = float(row["pixel_size"])
    if abs(pixel_size / bank.pixel_size - 1) > PIXEL_TOLERANCE:
        raise InputError(
            f"working pixel {pixel_size:.3g} Å, the other micrographs have {bank.pixel_size:.3g} Å; "
            "import the two kinds into separate projects"
        )
    side = min(image.shape) * pixel_size
    if task.parameters.diameter_max >= side:
        raise InputError(
            f"diameter: expected less than this micrograph's side of {side:.0f} Å, "
            f"got {task.parameters.diameter_max:g} Å"
        )
    ctf = _ctf(row) if task.ctf else None
    picks, decoys = search(image, pixel_size, bank, task.parameters, ctf, whitening)
    slots = task.slots
    out: dict[str, NDArray[Any] | int] = {
        name: _padded(getattr(picks, name), slots, PICKS[name].fill)
        for name in ("x", "y", "ncc", "power", "peak_power", "background", "background_variance", "template", "angle")
    }
    for name in ("x", "y", "ncc", "power"):
        out[f"decoy_{name}"] = _padded(getattr(decoys, name), slots, np.nan)
    out["count"], out["decoy_count"] = min(len(picks.x), slots), min(len(decoys.x), slots)
    out["capped"] = int(picks.capped or len(picks.x) > slots)
    return out


def _ctf(row: xr.Dataset) -> Ctf:
    values = {name: float(row[name].item()) for name in CTF_NAMES}
    for name in ("defocus_angle", "phase_shift"):
        values[name] = float(np.nan_to_num(values[name]))
    missing = [name for name, value in values.items() if not np.isfinite(value)]
    if missing:
        raise InputError(
            f"the CTF needs {', '.join(missing)}, which the table lacks; import anew, or pick with --no-ctf"
        )
    ctf = Ctf(**values)
    if not ctf.defocus > 0:
        raise InputError(f"defocus: expected above 0 Å, got {ctf.defocus:g} Å; import anew, or pick with --no-ctf")
    return ctf


def _padded(values: NDArray[Any], length: int, fill: Any) -> NDArray[Any]:
    out = np.full(length, fill, dtype=values.dtype)
    out[: min(length, len(values))] = values[:length]
    return out
