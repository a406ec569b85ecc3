"""Prefixes of each group's order, on the real axis of the floats' integer image."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from fairgrape_jax.selection import blocks as bl
from fairgrape_jax.selection.blocks import BLOCK, Blocks

INFINITE = 0x7F800000  # the key of infinity: nothing is within


class Prefixes(NamedTuple):
    """Where each group's prefix ends; arrays (L, G).

    A weight is within if its key is above `key`, or equal to it and its index below `part` of the
    layer's size: positions are real numbers, and ties are passed through by index. The integer
    image of a float is nearly its logarithm, 2^23 to the octave.
    """

    key: jax.Array
    part: jax.Array

    def advance(self, by: jax.Array) -> Prefixes:
        """Longer by so many steps of the integer image; (L, G) float32, shorter if negative."""
        part = self.part + jnp.clip(by, -(2.0**28), 2.0**28)
        whole = jnp.floor(part)
        key = self.key - whole.astype(jnp.int32)  # -2^28 .. INFINITE + 2^28: no overflow
        return Prefixes(
            jnp.clip(key, 0, INFINITE),
            jnp.where(key < 0, 1.0, jnp.where(key > INFINITE, 0.0, part - whole)),
        )

    def beyond(self, other: Prefixes) -> jax.Array:
        """How much longer than `other` they are, in steps of the integer image."""
        return bl.to_float(other.key - self.key) + (self.part - other.part)


def depth(
    keys: jax.Array, index: jax.Array, ends: Prefixes, width: jax.Array, size: jax.Array
) -> jax.Array:
    """How deep within each group's prefix weights are, in widths, negative outside.

    keys: (X, G, Y); index: (X, Y), in the segment; ends and width: (X, G); size: (X,), the weights
    of the segment. Minus infinity for what is dead.
    """
    n = size.astype(jnp.float32)[:, None, None]
    distance = keys - ends.key[:, :, None]
    tie = ends.part[:, :, None] - (index.astype(jnp.float32)[:, None] + 0.5) / n
    real = distance.astype(jnp.float32) + jnp.where(distance == 0, tie, 0)
    return jnp.where(keys < 0, -jnp.inf, real / width[:, :, None])


def ranks(blocks: Blocks, ends: Prefixes, width: jax.Array, simple: jax.Array) -> jax.Array:
    """uint32 (blocks, BLOCK): the order in which weights come within as the ends move on.

    In the segments where `simple` (L,) is, those that matter to anyone come first, by index.
    """

    def chunk(keys: jax.Array, segment: jax.Array, start: jax.Array) -> jax.Array:
        deepest = _depth(keys, segment, start, blocks.size, ends, width).max(axis=1)
        plain = 1 + (keys.max(axis=1) > 0).astype(jnp.uint32)
        order = jnp.where(simple[segment][:, None], plain, bl.ordered(deepest))
        return jnp.where(keys[:, 0] < 0, jnp.uint32(0), order)

    return bl.over_chunks(chunk, blocks.keys, blocks.segment, blocks.start)


def measure(
    blocks: Blocks, ends: Prefixes, width: jax.Array, most: jax.Array, wanted: jax.Array
) -> jax.Array:
    """One pass: what the prefixes hold, and what lies at their ends; (blocks, G + 1, G + 1).

    Row k < G is group k's importance, row G counts weights. Column j < G is what lies within one
    `width` (L, G) of the end of j's prefix, on either side, and is deeper in it, in widths, than in
    any other: what moves if that end moves. Column G is all that is within or, in the segments
    where `most` (L,) is, all that is not: the smaller sum rounds finer. Chunks of blocks without a
    segment in `wanted` (L,) are not looked at, and stay 0.
    """
    groups = blocks.keys.shape[1]

    def looked(keys: jax.Array, segment: jax.Array, start: jax.Array) -> jax.Array:
        deep = _depth(keys, segment, start, blocks.size, ends, width)
        best = deep.max(axis=1)
        front = jnp.argmax(deep, axis=1).astype(jnp.int32)
        front = jnp.where(jnp.abs(best) < 1, front, groups)
        columns = front[:, :, None] == np.arange(groups + 1, dtype=np.int32)[None, None]
        columns = (
            columns.at[:, :, groups].set((best >= 0) ^ most[segment][:, None]).astype(jnp.float32)
        )
        rows = jnp.concatenate([bl.values(keys), (keys[:, :1] >= 0).astype(jnp.float32)], axis=1)
        return jnp.matmul(rows, columns, precision=lax.Precision.HIGHEST)

    def chunk(keys: jax.Array, segment: jax.Array, start: jax.Array) -> jax.Array:
        nothing = jnp.zeros((len(keys), groups + 1, groups + 1), jnp.float32)
        return lax.cond(jnp.any(wanted[segment]), looked, lambda *_: nothing, keys, segment, start)

    return bl.over_chunks(chunk, blocks.keys, blocks.segment, blocks.start)


def _depth(
    keys: jax.Array,
    segment: jax.Array,
    start: jax.Array,
    size: jax.Array,
    ends: Prefixes,
    width: jax.Array,
) -> jax.Array:
    index = start[:, None] + np.arange(BLOCK, dtype=np.int32)[None]
    of_block = Prefixes(ends.key[segment], ends.part[segment])
    return depth(keys, index, of_block, width[segment], size[segment])
