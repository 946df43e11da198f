"""Names of micrographs as different programs spell them: matched in full, then by stem; never guessed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray

from pickcal.errors import InputError


class NameIndex:
    """Micrographs of a project, to be found by the names that other tables give them.

    Parameters
    ----------
    names
        Names of the project's micrographs.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self.names = list(names)
        self._full = {name: i for i, name in enumerate(self.names)}
        self._stems: dict[str, list[int]] = {}
        for i, name in enumerate(self.names):
            self._stems.setdefault(_stem(name), []).append(i)

    def find(self, name: str, what: str) -> int:
        """Find a micrograph by its full name, then by its stem (file name without folders and extension).

        Parameters
        ----------
        name
            The name to look for.
        what
            What it comes from, for the message.

        Returns
        -------
        int
            Index of the micrograph, -1 where none matches.

        Raises
        ------
        InputError
            If a stem fits more than one micrograph, and the folders do not tell them apart.
        """
        if name in self._full:
            return self._full[name]
        stem = _stem(name)
        # tables such as Topaz's leave the extension away, and a name may hold a dot
        hits = self._stems.get(stem) or self._stems.get(PurePosixPath(name).name) or []
        return self._only(hits, name, what)

    def find_file(self, path: Path, what: str) -> tuple[int, str]:
        """Find the micrograph that a file of picks belongs to: the longest stem that the file's name begins with.

        Endings are cut at `_`, `.` and `-` (`a_b_autopick.star` is of `a_b.mrc`). Where two micrographs of different
        folders share the stem, the folders of the file decide.

        Returns
        -------
        index, ending
            Micrograph, -1 where none matches; and what was cut away. Files of one kind share their ending: another
            one means that a file belongs to a micrograph that is not there (`a_1_autopick.star` is not of `a.mrc`).

        Raises
        ------
        InputError
            If several fit.
        """
        rest = path.name
        while rest:
            if rest in self._stems:
                return self._only(self._stems[rest], str(path), what, path), path.name[len(rest) :]
            cut = max(rest.rfind(mark) for mark in "_.-")
            rest = rest[:cut] if cut > 0 else ""
        return -1, ""

    def _only(self, hits: Sequence[int], name: str, what: str, path: Path | None = None) -> int:
        if len(hits) > 1:
            folders = PurePosixPath(path or name).parts[:-1][::-1]
            shared = [_shared(PurePosixPath(self.names[hit]).parts[:-1][::-1], folders) for hit in hits]
            best = [hit for hit, count in zip(hits, shared, strict=True) if count == max(shared)]
            if len(best) == 1:
                return best[0]
            raise InputError(
                f"{what}: {name!r} fits {len(best)} micrographs by its stem ({self.names[best[0]]!r}, "
                f"{self.names[best[1]]!r}); give names with folders as in the project"
            )
        return hits[0] if hits else -1


def _shared(a: Sequence[str], b: Sequence[str]) -> int:
    """Count the folders in which two paths agree, from the file outwards."""
    count = 0
    for left, right in zip(a, b, strict=False):
        if left != right:
            break
        count += 1
    return count


def matching_names(wanted: Sequence[str], names: Sequence[str], what: str) -> NDArray[np.intp]:
    """Find micrographs given by full name or by stem.

    Parameters
    ----------
    wanted
        Names to look for, as other tables spell them.
    names
        Names of the project's micrographs.
    what
        What `wanted` comes from, for the message.

    Returns
    -------
    ndarray
        Index into `names` for each of `wanted`, -1 where none matches.

    Raises
    ------
    InputError
        If a stem fits more than one micrograph.
    """
    index = NameIndex(names)
    return np.array([index.find(name, what) for name in wanted], dtype=np.intp).reshape(len(wanted))


def _stem(name: str) -> str:
    slice_, at, rest = name.rpartition("@")
    return f"{slice_}{at}{Path(rest).stem}"
