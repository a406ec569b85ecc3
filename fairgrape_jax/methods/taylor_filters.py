"""Whole filters by the Taylor criterion: what the loss would change by, were a filter's output 0.

The sum over places of activation times gradient is that over the filter's weights of w g, for the
output is linear in them (a bias apart); it is taken for each micro-batch, and its magnitude is
averaged. Meant for `--scoring.structures`, where coupled channels go as wholes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fairgrape_jax.masks import Array, Tree, map_masked
from fairgrape_jax.methods.base import Problem
from fairgrape_jax.scoring.importance import at_least_float32
from fairgrape_jax.scoring.statistics import Statistic


def _taylor(masks: Tree, params: Tree, gradient: Tree) -> Tree:
    """|sum of w g over a filter|, in equal parts for its weights alive."""

    def of_layer(mask: Array | None, w: Array, g: Array) -> Array | None:
        if mask is None:
            return None
        axes = tuple(range(mask.ndim - 1))
        wide = at_least_float32(w)
        products = jnp.where(mask, wide * g, 0)
        total = jnp.abs(products.sum(axis=axes, keepdims=True))
        alive = jnp.maximum(mask.sum(axis=axes, keepdims=True).astype(total.dtype), 1)
        return jnp.where(mask, total / alive, 0)

    return map_masked(of_layer, masks, params, gradient)


TAYLOR = Statistic("batch", of_gradient=_taylor)


def score(problem: Problem) -> Tree:
    """The mean over micro-batches of |sum of w g| of each weight's filter, over its weights.

    Args:
        problem: the network at the start of the round.

    Source:
        Molchanov et al., "Pruning Convolutional Neural Networks for Resource Efficient Inference"
        (ICLR 2017), as Meyer and Wong, "A Fair Loss Function for Network Pruning" (2022) use it.
        Their code removes one filter every few batches and takes steps between; here a round
        removes as many as its budget says, and trains afterwards.
    """
    return jax.tree.map(lambda leaf: leaf[0], problem.average(TAYLOR))
