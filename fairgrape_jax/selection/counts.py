"""What a count is kept in: every layer by itself, or the network as one long layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import jax
import numpy as np

from fairgrape_jax.masks import Tree, kept, layer_names

Scope = Literal["layer", "global"]


def members(masks: Tree, scope: Scope) -> dict[str, list[int]]:
    """The numbers of the leaves over which each count is kept, by name, in their order.

    >>> masks = {"a": {"kernel": np.ones((1, 2), bool)}, "b": {"kernel": np.ones((2, 1), bool)}}
    >>> members(masks, "layer"), members(masks, "global")
    ({'a': [0], 'b': [1]}, {'network': [0, 1]})
    """
    if scope not in ("layer", "global"):
        raise ValueError(f"scope: {scope!r} is neither 'layer' nor 'global'")
    names = layer_names(masks)
    if scope == "global":
        return {"network": list(range(len(names)))}
    return {name: [number] for number, name in enumerate(names)}


def counts(masks: Tree, density: float, scope: Scope, minimum: int = 0) -> dict[str, int]:
    """How many weights are kept, by name: floor(n * density), and `minimum` of a layer at least.

    A layer of fewer weights keeps them all; a network at least the least of all its layers.

    >>> counts({"a": {"kernel": np.ones((5, 2), bool)}}, 0.25, "layer", minimum=3)
    {'a': 3}
    """
    sizes = [int(np.size(leaf)) for leaf in jax.tree.leaves(masks)]
    return {
        name: max(
            kept(sum(sizes[i] for i in own), density), sum(min(minimum, sizes[i]) for i in own)
        )
        for name, own in members(masks, scope).items()
    }


def joined(leaves: Sequence[Any], numbers: Sequence[int], lead: int = 0) -> np.ndarray:
    """Some leaves as one array on the host, flat but for the first `lead` axes; one is not copied.

    >>> joined([np.ones((2, 1, 3)), np.zeros((2, 4))], [0, 1], lead=1).shape
    (2, 7)
    """
    flat = [np.asarray(leaves[i]) for i in numbers]
    flat = [leaf.reshape(*leaf.shape[:lead], -1) for leaf in flat]
    return flat[0] if len(flat) == 1 else np.concatenate(flat, axis=-1)


def as_tree(masks: Tree, flat: Iterable[np.ndarray]) -> Tree:
    """Flat masks, one after the other, in the form of `masks`."""
    leaves, structure = jax.tree.flatten(masks)
    parts = np.split(np.concatenate(list(flat)), np.cumsum([leaf.size for leaf in leaves])[:-1])
    shaped = [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(structure, shaped)
