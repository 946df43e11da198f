"""The particle of a simulation: a procedural model built of helices, or a map from a file.

A model is a set of short rods (as alpha helices are) packed into domains and copied by its symmetry group. It has
one shape at every size: the diameter sets the voxel size.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.spatial import ConvexHull
from scipy.spatial.distance import pdist
from scipy.spatial.transform import Rotation

from pickcal.picking.projection import FloatArray, Volume
from pickcal.settings import SimulateSettings
from pickcal.simulation.maps import load_map

GRID = 96
"""Voxels along each edge of a model's volume."""
ACROSS = 75
"""Voxels along the largest dimension of a model."""
MODEL_DIAMETER = 150.0
"""Size at which the models are built, Å; they are scaled from there."""
RESIDUE_VOLUME = 135.0
"""Å^3 of protein per residue; a helix has one residue per 1.5 Å (Pauling, Corey & Branson 1951)."""
MODEL_SEED = 20
"""The particle is part of the model, so it does not change with the seed of a data set."""


@lru_cache(maxsize=2)
def simulate_particle(settings: SimulateSettings) -> Volume:
    """Make the particle of a data set; kept, so that a process makes it once.

    Parameters
    ----------
    settings
        `particle` and `diameter`, or `map` and `map_pixel_size`; a map keeps its own size.

    Returns
    -------
    Volume
        Density >= 0, about 1 inside the particle, its centre of mass at the volume's centre. Not writable.

    Raises
    ------
    MissingFileError
        If the map is not there.
    InputError
        If it is not a map, has no voxel size or holds no density.
    """
    if settings.map is not None:
        volume = load_map(settings.map, settings.map_pixel_size, settings.pixel_size)
        volume.density.flags.writeable = False
        return volume
    return Volume(_model_density(settings.particle), settings.diameter / ACROSS)


@lru_cache(maxsize=3)
def _model_density(kind: str) -> FloatArray:
    points = {"asymmetric": _asymmetric, "barrel": _barrel, "shell": _shell}[kind]()
    if kind == "asymmetric":
        hull = points[ConvexHull(points).vertices]
        points *= MODEL_DIAMETER / pdist(hull).max()
    density = _rendered(points)
    if kind == "asymmetric":
        density = _rendered(points - _centre_of_mass(density))
    density.flags.writeable = False
    return density


def _rendered(points: FloatArray) -> FloatArray:
    """Sum of Gaussians (sigma 2.4 Å) at the points, as density with a mean of 1 inside the particle."""
    voxel = MODEL_DIAMETER / ACROSS
    places = points[:, ::-1] / voxel + GRID // 2
    low = np.floor(places).astype(int)
    fraction = places - low
    density = np.zeros((GRID,) * 3)
    for corner in np.ndindex(2, 2, 2):
        weight = np.where(np.array(corner) == 1, fraction, 1.0 - fraction).prod(axis=1)
        np.add.at(density, tuple((low + corner).T), weight)
    density = gaussian_filter(density, 2.4 / voxel, mode="constant")
    body = gaussian_filter(density, 8.0 / voxel, mode="constant")
    return np.asarray(density / density[body > 0.4 * body.max()].mean(), dtype=np.float32)


def _centre_of_mass(density: FloatArray) -> FloatArray:
    """Centre of mass from the centre of the volume, `(x, y, z)` in Å at the model's size."""
    axis = (np.arange(GRID) - GRID // 2) * (MODEL_DIAMETER / ACROSS)
    sums = [density.sum(axis=others) for others in ((0, 1), (0, 2), (1, 2))]
    return np.array([(profile * axis).sum() / density.sum() for profile in sums])


def _domain(
    centre: tuple[float, float, float],
    axes: tuple[float, float, float],
    rng: np.random.Generator,
    along: tuple[float, float, float] | None = None,
) -> FloatArray:
    """Points of the helices and loops that fill an ellipsoid of given half axes, Å; `along` lines the helices up."""
    half = np.array(axes)
    residues = 4.0 / 3.0 * np.pi * float(half.prod()) / RESIDUE_VOLUME
    direction = rng.normal(size=(max(1, round(residues / 10)), 3))
    if along is not None:
        direction = np.array(along) + 0.25 * direction
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    steps = np.arange(-10.0, 10.5, 1.5)
    helices = _in_ball(len(direction), rng)[:, None, :] * half + direction[:, None, :] * steps[None, :, None]
    loops = _in_ball(round(1.5 * residues), rng) * half
    points = np.concatenate([helices.reshape(-1, 3), loops])
    inside = ((points / half) ** 2).sum(axis=1) < 1.0
    return np.asarray(points[inside] + np.array(centre))


def _in_ball(count: int, rng: np.random.Generator) -> FloatArray:
    """Points spread evenly over the unit ball, shape `(count, 3)`."""
    points = rng.normal(size=(count, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return np.asarray(points * np.cbrt(rng.uniform(0.0, 1.0, (count, 1))))


def _asymmetric() -> FloatArray:
    """Return a complex of unequal lobes: body, head, arm, foot and a small knob, all of them touching."""
    rng = np.random.default_rng(MODEL_SEED)
    lobes: list[NDArray[np.float64]] = []
    for centre, axes in (
        ((-12.0, 0.0, -12.0), (38.0, 32.0, 30.0)),
        ((-4.0, 8.0, 34.0), (28.0, 24.0, 22.0)),
        ((36.0, -8.0, -18.0), (27.0, 17.0, 17.0)),
        ((-26.0, -30.0, -26.0), (22.0, 22.0, 24.0)),
        ((30.0, 14.0, 22.0), (13.0, 12.0, 18.0)),
        ((-44.0, 16.0, 4.0), (14.0, 12.0, 12.0)),
    ):
        lobes.append(np.asarray(_domain(centre, axes, rng)))
    return np.concatenate(lobes)


def _copied(points: FloatArray, group: str) -> FloatArray:
    operations = Rotation.create_group(group)
    return np.concatenate([operation.apply(points) for operation in operations])


def _barrel() -> FloatArray:
    """Return the 20S proteasome: alpha, beta, beta and alpha rings of seven, 150 x 110 Å, symmetry D7 about z."""
    rng = np.random.default_rng(MODEL_SEED)
    alpha = _domain((36.0, 4.0, 55.0), (19.0, 19.0, 20.0), rng)
    beta = _domain((35.0, -6.0, 18.0), (20.0, 19.0, 19.0), rng)
    return _copied(np.concatenate([alpha, beta]), "D7")


def _shell() -> FloatArray:
    """Return apoferritin: a hollow shell of 24 four-helix bundles, symmetry O; 120 Å outside, scaled to 150 Å."""
    rng = np.random.default_rng(MODEL_SEED)
    outwards = np.array([0.45, 0.12, 0.88])
    outwards /= np.linalg.norm(outwards)
    along = np.cross(outwards, [0.8, 0.6, 0.0])
    along /= np.linalg.norm(along)
    frame = np.stack([along, np.cross(outwards, along), outwards])
    bundle = _domain((0.0, 0.0, 61.0), (32.0, 22.0, 15.0), rng, (1.0, 0.0, 0.0))
    return _copied(bundle @ frame, "O")
