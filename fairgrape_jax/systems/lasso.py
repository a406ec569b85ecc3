"""ClickTrain's group lasso as training between a choice and its cut."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fairgrape_jax.masks import Tree, select_prunable
from fairgrape_jax.remedies import Batch, Ingredient, Setting
from fairgrape_jax.systems.options import Approach
from fairgrape_jax.systems.patterns import group_lasso


def as_slices(kernel: Any) -> Any:
    """A kernel as (H, W, inputs, outputs); that of a dense layer as of a 1x1 convolution.

    Args:
        kernel: (..., inputs, outputs).

    Example:
        >>> as_slices(np.ones((5, 2))).shape
        (1, 1, 5, 2)
    """
    *places, inputs, outputs = kernel.shape
    height = places[0] if len(places) == 2 else 1
    return kernel.reshape(height, -1, inputs, outputs)


def start(options: Approach, setting: Setting) -> Tree:
    """The masks that were chosen.

    Args:
        options: not used.
        setting: the choice.
    """
    return [np.asarray(mask) for mask in jax.tree.leaves(jax.device_get(setting.chosen))]


def term(options: Approach, chosen: Tree, batch: Batch) -> jax.Array:
    """The weight times the norms of what will be cut, of all prunable layers.

    In the public code a marked kernel has a pattern too, and what lies outside it counts twice;
    here a marked kernel counts as a whole.

    Args:
        options: the weight.
        chosen: the masks of the layers.
        batch: the weights.
    """
    total = jnp.zeros(())
    weights = jax.tree.leaves(select_prunable(batch.masks, batch.params))
    for w, mask in zip(map(as_slices, weights), map(as_slices, chosen), strict=True):
        stays = mask.any(axis=(0, 1))
        total += group_lasso(w, mask | ~stays, stays)
    return options.lasso * total


ROW = Ingredient(
    "a group lasso on what was chosen to be cut (ClickTrain)",
    start=start,
    term=term,
)
