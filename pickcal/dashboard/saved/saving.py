"""Named selections and files that leave the dashboard: nothing is overwritten in silence, nothing is half-written."""

from __future__ import annotations

import hashlib
import json
import re
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

from pickcal.dashboard.saved.zipping import zipped
from pickcal.errors import InputError, PickcalError, ProjectError
from pickcal.project import Project, check_name
from pickcal.settings import ExportSettings, SelectSettings, validated
from pickcal.stages.export import export
from pickcal.stages.select import select
from pickcal.stages.select_result import is_stale
from pickcal.stores.places import Url

LONGEST_NAME = 64
SUFFIXES = {"cryosparc": ".cs", "topaz": ".txt", "csv": ".csv", "parquet": ".parquet"}
"""Of the formats that are one file; the others are folders."""


class Conflict(ProjectError):
    """Somebody else saved a selection under this name meanwhile.

    Attributes
    ----------
    name
        The selection.
    found
        What is stored now.
    """

    def __init__(self, message: str, name: str, found: Saved) -> None:
        super().__init__(message)
        self.name = name
        self.found = found


@dataclass(frozen=True)
class Saved:
    """A stored selection.

    Attributes
    ----------
    picks
        Name of the picks that it is of.
    settings
        Its thresholds and decisions by hand.
    stamp
        Another one after every saving.
    stale
        Whether its picks, or their calibration, have changed since it was made.
    by, saved
        Who saved it and when (ISO time), "" where that is not known.
    """

    picks: str
    settings: SelectSettings
    stamp: str
    stale: bool = False
    by: str = ""
    saved: str = ""

    @property
    def origin(self) -> str:
        """Who saved it and when, in words."""
        when = f" on {self.saved.replace('T', ' at ', 1)}" if self.saved else ""
        return f"{self.by or 'somebody who gave no name'}{when}"


def load(project: Project, name: str) -> Saved:
    """Read a stored selection, stale or not.

    Parameters
    ----------
    project
        Opened for reading.
    name
        Name of the selection.

    Raises
    ------
    ProjectError, InputError
        If there is no such selection, its picks are gone, or it holds what no selection can.
    """
    project.require("selection", name)
    found = _read(project, name)
    if found.picks not in project.names("picks"):
        raise ProjectError(
            f"{project.path}: selection {name!r} is of picks {found.picks!r}, which are gone; pick them again"
        )
    return replace(found, stale=is_stale(project, name))


def save(
    project_path: Path | Url | str,
    picks: str,
    name: str,
    settings: SelectSettings,
    known: str | None,
    by: str = "",
    overwrite: bool = False,
) -> str:
    """Store a selection as `pickcal select` does, unless somebody else saved under its name meanwhile.

    Parameters
    ----------
    project_path
        The project store.
    picks, name
        Names of the picks and of the selection.
    settings
        Thresholds and decisions by hand.
    known
        Stamp of what was loaded or saved last under this name; None for a name that is to be new.
    by
        Who saves, for others to read; default: not known.
    overwrite
        Replace on purpose what somebody else saved; default False.

    Returns
    -------
    str
        Stamp of what is stored now.

    Raises
    ------
    Conflict
        If what is stored under this name is not what `known` says.
    ProjectError, InputError
        If the name is not allowed, there are no such picks, the thresholds do not fit them, or the project cannot be
        written. What was stored before is still there then.
    """
    check_name("selection", name)
    if len(name) > LONGEST_NAME:
        raise InputError(f"selection: expected a name of at most {LONGEST_NAME} characters, got {len(name)}")
    project = Project.open(project_path, mode="r+")

    def check() -> None:
        if not overwrite:
            _refuse_unknown(project, name, known)

    try:
        made = select(project, picks, name, settings, overwrite=True, by=by, check=check)
    except PickcalError:
        raise
    except OSError as error:
        raise ProjectError(
            f"{project.path}: selection {name!r} was not saved ({error.strerror or error}); what was stored before is "
            "still there; make room or get the right to write in this folder, then save again"
        ) from None
    return str(made.attrs["stamp"])


def _refuse_unknown(project: Project, name: str, known: str | None) -> None:
    """Raise a `Conflict` unless what is stored under a name is what a visitor knows, or nothing."""
    if name not in project.names("selection"):
        return
    found = _read(project, name)
    if found.stamp == known:
        return
    what = "exists already" if known is None else "has been saved by somebody else since it was opened here"
    raise Conflict(
        f"{project.path}: selection {name!r} {what} (saved by {found.origin}, of picks {found.picks!r}); save under "
        "another name, open the stored one first, or overwrite it on purpose",
        name,
        found,
    )


def _read(project: Project, name: str) -> Saved:
    """Read a selection, all of one moment; whether it is stale is not looked at."""
    attributes = project.attributes(f"selection/{name}")
    values = dict(attributes["settings"])
    picks = str(values.pop("picks"))
    stamp = attributes.get("stamp")
    if not stamp:  # of a version that stored none
        text = json.dumps(attributes, sort_keys=True, default=str)
        stamp = hashlib.sha256(text.encode()).hexdigest()[:16]
    by, saved = (str(attributes.get(key, "")) for key in ("by", "saved"))
    return Saved(picks, validated(SelectSettings, values, f"selection {name}"), str(stamp), by=by, saved=saved)


def suggested(selection: str, format: str) -> str:
    """Folder or file to propose for an export: `NAME`, or `NAME.cs` and so on for formats of one file."""
    return f"{selection}{SUFFIXES.get(format, '')}"


def destination(root: Path, text: str, format: str, *, rejected: bool = False, overwrite: bool = False) -> Path:
    """Find where an export goes that a visitor of the page asks for.

    The path is used as the command line does: a folder (RELION, crYOLO, EMAN) or a file (cryoSPARC, Topaz, CSV,
    Parquet), named as it is given. Unlike there it cannot leave `root`, and does not replace what is there unasked.

    Parameters
    ----------
    root
        Folder that holds the project.
    text
        Path relative to `root`.
    format
        As `ExportSettings.format`.
    rejected
        Whether rejected picks go beside it; default False.
    overwrite
        Allow files that are there to be replaced; default False.

    Returns
    -------
    Path
        Absolute, with links followed.

    Raises
    ------
    InputError
        If the path is empty, absolute, leaves `root`, is hidden, is in a `.zarr`, is a folder where a file is wanted or
        the other way round, or holds files already.
    """
    kind = "file" if format in SUFFIXES else "folder"
    place = _inside(root, text, kind)
    beside = [place.with_name(f"{place.stem}_rejected{place.suffix}")] if rejected else []
    example = suggested("picks", format)
    for path in (place, *beside):
        if kind == "file" and path.is_dir():
            raise InputError(f"{text}: expected a file to write, found a folder; add a file name such as {example}")
        if kind == "folder" and path.exists() and not path.is_dir():
            raise InputError(f"{text}: expected a folder to write to, found a file; choose another name")
        if not overwrite and (path.is_file() or (path.is_dir() and any(path.iterdir()))):
            raise InputError(
                f"{text}: {path.name} {'exists' if kind == 'file' else 'holds files'} already; choose another name, or "
                "allow files to be replaced"
            )
    return place


def _inside(root: Path, text: str, kind: str) -> Path:
    """Resolve a path that must be within a folder, not hidden and not in a store."""
    text = text.strip()
    if not text or "\0" in text:
        raise InputError(f"expected the name of a {kind} to write, got {text!r}")
    given = Path(text)
    wanted = f"expected a path within {root}"
    if given.is_absolute() or given.drive or text.startswith("~"):
        raise InputError(f"{text}: {wanted}, found one that does not begin there; leave the front part out")
    folder = root.resolve()
    place = (folder / given).resolve()
    if not place.is_relative_to(folder):
        raise InputError(f"{text}: {wanted}, found one that leads to {place}; leave out '..' and links that lead out")
    parts = place.relative_to(folder).parts
    if not parts or (kind == "file" and re.search(r"[/\\.]$", text)):
        raise InputError(f"{text}: expected the name of a {kind} to write, found a folder; add a name")
    if any(part.startswith(".") for part in parts):
        raise InputError(f"{text}: expected a name that does not begin with '.', found a hidden one")
    if any(part.lower().endswith(".zarr") for part in parts):
        raise InputError(f"{text}: exports do not go into a .zarr store; choose a place beside it")
    return place


def export_selection(
    project: Project, selection: str, settings: ExportSettings, path: Path, root: Path | None = None
) -> list[Path]:
    """Write the picks of a selection as `pickcal export` does, byte for byte.

    Parameters
    ----------
    project, selection, settings, root
        As for `stages.export.export`.
    path
        Folder or file, see `destination`.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    ProjectError, InputError
        If the selection is not there or is stale, the format needs what is not known, or the files cannot be written.
    """
    try:
        done = export(project, selection, settings, path, root)
    except PickcalError:
        raise
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror or error}); make room, or choose another place"
        ) from None
    return [Path(file) for file in (*done["files"], *done.get("rejected_files", ()))]


def packed(project: Project, selection: str, settings: ExportSettings, out: Path) -> Path:
    """Write an export as one ZIP file to download; it unpacks to what an export beside the project would be.

    Parameters
    ----------
    project, selection, settings
        As for `export_selection`.
    out
        The ZIP file.

    Returns
    -------
    Path
        `out`.

    Raises
    ------
    ProjectError, InputError
        As `export_selection`.
    """
    with tempfile.TemporaryDirectory(prefix="pickcal-") as folder:
        root = Path(folder)
        files = export_selection(project, selection, settings, root / suggested(selection, settings.format), root)
        return zipped(files, out, root)
