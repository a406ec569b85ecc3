"""Masks as pytrees: which weights are alive.

A mask tree has the structure of the parameters, a bool array where a leaf can be pruned (the
kernels of convolutions and dense layers) and None elsewhere. It is data, not structure: changing
it never recompiles anything. A pruned weight is held at zero twice, in the forward pass and after
the optimizer's update; masking gradients alone would let momentum and weight decay move it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Tree = Any  # a pytree of arrays


def prunable(path: tuple[Any, ...], leaf: Any) -> bool:
    """Whether a parameter takes part in pruning: a kernel of two or more dimensions."""
    return getattr(path[-1], "key", None) == "kernel" and len(leaf.shape) >= 2


def full_masks(params: Tree) -> Tree:
    """Masks that keep everything: True for each prunable weight, None for the other leaves.

    >>> full_masks({"kernel": jnp.ones((1, 2)), "bias": jnp.ones(2)})
    {'bias': None, 'kernel': array([[ True,  True]])}
    """
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: np.ones(leaf.shape, bool) if prunable(path, leaf) else None, params
    )


def map_masked(fn: Callable[..., Any], masks: Tree, *trees: Tree) -> Tree:
    """`fn(mask, *leaves)` at every leaf; `mask` is None where the leaf is not prunable."""
    return jax.tree.map(fn, masks, *trees, is_leaf=lambda leaf: leaf is None)


def apply_masks(masks: Tree, params: Tree) -> Tree:
    """Parameters times mask.

    >>> apply_masks({"kernel": jnp.array([True, False])}, {"kernel": jnp.array([2.0, 3.0])})
    {'kernel': Array([2., 0.], dtype=float32)}
    """
    return map_masked(
        lambda m, p: p if m is None else jnp.where(m, p, jnp.zeros_like(p)), masks, params
    )


def select_prunable(masks: Tree, tree: Tree) -> Tree:
    """`tree` with None wherever `masks` has None: what importance is computed for."""
    return map_masked(lambda m, leaf: None if m is None else leaf, masks, tree)


def layer_names(masks: Tree) -> list[str]:
    """The names of the prunable layers, in the order of `jax.tree.leaves(masks)`.

    >>> layer_names({"conv": {"kernel": np.ones((1, 2), bool), "bias": None}})
    ['conv']
    """
    paths = jax.tree_util.tree_flatten_with_path(masks)[0]
    return ["/".join(str(key.key) for key in path[:-1]) for path, _ in paths]


def kept(n: int, density: float) -> int:
    """How many of a layer's n weights are kept: floor(n * density), as the official code does.

    Densities are decimals that binary floats miss by a little (1 - 0.9 < 0.1); a millionth of a
    weight is added before rounding down so that such a miss costs no weight.

    >>> kept(100, 1 - 0.9), kept(25, 0.5)
    (10, 12)
    """
    return min(n, math.floor(n * density + 1e-6))


def density(masks: Tree) -> float:
    """Weights alive over all prunable weights."""
    alive = sum(int(np.sum(leaf)) for leaf in jax.tree.leaves(masks))
    return alive / sum(leaf.size for leaf in jax.tree.leaves(masks))


def sparsity_table(masks: Tree) -> list[dict[str, Any]]:
    """One row per prunable layer: its name, its weights, how many are alive."""
    return [
        {"layer": name, "weights": int(leaf.size), "alive": int(np.sum(leaf))}
        for name, leaf in zip(layer_names(masks), jax.tree.leaves(masks), strict=True)
    ]


def check_nested(new: Tree, previous: Tree) -> None:
    """Raise ValueError unless every weight alive in `new` is alive in `previous`."""
    pairs = zip(jax.tree.leaves(new), jax.tree.leaves(previous), strict=True)
    for name, (after, before) in zip(layer_names(previous), pairs, strict=True):
        if np.any(np.asarray(after) & ~np.asarray(before)):
            raise ValueError(f"masks: layer {name} revives weights that were pruned before")
