"""Micrographs as the browser draws them: low-passed, binned, in grey levels; and cutouts around single picks."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import scipy.fft as sf
from numpy.typing import NDArray
from scipy import ndimage

from pickcal.errors import InputError
from pickcal.project import Project
from pickcal.schema import Status

V = TypeVar("V")
Float32 = NDArray[np.float32]
Grey = NDArray[np.uint8]

LIMIT = 5.0
"""Grey levels 0 and 255 stand for this many standard deviations below and above the mean."""
PIXELS = 700
CUTOUT = 64
SPECTRA_BYTES, PICTURE_BYTES, FILTERED_BYTES, CUTOUT_BYTES = 72 << 20, 32 << 20, 12 << 20, 12 << 20


class Recent(Generic[V]):
    """The most recently used results, as many as fit into some memory; shared by threads.

    Parameters
    ----------
    most
        Bytes. A result larger than that is handed out and not kept.
    size
        Bytes of a result.
    """

    def __init__(self, most: int, size: Callable[[V], int]) -> None:
        self.most, self._size = most, size
        self.bytes = 0
        self._kept: OrderedDict[Hashable, V] = OrderedDict()
        self._lock = threading.Lock()

    def find(self, key: Hashable) -> V | None:
        """Return what is kept under a key, None if nothing is."""
        with self._lock:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key]

    def keep(self, key: Hashable, value: V) -> None:
        """Keep a result, and forget the longest unused ones where memory is short."""
        with self._lock:
            if key in self._kept:
                self.bytes -= self._size(self._kept.pop(key))
            if self._size(value) > self.most:
                return
            self._kept[key] = value
            self.bytes += self._size(value)
            while self.bytes > self.most:
                self.bytes -= self._size(self._kept.popitem(last=False)[1])

    def get(self, key: Hashable, make: Callable[[], V]) -> V:
        """Return what is kept under a key, or make it; two threads that ask at once may both make it."""
        found = self.find(key)
        if found is None:
            found = make()
            self.keep(key, found)
        return found


@dataclass(frozen=True)
class Picture:
    """A micrograph in grey levels.

    Attributes
    ----------
    pixels
        uint8 `(y, x)`; the first row is the top one, as in the file. Bokeh's image glyphs put the first row at `y`:
        draw at `x=left`, `y=top`, `dw=right - left`, `dh=bottom - top` on a range whose start is `bottom` and whose
        end is `top`, or, on a range that grows upwards, draw `pixels[::-1]`.
    left, right, top, bottom
        Outer edges of the micrograph, Å from the centre of its first pixel: `left` and `top` are minus half a working
        pixel.
    low, high
        What 0 and 255 stand for, in standard deviations of this picture from its mean.
    mean, deviation
        The picture's mean and (robust) standard deviation, in standard deviations of the working image.
    """

    pixels: Grey
    left: float
    right: float
    top: float
    bottom: float
    low: float
    high: float
    mean: float
    deviation: float

    @property
    def extent(self) -> tuple[float, float, float, float]:
        """Give `(left, right, top, bottom)`, Å."""
        return self.left, self.right, self.top, self.bottom


@dataclass(frozen=True)
class _Spectrum:
    """Cosine transform of a working image, float32 `(y, x)`, and its pixel size, Å.

    The transform mirrors the image at its borders, so that filters do not carry one border over to the other.
    """

    values: Float32
    pixel: float


@dataclass(frozen=True)
class _Filtered:
    image: Float32
    pixel: float
    mean: float
    deviation: float


class Images:
    """Pictures and cutouts of one project; shared by all visitors and threads.

    The low-pass is a Gaussian whose transfer falls to 1/2 at the resolution given: in real space a Gaussian of standard
    deviation 0.187 times the resolution.

    Parameters
    ----------
    project
        Open project.
    """

    def __init__(self, project: Project) -> None:
        self._project = project
        self.has_images = project.has_images
        self._pixel = project.read("micrographs", "pixel_size")
        self._spectra: Recent[_Spectrum] = Recent(SPECTRA_BYTES, lambda found: found.values.nbytes)
        self._pictures: Recent[Picture] = Recent(PICTURE_BYTES, lambda found: found.pixels.nbytes)
        self._filtered: Recent[_Filtered] = Recent(FILTERED_BYTES, lambda found: found.image.nbytes)
        self._cutouts: Recent[Grey] = Recent(CUTOUT_BYTES, lambda found: found.nbytes)

    def picture(self, row: int, lowpass_A: float | None = None, most: int = PIXELS) -> Picture:
        """Draw a micrograph.

        Parameters
        ----------
        row
            Row of the project's table.
        lowpass_A
            Resolution at which the Gaussian low-pass falls to 1/2, Å; None for none. Default None.
        most
            Largest side, pixels: a larger image is resampled without aliasing. Default 700.

        Raises
        ------
        InputError, ProjectError
            If there is no such row, no image, or the low-pass is not above 0.
        """
        self._check(row, lowpass_A)
        return self._pictures.get((row, lowpass_A, most), lambda: self._draw(row, lowpass_A, most))

    def cutout(
        self, row: int, x: float, y: float, size_A: float, lowpass_A: float | None = None, pixels: int = CUTOUT
    ) -> Grey:
        """Cut a square around a place.

        Parameters
        ----------
        row
            Row of the project's table.
        x, y
            Centre, Å from the centre of the first pixel; it lies between the pixels of the middle.
        size_A
            Side, Å.
        lowpass_A
            As for `picture`; where the cutout's pixels are larger than the image's, at least two of them.
        pixels
            Rows and columns of the cutout. Default 64.

        Returns
        -------
        ndarray
            uint8 `(pixels, pixels)`, in the grey levels of a picture with this low-pass: 0 and 255 are `LIMIT` standard
            deviations from the mean. Outside the micrograph it has the mean. The first row is the top one.

        Raises
        ------
        InputError, ProjectError
            As for `picture`.
        """
        return np.asarray(self.cutouts(row, [(x, y)], size_A, lowpass_A, pixels)[0])

    def cutouts(
        self,
        row: int,
        places: Sequence[tuple[float, float]],
        size_A: float,
        lowpass_A: float | None = None,
        pixels: int = CUTOUT,
    ) -> Grey:
        """Cut squares around places `(x, y)` of one micrograph, which is read and filtered at most once.

        Parameters, errors and grey levels as for `cutout`.

        Returns
        -------
        ndarray
            uint8 `(place, pixels, pixels)`.
        """
        self._check(row, lowpass_A)
        if not size_A > 0 or pixels < 1:
            raise InputError(f"cutout: expected a side above 0 Å and at least one pixel, got {size_A:g} Å, {pixels}")
        if size_A / pixels > self._pixel[row]:
            lowpass_A = max(lowpass_A or 0.0, 2 * size_A / pixels)
        keys = [(row, round(float(x), 2), round(float(y), 2), size_A, lowpass_A, pixels) for x, y in places]
        tiles = {key: tile for key in keys if (tile := self._cutouts.find(key)) is not None}
        if len(tiles) < len(set(keys)):
            source = self._filtered.get((row, lowpass_A), lambda: self._whole(row, lowpass_A))
            for key, place in zip(keys, places, strict=True):
                if key not in tiles:
                    tiles[key] = _cut(source, place, size_A, pixels)
                    self._cutouts.keep(key, tiles[key])
        return np.array([tiles[key] for key in keys], dtype=np.uint8).reshape(-1, pixels, pixels)

    def _check(self, row: int, lowpass_A: float | None) -> None:
        if not self.has_images:
            self._project.require_images("a picture of a micrograph")
        if row >= len(self._pixel):  # of a project that grows
            self._pixel = self._project.read("micrographs", "pixel_size")
        if not 0 <= row < len(self._pixel):
            raise InputError(f"micrograph: expected a row from 0 to {len(self._pixel) - 1}, got {row}")
        if lowpass_A is not None and not lowpass_A > 0:
            raise InputError(f"low-pass: expected a resolution above 0 Å, got {lowpass_A:g}; give none to turn it off")

    def _spectrum(self, row: int) -> _Spectrum:
        found = self._spectra.find(row)
        return self._transformed(row) if found is None else found

    def _transformed(self, row: int) -> _Spectrum:
        status = Status(int(self._project.read("micrographs", "status", row, row + 1)[0]))
        if status != Status.DONE:
            raise InputError(f"micrograph {row}: expected an imported image, found none (import {status.name.lower()})")
        image = self._project.image(row)
        known = np.isfinite(image)
        if not known.all():
            image = np.where(known, image, image[known].mean() if known.any() else np.float32(0))
        return _Spectrum(np.asarray(sf.dctn(image, norm="ortho"), dtype=np.float32), float(self._pixel[row]))

    def _draw(self, row: int, lowpass_A: float | None, most: int) -> Picture:
        spectrum = self._spectrum(row)
        self._spectra.keep(row, spectrum)
        height, width = spectrum.values.shape
        scale = min(1.0, most / max(height, width))
        shape = (max(1, round(height * scale)), max(1, round(width * scale)))
        small = _inverse(spectrum, lowpass_A, shape)
        mean, deviation = _level(small)
        half = 0.5 * spectrum.pixel
        right, bottom = (n * spectrum.pixel - half for n in (width, height))
        return Picture(_grey(small, mean, deviation), -half, right, -half, bottom, -LIMIT, LIMIT, mean, deviation)

    def _whole(self, row: int, lowpass_A: float | None) -> _Filtered:
        spectrum = self._spectrum(row)
        image = _inverse(spectrum, lowpass_A, (spectrum.values.shape[0], spectrum.values.shape[1]))
        return _Filtered(image, spectrum.pixel, *_level(image))


def _inverse(spectrum: _Spectrum, lowpass_A: float | None, shape: tuple[int, int]) -> Float32:
    """Image of a shape, at most the spectrum's: a cosine transform cut short is the same image on wider pixels."""
    values = spectrum.values
    part = values[: shape[0], : shape[1]] * np.float32(np.sqrt(shape[0] * shape[1] / values.size))
    if lowpass_A is not None:
        for axis, (kept, length) in enumerate(zip(shape, values.shape, strict=True)):
            frequency = np.arange(kept) / (2.0 * length * spectrum.pixel)
            transfer = np.exp2(-np.square(frequency * lowpass_A)).astype(np.float32)
            part *= transfer[:, None] if axis == 0 else transfer
    return np.asarray(sf.idctn(part, norm="ortho", overwrite_x=True), dtype=np.float32)


def _cut(source: _Filtered, place: tuple[float, float], size_A: float, pixels: int) -> Grey:
    along = (np.arange(pixels) - 0.5 * (pixels - 1)) * (size_A / pixels)
    at = np.meshgrid((place[1] + along) / source.pixel, (place[0] + along) / source.pixel, indexing="ij")
    values = ndimage.map_coordinates(source.image, at, order=1, mode="constant", cval=source.mean)
    return _grey(values, source.mean, source.deviation)


def _level(image: Float32) -> tuple[float, float]:
    """Mean, and standard deviation from the quartiles, which ice and carbon hardly move, of evenly spaced pixels."""
    sample = image.ravel()[:: max(1, image.size // 50_000) | 1]
    low, high = np.percentile(sample, (25.0, 75.0))
    return float(image.mean(dtype=np.float64)), max(float(high - low) / 1.349, 1e-9)


def _grey(values: NDArray[Any], mean: float, deviation: float) -> Grey:
    scale = 255.0 / (2 * LIMIT)
    levels = (values - np.float32(mean)) * np.float32(scale / deviation) + np.float32(127.5)
    return np.asarray(np.rint(np.clip(levels, 0, 255)), dtype=np.uint8)
