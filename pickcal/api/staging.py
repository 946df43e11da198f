"""The stages of a workbench: each makes settings of its keyword arguments and calls the stage."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import xarray as xr

from pickcal.api.arguments import cluster_of, settings_of, takes
from pickcal.api.reading import Reading
from pickcal.api.telling import Lines
from pickcal.api.words import COUNTS, with_words
from pickcal.engine.executors import Executor, open_executor
from pickcal.errors import InputError, ProjectError
from pickcal.present import failure_lines
from pickcal.project import Project
from pickcal.settings import (
    BlobSettings,
    CalibrateSettings,
    ClusterSettings,
    ControlSettings,
    ImportPicksSettings,
    ScoreSettings,
    SelectSettings,
    TemplateSettings,
)


class Staging(Reading):
    """Stages of a project. Those that store nothing but small results can be tried while it is open for reading."""

    writable: bool
    reporter: Lines

    @takes(ImportPicksSettings)
    def import_picks(
        self, files: Path | str | Sequence[Path | str], name: str, *, overwrite: bool = False, **settings: Any
    ) -> xr.Dataset:
        """Take picks of other programs into the project.

        Parameters
        ----------
        files
            Files or folders of picks of RELION, cryoSPARC, Topaz, crYOLO, EMAN, Gautomatch, Warp, CSV or Parquet.
        name
            Name of the picks.
        overwrite
            Replace picks of this name that are others.

        Returns
        -------
        Dataset
            The picks, as `picks` gives them.
        """
        from pickcal.stages.import_picks import import_picks

        chosen = settings_of(ImportPicksSettings, settings, Staging.import_picks)
        paths = [Path(one) for one in ([files] if isinstance(files, (str, Path)) else files)]
        import_picks(self._writing("import_picks"), paths, name, chosen, self.reporter, overwrite)
        return self.picks(name)

    def pick(self, method: str, **arguments: Any) -> xr.Dataset:
        """Pick with "template" or "blob"; see `pick_template` and `pick_blob` for the arguments."""
        methods = {"template": self.pick_template, "blob": self.pick_blob}
        if method not in methods:
            raise InputError(f"pick(): expected 'template' or 'blob', got {method!r}")
        return methods[method](**arguments)

    @takes(TemplateSettings)
    def pick_template(
        self,
        *,
        name: str = "template",
        overwrite: bool = False,
        cluster: str | ClusterSettings = "local",
        workers: int | None = None,
        **settings: Any,
    ) -> xr.Dataset:
        """Pick with templates: 2D images, or projections of a 3D map.

        Parameters
        ----------
        name
            Name of the picks.
        overwrite
            Replace picks of this name that were made with other settings.
        cluster, workers
            Where tasks run: "local" (default, all cores), "serial", the address of a Dask scheduler, ...

        Returns
        -------
        Dataset
            The picks, as `picks` gives them. Micrographs that failed are named.
        """
        return self._pick(
            name, settings_of(TemplateSettings, settings, Staging.pick_template), overwrite, cluster, workers
        )

    @takes(BlobSettings)
    def pick_blob(
        self,
        *,
        name: str = "blob",
        overwrite: bool = False,
        cluster: str | ClusterSettings = "local",
        workers: int | None = None,
        **settings: Any,
    ) -> xr.Dataset:
        """Pick with discs, rings or ellipses; parameters beside the settings as for `pick_template`."""
        return self._pick(name, settings_of(BlobSettings, settings, Staging.pick_blob), overwrite, cluster, workers)

    def _pick(
        self,
        name: str,
        settings: TemplateSettings | BlobSettings,
        overwrite: bool,
        cluster: str | ClusterSettings,
        workers: int | None,
    ) -> xr.Dataset:
        from pickcal.stages.pick import pick

        project = self._writing("pick")
        with self._executor(cluster, workers) as executor:
            done = pick(project, name, settings, executor, self.reporter, overwrite)
        self.tell_failures(done.as_json())
        return self.picks(name)

    @takes(ScoreSettings)
    def score(
        self,
        picks: str,
        *,
        name: str | None = None,
        overwrite: bool = False,
        cluster: str | ClusterSettings = "local",
        workers: int | None = None,
        **settings: Any,
    ) -> xr.Dataset:
        """Give NCC and power to the coordinates of some picks, whoever made them.

        Parameters
        ----------
        picks
            Name of the picks.
        name
            Name of the new picks; default: that of the old with -scored.
        overwrite, cluster, workers
            As for `pick_template`.
        """
        from pickcal.stages.score import score

        chosen = settings_of(ScoreSettings, settings, Staging.score)
        project = self._writing("score")
        with self._executor(cluster, workers) as executor:
            done = score(project, picks, name, chosen, executor, self.reporter, overwrite)
        self.tell_failures(done.as_json())
        return self.picks(name or f"{picks}-scored")

    @takes(CalibrateSettings)
    def calibrate(self, picks: str, **settings: Any) -> xr.Dataset:
        """Fit both scores against defocus over the whole data set.

        In a project that is open for reading the fit is made and returned, and nothing is stored.

        Parameters
        ----------
        picks
            Name of the picks.

        Returns
        -------
        Dataset
            The fit, as `fit` gives it. `plot_medians(picks, fit=...)` draws one that is not stored.
        """
        from pickcal.stages.calibrate import calibrate, trial

        chosen = settings_of(CalibrateSettings, settings, Staging.calibrate)
        if self.writable:
            calibrate(self._writing("calibrate"), picks, chosen)
            return self.fit(picks)
        lines, _ = trial(self.project, picks, chosen)
        self._tell_unstored("the fit")
        return self._described(picks, lines)

    @takes(SelectSettings)
    def select(
        self,
        picks: str,
        name: str | None = None,
        *,
        auto: bool = False,
        save: Path | str | None = None,
        overwrite: bool = False,
        **settings: Any,
    ) -> xr.Dataset:
        """Accept picks by calibrated scores, probability or false discovery rate.

        In a project that is open for reading they are counted, and nothing is stored.

        Parameters
        ----------
        picks
            Name of the picks.
        name
            Name of the selection, which a project that is open for writing needs.
        auto
            Fill in probability 0.5 (or `fdr`) and the power maximum beyond which junk lies.
        save
            Thresholds file to write as well.
        overwrite
            Replace a selection of this name that holds other thresholds.

        Returns
        -------
        Dataset
            `counts` (reason, micrograph); attributes have the thresholds, and the false picks to expect.
        """
        from pickcal.selection import write_thresholds
        from pickcal.stages.select import automatic, counted, select

        chosen = settings_of(SelectSettings, settings, Staging.select)
        self.project.require("picks", picks)
        if auto:
            chosen = automatic(self.project, picks, chosen)
        file = None if save is None else Path(save)
        if not self.writable:
            found = counted(self.project, picks, chosen)
            if file is not None:
                write_thresholds(file, chosen, picks)
            self._tell_unstored("the selection")
        elif name is None:
            raise InputError("select(): expected a name under which to store the selection, got none")
        else:
            found = select(self._writing("select"), picks, name, chosen, file, overwrite)
        given = {key: value for key, value in chosen.stored().items() if value not in (None, [], False)}
        return with_words(self._placed(found.assign_attrs(given)), COUNTS)

    @takes(ControlSettings)
    def control(
        self,
        picks: str,
        selection: str | None = None,
        *,
        cluster: str | ClusterSettings = "local",
        workers: int | None = None,
        **settings: Any,
    ) -> dict[str, Any]:
        """Repeat the search on noise with the spectra of the micrographs, and count what a selection accepts there.

        Parameters
        ----------
        picks
            Name of the picks.
        selection
            Name of the selection to try; default: the thresholds that `auto` fills in.
        cluster, workers
            As for `pick_template`.
        """
        from pickcal.stages.control import control

        chosen = settings_of(ControlSettings, settings, Staging.control)
        project = self._writing("control")
        with self._executor(cluster, workers) as executor:
            return control(project, picks, chosen, executor, self.reporter, selection)

    def tell_failures(self, result: dict[str, Any]) -> None:
        """Name the micrographs that failed in a stage."""
        for line in failure_lines(result["errors"], "status()['failures'] has them"):
            self.reporter.note(line)

    def _executor(self, cluster: str | ClusterSettings, workers: int | None) -> AbstractContextManager[Executor]:
        return open_executor(cluster_of(cluster, workers), self.reporter.note)

    def _writing(self, what: str) -> Project:
        """Open the project for one stage that changes it."""
        if not self.writable:
            raise ProjectError(
                f"{self.project.path}: {what}() would change the project, which is open for reading; "
                f"open it with pickcal.open({str(self.project.path)!r}, write=True)"
            )
        return Project.open(self.project.path, mode="r+")

    def _tell_unstored(self, what: str) -> None:
        self.reporter.note(f"{what} is not stored: the project is open for reading (write=True stores)")
