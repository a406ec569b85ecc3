"""Importance of gradients that are never cleared, of a copy that moves: the official code's defect.

The official FairGRAPE code scores a copy of the network. It does not clear the gradients between
two groups or mini-batches, so each one is the sum of all before it; and it lets Adam step the copy
after every one, and squares the stepped weights times that sum. Here this is a switch, to see what
it does (docs/results/departures.md).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from fairgrape_jax.masks import Tree, apply_masks
from fairgrape_jax.scoring.importance import weigh
from fairgrape_jax.scoring.statistics import ScoredNetwork

RATE = 1e-4  # the official code's, for the steps of the copy
ADAM = optax.scale_by_adam()


class Uncleared(NamedTuple):
    """What is carried from one micro-batch to the next.

    Attributes:
        rows: the sums of importance, a tree of (R, *w.shape), None where not prunable.
        gradient: the sum of all gradients so far, of every parameter.
        params: of the copy.
        moments: of its Adam.
    """

    rows: Tree
    gradient: Tree
    params: Tree
    moments: optax.OptState


def begin_uncleared(params: Tree, masks: Tree, rows: int) -> Uncleared:
    """What there is before the first micro-batch.

    Args:
        params: of the network, whose copy moves.
        masks: bool leaves of the shapes of the weights, None where not prunable.
        rows: how many sums there are, one a group.
    """
    return Uncleared(
        rows=jax.tree.map(lambda mask: jnp.zeros((rows, *mask.shape), jnp.float32), masks),
        gradient=jax.tree.map(jnp.zeros_like, params),
        params=jax.tree.map(jnp.copy, params),
        moments=ADAM.init(params),
    )


def make_add_uncleared(
    make_network: Callable[[Tree], ScoredNetwork],
) -> Callable[[Uncleared, Tree, Tree, dict[str, jax.Array]], Uncleared]:
    """The step that adds a micro-batch of one group.

    Args:
        make_network: (batch_stats) to the network.

    Returns:
        (carried, batch_stats, masks, batch) to what is carried on; batch: images, labels, valid,
        and row, the number of the group. Pruned weights stay at zero.
    """

    def add(
        carried: Uncleared, batch_stats: Tree, masks: Tree, batch: dict[str, jax.Array]
    ) -> Uncleared:
        data = batch["images"], batch["labels"], batch["valid"]
        new = jax.grad(make_network(batch_stats).loss)(carried.params, *data)
        gradient = apply_masks(masks, jax.tree.map(jnp.add, carried.gradient, new))
        direction, moments = ADAM.update(gradient, carried.moments)
        params = jax.tree.map(lambda w, d: w - RATE * d, carried.params, direction)
        rows = jax.tree.map(
            lambda r, i: r.at[batch["row"]].add(i), carried.rows, weigh(masks, params, gradient)
        )
        return Uncleared(rows, gradient, params, moments)

    return add
