"""Contrast transfer function of the microscope, in the convention of CTFFIND and RELION.

Source: Rohou & Grigorieff (2015), J. Struct. Biol. 192, 216-221, equations 1 to 5.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.floating]


def electron_wavelength(voltage: float) -> float:
    """Relativistic wavelength of an electron.

    Parameters
    ----------
    voltage
        Acceleration voltage, kV.

    Returns
    -------
    float
        Wavelength in Å.

    Examples
    --------
    >>> round(electron_wavelength(300.0), 5)
    0.01969
    """
    volts = voltage * 1e3
    return float(12.2642596 / np.sqrt(volts * (1.0 + 0.978475598e-6 * volts)))


@dataclass(frozen=True)
class Ctf:
    """What is needed to compute the CTF of one micrograph.

    Attributes
    ----------
    defocus_u, defocus_v
        Defocus along the two principal axes, Å, positive is underfocus.
    defocus_angle
        Angle of the `defocus_u` axis from the x axis towards the y axis of the array, degrees.
    voltage
        Acceleration voltage, kV.
    spherical_aberration
        Cs, mm.
    amplitude_contrast
        Fraction in [0, 1].
    phase_shift
        Additional phase shift of a phase plate, degrees.
    """

    defocus_u: float
    defocus_v: float
    defocus_angle: float = 0.0
    voltage: float = 300.0
    spherical_aberration: float = 2.7
    amplitude_contrast: float = 0.1
    phase_shift: float = 0.0

    @property
    def defocus(self) -> float:
        """Mean defocus, Å."""
        return 0.5 * (self.defocus_u + self.defocus_v)


def frequency_grid(shape: tuple[int, int], pixel_size: float) -> tuple[FloatArray, FloatArray]:
    """Spatial frequencies of the bins of `scipy.fft.rfft2`.

    Parameters
    ----------
    shape
        Shape `(y, x)` of the image, pixels.
    pixel_size
        Å per pixel.

    Returns
    -------
    ky, kx
        Frequencies in 1/Å, shapes `(y, 1)` and `(1, x // 2 + 1)`, float32.
    """
    ky = np.fft.fftfreq(shape[0], pixel_size).astype(np.float32)[:, None]
    kx = np.fft.rfftfreq(shape[1], pixel_size).astype(np.float32)[None, :]
    return ky, kx


def ctf_filter(ctf: Ctf, shape: tuple[int, int], pixel_size: float, b_factor: float = 0.0) -> FloatArray:
    """CTF on the grid of `scipy.fft.rfft2`.

    It is -sin(chi), chi = pi lambda k^2 (defocus - lambda^2 k^2 Cs / 2) + phase shift + asin(amplitude contrast):
    negative at low frequency, so a particle of positive density comes out dark on a lighter background.

    Parameters
    ----------
    ctf
        Parameters of the micrograph.
    shape
        Shape `(y, x)` of the image, pixels.
    pixel_size
        Å per pixel.
    b_factor
        Envelope exp(-b_factor k^2 / 4), Å^2. Default 0, none.

    Returns
    -------
    ndarray
        float32, shape `(y, x // 2 + 1)`, in [-1, 1].
    """
    ky, kx = frequency_grid(shape, pixel_size)
    k2 = kx * kx + ky * ky
    wavelength = electron_wavelength(ctf.voltage)
    angle = np.arctan2(ky, kx) - np.float32(np.deg2rad(ctf.defocus_angle))
    half_astigmatism = 0.5 * (ctf.defocus_u - ctf.defocus_v)
    defocus = np.float32(ctf.defocus) + np.float32(half_astigmatism) * np.cos(2 * angle)
    cs = ctf.spherical_aberration * 1e7
    chi = np.float32(np.pi * wavelength) * k2 * (defocus - np.float32(0.5 * wavelength**2 * cs) * k2)
    chi += np.float32(np.deg2rad(ctf.phase_shift) + np.arcsin(ctf.amplitude_contrast))
    out = -np.sin(chi)
    if b_factor:
        out *= np.exp(np.float32(-b_factor / 4) * k2)
    return np.asarray(out, dtype=np.float32)
