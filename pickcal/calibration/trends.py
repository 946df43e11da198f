"""Trends: what the expectation of a score is linear in, from the table of micrographs alone.

A trend is a small recipe (reference defocus, knots, covariates and their centres), so that a fit made on some
micrographs can be laid on others, also on those that arrive later.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from pickcal.errors import InputError
from pickcal.schema import Columns

if TYPE_CHECKING:
    import xarray as xr

Floats = NDArray[np.floating]

UM = 1e-4
SPLINE_KNOTS = 4
TIMESTAMP = re.compile(r"(20\d{6})[_-]?(\d{6})")


@dataclass(frozen=True)
class Trend:
    """Terms of a linear model of micrographs; every column but the first is 0 at the reference.

    Attributes
    ----------
    reference
        Defocus, Å.
    degree
        1 a line, 2 a parabola in defocus; without knots.
    knots
        Knots of a natural cubic spline in defocus, µm about the reference; empty for a polynomial.
    covariates, centres
        Further covariates and their values at the reference, NaN for one that was nowhere known and has the column 0;
        `exposure_group` is not among them.
    groups
        Exposure groups that have a constant each, the first being that of the reference; empty for one constant.
    dose
        Column of the table that the covariate `dose` is taken from; "" for whichever a block of micrographs has, as in
        recipes from before it was kept.
    """

    reference: float
    degree: int = 1
    knots: tuple[float, ...] = ()
    covariates: tuple[str, ...] = ()
    centres: tuple[float, ...] = ()
    groups: tuple[int, ...] = ()
    dose: str = ""

    @classmethod
    def of(
        cls,
        micrographs: xr.Dataset,
        reference: float | None = None,
        degree: int = 1,
        covariates: Sequence[str] = (),
        spline: bool = False,
        scored: NDArray[np.bool_] | None = None,
    ) -> Trend:
        """Make the recipe for a data set.

        Parameters
        ----------
        micrographs
            Table of the micrographs that will be fitted.
        reference
            Defocus, Å; default: the median.
        degree, covariates
            See the class; `exposure_group` among the covariates gives every group a constant.
        spline
            A natural cubic spline in defocus with four knots at even quantiles, instead of a polynomial.
        scored
            Which micrographs have scores, shape `(micrograph,)`: exposure groups of others have no constant; default:
            all.

        Raises
        ------
        InputError
            If a covariate is not known of any micrograph.
        """
        defocus = mean_defocus(micrographs)
        known = defocus[np.isfinite(defocus)]
        if reference is None:
            reference = float(np.median(known)) if len(known) else 0.0
        knots: tuple[float, ...] = ()
        if spline and len(known):
            places = np.unique(np.quantile((known - reference) * UM, np.linspace(0.0, 1.0, SPLINE_KNOTS)))
            knots = tuple(float(place) for place in places) if len(places) == SPLINE_KNOTS else ()
        names = tuple(name for name in covariates if name != "exposure_group")
        dose = dose_column(micrographs) if "dose" in names else ""
        centres = []
        for name in names:
            values = covariate(micrographs, name, dose)
            if not np.isfinite(values).any():
                raise InputError(
                    f"covariates: expected {name} of the micrographs, found it on none of {len(values)}"
                    + ("; names hold no time stamp YYYYMMDD_HHMMSS" if name == "time" else "")
                )
            centres.append(float(np.nanmedian(values)))
        groups: tuple[int, ...] = ()
        if "exposure_group" in covariates:
            of = micrographs["exposure_group"].values
            found, counts = np.unique(of if scored is None else of[scored], return_counts=True)
            groups = tuple(int(group) for group in found[np.argsort(-counts, kind="stable")])
        return cls(reference, degree, knots, names, tuple(centres), groups, dose)

    @property
    def terms(self) -> list[str]:
        """Names of the columns."""
        names = ["constant", "defocus"]
        names += [f"spline {i + 1}" for i in range(len(self.knots) - 2)] if self.knots else []
        names += ["defocus^2"] if not self.knots and self.degree == 2 else []
        return [*names, *self.covariates, *(f"exposure group {group}" for group in self.groups[1:])]

    def design(self, micrographs: xr.Dataset) -> Floats:
        """Design matrix `(micrograph, term)`: defocus in µm about the reference; NaN where a value is unknown.

        What an exposure group adds is unknown if the group is none of `groups`.
        """
        offset = (mean_defocus(micrographs) - self.reference) * UM
        columns = [np.ones(len(offset)), offset]
        if self.knots:
            columns += _natural_spline(offset, np.asarray(self.knots))
        elif self.degree == 2:
            columns.append(offset**2)
        for name, centre in zip(self.covariates, self.centres, strict=True):
            columns.append(covariate(micrographs, name, self.dose) - centre)
        if self.groups:
            group = micrographs["exposure_group"].values
            known = np.isin(group, self.groups)
            columns += [np.where(known, group == other, np.nan) for other in self.groups[1:]]
        return np.column_stack(columns)

    def slope_at_reference(self) -> Floats:
        """Slope in defocus at the reference, per µm, as a combination of the coefficients."""
        import xarray as xr

        step = 10.0
        ends = self.reference + np.array([-step, step])
        alone = replace(self, covariates=(), centres=(), groups=())
        low, high = alone.design(xr.Dataset({name: ("micrograph", ends) for name in ("defocus_u", "defocus_v")}))
        contrast = np.zeros(len(self.terms))
        contrast[: len(low)] = (high - low) / (2 * step * UM)
        return contrast

    def to_json(self) -> str:
        """Text that `from_json` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Trend:
        """Trend written by `to_json`."""
        values: dict[str, Any] = json.loads(text)
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)


def mean_defocus(micrographs: Columns) -> Floats:
    """Mean of both defoci of every micrograph, Å."""
    u, v = (np.asarray(micrographs[name], dtype=np.float64) for name in ("defocus_u", "defocus_v"))
    return 0.5 * (u + v)


def dose_column(micrographs: xr.Dataset) -> str:
    """Column that tells of the dose: `dose` where a table gives any above 0, else the mean grey value `image_mean`."""
    return "dose" if "dose" in micrographs and (micrographs["dose"].values > 0).any() else "image_mean"


def covariate(micrographs: xr.Dataset, name: str, dose: str = "") -> Floats:
    """Values of one covariate of every micrograph.

    Parameters
    ----------
    micrographs
        The project's table.
    name
        A column of the table; or `astigmatism` (µm); `dose`, the natural logarithm of the dose that a table tells, or
        where none does of the mean grey value, which is dose times what the ice lets through; `time`, hours since the
        year 2000 by the time stamp YYYYMMDD_HHMMSS in the name. NaN where it is not known.
    dose
        Column that `dose` is taken from; default: that of `dose_column`.
    """
    if name == "astigmatism":
        return np.asarray(np.abs(micrographs["defocus_u"].values - micrographs["defocus_v"].values) * UM)
    if name == "dose":
        told = micrographs[dose or dose_column(micrographs)].values.astype(np.float64)
        return np.where(told > 0, np.log(np.where(told > 0, told, 1.0)), np.nan)
    if name == "time":
        return np.array([_hours(str(value)) for value in micrographs["name"].values], dtype=np.float64)
    return np.asarray(micrographs[name].values, dtype=np.float64)


def _hours(name: str) -> float:
    found = TIMESTAMP.search(name)
    try:
        stamp = datetime.strptime("".join(found.groups()), "%Y%m%d%H%M%S") if found else None
    except ValueError:
        stamp = None
    return (stamp - datetime(2000, 1, 1)).total_seconds() / 3600.0 if stamp else float("nan")


def _natural_spline(x: Floats, knots: Floats) -> list[Floats]:
    """Columns of a natural cubic spline beyond constant and line, 0 at x = 0.

    Hastie, Tibshirani & Friedman, The Elements of Statistical Learning, 2nd ed. 2009, equations 5.4 and 5.5.
    """
    last = knots[-1]
    span = float(last - knots[0]) ** 2

    def truncated(at: Floats, k: int) -> Floats:
        cubes = np.maximum(at - knots[k], 0) ** 3 - np.maximum(at - last, 0) ** 3
        return np.asarray(cubes / (last - knots[k]) / span)

    def column(at: Floats, k: int) -> Floats:
        return truncated(at, k) - truncated(at, len(knots) - 2)

    zero = np.zeros(1)
    return [np.asarray(column(x, k) - column(zero, k)) for k in range(len(knots) - 2)]
