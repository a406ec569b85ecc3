"""Group DRO: the groups that do badly weigh more, by exponentiated gradient ascent.

Source: Sagawa et al., "Distributionally Robust Neural Networks for Group Shifts" (ICLR 2020),
Algorithm 1.
"""

from __future__ import annotations

import jax.numpy as jnp

from fairgrape_jax.masks import Tree
from fairgrape_jax.remedies.base import (
    Batch,
    Ingredient,
    Setting,
    Weights,
    group_means,
    members,
    sample_weights,
)


def start(step_size: float, setting: Setting) -> Tree:
    """Equal weights of the groups, (G,).

    Args:
        step_size: of the ascent.
        setting: for the number of groups.
    """
    return jnp.full(setting.num_groups, 1 / setting.num_groups, jnp.float32)


def weigh(step_size: float, q: Tree, batch: Batch) -> tuple[Tree, Weights]:
    """q_g <- q_g exp(step_size L_g) over its sum; the loss is sum_g q_g L_g.

    A group with no sample in the batch has L_g = 0.

    Args:
        step_size: of the ascent.
        q: (G,) weights of the groups.
        batch: its losses and groups.

    Returns:
        (G,) the new q, and (B,) weights of the samples.
    """
    belongs = members(batch.groups, batch.num_groups)
    means, counts = group_means(batch.losses, belongs)
    raised = q * jnp.exp(step_size * means)
    q = raised / raised.sum()
    return q, sample_weights(q, counts, belongs)


ROW = Ingredient(
    "groups of high loss weigh more, the more often (group DRO)",
    options=lambda remedy: remedy.dro or None,
    start=start,
    weigh=weigh,
)
