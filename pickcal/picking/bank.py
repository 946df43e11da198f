"""Template bank: every template in every rotation, compressed to a few basis images.

A rotated bank is highly redundant. Its singular vectors serve as basis: the micrograph is correlated with those
alone, and the scores of all templates are linear combinations of the responses. A template turned by half a turn is
its mirror image through the centre: the basis is made of images that are the same or the opposite after half a turn,
and both scores follow from the sums over either kind.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import scipy.fft as sf
import scipy.linalg as sl
from numpy.typing import NDArray
from scipy import ndimage
from scipy.sparse.linalg import svds

from pickcal.errors import InputError
from pickcal.picking.filters import Float32, band_pass, odd_box, soft_disc
from pickcal.picking.groups import grouped

ENERGY = 0.999
LARGEST_BASIS = 200
DENSE_LIMIT = 2500
MASK_EDGE = 0.5
ASYMMETRY = 1e-3
"""How far, of the largest value of the basis, rounding may keep images from being even or odd."""


@dataclass(frozen=True, eq=False)
class Bank:
    """Compressed templates at the pixel of the search grid, `ratio` times the working pixel.

    Attributes
    ----------
    basis
        float32 `(k, b, b)`, b odd; the central pixel is the particle's centre. Half a turn about it leaves all images
        but the last `odd` as they are.
    coefficients
        float32 `(n, k)`: entry n is `coefficients[n] @ basis`.
    template
        int32 `(n,)`, index of the template (or blob) of each entry.
    angle
        float32 `(n,)`, in-plane rotation of each entry, degrees, from the x axis towards the y axis of the array.
    pixel_size
        Å per pixel.
    mask_radius, mask_edge
        Outer radius of the mask in which the Pearson correlation is taken, and the width over which it falls, Å.
    energy
        Share of the entries' energy that the basis keeps, in [0, 1].
    ratio
        Pixel of the bank over working pixel, numerator and denominator. Default (1, 1).
    odd
        Basis images, the last ones, that half a turn changes into their opposite. Default 0.
    pairs
        Entry `pairs + i` is entry i turned by half a turn, for i below `pairs`. Default 0: no entry has a partner.
    group
        int32 `(h,)`: groups of alike entries, counted from 0; h is `half`. A partner belongs to the group of its
        entry. Default: no groups, every entry is looked at.
    turned
        bool `(h,)`: whether it is the entry's partner that resembles the group.

    Raises
    ------
    InputError
        If half a turn does something else to an image of the basis: scores would be wrong.
    """

    basis: Float32
    coefficients: Float32
    template: NDArray[np.int32]
    angle: Float32
    pixel_size: float
    mask_radius: float
    mask_edge: float
    energy: float
    ratio: tuple[int, int] = (1, 1)
    odd: int = 0
    pairs: int = 0
    group: NDArray[np.int32] | None = None
    turned: NDArray[np.bool_] | None = None

    def __post_init__(self) -> None:
        """Refuse a basis that scores cannot be made of."""
        is_odd = np.arange(len(self.basis)) >= len(self.basis) - self.odd
        sign = np.where(is_odd, np.float32(-1), np.float32(1))[:, None, None]
        wrong = np.abs(self.basis - sign * self.basis[:, ::-1, ::-1]).max(axis=(1, 2), initial=0.0)
        if (found := np.flatnonzero(wrong > ASYMMETRY * np.abs(self.basis).max(initial=0.0))).size:
            raise InputError(
                f"bank: expected basis images that half a turn leaves as they are, but for the last {self.odd}, whose "
                f"sign it changes; found that image {found[0]} is neither. `bank_from_templates` makes them so"
            )

    @property
    def half(self) -> int:
        """Entries without the partners of others."""
        return self.pairs or len(self.coefficients)

    def step(self) -> float:
        """Angle between neighbouring rotations of a template, degrees; 0 where none has two neighbours."""
        return _rotations(self)[1]

    def neighbours(self) -> NDArray[np.intp]:
        """Entries of the same template one step of rotation below and above each entry, `(n, 2)`; -1 for none."""
        return _rotations(self)[0]

    def mask(self) -> Float32:
        """Weights of the Pearson correlation, float32 `(b, b)`."""
        return soft_disc(self.basis.shape[-1], self.pixel_size, self.mask_radius - self.mask_edge, self.mask_radius)


def compress(entries: Float32, energy: float = ENERGY, largest: int = LARGEST_BASIS) -> tuple[Float32, Float32, float]:
    """Basis and coefficients of a stack of images by truncated singular value decomposition.

    Parameters
    ----------
    entries
        float32 `(n, b, b)`.
    energy
        Share of the total energy to keep, default 0.999.
    largest
        Most basis images, default 200.

    Returns
    -------
    basis, coefficients, kept
        float32 `(k, b, b)`, float32 `(n, k)` and the share of energy kept.
    """
    flat = entries.reshape(len(entries), -1)
    total = max(float(np.einsum("ij,ij->", flat, flat, dtype=np.float64)), 1e-30)
    small = min(flat.shape)
    if small <= DENSE_LIMIT:
        if flat.shape[0] >= flat.shape[1]:
            values, vectors = sl.eigh(flat.T @ flat)
            vectors = vectors[:, ::-1].T
        else:
            values, left = sl.eigh(flat @ flat.T)
            left = left[:, ::-1]
            vectors = left.T @ flat
            vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        values = np.maximum(values[::-1], 0)
    else:
        start = np.ones(small, dtype=np.float32)
        _, singular, vectors = svds(flat, k=min(largest, small - 1), v0=start, tol=1e-4)
        values, vectors = singular[::-1] ** 2, vectors[::-1]
    share = np.cumsum(values.astype(np.float64)) / total
    keep = min(int(np.searchsorted(share, energy)) + 1, largest, len(vectors))
    basis = np.ascontiguousarray(vectors[:keep], dtype=np.float32)
    return basis.reshape(keep, *entries.shape[1:]), flat @ basis.T, float(min(share[keep - 1], 1.0))


def build_bank(
    entries: Float32,
    template: NDArray[np.int32],
    angle: Float32,
    pixel_size: float,
    mask_radius: float,
    mask_edge: float,
    ratio: tuple[int, int] = (1, 1),
) -> Bank:
    """Compress entries that already have the bank's pixel and an odd box, and of which none is another's half-turn."""
    basis, coefficients, kept = compress(entries)
    return Bank(basis, coefficients, template, angle, pixel_size, mask_radius, mask_edge, kept, ratio)


def bank_from_templates(
    templates: Float32,
    template_pixel_size: float,
    pixel_size: float,
    diameter: float,
    low_pass: float,
    rotation_step: float,
    ctf_reach: float = 0.0,
    ratio: tuple[int, int] = (1, 1),
) -> Bank:
    """Rotate 2D templates in the plane, bring them to the bank's pixel and compress them.

    Each template is low-passed, set to mean 0 and norm 1 within the mask: its grey scale does not matter.

    Parameters
    ----------
    templates
        float32 `(n, y, x)`; the particle's centre is pixel `(y // 2, x // 2)`, density is positive.
    template_pixel_size, pixel_size
        Å per pixel of the templates and of the bank.
    diameter
        Particle diameter, Å.
    low_pass
        Å.
    rotation_step
        Degrees; half a turn is divided into the nearest whole number of steps.
    ctf_reach
        How far the CTF carries signal out of the particle, Å: wavelength x defocus / low-pass.
    ratio
        Pixel of the bank over working pixel.
    """
    mask_radius = template_mask_radius(diameter, low_pass, ctf_reach)
    box = odd_box(mask_radius, pixel_size)
    mask_edge = MASK_EDGE * low_pass
    mask = soft_disc(box, pixel_size, mask_radius - mask_edge, mask_radius)
    turns = max(1, round(180 / rotation_step))
    angles = np.arange(turns, dtype=np.float32) * np.float32(180 / turns)
    entries = np.zeros((len(templates) * turns, box, box), dtype=np.float32)
    for i, image in enumerate(templates):
        if np.ptp(image) == 0:
            continue
        rotated = rotate(image, template_pixel_size, pixel_size, box, angles, low_pass)
        rotated -= (rotated * mask).sum(axis=(1, 2), keepdims=True) / mask.sum()
        rotated *= mask
        norms = np.sqrt((rotated**2).sum(axis=(1, 2), keepdims=True))
        entries[i * turns : (i + 1) * turns] = rotated / np.maximum(norms, 1e-12)
    basis, coefficients, kept, odd = compress_pairs(entries)
    group, turned = grouped(coefficients, odd)
    partners = coefficients.copy()
    partners[:, len(basis) - odd :] *= -1
    index = np.tile(np.repeat(np.arange(len(templates), dtype=np.int32), turns), 2)
    angle = np.tile(angles, len(templates))
    return Bank(
        basis=basis,
        coefficients=np.concatenate([coefficients, partners]),
        template=index,
        angle=np.concatenate([angle, angle + np.float32(180)]),
        pixel_size=pixel_size,
        mask_radius=mask_radius,
        mask_edge=mask_edge,
        energy=kept,
        ratio=ratio,
        odd=odd,
        pairs=len(entries),
        group=group,
        turned=turned,
    )


def compress_pairs(entries: Float32) -> tuple[Float32, Float32, float, int]:
    """Basis and coefficients of images and their half-turns; parameters as of `compress`.

    Returns
    -------
    basis, coefficients, kept, odd
        As `compress` gives them, for the images alone. The last `odd` images of the basis change their sign in half a
        turn, the others stay as they are.
    """
    turned = entries[:, ::-1, ::-1]
    basis, coefficients, energies = [], [], []
    for part in (entries + turned, entries - turned):
        images, weights, _ = compress(np.float32(0.5) * part, 1.0)
        basis.append(images)
        coefficients.append(weights)
        energies.append(np.square(weights, dtype=np.float64).sum(axis=0))
    total = float(np.einsum("nij,nij->", entries, entries, dtype=np.float64))
    order = np.argsort(-np.concatenate(energies), kind="stable")
    share = np.cumsum(np.concatenate(energies)[order]) / max(total, 1e-30)
    keep = order[: min(int(np.searchsorted(share, ENERGY)) + 1, LARGEST_BASIS, len(order))]
    even = np.sort(keep[keep < len(basis[0])])
    odd = np.sort(keep[keep >= len(basis[0])]) - len(basis[0])
    return (
        np.concatenate([basis[0][even], basis[1][odd]]),
        np.concatenate([coefficients[0][:, even], coefficients[1][:, odd]], axis=1),
        float(min(share[len(keep) - 1], 1.0)),
        len(odd),
    )


def template_mask_radius(diameter: float, low_pass: float, ctf_reach: float = 0.0) -> float:
    """Radius of the mask of a particle, Å: its own and a rim of 1.5 x the resolution, or of the CTF's reach if larger.

    At 2.8 µm and 20 Å the CTF spreads the particle about 30 Å outwards; without the rim F1 on simulated micrographs
    falls from 0.988 to 0.958.
    """
    return 0.5 * diameter + max(1.5 * low_pass, ctf_reach)


def rotate(
    image: Float32, image_pixel_size: float, pixel_size: float, box: int, angles: Float32, low_pass: float
) -> Float32:
    """Rotated, low-passed and resampled copies of an image.

    Parameters
    ----------
    image
        float32 `(y, x)`, centre at pixel `(y // 2, x // 2)`.
    image_pixel_size, pixel_size
        Å per pixel of the image and of the copies.
    box
        Odd side of the copies, pixels.
    angles
        Degrees, from the x axis towards the y axis of the array.
    low_pass
        Å.

    Returns
    -------
    ndarray
        float32 `(len(angles), box, box)`; zero where the image does not reach.
    """
    fine, fine_pixel = _oversample(image, image_pixel_size, low_pass)
    coefficients = ndimage.spline_filter(fine, order=3, output=np.float32, mode="grid-constant")
    axis = (np.arange(box, dtype=np.float32) - box // 2) * np.float32(pixel_size / fine_pixel)
    y, x = np.meshgrid(axis, axis, indexing="ij")
    centre = [n // 2 * image_pixel_size / fine_pixel for n in image.shape]
    out = np.empty((len(angles), box, box), dtype=np.float32)
    for i, angle in enumerate(np.deg2rad(angles)):
        cos, sin = np.cos(angle), np.sin(angle)
        where = np.stack([-sin * x + cos * y + centre[0], cos * x + sin * y + centre[1]])
        ndimage.map_coordinates(coefficients, where, out[i], order=3, mode="grid-constant", prefilter=False)
    return out


def _oversample(image: Float32, pixel_size: float, low_pass: float) -> tuple[Float32, float]:
    """Low-pass and zero-pad in Fourier space until a pixel is at most a sixth of the resolution."""
    factor = max(1, int(np.ceil(pixel_size / (low_pass / 6))))
    border = float(np.mean(np.concatenate([image[0], image[-1], image[:, 0], image[:, -1]])))
    spectrum = sf.rfft2(np.asarray(image, dtype=np.float32) - border)
    spectrum *= band_pass((image.shape[0], image.shape[1]), pixel_size, low_pass, None)
    height, width = (n * factor for n in image.shape)
    padded = np.zeros((height, width // 2 + 1), dtype=np.complex64)
    top = (image.shape[0] + 1) // 2
    padded[:top, : spectrum.shape[1]] = spectrum[:top]
    padded[height - (image.shape[0] - top) :, : spectrum.shape[1]] = spectrum[top:]
    fine = sf.irfft2(padded, (height, width)) * factor**2
    return np.asarray(fine, dtype=np.float32), pixel_size / factor


@lru_cache(maxsize=4)
def _rotations(bank: Bank) -> tuple[NDArray[np.intp], float]:
    """Neighbours in rotation, and the step in degrees; angles are even over a whole turn, or over half of one."""
    found, step = np.full((len(bank.angle), 2), -1, dtype=np.intp), 0.0
    for template in np.unique(bank.template):
        members = np.flatnonzero(bank.template == template)
        members = members[np.argsort(bank.angle[members], kind="stable")]
        if len(members) < 3:
            continue
        step = float(bank.angle[members[1]] - bank.angle[members[0]])
        found[members, 0], found[members, 1] = np.roll(members, 1), np.roll(members, -1)
    return found, step
