"""Choosing layer by layer at one rate: what methods with per-layer scores share."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np

from fairgrape_jax.masks import Tree, kept

# (scores (n, K), previous (n,), keep) -> mask (n,)
Select = Callable[[np.ndarray, np.ndarray, int], np.ndarray]


def prune_layers(masks: Tree, scores: Tree, density: float, select: Select) -> Tree:
    """Apply `select` to every layer; scores is a tree of (K, *w.shape), K rows per weight.

    Layers are independent: they are chosen in threads, the largest first.
    """
    previous, structure = jax.tree.flatten(masks)
    rows = [np.asarray(leaf) for leaf in jax.tree.leaves(scores)]

    def choose(layer: int) -> np.ndarray:
        mask = np.asarray(previous[layer])
        columns = np.ascontiguousarray(rows[layer].reshape(len(rows[layer]), -1).T)
        keep = kept(mask.size, density)
        return select(columns, mask.reshape(-1), keep).reshape(mask.shape)

    largest_first = sorted(range(len(previous)), key=lambda layer: -previous[layer].size)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        chosen = dict(zip(largest_first, pool.map(choose, largest_first), strict=True))
    return jax.tree.unflatten(structure, [chosen[layer] for layer in range(len(previous))])
