"""Which module reads a file: found by what is in the file, not by its name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import ModuleType

import pandas as pd

from pickcal.errors import InputError
from pickcal.formats import (
    cryolo,
    cryosparc,
    ctffind,
    eman,
    gautomatch,
    gctf,
    relion,
    relion_picks,
    tables,
    topaz,
    warp,
)
from pickcal.formats.exposures import PART, Exposures, problems
from pickcal.formats.foreign import CTF_RANGES, EXPOSURE_COLUMNS, WHOLE_COLUMNS, ForeignPicks
from pickcal.formats.opening import head_of

PARTICLES: tuple[ModuleType, ...] = (cryosparc, warp, relion_picks)
"""Readers of particles that may tell the CTF of their micrographs."""

PICKS: tuple[ModuleType, ...] = (cryosparc, warp, gautomatch, cryolo, relion_picks, eman, topaz, tables)
"""Readers of picks; the first that recognises a file reads it, so that the particular stand before the general."""

EXPOSURES: tuple[ModuleType, ...] = (cryosparc, ctffind, gctf, tables)
"""Readers of tables of micrographs beside RELION's."""

Listed = tuple[str | None, Path, ModuleType | None]
"""Micrograph where an index names it, file of picks, and who reads it."""

Known = dict[tuple[bytes, str, str], ModuleType | None]

KNOWN = "RELION, cryoSPARC, Topaz, crYOLO, EMAN, Gautomatch, Warp, CSV or Parquet"


@dataclass(frozen=True)
class PickFiles:
    """Files that are read together: one, or several `.cs` files that belong to each other.

    Attributes
    ----------
    module
        Who reads them.
    paths
        The files.
    micrograph
        Name of the micrograph, where an index says which one it is.
    """

    module: ModuleType
    paths: tuple[Path, ...]
    micrograph: str | None = None

    def read(self) -> Iterator[ForeignPicks]:
        """Read the picks, in parts."""
        found: Iterator[ForeignPicks] = self.module.read_picks(
            list(self.paths) if self.module is cryosparc else self.paths[0]
        )
        return found


def pick_files(paths: Sequence[Path]) -> list[PickFiles]:
    """Find the files of picks that some paths stand for, and who reads each.

    Parameters
    ----------
    paths
        Files of picks, indices of such files (RELION's `autopick.star` and `coords_suffix_*.star`), or folders, of
        which all files that hold picks are taken.

    Raises
    ------
    MissingFileError, InputError
        If a path is not there, nobody knows a file, a file is given twice, or a folder holds no picks or picks of
        several kinds.
    """
    listed: list[Listed] = []
    known: Known = {}
    for path in paths:
        if path.is_dir():
            listed += _of_folder(path, known)
        elif path.is_file() and relion_picks.recognise_index(path, head_of(path)):
            listed += _of_index(path, known)
        else:
            listed.append((None, path, _picks_reader(path, known)))
    seen: set[Path] = set()
    out: list[PickFiles] = []
    cs: list[Path] = []
    for micrograph, path, module in listed:
        if path.absolute() in seen:
            raise InputError(f"{path}: given twice")
        seen.add(path.absolute())
        if module is None:
            raise InputError(f"{path}: expected picks of {KNOWN}, found {_what(path)}")
        if module is cryosparc:
            cs.append(path)
        else:
            out.append(PickFiles(module, (path,), micrograph))
    return ([PickFiles(cryosparc, tuple(cs))] if cs else []) + out


def read_exposures(paths: Sequence[Path], *, require_ctf: bool = True) -> pd.DataFrame:
    """Read tables of micrographs and their CTF as a whole; see `open_exposures`."""
    return pd.concat(list(open_exposures(paths, require_ctf=require_ctf).parts(PART)), ignore_index=True)


def open_exposures(paths: Sequence[Path], *, require_ctf: bool = True) -> Exposures:
    """Check tables of micrographs and their CTF, and give them in parts.

    Parameters
    ----------
    paths
        One or more files of one kind: RELION's `micrographs_ctf.star`, cryoSPARC's exposures, outputs of CTFFIND 4
        and 5 or Gctf, CSV or Parquet; or particles that tell the CTF of their micrographs.
    require_ctf
        Refuse tables without defocus.

    Returns
    -------
    Exposures
        Its parts have `name`, `foreign.EXPOSURE_COLUMNS` (NaN, or 0 for whole numbers, where not known), and
        `problem`: why a row cannot be used, else empty. Only RELION's tables are not held as a whole.

    Raises
    ------
    MissingFileError, InputError
        If a file is not there, nobody knows it, or the kinds are mixed.
    """
    found = _opened(paths, require_ctf)
    return replace(found, parts=lambda rows: map(_complete, found.parts(rows)))


def _opened(paths: Sequence[Path], require_ctf: bool) -> Exposures:
    modules = {path: _exposures_reader(path) for path in paths}
    if set(modules.values()) == {cryosparc} and not any(b"micrograph_blob" in head_of(path) for path in paths):
        return Exposures.of(_from_particles(paths, require_ctf))
    kinds = set(modules.values())
    if len(kinds) > 1:
        first, other = next((a, b) for a in paths for b in paths if modules[a] is not modules[b])
        raise InputError(f"{other}: expected a table of micrographs of the same kind as {first}; import one kind")
    module = kinds.pop()
    if module is not None:
        return Exposures.of(module.read_exposures(list(paths)))
    if len(paths) > 1:
        raise InputError(f"{paths[1]}: expected one table of micrographs, got {len(paths)}; join them first")
    if relion.recognise(paths[0], head := head_of(paths[0])) or (b"data_" in head and not _is_particles(paths[0])):
        return relion.open_micrographs_star(paths[0], require_ctf=require_ctf)
    return Exposures.of(_from_particles(paths, require_ctf))


def is_table(path: Path) -> bool:
    """Whether a file is a table, of micrographs or of picks, rather than an image."""
    if path.suffix.lower() == ".star":
        return True
    if not path.is_file():
        return False
    return _exposures_reader(path) is not None or _reader(path, (relion, *PARTICLES, tables)) is not None


def _reader(path: Path, modules: Sequence[ModuleType], function: str = "recognise") -> ModuleType | None:
    head = head_of(path)
    for module in modules:
        recognise: Callable[[Path, bytes], bool] | None = getattr(module, function, None)
        if recognise is None:
            recognise = module.recognise
        if recognise(path, head):
            return module
    return None


def _exposures_reader(path: Path) -> ModuleType | None:
    """Find the reader of a table of micrographs; RELION's, and particles, have theirs apart."""
    return _reader(path, EXPOSURES, "recognise_exposures")


def _picks_reader(path: Path, known: Known) -> ModuleType | None:
    """Find the reader of a file of picks; STAR files of one head and one ending are looked at once."""
    head = head_of(path)
    labels = head[: head.rfind(b"\n_") + 1] if head.count(b"data_") == 1 else b""
    key = (labels, path.stem.rpartition("_")[2], path.suffix)
    if not labels:
        return _reader(path, PICKS)
    if key not in known:
        known[key] = _reader(path, PICKS)
    return known[key]


def _of_index(path: Path, known: Known) -> list[Listed]:
    return [(name, file, _picks_reader(file, known)) for name, file in relion_picks.read_index(path)]


def _of_indices(folder: Path, indices: Sequence[Path], known: Known) -> list[Listed]:
    """Files of a folder with indices; RELION writes one for itself, and one of the same files for older versions."""
    listed = [relion_picks.read_index(path) for path in indices]
    real = cache(Path.resolve)
    files = [{real(file.parent) / file.name for _, file in found} for found in listed]
    for path, others in zip(indices[1:], files[1:], strict=True):
        if others != files[0]:
            raise InputError(
                f"{folder}: its indices {indices[0]} ({len(files[0])} files) and {path} ({len(others)} files) list "
                "different files of picks; give the index of those that you want"
            )
    named = next((found for found in listed if found[0][0] is not None), listed[0])
    return [(name, file, _picks_reader(file, known)) for name, file in named]


def _of_folder(folder: Path, known: Known) -> list[Listed]:
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    indices = [path for path in files if path.suffix == ".star" and relion_picks.recognise_index(path, head_of(path))]
    if indices:
        return _of_indices(folder, indices, known)
    kinds: dict[ModuleType, list[Path]] = {}
    for path in files:
        # Gautomatch leaves what it rejected beside what it accepted
        module = None if gautomatch.is_leftover(path) else _picks_reader(path, known)
        if module is not None:
            kinds.setdefault(module, []).append(path)
    if not kinds:
        raise InputError(f"{folder}: expected a folder with picks of {KNOWN}, found none among {len(files)} files")
    if len(kinds) > 1:
        examples = " and ".join(str(paths[0]) for paths in kinds.values())
        raise InputError(f"{folder}: holds picks of several kinds ({examples}); give the files of one kind")
    module, found = next(iter(kinds.items()))
    return [(None, path, module) for path in found]


def _what(path: Path) -> str:
    head = head_of(path)
    if not head.strip():
        return "an empty file"
    if b"\x00" in head:
        return f"a binary file that begins with {head[:8]!r}"
    return f"a text that begins with {head[:60].decode('utf-8', 'replace').splitlines()[0]!r}"


def _is_particles(path: Path) -> bool:
    return _reader(path, PARTICLES) is not None


def _from_particles(paths: Sequence[Path], require_ctf: bool) -> pd.DataFrame:
    """Medians of what the particles of every micrograph say of it; of whole numbers, which are names, the first."""
    path = paths[0]
    module = _reader(path, PARTICLES)
    if module is None:
        raise InputError(f"{path}: expected a table of micrographs and their CTF, found {_what(path)}")
    parts = []
    for part in PickFiles(module, tuple(paths)).read():
        if part.micrograph is None or (require_ctf and "defocus_u" not in part.exposure):
            raise InputError(
                f"{path}: expected micrographs with their defocus, found picks without; give micrographs_ctf.star or "
                "the exposures of the CTF estimation"
            )
        parts.append(pd.DataFrame({"name": part.micrograph.astype("str"), **part.exposure}))
    table = pd.concat(parts, ignore_index=True)
    told = [str(name) for name in table if name != "name"]
    grouped = table.groupby("name", sort=False)
    found = {name: grouped[name].first() if name in WHOLE_COLUMNS else grouped[name].median() for name in told}
    frame = pd.DataFrame(found, index=pd.Index(table["name"].dropna().unique(), name="name")).reset_index()
    if "defocus_u" in frame:
        for name, values in (("defocus_v", frame["defocus_u"]), ("defocus_angle", 0.0), ("phase_shift", 0.0)):
            if name not in frame:
                frame[name] = values
    frame["problem"] = problems(frame, [name for name in CTF_RANGES if name in frame] if require_ctf else [])
    return frame


def _complete(frame: pd.DataFrame) -> pd.DataFrame:
    """Table with every column that any format knows; readers have refused names that come twice."""
    out = frame.copy()
    for name in EXPOSURE_COLUMNS:
        if name not in out:
            out[name] = WHOLE_COLUMNS.get(name, float("nan"))
        if name in WHOLE_COLUMNS and name != "uid":
            out[name] = out[name].fillna(WHOLE_COLUMNS[name]).astype("int64")
    out["uid"] = out["uid"].fillna(0).astype("uint64")
    if "problem" not in out:
        out["problem"] = ""
    return out[["name", *EXPOSURE_COLUMNS, "problem"]]
