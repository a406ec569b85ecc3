"""A walk over a sample: where greedy's prefixes end, nearly, and whom it serves."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fairgrape_jax.selection import blocks as bl
from fairgrape_jax.selection.blocks import BLOCK, Blocks, Fixed, Gathered
from fairgrape_jax.selection.fixed_point.prefixes import Prefixes
from fairgrape_jax.selection.fixed_point.walk import CAPACITY, Candidates, Walk, descending, walk

SIZE = 3584  # weights expected in a sample: with room to spare in a walk's capacity
LATE = 1 / 2  # a group that is not served after this part of the walk is taken to be saturated
NEAR = 16  # weights of the sample at either side of an end, to see whether they tie
NEARLY = 15 / 16  # of the walk: how far the ends move after it is how well they are known


class Layer(NamedTuple):
    """What is known of each segment before a choice; arrays (L,), and its groups' importances.

    Attributes:
        totals: (L, G), of the importances over 2^shift.
        alive: weights alive.
        keep: weights to keep.
        simple: all that matters to anyone is kept, and then the lowest indices.
        small: walked as a whole.
        most: more importance is retained than lost.
        shift: (L, G), see `Blocks`.
    """

    totals: Fixed
    alive: jax.Array
    keep: jax.Array
    simple: jax.Array
    small: jax.Array
    most: jax.Array
    shift: jax.Array

    def true(self, sums: Fixed) -> jax.Array:
        """Sums (L, G) of the groups of a segment on one scale, the largest group's."""
        value = sums.value()
        there = self.totals.value() > 0
        highest = jnp.where(there, self.shift, jnp.iinfo(jnp.int32).min).max(axis=1, keepdims=True)
        down = jnp.where(there, jnp.clip(self.shift - highest, -126, 0), 0)
        return value * lax.bitcast_convert_type((down + 127) * bl.NORMAL, jnp.float32)

    @property
    def busy(self) -> jax.Array:
        """The segments that are neither simple nor small."""
        return ~(self.simple | self.small)


class Sample(NamedTuple):
    """Weights drawn from every segment, and each group's order of them, (L, G, C)."""

    gathered: Gathered
    order: jax.Array


def coarse(
    blocks: Blocks, layer: Layer, target: jax.Array, axis: str | None
) -> tuple[Walk, Sample]:
    """Greedy on a sample of each segment, all of it if it is small, until `target` are taken.

    Half of a sample is drawn evenly, half by importance; each weight stands for the inverse of its
    odds. The draw is a hash of the index: the same on any number of devices.
    """
    totals = layer.totals.value()
    some = totals > 0
    members = bl.to_float(jnp.maximum(some.sum(axis=1, keepdims=True), 1))
    factor = jnp.where(some, 1 / jnp.where(some, totals, 1), 0) / members
    even = 1 / bl.to_float(jnp.maximum(layer.alive, 1))

    def worth(keys: jax.Array, factor: jax.Array, even: jax.Array, small: jax.Array) -> jax.Array:
        share = (bl.values(keys) * factor[:, :, None]).sum(axis=1)
        odds = 0.5 * SIZE * (even[:, None] + share)
        return jnp.where(small[:, None], 1.0, jnp.ceil(1 / odds))

    def drawn(keys: jax.Array, segment: jax.Array, start: jax.Array) -> jax.Array:
        each = worth(keys, factor[segment], even[segment], layer.small[segment])
        index = start[:, None] + np.arange(BLOCK, dtype=np.int32)[None]
        return (hashed(index) * each < 1) & (keys[:, 0] >= 0)

    flags = bl.over_chunks(drawn, blocks.keys, blocks.segment, blocks.start)
    gathered = bl.gather(flags, CAPACITY, blocks, axis)
    keys = jnp.moveaxis(gathered.keys, 1, 2)
    each = jnp.where(keys[:, 0] >= 0, worth(keys, factor, even, layer.small), 0)
    parts = bl.values(gathered.keys) * each[..., None]
    whole = parts.sum(axis=1, keepdims=True)
    order = descending(keys)
    candidates = Candidates(
        order=order,
        gain=parts / jnp.where(whole > 0, whole, 1),
        worth=each.astype(jnp.int32),
        ends=(keys > 0).sum(axis=2, dtype=jnp.int32),
        whole=jnp.ones_like(layer.small),
    )
    # 1 but for the luck of the draw
    stands_for = each.sum(axis=1) / bl.to_float(jnp.maximum(layer.alive, 1))
    limit = (bl.to_float(target) * stands_for).astype(jnp.int32)
    limit = jnp.where(layer.small, target, limit)
    limit = jnp.where(layer.simple, 0, limit)
    level = jnp.where(some, first_pick(layer.true(layer.totals)), jnp.inf)
    marks = jnp.stack([(part * bl.to_float(limit)).astype(jnp.int32) for part in (LATE, NEARLY)])
    return walk(candidates, level, jnp.zeros_like(limit), limit, marks), Sample(gathered, order)


def first_pick(totals: jax.Array) -> jax.Array:
    """Levels before anything is chosen: next to nothing, and least for the largest share."""
    return -1e-30 * totals / jnp.maximum(totals.sum(axis=1, keepdims=True), 1e-37)


def hashed(index: jax.Array) -> jax.Array:
    """A number in [0, 1) that looks random, from each index: murmur3's finalizer."""
    bits = (index + 1).astype(jnp.uint32) * jnp.uint32(0x9E3779B9)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = (bits ^ (bits >> jnp.uint32(shift))) * jnp.uint32(factor)
    return (bits >> jnp.uint32(8)).astype(jnp.float32) * 2.0**-24


def start(first: Walk, sample: Sample, size: jax.Array) -> tuple[Prefixes, jax.Array, jax.Array]:
    """Where the walk's prefixes end, how far they moved at last, and which groups it served."""
    late, nearly = first.marked
    ends, before = at(first.position, sample, size), at(nearly, sample, size)
    moved = ends.beyond(before)
    width = jnp.where((nearly > 0) & (moved > 0), moved, 2.0**20)
    width = jnp.clip(width, 1 / size.astype(jnp.float32)[:, None], 2.0**22)
    return ends, width, first.position > late


def at(position: jax.Array, sample: Sample, size: jax.Array) -> Prefixes:
    """The ends of prefixes that hold so many of the sample's weights; position: (L, G).

    An empty prefix ends just above the group's most important weight.
    """
    last = jnp.maximum(position, 1)[..., None] - 1
    last = jnp.take_along_axis(sample.order, last, axis=2)[..., 0]
    key = jnp.take_along_axis(sample.gathered.keys, last[:, None], axis=1)[:, 0]
    index = jnp.take_along_axis(sample.gathered.indices, last, axis=1).astype(jnp.float32)
    part = (index + bl.to_float(position > 0)) / size.astype(jnp.float32)[:, None]
    return Prefixes(jnp.maximum(key, 0), jnp.minimum(part, 1))


def tied(first: Walk, sample: Sample) -> jax.Array:
    """(L,) whether some group's prefix ends among weights of equal importance.

    Which of them greedy takes depends on its whole way there, which the fixed point does not know.
    """
    keys = jnp.moveaxis(sample.gathered.keys, 1, 2)
    keys = jnp.take_along_axis(keys, sample.order, axis=2)
    same = (keys[..., 1:] == keys[..., :-1]) & (keys[..., 1:] > 0)
    until = jnp.pad(jnp.cumsum(same, axis=2, dtype=jnp.int32), ((0, 0), (0, 0), (1, 0)))
    low, high = (
        jnp.clip(first.position + side, 0, CAPACITY - 1)[..., None] for side in (-NEAR, NEAR)
    )
    count = jnp.take_along_axis(until, high, axis=2) - jnp.take_along_axis(until, low, axis=2)
    return (count[..., 0] > NEAR // 2).any(axis=1)
