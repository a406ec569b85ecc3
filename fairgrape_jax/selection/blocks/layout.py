"""The layout: the weights of many segments, one after the other, in blocks of BLOCK weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Int32, Shaped

from fairgrape_jax.selection.blocks.keys import keys_of, shifted, shifts

T = TypeVar("T")  # a tree of arrays

BLOCK = 1024
CHUNK = 256  # blocks looked at together in a pass: what fits a cache, and bounds a pass's memory


@dataclasses.dataclass(frozen=True)
class Blocks:
    """The weights of L segments, on one device; a segment is what a count is kept in.

    Attributes:
        keys: the bits of the importances over 2^shift, which order as the floats do, and -1 for
            what is dead or padding.
        segment: of each block, in order.
        start: the index in its segment of a block's first weight.
        size: the weights of each segment.
        shift: 0 but for groups whose importances are so small or so large that sums of them would
            leave float32.
        axis: the name of a mapped axis over which the blocks are cut in order; None for one device.
    """

    keys: Int32[jax.Array, "B G BLOCK"]
    segment: Int32[jax.Array, " B"]
    start: Int32[jax.Array, " B"]
    size: Int32[jax.Array, " L"]
    shift: Int32[jax.Array, "L G"]
    axis: str | None = None

    def indices(self) -> Int32[jax.Array, "B BLOCK"]:
        """The index of every weight in its segment."""
        return self.start[:, None] + np.arange(BLOCK, dtype=np.int32)[None]


jax.tree_util.register_dataclass(
    Blocks,
    data_fields=["keys", "segment", "start", "size", "shift"],
    meta_fields=["axis"],
)

# How its arrays are cut over devices.
CUT: Any = Blocks(0, 0, 0, None, None)  # type: ignore[arg-type]


def pack(
    importances: Sequence[Shaped[jax.Array, "G _n"]],
    previous: Sequence[Bool[jax.Array, " _n"]],
    segments: Sequence[int],
    shards: int = 1,
    axis: str | None = None,
) -> Blocks:
    """Lay importances and masks out in blocks, their number divisible by `shards`.

    Nothing is refused: negative importances and NaN count as 0, infinite ones as the largest
    float32.

    Args:
        importances: of each array.
        previous: the weights of it that are alive.
        segments: for each array the segment that it belongs to, in order, from 0. A second array
            of a segment goes on counting where the first one ends.
        shards: over how many devices the blocks will be cut.
        axis: the name of a mapped axis over which the weights are cut already.
    """
    groups = importances[0].shape[0]
    each = [-(-rows.shape[1] // BLOCK) for rows in importances]
    count = padded_count(sum(each), shards)
    raw = [
        jnp.where(alive[None], keys_of(rows), -1)
        for rows, alive in zip(importances, previous, strict=True)
    ]
    shift = shifts(raw, segments, axis)
    keys = jnp.full((count, groups, BLOCK), -1, jnp.int32)
    segment = np.full(count, segments[-1], np.int32)
    start = np.zeros(count, np.int32)
    size = np.zeros(segments[-1] + 1, np.int32)
    first = 0
    for bits, member, many in zip(raw, segments, each, strict=True):
        n = bits.shape[1]
        bits = shifted(bits, shift[member][:, None])
        bits = jnp.pad(bits, ((0, 0), (0, many * BLOCK - n)), constant_values=-1)
        bits = jnp.moveaxis(bits.reshape(groups, many, BLOCK), 1, 0)
        keys = lax.dynamic_update_slice(keys, bits, (first, 0, 0))
        segment[first : first + many] = member
        start[first : first + many] = size[member] + BLOCK * np.arange(many, dtype=np.int32)
        size[member] += n
        first += many
    arrays = jnp.asarray(segment), jnp.asarray(start), jnp.asarray(size)
    return Blocks(keys, *arrays, shift, axis)


def padded_count(count: int, shards: int) -> int:
    """`count` blocks and as many empty ones as make every shard a whole number of chunks.

    Args:
        count: of blocks that hold weights.
        shards: over how many devices they will be cut.

    Example:
        >>> padded_count(10, 1), padded_count(10, 4), padded_count(1000, 1)
        (10, 12, 1024)
    """
    each = max(1, -(-count // shards))
    chunk = min(CHUNK, each)
    return shards * chunk * -(-each // chunk)


def unpack(mask: Bool[jax.Array, "B BLOCK"], sizes: Sequence[int]) -> list[Bool[jax.Array, " _n"]]:
    """The flags of blocks as one array for each that was packed, of these sizes.

    Args:
        mask: flags of all weights.
        sizes: the weights of each array that was packed.
    """
    masks, block = [], 0
    for n in sizes:
        blocks = -(-n // BLOCK)
        masks.append(mask[block : block + blocks].reshape(-1)[:n])
        block += blocks
    return masks


def over_chunks(fn: Callable[..., T], blocks: Blocks, *arrays: jax.Array) -> T:
    """A function of CHUNK blocks at a time.

    Args:
        fn: (some of the blocks, their part of each array) to a tree of arrays, a row per block.
        blocks: all of them.
        arrays: with a row per block.

    Returns:
        The results one after the other: a tree of arrays with a row per block.
    """
    count = len(blocks.segment)
    chunk = min(CHUNK, count)

    def cut(x: jax.Array) -> jax.Array:
        return x.reshape(count // chunk, chunk, *x.shape[1:])

    def part(pieces: tuple[jax.Array, ...]) -> T:
        keys, segment, start, *rest = pieces
        some = dataclasses.replace(blocks, keys=keys, segment=segment, start=start)
        return fn(some, *rest)

    pieces = tuple(map(cut, (blocks.keys, blocks.segment, blocks.start, *arrays)))
    return jax.tree.map(lambda x: x.reshape(count, *x.shape[2:]), lax.map(part, pieces))
