"""Many layers as one array of blocks: sums, order statistics and gathers that know the layer.

The weights of all segments (a segment is what a count is kept in: a layer, or the whole network)
lie one after the other in blocks of BLOCK weights, so one program serves layers of any sizes. Every
function runs on the blocks of one device; with `axis`, the name of a mapped axis over which the
blocks are cut in order, sums and counts meet in a collective, and no device sees another's weights.

Results do not depend on how many devices there are: counts are integers, and importances are added
as fixed-point integers above the level of a block, which no order of addition changes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

BLOCK = 1024
CHUNK = 256  # blocks looked at together in a pass: what fits a cache, and bounds a pass's memory
HIGH = 30  # bits of a fixed-point sum's upper integer
LARGEST_KEY = 0x7F7FFFFF  # that of the largest finite float32
NORMAL = 1 << 23  # the key of the least float32 that is no subnormal; an octave is as long
# A group is shifted if its largest importance is not between these powers of two: below 2^91 the
# sum of 2^31 weights is a float32, and above 2^-80 so are the parts of it that matter.
SMALL, LARGE = -80, 90


class Blocks(NamedTuple):
    """The weights of L segments, on one device.

    Attributes:
        keys: (blocks, G, BLOCK) int32, the bits of the importances over 2^shift, which order as the
            floats do, and -1 for what is dead or padding.
        segment: (blocks,) int32, in order.
        start: (blocks,) int32, the index in its segment of a block's first weight.
        size: (L,) int32, the weights of each segment.
        shift: (L, G) int32, 0 but for groups whose importances are so small or so large that sums
            of them would leave float32.
    """

    keys: jax.Array
    segment: jax.Array
    start: jax.Array
    size: jax.Array
    shift: jax.Array


# How its arrays are cut over devices.
CUT: Any = Blocks(0, 0, 0, None, None)  # type: ignore[arg-type]


class Fixed(NamedTuple):
    """Sums as whole numbers: (high * 2^-30 + low * 2^-bits) * scale, exactly added."""

    high: jax.Array
    low: jax.Array
    scale: jax.Array
    bits: int

    def value(self) -> jax.Array:
        """As float32."""
        high, low = (part.astype(jnp.float32) for part in (self.high, self.low))
        return (high * 2.0**-HIGH + low * 2.0**-self.bits) * self.scale

    def column(self, j: int) -> Fixed:
        """Of sums (..., C) with scales (..., 1), those in column j."""
        high, low, scale = self.high[..., j], self.low[..., j], self.scale[..., 0]
        return Fixed(high, low, scale, self.bits)


def pack(
    importances: Sequence[jax.Array],
    previous: Sequence[jax.Array],
    segments: Sequence[int],
    shards: int = 1,
    axis: str | None = None,
) -> Blocks:
    """Lay importances and masks out in blocks, their number divisible by `shards`.

    Nothing is refused: negative importances and NaN count as 0, infinite ones as the largest
    float32.

    Args:
        importances: (G, n) each.
        previous: (n,) bool each.
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
    return Blocks(keys, jnp.asarray(segment), jnp.asarray(start), jnp.asarray(size), shift)


def keys_of(importance: jax.Array) -> jax.Array:
    """The bits of float32 importances, which order as they do; int32, not negative.

    Negative ones and NaN count as 0, infinite ones as the largest.
    """
    bits = lax.bitcast_convert_type(importance.astype(jnp.float32), jnp.int32)
    number = (bits >= 0) & (bits <= LARGEST_KEY + 1)
    return jnp.where(number, jnp.minimum(bits, LARGEST_KEY), 0)


def can_be_ranked(importance: jax.Array) -> jax.Array:
    """Whether no importance is negative, NaN or infinite: a bool."""
    return ((importance >= 0) & (importance <= np.float32(np.finfo(np.float32).max))).all()


def shifts(keys: Sequence[jax.Array], segments: Sequence[int], axis: str | None) -> jax.Array:
    """The power of two by which each group of each segment is divided, (L, G) int32; see `Blocks`.

    keys: (G, n) each, -1 where dead.
    """
    top = [jnp.full(keys[0].shape[0], -1, jnp.int32)] * (segments[-1] + 1)
    for bits, member in zip(keys, segments, strict=True):
        top[member] = jnp.maximum(top[member], bits.max(axis=1, initial=-1))
    highest = jnp.stack(top)
    if axis:
        highest = lax.pmax(highest, axis)
    # A subnormal's bits are the whole number of 2^-149 that it is.
    number = lax.bitcast_convert_type(highest.astype(jnp.float32), jnp.int32)
    exponent = jnp.where(highest < NORMAL, (number >> 23) - 149, highest >> 23) - 127
    far = (highest > 0) & ((exponent < SMALL) | (exponent > LARGE))
    return jnp.where(far, exponent, 0)


def shifted(keys: jax.Array, shift: jax.Array) -> jax.Array:
    """The keys of importances divided by 2^shift; -1 for the dead.

    Their order stays. Exact but for importances 2^126 times smaller than a group's largest one,
    which stay positive.
    """
    moved = keys - shift * NORMAL
    number = lax.bitcast_convert_type(keys.astype(jnp.float32), jnp.int32)
    raised = number - (shift + 149) * NORMAL  # of subnormals, which become normal numbers
    lowered = jnp.maximum(keys >> 7, jnp.minimum(keys, 1))  # in order, and of no weight in a sum
    low = keys < (jnp.maximum(shift, 0) + 1) * NORMAL
    moved = jnp.where(low, jnp.where(shift > 0, lowered, raised), moved)
    return jnp.where((shift == 0) | (keys <= 0), keys, moved)


def padded_count(count: int, shards: int) -> int:
    """`count` blocks and as many empty ones as make every shard a whole number of chunks.

    >>> padded_count(10, 1), padded_count(10, 4), padded_count(1000, 1)
    (10, 12, 1024)
    """
    each = max(1, -(-count // shards))
    chunk = min(CHUNK, each)
    return shards * chunk * -(-each // chunk)


def unpack(mask: jax.Array, sizes: Sequence[int]) -> list[jax.Array]:
    """(blocks, BLOCK) back to one (n,) array for each that was packed."""
    masks, block = [], 0
    for n in sizes:
        blocks = -(-n // BLOCK)
        masks.append(mask[block : block + blocks].reshape(-1)[:n])
        block += blocks
    return masks


def over_chunks(fn: Callable[..., Any], *arrays: jax.Array) -> Any:
    """`fn` of CHUNK blocks at a time of every array, the results one after the other."""
    blocks = len(arrays[0])
    chunk = min(CHUNK, blocks)

    def cut(x: jax.Array) -> jax.Array:
        return x.reshape(blocks // chunk, chunk, *x.shape[1:])

    results = lax.map(lambda parts: fn(*parts), tuple(map(cut, arrays)))
    return jax.tree.map(lambda x: x.reshape(blocks, *x.shape[2:]), results)


def values(keys: jax.Array) -> jax.Array:
    """The importances that keys stand for, 0 for the dead."""
    return lax.bitcast_convert_type(jnp.maximum(keys, 0), jnp.float32)


def to_float(number: jax.Array) -> jax.Array:
    """Integers or flags as float32, which nothing does by itself under strict promotion."""
    return number.astype(jnp.float32)


def count(per_block: jax.Array, blocks: Blocks, axis: str | None) -> jax.Array:
    """Integers of blocks, added up by segment: (blocks, ...) to (L, ...)."""
    sums = jax.ops.segment_sum(
        per_block.astype(jnp.int32), blocks.segment, len(blocks.size), indices_are_sorted=True
    )
    return lax.psum(sums, axis) if axis else sums


def everywhere(blocks: Blocks, axis: str | None) -> int:
    """How many blocks there are on all devices."""
    return len(blocks.segment) * (int(lax.psum(1, axis)) if axis else 1)


def true(flags: jax.Array) -> jax.Array:
    """How many flags are set in each block; bytes first, to take little memory."""
    few = flags.reshape(len(flags), -1, 128).sum(axis=2, dtype=jnp.uint8)
    return few.sum(axis=1, dtype=jnp.int32)


def scale_of(per_block: jax.Array, blocks: Blocks, axis: str | None) -> jax.Array:
    """A power of two above what the blocks of each segment can add up to; (L, ...)."""
    largest = jax.ops.segment_max(per_block, blocks.segment, len(blocks.size))
    largest = jnp.maximum(lax.pmax(largest, axis) if axis else largest, 1e-37)
    above = jnp.minimum(largest * everywhere(blocks, axis), 1.5e38)
    bits = lax.bitcast_convert_type(above, jnp.int32)
    return lax.bitcast_convert_type(((bits >> 23) + 1) << 23, jnp.float32)


def add(per_block: jax.Array, scale: jax.Array, blocks: Blocks, axis: str | None) -> Fixed:
    """Non-negative floats of blocks, added up by segment: (blocks, ...) to (L, ...)."""
    # the lower integers' sum must not overflow
    bits = 31 - max(1, everywhere(blocks, axis).bit_length())
    part = per_block / scale[blocks.segment] * 2.0**HIGH
    high = jnp.floor(part)
    low = jnp.floor((part - high) * 2.0**bits)
    high, low = count(high, blocks, axis), count(low, blocks, axis)
    return Fixed(high + (low >> bits), low & ((1 << bits) - 1), scale, HIGH + bits)


def ordered(scores: jax.Array) -> jax.Array:
    """uint32 that order as float32 scores do; none is below 2^22."""
    bits = lax.bitcast_convert_type(scores, jnp.int32)
    return lax.bitcast_convert_type(bits ^ ((bits >> 31) | jnp.int32(-(2**31))), jnp.uint32)


def largest(scores: jax.Array, keep: jax.Array, blocks: Blocks, axis: str | None) -> jax.Array:
    """The `keep` largest uint32 scores of every segment, ties to the lower index.

    scores: (blocks, BLOCK), 0 for what cannot be chosen; keep: (L,). The keep-th largest is found
    by counting, without a sort; where it is tied, so is the last index.
    """
    return down_to(nth(scores, keep[None], blocks, axis)[0], scores, keep, blocks, axis)


def nth(scores: jax.Array, n: jax.Array, blocks: Blocks, axis: str | None) -> jax.Array:
    """The n-th largest score of each segment: the largest bound that n of them reach; uint32.

    scores: (blocks, BLOCK); n: (M, L), several numbers at once, since a pass over the scores costs
    more than a comparison. Two bits a pass: of three bounds, each is reached by fewer.
    """
    kinds = len(n)

    def refine(i: jax.Array, bound: jax.Array) -> jax.Array:
        shift = jnp.uint32(30) - 2 * i.astype(jnp.uint32)
        steps = jnp.arange(1, 4, dtype=jnp.uint32) << shift
        higher = (bound[:, None] | steps[None, :, None]).reshape(3 * kinds, -1)

        def reaching(scores: jax.Array, segment: jax.Array) -> jax.Array:
            return jnp.stack([true(scores >= x[segment][:, None]) for x in higher], axis=1)

        reached = count(over_chunks(reaching, scores, blocks.segment), blocks, axis)
        digit = (reached.T.reshape(kinds, 3, -1) >= n[:, None]).sum(axis=1, dtype=jnp.int32)
        return bound | (digit.astype(jnp.uint32) << shift)

    return lax.fori_loop(0, 16, refine, jnp.zeros(n.shape, jnp.uint32))


def down_to(
    bound: jax.Array, scores: jax.Array, keep: jax.Array, blocks: Blocks, axis: str | None
) -> jax.Array:
    """`largest`, given the keep-th largest score of every segment; bound: (L,) uint32."""
    segment = blocks.segment
    above = scores > bound[segment][:, None]
    left = keep - count(true(above), blocks, axis)
    tied = (scores == bound[segment][:, None]) & (scores > 0) & (left > 0)[segment][:, None]

    def early(least: jax.Array) -> jax.Array:
        """Ties whose index, turned around to count from the lowest, reaches a bound."""
        last = (~least).astype(jnp.int32) - blocks.start[:, None]
        return tied & (np.arange(BLOCK, dtype=np.int32)[None] <= last)

    def first() -> jax.Array:
        return above | early(_last(early, left, blocks, axis)[segment][:, None])

    all_of_them = jnp.all(left == count(true(tied), blocks, axis))
    return lax.cond(all_of_them, lambda: above | tied, first)


def _last(
    reaching: Callable[[jax.Array], jax.Array], n: jax.Array, blocks: Blocks, axis: str | None
) -> jax.Array:
    """The largest bound of each segment that n of its weights reach, bit by bit; (L,).

    reaching: from a bound for each block, (blocks, 1) uint32, to the weights that reach it.
    """

    def refine(i: jax.Array, bound: jax.Array) -> jax.Array:
        higher = bound | (jnp.uint32(1) << (jnp.uint32(31) - i.astype(jnp.uint32)))
        reached = count(true(reaching(higher[blocks.segment][:, None])), blocks, axis)
        return jnp.where(reached >= n, higher, bound)

    return lax.fori_loop(0, 32, refine, jnp.zeros(len(blocks.size), jnp.uint32))


class Gathered(NamedTuple):
    """Some weights of every segment, in order of index, up to a capacity of C.

    keys: (L, C, G), -1 beyond the last; indices: (L, C) in the segment; place: (L, C) in the
    flattened blocks of this device, and beyond them for another's.
    """

    keys: jax.Array
    indices: jax.Array
    place: jax.Array


def gather(flags: jax.Array, capacity: int, blocks: Blocks, axis: str | None) -> Gathered:
    """The weights with a flag, the first `capacity` of every segment; flags: (blocks, BLOCK)."""
    nowhere = blocks.segment.shape[0] * BLOCK
    powers = np.uint32(1) << np.arange(32, dtype=np.uint32)
    words = jnp.where(flags.reshape(-1, 32), powers[None], np.uint32(0))
    words = words.sum(axis=1, dtype=jnp.uint32)
    each = lax.population_count(words).astype(jnp.int32)
    ends = jnp.cumsum(each, dtype=jnp.int32)
    here = count(each.reshape(-1, BLOCK // 32).sum(axis=1, dtype=jnp.int32), blocks, None)
    slot = np.arange(capacity, dtype=np.int32)[None]
    rank = (jnp.cumsum(here, dtype=jnp.int32) - here)[:, None] + slot
    word = jnp.searchsorted(ends, rank, side="right").astype(jnp.int32)
    word = jnp.minimum(word, len(words) - 1)
    place = word * 32 + _bit(words[word], rank - (ends[word] - each[word]))
    block, offset = place // BLOCK, place % BLOCK
    some = slot < here[:, None]
    keys = jnp.where(some[..., None], blocks.keys[block, :, offset], -1)
    index = jnp.where(some, blocks.start[block] + offset, jnp.iinfo(jnp.int32).max)
    place = jnp.where(some, place, nowhere)
    if axis is None:
        return Gathered(keys, index, place)
    shard = jnp.full_like(place, lax.axis_index(axis))
    everyone = jax.tree.map(
        lambda x: jnp.moveaxis(lax.all_gather(x, axis), 0, 1).reshape(len(x), -1, *x.shape[2:]),
        (keys, index, place, shard),
    )
    first = jnp.argsort(everyone[1], axis=1, stable=True)[:, :capacity]
    keys, index, place, shard = (
        jnp.take_along_axis(x, first.reshape(*first.shape, *[1] * (x.ndim - 2)), axis=1)
        for x in everyone
    )
    return Gathered(keys, index, jnp.where(shard == lax.axis_index(axis), place, nowhere))


def _bit(word: jax.Array, rank: jax.Array) -> jax.Array:
    """The position of the set bit of each uint32 that has `rank` set bits below it."""
    position = jnp.zeros_like(rank)
    for width in (16, 8, 4, 2, 1):
        low = lax.population_count(word & jnp.uint32((1 << width) - 1)).astype(jnp.int32)
        higher = rank >= low
        rank = rank - jnp.where(higher, low, 0)
        word = jnp.where(higher, word >> jnp.uint32(width), word)
        position = position + jnp.where(higher, width, 0)
    return position


def scatter(taken: jax.Array, gathered: Gathered, blocks: Blocks) -> jax.Array:
    """(blocks, BLOCK) bool: True where a gathered weight is taken; taken: (L, C)."""
    shape = (len(blocks.segment), BLOCK)
    place = jnp.where(taken, gathered.place, shape[0] * BLOCK).reshape(-1)
    return jnp.zeros(shape[0] * BLOCK, bool).at[place].set(True, mode="drop").reshape(shape)
