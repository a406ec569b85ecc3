"""FairGRAPE's greedy choice as a parallel fixed point, for all layers at once, on the device.

Greedy takes each group's weights from the top, so what it has chosen is a union of prefixes, one of
each group's order; and it always serves the group that has retained the smallest part of its
importance, so the groups that it still serves have all retained the same part. Given the count,
that is a fixed point in G unknowns, the ends of the prefixes:

    S_k / T_k = m for every group that is served, and the number of weights within = K.

Three steps find it. Greedy itself on a small sample of each layer, weighted by the inverse of the
odds, comes near (sample.py). Newton's method on the whole layer, a pass each, brings the ends to
within single weights (newton.py). And because greedy forgets where it started, greedy steps over
the last few hundred weights then lead to greedy's own set. docs/selection.md has the argument, its
limits, and the measurements.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Float32, Int32, Shaped

from fairgrape_jax.selection import blocks as bl
from fairgrape_jax.selection.blocks import BLOCK, Blocks, Fixed
from fairgrape_jax.selection.fixed_point.newton import Fit, levels, newton
from fairgrape_jax.selection.fixed_point.prefixes import Shells, depth, ranks
from fairgrape_jax.selection.fixed_point.sample import (
    Layer,
    ends_among_ties,
    guess_ends,
    levels_before_first_pick,
    walk_sample,
)
from fairgrape_jax.selection.fixed_point.walk import (
    CAPACITY,
    Candidates,
    Walk,
    descending,
    walk,
)

Finish = Literal["greedy", "none"]

STEPS = 256  # weights left to the last walk
TRIES = 4  # of it, at most
CHOSEN = np.uint32(3)  # a rank above those by index, 0 to 2
FEW = 8  # weights a group: of fewer, the fixed point without a walk is not trusted


class Info(NamedTuple):
    """How the choice in each layer was reached; arrays (L,), or scalars for one layer.

    Attributes:
        passes: Newton's, 0 where none was needed.
        share_error: the worst |P_k - P*_k| / P*_k that remains.
        converged: whether the ends were found to within a few weights, none of them among weights
            of equal importance, the last walk came to its end, and float32 could rank everything.
    """

    passes: Any
    share_error: Any
    converged: Any


def select_blocks(
    blocks: Blocks, keep: Shaped[jax.Array, " L"], finish: Finish
) -> tuple[Bool[jax.Array, "B W"], Info]:
    """The choice of so many weights in every segment, always of exactly so many or all alive.

    Args:
        blocks: the weights.
        keep: how many of each segment.
        finish: "greedy", or "none": the fixed point alone.

    Returns:
        A mask of all weights of this device, and how it was reached.
    """
    layer = survey(blocks, keep)
    room = jnp.minimum(STEPS, layer.keep // 2) if finish == "greedy" else 0
    target = jnp.where(layer.small, layer.keep, layer.keep - room)
    first, sample = walk_sample(blocks, layer, target)
    served = jnp.isfinite(first.level)
    layer = layer._replace(
        most=jnp.where(served, first.level, 0).sum(axis=1) > 0.5 * bl.to_float(served.sum(axis=1))
    )
    room = jnp.broadcast_to(jnp.asarray(room), target.shape)
    tolerance = jnp.maximum(1.5, bl.to_float(room) / (8.0 * blocks.keys.shape[1]))
    fit = newton(blocks, layer, guess_ends(first, sample, blocks.size), target, tolerance)
    mask = bl.scatter(first.taken[:, :-1] & layer.small[:, None], sample.gathered, blocks)
    stuck = jnp.zeros_like(layer.small)
    if finish == "greedy":
        walked, stuck = walk_the_rest(blocks, layer, fit)
        mask |= walked
    left = layer.simple | (stuck if finish == "greedy" else layer.busy)
    mask, counted = complete(blocks, mask, layer, fit, left)
    error = share_error(layer.true(sum_within(blocks, mask, layer)), layer.true(layer.totals))
    if finish == "none":  # where single weights matter, the fixed point alone does not decide
        stuck = layer.busy & (layer.keep < FEW * blocks.keys.shape[1])
    level = (fit.misfit <= 2 * tolerance) & ~ends_among_ties(first, sample) & ~stuck
    ranked = counted & (blocks.shift <= 0).all(axis=1)
    return mask, Info(fit.passes, error, (~layer.busy | level) & ranked)


def survey(blocks: Blocks, keep: Shaped[jax.Array, " L"]) -> Layer:
    """The groups' importances and the counts of each segment.

    Args:
        blocks: the weights.
        keep: how many of each segment.
    """

    def chunk(some: Blocks) -> tuple[jax.Array, jax.Array]:
        best = some.keys.max(axis=1)
        flags = jnp.stack([bl.count_flags(best >= 0), bl.count_flags(best > 0)], axis=1)
        return bl.values(some.keys).sum(axis=2), flags

    sums, flags = bl.over_chunks(chunk, blocks)
    totals = bl.add_floats(sums, bl.power_above(sums, blocks), blocks)
    alive, positive = bl.add_integers(flags, blocks).T
    keep = jnp.clip(keep.astype(jnp.int32), 0, alive)
    simple = (keep >= positive) | (keep == 0)
    small = (alive <= CAPACITY) & ~simple
    return Layer(totals, alive, keep, simple, small, jnp.zeros_like(small), blocks.shift)


def complete(
    blocks: Blocks,
    mask: Bool[jax.Array, "B W"],
    layer: Layer,
    fit: Fit,
    without_walk: Bool[jax.Array, " L"],
) -> tuple[Bool[jax.Array, "B W"], Bool[jax.Array, " L"]]:
    """The mask with exactly the count of every segment, and which segments had it as they should.

    Without a walk, the first weights to come within. Rounding may have left a walked segment short:
    what is chosen comes first there, then what matters to anyone, by index. One search of the
    largest does both: each is some 40 kernels to compile.

    Args:
        blocks: the weights.
        mask: the choice so far.
        layer: what is known of them.
        fit: where the ends are.
        without_walk: the segments of which nothing is chosen yet.
    """
    counted = bl.add_integers(bl.count_flags(mask), blocks) == layer.keep

    def completed() -> jax.Array:
        order = ranks(blocks, fit.ray, layer.simple | ~without_walk)
        return bl.select_largest(jnp.where(mask, CHOSEN, order), layer.keep, blocks)

    return lax.cond(jnp.all(counted), lambda: mask, completed), counted | without_walk


class Attempt(NamedTuple):
    """A last walk.

    Attributes:
        ray: how the ends were taken to move.
        mask: what it chose.
        stuck: the segments in which a group ran out of candidates.
        tries: how many walks there were before.
    """

    ray: Shells
    mask: Bool[jax.Array, "B W"]
    stuck: Bool[jax.Array, " L"]
    tries: Int32[jax.Array, ""]


class Band(NamedTuple):
    """From which count to which the last walk has its candidates, and where it ends; (L,) each."""

    before: Int32[jax.Array, " L"]
    after: Int32[jax.Array, " L"]
    limit: Int32[jax.Array, " L"]


def walk_the_rest(
    blocks: Blocks, layer: Layer, fit: Fit
) -> tuple[Bool[jax.Array, "B W"], Bool[jax.Array, " L"]]:
    """Greedy steps from STEPS weights before the count; the mask, and the segments that failed.

    The candidates are the next CAPACITY weights as all ends move on together. If a group runs out
    of them, the walk is done again with a longer way for this group.

    Args:
        blocks: the weights.
        layer: what is known of them.
        fit: where the ends are.
    """
    before = jnp.where(layer.busy, jnp.maximum(layer.keep - STEPS, 0), 0)
    after = jnp.where(layer.busy, jnp.minimum(before + CAPACITY, layer.alive), 0)
    band = Band(before, after, jnp.where(layer.busy, layer.keep, 0))

    def attempt(last: Attempt) -> Attempt:
        mask, rest, ends = walk_band(blocks, layer, last.ray, band)
        stuck = rest.number < band.limit
        short = stuck[:, None] & (rest.position >= ends)
        ray = last.ray._replace(width=jnp.where(short, 8 * last.ray.width, last.ray.width))
        return Attempt(ray, mask, stuck, last.tries + 1)

    nothing = jnp.zeros((len(blocks.segment), BLOCK), bool)
    begin = Attempt(fit.ray, nothing, layer.busy, jnp.int32(0))
    last = lax.while_loop(lambda a: jnp.any(a.stuck) & (a.tries < TRIES), attempt, begin)
    return last.mask & ~last.stuck[blocks.segment][:, None], last.stuck


def walk_band(
    blocks: Blocks, layer: Layer, ray: Shells, band: Band
) -> tuple[Bool[jax.Array, "B W"], Walk, Int32[jax.Array, "L G"]]:
    """A last walk, along a ray: its mask, where it came to, and where the groups' orders end.

    Args:
        blocks: the weights.
        layer: what is known of them.
        ray: how the ends move on.
        band: from which count to which.
    """
    totals = layer.totals.value()
    everything = band.after == layer.alive
    behind = layer.most[blocks.segment][:, None]
    rank = ranks(blocks, ray, layer.simple)
    counts = jnp.stack([band.before, band.after])
    bounds = bl.nth_largest(rank, counts, blocks)
    # A loop of two turns: its body is compiled once.
    base, until = lax.map(
        lambda each: bl.select_down_to(each[0], rank, each[1], blocks), (bounds, counts)
    )
    gathered = bl.gather(until & ~base, CAPACITY, blocks)
    keys = jnp.moveaxis(gathered.keys, 1, 2)
    deep = depth(keys, gathered.indices, ray, blocks.size)
    cut = jnp.where(keys[:, 0] >= 0, deep.max(axis=1), jnp.inf).min(axis=1)
    listed = jnp.where(everything[:, None, None], keys > 0, deep > cut[:, None, None])
    candidates = Candidates(
        order=descending(keys),
        gain=bl.values(gathered.keys) / jnp.where(totals > 0, totals, 1)[:, None],
        worth=(keys[:, 0] >= 0).astype(jnp.int32),
        ends=listed.sum(axis=2, dtype=jnp.int32),
        whole=everything,
    )
    level = levels(sum_within(blocks, base ^ behind, layer), layer.totals, layer.most)
    begin = (band.before == 0)[:, None] & jnp.isfinite(level)
    level = jnp.where(begin, levels_before_first_pick(layer.true(layer.totals)), level)
    rest = walk(candidates, level, band.before, band.limit, band.limit[None])
    mask = base | bl.scatter(rest.taken[:, :-1], gathered, blocks)
    return mask, rest, candidates.ends


def sum_within(blocks: Blocks, mask: Bool[jax.Array, "B W"], layer: Layer) -> Fixed:
    """The importance of each group within `mask`, (L, G).

    Args:
        blocks: the weights.
        mask: a choice.
        layer: what is known of them.
    """
    sums = bl.over_chunks(
        lambda some, chosen: jnp.where(chosen[:, None], bl.values(some.keys), 0).sum(axis=2),
        blocks,
        mask,
    )
    return bl.add_floats(sums, layer.totals.scale, blocks)


def share_error(
    kept: Float32[jax.Array, "L G"], totals: Float32[jax.Array, "L G"]
) -> Float32[jax.Array, " L"]:
    """The worst |P_k - P*_k| / P*_k of the groups of some importance, 0 where nothing is kept.

    Args:
        kept: each group's importance within the choice.
        totals: each group's importance alive.
    """
    retained, whole = (x.sum(axis=-1, keepdims=True) for x in (kept, totals))
    some = (totals > 0) & (retained > 0)
    relative = kept / jnp.where(some, totals, 1) * (whole / jnp.where(retained > 0, retained, 1))
    return jnp.where(some, jnp.abs(relative - 1), 0).max(axis=-1)
