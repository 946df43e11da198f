"""MRC files: the header, single images out of large stacks, and writing.

Source: Cheng et al. (2015), J. Struct. Biol. 192, 146-150 (MRC2014); modes 6 and 12 from www.ccpem.ac.uk/mrc_format.
`mrcfile` writes; the header is taken apart here, which for a hundred thousand files takes seconds less, and pixels are
read at their offset, so that one image of a stack costs the memory of one image and files with a missing map word or
machine stamp can still be used.
"""

from __future__ import annotations

import math
import struct
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import mrcfile
import numpy as np
from numpy.typing import NDArray

from pickcal.errors import InputError
from pickcal.formats.atomic import atomic_path

HEADER_BYTES = 1024
DTYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
MODE_NAMES = {3: "complex of 16-bit integers", 4: "complex of 32-bit floats", 101: "4-bit packed"}
# rows, columns and images beyond these come from damaged headers, not from cameras
MAX_SIDE = 200_000
MAX_IMAGES = 10_000_000
IMOD_STAMP = 1146047817
WRITTEN_AS_THEY_ARE = (np.dtype("i1"), np.dtype("i2"), np.dtype("u2"), np.dtype("f2"), np.dtype("f4"))


class _Fields(NamedTuple):
    """Numbers of a header, by MRC2014's names; `_LAYOUTS` tells their places."""

    nx: int
    ny: int
    nz: int
    mode: int
    mx: int
    my: int
    cell_x: float
    cell_y: float
    mapc: int
    mapr: int
    maps: int
    ispg: int
    nsymbt: int
    imod_stamp: int
    imod_flags: int


# words 1-4, 8-9, 11-12, 17-19, 23-24, and IMOD's 39-40
_LAYOUTS = {order: struct.Struct(f"{order}4i 12x 2i 4x 2f 16x 3i 12x 2i 56x 2i") for order in "<>"}
_TYPES = {order + code: np.dtype(order + code) for order in "<>" for code in (*DTYPES.values(), "u1")}


@dataclass(frozen=True)
class MrcHeader:
    """What pickcal needs of an MRC header.

    Attributes
    ----------
    images, height, width
        Number of sections, rows and columns.
    mode
        MRC mode number.
    pixel_size
        Å along x, None when the header has none, or different ones along x and y.
    offset
        Bytes before the first pixel.
    dtype
        Type of a stored pixel with its byte order; None for a mode that pickcal does not read.
    space_group
        0 for images and stacks, 1 for volumes.
    """

    images: int
    height: int
    width: int
    mode: int
    pixel_size: float | None
    offset: int
    dtype: np.dtype[Any] | None
    space_group: int


def looks_like_mrc(head: bytes) -> bool:
    """Tell an MRC file by its first 1024 bytes: the word MAP, or for older files numbers that make sense."""
    if head[208:211] == b"MAP":
        return True
    return len(head) >= HEADER_BYTES and any(_plausible(_fields(head, order), strict=True) for order in "<>")


def read_header(path: Path) -> MrcHeader:
    """Read the header of an MRC file.

    Parameters
    ----------
    path
        An existing file.

    Raises
    ------
    InputError
        If the file is shorter than a header, or the header's numbers make no sense in either byte order.
    """
    with path.open("rb") as file:
        return parse_header(path, file.read(HEADER_BYTES))


def parse_header(path: Path, head: bytes) -> MrcHeader:
    """As `read_header`, of the first bytes of a file, at most `HEADER_BYTES`."""
    if len(head) < HEADER_BYTES:
        raise InputError(
            f"{path}: truncated: expected an MRC header of {HEADER_BYTES} bytes, the file has {len(head)}; "
            "copy it again"
        )
    first = ">" if head[212:213] == b"\x11" else "<"
    for order in (first, "<" if first == ">" else ">"):
        fields = _fields(head, order)
        if _plausible(fields):
            return _header(fields, order)
    fields = _fields(head, first)
    found = ", ".join(f"{name} {getattr(fields, name)}" for name in ("nx", "ny", "nz", "mode", "nsymbt"))
    raise InputError(f"{path}: the MRC header makes no sense: found {found}; the file is damaged, copy it again")


def check_complete(path: Path, header: MrcHeader) -> np.dtype[Any]:
    """Refuse a mode that cannot be read and a file that is shorter than its header says.

    Returns
    -------
    numpy.dtype
        Type of the stored pixels.

    Raises
    ------
    InputError
        Naming the mode, or both sizes.
    """
    if header.dtype is None:
        name = MODE_NAMES.get(header.mode)
        found = f"{header.mode} ({name})" if name else f"{header.mode}"
        supported = ", ".join(str(mode) for mode in DTYPES)
        raise InputError(f"{path}: expected MRC mode {supported}, found {found}; convert the file to mode 2")
    expected = header.offset + header.images * header.height * header.width * header.dtype.itemsize
    actual = path.stat().st_size
    if actual < expected:
        raise InputError(f"{path}: truncated: its header says {expected} bytes, the file has {actual}; copy it again")
    return header.dtype


def read_sections(path: Path, header: MrcHeader, first: int, count: int) -> NDArray[Any]:
    """Read some sections and nothing else of the file.

    Parameters
    ----------
    path, header
        The file and its header.
    first, count
        First section (0-based) and number of sections.

    Returns
    -------
    ndarray
        Shape `(count, y, x)`, the stored type in the machine's byte order.

    Raises
    ------
    InputError
        As `check_complete`.
    """
    dtype = check_complete(path, header)
    pixels = header.height * header.width
    offset = header.offset + first * pixels * dtype.itemsize
    data = np.fromfile(path, dtype=dtype, count=count * pixels, offset=offset)
    return data.reshape(count, header.height, header.width).astype(dtype.newbyteorder("="), copy=False)


def read_into(path: Path, header: MrcHeader, index: int, out: NDArray[np.float32]) -> bool:
    """Read one section into memory that is there, if it is stored just as it is held there.

    Parameters
    ----------
    path, header
        The file and its header.
    index
        Section, 0-based.
    out
        float32 `(y, x)`, in one piece.

    Returns
    -------
    bool
        False, and nothing read, if the file holds other numbers than float32 of the machine's byte order.

    Raises
    ------
    InputError
        As `check_complete`, and if the file becomes shorter meanwhile.
    """
    dtype = check_complete(path, header)
    if dtype != out.dtype:
        return False
    memory: Any = out.reshape(-1)
    rest = memoryview(memory).cast("B")
    with path.open("rb", buffering=0) as file:
        file.seek(header.offset + index * rest.nbytes)
        while len(rest):
            got = file.readinto(rest)
            if not got:
                raise InputError(f"{path}: became shorter while it was read, {len(rest)} bytes lack; copy it again")
            rest = rest[got:]
    return True


def write_mrc(path: Path, array: NDArray[Any], pixel_size: float, *, stack: bool = False) -> None:
    """Write an MRC file, whole or not at all.

    Parameters
    ----------
    path
        File to write; folders are created, an existing file is replaced.
    array
        Shape `(y, x)`, or `(n, y, x)`. int8, int16, uint16, float16 (mode 12, which RELION before version 4 does not
        read) and float32 are stored as they are, anything else as float32.
    pixel_size
        Å per pixel, above 0.
    stack
        True: the first axis counts images. Default False: it is z of a volume.

    Raises
    ------
    InputError
        If the pixel size is not positive, the array has neither two nor three dimensions, or it is empty.
    """
    if not (np.isfinite(pixel_size) and pixel_size > 0):
        raise InputError(f"{path}: pixel_size: expected Å above 0, got {pixel_size}")
    if array.ndim not in (2, 3) or array.size == 0:
        raise InputError(f"{path}: expected an array (y, x) or (n, y, x), got shape {array.shape}")
    if array.dtype.newbyteorder("=") not in WRITTEN_AS_THEY_ARE:
        array = array.astype(np.float32)
    if stack and array.ndim == 2:
        array = array[None]
    with atomic_path(path) as temporary, warnings.catch_warnings():
        # mrcfile warns of infinite or missing pixels while it computes the header's statistics
        warnings.simplefilter("ignore")
        with mrcfile.new(temporary) as file:
            file.set_data(np.ascontiguousarray(array))
            if stack:
                file.set_image_stack()
            file.voxel_size = pixel_size


def _fields(head: bytes, order: str) -> _Fields:
    return _Fields(*_LAYOUTS[order].unpack_from(head))


def _plausible(fields: _Fields, strict: bool = False) -> bool:
    sizes = 0 < fields.nx <= MAX_SIDE and 0 < fields.ny <= MAX_SIDE and 0 < fields.nz <= MAX_IMAGES
    sizes = sizes and fields.nsymbt >= 0
    if not strict:
        return sizes and 0 <= fields.mode <= 1000
    axes = sorted((fields.mapc, fields.mapr, fields.maps))
    return sizes and (fields.mode in DTYPES or fields.mode in MODE_NAMES) and axes in ([1, 2, 3], [0, 0, 0])


def _header(fields: _Fields, order: str) -> MrcHeader:
    code = DTYPES.get(fields.mode)
    # IMOD wrote bytes unsigned and says so (bit 0 of the flags: signed)
    if fields.mode == 0 and fields.imod_stamp == IMOD_STAMP and not fields.imod_flags & 1:
        code = "u1"
    return MrcHeader(
        images=fields.nz,
        height=fields.ny,
        width=fields.nx,
        mode=fields.mode,
        pixel_size=_pixel_size(fields),
        offset=HEADER_BYTES + fields.nsymbt,
        dtype=_TYPES[order + code] if code else None,
        space_group=fields.ispg,
    )


def _pixel_size(fields: _Fields) -> float | None:
    across = fields.cell_x / fields.mx if fields.mx > 0 and math.isfinite(fields.cell_x) else 0.0
    down = fields.cell_y / fields.my if fields.my > 0 and math.isfinite(fields.cell_y) else 0.0
    if across <= 0 or (down > 0 and abs(across - down) > 0.01 * across):
        return None
    return round(across, 6)
