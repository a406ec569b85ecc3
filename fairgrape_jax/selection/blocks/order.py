"""Order statistics of each segment, by counting, without a sort: the n-th largest, the largest."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Int32, UInt32

from fairgrape_jax.selection.blocks.layout import BLOCK, Blocks, over_chunks
from fairgrape_jax.selection.blocks.sums import add_integers, count_flags


def select_largest(
    scores: UInt32[jax.Array, "B BLOCK"], keep: Int32[jax.Array, " L"], blocks: Blocks
) -> Bool[jax.Array, "B BLOCK"]:
    """The `keep` largest scores of every segment, ties to the lower index.

    The keep-th largest is found by counting; where it is tied, so is the last index.

    Args:
        scores: 0 for what cannot be chosen.
        keep: how many, of each segment.
        blocks: whose weights the scores are.
    """
    return select_down_to(nth_largest(scores, keep[None], blocks)[0], scores, keep, blocks)


def nth_largest(
    scores: UInt32[jax.Array, "B BLOCK"], n: Int32[jax.Array, "M L"], blocks: Blocks
) -> UInt32[jax.Array, "M L"]:
    """The n-th largest score of each segment: the largest bound that n of them reach.

    Two bits a pass: of three bounds, each is reached by fewer.

    Args:
        scores: of every weight.
        n: several numbers at once, since a pass over the scores costs more than a comparison.
        blocks: whose weights the scores are.
    """
    kinds = len(n)

    def refine(i: jax.Array, bound: jax.Array) -> jax.Array:
        shift = jnp.uint32(30) - 2 * i.astype(jnp.uint32)
        steps = jnp.arange(1, 4, dtype=jnp.uint32) << shift
        higher = (bound[:, None] | steps[None, :, None]).reshape(3 * kinds, -1)

        def reaching(some: Blocks, scores: jax.Array) -> jax.Array:
            reach = scores[None] >= higher[:, some.segment][..., None]
            counts = count_flags(reach.reshape(-1, BLOCK))
            return counts.reshape(len(higher), -1).T

        reached = add_integers(over_chunks(reaching, blocks, scores), blocks)
        digit = (reached.T.reshape(kinds, 3, -1) >= n[:, None]).sum(axis=1, dtype=jnp.int32)
        return bound | (digit.astype(jnp.uint32) << shift)

    return lax.fori_loop(0, 16, refine, jnp.zeros(n.shape, jnp.uint32))


def select_down_to(
    bound: UInt32[jax.Array, " L"],
    scores: UInt32[jax.Array, "B BLOCK"],
    keep: Int32[jax.Array, " L"],
    blocks: Blocks,
) -> Bool[jax.Array, "B BLOCK"]:
    """`select_largest`, given the keep-th largest score of every segment.

    Args:
        bound: the keep-th largest score of each segment.
        scores: 0 for what cannot be chosen.
        keep: how many, of each segment.
        blocks: whose weights the scores are.
    """
    segment = blocks.segment
    above = scores > bound[segment][:, None]
    left = keep - add_integers(count_flags(above), blocks)
    tied = (scores == bound[segment][:, None]) & (scores > 0) & (left > 0)[segment][:, None]

    def early(least: jax.Array) -> jax.Array:
        """Ties whose index, turned around to count from the lowest, reaches a bound."""
        last = (~least).astype(jnp.int32) - blocks.start[:, None]
        return tied & (np.arange(BLOCK, dtype=np.int32)[None] <= last)

    def first() -> jax.Array:
        return above | early(_last(early, left, blocks)[segment][:, None])

    all_of_them = jnp.all(left == add_integers(count_flags(tied), blocks))
    return lax.cond(all_of_them, lambda: above | tied, first)


def _last(
    reaching: Callable[[jax.Array], jax.Array], n: Int32[jax.Array, " L"], blocks: Blocks
) -> UInt32[jax.Array, " L"]:
    """The largest bound of each segment that n of its weights reach, bit by bit.

    reaching: from a bound for each block, (B, 1) uint32, to the weights that reach it.
    """

    def refine(i: jax.Array, bound: jax.Array) -> jax.Array:
        higher = bound | (jnp.uint32(1) << (jnp.uint32(31) - i.astype(jnp.uint32)))
        reached = add_integers(count_flags(reaching(higher[blocks.segment][:, None])), blocks)
        return jnp.where(reached >= n, higher, bound)

    return lax.fori_loop(0, 32, refine, jnp.zeros(len(blocks.size), jnp.uint32))
