"""Blob banks: discs, rings and ellipses of several sizes.

A disc is the projection of a solid sphere, a ring that of a hollow one, an ellipse that of a spheroid: the diameter
given encloses the particle, as microscopists measure it. The mask is twice as large as the blob, so that the score
compares the blob with its surroundings.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pickcal.picking.bank import Bank, build_bank
from pickcal.picking.filters import Float32, odd_box, soft_disc

ASPECT = 0.7
RING = 0.6
ELLIPSE_STEP = 15.0


def blob_diameters(diameter_min: float, diameter_max: float, sizes: int | None) -> Float32:
    """Diameters to search with, Å, evenly spaced; `sizes` None for 1 (equal diameters) or 3."""
    count = sizes or (1 if diameter_min == diameter_max else 3)
    if count == 1:
        return np.array([0.5 * (diameter_min + diameter_max)], dtype=np.float32)
    return np.linspace(diameter_min, diameter_max, count, dtype=np.float32)


def blob_bank(
    diameters: Float32,
    shapes: Sequence[str],
    pixel_size: float,
    low_pass: float,
    ratio: tuple[int, int] = (1, 1),
) -> Bank:
    """Bank of blobs.

    Parameters
    ----------
    diameters
        Å.
    shapes
        Of "disc", "ring" (hollow to 60 % of its diameter) and "ellipse" (aspect 0.7, every 15 degrees).
    pixel_size
        Å per pixel.
    low_pass
        Å; half of it is the width of the mask's soft edge.
    ratio
        Pixel of the bank over working pixel.

    Returns
    -------
    Bank
        `template` counts shapes x diameters, in this order; discs and rings have angle 0.
    """
    mask_radius = blob_mask_radius(float(diameters.max()))
    box = odd_box(mask_radius, pixel_size)
    mask = soft_disc(box, pixel_size, mask_radius - low_pass / 2, mask_radius)
    entries, index, angles = [], [], []
    template = 0
    for shape in shapes:
        for diameter in diameters:
            turns = np.arange(0, 180, ELLIPSE_STEP) if shape == "ellipse" else np.zeros(1)
            for angle in turns:
                image = _blob(shape, box, pixel_size, float(diameter), float(angle))
                image = (image - (image * mask).sum() / mask.sum()) * mask
                entries.append(image / np.linalg.norm(image))
                index.append(template)
                angles.append(angle)
            template += 1
    return build_bank(
        np.stack(entries).astype(np.float32),
        np.array(index, dtype=np.int32),
        np.array(angles, dtype=np.float32),
        pixel_size,
        mask_radius,
        low_pass / 2,
        ratio,
    )


def blob_mask_radius(diameter: float) -> float:
    """Radius of the mask, Å: twice the area of the disc in which the blob is above half its height.

    A projected sphere falls to half its height at sqrt(3)/2 of its radius.
    """
    return 0.5 * diameter * float(np.sqrt(3) / 2 * np.sqrt(2))


def _blob(shape: str, box: int, pixel_size: float, diameter: float, angle: float) -> Float32:
    """Project a solid sphere, a hollow one or a spheroid; 0 outside."""
    axis = (np.arange(box) - box // 2) * pixel_size
    y, x = np.meshgrid(axis, axis, indexing="ij")
    turn = np.deg2rad(angle)
    stretch = np.sqrt(ASPECT) if shape == "ellipse" else 1.0
    along = (np.cos(turn) * x + np.sin(turn) * y) * stretch
    across = (np.cos(turn) * y - np.sin(turn) * x) / stretch
    square = (along**2 + across**2) / (0.5 * diameter) ** 2
    image = np.sqrt(np.maximum(1 - square, 0))
    if shape == "ring":
        image -= np.sqrt(np.maximum(RING**2 - square, 0))
    return np.asarray(image, dtype=np.float32)
