"""Choosing layer by layer at one rate, or over the whole network at once."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import jax
import numpy as np

from fairgrape_jax.masks import Tree, kept, layer_names
from fairgrape_jax.selection import Scope

T = TypeVar("T")
NETWORK = "network"  # the name of what is chosen from for scope "global"


def prune_layers(
    masks: Tree,
    scores: Tree,
    density: float,
    select: Callable[[np.ndarray, np.ndarray, int], np.ndarray],
    scope: Scope = "layer",
) -> Tree:
    """The masks that `select(scores (n, K), previous (n,), keep)` gives for every layer.

    scores: a tree of (K, *w.shape), K rows per weight. For scope "global" the network is one layer.
    """
    return assemble(masks, over_layers(masks, scores, density, select, scope))


def over_layers(
    masks: Tree,
    scores: Tree,
    density: float,
    choose: Callable[[np.ndarray, np.ndarray, int], T],
    scope: Scope = "layer",
) -> dict[str, T]:
    """What `choose` returns for each layer, by name; arguments as for `prune_layers`.

    Layers are independent: they are chosen in threads, the largest first.
    """
    previous = [np.asarray(leaf).reshape(-1) for leaf in jax.tree.leaves(masks)]
    rows = [np.asarray(leaf).reshape(len(leaf), -1) for leaf in jax.tree.leaves(scores)]
    names = layer_names(masks)
    if scope == "global":
        previous, rows, names = (
            [np.concatenate(previous)],
            [np.concatenate(rows, axis=1)],
            [NETWORK],
        )

    def one(layer: int) -> T:
        mask = previous[layer]
        return choose(np.ascontiguousarray(rows[layer].T), mask, kept(mask.size, density))

    largest_first = sorted(range(len(names)), key=lambda layer: -previous[layer].size)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = dict(zip(largest_first, pool.map(one, largest_first), strict=True))
    return {name: found[layer] for layer, name in enumerate(names)}


def assemble(masks: Tree, chosen: dict[str, np.ndarray]) -> Tree:
    """The tree of masks from flat ones by layer, or from one of the whole network."""
    leaves, structure = jax.tree.flatten(masks)
    flat = np.concatenate(list(chosen.values()))
    parts = np.split(flat, np.cumsum([leaf.size for leaf in leaves])[:-1])
    shaped = [part.reshape(leaf.shape) for part, leaf in zip(parts, leaves, strict=True)]
    return jax.tree.unflatten(structure, shaped)
