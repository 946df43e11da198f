"""Export: accepted picks as files of other programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from pickcal.calibration import calibrated_scores
from pickcal.formats.relion import write_autopick, write_particles_star
from pickcal.formats.tables import write_table
from pickcal.project import Project
from pickcal.selection import ACCEPTED
from pickcal.settings import ExportSettings
from pickcal.stages.select import judge, likelihoods, stored_selection
from pickcal.stages.sources import CTF_COLUMNS

RELION_LABELS = {
    "ncc": "pickcalNccScore",
    "calibrated_ncc": "pickcalCalibratedNccScore",
    "power": "pickcalPowerScore",
    "calibrated_power": "pickcalCalibratedPowerScore",
    "probability": "pickcalProbability",
    "q_value": "pickcalQValue",
}


def export(project: Project, selection: str, settings: ExportSettings, path: Path) -> dict[str, Any]:
    """Write the accepted picks of a selection.

    Parameters
    ----------
    project
        Opened for reading.
    selection
        Name of the selection.
    settings
        Format.
    path
        Folder (RELION) or file (CSV, Parquet).

    Returns
    -------
    dict
        `picks`, `micrographs` and `files` written.
    """
    picks, thresholds = stored_selection(project, selection)
    accepted = judge(project, picks, thresholds) == ACCEPTED
    micrographs = micrograph_table(project)
    table = pick_table(project, picks, accepted, micrographs)
    if settings.format == "relion":
        frame = table.assign(figure_of_merit=table["calibrated_ncc"], angle=_relion_psi(table["angle"]))
        used = micrographs[np.isfinite(micrographs["pixel_size"])]
        labels = {name: label for name, label in RELION_LABELS.items() if name in frame}
        files = write_autopick(path, frame, used, settings.suffix, labels)
        particles = path / "particles.star"
        write_particles_star(particles, frame, used, labels)
        files.append(particles)
    else:
        write_table(path, table, settings.format)
        files = [path]
    return {
        "selection": selection,
        "picks": len(table),
        "micrographs": int(table["micrograph"].nunique()),
        "files": [str(file) for file in files],
    }


def _relion_psi(angle: pd.Series[float]) -> pd.Series[float]:
    """In-plane rotation as RELION counts it, 0 to 360 degrees: psi turns from y towards x."""
    return (-angle) % 360.0


def micrograph_table(project: Project) -> pd.DataFrame:
    """One row per micrograph as the writers of `formats` want it; `pixel_size` is that of the source."""
    dataset = project.micrographs()
    frame = pd.DataFrame({name: dataset[name].values for name in CTF_COLUMNS})
    frame.insert(0, "name", [str(name) for name in dataset["name"].values])
    frame["exposure_group"] = dataset["exposure_group"].values
    frame["pixel_size"] = dataset["source_pixel_size"].values
    return frame


def pick_table(
    project: Project, picks: str, chosen: np.ndarray[Any, np.dtype[np.bool_]], micrographs: pd.DataFrame
) -> pd.DataFrame:
    """Chosen picks as a table, micrograph by micrograph and best first.

    Parameters
    ----------
    project, picks
        Project and name of its picks.
    chosen
        bool (micrograph, pick).
    micrographs
        From `micrograph_table`.

    Returns
    -------
    DataFrame
        `micrograph`, `x_px`, `y_px` (pixels of the source, from the centre of its first pixel), `x`, `y` (Å), raw and
        calibrated scores, `probability` and `q_value` where there is a mixture, `peak_power`, `background`,
        `background_variance`, `template` (from 0), `angle` (degrees), `defocus` (Å).
    """
    dataset = project.dataset(f"picks/{picks}").load()
    calibrated = calibrated_scores(dataset, project.calibration(picks))
    row, column = np.nonzero(chosen)
    pixel = micrographs["pixel_size"].to_numpy()[row]
    defocus = 0.5 * (micrographs["defocus_u"] + micrographs["defocus_v"]).to_numpy()
    out = {
        "micrograph": micrographs["name"].to_numpy()[row],
        "x_px": dataset["x"].values[row, column].astype(np.float64) / pixel,
        "y_px": dataset["y"].values[row, column].astype(np.float64) / pixel,
        "x": dataset["x"].values[row, column],
        "y": dataset["y"].values[row, column],
        "ncc": dataset["ncc"].values[row, column],
        "calibrated_ncc": calibrated["ncc"].values[row, column],
        "power": dataset["power"].values[row, column],
        "calibrated_power": calibrated["power"].values[row, column],
    }
    likelihood = likelihoods(project, picks, dataset, project.table())
    if likelihood is not None:
        for name in ("probability", "q_value"):
            out[name] = likelihood[name].values[row, column]
    for name in ("peak_power", "background", "background_variance", "template", "angle"):
        out[name] = dataset[name].values[row, column]
    out["defocus"] = defocus[row]
    return pd.DataFrame(out)
