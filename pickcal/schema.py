"""Every variable that a project stores, declared once: dimensions, type, unit, meaning.

Dimension `micrograph` is shared by all groups. Variables that tasks write are chunked along it by the batch.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

FORMAT_VERSION = 4


class Status(enum.IntEnum):
    """What became of a micrograph in a stage."""

    PENDING = 0
    DONE = 1
    FAILED = 2
    SKIPPED = 3


class Columns(Protocol):
    """Arrays by name: a dataset of xarray, or arrays of NumPy where xarray need not be loaded for them."""

    def __getitem__(self, name: str, /) -> Any:
        """Array of this name; `numpy.asarray` takes it."""
        ...


class Table(Columns, Protocol):
    """Columns with attributes: a dataset of xarray, or a group of a project as `Project.stored` gives it."""

    @property
    def attrs(self) -> Mapping[Any, Any]:
        """What goes for all of them."""
        ...


@dataclass(frozen=True)
class Variable:
    """One stored array.

    Attributes
    ----------
    dims
        Names of its dimensions.
    dtype
        NumPy type, or `str` for variable-length text.
    units
        Unit, "" for none, "1" for plain numbers.
    meaning
        One line.
    fill
        Value of what was not written.
    """

    dims: tuple[str, ...]
    dtype: Any
    units: str
    meaning: str
    fill: Any

    def attributes(self) -> dict[str, Any]:
        """Attributes stored with the array, after the CF conventions."""
        out: dict[str, Any] = {"long_name": self.meaning}
        if self.units:
            out["units"] = self.units
        return out


def score_variable(meaning: str) -> Variable:
    """Variable for a score that another program gave to picks."""
    return _number(_P, "1", meaning, np.float64)


def _number(dims: tuple[str, ...], units: str, meaning: str, dtype: Any = np.float32) -> Variable:
    return Variable(dims, dtype, units, meaning, np.nan)


def _text(dims: tuple[str, ...], meaning: str) -> Variable:
    return Variable(dims, str, "", meaning, "")


_M = ("micrograph",)
_P = ("micrograph", "pick")
_D = ("micrograph", "decoy")

STATUS = Variable(_M, np.int8, "", "0 pending, 1 done, 2 failed, 3 skipped", 0)
ERROR = _text(_M, "why a micrograph failed or was skipped")

MICROGRAPHS: dict[str, Variable] = {
    "image": _number(
        ("micrograph", "y", "x"), "1", "working image, mean 0 and deviation 1 in its valid part", np.float16
    ),
    "image_mean": _number(_M, "source grey values", "mean of the working image before scaling", np.float64),
    "image_std": _number(
        _M, "source grey values", "standard deviation of the working image before scaling", np.float64
    ),
    "name": _text(_M, "name in the source table"),
    "source": _text(_M, "source file, with n@ before it for image n of a stack"),
    "pixel_size": _number(_M, "Å", "pixel size of the working image", np.float64),
    "source_pixel_size": _number(_M, "Å", "pixel size of the source", np.float64),
    "height": Variable(_M, np.int32, "px", "valid rows of the working image", 0),
    "width": Variable(_M, np.int32, "px", "valid columns of the working image", 0),
    "source_height": Variable(_M, np.int32, "px", "rows of the source", 0),
    "source_width": Variable(_M, np.int32, "px", "columns of the source", 0),
    "defocus_u": _number(_M, "Å", "defocus along the major axis, positive is underfocus", np.float64),
    "defocus_v": _number(_M, "Å", "defocus along the minor axis", np.float64),
    "defocus_angle": _number(_M, "degree", "angle of the major axis from x towards y", np.float64),
    "phase_shift": _number(_M, "degree", "phase shift of a phase plate", np.float64),
    "voltage": _number(_M, "kV", "acceleration voltage", np.float64),
    "spherical_aberration": _number(_M, "mm", "spherical aberration Cs", np.float64),
    "amplitude_contrast": _number(_M, "1", "amplitude contrast", np.float64),
    "exposure_group": Variable(_M, np.int32, "", "optics or exposure group", 0),
    "ctf_fit_resolution": _number(_M, "Å", "resolution to which the CTF was fitted", np.float64),
    "ice_thickness": _number(_M, "1", "ice-ring density or relative ice thickness", np.float64),
    "dose": _number(_M, "electrons per Å^2", "total dose, where a table tells it", np.float64),
    "uid": Variable(_M, np.uint64, "", "unique number of the micrograph in cryoSPARC, 0 where not known", 0),
    "status": STATUS,
    "error": ERROR,
}

PICKS: dict[str, Variable] = {
    "x": _number(_P, "Å", "position from the centre of the first pixel, along columns"),
    "y": _number(_P, "Å", "position from the centre of the first pixel, along rows"),
    "ncc": _number(_P, "1", "NCC score: correlation with the best template"),
    "power": _number(_P, "noise variances", "power score: mean squared density under the particle's disc"),
    "peak_power": _number(_P, "noise variances", "largest squared density within the disc"),
    "background": _number(_P, "image deviations", "local level that the high-pass removed"),
    "background_variance": _number(_P, "noise variances", "variance in the ring around the particle"),
    "template": Variable(_P, np.int32, "", "index of the best template, -1 for none", -1),
    "angle": _number(_P, "degree", "in-plane rotation of the template from x towards y"),
    "decoy_x": _number(_D, "Å", "position of a decoy"),
    "decoy_y": _number(_D, "Å", "position of a decoy"),
    "decoy_ncc": _number(_D, "1", "NCC score of a decoy on the contrast-inverted micrograph"),
    "decoy_power": _number(_D, "noise variances", "power score of a decoy"),
    "count": Variable(_M, np.int32, "", "number of picks", 0),
    "decoy_count": Variable(_M, np.int32, "", "number of decoys", 0),
    "capped": Variable(_M, np.int8, "", "1 where more picks were found than are kept", 0),
    "status": STATUS,
    "error": ERROR,
}

BANK: dict[str, Variable] = {
    "basis": _number(("basis", "box_y", "box_x"), "1", "basis images of the template bank"),
    "coefficients": _number(("entry", "basis"), "1", "entries as combinations of the basis"),
    "template": Variable(("entry",), np.int32, "", "template of an entry", -1),
    "angle": _number(("entry",), "degree", "rotation of an entry"),
    "group": Variable(("group_entry",), np.int32, "", "group of alike entries; empty for none", -1),
    "turned": Variable(("group_entry",), np.int8, "", "1 where the half-turn of an entry resembles its group", 0),
    "whitening": _number(("ring",), "1", "gain of the whitening filter at multiples of whitening_step; empty for none"),
}

STATIC = frozenset(MICROGRAPHS) - {"image", "image_mean", "image_std", "status", "error"}
