"""Random pruning: what any method must beat."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp

from fairgrape_jax.masks import Tree
from fairgrape_jax.methods.base import Problem


def score(problem: Problem) -> Tree:
    """Uniform numbers from the round's key; each layer has a stream of its own.

    Args:
        problem: the network at the start of the round.

    Source:
        Gale et al., "The State of Sparsity in Deep Neural Networks" (2019).

    Example:
        >>> import numpy as np
        >>> weights, mask = {"kernel": np.ones((1, 2))}, {"kernel": np.ones((1, 2), bool)}
        >>> problem = Problem(weights, mask, importance=None, key=jax.random.key(0))
        >>> bool((score(problem)["kernel"] < 1).all())
        True
    """
    leaves, structure = jax.tree.flatten(problem.masks)
    keys = jax.random.split(problem.key, len(leaves))
    scores = [_uniform(key, leaf.shape) for key, leaf in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, scores)


@functools.partial(jax.jit, static_argnames="shape")
def _uniform(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.uniform(key, shape, jnp.float32)
