"""Some weights of every segment brought together, from all devices, and put back as flags."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Int32, UInt32

from fairgrape_jax.selection.blocks.layout import BLOCK, Blocks
from fairgrape_jax.selection.blocks.sums import add_integers


class Gathered(NamedTuple):
    """Some weights of every segment, in order of index, up to a capacity of C.

    Attributes:
        keys: -1 beyond the last.
        indices: in the segment.
        place: in the flattened blocks of this device, and beyond them for another's.
    """

    keys: Int32[jax.Array, "L C G"]
    indices: Int32[jax.Array, "L C"]
    place: Int32[jax.Array, "L C"]


def gather(flags: Bool[jax.Array, "B BLOCK"], capacity: int, blocks: Blocks) -> Gathered:
    """The weights with a flag, the first `capacity` of every segment.

    Args:
        flags: which weights.
        capacity: how many of a segment at most.
        blocks: the weights.
    """
    nowhere = blocks.segment.shape[0] * BLOCK
    powers = np.uint32(1) << np.arange(32, dtype=np.uint32)
    words = jnp.where(flags.reshape(-1, 32), powers[None], np.uint32(0))
    words = words.sum(axis=1, dtype=jnp.uint32)
    each = lax.population_count(words).astype(jnp.int32)
    ends = jnp.cumsum(each, dtype=jnp.int32)
    on_one_device = each.reshape(-1, BLOCK // 32).sum(axis=1, dtype=jnp.int32)
    here = add_integers(on_one_device, dataclasses.replace(blocks, axis=None))
    slot = np.arange(capacity, dtype=np.int32)[None]
    rank = (jnp.cumsum(here, dtype=jnp.int32) - here)[:, None] + slot
    word = jnp.searchsorted(ends, rank, side="right").astype(jnp.int32)
    word = jnp.minimum(word, len(words) - 1)
    place = word * 32 + _bit(words[word], rank - (ends[word] - each[word]))
    block, offset = place // BLOCK, place % BLOCK
    some = slot < here[:, None]
    keys = jnp.where(some[..., None], blocks.keys[block, :, offset], -1)
    index = jnp.where(some, blocks.start[block] + offset, jnp.iinfo(jnp.int32).max)
    gathered = Gathered(keys, index, jnp.where(some, place, nowhere))
    return gathered if blocks.axis is None else _of_all_devices(gathered, blocks.axis, nowhere)


def _of_all_devices(here: Gathered, axis: str, nowhere: int) -> Gathered:
    """The first weights of all devices, as many as each of them has gathered."""
    capacity = here.indices.shape[1]
    shard = jnp.full_like(here.place, lax.axis_index(axis))
    everyone = jax.tree.map(
        lambda x: jnp.moveaxis(lax.all_gather(x, axis), 0, 1).reshape(len(x), -1, *x.shape[2:]),
        (*here, shard),
    )
    first = jnp.argsort(everyone[1], axis=1, stable=True)[:, :capacity]
    keys, index, place, shard = (
        jnp.take_along_axis(x, first.reshape(*first.shape, *[1] * (x.ndim - 2)), axis=1)
        for x in everyone
    )
    return Gathered(keys, index, jnp.where(shard == lax.axis_index(axis), place, nowhere))


def _bit(word: UInt32[jax.Array, "*s"], rank: Int32[jax.Array, "*s"]) -> Int32[jax.Array, "*s"]:
    """The position of the set bit of each number that has `rank` set bits below it."""
    position = jnp.zeros_like(rank)
    for width in (16, 8, 4, 2, 1):
        low = lax.population_count(word & jnp.uint32((1 << width) - 1)).astype(jnp.int32)
        higher = rank >= low
        rank = rank - jnp.where(higher, low, 0)
        word = jnp.where(higher, word >> jnp.uint32(width), word)
        position = position + jnp.where(higher, width, 0)
    return position


def scatter(
    taken: Bool[jax.Array, "L C"], gathered: Gathered, blocks: Blocks
) -> Bool[jax.Array, "B BLOCK"]:
    """Flags of all weights of this device, set where one that was gathered is taken.

    Args:
        taken: which of those that were gathered.
        gathered: where they are.
        blocks: the weights.
    """
    shape = (len(blocks.segment), BLOCK)
    place = jnp.where(taken, gathered.place, shape[0] * BLOCK).reshape(-1)
    return jnp.zeros(shape[0] * BLOCK, bool).at[place].set(True, mode="drop").reshape(shape)
