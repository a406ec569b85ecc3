"""What a count is kept in: every layer by itself, or the network as one long layer."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import jax
import numpy as np
from jaxtyping import Bool, Shaped

from fairgrape_jax.masks import Array, Masks, Tree, layer_names
from fairgrape_jax.selection.allocation import Allocation, is_global
from fairgrape_jax.selection.inputs import on_host


def members(masks: Tree, allocation: Allocation) -> dict[str, list[int]]:
    """The numbers of the leaves over which each count is kept, by name, in their order.

    Args:
        masks: bool leaves, None where not prunable.
        allocation: "global", one count for all of them, "network"; any other, one for every leaf.

    Raises:
        ValueError: an unknown allocation, or masks without a prunable layer.

    Example:
        >>> masks = {"a": {"kernel": np.ones((1, 2), bool)}, "b": {"kernel": np.ones(2, bool)}}
        >>> members(masks, "uniform"), members(masks, "global")
        ({'a': [0], 'b': [1]}, {'network': [0, 1]})
    """
    one = is_global(allocation)
    names = layer_names(masks)
    if not names:
        raise ValueError("masks: no layer is prunable; every leaf is None")
    if one:
        return {"network": list(range(len(names)))}
    return {name: [number] for number, name in enumerate(names)}


def joined(
    leaves: Sequence[Shaped[Array, " ..."]], numbers: Sequence[int], lead: int = 0
) -> Shaped[np.ndarray, " ..."]:
    """Some leaves as one array on the host, flat but for the first `lead` axes; one is not copied.

    Args:
        leaves: arrays, on a device or not.
        numbers: which of them.
        lead: axes that stay.

    Example:
        >>> joined([np.ones((2, 1, 3)), np.zeros((2, 4))], [0, 1], lead=1).shape
        (2, 7)
    """
    flat = [on_host(leaves[i]) for i in numbers]
    flat = [
        leaf.reshape(*leaf.shape[:lead], math.prod(leaf.shape[lead:])) for leaf in flat
    ]  # -1 would be ambiguous where there are no groups
    return flat[0] if len(flat) == 1 else np.concatenate(flat, axis=-1)


def as_tree(masks: Masks, flat: Iterable[Bool[np.ndarray, " _n"]]) -> Masks:
    """Flat masks, one after the other, in the form of `masks`.

    Args:
        masks: whose structure and shapes they get.
        flat: masks of some leaves each, in the order of the leaves.
    """
    leaves, structure = jax.tree.flatten(masks)
    parts = np.split(np.concatenate(list(flat)), np.cumsum([leaf.size for leaf in leaves])[:-1])
    shaped = [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(structure, shaped)


def check_trees(scores: Tree, masks: Tree) -> None:
    """ValueError, with the layer's name, unless `scores` is a tree of (G, *w.shape) for `masks`.

    Every leaf of `masks` must be bool, and every layer have the same number of groups.

    Args:
        scores: what is checked.
        masks: what it has to fit.
    """
    rows, leaves, names = jax.tree.leaves(scores), jax.tree.leaves(masks), layer_names(masks)
    if len(rows) != len(leaves):
        raise ValueError(
            f"importance has {len(rows)} arrays, masks {len(leaves)}: one of (G, *w.shape) is "
            "expected for every prunable weight, and None where masks have None"
        )
    for name, row, mask in zip(names, rows, leaves, strict=True):
        if mask.dtype != bool:
            raise ValueError(f"masks of layer {name}: dtype bool is expected, not {mask.dtype}")
        if np.shape(row)[1:] != np.shape(mask):
            raise ValueError(
                f"importance of layer {name}: {np.shape(row)} is not (G, *{np.shape(mask)}), "
                "groups first"
            )
        if len(row) != len(rows[0]):
            raise ValueError(
                f"importance of layer {name}: {len(row)} groups, of {names[0]} {len(rows[0])}"
            )
