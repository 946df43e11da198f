"""Gautomatch's STAR files, `<micrograph>_automatch.star`: RELION's picks with the columns in another order.

Gautomatch writes `_rlnCoordinateX`, `Y`, `_rlnAnglePsi`, `_rlnClassNumber`, `_rlnAutopickFigureOfMerit`, without a
version; RELION has the angle last. Beside the picks lie `_nonunique.star` (before close ones were removed) and
`_rejected.star`, which are not picks and are refused. Its `.box` files are read by `eman`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pickcal.errors import InputError
from pickcal.formats import relion_picks
from pickcal.formats.foreign import ForeignPicks

LABEL = re.compile(rb"^[ \t]*_(\S+)", re.MULTILINE)
LABELS = [b"rlnCoordinateX", b"rlnCoordinateY", b"rlnAnglePsi", b"rlnClassNumber", b"rlnAutopickFigureOfMerit"]
PICKS = "_automatch"
LEFTOVERS = ("_nonunique", "_rejected")


def recognise(path: Path, head: bytes) -> bool:
    """Whether a file is a STAR with Gautomatch's five columns in its order, or with positions and its file name.

    Parameters
    ----------
    path
        The file; of its name, the endings `_automatch`, `_nonunique` and `_rejected` count.
    head
        Its first `foreign.HEAD` bytes.
    """
    if b"data_" not in head:
        return False
    labels = LABEL.findall(head)
    return labels == LABELS or (LABELS[0] in labels and path.stem.endswith((PICKS, *LEFTOVERS)))


def is_leftover(path: Path) -> bool:
    """Whether a file's name says that Gautomatch did not take its picks: to be left out of a folder."""
    return path.stem.endswith(LEFTOVERS)


def plain_stem(path: Path) -> str:
    """Name of the micrograph: the file's stem without `_automatch`.

    Raises
    ------
    InputError
        If the file holds what Gautomatch left out (`_nonunique`, `_rejected`).
    """
    if is_leftover(path):
        raise InputError(
            f"{path}: expected picks, found what Gautomatch left out of them; give the {PICKS} file, or rename this "
            "one if you want it all the same"
        )
    return path.stem.removesuffix(PICKS)


def read_picks(path: Path) -> Iterator[ForeignPicks]:
    """Read Gautomatch's picks of a micrograph.

    Parameters
    ----------
    path
        `<micrograph>_automatch.star`.

    Yields
    ------
    ForeignPicks
        As of `relion_picks.read_picks`, the micrograph's stem without `_automatch`; score "figure_of_merit".
        Gautomatch's classes and angles are taken to count as RELION's do, for which it writes them.

    Raises
    ------
    MissingFileError, InputError
        If the file is not there or damaged, or holds rejected picks.
    """
    for part in relion_picks.read_picks(path):
        yield replace(part, program="gautomatch", stem=plain_stem(path))
