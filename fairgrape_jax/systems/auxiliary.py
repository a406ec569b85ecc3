"""AutoPrune: an auxiliary parameter for every weight says whether it is there.

The network runs with w h(m), h(m) = 1 for m >= 0 and else 0. Weights learn from training batches,
auxiliary parameters in turn from batches of the validation split, through h by a slope that stands
for its derivative. A weight that is cut does not move, and comes back with its m (recoverability).

Source: Xiao, Wang, Rajasekaran, "AutoPrune: Automatic Network Pruning by Regularizing Auxiliary
Parameters" (NeurIPS 2019). There is no public code, and learning rates, start and schedule could
not be found. Ours are: m starts at a tenth of |w| over the layer's largest, a step is divided by
the layer's mean |dL/dm|, and the price mu of a weight that is there rises while the network is
denser than it is to become, and falls while it is sparser. The count is exact in the end, by the
largest m.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from fairgrape_jax import parallel
from fairgrape_jax.masks import Tree, map_masked, select_prunable
from fairgrape_jax.remedies import HeldOut, Ingredient, Made, Setting, group_means, members
from fairgrape_jax.systems.options import Approach

LEAK = 0.1  # the slope of "leaky" below zero
FIRST = 0.1  # the largest m of a layer before any step
Values = Float[jax.Array, "..."]
Carried = dict[str, Any]

# What stands for dh/dm.
SLOPES: dict[str, Callable[[Values], Values]] = {
    "linear": jnp.ones_like,
    "leaky": lambda m: jnp.where(m >= 0, 1.0, LEAK).astype(m.dtype),
    "softplus": jax.nn.sigmoid,
}


def auxiliary_step(
    m: Values, weights: Values, gradient: Values, *, slope: str, rate: float, mu: float | jax.Array
) -> Values:
    """m - rate (dL/dt sgn(w) + mu) dh/dm, with the sign of w alone, so that large ones move alike.

    Args:
        m: auxiliary parameters.
        weights: w.
        gradient: dL/dt, t = w h(m).
        slope: a key of `SLOPES`.
        rate: the size of a step.
        mu: the price of a weight that is there.

    Example:
        >>> m, w, g = jnp.array([0.5, -0.5]), jnp.array([2.0, -2.0]), jnp.array([0.1, 0.3])
        >>> auxiliary_step(m, w, g, slope="linear", rate=1.0, mu=0.0).tolist()
        [0.4000000059604645, -0.19999998807907104]
    """
    return m - rate * (gradient * jnp.sign(weights) + mu) * SLOPES[slope](m)


def first_auxiliary(weights: np.ndarray) -> np.ndarray:
    """The auxiliary parameters of a layer before any step.

    Args:
        weights: of the layer.

    Example:
        >>> first_auxiliary(np.array([2.0, -1.0])).tolist()
        [0.10000000149011612, 0.05000000074505806]
    """
    size = np.abs(np.asarray(weights, np.float32))
    largest = size.max(initial=0)
    return FIRST * size / largest if largest else np.full_like(size, FIRST)


def start(options: Approach, setting: Setting) -> Carried:
    """The auxiliary parameters, 1 for a parameter that is not pruned, and no price yet.

    Args:
        options: not used.
        setting: the network, and the density that it is to get.
    """
    auxiliary = map_masked(
        lambda mask, leaf: np.float32(1) if mask is None else first_auxiliary(leaf),
        setting.masks,
        jax.device_get(setting.params),
    )
    return {"auxiliary": auxiliary, "mu": np.float32(0), "density": np.float32(setting.density)}


def forward(options: Approach, carried: Carried, params: Tree) -> Tree:
    """w h(m).

    Args:
        options: not used.
        carried: m.
        params: w.
    """
    return jax.tree.map(lambda w, m: jnp.where(m >= 0, w, 0), params, carried["auxiliary"])


def mean_loss(held: HeldOut, num_groups: int) -> jax.Array:
    """The mean loss of this device's samples; the mean over devices counts.

    Args:
        held: the batch.
        num_groups: not used.
    """
    return held.losses.mean()


def worst_loss(held: HeldOut, num_groups: int) -> jax.Array:
    """The mean loss of the group that has the highest, likewise.

    Args:
        held: the batch.
        num_groups: how many groups there are.
    """
    belongs = members(held.groups, num_groups)
    means, counts = group_means(jax.lax.stop_gradient(held.losses), belongs)
    worst = jnp.argmax(jnp.where(counts > 0, means, -jnp.inf))
    devices = jax.lax.psum(1.0, parallel.AXIS)
    return devices * (held.losses * belongs[:, worst]).sum() / jnp.maximum(counts[worst], 1)


def make_row(loss: Callable[[HeldOut, int], jax.Array], summary: str) -> Ingredient:
    """The row whose auxiliary steps lower a loss of the validation split.

    Args:
        loss: (batch, number of groups) to the loss on this device.
        summary: a line for the user.
    """

    def after_step(options: Approach, carried: Carried, made: Made) -> Carried:
        if made.held_out is None:
            raise ValueError("autoprune: the step has no batch of the validation split")
        shown = forward(options, carried, made.params)
        held_out, count = made.held_out, made.num_groups
        gradients = jax.grad(lambda params: loss(held_out(params), count))(shown)
        gradients = jax.lax.pmean(gradients, parallel.AXIS)
        mu = carried["mu"]

        def of_layer(mask: Any, m: jax.Array, w: jax.Array, g: jax.Array) -> jax.Array:
            if mask is None:
                return m
            size = jnp.abs(g).sum() / jnp.maximum(mask.sum().astype(jnp.float32), 1)
            scaled = jnp.where(mask, g / jnp.maximum(size, 1e-20), 0)
            rate = options.auxiliary_rate
            return auxiliary_step(m, w, scaled, slope=options.slope, rate=rate, mu=mu)

        auxiliary = map_masked(of_layer, made.masks, carried["auxiliary"], made.params, gradients)
        there = jax.tree.leaves(select_prunable(made.masks, auxiliary))
        masks = jax.tree.leaves(made.masks)
        alive = sum(((m >= 0) & k).sum() for m, k in zip(there, masks, strict=True))
        dense = jnp.float32(alive) / sum(mask.size for mask in masks)
        price = jnp.maximum(mu + options.price_rate * (dense - carried["density"]), 0)
        return carried | {"auxiliary": auxiliary, "mu": price}

    return Ingredient(
        summary,
        start=start,
        forward=forward,
        after_step=after_step,
        held_out=lambda options: True,
    )


ROW = make_row(mean_loss, "auxiliary parameters of weights, trained on the validation split")
FAIR = make_row(worst_loss, "the same, on the loss of the group that has the highest")
