"""The reference of the project store: arrays from `pickcal.schema`, and those that fits and selections keep."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pickcal.project.columns import TEXT
from pickcal.schema import BANK, FORMAT_VERSION, MICROGRAPHS, PICKS, Variable
from pickcal.selection import REASONS
from pickcal.stages.control_result import COUNTS
from pickcal.stages.import_picks import SOURCE_ROW
from pickcal.stages.score import EXTRA

INTRODUCTION = f"""# The project store

A project is one [Zarr](https://zarr.dev) store of format 3 (a folder, or the same at a URL), and xarray opens it
without pickcal:

```python
import xarray as xr

project = xr.open_datatree("p.zarr", engine="zarr", consolidated=False)
print(project["micrographs"].ds)
print(project["picks/template"].ds["ncc"])
```

Format version {FORMAT_VERSION} (`format_version` among the attributes of the root). Arrays of micrographs and picks
have their meaning (`long_name`) and unit (`units`, after the CF conventions) among their attributes, and every group
has the settings (`settings`) and the version of pickcal (`pickcal_version`) that wrote it. Positions are Å from the
centre of the first pixel of the file, y growing with the row; defocus is Å, positive is underfocus. Numbers that are
not known are NaN.

Tables of picks are rectangular: `(micrograph, pick)`, best first, filled up with NaN; `count` says how many there are.
"""

SCORED = ", ".join(f"`{name}` ({variable.meaning})" for name, variable in EXTRA.items())
PICKS_TEXT = f"""A group for every name of picks: those of `pickcal pick`, `pickcal import-picks` and `pickcal score`.

Picks of other programs have the scores of their program under its name (`figure_of_merit`, `confidence`, `score` ...),
and `source_row`: {SOURCE_ROW.meaning}. Those of `pickcal score` have {SCORED}. Attributes tell `diameter` (Å), `score`
(which variable is the main score), `score_label` and `program`.
"""

COLUMNS_TEXT = f"""Columns of imported picks, untouched, one array each, in the order of the stored picks: micrograph
by micrograph, best first. `label` among the attributes is the column's name in the file, and `columns` of the group
their order. Text is an index into `NAME{TEXT}`.
"""

FITS: dict[str, dict[str, str]] = {
    "calibration/NAME": {
        "score": "coordinate: `ncc` (the main score), `power`",
        "group": "coordinate: exposure group, 0 for one fit of all",
        "term": "coordinate: terms of the fit (constant, defocus, ...)",
        "term_": "the same, for the second axis of the covariance",
        "coefficients": "of the lines; of the main score, and of the natural logarithm of the power; per µm",
        "covariance": "of the coefficients",
        "scale": "robust standard deviation of the medians about the line",
        "degrees_of_freedom": "of the fit",
        "slope": "slope in defocus at the reference defocus, per µm",
        "slope_low": "lower end of its interval, per µm",
        "slope_high": "upper end of its interval, per µm",
        "verdict": "what the data support, in words",
        "applied": "1 where the line calibrates the score",
        "rho_before": "Spearman's correlation of medians and defocus, raw",
        "rho_after": "the same after calibration",
        "break_even_coefficients": "of the line through the scores at which noise and particles break even",
        "median": "median of every micrograph; of the particles where decoys tell them apart",
        "fitted": "value of the line at the micrograph",
        "band": "half-width of the line's confidence band",
        "residual": "median less line, in standard deviations",
        "used": "1 where the micrograph was used",
        "outlier": "1 where it lies far from the line",
        "shift": "what calibration takes away: calibrated NCC = pivot + (NCC - shift - pivot) gain, "
        "calibrated power = power / exp(shift)",
        "gain": "see shift; `pivot` is among the attributes",
        "particles": "estimated number of particles: picks in excess of decoys",
        "break_even": "NCC score at which a pick is as likely noise as particle",
        "break_even_fitted": "value of that line at the micrograph",
        "defocus": "mean of both defoci, Å",
    },
    "calibration/NAME/mixture": {
        "component": "coordinate: noise, particle, junk",
        "term": "coordinate: terms of the trend",
        "standardised": "coordinate: standardised score at which the shape of the noise is tabulated",
        "level": "coordinate: log odds at which rates are tabulated",
        "noise_ncc": "mean NCC score of noise, coefficients over the terms",
        "noise_deviation": "logarithm of its standard deviation, coefficients",
        "noise_shape": "logarithm of the density of standardised noise",
        "particle_ncc": "mean NCC score of particles, coefficients",
        "particle_power": "mean log power of particles above noise, coefficients",
        "particle_deviation": "logarithm of the standard deviation of their NCC score, coefficients",
        "template_offset": "NCC score that a template adds; empty without the covariate `template`",
        "fractions": "mean fractions of the components over the data set",
        "shadow_fractions": "the same among picks next to a strong one",
        "fraction": "fractions of every micrograph",
        "expected": "expected number of picks of every component and micrograph",
        "power_level": "natural logarithm of the noise's power score of every micrograph",
        "q_value": "false discovery rate by stratum of defocus and log odds",
        "stratum_defocus": "middle of each stratum, Å",
        "picks_above": "picks above each level",
        "noise_above": "noise expected among them",
        "junk_above": "junk expected among them",
        "decoys_above": "decoys above each level, scaled to as many as there is noise",
    },
    "selection/NAME": {
        "reason": f"coordinate: {', '.join(REASONS)}",
        "counts": "number of picks per reason and micrograph; which pick has which reason is computed on reading, from "
        "the thresholds among the attributes",
    },
    "control/NAME": {
        **COUNTS,
        "status": "1 where the copy was searched, 2 where that failed, 3 where the micrograph was left out",
        "error": "why",
    },
}


def markdown() -> str:
    """Write the page."""
    parts = [
        INTRODUCTION,
        "## /micrographs\n\nThe table of micrographs and their working images.\n",
        _table(MICROGRAPHS),
        f"## /picks/NAME\n\n{PICKS_TEXT}",
        _table(PICKS),
        "### /picks/NAME/bank\n\nThe search's templates or blobs, compressed, and its whitening filter: a job that "
        "goes on uses the very same ones.\n",
        _table(BANK),
        f"### /picks/NAME/columns\n\n{COLUMNS_TEXT}",
    ]
    for group, variables in FITS.items():
        parts.append(f"## /{group}\n\n{_meanings(variables)}")
    return "\n\n".join(parts) + "\n"


def _table(variables: Mapping[str, Variable]) -> str:
    lines = ["| array | dimensions | type | unit | meaning |", "|---|---|---|---|---|"]
    for name, one in variables.items():
        kind = "text" if one.dtype is str else np.dtype(one.dtype).name
        unit = {"": "none", "1": "1"}.get(one.units, one.units)
        lines.append(f"| `{name}` | {', '.join(one.dims)} | {kind} | {unit} | {one.meaning} |")
    return "\n".join(lines)


def _meanings(variables: Mapping[str, str]) -> str:
    lines = ["| array | meaning |", "|---|---|"]
    return "\n".join([*lines, *(f"| `{name}` | {meaning} |" for name, meaning in variables.items())])
