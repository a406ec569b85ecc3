"""What the fixed point does with blocks of weights, against NumPy on the same weights."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from fairgrape_jax.selection import blocks as bl
from fairgrape_jax.selection.blocks.keys import can_be_ranked
from fairgrape_jax.selection.fixed_point.prefixes import INFINITE, Prefixes

SIZES, SEGMENTS = (1, 1500, 2049), (0, 1, 1)  # arrays, and the segments that they belong to
WITHIN = (slice(0, 1), slice(1, 3550))  # the weights of each segment, in order
# Where they are in the blocks: every array begins with one.
PLACES = np.concatenate([[0], 1024 + np.arange(1500), 3072 + np.arange(2049)])


@functools.cache
def drawn():
    """Importances with ties and zeros, two groups, and which weights are alive."""
    rng = np.random.default_rng(0)
    rows = rng.lognormal(0, 1, (2, sum(SIZES))).round(1).astype(np.float32)
    return rows * (rng.random(rows.shape) < 0.9), rng.random(rows.shape[1]) < 0.8


def on_device(of_weights):
    """Of each array."""
    return [jnp.asarray(x) for x in np.split(of_weights, np.cumsum(SIZES)[:-1], axis=-1)]


@functools.cache
def packed():
    rows, alive = drawn()
    blocks, arrays = jax.jit(bl.pack, static_argnums=2)(*map(on_device, (rows, alive)), SEGMENTS)
    assert arrays.sound.all()
    assert arrays.left.tolist() == [flags.sum() for flags in on_device(alive)]
    return blocks


def flat(of_blocks):
    """Of all weights in order, from an array (B, BLOCK)."""
    return np.asarray(of_blocks).reshape(-1)[PLACES]


def flags(of_weights):
    """Of blocks, (B, BLOCK), from an array of all weights."""
    result = np.zeros(len(packed().segment) * bl.BLOCK, of_weights.dtype)
    result[PLACES] = of_weights
    return jnp.asarray(result.reshape(-1, bl.BLOCK))


def test_the_least_nan_and_infinity_are_no_numbers_to_rank():
    bits = np.array([0x7F7FFFFF, 0x7F800000, 0x7F800001, 0x7FC00000, -1, 0, 1], np.int32)
    importance = jnp.asarray(bits.view(np.float32))
    assert bl.keys_of(importance).tolist() == [0x7F7FFFFF, 0x7F7FFFFF, 0, 0, 0, 0, 1]
    assert can_be_ranked(importance).tolist() == [True] + [False] * 4 + [True] * 2


def test_blocks_hold_every_weight_in_its_place():
    rows, alive = drawn()
    blocks = packed()
    assert blocks.size.tolist() == [1, 3549]
    for k in range(2):
        np.testing.assert_array_equal(flat(bl.values(blocks.keys[:, k])), rows[k] * alive)
        np.testing.assert_array_equal(flat(blocks.keys[:, k]) >= 0, alive)
    assert (blocks.keys >= 0).sum() == 2 * alive.sum()  # all else is dead
    back = bl.unpack(np.asarray(blocks.keys[:, 1] >= 0), SIZES)
    jax.tree.map(np.testing.assert_array_equal, back, on_device(alive))
    indices = np.concatenate([np.arange(1), np.arange(3549)])
    np.testing.assert_array_equal(flat(blocks.indices()), indices)
    segments = np.repeat(blocks.segment[:, None], bl.BLOCK, axis=1)
    np.testing.assert_array_equal(flat(segments), np.repeat([0, 1], [1, 3549]))


@pytest.mark.parametrize("power", [-140, -100, 0, 60, 100])
def test_groups_of_any_scale_are_shifted_exactly(power):
    """The largest importance of a group that is far from 1 lies between 1 and 2."""
    rows = np.float32([[1.5, 0.75, 0.0, 1.0], [1.5, 0.75, 0.0, 1.0]])
    rows[1] = np.ldexp(rows[1], power)
    alive = np.array([True, True, True, False])
    blocks, _ = jax.jit(bl.pack, static_argnums=2)([jnp.asarray(rows)], [jnp.asarray(alive)], (0,))
    assert blocks.shift.tolist() == [[0, power if abs(power) > 90 else 0]]
    keys = blocks.keys[0, :, :4]
    values = np.ldexp(np.asarray(bl.values(keys)), np.asarray(blocks.shift)[0][:, None])
    np.testing.assert_array_equal(values, rows * alive)
    assert (np.asarray(keys)[:, 2:] == [0, -1]).all()


def test_the_largest_of_each_segment_ties_to_the_lower_index():
    rows, alive = drawn()
    scores = np.where(alive, (10 * rows[0]).round().astype(np.uint32) + 1, 0)
    select = jax.jit(bl.select_largest)
    many = int(alive[1:].sum())
    for keep in ((0, 0), (int(alive[0]), 1), (0, 700), (int(alive[0]), 701), (0, many)):
        chosen = flat(select(flags(scores), jnp.asarray(keep, jnp.int32), packed()))
        for within, number in zip(WITHIN, keep, strict=True):
            first = np.argsort(-scores[within].astype(int), kind="stable")[:number]
            expected = np.isin(np.arange(len(scores[within])), first)
            np.testing.assert_array_equal(chosen[within], expected)


@pytest.mark.parametrize("capacity", [5, 600])
def test_what_is_gathered_is_the_first_of_each_segment_and_goes_back(capacity):
    rows, alive = drawn()
    some = alive & (np.random.default_rng(1).random(len(alive)) < 0.15)
    gathered = jax.jit(bl.gather, static_argnums=1)(flags(some), capacity, packed())
    for segment, within in enumerate(WITHIN):
        first = np.flatnonzero(some[within])[:capacity]
        assert len(first) < 600
        indices = np.asarray(gathered.indices[segment])
        np.testing.assert_array_equal(indices[: len(first)], first)
        assert (indices[len(first) :] == np.iinfo(np.int32).max).all()
        keys = gathered.keys[segment]
        values = np.asarray(bl.values(keys))[: len(first)]
        np.testing.assert_array_equal(values, rows[:, within][:, first].T)
        assert (keys[len(first) :] == -1).all()
    back = flat(bl.scatter(gathered.keys[..., 0] >= 0, gathered, packed()))
    for within in WITHIN:
        expected = some[within] & (np.cumsum(some[within]) <= capacity)
        np.testing.assert_array_equal(back[within], expected)


def test_sums_are_exact_in_any_order():
    rows, alive = drawn()
    blocks = packed()
    counts = bl.add_integers(bl.count_flags(flags(alive)), blocks)
    assert counts.tolist() == [alive[within].sum() for within in WITHIN]
    each = flags(rows[1] * alive).sum(axis=1)
    scale = bl.power_above(each, blocks)
    sums = bl.add_floats(each, scale, blocks)
    expected = np.array([(rows[1] * alive)[within].sum(dtype=float) for within in WITHIN])
    np.testing.assert_allclose(sums.value(), expected, rtol=1e-6)
    high, low, scales = (np.asarray(x, float) for x in (sums.high, sums.low, scale))
    exact = (high * 2.0**-bl.HIGH + low * 2.0**-sums.bits) * scales
    part = np.asarray(each, float)
    total = np.array([part[np.asarray(blocks.segment) == k].sum() for k in range(2)])
    np.testing.assert_allclose(exact, total, rtol=1e-14)
    most = np.asarray(jax.ops.segment_max(each, blocks.segment, 2)) * len(each)
    assert (most < scales).all()
    assert (scales <= 2 * most).all()
    assert (np.frexp(scales)[0] == 0.5).all()  # powers of two


def test_prefixes_end_where_they_are_moved_to():
    ends = Prefixes(jnp.array([[10, 10, 0, INFINITE]]), jnp.array([[0.25, 0.75, 1.0, 0.0]]))
    moved = ends.advance(jnp.array([[3.5, -2.5, 0.5, -0.5]]))
    assert moved.key.tolist() == [[7, 12, 0, INFINITE]]
    # Beyond the least key all is within, and nothing beyond the largest.
    assert moved.part.tolist() == [[0.75, 0.25, 1.0, 0.0]]
    back = moved.beyond(ends)
    np.testing.assert_allclose(back, [[3.5, -2.5, 0, 0]])
    at_least = Prefixes(jnp.array([[1]]), jnp.array([[0.5]])).advance(jnp.array([[1.25]]))
    assert (at_least.key.tolist(), at_least.part.tolist()) == ([[0]], [[0.75]])
