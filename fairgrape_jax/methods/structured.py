"""Whole filters of least L1 norm, the same rate in every layer but the head (Li et al., ICLR 2017).

The setting of "Simon Says" (arXiv 2106.07849) with the cubic schedule. A filter is all weights of
one output of a convolution or dense layer; its mask is false as a whole. The head keeps everything:
its outputs are the classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Float64, Shaped

from fairgrape_jax.masks import Array, Tree, kept, layer_names, select_prunable
from fairgrape_jax.methods.base import Problem
from fairgrape_jax.selection import select_top
from fairgrape_jax.selection.counts import as_tree


def norms(kernel: Shaped[Array, "... F"]) -> Float64[np.ndarray, " F"]:
    """The L1 norm of each filter of a kernel (..., outputs).

    Example:
        >>> norms(np.array([[1.0, -2.0], [3.0, 0.5]]))
        array([4. , 2.5])
    """
    return np.abs(np.asarray(kernel, np.float64)).reshape(-1, kernel.shape[-1]).sum(axis=0)


def score(problem: Problem) -> Tree:
    """The norm of each weight's filter."""
    kernels = select_prunable(problem.masks, problem.params)
    return jax.tree.map(lambda w: np.broadcast_to(norms(w), w.shape), kernels)


def filters(
    masks: Tree, density: float, minimum: int = 0, layers: Sequence[str] = ()
) -> dict[str, int]:
    """How many filters each layer keeps: floor(filters * density), all of the head.

    Args:
        masks: bool leaves, None where not prunable; their shapes alone matter.
        density: the part of each layer's filters, 0 to 1.
        minimum: the least number of weights of a layer, in whole filters.
        layers: in the order of the network, the head last; that of the tree if empty.

    Raises:
        ValueError: a density outside 0..1.

    Example:
        >>> kernels = {"a": np.ones((5, 8), bool), "head": np.ones((8, 3), bool)}
        >>> filters(kernels, 0.55), filters(kernels, 0.1, minimum=6)
        ({'a': 4, 'head': 3}, {'a': 2, 'head': 3})
    """
    names = layer_names(masks)
    head = layers[-1] if layers else names[-1]
    numbers = {}
    for name, mask in zip(names, jax.tree.leaves(masks), strict=True):
        outputs = mask.shape[-1]
        least = math.ceil(min(minimum, mask.size) / (mask.size // outputs))
        numbers[name] = outputs if name == head else max(kept(outputs, density), least)
    return numbers


def counts(
    masks: Tree, density: float, minimum: int = 0, layers: Sequence[str] = ()
) -> dict[str, int]:
    """How many weights each layer keeps; arguments as for `filters`."""
    sizes = [mask.size // mask.shape[-1] for mask in jax.tree.leaves(masks)]
    numbers = filters(masks, density, minimum, layers)
    return {name: n * size for (name, n), size in zip(numbers.items(), sizes, strict=True)}


def choose(problem: Problem, density: float) -> Tree:
    """Keep in every layer the filters of largest norm among those that are whole."""
    keep = filters(problem.masks, density, problem.minimum, problem.layers).values()
    kernels = jax.tree.leaves(select_prunable(problem.masks, problem.params))
    chosen = []
    for n, mask, kernel in zip(keep, jax.tree.leaves(problem.masks), kernels, strict=True):
        whole = mask.reshape(-1, mask.shape[-1]).all(axis=0)
        stays = select_top(norms(kernel), whole, n)
        chosen.append(np.broadcast_to(stays, mask.shape).reshape(-1))
    return as_tree(problem.masks, chosen)
