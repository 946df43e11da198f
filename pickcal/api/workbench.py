"""The workbench: one project with its stages as methods, for notebooks and scripts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pickcal.api.arguments import settings_of, takes
from pickcal.api.display import as_html, as_text
from pickcal.api.drawing import Drawing
from pickcal.api.staging import Staging
from pickcal.api.telling import Lines
from pickcal.project import Project
from pickcal.settings import EvaluateSettings, ExportSettings
from pickcal.stores.places import Place, Url, place


class Workbench(Staging, Drawing):
    """One project: what it holds as xarray objects, its stages as methods, its plots.

    `pickcal.open` and `pickcal.import_micrographs` make one.

    Parameters
    ----------
    path
        Folder of the project, or its URL.
    write
        Whether stages may change it; default False.
    quiet
        Print neither progress nor notes; default False.

    Raises
    ------
    MissingFileError, ProjectError
        If there is no project, or none that this version reads.

    Notes
    -----
    All methods raise `ProjectError` for names that the project does not hold, for stages that the project has no
    images for, and for what can only be stored where `write` was not given; `InputError` for wrong arguments and for
    files that are not what was expected; `MissingFileError` for files that are not there. The message says what to do.

    Examples
    --------
    >>> p = pickcal.open("p.zarr", write=True)  # doctest: +SKIP
    >>> p.pick_template(templates="templates.mrcs", diameter=150)  # doctest: +SKIP
    >>> fit = p.calibrate("template", degree=2)  # doctest: +SKIP
    >>> p.plot_medians("template")  # doctest: +SKIP
    """

    def __init__(self, path: Path | Url | str, write: bool = False, quiet: bool = False) -> None:
        # reading always looks again: what other processes write is seen
        self.project = Project.open(path)
        self.writable = write
        self.reporter = Lines(quiet)
        if write:
            Project.open(path, mode="r+")

    @property
    def path(self) -> Place:
        """Where the project is."""
        return self.project.path

    def __len__(self) -> int:
        """Return the number of micrographs."""
        return self.project.count

    def __repr__(self) -> str:
        """Say what the project holds and what is left."""
        return as_text(self.status(), self.writable)

    def _repr_html_(self) -> str:
        return as_html(self.status(), self.writable)

    def status(self) -> dict[str, Any]:
        """Count micrographs and picks per stage, list failures with reasons and what is left; plain values."""
        from pickcal.stages.status import status

        return status(self.project)

    @takes(EvaluateSettings)
    def evaluate(
        self, truth: Path | str, picks: str | None = None, selection: str | None = None, **settings: Any
    ) -> dict[str, Any]:
        """Hold picks or a selection against truth or hand picks.

        Parameters
        ----------
        truth
            STAR file of true particles or hand picks.
        picks, selection
            Name of one of them.
        """
        from pickcal.errors import InputError
        from pickcal.stages.evaluate import evaluate_picks, evaluate_selection

        chosen = settings_of(EvaluateSettings, settings, Workbench.evaluate)
        if selection is not None and picks is None:
            return evaluate_selection(self.project, selection, Path(truth), chosen)
        if picks is not None and selection is None:
            return evaluate_picks(self.project, picks, Path(truth), chosen)
        got = "none" if picks is None else "both"
        raise InputError(f"evaluate(): expected one of picks and selection, got {got}")

    @takes(ExportSettings)
    def export(self, out: Path | Url | str, selection: str, **settings: Any) -> dict[str, Any]:
        """Write accepted picks for other programs; what came in with them goes out again untouched.

        Parameters
        ----------
        out
            Folder (RELION, crYOLO, EMAN) or file (cryoSPARC, Topaz, CSV, Parquet) to write.
        selection
            Name of the selection.

        Returns
        -------
        dict
            Numbers of picks and micrographs, and the files.
        """
        from pickcal.stages.export import export

        return export(self.project, selection, settings_of(ExportSettings, settings, Workbench.export), place(out))

    def report(self, out: Path | str) -> Path:
        """Write one HTML page with fits, plots, counts and failures, and return its path; it opens offline."""
        from pickcal.report import write_report

        return write_report(self.project, Path(out))[0]

    def inspect(self, truth: Path | str | None = None, **settings: Any) -> Any:
        """Start Inspect Picks in a process of its own, to choose thresholds in the browser.

        It saves selections if the project is open for writing.

        Parameters
        ----------
        truth
            STAR file of true particles or hand picks, for precision and recall.
        settings
            Those of `pickcal inspect`, such as `port`.

        Returns
        -------
        Dashboard
            Its `url`; `stop()` ends it, and so does the end of this Python process.
        """
        from pickcal.api.dashboard import start

        return start(self.path, truth, {"read_only": not self.writable, **settings})
