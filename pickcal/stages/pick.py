"""Pick: search every micrograph with a bank of blobs or templates; picks and decoys go to the project."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pickcal.engine.executors import Executor, explain
from pickcal.engine.laps import begin
from pickcal.engine.one_job import only_job
from pickcal.engine.progress import Reporter
from pickcal.errors import InputError, MissingFileError
from pickcal.formats.images import is_volume, read_stack, read_volume
from pickcal.picking.bank import ENERGY, Bank, bank_from_templates
from pickcal.picking.blobs import blob_bank, blob_diameters
from pickcal.picking.ctf import electron_wavelength
from pickcal.picking.filters import RadialFilter, noise_spectrum, whitening_filter
from pickcal.picking.fourier import Workspace
from pickcal.picking.grid import search_ratio
from pickcal.picking.projection import Volume, even_angles
from pickcal.picking.projection import project as project_volume
from pickcal.project import Project, check_name, differing
from pickcal.schema import PICKS, Status
from pickcal.settings import BlobSettings, PickSettings, TemplateSettings
from pickcal.stages.batches import StageResult, run_batches
from pickcal.stages.history import history, totals
from pickcal.stages.memory import search_memory
from pickcal.stages.search import NEEDED, Search, image_of, load_bank, search_micrograph, search_of
from pickcal.stores.fetching import fetched

NOISE_SAMPLE = 24
"""Most micrographs that the noise spectrum of the data set is estimated from."""
OF_TABLE = ("status", "pixel_size", "height", "width", "defocus_u", "voltage")
"""What bank and whitening depend on of all micrographs."""
Table = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class PickTask:
    """One batch of micrographs to search."""

    search: Search
    start: int
    stop: int


def pick(
    project: Project,
    name: str,
    settings: PickSettings,
    executor: Executor,
    reporter: Reporter,
    overwrite: bool = False,
    again: bool = True,
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
    again
        Try micrographs again that failed; default True.

    Raises
    ------
    InputError, ProjectError
        If templates or diameter do not fit, or the name holds picks with other settings.
    """
    check_name("picks", name)
    with only_job(project.path, f"picks/{name}"):
        return _pick(project, name, settings, executor, reporter, overwrite, again)


def _pick(
    project: Project,
    name: str,
    settings: PickSettings,
    executor: Executor,
    reporter: Reporter,
    overwrite: bool,
    again: bool,
) -> StageResult:
    group = f"picks/{name}"
    identity = identity_of(settings)
    there = name in project.names("picks")
    if not there or (overwrite and differing(project.settings(group), identity)):
        _create(project, name, settings, identity, reporter)
    else:
        project.check_same(group, identity, "choose another --name, or give --overwrite to replace these picks")
    made = search_of(project, name, settings)
    task_of = partial(PickTask, made)
    memory = search_memory(project, name)
    result = run_batches(project, group, f"pick {name}", pick_batch, task_of, executor, reporter, memory, again)
    capped = totals(project, group, history(project, group), {"capped": "capped"})["capped"]
    if capped:
        reporter.note(f"{capped} micrographs had more than {settings.max_picks} picks; the best are kept (--max-picks)")
    return result


def identity_of(settings: PickSettings) -> dict[str, Any]:
    """Give settings as they are stored and compared: templates by absolute path and content."""
    out = settings.stored()
    if isinstance(settings, TemplateSettings):
        with fetched(settings.templates) as path:
            if not path.is_file():
                raise MissingFileError(f"{settings.templates}: no such file of templates")
            out["templates_sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        out["templates"] = str(settings.templates.absolute())
    return out


def _create(project: Project, name: str, settings: PickSettings, identity: dict[str, Any], reporter: Reporter) -> None:
    project.require_images("picking")
    arrays, attributes = stored_bank(project, settings, reporter)
    project.remove(f"calibration/{name}")  # a fit of picks that are about to go
    project.create_picks(name, _slots(project, settings), identity, arrays, attributes)


def stored_bank(
    project: Project, settings: PickSettings, reporter: Reporter
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """Make bank and whitening filter for a project, as arrays of `schema.BANK` and attributes of a picks group.

    Raises
    ------
    InputError
        If diameter, low-pass, templates or CTF do not suit the micrographs, or none is imported.
    """
    micrographs = project.read_rows("micrographs", OF_TABLE, 0, project.count)
    pixel_size = _suited_pixel(project, micrographs, settings)
    reporter.note(f"preparing the {settings.method} bank")
    bank = make_bank(settings, pixel_size, _ctf_reach(micrographs, settings))
    if bank.energy < ENERGY:
        reporter.note(
            f"the bank's {len(bank.basis)} basis images keep {100 * bank.energy:.1f} % of the templates' energy, "
            f"{100 * ENERGY:g} % is usual: scores are those of slightly smoothed templates"
        )
    whitening = _whitening(project, micrographs, settings, pixel_size)
    arrays: dict[str, NDArray[Any]] = {
        "basis": bank.basis,
        "coefficients": bank.coefficients,
        "template": bank.template,
        "angle": bank.angle,
        "group": np.zeros(0, dtype=np.int32) if bank.group is None else bank.group,
        "turned": np.zeros(0, dtype=np.int8) if bank.turned is None else bank.turned.astype(np.int8),
        "whitening": np.zeros(0, dtype=np.float32) if whitening is None else whitening.gain,
    }
    digest = hashlib.sha256(b"".join(np.ascontiguousarray(a).tobytes() for a in arrays.values())).hexdigest()
    return arrays, {
        "bank": digest,
        "bank_pixel_size": bank.pixel_size,
        "bank_mask_radius": bank.mask_radius,
        "bank_mask_edge": bank.mask_edge,
        "bank_energy": bank.energy,
        "bank_ratio": list(bank.ratio),
        "bank_odd": bank.odd,
        "bank_pairs": bank.pairs,
        "whitening_step": 0.0 if whitening is None else whitening.step,
        "diameter": settings.diameter,
    }


def _suited_pixel(project: Project, micrographs: Table, settings: PickSettings) -> float:
    """Give the working pixel of the imported micrographs, Å, once it is sure that the settings suit them."""
    done = micrographs["status"] == Status.DONE
    usable = {name: values[done] for name, values in micrographs.items()}
    if not done.any():
        raise InputError(f"{project.path}: no micrograph is imported yet; finish 'pickcal import' first")
    pixel_size = float(np.median(usable["pixel_size"]))
    side = np.max(usable["pixel_size"] * np.minimum(usable["height"], usable["width"]))
    if settings.diameter_max >= side:
        raise InputError(
            f"diameter: expected less than the micrographs' side of {side:.0f} Å, got {settings.diameter_max:g} Å"
        )
    if settings.low_pass < 2 * pixel_size:
        raise InputError(
            f"low_pass: expected at least twice the working pixel of {pixel_size:.3g} Å, got {settings.low_pass:g} Å; "
            "import with a smaller --pixel-size"
        )
    if settings.ctf and not np.isfinite(usable["defocus_u"]).any():
        raise InputError(f"{project.path}: no micrograph has a defocus; leave it out with --no-ctf")
    return pixel_size


def _whitening(project: Project, micrographs: Table, settings: PickSettings, pixel_size: float) -> RadialFilter | None:
    """Estimate the noise of the data set from micrographs spread evenly over the defocus range."""
    if not settings.whiten:
        return None
    usable = np.flatnonzero(micrographs["status"] == Status.DONE)
    usable = usable[np.argsort(micrographs["defocus_u"][usable], kind="stable")]
    sample = usable[np.unique(np.linspace(0, len(usable) - 1, NOISE_SAMPLE).round().astype(int))]
    shortest = int(np.minimum(micrographs["height"], micrographs["width"])[sample].min())
    tile = min(shortest, max(16, round(2 * settings.diameter_max / pixel_size)))
    spectra = [noise_spectrum(project.image(int(i)), pixel_size, settings.low_pass, tile) for i in sample]
    return whitening_filter(spectra, 1.0 / (tile * pixel_size))


def _slots(project: Project, settings: PickSettings) -> int:
    """Most picks that fit a micrograph: no more discs of the least distance can be packed."""
    distance = settings.min_distance * settings.diameter
    micrographs = project.read_rows("micrographs", ("pixel_size", "height", "width"), 0, project.count)
    pixel = micrographs["pixel_size"]
    sides = [micrographs[name] * pixel - settings.diameter + distance for name in ("height", "width")]
    fits = np.nanmax(np.maximum(sides[0], 0) * np.maximum(sides[1], 0)) / (np.sqrt(0.75) * distance**2)
    return int(min(settings.max_picks, max(16, np.ceil(fits))))


def _ctf_reach(micrographs: Table, settings: PickSettings) -> float:
    """How far the CTF carries signal at the largest defocus and the low-pass, Å (0 without CTF)."""
    if not settings.ctf:
        return 0.0
    defocus, voltage = float(np.nanmax(micrographs["defocus_u"])), micrographs["voltage"]
    wavelength = electron_wavelength(float(np.nanmin(voltage))) if np.isfinite(voltage).any() else 0.0
    return wavelength * defocus / settings.low_pass


def make_bank(settings: PickSettings, pixel_size: float, ctf_reach: float = 0.0) -> Bank:
    """Build the bank that settings ask for, for a working pixel (Å); `ctf_reach` widens the templates' mask (Å)."""
    ratio = search_ratio(pixel_size, settings.low_pass)
    step = pixel_size * ratio[0] / ratio[1]
    if isinstance(settings, BlobSettings):
        diameters = blob_diameters(settings.diameter_min, settings.diameter_max, settings.sizes)
        return blob_bank(diameters, settings.shapes, step, settings.low_pass, ratio)
    images, template_pixel = load_templates(settings)
    side = min(images.shape[1:]) * template_pixel
    if side < 0.9 * settings.diameter:
        raise InputError(
            f"{settings.templates}: expected a box of at least the diameter of {settings.diameter:g} Å, "
            f"found {side:.0f} Å ({images.shape[2]} pixels of {template_pixel:g} Å); is the template pixel size right?"
        )
    return bank_from_templates(
        images,
        template_pixel,
        step,
        settings.diameter,
        settings.low_pass,
        settings.rotation_step,
        ctf_reach,
        ratio,
    )


def load_templates(settings: TemplateSettings) -> tuple[NDArray[np.float32], float]:
    """Read 2D templates, or project a 3D map evenly over the sphere.

    Returns
    -------
    images, pixel_size
        float32 `(n, y, x)`, and Å per pixel.

    Raises
    ------
    MissingFileError, InputError
        If the file is not there or cannot be read, no pixel size is known, or all templates are constant.
    """
    path = settings.templates
    with fetched(path) as file:
        volume = is_volume(file)
        images, header = read_volume(file) if volume else read_stack(file)
    pixel_size = settings.template_pixel_size or header
    if pixel_size is None:
        raise InputError(f"{path}: no pixel size in the header; give --template-pixel-size in Å")
    if volume:
        # a cap of angular radius `step / 2` covers pi (step / 2)^2 of the sphere's 4 pi
        count = int(np.ceil(16 / np.deg2rad(settings.projection_step) ** 2))
        model = Volume(images.astype(np.float32), pixel_size)
        box = images.shape[0] + images.shape[0] % 2
        images = np.stack([project_volume(model, angles, box, pixel_size) for angles in even_angles(count)])
    if all(np.ptp(image) == 0 for image in images):
        raise InputError(f"{path}: every template is constant")
    return np.asarray(images, dtype=np.float32), float(pixel_size)


def totals_of(values: Mapping[str, NDArray[Any]]) -> dict[str, int]:
    """Sum up what the record of a batch tells: picks, decoys, micrographs that had more picks than are kept."""
    columns = {"picks": "count", "decoys": "decoy_count", "capped": "capped"}
    return {name: int(values[column].sum()) for name, column in columns.items()}


def pick_batch(task: PickTask) -> dict[str, int]:
    """Search the micrographs of one batch and write picks, decoys and status; return the sums of `totals_of`."""
    project = Project.open(task.search.project, mode="r+", whole=True)
    group = f"picks/{task.search.name}"
    bank, whitening = load_bank(task.search)
    values = {name: project.read(group, name, task.start, task.stop) for name in PICKS}
    micrographs = project.micrographs()[[*NEEDED]].isel(micrograph=slice(task.start, task.stop)).load()
    workspace = Workspace()
    for i in range(task.stop - task.start):
        if values["status"][i] == Status.DONE:
            continue
        begin(task.start + i)
        row = micrographs.isel(micrograph=i)
        if row["status"].item() != Status.DONE:
            values["status"][i] = Status.SKIPPED
            values["error"][i] = f"not imported: {row['error'].item()}"
            continue
        try:
            image = image_of(project, task.start + i, row)
            found = search_micrograph(image, row, bank, whitening, task.search, workspace)
        except Exception as error:
            values["status"][i], values["error"][i] = Status.FAILED, explain(error)
            continue
        for name, column in found.items():
            values[name][i] = column
        values["status"][i], values["error"][i] = Status.DONE, ""
    project.write_batch(group, task.start, task.stop, values)
    return totals_of(values)
