"""The sample from which the fixed point begins, against NumPy and the odds it is drawn with."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairgrape_jax.selection import blocks as bl
from fairgrape_jax.selection import select_greedy
from fairgrape_jax.selection.fixed_point import sample as sampling
from fairgrape_jax.selection.fixed_point.prefixes import depth
from fairgrape_jax.selection.fixed_point.threshold import survey
from fairgrape_jax.selection.fixed_point.walk import CAPACITY
from tests.helpers.layers import drawn

LARGE, SMALL = 60_000, 1000
# Three segments, of which the last has one group alone; the second is walked as a whole.
SIZES = (LARGE, SMALL, LARGE)
PARTS = tuple(map(slice, np.cumsum([0, *SIZES[:-1]]), np.cumsum(SIZES)))
BEGINS = bl.BLOCK * np.cumsum([0] + [-(-n // bl.BLOCK) for n in SIZES[:-1]])
PLACES = np.concatenate([np.arange(n) + b for n, b in zip(SIZES, BEGINS, strict=True)])


@functools.cache
def layers():
    """Importances, which weights are alive, and how many of each segment are kept."""
    importance, previous, _ = drawn(n=sum(SIZES))
    importance[1:, PARTS[2]] = 0
    # Sums far below 1: no number is compared with more than 0.
    return np.ldexp(importance, -40), previous, np.array([12_000, 200, 6000], np.int32)


@jax.jit
def begun(importance, previous, keep):
    cut = [importance[:, part] for part in PARTS], [previous[part] for part in PARTS]
    blocks, _ = bl.pack(*cut, (0, 1, 2))
    layer = survey(blocks, keep)
    sample, each = sampling.draw(blocks, layer)
    first, _ = sampling.walk_sample(blocks, layer, keep)
    guess = sampling.guess_ends(first, sample, blocks.size)
    segment = jnp.asarray(blocks.segment)
    deep = depth(blocks.keys, blocks.indices(), guess.shells.of(segment), blocks.size[segment])
    return layer, sample, each, first, guess, deep


@functools.cache
def result():
    return jax.device_get(begun(*layers()))


def values(sample, segment):
    """The importances of a sample, (G, C)."""
    return np.asarray(bl.values(jnp.asarray(sample.gathered.keys[segment]))).T


def test_the_layer_is_counted_in_numpys_numbers():
    importance, previous, keep = layers()
    layer = result()[0]
    for segment, part in enumerate(PARTS):
        rows, alive = importance[:, part], previous[part]
        assert layer.alive[segment] == alive.sum()
        totals = np.asarray(layer.true(layer.totals))[segment]
        expected = (rows * alive).sum(axis=1, dtype=np.float64)
        np.testing.assert_allclose(totals / totals.sum(), expected / expected.sum(), rtol=1e-6)
    assert layer.keep.tolist() == keep.tolist()
    assert layer.small.tolist() == [False, True, False]
    assert layer.busy.tolist() == [True, False, True]
    assert not layer.simple.any()


def test_a_choice_is_simple_where_nothing_is_kept_or_all_that_matters():
    rows, alive = jnp.array([[3.0, 0, 1, 0], [0, 0, 2, 0]]), jnp.ones(4, bool)
    blocks, _ = bl.pack([rows] * 4, [alive] * 4, (0, 1, 2, 3))
    assert survey(blocks, jnp.arange(4)).simple.tolist() == [True, False, True, True]


@pytest.mark.parametrize("segment", [0, 2])
def test_weights_are_drawn_half_evenly_and_half_by_importance(segment):
    importance, previous, _ = layers()
    layer, sample, each, *_ = result()
    rows, alive = importance[:, PARTS[segment]], previous[PARTS[segment]]
    parts = (rows[rows.any(axis=1)] * alive).astype(np.float64)
    share = (parts / parts.sum(axis=1, keepdims=True)).mean(axis=0)
    odds = sampling.SIZE / 2 * (1 / alive.sum() + share)
    stands_for = np.ceil(1 / odds)
    hashed = np.asarray(sampling.hash_indices(jnp.arange(LARGE, dtype=jnp.int32)), np.float64)
    chosen = np.flatnonzero((hashed * stands_for < 1) & alive)
    taken = each[segment] > 0
    indices = sample.gathered.indices[segment][taken]
    # float32 may round 1 / odds to the other side of a whole number
    assert len(np.setxor1d(chosen, indices)) <= 3
    assert np.all(np.diff(indices) > 0)
    assert (each[segment][taken] != stands_for[indices]).sum() <= 3
    shifted = np.ldexp(rows[:, indices], -layer.shift[segment][:, None])
    np.testing.assert_array_equal(values(sample, segment)[:, taken], shifted)


def test_a_sample_stands_for_the_layer():
    """Horvitz and Thompson: what each weight stands for adds up to the layer, within the luck."""
    _, previous, _ = layers()
    layer, sample, each, *_ = result()
    assert 0.8 * sampling.SIZE < (each[0] > 0).sum() <= sampling.SIZE
    assert each[0].sum() == pytest.approx(previous[:LARGE].sum(), rel=0.05)
    parts = (values(sample, 0) * each[0]).sum(axis=1)
    np.testing.assert_allclose(parts, layer.totals.value()[0], rtol=0.05)


def test_a_small_layer_is_its_own_sample():
    importance, previous, _ = layers()
    _, sample, each, *_ = result()
    alive = np.flatnonzero(previous[PARTS[1]])
    assert each[1].tolist() == [1] * len(alive) + [0] * (CAPACITY - len(alive))
    assert sample.gathered.indices[1][: len(alive)].tolist() == alive.tolist()
    for order, row in zip(sample.order[1], importance[:, PARTS[1]][:, alive], strict=True):
        assert order[: len(alive)].tolist() == np.argsort(-row, kind="stable").tolist()


def test_the_walk_counts_what_its_weights_stand_for_and_is_greedys_where_the_layer_is_small():
    importance, previous, keep = layers()
    _, _, each, first, *_ = result()
    taken = first.taken[:, :-1]
    assert first.number.tolist() == (each * taken).sum(axis=1).tolist()
    assert first.number[1] == keep[1]
    assert 0.95 * keep[0] < first.number[0] <= 1.05 * keep[0]
    greedy = select_greedy(importance[:, PARTS[1]], previous[PARTS[1]], int(keep[1]))
    alive = np.flatnonzero(previous[PARTS[1]])
    assert alive[taken[1][: len(alive)]].tolist() == np.flatnonzero(greedy).tolist()
    assert not first.stuck.any()


def test_the_first_ends_hold_about_what_is_kept_and_every_groups_share():
    importance, previous, keep = layers()
    *_, guess, deep = result()
    within = (deep.max(axis=1) >= 0).reshape(-1)[PLACES] & previous
    for part, number, room in zip(PARTS, keep, (0.05, 0, 0.1), strict=True):
        assert within[part].sum() == pytest.approx(number, rel=room, abs=2)
        rows = (importance[:, part] * previous[part]).astype(np.float64)
        whole, kept = rows.sum(axis=1), rows[:, within[part]].sum(axis=1)
        np.testing.assert_allclose(kept / kept.sum(), whole / whole.sum(), rtol=0.02)
    assert guess.active[0].all()
    assert guess.active[2].tolist() == [True, False, False]
    assert np.all(np.asarray(guess.shells.width) > 0)


@pytest.mark.parametrize(("alive", "keep", "small"), [(4095, 9, 1), (4096, 9, 1), (4097, 9, 0)])
def test_a_layer_is_small_up_to_the_capacity_of_a_walk(alive, keep, small):
    assert CAPACITY == 4096
    blocks, _ = bl.pack([jnp.ones((1, 5000))], [jnp.arange(5000) < alive], (0,))
    assert survey(blocks, jnp.array([keep])).small.tolist() == [small]


@pytest.mark.parametrize("ties", [0, sampling.NEAR // 2, sampling.NEAR // 2 + 1, sampling.NEAR])
def test_ends_are_among_ties_where_more_than_half_as_many_neighbours_are_looked_at(ties):
    keys = np.arange(CAPACITY, 0, -1, dtype=np.int32)
    keys[1000 : 1000 + ties + 1] = keys[1000]  # so many pairs of neighbours
    order = jnp.arange(CAPACITY)[None, None]
    gathered = bl.Gathered(jnp.asarray(keys)[None, :, None], order[0], order[0])
    first = result()[3]._replace(position=jnp.array([[1000]]))
    among = sampling.ends_among_ties(first, sampling.Sample(gathered, order))
    assert among.tolist() == [ties > sampling.NEAR // 2]
