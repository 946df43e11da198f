"""What the page of the report shows, collected from a project; `page.html` beside this lays it out."""

from __future__ import annotations

import base64
import datetime
import importlib.resources
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import xarray as xr
from markupsafe import Markup
from numpy.typing import NDArray

import pickcal
from pickcal.calibration.trends import mean_defocus
from pickcal.calibration.verdicts import ScoreWords, heading
from pickcal.formats.atomic import atomic_path
from pickcal.plots.fits import scores_of, slope_text
from pickcal.plots.project import MIXTURE_FIGURES, project_figures
from pickcal.plots.style import UM, png
from pickcal.project import Project, stage_counts
from pickcal.report.probability import (
    control_content,
    expected_in_words,
    outlying_content,
    probability_content,
    thresholds_in_words,
)
from pickcal.schema import Status
from pickcal.selection import REASONS
from pickcal.stages.history import history, statuses, words
from pickcal.stages.import_picks import PROGRAMS
from pickcal.stages.select_result import is_stale, reason_totals, selections_of

MOST_ROWS = 500
"""Micrographs in one table of the page."""
MOST_SIZES = 3
"""Sizes of source micrographs that are told, the commonest first."""
BY_POWER = ("low power", "high power")
OLD_REASONS = {"ncc": "low score"}
"""Reasons in selections that an older pickcal stored, and what they are called now."""


def save_plots(project: Project, picks: str, folder: Path, selection: str | None = None) -> list[Path]:
    """Write the plots of some picks as PNG files `PICKS_medians.png` and so on, each whole or not at all.

    Parameters
    ----------
    project
        Open project.
    picks
        Name of the picks.
    folder
        Where to; made if it is not there. Files of the same names are replaced.
    selection
        Selection whose accepted picks are drawn on micrographs; default: the best picks.

    Returns
    -------
    list of Path
        What was written.

    Raises
    ------
    ProjectError, InputError
        If there are no such picks or selection, or the folder cannot be made.
    """
    return [_save(folder, picks, key, png(figure)) for key, _, figure in project_figures(project, picks, selection)]


def _save(folder: Path, picks: str, key: str, image: bytes) -> Path:
    path = folder / f"{picks}_{key}.png"
    with atomic_path(path) as temporary:
        temporary.write_bytes(image)
    return path


def write_report(project: Project, path: Path, plots: Path | None = None) -> list[Path]:
    """Write the report as one HTML file that holds its plots and asks for nothing from the network.

    Parameters
    ----------
    project
        Open project.
    path
        File to write; one that is there is replaced.
    plots
        Folder to write the plots of all picks to as well, as `save_plots` does; default: none.

    Returns
    -------
    list of Path
        `path`, and the plots written.

    Raises
    ------
    InputError
        If `path` is a folder or its folder cannot be made.
    """
    source = importlib.resources.files("pickcal.report").joinpath("page.html").read_text(encoding="utf-8")
    template = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined).from_string(source)
    saved: list[Path] = []
    with atomic_path(path) as temporary:
        temporary.write_text(template.render(**report_content(project, plots, saved)), encoding="utf-8")
    return [path, *saved]


def report_content(project: Project, plots: Path | None = None, saved: list[Path] | None = None) -> dict[str, Any]:
    """Collect everything that the page shows, as plain values.

    Parameters
    ----------
    project
        Open project.
    plots
        Folder to save the plots to as well; default: none.
    saved
        List that the files saved there are added to.
    """
    keep = [] if saved is None else saved
    micrographs = project.table()
    names = [str(name) for name in micrographs["name"].values]
    failures = _failures(project, names)
    return {
        "project": str(project.path),
        "version": pickcal.__version__,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "facts": _facts(micrographs, project.has_images),
        "failures": failures[:MOST_ROWS],
        "failure_count": len(failures),
        "groups": [_picks_content(project, name, micrographs, names, plots, keep) for name in project.names("picks")],
        "runs": _runs(project),
        "settings": _settings(project),
    }


def _facts(micrographs: xr.Dataset, images: bool) -> list[tuple[str, str]]:
    defocus = mean_defocus(micrographs) * UM
    known = defocus[np.isfinite(defocus)]
    facts = [("Micrographs", f"{len(defocus)} ({_status_text(micrographs['status'].values)})")]
    if images:
        facts.append(("Working pixel", _spread(micrographs["pixel_size"].values, "Å")))
    else:
        facts.append(("Images", "none: this project holds tables only"))
    facts.append(("Source pixel", _spread(micrographs["source_pixel_size"].values, "Å")))
    facts += _source_size(micrographs)
    facts.append(("Defocus", _spread(known, "µm") + (f", median {np.median(known):.2f} µm" if len(known) else "")))
    facts.append(("Voltage", _spread(micrographs["voltage"].values, "kV")))
    return facts


def _source_size(micrographs: xr.Dataset) -> list[tuple[str, str]]:
    """Rows and columns of the source micrographs where they are known."""
    sizes = np.column_stack([micrographs[f"source_{name}"].values for name in ("height", "width")])
    found, counts = np.unique(sizes[(sizes > 0).all(axis=1)], axis=0, return_counts=True)
    if not len(found):
        return []
    order = np.argsort(-counts, kind="stable")
    texts = [f"{rows} rows × {columns} columns" for rows, columns in found[order][:MOST_SIZES]]
    more = len(found) - len(texts)
    return [("Source size", "; ".join(texts) + (f"; and {more} others" if more else ""))]


def _runs(project: Project) -> list[dict[str, Any]]:
    """Rows of what the event records say of every stage that ran in batches."""
    rows = []
    for group in ("micrographs", *(f"picks/{name}" for name in project.names("picks"))):
        past = history(project, group)
        if past is None:
            continue
        said = words(project, group, past, statuses(project, group, past))
        each = said["seconds_per_micrograph"]
        rows.append(
            {
                **{key: said[key] for key in ("stage", "running", "batches", "workers")},
                "rate": _number(said["micrographs_per_minute"], ".4g"),
                "each": "–" if each is None else f"{each:.3g}",
                "memory": said["peak_memory_mb"] or "–",
                "slowest": ", ".join(f"{item['micrograph']} ({item['seconds']:.3g} s)" for item in said["slowest"]),
                "reasons": list(said["failures_by_reason"].items()),
            }
        )
    return rows


def _spread(values: Any, unit: str) -> str:
    finite = values[np.isfinite(values)]
    if not len(finite):
        return "unknown"
    low, high = f"{finite.min():.4g}", f"{finite.max():.4g}"
    return f"{low} {unit}" if low == high else f"{low} to {high} {unit}"


def _status_text(status: Any) -> str:
    return ", ".join(f"{count} {word}" for word, count in stage_counts(status).items() if count)


def _failures(project: Project, names: list[str]) -> list[dict[str, str]]:
    """Failed and skipped micrographs of every stage; one that was skipped for an earlier failure counts once."""
    found = []
    imported = project.done("micrographs")
    for group in ("micrographs", *(f"picks/{name}" for name in project.names("picks"))):
        status, errors = project.done(group), project.read(group, "error")
        stage = "import" if group == "micrographs" else _stage_of(project, group)
        for i in np.flatnonzero((status == Status.FAILED) | (status == Status.SKIPPED)):
            if group != "micrographs" and status[i] == Status.SKIPPED and imported[i] != Status.DONE:
                continue
            word = Status(int(status[i])).name.lower()
            found.append(
                {
                    "name": names[i],
                    "stage": stage,
                    "status": word,
                    "reason": str(errors[i]) or "no reason kept",
                }
            )
    return found


def _stage_of(project: Project, group: str) -> str:
    """Name of the stage that made some picks, with theirs."""
    word = "import picks" if _program(project.dataset(group)) is not None else "pick"
    return f"{word} {group.removeprefix('picks/')}"


def _program(picks: xr.Dataset) -> str | None:
    """Who picked, as people write it, "" where it is not known; None for our own picks."""
    name = picks.attrs.get("program")
    return None if name is None else PROGRAMS.get(str(name), "")


def _origin(picks: xr.Dataset) -> str:
    """Say whose picks these are and what their score is called; "" for our own."""
    program = _program(picks)
    if program is None:
        return ""
    who = f"Imported from {program}" if program else "Imported"
    if not picks.attrs.get("scores", ["ncc"]):
        return f"{who}; they have no score."
    return f"{who}; their score is the {ScoreWords.of(picks.attrs).score}."


def _picks_content(
    project: Project, name: str, micrographs: xr.Dataset, names: list[str], plots: Path | None, saved: list[Path]
) -> dict[str, Any]:
    status = project.done(f"picks/{name}")
    calibration, mixture = project.calibration(name), project.mixture(name)
    picks = project.picks(name)
    words, decoys = ScoreWords.of(picks.attrs), int(picks["decoy_count"].sum())
    power = calibration is None or "power" in scores_of(calibration)
    selections = [_selection_content(project, selection, words, power) for selection in selections_of(project, name)]
    content: dict[str, Any] = {
        "name": name,
        "status": _status_text(status),
        "picks": int(project.read(f"picks/{name}", "count").sum()),
        "decoys": decoys,
        "origin": _origin(picks),
        "no_power": "",
        "capped": int(project.read(f"picks/{name}", "capped").sum()),
        "calibrated": calibration is not None,
        "selections": selections,
        "plots": [],
        "mixture_plots": [],
        "scores": [],
        "outlying": [],
        "expectations": [(item["name"], item["expected"]) for item in selections if item["expected"]],
        "control": control_content(project, name),
        "probability": probability_content(project, name, calibration, mixture),
    }
    if calibration is not None:
        content |= _calibrated_content(project, name, calibration, mixture, names)
        # what a stale selection would accept now is not what it says that it accepted
        shown = [item["name"] for item in selections if not item["stale"]]
        content |= _plots_content(project, name, shown[-1] if shown else None, plots, saved)
    content["rows"] = _rows(project, name, micrographs, names, calibration, selections, bool(decoys))
    content["left_out"] = len(names) - len(content["rows"])
    return content


def _calibrated_content(
    project: Project, name: str, calibration: xr.Dataset, mixture: xr.Dataset | None, names: list[str]
) -> dict[str, Any]:
    """Collect what the fit of some picks says: rows per score, heads of columns, outlying micrographs."""
    scores, words = scores_of(calibration), ScoreWords.of(calibration.attrs)
    decoys = bool(project.read(f"picks/{name}", "decoy_count").any())
    outlying = outlying_content(calibration, mixture, names)
    out: dict[str, Any] = {
        "scores": [row for score in scores for row in _score_rows(calibration, score)],
        "columns": [
            *(["Particles (estimate)"] if decoys else []),
            *(heading(f"median {words.of_score(score)}") for score in scores),
        ],
        "outlying": outlying[:MOST_ROWS],
        "outlying_count": len(outlying),
        "reference": f"{float(calibration.attrs['reference_defocus']) * UM:.2f}",
    }
    if "power" not in scores:
        remedy = "; <code>pickcal score</code> adds one" if project.has_images else ""
        out["no_power"] = Markup(f"No power score{remedy}.")
    return out


def _plots_content(
    project: Project, name: str, selection: str | None, folder: Path | None, saved: list[Path]
) -> dict[str, list[dict[str, str]]]:
    """Draw the plots of some picks, those of the mixture apart; save them as well if there is a folder."""
    out: dict[str, list[dict[str, str]]] = {"plots": [], "mixture_plots": []}
    for key, caption, figure in project_figures(project, name, selection):
        image = png(figure)
        if folder is not None:
            saved.append(_save(folder, name, key, image))
        plot = {"key": key, "caption": caption, "data": base64.b64encode(image).decode("ascii")}
        out["mixture_plots" if key in MIXTURE_FIGURES else "plots"].append(plot)
    return out


def _score_rows(calibration: xr.Dataset, score: str) -> list[dict[str, str]]:
    fit = calibration.sel(score=score)
    before, after = (_number(float(fit[name]), "+.2f") for name in ("rho_before", "rho_after"))
    rows, words = [], ScoreWords.of(fit.attrs)
    for g, group in enumerate(fit["group"].values):
        one = fit.isel(group=g)
        text = str(one["verdict"].item())
        rows.append(
            {
                "score": heading(words.of_score(score)) + (f", group {group}" if fit.sizes["group"] > 1 else ""),
                "slope": slope_text(one, score, float(calibration.attrs["confidence"])),
                "before": before,
                "after": after,
                "verdict": f"natural logarithm: {text}" if score == "power" and text.startswith("slope") else text,
            }
        )
    return rows


def _selection_content(project: Project, name: str, words: ScoreWords, power: bool) -> dict[str, Any]:
    dataset = project.dataset(f"selection/{name}").load()
    settings = project.settings(f"selection/{name}")
    totals = {OLD_REASONS.get(reason, reason): total for reason, total in reason_totals(dataset).items()}
    return {
        "name": name,
        "stale": is_stale(project, name),
        "thresholds": thresholds_in_words(settings, words),
        "counts": [(reason, totals.get(reason, 0)) for reason in REASONS if power or reason not in BY_POWER],
        "accepted": dataset["counts"].sel(reason="accepted").values,
        "expected": expected_in_words(project, name, int(dataset["counts"].sel(reason="accepted").sum())),
    }


def _rows(
    project: Project,
    picks: str,
    micrographs: xr.Dataset,
    names: list[str],
    calibration: xr.Dataset | None,
    selections: list[dict[str, Any]],
    decoys: bool,
) -> list[dict[str, Any]]:
    status, counts = project.done(f"picks/{picks}"), project.read(f"picks/{picks}", "count")
    imported = micrographs["status"].values
    defocus = mean_defocus(micrographs) * UM
    failed = np.isin(status, (Status.FAILED, Status.SKIPPED)) | np.isin(imported, (Status.FAILED, Status.SKIPPED))
    outlying = np.zeros(len(names), dtype=bool)
    if calibration is not None:
        outlying = (calibration["outlier"].values == 1).any(axis=0)
    order = np.lexsort((np.arange(len(names)), ~outlying, ~failed))[:MOST_ROWS]
    rows = []
    for i in order:
        stage = imported[i] if imported[i] != Status.DONE else status[i]
        row = {
            "name": names[i],
            "defocus": _number(float(defocus[i]), ".3f"),
            "picks": int(counts[i]),
            "accepted": [_accepted(selection["accepted"], i) for selection in selections],
            "status": Status(int(stage)).name.lower() + (", outlying" if outlying[i] else ""),
            "notable": bool(failed[i] or outlying[i]),
            "measured": [],
        }
        if calibration is not None:
            # without decoys the estimated particles are all picks
            row["measured"] = [_number(float(calibration["particles"].values[i]), ".0f")] if decoys else []
            for score in scores_of(calibration):
                median = float(calibration["median"].sel(score=score).values[i])
                row["measured"].append(_number(median, ".4f" if score == "ncc" else ".3f"))
        rows.append(row)
    return rows


def _accepted(counts: NDArray[np.integer], row: int) -> str:
    """Give the accepted picks of a micrograph; of one that came after the selection was made nothing is known."""
    return str(int(counts[row])) if row < len(counts) else "–"


def _number(value: float, form: str) -> str:
    return format(value, form) if np.isfinite(value) else "–"


def _settings(project: Project) -> list[tuple[str, list[tuple[str, str]]]]:
    groups = [("import", "micrographs")]
    groups += [(_stage_of(project, f"picks/{name}"), f"picks/{name}") for name in project.names("picks")]
    for kind, word in (
        ("calibration", "calibrate"),
        ("selection", "select"),
        ("control", "control"),
    ):
        groups += [(f"{word} {name}", f"{kind}/{name}") for name in project.names(kind)]  # type: ignore[arg-type]
    return [(stage, [(k, str(v)) for k, v in project.settings(group).items()]) for stage, group in groups]
