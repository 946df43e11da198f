"""Write a simulated data set to disk, the way RELION lays one out."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import pandas as pd
import starfile

from pickcal.engine.executors import Executor, SerialExecutor
from pickcal.errors import InputError, PickcalError
from pickcal.picking.ctf import Ctf
from pickcal.picking.projection import FloatArray, even_angles, project
from pickcal.settings import SimulateSettings
from pickcal.simulation.imaging import PROTEIN_POTENTIAL, interaction, simulate_micrograph
from pickcal.simulation.particles import simulate_particle
from pickcal.simulation.scene import Scene, make_scene, particle_diameter, plan

SETTINGS = "settings.json"
"""Of a data set's folder: what it was simulated with."""


@dataclass(frozen=True)
class SimulatedSet:
    """What `simulate` wrote.

    Attributes
    ----------
    folder
        The data set's folder.
    micrographs, truth, contaminants, templates
        Its `micrographs_ctf.star`, `truth_particles.star`, `contaminants.star` and `templates.mrcs`.
    names
        Micrographs, relative to the folder, in order.
    defocus
        Their mean defocus, Å.
    kinds
        `ordinary`, `empty`, `crowded` or `carbon`.
    particles
        Particles of the truth on each.
    """

    folder: Path
    micrographs: Path
    truth: Path
    contaminants: Path
    templates: Path
    names: tuple[str, ...]
    defocus: tuple[float, ...]
    kinds: tuple[str, ...]
    particles: tuple[int, ...]


def simulate(
    out: Path,
    settings: SimulateSettings,
    executor: Executor | None = None,
    on_done: Callable[[str], None] | None = None,
) -> SimulatedSet:
    """Simulate a data set: the same settings give the same bytes, on any executor.

    Parameters
    ----------
    out
        Folder to write; it must be absent or empty, and reached by all workers under this path.
    settings
        What to simulate.
    executor
        Runs one task per micrograph. Default: in this process.
    on_done
        Called with the name of each micrograph when it is written.

    Returns
    -------
    SimulatedSet
        Files and facts of the data set.

    Raises
    ------
    InputError
        If the folder holds something already, or the settings contradict each other or their map.
    MissingFileError
        If the map of the settings is not there.
    PickcalError
        If micrographs could not be made or written; the message names each and why.
    """
    settings = resolved(settings)
    plan(settings)
    simulate_particle(settings)
    folder = _fresh(out)
    names = tuple(micrograph_name(i) for i in range(settings.micrographs))
    write = functools.partial(write_micrograph, folder, settings)
    failed = []
    for outcome in (executor or SerialExecutor()).run(write, range(settings.micrographs)):
        if outcome.error is not None:
            failed.append(f"{folder / names[outcome.task]}: {outcome.error}")
        elif on_done is not None:
            on_done(names[outcome.task])
    if failed:
        raise PickcalError("micrographs could not be simulated; remove the folder and try again\n" + "\n".join(failed))
    scenes = [make_scene(settings, i) for i in range(settings.micrographs)]
    return _write_tables(folder, settings, names, scenes)


def resolved(settings: SimulateSettings) -> SimulateSettings:
    """Give settings whose map is named in full: workers may run in another folder."""
    return settings if settings.map is None else settings.model_copy(update={"map": settings.map.resolve()})


def simulated_with(folder: Path) -> dict[str, Any] | None:
    """Give the settings that a folder's data set was simulated with; None where it does not tell.

    Raises
    ------
    InputError
        If the file of settings is damaged.
    """
    path = folder / SETTINGS
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: expected the settings of a simulation, found no JSON ({error})") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: expected the settings of a simulation, found {type(found).__name__}")
    return found


def micrograph_name(index: int) -> str:
    """Name of a micrograph relative to the data set's folder, counted from 1 in files."""
    return f"micrographs/mic_{index + 1:04d}.mrc"


def write_micrograph(folder: Path, settings: SimulateSettings, index: int) -> int:
    """Make one micrograph and write it; what a worker does.

    Parameters
    ----------
    folder
        The data set's folder, with `micrographs` in it.
    settings
        Of the data set.
    index
        Of the micrograph, from 0.

    Returns
    -------
    int
        Particles of the truth on it.
    """
    micrograph = simulate_micrograph(settings, index)
    _write_mrc(folder / micrograph_name(index), micrograph.image, settings.pixel_size)
    return len(micrograph.scene.positions)


def make_templates(settings: SimulateSettings) -> FloatArray:
    """Projections of the particle without CTF, white on black, on an even angular grid.

    In the grey scale of RELION's class averages, contrast over the deviation of the noise, which its autopicking needs.

    Parameters
    ----------
    settings
        `templates`, `template_pixel_size` and the particle.

    Returns
    -------
    ndarray
        Contrast in standard deviations of the noise per template pixel, float32, shape `(template, y, x)`, the box
        even and about 1.5 diameters.
    """
    volume = simulate_particle(settings)
    box = 2 * int(np.ceil(0.75 * particle_diameter(settings) / settings.template_pixel_size))
    angles = even_angles(settings.templates)
    contrast = 2.0 * settings.signal * PROTEIN_POTENTIAL * interaction(settings.voltage)
    noise = 1.0 / (np.sqrt(settings.dose) * settings.template_pixel_size)
    projections = np.stack([project(volume, a, box, settings.template_pixel_size) for a in angles])
    return np.asarray(projections * np.float32(contrast / noise))


def _fresh(out: Path) -> Path:
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: expected a folder to write, found a file; give another path")
    if out.is_dir() and any(out.iterdir()):
        raise InputError(f"{out}: expected an empty or new folder, found files in it; remove it or give another path")
    folder = out.resolve()
    (folder / "micrographs").mkdir(parents=True, exist_ok=True)
    return folder


def _write_tables(
    folder: Path, settings: SimulateSettings, names: tuple[str, ...], scenes: list[Scene]
) -> SimulatedSet:
    written = SimulatedSet(
        folder=folder,
        micrographs=folder / "micrographs_ctf.star",
        truth=folder / "truth_particles.star",
        contaminants=folder / "contaminants.star",
        templates=folder / "templates.mrcs",
        names=names,
        defocus=tuple(s.ctf.defocus for s in scenes),
        kinds=tuple(s.kind for s in scenes),
        particles=tuple(len(s.positions) for s in scenes),
    )
    _write_mrc(written.templates, make_templates(settings), settings.template_pixel_size)
    micrographs = pd.DataFrame([_ctf_row(n, s, settings) for n, s in zip(names, scenes, strict=True)])
    listed = pd.DataFrame({"rlnMicrographName": names})
    _write_star(written.contaminants, {"contaminants": _contaminants(names, scenes)})
    _write_star(written.truth, {"particles": _particles(names, scenes), "micrographs": listed})
    (folder / SETTINGS).write_text(json.dumps(settings.stored(), indent=2) + "\n")
    _write_star(written.micrographs, {"optics": _optics(settings), "micrographs": micrographs})
    return written


def _optics(settings: SimulateSettings) -> pd.DataFrame:
    row = {
        "rlnOpticsGroupName": "opticsGroup1",
        "rlnOpticsGroup": 1,
        "rlnMicrographOriginalPixelSize": settings.pixel_size,
        "rlnVoltage": settings.voltage,
        "rlnSphericalAberration": settings.spherical_aberration,
        "rlnAmplitudeContrast": settings.amplitude_contrast,
        "rlnMicrographPixelSize": settings.pixel_size,
    }
    return pd.DataFrame([row])


def _ctf_row(name: str, scene: Scene, settings: SimulateSettings) -> dict[str, object]:
    """One row of micrographs_ctf.star; resolution and figure of merit of the fit are what such ice would give."""
    ctf: Ctf = scene.ctf
    resolution = max(2.0 * settings.pixel_size, 3.0) * (1.0 + 0.25 * max(0.0, scene.ice - 0.8))
    return {
        "rlnMicrographName": name,
        "rlnOpticsGroup": 1,
        "rlnDefocusU": ctf.defocus_u,
        "rlnDefocusV": ctf.defocus_v,
        "rlnCtfAstigmatism": ctf.defocus_u - ctf.defocus_v,
        "rlnDefocusAngle": ctf.defocus_angle,
        "rlnCtfFigureOfMerit": 0.15 / (0.5 + 0.5 * scene.ice),
        "rlnCtfMaxResolution": resolution,
    }


def _particles(names: tuple[str, ...], scenes: list[Scene]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "rlnMicrographName": [n for n, s in zip(names, scenes, strict=True) for _ in range(len(s.positions))],
            "rlnCoordinateX": np.concatenate([s.positions[:, 0] for s in scenes]),
            "rlnCoordinateY": np.concatenate([s.positions[:, 1] for s in scenes]),
            "rlnAngleRot": np.concatenate([s.angles[:, 0] for s in scenes]),
            "rlnAngleTilt": np.concatenate([s.angles[:, 1] for s in scenes]),
            "rlnAnglePsi": np.concatenate([s.angles[:, 2] for s in scenes]),
        }
    )


def _contaminants(names: tuple[str, ...], scenes: list[Scene]) -> pd.DataFrame:
    rows = [(n, c.x, c.y, c.kind, c.radius) for n, s in zip(names, scenes, strict=True) for c in s.contaminants]
    columns = ["rlnMicrographName", "rlnCoordinateX", "rlnCoordinateY", "pickcalKind", "pickcalRadius"]
    return pd.DataFrame(rows, columns=columns)


def _write_star(path: Path, blocks: dict[str, pd.DataFrame]) -> None:
    text = starfile.to_string(blocks, float_format="%.6f")
    # starfile notes the time of day in a comment; without it, equal settings give equal files
    kept = [line for line in text.splitlines() if not line.startswith("#")]
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text("# version 30001\n" + "\n".join(kept).rstrip("\n") + "\n\n", encoding="utf-8")
    partial.replace(path)


def _write_mrc(path: Path, data: FloatArray, pixel_size: float) -> None:
    partial = path.with_name(f".{path.name}.partial")
    with mrcfile.new(partial, overwrite=True) as file:
        file.set_data(np.ascontiguousarray(data, dtype=np.float32))
        if data.ndim == 3:
            file.set_image_stack()
        file.voxel_size = pixel_size
        # mrcfile notes the time of day in the first label
        file.header.label[0] = "Simulated by pickcal".ljust(80)
    partial.replace(path)
