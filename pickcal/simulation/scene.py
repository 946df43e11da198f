"""What is on each micrograph of a simulated data set, and where: defocus, particles, aggregates, ice, carbon.

Positions are pixels `(x, y)` from the centre of the first stored pixel. Everything follows from the settings and the
micrograph's index alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.spatial import cKDTree

from pickcal.errors import InputError
from pickcal.picking.ctf import Ctf
from pickcal.picking.projection import FloatArray, random_angles
from pickcal.settings import SimulateSettings
from pickcal.simulation.particles import simulate_particle

Kind = Literal["ordinary", "empty", "crowded", "carbon"]

SPACING = 1.05
"""Least distance of two particles, in diameters."""
WHOLE = 0.55
"""Particles of the truth keep this distance from the border, in diameters."""
CUT = 0.3
"""Particles cut by the border have their centres at most this far inside, in diameters."""
TRIES = 40
"""Places tried per place that there could be, before a micrograph counts as full."""


@dataclass(frozen=True)
class Contaminant:
    """Something on a micrograph that is not a particle.

    Attributes
    ----------
    kind
        `ice_crystal`, `ice_blob`, `aggregate`, or `carbon`: the film outside a hole.
    x, y
        Centre of the crystal, the aggregate or the hole, pixels; the centre of a hole may lie outside the image.
    radius
        Of the crystal, the blob (two standard deviations of its thickness), the aggregate or the hole, Å.
    """

    kind: Literal["ice_crystal", "ice_blob", "aggregate", "carbon"]
    x: float
    y: float
    radius: float


@dataclass(frozen=True, eq=False)
class Scene:
    """Contents of one micrograph.

    Attributes
    ----------
    kind
        Which kind of micrograph it is.
    ctf
        Its contrast transfer.
    ice
        Mean ice thickness relative to the nominal one.
    positions, angles
        Particles of the truth: `(x, y)` in pixels and rot, tilt, psi in degrees, shapes `(n, 2)` and `(n, 3)`.
    other_positions, other_angles
        The same of particles that are drawn but not truth: in aggregates, and cut by the border.
    contaminants
        What else there is.
    """

    kind: Kind
    ctf: Ctf
    ice: float
    positions: FloatArray
    angles: FloatArray
    other_positions: FloatArray
    other_angles: FloatArray
    contaminants: tuple[Contaminant, ...]


def generator(settings: SimulateSettings, *key: int) -> np.random.Generator:
    """Random numbers of one purpose, the same in whatever order and process they are drawn."""
    return np.random.default_rng(np.random.SeedSequence((settings.seed, *key)))


def particle_diameter(settings: SimulateSettings) -> float:
    """Diameter that keeps particles apart, Å: the setting's, or what the map needs."""
    if settings.map is None:
        return settings.diameter
    volume = simulate_particle(settings)
    return float((volume.density.shape[0] - 6) * volume.pixel_size)


def plan(settings: SimulateSettings) -> list[tuple[Kind, float]]:
    """Kind and mean defocus of every micrograph.

    Empty, crowded and carbon micrographs lie evenly within the range of defocus; those of lowest and highest defocus
    are ordinary. Below six micrographs none is empty or crowded, below three none shows carbon.

    Parameters
    ----------
    settings
        `micrographs`, `defocus`, `defocus_min`, `defocus_max`, `empty`, `crowded`, `carbon`, `seed`.

    Returns
    -------
    list of (str, float)
        Kind and defocus in Å, by index of the micrograph.

    Raises
    ------
    InputError
        If fewer than two ordinary micrographs would be left.
    """
    count = settings.micrographs
    if settings.defocus:
        defocus = np.array([settings.defocus[i % len(settings.defocus)] for i in range(count)])
    else:
        defocus = np.linspace(settings.defocus_min, settings.defocus_max, count)
        if count == 1:
            defocus[:] = 0.5 * (settings.defocus_min + settings.defocus_max)
        defocus = generator(settings, 0, 0).permutation(defocus)
    kinds: list[Kind] = ["ordinary"] * count
    special = _special(settings)
    order = np.argsort(defocus, kind="stable")
    ranks = np.round(np.linspace(0, count - 1, len(special) + 2)).astype(int)[1:-1]
    for rank, kind in zip(ranks, special, strict=True):
        kinds[order[rank]] = kind
    return [(kind, float(value)) for kind, value in zip(kinds, defocus, strict=True)]


def _special(settings: SimulateSettings) -> list[Kind]:
    """Micrographs that are not ordinary, the kinds in turn."""
    room = settings.micrographs - 2
    if settings.micrographs < 6:
        return ["carbon"] * max(0, min(settings.carbon, room))
    left: dict[Kind, int] = {
        "carbon": settings.carbon,
        "empty": settings.empty,
        "crowded": settings.crowded,
    }
    if sum(left.values()) > room:
        raise InputError(
            f"empty, crowded, carbon: expected at most {room} together for {settings.micrographs} micrographs "
            f"(two must be ordinary), got {sum(left.values())}; lower them or raise micrographs"
        )
    special: list[Kind] = []
    while any(left.values()):
        for kind in left:
            if left[kind]:
                special.append(kind)
                left[kind] -= 1
    return special


def make_scene(settings: SimulateSettings, index: int) -> Scene:
    """Decide what is on one micrograph.

    Parameters
    ----------
    settings
        Of the data set.
    index
        Of the micrograph, from 0.

    Returns
    -------
    Scene
        Its contents.

    Raises
    ------
    InputError
        See `plan`; or the index is not one of the data set.
    """
    if not 0 <= index < settings.micrographs:
        raise InputError(f"index: expected 0 to {settings.micrographs - 1}, got {index}")
    kind, defocus = plan(settings)[index]
    rng = generator(settings, index + 1, 0)
    half = 0.5 * min(rng.uniform(0.2, 1.0) * settings.astigmatism, 0.8 * defocus)
    ctf = Ctf(
        defocus + half,
        defocus - half,
        float(rng.uniform(0.0, 180.0)),
        settings.voltage,
        settings.spherical_aberration,
        settings.amplitude_contrast,
    )
    ice = float(np.clip(1.0 + settings.ice_variation * rng.standard_normal(), 0.3, 2.5))
    contaminants = _contaminants(settings, kind, rng)
    clumps = [_aggregate(settings, c, rng) for c in contaminants if c.kind == "aggregate"]
    whole, cut = _particles(settings, kind, defocus, contaminants, rng)
    others = np.concatenate([cut, *clumps]) if clumps else cut
    return Scene(
        kind, ctf, ice, whole, random_angles(len(whole), rng), others, random_angles(len(others), rng), contaminants
    )


def _contaminants(settings: SimulateSettings, kind: Kind, rng: np.random.Generator) -> tuple[Contaminant, ...]:
    size = np.array([settings.width, settings.height])
    found: list[Contaminant] = []
    if kind == "carbon":
        found.append(_hole(settings, rng))
    crystals, aggregates = rng.poisson(settings.ice_crystals), rng.poisson(settings.aggregates)
    for _ in range(crystals):
        x, y = rng.uniform(0, size)
        found.append(Contaminant("ice_crystal", float(x), float(y), float(rng.uniform(50.0, 200.0))))
    diameter = particle_diameter(settings)
    for _ in range(0 if kind == "empty" else aggregates):
        x, y = rng.uniform(0, size)
        found.append(Contaminant("aggregate", float(x), float(y), float(diameter * rng.uniform(0.9, 1.7))))
    # drawn last, and not at all by default: older seeds keep their scenes
    for _ in range(rng.poisson(settings.ice_blobs) if settings.ice_blobs else 0):
        x, y = rng.uniform(0, size)
        found.append(Contaminant("ice_blob", float(x), float(y), float(rng.uniform(50.0, 160.0))))
    return tuple(found)


def _hole(settings: SimulateSettings, rng: np.random.Generator) -> Contaminant:
    """Place a hole of 1.2 to 1.6 times the image's larger side, its edge cutting off a side or a corner."""
    size = np.array([settings.width, settings.height], dtype=np.float64)
    radius = rng.uniform(0.6, 0.8) * size.max()
    angle = rng.uniform(0.0, 2 * np.pi)
    towards = np.array([np.cos(angle), np.sin(angle)])
    edge = 0.5 * (size - 1) + towards * size.min() * rng.uniform(0.34, 0.44)
    x, y = edge - towards * radius
    return Contaminant("carbon", float(x), float(y), float(radius * settings.pixel_size))


def _aggregate(settings: SimulateSettings, clump: Contaminant, rng: np.random.Generator) -> FloatArray:
    """Centres of the particles of an aggregate: overlapping, within its radius less half a diameter."""
    diameter = particle_diameter(settings)
    reach = clump.radius - 0.5 * diameter
    count = max(3, round(2.2 * (clump.radius / diameter) ** 2 * rng.uniform(2.0, 3.5)))
    angle = rng.uniform(0.0, 2 * np.pi, count)
    distance = reach * np.sqrt(rng.uniform(0.0, 1.0, count)) / settings.pixel_size
    return np.stack([clump.x + distance * np.cos(angle), clump.y + distance * np.sin(angle)], axis=1)


def _particles(
    settings: SimulateSettings,
    kind: Kind,
    defocus: float,
    contaminants: tuple[Contaminant, ...],
    rng: np.random.Generator,
) -> tuple[FloatArray, FloatArray]:
    """Positions of the whole particles (truth) and of those that the border cuts."""
    if kind == "empty":
        return np.empty((0, 2)), np.empty((0, 2))
    diameter = particle_diameter(settings) / settings.pixel_size
    size = np.array([settings.width, settings.height], dtype=np.float64)
    wanted = _wanted(settings, defocus, rng)
    inner = np.clip(size - 1 - 2 * WHOLE * diameter, 0.0, None)
    outer = size - 1 + diameter
    possible = outer.prod() / (SPACING * diameter) ** 2
    share = inner.prod() / outer.prod()
    total = int(possible) + 1 if kind == "crowded" else round(wanted / max(share, 0.05))
    limit = total if kind == "crowded" else wanted
    placed = _packed(-0.5 * diameter, outer, total, limit, settings, contaminants, rng, int(TRIES * possible) + 100)
    margin = np.minimum(placed, size - 1 - placed).min(axis=1)
    whole = placed[margin >= WHOLE * diameter]
    return whole, placed[margin <= CUT * diameter]


def _wanted(settings: SimulateSettings, defocus: float, rng: np.random.Generator) -> int:
    """Whole particles of an ordinary micrograph: at random, or in step with its place in the defocus range."""
    if settings.crowding == "random":
        return int(rng.integers(settings.particles_min, settings.particles_max + 1))
    values = settings.defocus or (settings.defocus_min, settings.defocus_max)
    low, high = min(values), max(values)
    place = (defocus - low) / (high - low) if high > low else 0.5
    return round(settings.particles_min + place * (settings.particles_max - settings.particles_min))


def _packed(
    low: float,
    extent: FloatArray,
    total: int,
    limit: int,
    settings: SimulateSettings,
    contaminants: tuple[Contaminant, ...],
    rng: np.random.Generator,
    tries: int,
) -> FloatArray:
    """Random sequential packing: up to `total` centres, at most `limit` of them whole, none on contaminants."""
    diameter = particle_diameter(settings) / settings.pixel_size
    apart = SPACING * diameter
    size = np.array([settings.width, settings.height])
    placed = np.empty((0, 2))
    whole = 0
    while tries > 0 and len(placed) < total:
        batch = rng.uniform(low, low + extent, (min(tries, 512), 2))
        tries -= len(batch)
        margin = np.minimum(batch, size - 1 - batch).min(axis=1) / diameter
        batch = batch[((margin >= WHOLE) | (margin <= CUT)) & _free(batch, diameter, settings, contaminants)]
        if len(placed) and len(batch):
            batch = batch[cKDTree(placed).query(batch)[0] >= apart]
        chosen: list[FloatArray] = []
        for point in batch:
            inside = np.minimum(point, size - 1 - point).min() >= WHOLE * diameter
            if len(placed) + len(chosen) >= total or (inside and whole >= limit):
                continue
            if all((point[0] - q[0]) ** 2 + (point[1] - q[1]) ** 2 >= apart**2 for q in chosen):
                chosen.append(point)
                whole += int(inside)
        placed = np.concatenate([placed, np.array(chosen).reshape(-1, 2)])
    return placed


def _free(
    points: FloatArray, diameter: float, settings: SimulateSettings, contaminants: tuple[Contaminant, ...]
) -> FloatArray:
    """Whether particles at the points would touch no contaminant."""
    free = np.ones(len(points), dtype=bool)
    for thing in contaminants:
        distance = np.hypot(points[:, 0] - thing.x, points[:, 1] - thing.y)
        radius = thing.radius / settings.pixel_size
        if thing.kind == "carbon":
            free &= distance < radius - 0.65 * diameter
        else:
            free &= distance > radius + 0.55 * diameter
    return free
