"""From a scene to the micrograph a camera would record.

Weak-phase image formation (Reimer & Kohl, Transmission Electron Microscopy, 5th ed. 2008, chapter 6): the projected
potential of particles, contaminants, ice and carbon, times the CTF and an envelope, is the contrast; the thickness of
ice, crystals and carbon takes electrons away (inelastic scattering, energy-filtered); every pixel then counts
electrons, Poisson-distributed. The camera counts single electrons: its noise is white, its fall-off is in the envelope.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import fft

from pickcal.picking.ctf import ctf_filter, electron_wavelength, frequency_grid
from pickcal.picking.projection import FloatArray, image_box, project
from pickcal.settings import SimulateSettings
from pickcal.simulation.contaminants import draw_contaminants
from pickcal.simulation.particles import simulate_particle
from pickcal.simulation.scene import Scene, generator, make_scene, particle_diameter

PROTEIN_POTENTIAL = 1.25
"""Mean inner potential of protein above that of vitreous ice, V."""
ENVELOPE = 90.0
"""B-factor of source coherence, motion and camera, Å^2."""
ICE_NOISE = 0.075
"""Standard deviation of the phase that ice of nominal thickness gives to columns of 1 Å^2, rad."""
CARBON_NOISE = 4.0
"""The same for carbon film, relative to the ice."""
UNEVENNESS = 2.5
"""Spectral density of uneven ice at the lowest frequencies, relative to the shot noise of 40 electrons per Å^2."""
ICE_LOSS = 0.08
"""Part of the electrons that ice of nominal thickness (about 300 Å) takes away."""
BLUR = 0.12
"""Part of the particles' contrast that ice of nominal thickness takes away."""
LEAST = 0.05
"""Least relative intensity: weak-phase contrast of thick ice crystals would go below 0."""


@dataclass(frozen=True, eq=False)
class SimulatedMicrograph:
    """A micrograph and the truth about it.

    Attributes
    ----------
    image
        Electrons per pixel, float32, shape `(y, x)`.
    scene
        What is on it.
    """

    image: FloatArray
    scene: Scene


def simulate_micrograph(settings: SimulateSettings, index: int) -> SimulatedMicrograph:
    """Make one micrograph of a data set, the same whatever else is made before it or beside it.

    Parameters
    ----------
    settings
        Of the data set.
    index
        Of the micrograph, from 0.

    Returns
    -------
    SimulatedMicrograph
        Image in electrons per pixel, and truth.

    Raises
    ------
    InputError
        If the index is not one of the data set, or see `plan` and `simulate_particle`.

    Examples
    --------
    >>> settings = SimulateSettings(height=256, width=320, particles_min=3, particles_max=3)
    >>> micrograph = simulate_micrograph(settings, 0)
    >>> micrograph.image.shape, micrograph.scene.positions.shape[1]
    ((256, 320), 2)
    """
    scene = make_scene(settings, index)
    expected = expected_electrons(settings, scene, generator(settings, index + 1, 1))
    image = generator(settings, index + 1, 2).poisson(expected).astype(np.float32)
    return SimulatedMicrograph(image, scene)


def expected_electrons(settings: SimulateSettings, scene: Scene, rng: np.random.Generator) -> FloatArray:
    """Mean number of electrons in every pixel, before shot noise.

    Parameters
    ----------
    settings
        Of the data set.
    scene
        What is on the micrograph.
    rng
        Source of the ice's and the carbon's structure.

    Returns
    -------
    ndarray
        Float64, shape `(y, x)`. Dose × pixel area where there is nothing but ice of nominal thickness.
    """
    pad, shape = canvas(settings)
    ice = scene.ice * _ice_thickness(shape, rng)
    phase, loss, film = draw_contaminants(settings, scene, shape, pad, rng)
    phase += particle_phase(settings, scene, shape, pad) * (1.0 - BLUR * (scene.ice - 1.0))
    structure = rng.standard_normal(shape, dtype=np.float32)
    structure *= np.sqrt(ice) * (1.0 - film) + np.float32(CARBON_NOISE) * film
    ky, kx = frequency_grid(shape, settings.pixel_size)
    k2 = kx * kx + ky * ky
    spectrum = fft.rfft2(structure, workers=1) * (_ice_colour(k2) * np.float32(ICE_NOISE / settings.pixel_size))
    spectrum += fft.rfft2(phase, workers=1)
    spectrum *= 2.0 * ctf_filter(scene.ctf, shape, settings.pixel_size, ENVELOPE)
    _add_unevenness(spectrum, k2, settings, rng)
    contrast = fft.irfft2(spectrum, shape, workers=1)
    relative = (1.0 + contrast) * np.exp(-ICE_LOSS * (ice - 1.0) - loss)
    inside = relative[pad : pad + settings.height, pad : pad + settings.width]
    mean = settings.dose * settings.pixel_size**2
    return np.asarray(mean * np.maximum(inside, LEAST) * _illumination(settings, rng), dtype=np.float64)


def canvas(settings: SimulateSettings) -> tuple[int, tuple[int, int]]:
    """Margin and shape, pixels, of the area that is computed: what lies outside the image reaches into it.

    The CTF carries detail of 10 Å sideways by wavelength × defocus / 10 Å.
    """
    highest = max(settings.defocus, default=settings.defocus_max)
    spread = electron_wavelength(settings.voltage) * highest / 10.0
    pad = int(np.ceil((particle_diameter(settings) + spread) / settings.pixel_size))
    height, width = (int(fft.next_fast_len(n + 2 * pad, real=True)) for n in (settings.height, settings.width))
    return pad, (height, width + width % 2)


def interaction(voltage: float) -> float:
    """Phase shift per projected potential, rad / (V Å), at an acceleration voltage in kV.

    Source: Kirkland, Advanced Computing in Electron Microscopy, 2nd ed. 2010, equation 2.5.

    Examples
    --------
    >>> round(interaction(300.0), 6)
    0.000653
    """
    rest = 510.998950
    factor = (rest + voltage) / (2.0 * rest + voltage)
    return float(2.0 * np.pi / (electron_wavelength(voltage) * voltage * 1e3) * factor)


def particle_phase(settings: SimulateSettings, scene: Scene, shape: tuple[int, int], pad: int) -> FloatArray:
    """Phase that all particles give to the wave, in rad, without CTF.

    Parameters
    ----------
    settings
        Of the data set.
    scene
        Positions and orientations.
    shape, pad
        Of the canvas, see `canvas`.

    Returns
    -------
    ndarray
        float32, of the canvas's shape.
    """
    volume = simulate_particle(settings)
    box = image_box(volume, settings.pixel_size)
    out = np.zeros((shape[0] + 2 * box, shape[1] + 2 * box), dtype=np.float32)
    positions = np.concatenate([scene.positions, scene.other_positions])
    angles = np.concatenate([scene.angles, scene.other_angles])
    for (x, y), orientation in zip(positions, angles, strict=True):
        left, top = int(np.floor(x)), int(np.floor(y))
        image = project(volume, orientation, box, settings.pixel_size, (x - left, y - top))
        rows, columns = top + pad + box - box // 2, left + pad + box - box // 2
        out[rows : rows + box, columns : columns + box] += image
    out *= np.float32(settings.signal * PROTEIN_POTENTIAL * interaction(settings.voltage))
    return out[box : box + shape[0], box : box + shape[1]]


def _ice_colour(k2: FloatArray) -> FloatArray:
    """Amplitude of the ice's structure: flat, and higher below 1/50 Å from its surfaces and what lies on them."""
    return np.asarray(np.sqrt(1.0 + 3.0 / (1.0 + k2 * np.float32(50.0**2)) ** 2), dtype=np.float32)


def _add_unevenness(spectrum: FloatArray, k2: FloatArray, settings: SimulateSettings, rng: np.random.Generator) -> None:
    """Add the slow unevenness of real micrographs, which carries no CTF; only the lowest frequencies are drawn."""
    area = settings.pixel_size**2
    rows, columns = spectrum.shape
    low = max(8, int(np.ceil(rows * settings.pixel_size / 60.0)))
    right = max(8, int(np.ceil(2 * (columns - 1) * settings.pixel_size / 60.0)))
    low, right = min(low, rows // 2), min(right, columns)
    for part in (slice(0, low), slice(rows - low, rows)):
        power = UNEVENNESS / (40.0 * area) / (1.0 + k2[part, :right] * 300.0**2) ** 1.5
        amplitude = np.sqrt(power * rows * (columns - 1)).astype(np.float32)
        noise = rng.standard_normal((2, *amplitude.shape), dtype=np.float32)
        spectrum[part, :right] += amplitude * (noise[0] + 1j * noise[1])


def _ice_thickness(shape: tuple[int, int], rng: np.random.Generator) -> FloatArray:
    """Relative thickness: thinner in the middle of a hole that lies somewhere around, mean about 1."""
    y = np.linspace(-1.0, 1.0, shape[0], dtype=np.float32)[:, None]
    x = np.linspace(-1.0, 1.0, shape[1], dtype=np.float32)[None, :]
    x0, y0 = rng.uniform(-1.0, 1.0, 2)
    dish = (x - np.float32(x0)) ** 2 + (y - np.float32(y0)) ** 2
    depth = np.float32(rng.uniform(0.02, 0.12))
    return np.asarray(1.0 + depth * (dish - dish.mean()), dtype=np.float32)


def _illumination(settings: SimulateSettings, rng: np.random.Generator) -> FloatArray:
    """Relative intensity of the beam: a slope of `gradient` across the image, mean 1."""
    angle = rng.uniform(0.0, 2 * np.pi)
    y = np.linspace(-0.5, 0.5, settings.height)[:, None] * np.sin(angle)
    x = np.linspace(-0.5, 0.5, settings.width)[None, :] * np.cos(angle)
    return np.asarray(1.0 + settings.gradient * (x + y))
