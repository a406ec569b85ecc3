"""Greedy steps on the device: a few thousand candidates of every layer, one weight at a time."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Bool, Float32, Int, Int32

CAPACITY = 4096  # candidates of a walk, in each layer; one of no more weights is walked as a whole
WINDOW = 8  # positions of a group's order that a step looks at, to pass what others have taken
UNROLL = 16  # steps between two looks at whether all layers are done


class Candidates(NamedTuple):
    """What a walk may take, in L segments of C candidates.

    Attributes:
        order: of each group, from its most important candidate on.
        gain: what a candidate adds to the levels.
        worth: how many weights it stands for.
        ends: where a group's order ends.
        whole: whether there is nothing beyond the ends.
    """

    order: Int[jax.Array, "L G C"]
    gain: Float32[jax.Array, "L C G"]
    worth: Int32[jax.Array, "L C"]
    ends: Int32[jax.Array, "L G"]
    whole: Bool[jax.Array, " L"]


class Walk(NamedTuple):
    """Where a walk has come to.

    Attributes:
        taken: which candidates; the last is none, and always taken.
        position: in each group's order.
        level: what has been retained of every group.
        error: its rounding, carried along.
        number: of weights taken.
        marked: the positions when the count passed each of the marks.
        done: whether the walk has ended.
        stuck: where a group needed weights beyond its end.
    """

    taken: Bool[jax.Array, "L C+1"]
    position: Int32[jax.Array, "L G"]
    level: Float32[jax.Array, "L G"]
    error: Float32[jax.Array, "L G"]
    number: Int32[jax.Array, " L"]
    marked: Int32[jax.Array, "M L G"]
    done: Bool[jax.Array, " L"]
    stuck: Bool[jax.Array, " L"]


def descending(keys: Int32[jax.Array, "L G C"]) -> Int[jax.Array, "L G C"]:
    """Every group's order of such keys, from large to small, ties by position.

    Args:
        keys: of each group's candidates.
    """
    return jnp.argsort(-keys, axis=2, stable=True)


def walk(
    candidates: Candidates,
    level: Float32[jax.Array, "L G"],
    count: Int32[jax.Array, " L"],
    limit: Int32[jax.Array, " L"],
    marks: Int32[jax.Array, "M L"],
) -> Walk:
    """Take weights until `limit` of them are taken in every segment: the poorest group is served.

    A candidate that would exceed the limit ends the walk.

    Args:
        candidates: what may be taken.
        level: what is retained at the start; infinite for a group that takes no part.
        count: weights taken at the start.
        limit: weights taken at the end.
        marks: counts at which positions are written down.
    """
    segments, groups, capacity = candidates.order.shape
    padded = _pad(candidates)

    def steps(s: Walk) -> Walk:
        return lax.fori_loop(0, UNROLL, lambda _, s: serve_poorest(padded, s, limit, marks), s)

    nowhere = jnp.zeros((segments, groups), jnp.int32)
    never = jnp.zeros(segments, bool)
    start = Walk(
        taken=jnp.zeros((segments, capacity + 1), bool).at[:, capacity].set(True),
        position=nowhere,
        level=level,
        error=jnp.zeros_like(level),
        number=count,
        marked=jnp.zeros((len(marks), segments, groups), jnp.int32),
        done=never | (limit <= count),
        stuck=never,
    )
    return lax.while_loop(lambda s: ~jnp.all(s.done), steps, start)


def _pad(candidates: Candidates) -> Candidates:
    """With a candidate C more that nobody gains by, which the orders end in, WINDOW times."""
    segments, _, capacity = candidates.order.shape
    order = candidates.order.astype(jnp.int32)
    order = jnp.pad(order, ((0, 0), (0, 0), (0, WINDOW)), constant_values=capacity)
    return candidates._replace(
        order=order.reshape(segments, -1),
        gain=jnp.pad(candidates.gain, ((0, 0), (0, 1), (0, 0))),
        worth=jnp.pad(candidates.worth, ((0, 0), (0, 1))),
    )


def serve_poorest(
    padded: Candidates, s: Walk, limit: Int32[jax.Array, " L"], marks: Int32[jax.Array, "M L"]
) -> Walk:
    """One step in every segment: the poorest group takes its most important free candidate.

    Args:
        padded: what may be taken.
        s: where the walk stands.
        limit: weights taken at the end.
        marks: counts at which positions are written down.
    """
    ends, whole, capacity = padded.ends, padded.whole, padded.worth.shape[1] - 1
    rows, window = (np.arange(size, dtype=np.int32) for size in (len(ends), WINDOW))
    over = s.position >= ends
    poorest = jnp.where(over & whole[:, None], jnp.inf, s.level)
    k = jnp.argmin(poorest, axis=1).astype(jnp.int32)
    position = s.position[rows, k]
    stuck = (over[rows, k] & jnp.isfinite(s.level[rows, k]) & ~whole) & ~s.done
    begin = k * (capacity + WINDOW) + position
    near = jnp.take_along_axis(padded.order, begin[:, None] + window[None], axis=1)
    used = jnp.take_along_axis(s.taken, near, axis=1)
    used |= position[:, None] + window[None] >= ends[rows, k][:, None]
    skip = jnp.argmin(used, axis=1).astype(jnp.int32)  # the first that is free
    w = near[rows, skip]
    free = ~used[rows, skip]
    fits = s.number + padded.worth[rows, w] <= limit
    none = jnp.isinf(poorest[rows, k])
    done = s.done | stuck | none | (free & ~fits) | (s.number >= limit)
    move, take = ~done, free & ~done
    added = jnp.where(take[:, None], padded.gain[rows, w], 0) - s.error
    level = s.level + added
    reached = jnp.minimum(position + jnp.where(free, skip + 1, WINDOW), ends[rows, k])
    position = s.position.at[rows, k].set(jnp.where(move, reached, position))
    count = s.number + jnp.where(take, padded.worth[rows, w], 0)
    return Walk(
        taken=s.taken.at[rows, jnp.where(take, w, capacity)].set(True),
        position=position,
        level=level,
        error=jnp.where(jnp.isfinite(level), (level - s.level) - added, 0),
        number=count,
        marked=jnp.where((count[None] <= marks)[..., None], position[None], s.marked),
        done=done,
        stuck=s.stuck | stuck,
    )
