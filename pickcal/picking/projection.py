"""Projections of a volume: central slices of its Fourier transform, and directions spread evenly over the sphere.

Euler angles are RELION's rot, tilt and psi (ZYZ, degrees; Heymann, Chagoyen & Belnap (2005), J. Struct. Biol.
151, 196-207). With R = Rz(rot) Ry(tilt) Rz(psi), the image at (x, y) is the sum of the volume over z at R (x, y, z).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import fft
from scipy.ndimage import map_coordinates, spline_filter
from scipy.spatial.transform import Rotation

from pickcal.errors import InputError

FloatArray = NDArray[np.floating]

PADDING = 2


@dataclass(frozen=True, eq=False)
class Volume:
    """A cubic density map whose centre is voxel `(n // 2, n // 2, n // 2)`.

    Attributes
    ----------
    density
        Shape `(z, y, x)`, all equal, float32. Zero outside the particle; 1 is the mean density inside it.
    pixel_size
        Å per voxel.
    """

    density: FloatArray
    pixel_size: float

    def __post_init__(self) -> None:
        """Refuse anything but a cube."""
        shape = self.density.shape
        if len(shape) != 3 or len(set(shape)) != 1:
            raise InputError(f"volume: expected a cube (z, y, x), found an array of shape {shape}")

    @cached_property
    def transform(self) -> NDArray[np.complexfloating]:
        """Cubic spline coefficients of the Fourier transform, padded twofold, zero frequency in the middle."""
        n = self.density.shape[0]
        padded = PADDING * n
        cube = np.zeros((padded,) * 3, dtype=np.float32)
        low = padded // 2 - n // 2
        cube[low : low + n, low : low + n, low : low + n] = self.density
        spectrum = fft.fftshift(fft.fftn(fft.ifftshift(cube), workers=1))
        out = np.empty(cube.shape, dtype=np.complex64)
        out.real = spline_filter(spectrum.real, 3, np.float32)
        out.imag = spline_filter(spectrum.imag, 3, np.float32)
        return out


def euler_rotation(angles: ArrayLike) -> Rotation:
    """Rotations from the frame of the image to the frame of the volume.

    Parameters
    ----------
    angles
        rot, tilt, psi in degrees, shape `(..., 3)`, RELION's convention.

    Returns
    -------
    scipy.spatial.transform.Rotation
        R = Rz(rot) Ry(tilt) Rz(psi), on vectors `(x, y, z)`; RELION's matrix is its inverse.
    """
    return Rotation.from_euler("ZYZ", np.asarray(angles, dtype=np.float64), degrees=True)


def random_angles(count: int, rng: np.random.Generator) -> FloatArray:
    """Draw orientations uniformly from all rotations.

    Parameters
    ----------
    count
        How many.
    rng
        Source of randomness.

    Returns
    -------
    ndarray
        rot, tilt, psi in degrees, shape `(count, 3)`; rot and psi in [-180, 180), tilt in [0, 180].
    """
    angles = rng.uniform(-180.0, 180.0, (count, 3))
    angles[:, 1] = np.rad2deg(np.arccos(angles[:, 1] / 180.0))
    return angles


def even_angles(count: int) -> FloatArray:
    """Spread viewing directions evenly over the sphere, on a Fibonacci lattice.

    Source: González (2010), Mathematical Geosciences 42, 49-64.

    Parameters
    ----------
    count
        How many, at least 1.

    Returns
    -------
    ndarray
        rot, tilt, psi in degrees, shape `(count, 3)`; psi is 0.
    """
    index = np.arange(count) + 0.5
    tilt = np.rad2deg(np.arccos(1.0 - 2.0 * index / count))
    rot = (np.rad2deg(np.pi * (1.0 + np.sqrt(5.0)) * index) + 180.0) % 360.0 - 180.0
    return np.stack([rot, tilt, np.zeros(count)], axis=1)


def project(
    volume: Volume,
    angles: ArrayLike,
    box: int,
    pixel_size: float,
    shift: tuple[float, float] = (0.0, 0.0),
) -> FloatArray:
    """Project a volume along one direction.

    Cubic interpolation of a central slice of the twofold padded transform: within 0.2 % of the sum over the volume.
    Nothing finer than the volume's own Nyquist limit or that of the image comes out, so no pixel size shows aliasing.

    Parameters
    ----------
    volume
        The map.
    angles
        rot, tilt, psi in degrees, shape `(3,)`.
    box
        Rows and columns of the image, pixels; the particle must fit in it.
    pixel_size
        Å per pixel of the image.
    shift
        Where the volume's centre comes to lie, `(x, y)` in pixels from pixel `box // 2`. Default (0, 0).

    Returns
    -------
    ndarray
        Density integrated over the path, density units × Å, float32, shape `(box, box)`.
    """
    ky = np.fft.fftfreq(box, pixel_size)[:, None]
    kx = np.fft.rfftfreq(box, pixel_size)[None, :]
    flat = np.broadcast_arrays(kx, ky, 0.0)
    frequencies = np.stack(flat, axis=-1).reshape(-1, 3)
    inside = np.flatnonzero((frequencies**2).sum(axis=1) < (0.5 / volume.pixel_size) ** 2)
    spectrum = volume.transform
    n = spectrum.shape[0]
    places = euler_rotation(angles).apply(frequencies[inside]) * (volume.pixel_size * n) + n // 2
    values = map_coordinates(spectrum, places[:, ::-1].T, order=3, mode="constant", prefilter=False)
    phase = frequencies[inside, 0] * (box // 2 + shift[0]) + frequencies[inside, 1] * (box // 2 + shift[1])
    image = np.zeros(frequencies.shape[0], dtype=np.complex64)
    image[inside] = values * np.exp(-2j * np.pi * pixel_size * phase)
    out = fft.irfft2(image.reshape(ky.size, kx.size), (box, box), workers=1)
    return np.asarray(out * (volume.pixel_size**3 / pixel_size**2), dtype=np.float32)


def image_box(volume: Volume, pixel_size: float) -> int:
    """Smallest even image box that holds every projection of what is in the volume's inscribed sphere, pixels."""
    return 2 * int(np.ceil(0.5 * volume.density.shape[0] * volume.pixel_size / pixel_size))
