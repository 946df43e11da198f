"""The search of one micrograph with a stored bank: what picking shares with what repeats it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from pickcal.errors import InputError, ProjectError
from pickcal.picking.bank import Bank
from pickcal.picking.ctf import Ctf
from pickcal.picking.filters import RadialFilter
from pickcal.picking.fourier import Workspace
from pickcal.picking.search import SearchParameters, search
from pickcal.project import Project
from pickcal.schema import BANK, PICKS
from pickcal.settings import BlobSettings, PickSettings, TemplateSettings, validated

PIXEL_TOLERANCE = 0.03
CTF_NAMES = (
    "defocus_u",
    "defocus_v",
    "defocus_angle",
    "voltage",
    "spherical_aberration",
    "amplitude_contrast",
    "phase_shift",
)
NEEDED = ("status", "error", "height", "width", "pixel_size", *CTF_NAMES)
"""Columns of the table of micrographs that a search, or scoring, asks for."""


@dataclass(frozen=True)
class Search:
    """The search that makes some picks, small enough to travel with every task.

    Attributes
    ----------
    project, name
        Path of the project, absolute, and name of the picks.
    bank
        Digest of the stored bank.
    parameters
        Filters and distances.
    ctf
        Whether the templates get each micrograph's CTF.
    slots
        Places for picks per micrograph.
    """

    project: str
    name: str
    bank: str
    parameters: SearchParameters
    ctf: bool
    slots: int


def stored_search(project: Project, name: str) -> Search:
    """Search that made some stored picks, to be repeated with `search_micrograph`.

    Raises
    ------
    ProjectError
        If there are no such picks, or another program made them.
    """
    project.require("picks", name)
    settings = stored_picking(project, name)
    if settings is None:
        raise ProjectError(
            f"{project.path}: picks {name!r} were not found by a search of pickcal, which could be repeated on noise; "
            "use picks of 'pickcal pick'"
        )
    return search_of(project, name, settings)


def stored_picking(project: Project, name: str) -> PickSettings | None:
    """Give the settings with which some picks were searched; None for picks that were taken in or scored."""
    values, where = project.settings(f"picks/{name}"), f"picks {name}"
    values.pop("templates_sha256", None)
    if values.get("method") == "template":
        return validated(TemplateSettings, values, where)
    return validated(BlobSettings, values, where) if values.get("method") == "blob" else None


def search_of(project: Project, name: str, settings: PickSettings) -> Search:
    """Search of a picks group that holds its bank, with the settings it was created with."""
    stored = project.dataset(f"picks/{name}")
    return Search(
        project=str(project.path.absolute()),
        name=name,
        bank=str(stored.attrs["bank"]),
        parameters=search_parameters(settings),
        ctf=settings.ctf,
        slots=int(stored.sizes["pick"]),
    )


def search_parameters(settings: PickSettings) -> SearchParameters:
    """Translate settings for the picking functions."""
    return SearchParameters(
        diameter=settings.diameter,
        diameter_min=settings.diameter_min,
        diameter_max=settings.diameter_max,
        low_pass=settings.low_pass,
        high_pass=settings.high_pass or 3 * settings.diameter_max,
        sign=-1.0 if settings.contrast == "dark" else 1.0,
        min_distance=settings.min_distance * settings.diameter,
        max_picks=settings.max_picks,
    )


@lru_cache(maxsize=2)
def load_bank(made: Search) -> tuple[Bank, RadialFilter | None]:
    """Bank of a search, once per process; the digest keeps a replaced group from being mistaken for the old."""
    project, name = Project.open(made.project), made.name
    attributes = project.attributes(f"picks/{name}")
    arrays = {key: project.read(f"picks/{name}/bank", key) for key in BANK}
    gain, group, turned = (arrays.pop(key) for key in ("whitening", "group", "turned"))
    whitening = RadialFilter(float(attributes["whitening_step"]), gain) if len(gain) else None
    bank = Bank(
        **arrays,
        ratio=(int(attributes["bank_ratio"][0]), int(attributes["bank_ratio"][1])),
        odd=int(attributes["bank_odd"]),
        pairs=int(attributes["bank_pairs"]),
        group=group if group.size else None,
        turned=turned.astype(bool) if group.size else None,
        pixel_size=float(attributes["bank_pixel_size"]),
        mask_radius=float(attributes["bank_mask_radius"]),
        mask_edge=float(attributes["bank_mask_edge"]),
        energy=float(attributes["bank_energy"]),
    )
    return bank, whitening


def image_of(project: Project, index: int, row: xr.Dataset) -> NDArray[np.float32]:
    """Return the working image `(y, x)` of a micrograph whose row of the table is at hand."""
    return project.image(index, (int(row["height"].item()), int(row["width"].item())))


def search_micrograph(
    image: NDArray[np.float32],
    row: xr.Dataset,
    bank: Bank,
    whitening: RadialFilter | None,
    made: Search,
    workspace: Workspace | None = None,
) -> dict[str, NDArray[Any] | int]:
    """Find picks and decoys of one image.

    Parameters
    ----------
    image
        Working image `(y, x)`.
    row
        Row of the table of micrographs that the image belongs to: pixel size and CTF.
    bank, whitening
        From `load_bank`.
    made
        The search.
    workspace
        Memory for one micrograph after the other; by default new.

    Returns
    -------
    dict
        Columns of `schema.PICKS` for this micrograph, padded to the places there are.

    Raises
    ------
    InputError
        If pixel size, diameter or CTF do not suit the search.
    """
    ctf = suited(image, row, bank, made)
    picks, decoys = search(image, float(row["pixel_size"]), bank, made.parameters, ctf, whitening, workspace)
    slots = made.slots
    out: dict[str, NDArray[Any] | int] = {
        name: padded(getattr(picks, name), slots, PICKS[name].fill)
        for name in ("x", "y", "ncc", "power", "peak_power", "background", "background_variance", "template", "angle")
    }
    for name in ("x", "y", "ncc", "power"):
        out[f"decoy_{name}"] = padded(getattr(decoys, name), slots, np.nan)
    out["count"], out["decoy_count"] = min(len(picks.x), slots), min(len(decoys.x), slots)
    out["capped"] = int(picks.capped or len(picks.x) > slots)
    return out


def suited(image: NDArray[np.float32], row: xr.Dataset, bank: Bank, made: Search) -> Ctf | None:
    """Give the CTF that the templates need on an image, None without CTF; parameters as of `search_micrograph`.

    Raises
    ------
    InputError
        If pixel size, diameter or CTF do not suit the search.
    """
    pixel_size = float(row["pixel_size"])
    expected = bank.pixel_size * bank.ratio[1] / bank.ratio[0]
    if abs(pixel_size / expected - 1) > PIXEL_TOLERANCE:
        raise InputError(
            f"working pixel {pixel_size:.3g} Å, the other micrographs have {expected:.3g} Å; "
            "import the two kinds into separate projects"
        )
    side = min(image.shape) * pixel_size
    if made.parameters.diameter_max >= side:
        raise InputError(
            f"diameter: expected less than this micrograph's side of {side:.0f} Å, "
            f"got {made.parameters.diameter_max:g} Å"
        )
    return _ctf(row) if made.ctf else None


def _ctf(row: xr.Dataset) -> Ctf:
    values = {name: float(row[name].item()) for name in CTF_NAMES}
    for name in ("defocus_angle", "phase_shift"):
        values[name] = float(np.nan_to_num(values[name]))
    missing = [name for name, value in values.items() if not np.isfinite(value)]
    if missing:
        raise InputError(
            f"the CTF needs {', '.join(missing)}, which the table lacks; import anew, or pick with --no-ctf"
        )
    ctf = Ctf(**values)
    if not ctf.defocus > 0:
        raise InputError(f"defocus: expected above 0 Å, got {ctf.defocus:g} Å; import anew, or pick with --no-ctf")
    return ctf


def padded(values: NDArray[Any], length: int, fill: Any) -> NDArray[Any]:
    """Cut or fill up a column to a length."""
    out = np.full(length, fill, dtype=values.dtype)
    out[: min(length, len(values))] = values[:length]
    return out
