"""The layout: the weights of many segments, one after the other, in blocks of BLOCK weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Int32, Shaped

from fairgrape_jax.selection.blocks.keys import can_be_ranked, keys_of, shifted, shifts

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


class Arrays(NamedTuple):
    """What is seen of each array that is packed.

    Attributes:
        sound: whether no importance is negative, NaN or infinite, dead or alive.
        left: how many of its weights are alive.
    """

    sound: Bool[jax.Array, " N"]
    left: Int32[jax.Array, " N"]


def pack(
    importances: Sequence[Shaped[jax.Array, "G _n"]],
    previous: Sequence[Bool[jax.Array, " _n"]],
    segments: Sequence[int],
    shards: int = 1,
    axis: str | None = None,
) -> tuple[Blocks, Arrays]:
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
    sizes = [len(alive) for alive in previous]
    each = [-(-n // BLOCK) for n in sizes]
    count = padded_count(sum(each), shards)
    array = np.full(count, len(each) - 1)
    segment = np.full(count, segments[-1], np.int32)
    start = np.zeros(count, np.int32)
    size = np.zeros(segments[-1] + 1, np.int32)
    # Each array is only copied, in place: what else is done is done with all blocks together, or
    # it would be compiled for every array.
    bits = jnp.zeros((count, len(importances[0]), BLOCK), jnp.int32)
    first = 0
    for place, (member, n, many) in enumerate(zip(segments, sizes, each, strict=True)):
        bits = lax.dynamic_update_slice(bits, _in_blocks(importances[place]), (first, 0, 0))
        array[first : first + many] = place
        segment[first : first + many] = member
        start[first : first + many] = size[member] + BLOCK * np.arange(many, dtype=np.int32)
        size[member] += n
        first += many
    alive = _side_by_side(previous, count)
    top, left, unsound = _survey(bits, alive)
    shift = shifts(top, segment, len(size), axis)
    left, unsound = (
        jax.ops.segment_sum(each, array, len(sizes), indices_are_sorted=True)
        for each in (left, unsound)
    )
    keys = _shifted_keys(bits, alive, shift[segment])
    tables = jnp.asarray(segment), jnp.asarray(start), jnp.asarray(size)
    return Blocks(keys, *tables, shift, axis), Arrays(unsound == 0, left)


def _survey(
    bits: Int32[jax.Array, "B G BLOCK"], alive: Bool[jax.Array, "B BLOCK"]
) -> tuple[Int32[jax.Array, "B G"], Int32[jax.Array, " B"], Int32[jax.Array, " B"]]:
    """Of each block the largest key of each group, how many weights are alive, and how many
    importances are none."""
    chunk = min(CHUNK, len(bits))

    def look(k: jax.Array) -> tuple[jax.Array, ...]:
        # As rows, and so cut as they lie: XLA:GPU would first turn the axes of the whole array.
        # `over_chunks` cuts otherwise: with this cut its sums of floats round otherwise.
        rows = bits.reshape(len(bits), -1)
        part, flags = (lax.dynamic_slice_in_dim(x, k * chunk, chunk) for x in (rows, alive))
        part = part.reshape(chunk, *bits.shape[1:])
        unsound = ~can_be_ranked(lax.bitcast_convert_type(part, jnp.float32))
        counts = (flags.sum(axis=1, dtype=jnp.int32), unsound.sum(axis=(1, 2), dtype=jnp.int32))
        return _alive_keys(part, flags).max(axis=2), *counts

    sights = lax.map(look, jnp.arange(len(bits) // chunk))
    top, left, unsound = (x.reshape(len(bits), *x.shape[2:]) for x in sights)
    return top, left, unsound


def _alive_keys(
    bits: Int32[jax.Array, "B G BLOCK"], alive: Bool[jax.Array, "B BLOCK"]
) -> Int32[jax.Array, "B G BLOCK"]:
    """The keys of importances of these bits, -1 for the dead."""
    return jnp.where(alive[:, None], keys_of(lax.bitcast_convert_type(bits, jnp.float32)), -1)


def _shifted_keys(
    bits: Int32[jax.Array, "B G BLOCK"],
    alive: Bool[jax.Array, "B BLOCK"],
    shift: Int32[jax.Array, "B G"],
) -> Int32[jax.Array, "B G BLOCK"]:
    """The keys of importances of these bits over 2^shift, in their place, a chunk at a time."""
    chunk = min(CHUNK, len(bits))

    def replace(k: jax.Array, bits: jax.Array) -> jax.Array:
        part, flags, by = (
            lax.dynamic_slice_in_dim(x, k * chunk, chunk) for x in (bits, alive, shift)
        )
        keys = shifted(_alive_keys(part, flags), by[:, :, None])
        return lax.dynamic_update_slice_in_dim(bits, keys, k * chunk, axis=0)

    return lax.fori_loop(0, len(bits) // chunk, replace, bits)


def _in_blocks(rows: Shaped[jax.Array, "G n"]) -> Int32[jax.Array, "B G BLOCK"]:
    """The bits of importances as float32, the last block filled up with those of zeros."""
    bits = lax.bitcast_convert_type(rows.astype(jnp.float32), jnp.int32)
    bits = lax.pad(bits, jnp.int32(0), ((0, 0, 0), (0, -rows.shape[1] % BLOCK, 0)))
    return lax.transpose(bits.reshape(len(rows), -1, BLOCK), (1, 0, 2))


def _side_by_side(
    flags: Sequence[Bool[jax.Array, " _n"]], count: int
) -> Bool[jax.Array, "B BLOCK"]:
    """Flags of arrays, each filled up to whole blocks, `count` of them in all."""
    parts = [part for x in flags for part in (x, np.zeros(-len(x) % BLOCK, bool))]
    rest = count * BLOCK - sum(map(len, parts))
    return jnp.concatenate([*parts, np.zeros(rest, bool)]).reshape(count, BLOCK)


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


def unpack(
    mask: Bool[np.ndarray, "B BLOCK"], sizes: Sequence[int]
) -> list[Bool[np.ndarray, " _n"]]:
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
