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
from jax import lax

from fairgrape_jax.selection import blocks as bl
from fairgrape_jax.selection.blocks import BLOCK, Blocks, Fixed
from fairgrape_jax.selection.fixed_point.newton import Fit, levels, newton
from fairgrape_jax.selection.fixed_point.prefixes import depth, ranks
from fairgrape_jax.selection.fixed_point.sample import Layer, coarse, first_pick, start, tied
from fairgrape_jax.selection.fixed_point.walk import CAPACITY, Candidates, descending, walk

Finish = Literal["greedy", "none"]

STEPS = 256  # weights left to the last walk
TRIES = 4  # of it, at most
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
    blocks: Blocks, keep: jax.Array, finish: Finish, axis: str | None
) -> tuple[jax.Array, Info]:
    """The choice of `keep` (L,) weights in every segment: a mask (blocks, BLOCK), and `Info`.

    Always of exactly so many weights, or of all that are alive.
    """
    layer = survey(blocks, keep, axis)
    room = jnp.minimum(STEPS, layer.keep // 2) if finish == "greedy" else 0
    target = jnp.where(layer.small, layer.keep, layer.keep - room)
    first, sample = coarse(blocks, layer, target, axis)
    ends, width, active = start(first, sample, blocks.size)
    served = jnp.isfinite(first.level)
    layer = layer._replace(
        most=jnp.where(served, first.level, 0).sum(axis=1) > 0.5 * bl.to_float(served.sum(axis=1))
    )
    room = jnp.broadcast_to(jnp.asarray(room), target.shape)
    tolerance = jnp.maximum(1.5, bl.to_float(room) / (8.0 * blocks.keys.shape[1]))
    fit = newton(blocks, layer, ends, width, active, target, tolerance, axis)
    mask = bl.scatter(first.taken[:, :-1] & layer.small[:, None], sample.gathered, blocks)
    stuck = jnp.zeros_like(layer.small)
    if finish == "greedy":
        walked, stuck = walk_the_rest(blocks, layer, fit, axis)
        mask |= walked
    left = layer.simple | (stuck if finish == "greedy" else layer.busy)
    mask |= in_order(blocks, layer, fit, left, axis)
    mask, counted = exact(blocks, mask, layer, axis)
    error = share_error(layer.true(kept(blocks, mask, layer, axis)), layer.true(layer.totals))
    if finish == "none":  # where single weights matter, the fixed point alone does not decide
        stuck = layer.busy & (layer.keep < FEW * blocks.keys.shape[1])
    level = (fit.misfit <= 2 * tolerance) & ~tied(first, sample) & ~stuck
    ranked = counted & (blocks.shift <= 0).all(axis=1)
    return mask, Info(fit.passes, error, (~layer.busy | level) & ranked)


def survey(blocks: Blocks, keep: jax.Array, axis: str | None) -> Layer:
    """The groups' importances and the counts of each segment."""

    def chunk(keys: jax.Array) -> tuple[jax.Array, jax.Array]:
        best = keys.max(axis=1)
        flags = jnp.stack([bl.true(best >= 0), bl.true(best > 0)], axis=1)
        return bl.values(keys).sum(axis=2), flags

    sums, flags = bl.over_chunks(chunk, blocks.keys)
    totals = bl.add(sums, bl.scale_of(sums, blocks, axis), blocks, axis)
    alive, positive = bl.count(flags, blocks, axis).T
    keep = jnp.clip(keep.astype(jnp.int32), 0, alive)
    simple = (keep >= positive) | (keep == 0)
    small = (alive <= CAPACITY) & ~simple
    return Layer(totals, alive, keep, simple, small, jnp.zeros_like(small), blocks.shift)


def in_order(
    blocks: Blocks, layer: Layer, fit: Fit, where: jax.Array, axis: str | None
) -> jax.Array:
    """The exact count without a walk: the first to come within, in the segments of `where`."""
    keep = jnp.where(where, layer.keep, 0)

    def chosen() -> jax.Array:
        return bl.largest(ranks(blocks, fit.ends, fit.ray, layer.simple), keep, blocks, axis)

    nothing = jnp.zeros((len(blocks.segment), BLOCK), bool)
    return lax.cond(jnp.any(keep > 0), chosen, lambda: nothing)


def exact(
    blocks: Blocks, mask: jax.Array, layer: Layer, axis: str | None
) -> tuple[jax.Array, jax.Array]:
    """The mask with exactly the count of every segment, and which segments (L,) had it already.

    Rounding may have left a segment short: then what matters to anyone comes first, by index.
    """
    counted = bl.count(bl.true(mask), blocks, axis) == layer.keep

    def mended() -> jax.Array:
        def order(keys: jax.Array, chosen: jax.Array) -> jax.Array:
            rank = 1 + (keys.max(axis=1) > 0).astype(jnp.uint32)
            return jnp.where(keys[:, 0] < 0, jnp.uint32(0), jnp.where(chosen, jnp.uint32(3), rank))

        return bl.largest(bl.over_chunks(order, blocks.keys, mask), layer.keep, blocks, axis)

    return lax.cond(jnp.all(counted), lambda: mask, mended), counted


class Attempt(NamedTuple):
    """A last walk: how the ends were taken to move, what it chose, and where it got stuck."""

    ray: jax.Array
    mask: jax.Array
    stuck: jax.Array
    tries: jax.Array


def walk_the_rest(
    blocks: Blocks, layer: Layer, fit: Fit, axis: str | None
) -> tuple[jax.Array, jax.Array]:
    """Greedy steps from STEPS weights before the count; the mask, and the segments that failed.

    The candidates are the next CAPACITY weights as all ends move on together. If a group runs out
    of them, the walk is done again with a longer way for this group.
    """
    before = jnp.where(layer.busy, jnp.maximum(layer.keep - STEPS, 0), 0)
    after = jnp.where(layer.busy, jnp.minimum(before + CAPACITY, layer.alive), 0)
    limit = jnp.where(layer.busy, layer.keep, 0)
    totals = layer.totals.value()
    everything = after == layer.alive
    behind = layer.most[blocks.segment][:, None]

    def attempt(last: Attempt) -> Attempt:
        rank = ranks(blocks, fit.ends, last.ray, layer.simple)
        both = bl.nth(rank, jnp.stack([before, after]), blocks, axis)
        base = bl.down_to(both[0], rank, before, blocks, axis)
        band = bl.down_to(both[1], rank, after, blocks, axis) & ~base
        gathered = bl.gather(band, CAPACITY, blocks, axis)
        keys = jnp.moveaxis(gathered.keys, 1, 2)
        inside = depth(keys, gathered.indices, fit.ends, last.ray, blocks.size)
        cut = jnp.where(keys[:, 0] >= 0, inside.max(axis=1), jnp.inf).min(axis=1)
        listed = jnp.where(everything[:, None, None], keys > 0, inside > cut[:, None, None])
        candidates = Candidates(
            order=descending(keys),
            gain=bl.values(gathered.keys) / jnp.where(totals > 0, totals, 1)[:, None],
            worth=(keys[:, 0] >= 0).astype(jnp.int32),
            ends=listed.sum(axis=2, dtype=jnp.int32),
            whole=everything,
        )
        level = levels(kept(blocks, base ^ behind, layer, axis), layer.totals, layer.most)
        begin = (before == 0)[:, None] & jnp.isfinite(level)
        level = jnp.where(begin, first_pick(layer.true(layer.totals)), level)
        rest = walk(candidates, level, before, limit, limit[None])
        stuck = rest.number < limit
        short = stuck[:, None] & (rest.position >= candidates.ends)
        mask = base | bl.scatter(rest.taken[:, :-1], gathered, blocks)
        return Attempt(jnp.where(short, 8 * last.ray, last.ray), mask, stuck, last.tries + 1)

    nothing = jnp.zeros((len(blocks.segment), BLOCK), bool)
    begin = Attempt(fit.ray, nothing, layer.busy, jnp.int32(0))
    last = lax.while_loop(lambda a: jnp.any(a.stuck) & (a.tries < TRIES), attempt, begin)
    return last.mask & ~last.stuck[blocks.segment][:, None], last.stuck


def kept(blocks: Blocks, mask: jax.Array, layer: Layer, axis: str | None) -> Fixed:
    """The importance of each group within `mask`."""
    sums = bl.over_chunks(
        lambda keys, chosen: jnp.where(chosen[:, None], bl.values(keys), 0).sum(axis=2),
        blocks.keys,
        mask,
    )
    return bl.add(sums, layer.totals.scale, blocks, axis)


def share_error(kept: jax.Array, totals: jax.Array) -> jax.Array:
    """The worst |P_k - P*_k| / P*_k of the groups of some importance, 0 where nothing is kept."""
    held, whole = (x.sum(axis=-1, keepdims=True) for x in (kept, totals))
    some = (totals > 0) & (held > 0)
    relative = kept / jnp.where(some, totals, 1) * (whole / jnp.where(held > 0, held, 1))
    return jnp.where(some, jnp.abs(relative - 1), 0).max(axis=-1)
