"""Micrographs, template stacks and maps from MRC and TIFF files, told apart by content and never by extension."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pickcal.errors import InputError, MissingFileError
from pickcal.formats import mrc, tiff
from pickcal.formats.mrc import write_mrc
from pickcal.pixels import Summary, summarise

__all__ = [
    "ImageInfo",
    "image_info",
    "is_volume",
    "open_image_info",
    "read_measured",
    "read_stack",
    "read_volume",
    "split_name",
    "split_stack_name",
    "write_mrc",
]

MIN_SIDE = 64
MAX_BAD_SHARE = 1e-3
STACK_NAME = re.compile(r"(\d+)@(.+)", re.DOTALL)

FloatImage = NDArray[np.float32]


@dataclass(frozen=True)
class ImageInfo:
    """Where one image is and how large.

    Attributes
    ----------
    path
        File.
    index
        0-based slice of a stack; None for a file with a single image.
    height, width
        Rows and columns, pixels.
    pixel_size
        Å, None when the header has none.
    images
        Number of images in the file.
    """

    path: Path
    index: int | None
    height: int
    width: int
    pixel_size: float | None
    images: int

    @property
    def name(self) -> str:
        """RELION's name of the image: the path, with `000001@` before it for a slice (counted from 1)."""
        return str(self.path) if self.index is None else f"{self.index + 1:06d}@{self.path}"


def split_stack_name(name: str) -> tuple[int | None, Path]:
    """Split RELION's name of a slice into slice and file.

    Parameters
    ----------
    name
        `000001@stack.mrcs` (slices counted from 1) or a plain path.

    Returns
    -------
    index, path
        0-based slice or None, and the file.

    Raises
    ------
    InputError
        If the slice is 0.

    Examples
    --------
    >>> index, path = split_stack_name("000003@dir/s.mrcs")
    >>> index, path.as_posix()
    (2, 'dir/s.mrcs')
    """
    index, file = split_name(name)
    return index, Path(file)


def split_name(name: str) -> tuple[int | None, str]:
    """As `split_stack_name`, the file as it is written: it may be a URL."""
    match = STACK_NAME.fullmatch(name)
    if match is None:
        return None, name
    if int(match[1]) == 0:
        raise InputError(f"{name}: expected a slice counted from 1, as RELION does, found 0")
    return int(match[1]) - 1, match[2]


def open_image_info(path: Path, *, stacks: bool = False) -> list[ImageInfo]:
    """Read the header of a file of one or, with `stacks`, several micrographs.

    Parameters
    ----------
    path
        MRC or TIFF file.
    stacks
        Take a file of several images as a stack of micrographs. Default False: refuse it as a movie.

    Returns
    -------
    list of ImageInfo
        One per image.

    Raises
    ------
    MissingFileError
        If there is no such file.
    InputError
        If it is neither MRC nor TIFF, is damaged, or is a movie.
    """
    header = _header(path)
    if header.images == 1:
        return [_info(path, header, None)]
    if not stacks:
        raise InputError(
            f"{path}: expected one micrograph, found a movie of {header.images} images; run motion correction "
            "first, or give --stacks if it is a stack of micrographs"
        )
    if isinstance(header, mrc.MrcHeader):
        mrc.check_complete(path, header)
    return [_info(path, header, index) for index in range(header.images)]


def image_info(path: Path, index: int | None = None) -> ImageInfo:
    """Read the header of one image, as `split_stack_name` names it.

    Parameters
    ----------
    path
        MRC or TIFF file.
    index
        0-based slice; None (default) for a file with a single image.

    Raises
    ------
    MissingFileError, InputError
        As `open_image_info`; also if the file has no such slice.
    """
    if index is None:
        return open_image_info(path)[0]
    header = _header(path)
    if not 0 <= index < header.images:
        raise InputError(f"{path}: expected a slice from 1 to {header.images}, got {index + 1}")
    return _info(path, header, index)


def read_measured(info: ImageInfo, out: FloatImage | None = None) -> tuple[FloatImage, Summary]:
    """Read one micrograph, of a stack only its slice, and measure its pixels on the way.

    Up to 0.1 % of pixels that are not finite are replaced by the mean of the others.

    Parameters
    ----------
    info
        From `open_image_info` or `image_info`.
    out
        Memory to read into, float32 `(y, x)`, in one piece. Default: new memory, which for large images costs more
        than reading does.

    Returns
    -------
    image, summary
        float32, `(y, x)`, all finite; what its pixels are.

    Raises
    ------
    MissingFileError
        If the file is gone.
    InputError
        If the image is smaller than 64 pixels on a side, its file truncated or of a type that is not supported, or
        its pixels are constant or more than 0.1 % of them not finite.
    """
    header = _header(info.path)
    index = info.index or 0
    if (header.height, header.width) != (info.height, info.width) or index >= header.images:
        raise InputError(
            f"{info.name}: expected {info.height} x {info.width} pixels, found {header.height} x {header.width} "
            f"in {header.images} images: the file changed since it was looked at"
        )
    if min(info.height, info.width) < MIN_SIDE:
        raise InputError(
            f"{info.name}: expected a micrograph of at least {MIN_SIDE} x {MIN_SIDE} pixels, "
            f"found {info.height} x {info.width}"
        )
    if out is None:
        return _finite(_sections(info.path, header, index, 1)[0], info.name)
    if not (isinstance(header, mrc.MrcHeader) and mrc.read_into(info.path, header, index, out)):
        with np.errstate(over="ignore", invalid="ignore"):
            out[...] = _sections(info.path, header, index, 1)[0]
    return _finite(out, info.name)


def read_stack(path: Path) -> tuple[FloatImage, float | None]:
    """Read all images of a file, such as class averages.

    Parameters
    ----------
    path
        MRC stack or TIFF file; a single image is a stack of one. Empty classes (constant images) are kept.

    Returns
    -------
    stack, pixel_size
        float32 `(n, y, x)`, and Å or None when the header has none.

    Raises
    ------
    MissingFileError, InputError
        As `read_measured`, without the least size; constant is an error only for all images together.
    """
    header = _header(path)
    stored = _sections(path, header, 0, header.images)
    images, _ = _finite(stored.reshape(-1, stored.shape[2]), str(path))
    return images.reshape(stored.shape), header.pixel_size


def read_volume(path: Path) -> tuple[FloatImage, float | None]:
    """Read a cubic map.

    Parameters
    ----------
    path
        MRC file with as many sections as rows and columns.

    Returns
    -------
    volume, pixel_size
        float32 `(z, y, x)`, and Å or None when the header has none.

    Raises
    ------
    MissingFileError, InputError
        As `read_stack`; also if the file is not a cubic map.
    """
    header = _header(path)
    if not is_volume(path):
        raise InputError(
            f"{path}: expected a cubic map (.mrc or .map, as many sections as rows and columns), found "
            f"{header.images} x {header.height} x {header.width}; give a stack of 2D templates as .mrcs"
        )
    return read_stack(path)


def is_volume(path: Path) -> bool:
    """Whether a file is a cubic 3D map and not a stack of images.

    Parameters
    ----------
    path
        Any file. A `.mrcs` file is never a map; any other cubic MRC file is one if its space group is 1 or its
        extension `.mrc` or `.map` (old programs left the space group 0).

    Raises
    ------
    MissingFileError, InputError
        If there is no such file, or it is neither MRC nor TIFF; or if it is a map, by its space group, that is no cube:
        its sections would make strange templates.
    """
    header = _header(path)
    if not isinstance(header, mrc.MrcHeader) or path.suffix.lower() == ".mrcs":
        return False
    cubic = header.images == header.height == header.width > 1
    if header.space_group == 1 and header.images > 1 and not cubic:
        raise InputError(
            f"{path}: expected a cubic map (as many sections as rows and columns) or a stack of 2D templates, found a "
            f"map (space group 1) of {header.images} x {header.height} x {header.width}; make it a cube, or, if it is "
            "a stack, give it a name that ends in .mrcs"
        )
    return cubic and (header.space_group == 1 or path.suffix.lower() in (".mrc", ".map"))


def _header(path: Path) -> mrc.MrcHeader | tiff.TiffHeader:
    head, size = _first_bytes(path)
    if tiff.looks_like_tiff(head):
        return tiff.read_header(path)
    if mrc.looks_like_mrc(head):
        return mrc.parse_header(path, head)
    raise InputError(
        f"{path}: expected an MRC or TIFF file, found neither (its first bytes are {head[:8]!r}, its size {size} bytes)"
    )


def _first_bytes(path: Path) -> tuple[bytes, int]:
    """First bytes of a file, a header at most, and its size; nobody is waited for who would write into a pipe."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        try:
            return os.read(handle, mrc.HEADER_BYTES), os.fstat(handle).st_size
        finally:
            os.close(handle)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # the last for a name that no file can have
        raise MissingFileError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: expected an image file, found a folder") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from None


def _info(path: Path, header: mrc.MrcHeader | tiff.TiffHeader, index: int | None) -> ImageInfo:
    return ImageInfo(path, index, header.height, header.width, header.pixel_size, header.images)


def _sections(path: Path, header: mrc.MrcHeader | tiff.TiffHeader, first: int, count: int) -> NDArray[Any]:
    if isinstance(header, mrc.MrcHeader):
        return mrc.read_sections(path, header, first, count)
    return tiff.read_sections(path, first, count)


def _finite(stored: NDArray[Any], name: str) -> tuple[FloatImage, Summary]:
    """Pixels `(y, x)` as float32, a few bad ones replaced; images without any contrast are refused."""
    with np.errstate(over="ignore", invalid="ignore"):
        pixels = stored.astype(np.float32, copy=False)
    found = summarise(pixels)
    if not found.finite():
        good = np.isfinite(pixels)
        bad = pixels.size - int(np.count_nonzero(good))
        if bad == pixels.size:
            raise InputError(f"{name}: expected numbers, found no finite pixel at all; process the movie again")
        if bad > MAX_BAD_SHARE * pixels.size:
            raise InputError(
                f"{name}: expected finite pixels, found {bad} of {pixels.size} ({bad / pixels.size:.2%}) that are NaN "
                "or infinite; process the movie again"
            )
        if bad:
            pixels[~good] = pixels[good].mean(dtype=np.float64)
            found = summarise(pixels)
        if not found.finite():
            raise InputError(
                f"{name}: expected pixels with a mean and a variance, found values from {found.low:g} to "
                f"{found.high:g}, too large for single precision; process the movie again"
            )
    if found.low == found.high:
        raise InputError(f"{name}: expected an image, found {found.low:g} in every pixel; process the movie again")
    return pixels, found
