"""AutoBot: a bottleneck for every structure says how much of what it gives goes on.

The weights rest. What a structure gives is multiplied by the sigmoid of its bottleneck, and Adam
moves the bottlenecks alone down CE + beta g + gamma h: g draws the operations to their target, h
the gates to 0 or 1. The structures of largest gates are then kept, as many as the target lets.

Source: Castells and Yeom, "Automatic Neural Network Pruning that Efficiently Preserves the Model
Accuracy" (2021), as the public code of Meyer and Wong, "A Fair Loss Function for Network Pruning"
(2022) has it; its settings for CelebA and ResNet-18 are the defaults. The authors' own code has no
h. There every convolution has bottlenecks; here coupled channels share one, and layers of a
transformer have them too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from fairgrape_jax import parallel
from fairgrape_jax.masks import Tree
from fairgrape_jax.remedies import (
    Batch,
    Ingredient,
    Made,
    Setting,
    group_means,
    members,
    sample_weights,
)
from fairgrape_jax.structures import alive_structures
from fairgrape_jax.structures.gating import Gates, find_readers, gate, soft_cost, sum_read
from fairgrape_jax.systems.options import Approach

FIRST = 2.1972  # every bottleneck before any step: a gate of 0.9
LATE = 0.6  # the part of the steps after which the bottlenecks of the least loss are kept

Carried = dict[str, Any]
# The weights of samples in the loss, and the mean loss of the whole batch by them.
Weigh = Callable[[Batch], tuple[jax.Array, jax.Array]]


def budget_loss(cost: jax.Array, target: float | jax.Array, total: float | jax.Array) -> jax.Array:
    """g: how far a cost is from its target, 1 for the whole network's and for nothing.

    Args:
        cost: of the network with its gates.
        target: what it may cost.
        total: the cost with all gates at 1.

    Example:
        >>> [float(budget_loss(jnp.float32(cost), 2.0, 6.0)) for cost in (6, 4, 2, 1)]
        [1.0, 0.5, 0.0, 0.5]
    """
    above = (cost - target) / jnp.maximum(total - target, 1e-12)
    return jnp.where(cost > target, above, 1 - cost / target)


def binary_loss(gates: Gates, alive: Gates) -> jax.Array:
    """h: the mean distance of gates from 0 or 1, whichever is nearer.

    Args:
        gates: of each structure.
        alive: 1 for those that count, else 0.

    Example:
        >>> round(float(binary_loss(jnp.array([0.9, 0.3, 0.5]), jnp.array([1.0, 1.0, 0.0]))), 6)
        0.2
    """
    return (jnp.abs(gates - jnp.round(gates)) * alive).sum() / jnp.maximum(alive.sum(), 1)


def penalty(options: Approach, carried: Carried, logits: Gates) -> jax.Array:
    """beta g + gamma h.

    Args:
        options: beta and gamma.
        carried: the cost as a function of gates, its target, and the structures alive.
        logits: the bottlenecks.
    """
    gates = jax.nn.sigmoid(logits) * carried["alive"]
    cost = carried["cost"].part(gates)
    g = budget_loss(cost, carried["target"], carried["total"])
    return options.beta * g + options.gamma * binary_loss(gates, carried["alive"])


def start(options: Approach, setting: Setting) -> Carried:
    """Gates of 0.9 for the structures alive, and what a step looks at.

    Args:
        options: the learning rate.
        setting: the network, its structures, and the part of its cost that is to be left.
    """
    structures = setting.structures()
    alive = alive_structures(structures, jax.device_get(setting.masks))
    flat = np.concatenate([alive[group.name] for group in structures.groups]).astype(np.float32)
    sizes = [group.size for group in structures.groups]
    firsts = np.cumsum([0, *sizes[:-1]]).astype(np.int32)
    cost = soft_cost(structures, setting.counted)
    logits = np.full(flat.shape, FIRST, np.float32)
    return {
        "logits": logits,
        "adam": optax.adam(options.gate_rate).init(logits),
        "kept": logits,
        "least": np.finfo(np.float32).max,
        "loss": np.float32(0),
        "steps": np.int32(0),
        # What does not change: the number of each group's first structure among them.
        "firsts": {group.name: n for group, n in zip(structures.groups, firsts, strict=True)},
        "alive": flat,
        "readers": find_readers(structures),
        "cost": cost,
        "target": np.float32(setting.density),
        "total": np.float32(cost.part(flat)),
    }


def forward(options: Approach, carried: Carried, params: Tree) -> Tree:
    """The network in which what each structure gives is multiplied by its gate.

    Args:
        options: not used.
        carried: the bottlenecks.
        params: the weights.
    """
    gates = jax.nn.sigmoid(carried["logits"]) * carried["alive"]
    return gate(carried["readers"], params, gates)


def after_step(options: Approach, carried: Carried, made: Made) -> Carried:
    """A step of Adam, until there were enough of them.

    The loss's part of the gradient is that of the weights which read a structure: with v = z w,
    z the gate, it is (dz/dlogit) sum w dL/dv = (1 - z) sum w dL/dw.

    Args:
        options: how fast, and how many steps.
        carried: the bottlenecks, and the loss that was measured with them.
        made: the gradient in the weights.
    """
    logits, steps = carried["logits"], carried["steps"]
    products = jax.tree.map(jnp.multiply, made.params, made.gradients)
    read = sum_read(carried["readers"], products, logits.size)
    value, push = jax.value_and_grad(lambda x: penalty(options, carried, x))(logits)
    gradient = ((1 - jax.nn.sigmoid(logits)) * read + push) * carried["alive"]
    with jax.numpy_dtype_promotion("standard"):  # optax knows no strict one
        change, adam = optax.adam(options.gate_rate).update(gradient, carried["adam"], logits)
    active, late = steps < options.gate_steps, steps >= LATE * options.gate_steps
    new = jnp.where(active, logits + change, logits)
    loss = carried["loss"] + value
    better = active & late & (loss < carried["least"])
    return carried | {
        "logits": new,
        "adam": adam,
        "kept": jnp.where(better, logits, jnp.where(late, carried["kept"], new)),
        "least": jnp.where(better, loss, carried["least"]),
        "steps": steps + 1,
    }


def all_alike(batch: Batch) -> tuple[jax.Array, jax.Array]:
    """Every sample counts alike.

    Args:
        batch: of this device.
    """
    mean = jax.lax.pmean(batch.losses.mean(), parallel.AXIS)
    return jnp.ones_like(batch.losses), mean


def worst_group(batch: Batch) -> tuple[jax.Array, jax.Array]:
    """The samples of the group that has the highest loss count alone.

    Args:
        batch: of this device.
    """
    belongs = members(batch.groups, batch.num_groups)
    means, counts = group_means(batch.losses, belongs)
    worst = jnp.argmax(jnp.where(counts > 0, means, -jnp.inf))
    alone = (jnp.arange(batch.num_groups) == worst).astype(jnp.float32)
    return sample_weights(alone, counts, belongs), means[worst]


def make_row(weights: Weigh, summary: str) -> Ingredient:
    """The row whose bottlenecks lower a loss of the batch.

    Args:
        weights: which samples count.
        summary: a line for the user.
    """

    def weigh(options: Approach, carried: Carried, batch: Batch) -> tuple[Carried, jax.Array]:
        each, loss = weights(batch)
        return carried | {"loss": loss}, each

    return Ingredient(
        summary,
        start=start,
        forward=forward,
        weigh=weigh,
        after_step=after_step,
        frozen=lambda options, names: names,
    )


ROW = make_row(all_alike, "bottlenecks of structures, trained towards a budget; the weights rest")
FAIR = make_row(worst_group, "bottlenecks, on the loss of the group that has the highest")
