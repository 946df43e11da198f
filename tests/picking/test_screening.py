"""Which pixels a search with templates looks at."""

from dataclasses import replace

import numpy as np
import pytest

from pickcal.picking.entries import Entries
from pickcal.picking.matching import Responses
from pickcal.picking.screening import MOST_UNUSUAL, SHARE, UNUSUAL, best_of_tiles, extreme_scores, worth_a_look

SHAPE, DIAMETER, SIDE = (110, 150), 10.0, 20
WINDOW = (slice(5, 100), slice(10, 145))


@pytest.fixture(scope="module")
def noise():
    """Maps of six images of noise, of which a bank of forty entries is made."""
    rng = np.random.default_rng(8)
    weights = rng.standard_normal((40, 6)).astype(np.float32) * np.array([4, 3, 2, 1, 1, 1], np.float32)
    weights /= np.linalg.norm(weights, axis=1, keepdims=True)
    entries = Entries(weights, 40, 0, np.square(weights).sum(axis=0), None)
    return Responses(rng.standard_normal((*SHAPE, 6)).astype(np.float32), entries, np.full(SHAPE, 3.0, np.float32))


@pytest.mark.parametrize(("shape", "side", "share"), [((40, 40), 20, 0.1), ((47, 33), 16, 0.3), ((7, 5), 16, 0.01)])
def test_every_tile_keeps_its_best(shape, side, share):
    """Against one tile after the other; those at the border are cut off, and keep as many as whole ones."""
    values = np.random.default_rng(2).permutation(shape[0] * shape[1]).reshape(shape).astype(np.float32)
    marked = best_of_tiles(values, side, share)
    count = max(1, round(share * side * side))
    for y in range(0, shape[0], side):
        for x in range(0, shape[1], side):
            tile = values[y : y + side, x : x + side]
            best = np.sort(tile, axis=None)[::-1][:count]
            assert set(tile[marked[y : y + side, x : x + side]]) == set(best)


def test_the_energy_tells_where(noise):
    """The mean square of the scores of all entries, one by one; a root of the weights makes little difference."""
    looked = worth_a_look(noise, WINDOW, DIAMETER)
    scores = np.einsum("yxk,nk->yxn", noise.maps[WINDOW], noise.entries.weights) / 3
    energy = np.square(scores).mean(axis=2)
    tiles = [(slice(y, y + SIDE), slice(x, x + SIDE)) for y in range(0, 80, SIDE) for x in range(0, 120, SIDE)]
    for tile in tiles:
        assert looked[tile].sum() == round(SHARE * SIDE * SIDE)
    gap = [(energy[tile][looked[tile]].mean() / energy[tile].mean()) for tile in tiles]
    assert min(gap) > 1.5
    highest = np.concatenate([np.sort(energy[tile], axis=None)[-5:] for tile in tiles])
    kept = np.concatenate([np.sort(np.where(looked[tile], energy[tile], 0), axis=None)[-5:] for tile in tiles])
    assert (highest == kept).mean() > 0.9


def test_the_inverted_micrograph_is_looked_at_where_the_micrograph_is(noise):
    """So that decoys are the picks of the inverted one."""
    inverted = replace(noise, maps=-noise.maps)
    np.testing.assert_array_equal(worth_a_look(noise, WINDOW, DIAMETER), worth_a_look(inverted, WINDOW, DIAMETER))


@pytest.mark.parametrize(("factor", "rows", "all_of_them"), [(1.3, 12, True), (1.2, 12, False), (1.3, 60, False)])
def test_where_the_variance_is_unusual_every_pixel_is_looked_at(noise, factor, rows, all_of_them):
    """As beside ice; but not in what is half of the micrograph, as carbon may be."""
    spread = noise.spread.copy()
    spread[5 : 5 + rows] *= factor
    assert (factor**2 > UNUSUAL) == (factor == 1.3) and (rows / 95 > MOST_UNUSUAL)
    spread[5 : 5 + rows, 80:] = 3.0
    looked = worth_a_look(replace(noise, spread=spread), WINDOW, DIAMETER)
    unusual = spread[WINDOW] > 3.1
    assert looked[unusual].all() == all_of_them
    assert looked.mean() < SHARE + MOST_UNUSUAL + 0.02


def test_nothing_is_looked_at_where_there_is_nothing(noise):
    """A micrograph smaller than the border that picks keep."""
    assert worth_a_look(noise, (slice(20, 20), slice(10, 90)), DIAMETER).shape == (0, 80)


def test_pixels_that_are_not_looked_at_have_no_score(noise):
    """The others have what they have when everything is looked at."""
    looked = worth_a_look(noise, WINDOW, DIAMETER)
    for some, every in zip(extreme_scores(noise, WINDOW, looked), extreme_scores(noise, WINDOW), strict=True):
        assert np.isneginf(some.score[~looked]).all() and np.isfinite(every.score).all()
        np.testing.assert_allclose(some.score[looked], every.score[looked], rtol=1e-5)
        np.testing.assert_array_equal(some.row[looked], every.row[looked])
