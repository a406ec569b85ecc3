"""Prefixes of each group's order, on the real axis of the floats' integer image."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Float32, Int32, UInt32

from fairgrape_jax.selection import blocks as bl
from fairgrape_jax.selection.blocks import Blocks

INFINITE = 0x7F800000  # the key of infinity: nothing is within


class Prefixes(NamedTuple):
    """Where each group's prefix ends.

    A weight is within if its key is above `key`, or equal to it and its index below `part` of the
    layer's size: positions are real numbers, and ties are passed through by index. The integer
    image of a float is nearly its logarithm, 2^23 to the octave.
    """

    key: Int32[jax.Array, "L G"]
    part: Float32[jax.Array, "L G"]

    def advance(self, by: Float32[jax.Array, "L G"]) -> Prefixes:
        """Longer by so many steps of the integer image, shorter if negative.

        Args:
            by: steps of the integer image, shorter where negative.
        """
        part = self.part + jnp.clip(by, -(2.0**28), 2.0**28)
        whole = jnp.floor(part)
        key = self.key - whole.astype(jnp.int32)  # -2^28 .. INFINITE + 2^28: no overflow
        return Prefixes(
            jnp.clip(key, 0, INFINITE),
            jnp.where(key < 0, 1.0, jnp.where(key > INFINITE, 0.0, part - whole)),
        )

    def beyond(self, other: Prefixes) -> Float32[jax.Array, "L G"]:
        """How much longer than `other` they are, in steps of the integer image.

        Args:
            other: of the same segments.
        """
        return bl.to_float(other.key - self.key) + (self.part - other.part)


class Shells(NamedTuple):
    """Where each group's prefix ends, and how far to look at either side of the end.

    Attributes:
        ends: of the prefixes.
        width: in steps of the integer image.
    """

    ends: Prefixes
    width: Float32[jax.Array, "L G"]

    def of(self, segment: Int32[jax.Array, " B"]) -> Shells:
        """Those of the segment of each block.

        Args:
            segment: of each block.
        """
        ends = Prefixes(self.ends.key[segment], self.ends.part[segment])
        return Shells(ends, self.width[segment])


def depth(
    keys: Int32[jax.Array, "X G Y"],
    index: Int32[jax.Array, "X Y"],
    shells: Shells,
    size: Int32[jax.Array, " X"],
) -> Float32[jax.Array, "X G Y"]:
    """How deep within each group's prefix weights are, in widths, negative outside.

    Args:
        keys: of the weights; -1 for what is dead, whose depth is minus infinity.
        index: of each weight in its segment.
        shells: of each row of weights.
        size: the weights of its segment.
    """
    ends, width = shells
    n = size.astype(jnp.float32)[:, None, None]
    distance = keys - ends.key[:, :, None]
    tie = ends.part[:, :, None] - (index.astype(jnp.float32)[:, None] + 0.5) / n
    real = distance.astype(jnp.float32) + jnp.where(distance == 0, tie, 0)
    return jnp.where(keys < 0, -jnp.inf, real / width[:, :, None])


def ranks(
    blocks: Blocks, shells: Shells, simple: Bool[jax.Array, " L"]
) -> UInt32[jax.Array, "B W"]:
    """The order in which weights come within as the ends move on, by their widths.

    Args:
        blocks: the weights.
        shells: where the ends are.
        simple: in which segments those that matter to anyone come first, by index.
    """

    def chunk(some: Blocks) -> jax.Array:
        deepest = _depth(some, shells).max(axis=1)
        plain = 1 + (some.keys.max(axis=1) > 0).astype(jnp.uint32)
        order = jnp.where(simple[some.segment][:, None], plain, bl.ordered(deepest))
        return jnp.where(some.keys[:, 0] < 0, jnp.uint32(0), order)

    return bl.over_chunks(chunk, blocks)


def measure(
    blocks: Blocks, shells: Shells, most: Bool[jax.Array, " L"], busy: Bool[jax.Array, " L"]
) -> Float32[jax.Array, "B g g"]:
    """One pass: what the prefixes hold, and what lies at their ends.

    Args:
        blocks: the weights.
        shells: where the ends are, and how far to look.
        most: in which segments more is within than not: the smaller sum rounds finer.
        busy: which segments to look at. Chunks of blocks without one stay 0.

    Returns:
        Row k < G is group k's importance, row G counts weights. Column j < G is what lies within
        one width of the end of j's prefix, on either side, and is deeper in it, in widths, than in
        any other: what moves if that end moves. Column G is all that is within or, where `most`,
        all that is not.
    """
    groups = blocks.keys.shape[1]

    def look(some: Blocks) -> jax.Array:
        deep, keys = _depth(some, shells), some.keys
        best = deep.max(axis=1)
        front = jnp.argmax(deep, axis=1).astype(jnp.int32)
        front = jnp.where(jnp.abs(best) < 1, front, groups)
        columns = front[:, :, None] == np.arange(groups + 1, dtype=np.int32)[None, None]
        columns = (
            columns.at[:, :, groups]
            .set((best >= 0) ^ most[some.segment][:, None])
            .astype(jnp.float32)
        )
        rows = jnp.concatenate([bl.values(keys), (keys[:, :1] >= 0).astype(jnp.float32)], axis=1)
        return jnp.matmul(rows, columns, precision=lax.Precision.HIGHEST)

    def chunk(some: Blocks) -> jax.Array:
        nothing = jnp.zeros((len(some.keys), groups + 1, groups + 1), jnp.float32)
        return lax.cond(jnp.any(busy[some.segment]), look, lambda _: nothing, some)

    return bl.over_chunks(chunk, blocks)


def _depth(some: Blocks, shells: Shells) -> Float32[jax.Array, "B G W"]:
    """Of all weights of some blocks."""
    size = some.size[some.segment]
    return depth(some.keys, some.indices(), shells.of(some.segment), size)
