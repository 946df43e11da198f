"""Density maps from MRC files, made fit for simulation: positive, masked, centred on their mass."""

from __future__ import annotations

import warnings
from pathlib import Path

import mrcfile
import numpy as np
from scipy import fft
from scipy.ndimage import gaussian_filter
from scipy.ndimage import shift as shifted

from pickcal.errors import InputError, MissingFileError
from pickcal.picking.projection import FloatArray, Volume

HIGH_PASSED = 0.5
"""Maps whose negative density is more than this fraction of the positive have lost their low resolution."""


def load_map(path: Path, pixel_size: float | None, finest: float) -> Volume:
    """Read a map and prepare it as the particle.

    Parameters
    ----------
    path
        MRC file of a 3D map, particle of positive density.
    pixel_size
        Voxel size, Å; None takes the header's.
    finest
        Voxels finer than this, Å, are binned to it by Fourier cropping.

    Returns
    -------
    Volume
        Density >= 0 with a mean of 1 inside the particle, zero outside it, centre of mass in the middle. A map that
        was high-passed gets its density against the solvent back.

    Raises
    ------
    MissingFileError
        If there is no such file.
    InputError
        If it is not a 3D map, has no voxel size, or holds no positive density.
    """
    density, voxel = _read(path, pixel_size)
    density, voxel = _binned(_cube(density), voxel, finest)
    positive = np.clip(density, 0.0, None)
    if not np.isfinite(density).all() or positive.max() <= 0:
        raise InputError(f"{path}: expected a map of positive density, found none above 0; check the file")
    density = _centred(density)
    positive = np.clip(density, 0.0, None)
    high_passed = -density[density < 0].sum() > HIGH_PASSED * positive.sum()
    smooth = gaussian_filter(positive, 4.5 / voxel)
    body, core = smooth > 0.18 * smooth.max(), smooth > 0.4 * smooth.max()
    soft = gaussian_filter(body.astype(np.float64), max(0.7, 2.1 / voxel))
    if high_passed:
        detail = gaussian_filter(density, 0.4)
        detail = (detail - detail[body].mean()) / detail[body].std()
        density = soft * np.clip(1.0 + 0.4 * detail, 0.0, None)
    else:
        density = soft * positive
    density = np.clip(_centred(density), 0.0, None)
    return Volume(_trimmed(np.asarray(density / density[core].mean(), dtype=np.float32)), voxel)


def _read(path: Path, pixel_size: float | None) -> tuple[FloatArray, float]:
    if not path.is_file():
        raise MissingFileError(f"{path}: no such map; give an MRC file of a 3D map")
    try:
        with warnings.catch_warnings():
            # maps whose only fault is a missing format stamp are common; what is wrong otherwise shows below
            warnings.simplefilter("ignore", RuntimeWarning)
            data, header = _checked(path)
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: expected an MRC file of a 3D map, found something else ({error})") from None
    if data.ndim != 3 or min(data.shape) < 8:
        raise InputError(f"{path}: expected a 3D map of at least 8 voxels a side, found shape {data.shape}")
    voxel = header if pixel_size is None else pixel_size
    if not voxel > 0:
        raise InputError(f"{path}: expected a voxel size in the header, found {header:g}; give map_pixel_size")
    return data, voxel


def _checked(path: Path) -> tuple[FloatArray, float]:
    """Read a map after looking whether the file is long enough for what its header says (mrcfile would allocate it)."""
    with path.open("rb") as stream:
        header = stream.read(1024)
    fits = False
    for order in ("<i4", ">i4"):
        nx, ny, nz, *_ = words = [int(w) for w in np.frombuffer(header[: len(header) // 4 * 4], order)] + [0] * 24
        fits |= min(nx, ny, nz) > 0 and words[23] >= 0 and nx * ny * nz + words[23] <= path.stat().st_size
    if not fits:
        raise ValueError(f"its size, {path.stat().st_size} bytes, does not agree with a header of that format")
    with mrcfile.open(path, permissive=True) as file:
        if file.data is None:
            raise ValueError("its data cannot be read")
        return np.array(file.data, dtype=np.float64), float(file.voxel_size.x)


def _cube(data: FloatArray) -> FloatArray:
    size = max(data.shape) + max(data.shape) % 2
    out = np.zeros((size,) * 3)
    low = [size // 2 - n // 2 for n in data.shape]
    out[tuple(slice(a, a + n) for a, n in zip(low, data.shape, strict=True))] = data
    return out


def _binned(density: FloatArray, voxel: float, finest: float) -> tuple[FloatArray, float]:
    size = density.shape[0]
    target = 2 * int(np.ceil(0.5 * size * voxel / finest))
    if target >= size:
        return density, voxel
    low = size // 2 - target // 2
    keep = slice(low, low + target)
    spectrum = fft.fftshift(fft.fftn(fft.ifftshift(density), workers=1))[keep, keep, keep]
    out = fft.fftshift(fft.ifftn(fft.ifftshift(spectrum), workers=1)).real
    return out * (target / size) ** 3, voxel * size / target


def _centred(density: FloatArray) -> FloatArray:
    """Move the centre of mass of the strong density to the middle."""
    mass = np.where(density > 0.05 * density.max(), density, 0.0)
    middle = [n // 2 for n in density.shape]
    places = [np.arange(n) - m for n, m in zip(density.shape, middle, strict=True)]
    sums = [mass.sum(axis=others) for others in ((1, 2), (0, 2), (0, 1))]
    offset = [float((s * p).sum() / s.sum()) for s, p in zip(sums, places, strict=True)]
    return np.asarray(shifted(density, [-o for o in offset], order=3))


def _trimmed(density: FloatArray) -> FloatArray:
    """Cut to the smallest centred even cube whose inscribed sphere holds the particle, or pad up to it."""
    size = density.shape[0]
    where = np.argwhere(density > 0.02 * density.max()) - size // 2
    half = int(np.ceil(np.sqrt((where**2).sum(axis=1).max()))) + 3
    if half < size // 2:
        keep = slice(size // 2 - half, size // 2 + half)
        return density[keep, keep, keep].copy()
    return np.pad(density, half - size // 2)
