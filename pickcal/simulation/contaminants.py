"""How ice crystals, blobs of ice and carbon film look: the phase they give to the wave and the electrons lost."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import gaussian_filter

from pickcal.picking.projection import FloatArray
from pickcal.settings import SimulateSettings
from pickcal.simulation.scene import Contaminant, Scene

CARBON_LOSS = 0.22
"""Part of the electrons that the carbon film takes away, as an exponent."""
CARBON_PHASE = 0.25
"""Phase of the step at the carbon's edge, rad."""
CRYSTAL_PHASE = 0.45
"""Mean phase of an ice crystal, rad."""
BLOB_PHASE = (0.3, 0.9)
"""Range of the phase in the middle of a blob of ice, rad: three to nine times a 150 Å particle's."""
LOSS_PER_PHASE = 0.35 / CRYSTAL_PHASE
"""Exponent of the electrons lost in ice, per rad of its phase."""


def draw_contaminants(
    settings: SimulateSettings, scene: Scene, shape: tuple[int, int], pad: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Draw ice crystals and carbon; aggregates are drawn with the particles.

    Parameters
    ----------
    settings
        Of the data set.
    scene
        What is on the micrograph.
    shape, pad
        Shape `(y, x)` of the canvas and its margin around the image, pixels.
    rng
        Source of shapes and inner structure.

    Returns
    -------
    phase
        rad, float32, of the canvas's shape.
    loss
        Minus the logarithm of the part of the electrons that get through, float32.
    film
        1 on carbon, 0 in the hole, soft at its edge, float32.
    """
    phase = np.zeros(shape, dtype=np.float32)
    loss = np.zeros(shape, dtype=np.float32)
    film = np.zeros(shape, dtype=np.float32)
    for thing in scene.contaminants:
        if thing.kind == "ice_crystal":
            _add_crystal(phase, loss, thing, settings.pixel_size, pad, rng)
        elif thing.kind == "ice_blob":
            _add_blob(phase, loss, thing, settings.pixel_size, pad, rng)
        elif thing.kind == "carbon":
            np.maximum(film, _film(thing, shape, settings.pixel_size, pad, rng), out=film)
    if film.any():
        phase += np.float32(CARBON_PHASE) * film
        loss += np.float32(CARBON_LOSS) * film
    return phase, loss, film


def _film(
    hole: Contaminant, shape: tuple[int, int], pixel_size: float, pad: int, rng: np.random.Generator
) -> FloatArray:
    """Carbon beyond a circle whose rim wavers by about 25 Å over 300 Å and more."""
    y = (np.arange(shape[0], dtype=np.float32)[:, None] - np.float32(hole.y + pad)) * np.float32(pixel_size)
    x = (np.arange(shape[1], dtype=np.float32)[None, :] - np.float32(hole.x + pad)) * np.float32(pixel_size)
    circle = np.linspace(-np.pi, np.pi, 4097)
    highest = int(np.clip(2 * np.pi * hole.radius / 300.0, 8, 400))
    rim = np.full(circle.size, hole.radius)
    for wave in range(3, highest):
        size = 25.0 * np.sqrt(8.0 / (8.0 + wave)) / np.sqrt(highest)
        rim += 1.4 * size * np.cos(wave * circle + rng.uniform(0.0, 2 * np.pi))
    rim_here = np.interp(np.arctan2(y, x).ravel(), circle, rim).reshape(shape)
    return np.asarray(np.clip((np.hypot(x, y) - rim_here) / 12.0 + 0.5, 0.0, 1.0), dtype=np.float32)


def _add_crystal(
    phase: FloatArray,
    loss: FloatArray,
    crystal: Contaminant,
    pixel_size: float,
    pad: int,
    rng: np.random.Generator,
) -> None:
    """Add a faceted polygon of uneven thickness with bend contours and a grainy inside."""
    half = int(np.ceil(crystal.radius / pixel_size)) + 4
    left, top = int(np.floor(crystal.x)) + pad - half, int(np.floor(crystal.y)) + pad - half
    x = (np.arange(left, left + 2 * half + 1)[None, :] - (crystal.x + pad)) * pixel_size
    y = (np.arange(top, top + 2 * half + 1)[:, None] - (crystal.y + pad)) * pixel_size
    thickness = _polygon(x, y, crystal.radius, rng)
    grain = gaussian_filter(rng.standard_normal(thickness.shape), 6.0 / pixel_size)
    turn, period = rng.uniform(0.0, np.pi), rng.uniform(35.0, 80.0)
    bent = x * np.cos(turn) + y * np.sin(turn) + 0.2 * grain / grain.std() * period * 0.3
    inside = 1.0 + 0.25 * np.cos(2 * np.pi * bent / period) + 0.15 * grain / grain.std()
    body = CRYSTAL_PHASE * rng.uniform(0.7, 1.4) * thickness * np.clip(inside, 0.2, None)
    _add(phase, loss, body.astype(np.float32), left, top)


def _add_blob(
    phase: FloatArray, loss: FloatArray, blob: Contaminant, pixel_size: float, pad: int, rng: np.random.Generator
) -> None:
    """Add a Gaussian bump, up to 1.4 times as long as wide."""
    sigma = 0.5 * blob.radius / pixel_size
    half = int(np.ceil(4 * sigma))
    left, top = int(np.floor(blob.x)) + pad - half, int(np.floor(blob.y)) + pad - half
    x = np.arange(left, left + 2 * half + 1)[None, :] - (blob.x + pad)
    y = np.arange(top, top + 2 * half + 1)[:, None] - (blob.y + pad)
    turn, stretch = rng.uniform(0.0, np.pi), rng.uniform(1.0, 1.4)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    body = rng.uniform(*BLOB_PHASE) * np.exp(-0.5 * (along**2 / stretch + across**2 * stretch) / sigma**2)
    _add(phase, loss, body.astype(np.float32), left, top)


def _add(phase: FloatArray, loss: FloatArray, body: FloatArray, left: int, top: int) -> None:
    """Add the phase of a piece of ice, and the electrons it takes away, where it lies on the canvas."""
    side = len(body)
    rows, columns = phase.shape
    target = slice(max(0, top), max(0, min(rows, top + side))), slice(max(0, left), max(0, min(columns, left + side)))
    source = (
        slice(target[0].start - top, target[0].stop - top),
        slice(target[1].start - left, target[1].stop - left),
    )
    phase[target] += body[source]
    loss[target] += np.float32(LOSS_PER_PHASE) * body[source]


def _polygon(x: FloatArray, y: FloatArray, radius: float, rng: np.random.Generator) -> FloatArray:
    """Relative thickness of a convex crystal of five to seven sides within `radius`, sharp at its rim."""
    sides = int(rng.integers(5, 8))
    normals = (np.arange(sides) + rng.uniform(-0.25, 0.25, sides)) * 2 * np.pi / sides + rng.uniform(0, 2 * np.pi)
    depth = np.full(np.broadcast_shapes(x.shape, y.shape), np.inf)
    for normal in normals:
        distance = radius * rng.uniform(0.6, 0.85)
        depth = np.minimum(depth, distance - x * np.cos(normal) - y * np.sin(normal))
    depth = np.minimum(depth, radius - np.hypot(x, y))
    rim = np.clip(depth / 8.0 + 0.5, 0.0, 1.0)
    return np.asarray(rim * (0.6 + 0.4 * np.clip(depth / (0.4 * radius), 0.0, 1.0)))
