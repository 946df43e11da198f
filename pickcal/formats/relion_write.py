"""Files that RELION reads: picks per micrograph, particles and micrographs tables.

Source: RELION 3.1 and 4 as installed and as their tutorial writes them; positions are 0-based pixels of the
micrograph, like pickcal's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from pickcal.errors import InputError
from pickcal.formats.atomic import atomic_path
from pickcal.formats.images import STACK_NAME
from pickcal.formats.star import write_star

JOB_FOLDER = re.compile(r".*?/job\d{3}[^/]*/")
PICK_COLUMNS = ("micrograph", "x_px", "y_px", "figure_of_merit")
OPTICS = {
    "voltage": "rlnVoltage",
    "spherical_aberration": "rlnSphericalAberration",
    "amplitude_contrast": "rlnAmplitudeContrast",
}
CTF = {"defocus_u": "rlnDefocusU", "defocus_v": "rlnDefocusV", "defocus_angle": "rlnDefocusAngle"}
FIT = {"ctf_fit_resolution": "rlnCtfMaxResolution", "ice_thickness": "rlnCtfIceRingDensity"}


def pipeline_stem(name: str) -> str:
    """Name of a micrograph's output files by RELION's rule.

    Parameters
    ----------
    name
        Micrograph name. A leading `JobType/jobNNN/` and the extension are dropped; a slice of a stack is told by
        its number; a leading `/` and `..` are dropped, so that the file stays in its output folder.

    Examples
    --------
    >>> pipeline_stem("MotionCorr/job002/Movies/a.mrc")
    'Movies/a'
    >>> pipeline_stem("3@dir/s.mrcs")
    'dir/s_000003'
    """
    match = STACK_NAME.fullmatch(name)
    slice_number, file = (int(match[1]), match[2]) if match else (None, name)
    parts = [part for part in PurePosixPath(JOB_FOLDER.sub("", file, count=1)).parts if part not in ("/", "..")]
    stem = PurePosixPath(*parts).with_suffix("").as_posix() if parts else "micrograph"
    return stem if slice_number is None else f"{stem}_{slice_number:06d}"


def write_autopick(
    out: Path,
    picks: pd.DataFrame,
    micrographs: pd.DataFrame,
    suffix: str,
    extra: Mapping[str, str] | None = None,
    *,
    micrographs_star: Path | None = None,
    root: Path | None = None,
) -> list[Path]:
    """Write picks as RELION's own picking does: a file per micrograph and the two kinds of index.

    Parameters
    ----------
    out
        Output folder.
    picks
        Columns `micrograph` (name), `x_px`, `y_px` (0-based pixels of the source), `figure_of_merit`; optional
        `template` (0-based; NaN or absent: class 0) and `angle` (degrees; NaN or absent: 0).
    micrographs
        Table as `MicrographTable.table`; only `name` is needed with `micrographs_star`.
    suffix
        Files are `out/<stem>_<suffix>.star`, see `pipeline_stem`. A micrograph without picks gets none, and one
        left by an earlier export is removed: RELION takes what it finds.
    extra
        Further columns of `picks` to write, with their labels (without underscore).
    micrographs_star
        Micrographs file that RELION up to 3.1 shall use. Default: `out/micrographs.star`, written here.
    root
        RELION's project folder, to which paths inside the files are relative; default: the working folder. Paths
        outside it are absolute.

    Returns
    -------
    list of Path
        The files written; `out/<suffix>.star` (RELION 4 and later) and `out/coords_suffix_<suffix>.star` (up to 3.1)
        come last.

    Raises
    ------
    InputError
        If columns are missing, a pick names an unknown micrograph or has no finite position and figure of merit,
        or two micrographs would share a file.
    """
    extra = extra or {}
    _check_picks(picks, micrographs, extra)
    files = _pick_files(out, micrographs, suffix)
    tables = dict(list(picks.groupby("micrograph", sort=False)))
    written: list[Path] = []
    index = []
    for name, file in files.items():
        if name not in tables:
            file.unlink(missing_ok=True)
            continue
        write_star(file, {"": _pick_table(tables[name], extra)})
        written.append(file)
        index.append((name, _inside(file, root)))
    if micrographs_star is None:
        micrographs_star = out / "micrographs.star"
        write_micrographs_star(micrographs_star, micrographs)
        written.append(micrographs_star)
    columns = ["rlnMicrographName", "rlnMicrographCoordinates"]
    write_star(out / f"{suffix}.star", {"coordinate_files": pd.DataFrame(index, columns=columns)})
    pointer = out / f"coords_suffix_{suffix}.star"
    with atomic_path(pointer) as temporary:
        temporary.write_text(_inside(micrographs_star, root) + "\n", encoding="utf-8")
    return [*written, out / f"{suffix}.star", pointer]


def write_particles_star(
    path: Path,
    picks: pd.DataFrame,
    micrographs: pd.DataFrame,
    extra: Mapping[str, str] | None = None,
    *,
    box_px: int | None = None,
) -> None:
    """Write picks of all micrographs as one RELION 3.1 particles file.

    Parameters
    ----------
    path
        File to write.
    picks, extra
        As for `write_autopick`.
    micrographs
        Table as `MicrographTable.table`.
    box_px
        Box size to state in the optics groups, pixels: RELION 3.1 re-extracts from a particles file
        (`--reextract_data_star`) only if it states one. Default None: not stated, as no images exist.

    Raises
    ------
    InputError
        As `write_autopick`, and if a micrograph has no pixel size.
    """
    extra = extra or {}
    _check_picks(picks, micrographs, extra)
    optics, rows = _micrograph_tables(path, micrographs)
    if box_px is not None:
        optics = optics.assign(rlnImagePixelSize=optics["rlnMicrographPixelSize"], rlnImageSize=box_px)
        optics["rlnImageDimensionality"] = 2
    rows = rows.drop(columns=[label for label in FIT.values() if label in rows])
    per_pick = rows.set_index("rlnMicrographName").loc[picks["micrograph"]].reset_index()
    table = _pick_table(picks, extra)
    table.insert(0, "rlnMicrographName", per_pick.pop("rlnMicrographName").to_numpy())
    at = len(table.columns) - len(extra)
    for label in reversed(per_pick.columns):
        table.insert(at, label, per_pick[label].to_numpy())
    write_star(path, {"optics": optics, "particles": table})


def write_micrographs_star(path: Path, micrographs: pd.DataFrame) -> None:
    """Write a RELION 3.1 micrographs file.

    Parameters
    ----------
    path
        File to write.
    micrographs
        Table as `MicrographTable.table`. Columns without a finite value are left out.

    Raises
    ------
    InputError
        If a micrograph has no pixel size.
    """
    optics, rows = _micrograph_tables(path, micrographs)
    write_star(path, {"optics": optics, "micrographs": rows})


def _check_picks(picks: pd.DataFrame, micrographs: pd.DataFrame, extra: Mapping[str, str]) -> None:
    missing = [column for column in (*PICK_COLUMNS, *extra) if column not in picks]
    if missing:
        raise InputError(f"picks: expected columns {', '.join(missing)}, found {', '.join(picks.columns)}")
    unknown = set(picks["micrograph"]) - set(micrographs["name"])
    if unknown:
        raise InputError(f"picks: micrograph {min(unknown)!r} is not in the table of micrographs")
    for column in PICK_COLUMNS[1:]:
        bad = ~np.isfinite(picks[column].to_numpy(dtype=float))
        if bad.any():
            row = int(np.flatnonzero(bad)[0])
            raise InputError(
                f"picks: {column}: expected a finite number, found {picks[column].iloc[row]} in row {row + 1} "
                f"(micrograph {picks['micrograph'].iloc[row]})"
            )


def _pick_files(out: Path, micrographs: pd.DataFrame, suffix: str) -> dict[str, Path]:
    owners: dict[Path, str] = {}
    for name in micrographs["name"]:
        file = out / f"{pipeline_stem(name)}_{suffix}.star"
        if file in owners:
            raise InputError(
                f"{file}: micrographs {owners[file]} and {name} would share this file by RELION's naming rule; "
                "export them separately, or as one particles file"
            )
        owners[file] = name
    return {name: file for file, name in owners.items()}


def _pick_table(picks: pd.DataFrame, extra: Mapping[str, str]) -> pd.DataFrame:
    zeros = np.zeros(len(picks))
    template = picks["template"].to_numpy(dtype=float) + 1 if "template" in picks else zeros
    angle = picks["angle"].to_numpy(dtype=float) if "angle" in picks else zeros
    table = {
        "rlnCoordinateX": picks["x_px"].to_numpy(dtype=float),
        "rlnCoordinateY": picks["y_px"].to_numpy(dtype=float),
        "rlnClassNumber": np.nan_to_num(template).astype(int),
        "rlnAutopickFigureOfMerit": picks["figure_of_merit"].to_numpy(dtype=float),
        "rlnAnglePsi": np.nan_to_num(angle),
    }
    return pd.DataFrame(table | {label: picks[column].to_numpy() for column, label in extra.items()})


def _micrograph_tables(path: Path, micrographs: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    frame = micrographs.reset_index(drop=True)
    pixel_size = frame["pixel_size"].to_numpy(dtype=float) if "pixel_size" in frame else np.full(len(frame), np.nan)
    bad = ~(np.isfinite(pixel_size) & (pixel_size > 0))
    if bad.any():
        name = frame["name"].iloc[int(np.flatnonzero(bad)[0])]
        raise InputError(f"{path}: micrograph {name}: expected a pixel size, found none; give --source-pixel-size")
    group = _optics_groups(frame)
    first = frame.assign(number=group).drop_duplicates("number").sort_values("number")
    number = first["number"].to_numpy()
    optics = {
        "rlnOpticsGroupName": [f"opticsGroup{n}" for n in number],
        "rlnOpticsGroup": number,
        "rlnMicrographPixelSize": first["pixel_size"].to_numpy(dtype=float),
        "rlnMicrographOriginalPixelSize": first["pixel_size"].to_numpy(dtype=float),
    }
    rows = {"rlnMicrographName": frame["name"].to_numpy(), "rlnOpticsGroup": group}
    return pd.DataFrame(optics | _present(first, OPTICS)), pd.DataFrame(rows | _row_columns(frame))


def _row_columns(frame: pd.DataFrame) -> dict[str, np.ndarray]:
    columns = _present(frame, CTF)
    phase = _present(frame, {"phase_shift": "rlnPhaseShift"})
    if any(np.nan_to_num(shift).any() for shift in phase.values()):
        columns |= phase
    return columns | _present(frame, FIT)


def _present(frame: pd.DataFrame, labels: Mapping[str, str]) -> dict[str, np.ndarray]:
    columns = {label: frame[name].to_numpy(dtype=float) for name, label in labels.items() if name in frame}
    return {label: values for label, values in columns.items() if np.isfinite(values).any()}


def _optics_groups(frame: pd.DataFrame) -> np.ndarray:
    """Exposure groups, or new numbers if micrographs of one group differ in what an optics group must share."""
    given = frame["exposure_group"] if "exposure_group" in frame else pd.Series(1, index=frame.index)
    keys = frame[["pixel_size", *(name for name in OPTICS if name in frame)]].assign(group=given)
    number = keys.groupby(["group", *keys.columns.drop("group")], dropna=False, sort=True).ngroup().to_numpy() + 1
    if len(np.unique(number)) == given.nunique():
        return given.to_numpy(dtype=int)
    return np.asarray(number)


def _inside(path: Path, root: Path | None) -> str:
    absolute, folder = path.absolute(), (root or Path()).absolute()
    return (absolute.relative_to(folder) if absolute.is_relative_to(folder) else absolute).as_posix()
