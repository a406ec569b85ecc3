"""Sums over the blocks of each segment: whole numbers, which no order of addition changes."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Bool, Float32, Int, Int32, Shaped

from fairgrape_jax.selection.blocks.layout import Blocks

HIGH = 30  # bits of a fixed-point sum's upper integer


class Fixed(NamedTuple):
    """Sums as whole numbers: (high * 2^-30 + low * 2^-bits) * scale, exactly added."""

    high: Int32[jax.Array, " L *s"]
    low: Int32[jax.Array, " L *s"]
    scale: Float32[jax.Array, " L *s"]
    bits: int

    def value(self) -> Float32[jax.Array, " L *s"]:
        """As floats."""
        high, low = (part.astype(jnp.float32) for part in (self.high, self.low))
        return (high * 2.0**-HIGH + low * 2.0**-self.bits) * self.scale

    def column(self, j: int) -> Fixed:
        """Of sums (..., C) with scales (..., 1), those in column j.

        Args:
            j: its number.
        """
        high, low, scale = self.high[..., j], self.low[..., j], self.scale[..., 0]
        return Fixed(high, low, scale, self.bits)


def add_integers(
    per_block: Shaped[jax.Array, " B *s"], blocks: Blocks
) -> Int32[jax.Array, " L *s"]:
    """Whole numbers of blocks, added up by segment.

    Args:
        per_block: a row for each block.
        blocks: the weights.
    """
    sums = jax.ops.segment_sum(
        per_block.astype(jnp.int32), blocks.segment, len(blocks.size), indices_are_sorted=True
    )
    return lax.psum(sums, blocks.axis) if blocks.axis else sums


def count_blocks(blocks: Blocks) -> int:
    """How many blocks there are on all devices.

    Args:
        blocks: the weights.
    """
    return len(blocks.segment) * (int(lax.psum(1, blocks.axis)) if blocks.axis else 1)


def count_flags(flags: Bool[jax.Array, "B W"]) -> Int32[jax.Array, " B"]:
    """How many flags are set in each block; bytes first, to take little memory.

    Sums of 32, which XLA compiles as they stand: longer ones it cuts, at a kernel for each piece.

    Args:
        flags: of each block.
    """
    few = flags.reshape(len(flags), -1, 32).sum(axis=1, dtype=jnp.uint8)
    return few.sum(axis=1, dtype=jnp.int32)


def power_above(
    per_block: Float32[jax.Array, " B *s"], blocks: Blocks
) -> Float32[jax.Array, " L *s"]:
    """A power of two above what the blocks of each segment can add up to.

    Args:
        per_block: a row for each block.
        blocks: the weights.
    """
    largest = jax.ops.segment_max(per_block, blocks.segment, len(blocks.size))
    largest = jnp.maximum(lax.pmax(largest, blocks.axis) if blocks.axis else largest, 1e-37)
    above = jnp.minimum(largest * count_blocks(blocks), 1.5e38)
    bits = lax.bitcast_convert_type(above, jnp.int32)
    return lax.bitcast_convert_type(((bits >> 23) + 1) << 23, jnp.float32)


def add_floats(
    per_block: Float32[jax.Array, " B *s"], scale: Float32[jax.Array, "L ..."], blocks: Blocks
) -> Fixed:
    """Non-negative floats of blocks, added up by segment.

    Args:
        per_block: what is added.
        scale: powers of two above the sums, which broadcast to their shape (L, *s).
        blocks: whose segments count.
    """
    # the lower integers' sum must not overflow
    bits = 31 - max(1, count_blocks(blocks).bit_length())
    part = per_block / scale[blocks.segment] * 2.0**HIGH
    high = jnp.floor(part)
    low = jnp.floor((part - high) * 2.0**bits)
    high, low = add_integers(high, blocks), add_integers(low, blocks)
    return Fixed(high + (low >> bits), low & ((1 << bits) - 1), scale, HIGH + bits)


def to_float(number: Int[jax.Array, "*s"] | Bool[jax.Array, "*s"]) -> Float32[jax.Array, "*s"]:
    """Integers or flags as float32, which nothing does by itself under strict promotion.

    Args:
        number: integers or flags.
    """
    return number.astype(jnp.float32)
