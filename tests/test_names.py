"""Names of micrographs: in full, by stem, by the names of files; two that fit are one too many."""

from pathlib import Path

import pytest

from pickcal.errors import InputError
from pickcal.names import NameIndex

NAMES = ["MotionCorr/job002/Movies/a.mrc", "MotionCorr/job002/Movies/a_b.mrc", "g1/x.1.mrc", "g2/x.1.mrc"]


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("MotionCorr/job002/Movies/a.mrc", 0),
        ("a", 0),
        ("else/where/a_b.tif", 1),
        ("g2/x.1.mrc", 3),
        ("far/g1/x.1.tif", 2),
        ("c.mrc", -1),
        ("", -1),
    ],
)
def test_find(name, place):
    assert NameIndex(NAMES).find(name, "t") == place


def test_a_stem_of_two_is_refused_unless_folders_tell():
    with pytest.raises(InputError, match=r"t: 'x\.1\.mrc' fits 2 micrographs by its stem \('g1/x\.1\.mrc', 'g2/x\.1"):
        NameIndex(NAMES).find("x.1.mrc", "t")
    with pytest.raises(InputError, match="fits 2 micrographs"):
        NameIndex(NAMES).find("g3/x.1.mrc", "t")


@pytest.mark.parametrize(
    ("path", "place", "ending"),
    [
        ("out/a_autopick.star", 0, "_autopick.star"),
        ("out/a_b_autopick.star", 1, "_autopick.star"),
        ("out/a_b.box", 1, ".box"),
        ("out/a_c.box", 0, "_c.box"),
        ("out/g2/x.1_automatch.star", 3, "_automatch.star"),
        ("out/b.box", -1, ""),
    ],
)
def test_find_file(path, place, ending):
    """The longest stem counts; what is cut away is told, since another ending means another micrograph."""
    assert NameIndex(NAMES).find_file(Path(path), "t") == (place, ending)
