"""The sets of micrographs: pickcal's own simulation, or a folder that another program made.

Both have two halves of four micrographs of 4096 x 4096 pixels at 1 Å from 0.8 to 2.8 µm, with particles of 150 Å and
blobs of ice: "easy", and "hard" at a fifth of the signal's power.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import starfile
from numpy.typing import NDArray

from pickcal.formats.images import read_stack
from pickcal.formats.mrc import read_header, write_mrc
from pickcal.formats.relion import read_coordinates_star
from pickcal.formats.star import read_star
from pickcal.picking.projection import Volume, even_angles, project
from pickcal.settings import SimulateSettings
from pickcal.simulation import simulate
from pickcal.simulation.writing import make_templates

from .accuracy import Truth

Floats = NDArray[np.floating]

DIAMETER = 150.0
COUNTS = (1, 10, 50, 200)
"""Numbers of templates."""
WEAKER = 5.0
"""How much less power the signal of the hard half has."""
GREY_SCALE = 0.7
"""Of the templates of the hard half against those of the easy one, whose scale is contrast over noise. RELION's figure
of merit depends on it: of 0.3, 0.45, 0.7 and 1 this is what RELION picks the hard half best with."""
KINDS = {"easy": "mic", "hard": "hard"}
"""Halves, and what their files are called in a set from outside."""
SIGNAL = 1.25
OWN = {
    "micrographs": 4,
    "seed": 7,
    "diameter": DIAMETER,
    "pixel_size": 1.0,
    "height": 4096,
    "width": 4096,
    "defocus": (8000.0, 14000.0, 20000.0, 28000.0),
    "astigmatism": 400.0,
    "particles_min": 250,
    "particles_max": 250,
    "empty": 0,
    "crowded": 0,
    "ice_crystals": 0.0,
    "aggregates": 0.0,
    "ice_blobs": 12.0,
    "template_pixel_size": 4.0,
    "templates": 1,
}


@dataclass(frozen=True)
class Half:
    """Four micrographs.

    Attributes
    ----------
    star
        CTF table of RELION.
    files
        The micrographs, in the order of the table.
    truths
        What is on each.
    templates
        Stacks by number of templates, white particles without CTF, in the grey scale that serves RELION.
    """

    star: Path
    files: tuple[Path, ...]
    truths: tuple[Truth, ...]
    templates: Mapping[int, Path]


@dataclass(frozen=True)
class BenchmarkSet:
    """A set.

    Attributes
    ----------
    name
        "own" or "given".
    description
        What it is, in one sentence.
    halves
        "easy" and "hard".
    missing
        Reasons why something is not there.
    """

    name: str
    description: str
    halves: Mapping[str, Half]
    missing: tuple[str, ...] = ()


def own_set(folder: Path) -> BenchmarkSet:
    """Simulate the set, or take it from an earlier run with the same settings."""
    halves = {}
    even = _even_templates(folder)
    for kind in KINDS:
        templates = even if kind == "easy" else _scaled(even, GREY_SCALE, folder)
        settings = SimulateSettings(**{**OWN, "signal": SIGNAL / (1.0 if kind == "easy" else WEAKER**0.5)})
        place = folder / f"own-{kind}"
        stamp = place / "settings.json"
        if not stamp.is_file() or stamp.read_text() != settings.model_dump_json():
            shutil.rmtree(place, ignore_errors=True)
            simulate(place, settings)
            stamp.write_text(settings.model_dump_json())
        contaminants = read_coordinates_star(place / "contaminants.star")
        blobs = contaminants[contaminants["pickcalKind"] == "ice_blob"]
        star = place / "micrographs_ctf.star"
        files = tuple(place / str(name) for name in read_star(star)["micrographs"]["rlnMicrographName"])
        ice = [_points(blobs, file.relative_to(place), settings.pixel_size) for file in files]
        halves[kind] = _half(star, files, place / "truth_particles.star", ice, templates)
    return BenchmarkSet(
        "own",
        "4 micrographs of 4096 x 4096 at 1 Å, 0.8 to 2.8 µm, 250 particles of 150 Å and about 12 blobs of ice each",
        halves,
    )


def given_set(path: Path, work: Path, generator: Path | None) -> BenchmarkSet:
    """Take a set of `mic_0.mrc`, `hard_0.mrc` and so on, `*_ctf.star`, `*_truth.star`, `refs_*.mrcs`, `truth.npz`.

    Parameters
    ----------
    path
        Its folder.
    work
        Where to write templates that the folder lacks.
    generator
        The script that made the set, for its map, of which 200 templates are projected; it is executed.
    """
    with np.load(path / "truth.npz") as known:
        ice = [known[f"con_{i}"][:, 1::-1] for i in range(4)]
    given = {count: path / f"refs_{count}.mrcs" for count in COUNTS if (path / f"refs_{count}.mrcs").is_file()}
    missing = []
    if 200 not in given and generator is not None:
        given[200] = _projected(generator, given[50], work / "refs_200.mrcs")
    elif 200 not in given:
        missing.append("200 templates: the set has none, and no --generator says what its map is")
    halves = {}
    for kind, prefix in KINDS.items():
        templates = given if kind == "easy" else _scaled(given, GREY_SCALE, work)
        files = tuple(path / f"{prefix}_{i}.mrc" for i in range(4))
        halves[kind] = _half(path / f"{prefix}_ctf.star", files, path / f"{prefix}_truth.star", ice, templates)
    return BenchmarkSet(
        "given",
        "4 micrographs of 4096 x 4096 at 1 Å, 0.8 to 2.8 µm, 300 ribosomes of 150 Å and 12 blobs of ice each",
        halves,
        tuple(missing),
    )


def repeated(half: Half, count: int, folder: Path, files: Sequence[Path] | None = None) -> Path:
    """Make a job of `count` micrographs from the four of a half: links `m00000.mrc` in turn, and their CTF table.

    Parameters
    ----------
    half
        Whose micrographs.
    count
        How many.
    folder
        Where; it becomes the project folder that RELION would run in.
    files
        Other images to link to, one for each micrograph of the half, of the same pixel size.

    Returns
    -------
    Path
        The table.
    """
    folder.mkdir(parents=True)
    blocks = dict(read_star(half.star))
    rows = blocks["micrographs"]
    turn = np.arange(count) % len(half.files)
    names = [f"m{i:05d}.mrc" for i in range(count)]
    for name, i in zip(names, turn, strict=True):
        (folder / name).symlink_to(Path((files or half.files)[i]).resolve())
    blocks["micrographs"] = rows.iloc[turn].reset_index(drop=True).assign(rlnMicrographName=names)
    star = folder / "micrographs_ctf.star"
    starfile.write(blocks, star)
    return star


def _half(
    star: Path, files: tuple[Path, ...], truth: Path, ice: Sequence[Floats], templates: Mapping[int, Path]
) -> Half:
    table = read_coordinates_star(truth)
    truths = []
    for file, blobs in zip(files, ice, strict=True):
        header = read_header(file)
        pixel = float(header.pixel_size or 1.0)
        extent = ((header.height - 1) * pixel, (header.width - 1) * pixel)
        names = table["micrograph"].map(lambda name: Path(str(name)).name)
        rows = table[names == file.name]
        truths.append(Truth(rows[["y_px", "x_px"]].to_numpy(dtype=np.float64) * pixel, blobs, extent))
    return Half(star, files, tuple(truths), templates)


def _even_templates(folder: Path) -> dict[int, Path]:
    """Write the templates of our own set: projections along evenly spread directions."""
    stacks = {}
    for count in COUNTS:
        settings = SimulateSettings(**{**OWN, "signal": SIGNAL, "templates": count})
        stacks[count] = folder / f"templates_{count}.mrcs"
        write_mrc(stacks[count], make_templates(settings), settings.template_pixel_size, stack=True)
    return stacks


def _points(table, name: Path, pixel_size: float) -> Floats:
    rows = table[table["micrograph"] == name.as_posix()]
    return rows[["y_px", "x_px"]].to_numpy(dtype=np.float64) * pixel_size


def _scaled(stacks: Mapping[int, Path], factor: float, work: Path) -> dict[int, Path]:
    """Write stacks again in a weaker grey scale."""
    scaled = {}
    for count, path in stacks.items():
        scaled[count] = work / f"weak_{path.name}"
        stack, pixel = read_stack(path)
        write_mrc(scaled[count], stack * np.float32(factor), float(pixel or 1.0), stack=True)
    return scaled


def _projected(generator: Path, like: Path, out: Path) -> Path:
    """Project the map of a set's own script along 200 directions, in the box, pixel and grey scale of `like`."""
    spec = importlib.util.spec_from_file_location("set_generator", generator)
    if spec is None or spec.loader is None:
        raise FileNotFoundError(f"{generator}: expected the script that made the set")
    module = importlib.util.module_from_spec(spec)
    with mock.patch.object(sys, "argv", [str(generator), str(out.parent)]):
        spec.loader.exec_module(module)
    known, pixel = read_stack(like)
    assert pixel is not None
    volume = Volume(np.asarray(module.vol, dtype=np.float32), float(module.VOX))
    stack = np.stack([project(volume, angles, known.shape[-1], pixel) for angles in even_angles(200)])
    stack *= np.abs(known).mean() / np.abs(stack).mean()
    write_mrc(out, stack.astype(np.float32), pixel, stack=True)
    return out
