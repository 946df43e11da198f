"""Surrogates of a micrograph: images of the same power spectrum that hold no structure.

Phase randomisation as Theiler et al. (1992, Physica D 58, 77-94) do for time series, of the periodic component of the
image (Moisan 2011, J. Math. Imaging Vis. 39, 161-179).
"""

from __future__ import annotations

import numpy as np
import scipy.fft as sf
from numpy.typing import NDArray
from scipy import ndimage

from pickcal.picking.filters import Float32, band_pass
from pickcal.picking.power import noise_deviation

Float64 = NDArray[np.float64]

OUTLYING = 8.0
"""Deviations of the band-passed noise beyond which a pixel is crystal, gold or dirt, or the halo of one."""


def periodic_component(image: Float32) -> Float64:
    """Take from an image what makes it jump where its opposite borders meet.

    A micrograph is not periodic; the jumps would show as a cross in its spectrum, and as stripes in a surrogate. What
    is taken away is smooth: its Laplacian is 0 away from the borders (Moisan 2011, theorem 1).

    Parameters
    ----------
    image
        Any grey scale, shape `(y, x)`.

    Returns
    -------
    ndarray
        float64, same shape and mean.
    """
    values = np.asarray(image, dtype=np.float64)
    height, width = values.shape
    jumps = np.zeros_like(values)
    rows, columns = values[-1] - values[0], values[:, -1] - values[:, 0]
    jumps[0] += rows
    jumps[-1] -= rows
    jumps[:, 0] += columns
    jumps[:, -1] -= columns
    laplacian = 2 * np.cos(2 * np.pi * sf.fftfreq(height))[:, None] + 2 * np.cos(2 * np.pi * sf.rfftfreq(width)) - 4
    laplacian[0, 0] = 1  # the jumps sum to 0
    return np.asarray(values - sf.irfft2(sf.rfft2(jumps) / laplacian, (height, width)))


def phase_randomised(image: Float32, rng: np.random.Generator) -> Float32:
    """Image with the amplitude spectrum of another and random phases.

    It keeps the power spectrum of the micrograph's periodic component, direction by direction: Thon rings, drift, and
    the power of the particles themselves, spread evenly over the image. It keeps no particle, no ice, no film, and no
    place that is noisier than another; its grey values are Gaussian.

    Parameters
    ----------
    image
        Any grey scale, shape `(y, x)`.
    rng
        Source of the phases; the same state gives the same image.

    Returns
    -------
    ndarray
        float32, same shape and mean.
    """
    amplitude = np.abs(sf.rfft2(periodic_component(image)))
    mean = float(np.mean(image, dtype=np.float64))
    # the phases of white noise are uniform, and symmetric as those of every real image: no coefficient needs care
    white = sf.rfft2(rng.standard_normal(image.shape))
    amplitude[0, 0] = 0
    out = sf.irfft2(amplitude * white / np.maximum(np.abs(white), np.finfo(np.float64).tiny), image.shape)
    return np.asarray(out + mean, dtype=np.float32)


def patched(image: Float32, pixel_size: float, low_pass: float, high_pass: float, reach: float) -> Float32:
    """Replace what stands out by far, ice crystals above all, by the level around it.

    A few crystals can hold more of a micrograph's power than all the rest; random phases would spread them over the
    whole image as noise that is nowhere in the micrograph.

    Parameters
    ----------
    image
        Working image `(y, x)`, any grey scale.
    pixel_size
        Å per pixel.
    low_pass, high_pass
        Band-pass after which pixels are held against the noise, Å.
    reach
        Radius around an outlying pixel that is replaced as well, Å.

    Returns
    -------
    ndarray
        float32, same shape; the very image where nothing stands out.
    """
    shape = (image.shape[0], image.shape[1])
    flat = periodic_component(image).astype(np.float32)
    band = sf.irfft2(sf.rfft2(flat) * band_pass(shape, pixel_size, low_pass, high_pass), shape)
    outlying = np.abs(band) > OUTLYING * noise_deviation(band)
    if not outlying.any():
        return image
    taken = ndimage.distance_transform_edt(~outlying) * pixel_size <= reach
    kept = (~taken).astype(np.float32)
    width = 2 * reach / pixel_size
    level = ndimage.gaussian_filter(image * kept, width) / np.maximum(ndimage.gaussian_filter(kept, width), 1e-6)
    return np.where(taken, level, image).astype(np.float32)
