"""Ways to a workbench: open a project, import micrographs into one, simulate micrographs to try it on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pickcal.api.arguments import cluster_of, settings_of, takes
from pickcal.api.telling import Lines
from pickcal.api.workbench import Workbench
from pickcal.settings import ClusterSettings, ImportSettings, SimulateSettings
from pickcal.stores.places import Url, place

if TYPE_CHECKING:
    from pickcal.simulation import SimulatedSet


def open(path: Path | Url | str, write: bool = False, quiet: bool = False) -> Workbench:
    """Open a project.

    Parameters
    ----------
    path
        Folder ending in .zarr, or URL of an object store (`s3://bucket/p.zarr`).
    write
        Let stages change it; default False: it is only read, `calibrate` and `select` give what they would store.
    quiet
        Print neither progress nor notes; default False.

    Raises
    ------
    MissingFileError, ProjectError
        If there is no project, or another version of the format wrote it.
    """
    return Workbench(path, write, quiet)


@takes(ImportSettings)
def import_micrographs(
    sources: Path | Url | str | Sequence[Path | Url | str],
    project: Path | Url | str,
    *,
    cluster: str | ClusterSettings = "local",
    workers: int | None = None,
    quiet: bool = False,
    **settings: Any,
) -> Workbench:
    """Read micrographs into a project, new or begun earlier, and open it for writing. Sources are only read.

    Parameters
    ----------
    sources
        Table of micrographs (RELION, cryoSPARC, CTFFIND, Gctf, CSV), or MRC and TIFF files.
    project
        Where to: a folder ending in .zarr, or a URL.
    cluster, workers
        Where tasks run, see `ClusterSettings`: "local" (default), "serial", the address of a Dask scheduler, ...
    quiet
        Print neither progress nor notes; default False.

    Raises
    ------
    InputError, MissingFileError, ProjectError
        As `pickcal.stages.ingest.ingest`. Micrographs that cannot be read are named, and the others taken in.
    """
    from pickcal.engine.executors import open_executor
    from pickcal.stages.ingest import ingest

    chosen = settings_of(ImportSettings, settings, import_micrographs)
    where = ClusterSettings(kind="serial") if chosen.tables_only else cluster_of(cluster, workers)
    places = [place(one) for one in ([sources] if isinstance(sources, (str, Path, Url)) else sources)]
    lines = Lines(quiet)
    with open_executor(where, lines.note) as executor:
        result = ingest(places, place(project), chosen, executor, lines)
    opened = Workbench(project, write=True, quiet=quiet)
    opened.tell_failures(result.as_json())
    return opened


@takes(SimulateSettings)
def simulate_micrographs(
    out: Path | str,
    *,
    cluster: str | ClusterSettings = "local",
    workers: int | None = None,
    quiet: bool = False,
    **settings: Any,
) -> SimulatedSet:
    """Make simulated micrographs with known particles.

    Parameters
    ----------
    out
        Folder to write, which must not be there.
    cluster, workers, quiet
        As for `import_micrographs`.

    Returns
    -------
    SimulatedSet
        Its `micrographs`, `truth` and `templates` are the files to import, to evaluate with and to pick with.
    """
    from pickcal.engine.executors import open_executor
    from pickcal.simulation import simulate

    chosen = settings_of(SimulateSettings, settings, simulate_micrographs)
    lines = Lines(quiet)
    with open_executor(cluster_of(cluster, workers), lines.note) as executor:
        lines.start("simulate", chosen.micrographs)
        made = simulate(Path(out), chosen, executor, lambda _: lines.advance(1))
        lines.finish()
    return made
