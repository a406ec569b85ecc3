"""A walk over a sample: where greedy's prefixes end, nearly, and whom it serves."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Float32, Int, Int32

from fairgrape_jax.selection import blocks as bl
from fairgrape_jax.selection.blocks import Blocks, Fixed, Gathered
from fairgrape_jax.selection.fixed_point.prefixes import INFINITE, Prefixes, Shells
from fairgrape_jax.selection.fixed_point.walk import CAPACITY, Candidates, Walk, descending, walk

SIZE = 3584  # weights expected in a sample: with room to spare in a walk's capacity
LATE = 1 / 2  # a group that is not served after this part of the walk is taken to be saturated
NEAR = 16  # weights of the sample at either side of an end, to see whether they tie
NEARLY = 15 / 16  # of the walk: how far the ends move after it is how well they are known


class Layer(NamedTuple):
    """What is known of each segment before a choice.

    Attributes:
        totals: (L, G), each group's importance over 2^shift.
        alive: weights alive.
        keep: weights to keep.
        simple: all that matters to anyone is kept, and then the lowest indices.
        small: walked as a whole.
        most: more importance is retained than lost.
        shift: see `Blocks`.
    """

    totals: Fixed
    alive: Int32[jax.Array, " L"]
    keep: Int32[jax.Array, " L"]
    simple: Bool[jax.Array, " L"]
    small: Bool[jax.Array, " L"]
    most: Bool[jax.Array, " L"]
    shift: Int32[jax.Array, "L G"]

    def true(self, sums: Fixed) -> Float32[jax.Array, "L G"]:
        """Sums of the groups of a segment on one scale, the largest group's.

        Args:
            sums: (L, G), over 2^shift.
        """
        value = sums.value()
        there = self.totals.value() > 0
        highest = jnp.where(there, self.shift, jnp.iinfo(jnp.int32).min).max(axis=1, keepdims=True)
        down = jnp.where(there, jnp.clip(self.shift - highest, -126, 0), 0)
        return value * lax.bitcast_convert_type((down + 127) * bl.NORMAL, jnp.float32)

    @property
    def busy(self) -> Bool[jax.Array, " L"]:
        """The segments that are neither simple nor small."""
        return ~(self.simple | self.small)


class Sample(NamedTuple):
    """Weights drawn from every segment, and each group's order of them."""

    gathered: Gathered
    order: Int[jax.Array, "L G C"]


class Guess(NamedTuple):
    """Where Newton's method begins.

    Attributes:
        shells: the ends of the prefixes, and how far to look at either side of them.
        active: the groups taken to be served. One that is not, because others bring it more than
            its share, keeps its end unless it falls behind.
    """

    shells: Shells
    active: Bool[jax.Array, "L G"]


def walk_sample(
    blocks: Blocks, layer: Layer, target: Int32[jax.Array, " L"]
) -> tuple[Walk, Sample]:
    """Greedy on a sample of each segment, all of it if it is small, until `target` are taken.

    Args:
        blocks: the weights.
        layer: what is known of them.
        target: how many weights of each segment the walk is to stand for.

    Returns:
        Where the walk ended, and what it went over.
    """
    sample, each = draw(blocks, layer)
    totals = layer.totals.value()
    some = totals > 0
    keys = jnp.moveaxis(sample.gathered.keys, 1, 2)
    parts = bl.values(sample.gathered.keys) * each[..., None]
    whole = parts.sum(axis=1, keepdims=True)
    candidates = Candidates(
        order=sample.order,
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
    level = jnp.where(some, levels_before_first_pick(layer.true(layer.totals)), jnp.inf)
    marks = jnp.stack([(part * bl.to_float(limit)).astype(jnp.int32) for part in (LATE, NEARLY)])
    return walk(candidates, level, jnp.zeros_like(limit), limit, marks), sample


def draw(blocks: Blocks, layer: Layer) -> tuple[Sample, Float32[jax.Array, "L C"]]:
    """A sample of each segment, and how many weights each of its weights stands for.

    Half of a sample is drawn evenly, half by importance; each weight stands for the inverse of its
    odds. The draw is a hash of the index: the same on any number of devices.

    Args:
        blocks: the weights.
        layer: what is known of them.
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

    def drawn(some: Blocks) -> jax.Array:
        segment = some.segment
        each = worth(some.keys, factor[segment], even[segment], layer.small[segment])
        return (hash_indices(some.indices()) * each < 1) & (some.keys[:, 0] >= 0)

    gathered = bl.gather(bl.over_chunks(drawn, blocks), CAPACITY, blocks)
    keys = jnp.moveaxis(gathered.keys, 1, 2)
    each = jnp.where(keys[:, 0] >= 0, worth(keys, factor, even, layer.small), 0)
    return Sample(gathered, descending(keys)), each


def levels_before_first_pick(totals: Float32[jax.Array, "L G"]) -> Float32[jax.Array, "L G"]:
    """Levels before anything is chosen: next to nothing, and least for the largest share.

    Args:
        totals: each group's importance.
    """
    return -1e-30 * totals / jnp.maximum(totals.sum(axis=1, keepdims=True), 1e-37)


def hash_indices(index: Int32[jax.Array, "*n"]) -> Float32[jax.Array, "*n"]:
    """A number in [0, 1) that looks random, from each index: murmur3's finalizer.

    Args:
        index: not negative.

    Example:
        >>> (1000 * hash_indices(jnp.arange(3, dtype=jnp.int32))).astype(int).tolist()
        [573, 237, 105]
    """
    bits = (index + 1).astype(jnp.uint32) * jnp.uint32(0x9E3779B9)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        bits = (bits ^ (bits >> jnp.uint32(shift))) * jnp.uint32(factor)
    return (bits >> jnp.uint32(8)).astype(jnp.float32) * 2.0**-24


def guess_ends(first: Walk, sample: Sample, size: Int32[jax.Array, " L"]) -> Guess:
    """Where the walk's prefixes end, how far they moved at last, and which groups it served.

    Args:
        first: where the walk over the sample ended.
        sample: what it went over.
        size: the weights of each segment.
    """
    late, nearly = first.marked
    ends, before = ends_at(first.position, sample, size), ends_at(nearly, sample, size)
    moved = ends.beyond(before)
    width = jnp.where((nearly > 0) & (moved > 0), moved, 2.0**20)
    width = jnp.clip(width, 1 / size.astype(jnp.float32)[:, None], 2.0**22)
    return Guess(Shells(ends, width), first.position > late)


def ends_at(
    position: Int32[jax.Array, "L G"], sample: Sample, size: Int32[jax.Array, " L"]
) -> Prefixes:
    """The ends of prefixes that hold so many of the sample's weights.

    An empty prefix ends just above the group's most important weight, or, where nothing matters to
    the group, above all: ends at 0 would bring weights that matter to nobody near.

    Args:
        position: in each group's order.
        sample: whose order.
        size: the weights of each segment.
    """
    last = jnp.maximum(position, 1)[..., None] - 1
    last = jnp.take_along_axis(sample.order, last, axis=2)[..., 0]
    key = jnp.take_along_axis(sample.gathered.keys, last[:, None], axis=1)[:, 0]
    index = jnp.take_along_axis(sample.gathered.indices, last, axis=1).astype(jnp.float32)
    part = (index + bl.to_float(position > 0)) / size.astype(jnp.float32)[:, None]
    return Prefixes(jnp.where(key > 0, key, INFINITE), jnp.minimum(part, 1))


def ends_among_ties(first: Walk, sample: Sample) -> Bool[jax.Array, " L"]:
    """Whether some group's prefix ends among weights of equal importance.

    Which of them greedy takes depends on its whole way there, which the fixed point does not know.

    Args:
        first: where the walk over the sample ended.
        sample: what it went over.
    """
    each = first.position[..., None] + np.arange(-NEAR, NEAR + 1, dtype=np.int32)[None, None]
    near = jnp.take_along_axis(sample.order, jnp.clip(each, 0, CAPACITY - 1), axis=2)
    keys = jnp.take_along_axis(jnp.moveaxis(sample.gathered.keys, 1, 2), near, axis=2)
    there = (each[..., :-1] >= 0) & (each[..., 1:] < CAPACITY)
    same = (keys[..., 1:] == keys[..., :-1]) & (keys[..., 1:] > 0) & there
    return (same.sum(axis=2, dtype=jnp.int32) > NEAR // 2).any(axis=1)
