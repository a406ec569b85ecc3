"""The filter skeleton of SWP as training before a choice: factors of stripes, with an L1 norm.

The skeleton is carried beside the weights, with a learning rate and momentum of its own; its
gradient follows from that of the weights: dL/dFS = sum over inputs of dL/dW W / FS. In the public
code momentum brings a stripe back for a moment after it was cut; here what is cut stays cut.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fairgrape_jax.masks import Tree, map_masked
from fairgrape_jax.remedies import Batch, Ingredient, Made, Setting
from fairgrape_jax.systems.options import Approach
from fairgrape_jax.systems.stripes import Skeleton, penalise

MOMENTUM = 0.9  # of the skeleton, as in the public code
Carried = dict[str, Any]


def start(options: Approach, setting: Setting) -> Carried:
    """A skeleton of ones for every prunable layer, and the number 1 for every other parameter.

    Args:
        options: not used.
        setting: the network.
    """
    params = jax.device_get(setting.params)

    def ones(mask: Any, leaf: np.ndarray) -> np.ndarray:
        shape = () if mask is None else (*leaf.shape[:-2], 1, leaf.shape[-1])
        return np.ones(shape, np.float32)

    skeleton = map_masked(ones, setting.masks, params)
    zeros = jax.tree.map(np.zeros_like, skeleton)
    return {"skeleton": skeleton, "momentum": zeros, "shown": jax.tree.map(np.zeros_like, params)}


def forward(options: Approach, carried: Carried, params: Tree) -> Tree:
    """The weights times their skeleton.

    Args:
        options: not used.
        carried: the skeleton.
        params: of the network.
    """
    return jax.tree.map(jnp.multiply, params, carried["skeleton"])


def weigh(options: Approach, carried: Carried, batch: Batch) -> tuple[Carried, jax.Array]:
    """Note the weights that the network runs with; every sample weighs alike.

    Args:
        options: not used.
        carried: where they are noted.
        batch: the weights.
    """
    return carried | {"shown": batch.params}, jnp.ones_like(batch.losses)


def after_step(options: Approach, carried: Carried, made: Made) -> Carried:
    """A step of the skeleton.

    Args:
        options: the weight of the L1 norm, the threshold and the rate.
        carried: the skeleton, and the weights that the step was made with.
        made: the gradients.
    """

    def of_layer(values: jax.Array, past: jax.Array, shown: jax.Array, gradient: jax.Array) -> Any:
        if values.ndim == 0:
            return values, past
        squares = jnp.where(values == 0, 1, jnp.square(values))
        of_stripes = (gradient * shown).sum(axis=-2, keepdims=True) / squares
        part = Skeleton(values, of_stripes)
        kept, of_norm = penalise(part, options.skeleton, options.threshold)
        momentum = jnp.where(kept == 0, 0, MOMENTUM * past + of_norm)
        return kept - options.skeleton_rate * momentum, momentum

    trees = carried["skeleton"], carried["momentum"], carried["shown"], made.gradients
    leaves = [jax.tree.leaves(tree) for tree in trees]
    pairs = [of_layer(*each) for each in zip(*leaves, strict=True)]
    structure = jax.tree.structure(carried["skeleton"])
    skeleton, momentum = (jax.tree.unflatten(structure, part) for part in zip(*pairs, strict=True))
    return carried | {"skeleton": skeleton, "momentum": momentum}


def finish(options: Approach, carried: Carried, params: Tree) -> Tree:
    """The skeleton folded into the weights.

    Args:
        options: not used.
        carried: the skeleton.
        params: of the network.
    """
    return forward(options, carried, params)


ROW = Ingredient(
    "a factor for each stripe of a filter, with an L1 norm (SWP)",
    start=start,
    forward=forward,
    weigh=weigh,
    after_step=after_step,
    finish=finish,
)
