"""Whole filters of least L1 norm go, in every layer but the head (Li et al., ICLR 2017).

The setting of "Simon Says" (arXiv 2106.07849) with the cubic schedule. A filter is all weights of
one output of a convolution or dense layer; its mask is false as a whole. The head keeps everything:
its outputs are the classes.
"""

from __future__ import annotations

import jax
import numpy as np
from jaxtyping import Float64, Shaped

from fairgrape_jax.masks import Array, Tree, layer_names, select_prunable
from fairgrape_jax.methods import units
from fairgrape_jax.methods.base import Problem
from fairgrape_jax.selection import select_top
from fairgrape_jax.selection.counts import as_tree


def norms(kernel: Shaped[Array, "... F"]) -> Float64[np.ndarray, " F"]:
    """The L1 norm of each filter of a kernel (..., outputs).

    Args:
        kernel: its last axis that of the outputs.

    Example:
        >>> norms(np.array([[1.0, -2.0], [3.0, 0.5]]))
        array([4. , 2.5])
    """
    return np.abs(np.asarray(kernel, np.float64)).reshape(-1, kernel.shape[-1]).sum(axis=0)


def score(problem: Problem) -> Tree:
    """The norm of each weight's filter.

    Args:
        problem: the network at the start of the round.
    """
    kernels = select_prunable(problem.masks, problem.params)
    return jax.tree.map(lambda w: np.broadcast_to(norms(w), w.shape), kernels)


def filters(problem: Problem, density: float) -> dict[str, int]:
    """How many filters each layer keeps: what fits into its allocation, all of the head.

    The head is the last of `problem.layers`, or of the tree if these are empty. A layer keeps the
    least number of weights in whole filters.

    Args:
        problem: the network at the start of the round.
        density: the part of ALL weights to keep, 0 to 1.

    Raises:
        ValueError: allocation "global", which gives no layer a number.

    Example:
        >>> masks = {"a": {"kernel": np.ones((5, 8), bool)}, "z": {"kernel": np.ones((8, 3), bool)}}
        >>> filters(Problem(None, masks, None), 0.55)
        {'a': 4, 'z': 3}
        >>> filters(Problem(None, masks, None, minimum=6), 0.1)
        {'a': 2, 'z': 3}
    """
    shares = units.layer_counts(problem, density, "filters")
    head = problem.layers[-1] if problem.layers else layer_names(problem.masks)[-1]
    result = {}
    masks = jax.tree.leaves(problem.masks)
    for (name, count), mask in zip(shares.items(), masks, strict=True):
        outputs = mask.shape[-1]
        size = mask.size // outputs
        whole = int(np.asarray(mask).reshape(-1, outputs).all(axis=0).sum())
        least = min(problem.minimum, mask.size)
        result[name] = outputs if name == head else units.fitting(count, size, whole, least)
    return result


def counts(problem: Problem, density: float) -> dict[str, int]:
    """How many weights each layer keeps, of whole filters.

    Args:
        problem: the network at the start of the round.
        density: the part of ALL weights to keep, 0 to 1.
    """
    sizes = [mask.size // mask.shape[-1] for mask in jax.tree.leaves(problem.masks)]
    return units.in_weights(filters(problem, density), sizes)


def choose(problem: Problem, density: float) -> Tree:
    """Keep in every layer the filters of largest norm among those that are whole.

    Args:
        problem: the network at the start of the round.
        density: the part of ALL weights to keep, 0 to 1.
    """
    keep = filters(problem, density).values()
    kernels = jax.tree.leaves(select_prunable(problem.masks, problem.params))
    chosen = []
    for n, mask, kernel in zip(keep, jax.tree.leaves(problem.masks), kernels, strict=True):
        whole = mask.reshape(-1, mask.shape[-1]).all(axis=0)
        stays = select_top(norms(kernel), whole, n)
        chosen.append(np.broadcast_to(stays, mask.shape).reshape(-1))
    return as_tree(problem.masks, chosen)
