"""Groups of alike entries: what is put together is alike, and empty templates change nothing."""

import numpy as np
import pytest

from pickcal.picking.groups import EXACT, grouped

ODD = 8


@pytest.fixture
def entries():
    """Entries that are all somewhat alike, as projections of one particle are."""
    rng = np.random.default_rng(0)
    made = rng.standard_normal((400, 20)).astype(np.float32)
    made[:, 0] += 6
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def test_few_entries_need_none(entries):
    assert grouped(entries[:EXACT], ODD) == (None, None)


def test_who_is_together_is_more_alike_than_who_is_not(entries):
    group, turned = grouped(entries, ODD)
    facing = entries.copy()
    facing[turned, -ODD:] *= -1
    likeness = facing @ facing.T
    together = (group[:, None] == group) & ~np.eye(len(group), dtype=bool)
    assert group.max() + 1 > 100
    assert np.median(likeness[together]) > np.median(likeness[group[:, None] != group]) + 0.2


@pytest.mark.parametrize("at", [[0], [7, 200], [0, 1, 399]])
@pytest.mark.parametrize("norm", [0.0, 1e-6])
def test_empty_class_averages_change_nothing(entries, at, norm):
    """They are common; the other entries fall into the groups they fall into without."""
    filled = np.setdiff1d(np.arange(len(entries)), at)
    rest = entries[filled]
    there = entries.copy()
    there[at] = norm * np.random.default_rng(1).standard_normal((len(at), 20))
    group, turned = grouped(there, ODD)
    alone, turned_alone = grouped(rest, ODD)
    np.testing.assert_array_equal(group[filled], alone)
    np.testing.assert_array_equal(turned[filled], turned_alone)


def test_nothing_but_empty_templates_has_no_groups():
    assert grouped(np.zeros((300, 20), dtype=np.float32), ODD) == (None, None)
