"""Transplanting the last layer: the head stays as it was in the dense network, and the rest learns
to give it the dense network's features.

Source: Lee and Lee, "Debiased Distillation by Transplanting the Last Layer" (arXiv 2302.11187).
There samples that a biased network gets wrong weigh more, for there are no labels of groups; here
every group weighs alike. That the head is whole is a matter of the allocation: what its mask
prunes is pruned, what it keeps stays as it was.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fairgrape_jax.masks import Tree
from fairgrape_jax.remedies.base import Batch, Ingredient, group_means, members, sample_weights


def term(weight: float, carried: Tree, batch: Batch) -> jax.Array:
    """The mean over groups of the mean squared difference of the last features.

    Args:
        weight: of the term.
        carried: nothing.
        batch: the features of both networks, and the groups.
    """
    if batch.teacher is None:
        raise ValueError("transplant: the dense network does not run in the step")
    name = list(batch.outputs.features)[-1]
    apart = jnp.square(batch.outputs.features[name] - batch.teacher.features[name])
    each = apart.reshape(len(apart), -1).mean(axis=1)
    belongs = members(batch.groups, batch.num_groups)
    _, counts = group_means(jnp.zeros(len(each)), belongs)
    present = counts > 0
    alike = jnp.where(present, 1 / jnp.maximum(present.sum(), 1), 0).astype(jnp.float32)
    return weight * (jax.lax.stop_gradient(sample_weights(alike, counts, belongs)) * each).mean()


def frozen(weight: float, names: tuple[str, ...]) -> tuple[str, ...]:
    """The parameters of the last layer.

    Args:
        weight: of the term.
        names: of all parameters, in the order of the network.

    Example:
        >>> frozen(1.0, ("fc1/bias", "fc1/kernel", "fc2/bias", "fc2/kernel"))
        ('fc2/bias', 'fc2/kernel')
    """
    head = names[-1].rpartition("/")[0]
    return tuple(name for name in names if name.rpartition("/")[0] == head)


ROW = Ingredient(
    "the last layer frozen, the features before it matched alike for every group (DeTT)",
    options=lambda remedy: remedy.transplant or None,
    term=term,
    frozen=frozen,
    teaches=lambda options: True,
)
