"""Greedy steps on the device: a few thousand candidates of every layer, one weight at a time."""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

CAPACITY = 4096  # candidates of a walk, in each layer; one of no more weights is walked as a whole
WINDOW = 8  # positions of a group's order that a step looks at, to pass what others have taken
UNROLL = 16  # steps between two looks at whether all layers are done


class Candidates(NamedTuple):
    """What a walk may take, in L segments of C candidates.

    order: (L, G, C) of each group from its most important candidate on; gain: (L, C, G), what a
    candidate adds to the levels; worth: (L, C) int32, how many weights it stands for; ends: (L, G),
    where a group's order ends; whole: (L,), whether there is nothing beyond the ends.
    """

    order: jax.Array
    gain: jax.Array
    worth: jax.Array
    ends: jax.Array
    whole: jax.Array


class Walk(NamedTuple):
    """Where a walk has come to.

    taken: (L, C + 1) bool; position: (L, G) in each group's order; level, error: (L, G), what has
    been retained of every group, and its rounding, carried along; number: (L,) taken; marked:
    (M, L, G) the positions when the count passed each of the marks; done, stuck: (L,), stuck where
    a group needed weights beyond its end.
    """

    taken: jax.Array
    position: jax.Array
    level: jax.Array
    error: jax.Array
    number: jax.Array
    marked: jax.Array
    done: jax.Array
    stuck: jax.Array


def descending(keys: jax.Array) -> jax.Array:
    """(L, G, C): every group's order of such keys, from large to small, ties by position."""
    return jnp.argsort(-keys, axis=2, stable=True)


def walk(
    candidates: Candidates, level: jax.Array, count: jax.Array, limit: jax.Array, marks: jax.Array
) -> Walk:
    """Take weights until `limit` of them are taken in every segment: the poorest group is served.

    level: (L, G) at the start, infinite for a group that takes no part; count: (L,) at the start;
    marks: (M, L), counts at which positions are written down. A candidate that would exceed the
    limit ends the walk.
    """
    segments, groups, capacity = candidates.order.shape
    order = candidates.order.astype(jnp.int32)
    order = jnp.pad(order, ((0, 0), (0, 0), (0, WINDOW)), constant_values=capacity)
    order = order.reshape(segments, -1)
    gain = jnp.pad(candidates.gain, ((0, 0), (0, 1), (0, 0)))
    worth = jnp.pad(candidates.worth, ((0, 0), (0, 1)))
    rows, window = (np.arange(size, dtype=np.int32) for size in (segments, WINDOW))

    def step(_: Any, s: Walk) -> Walk:
        over = s.position >= candidates.ends
        poorest = jnp.where(over & candidates.whole[:, None], jnp.inf, s.level)
        k = jnp.argmin(poorest, axis=1).astype(jnp.int32)
        position = s.position[rows, k]
        stuck = (over[rows, k] & jnp.isfinite(s.level[rows, k]) & ~candidates.whole) & ~s.done
        begin = k * (capacity + WINDOW) + position
        near = jnp.take_along_axis(order, begin[:, None] + window[None], axis=1)
        used = jnp.take_along_axis(s.taken, near, axis=1)
        used |= position[:, None] + window[None] >= candidates.ends[rows, k][:, None]
        skip = jnp.argmin(used, axis=1).astype(jnp.int32)  # the first that is free
        w = near[rows, skip]
        found = ~used[rows, skip]
        fits = s.number + worth[rows, w] <= limit
        none = jnp.isinf(poorest[rows, k])
        done = s.done | stuck | none | (found & ~fits) | (s.number >= limit)
        move, take = ~done, found & ~done
        added = jnp.where(take[:, None], gain[rows, w], 0) - s.error
        level = s.level + added
        reached = jnp.minimum(
            position + jnp.where(found, skip + 1, WINDOW), candidates.ends[rows, k]
        )
        position = s.position.at[rows, k].set(jnp.where(move, reached, position))
        count = s.number + jnp.where(take, worth[rows, w], 0)
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

    nowhere = jnp.zeros((segments, groups), jnp.int32)
    never = jnp.zeros(segments, bool)
    taken = jnp.zeros((segments, capacity + 1), bool).at[:, capacity].set(True)
    marked = jnp.zeros((len(marks), segments, groups), jnp.int32)
    start = Walk(
        taken, nowhere, level, jnp.zeros_like(level), count, marked, never | (limit <= count), never
    )
    return lax.while_loop(
        lambda s: ~jnp.all(s.done), lambda s: lax.fori_loop(0, UNROLL, step, s), start
    )
