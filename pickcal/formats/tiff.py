"""TIFF micrographs as Digital Micrograph, SerialEM and EPU write them; rows in the order of the file."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from pickcal.errors import InputError

MAGIC = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")
MAX_SIDE = 200_000
ANGSTROM_PER_UNIT = {2: 2.54e8, 3: 1e8}
# a resolution tag outside these is meant for printers (72 dpi is 3.5 million Å per pixel)
PIXEL_SIZE_RANGE = (0.05, 200.0)


@dataclass(frozen=True)
class TiffHeader:
    """What pickcal needs of a TIFF file.

    Attributes
    ----------
    images, height, width
        Number of images, rows and columns.
    pixel_size
        Å, None when the resolution tag is absent or meant for printers.
    """

    images: int
    height: int
    width: int
    pixel_size: float | None


def looks_like_tiff(head: bytes) -> bool:
    """Tell a TIFF or BigTIFF file by its first four bytes."""
    return head[:4] in MAGIC


def read_header(path: Path) -> TiffHeader:
    """Read the tags of a TIFF file.

    Raises
    ------
    InputError
        If the file is damaged, or holds colour or complex images.
    """
    try:
        _check_chain(path)
        with tifffile.TiffFile(path) as file:
            return _header(path, file)
    except InputError:
        raise
    except Exception as error:  # tifffile raises whatever its many decoders raise
        raise _damaged(path, error) from None


def read_sections(path: Path, first: int, count: int) -> NDArray[Any]:
    """Read some images of a TIFF file.

    Parameters
    ----------
    path
        The file.
    first, count
        First image (0-based) and number of images.

    Returns
    -------
    ndarray
        Shape `(count, y, x)`, the stored type.

    Raises
    ------
    InputError
        As `read_header`, and if the file is shorter than its tags say or its pixels cannot be decoded.
    """
    try:
        _check_chain(path)
        with tifffile.TiffFile(path) as file:
            header = _header(path, file)
            _check_complete(path, file)
            series = file.series[0]
            shape = (count, header.height, header.width)
            if len(series.pages) == header.images:
                return np.asarray(file.asarray(key=slice(first, first + count), series=0)).reshape(shape)
            # ImageJ writes one tag directory for a whole contiguous stack
            stored: NDArray[Any] = np.asarray(series.asarray()).reshape(header.images, *shape[1:])
            return stored[first : first + count]
    except InputError:
        raise
    except Exception as error:  # tifffile raises whatever its many decoders raise
        raise _damaged(path, error) from None


def _check_chain(path: Path) -> None:
    """Refuse directories that lead back to one of themselves: tifffile would follow them for ever."""
    with path.open("rb") as file:
        head = file.read(16)
        order = "<" if head[:2] == b"II" else ">"
        big = head[2:4] in (b"\x2b\x00", b"\x00\x2b")
        count, link, size = ("Q", "Q", 20) if big else ("H", "I", 12)
        at = struct.unpack_from(order + link, head, 8 if big else 4)[0]
        seen = set()
        while at:
            if at in seen:
                raise InputError(
                    f"{path}: its directory at byte {at} follows itself; the file is damaged, copy it again"
                )
            seen.add(at)
            file.seek(at)
            number = file.read(struct.calcsize(count))
            if len(number) < struct.calcsize(count):
                return
            file.seek(size * struct.unpack(order + count, number)[0], 1)
            following = file.read(struct.calcsize(link))
            if len(following) < struct.calcsize(link):
                return
            at = struct.unpack(order + link, following)[0]


def _header(path: Path, file: Any) -> TiffHeader:
    if not file.series:
        raise InputError(f"{path}: expected an image in the TIFF file, found none; the file is damaged, copy it again")
    series = file.series[0]
    if "S" in series.axes or series.keyframe.samplesperpixel != 1:
        raise InputError(
            f"{path}: expected a grey TIFF, found {series.keyframe.samplesperpixel} samples per pixel (colour); "
            "convert it to one channel"
        )
    if series.dtype is None or series.dtype.kind not in "uif":
        raise InputError(f"{path}: expected a TIFF of integers or floats, found {series.dtype}; convert it to float32")
    *leading, height, width = series.shape
    if not (0 < height <= MAX_SIDE and 0 < width <= MAX_SIDE):
        raise InputError(f"{path}: expected an image, found {height} x {width} pixels; the file is damaged")
    return TiffHeader(math.prod(leading), int(height), int(width), _pixel_size(series.keyframe))


def _check_complete(path: Path, file: Any) -> None:
    page = file.series[0].keyframe
    pages = [page] if len(file.series[0].pages) == 1 else [p for p in file.pages if p is not None]
    expected = max(
        (start + size for p in pages for start, size in zip(p.dataoffsets, p.databytecounts, strict=True)), default=0
    )
    actual = path.stat().st_size
    if actual < expected:
        raise InputError(f"{path}: truncated: its tags say {expected} bytes, the file has {actual}; copy it again")
    if page.compression == 1 and sum(page.databytecounts) < page.nbytes:
        raise InputError(
            f"{path}: truncated: an image takes {page.nbytes} bytes, the file stores {sum(page.databytecounts)}"
        )


def _pixel_size(page: Any) -> float | None:
    resolution, unit = page.tags.get("XResolution"), page.tags.get("ResolutionUnit")
    scale = ANGSTROM_PER_UNIT.get(int(unit.value)) if unit is not None else None
    if resolution is None or scale is None:
        return None
    numerator, denominator = resolution.value
    if numerator <= 0 or denominator <= 0:
        return None
    size = scale * denominator / numerator
    return float(size) if PIXEL_SIZE_RANGE[0] <= size <= PIXEL_SIZE_RANGE[1] else None


def _damaged(path: Path, error: Exception) -> InputError:
    reason = str(error) or type(error).__name__
    return InputError(f"{path}: the TIFF file cannot be read ({reason}); it is damaged, or of a kind not supported")
