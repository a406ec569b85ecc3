"""SNIP: keep the weights to whose removal the loss is most sensitive."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from fairgrape_jax.masks import Array, Tree, map_masked
from fairgrape_jax.methods.base import Problem
from fairgrape_jax.scoring.importance import at_least_float32
from fairgrape_jax.scoring.statistics import GRADIENT


def score(problem: Problem) -> Tree:
    """|w * g|, g the gradient of the mean loss.

    With `official`, of a copy with Xavier-initialised weights, whose masks then serve the real
    weights, as in the code of FairGRAPE.

    Args:
        problem: the network at the start of the round.

    Source:
        Lee et al., "SNIP: Single-shot Network Pruning Based on Connection Sensitivity" (ICLR 2019),
        Eq. 5; their scale, one for all weights, changes no order.

    Example:
        >>> import numpy as np
        >>> kernel = {"kernel": np.array([[-2.0, 1.0]])}
        >>> mask = {"kernel": np.ones((1, 2), bool)}
        >>> gradient = {"kernel": np.array([[[0.5, 3.0]]])}
        >>> score(Problem(kernel, mask, None, average=lambda statistic, params: gradient))
        {'kernel': array([[1., 3.]])}
    """
    params = xavier_copy(problem) if problem.official else problem.params
    gradient = problem.average(GRADIENT, params=params)
    return map_masked(
        lambda m, w, g: None if m is None else abs(at_least_float32(w) * g[0]),
        problem.masks,
        params,
        gradient,
    )


def xavier_copy(problem: Problem, dimensions: int = 4) -> Tree:
    """The parameters, kernels of at most so many dimensions drawn anew, Xavier-normal where alive.

    Args:
        problem: the network at the start of the round.
        dimensions: of the kernels that are drawn.

    Returns:
        A tree of NumPy arrays.
    """
    leaves, structure = jax.tree.flatten(problem.params)
    keys = jax.tree.unflatten(structure, list(jax.random.split(problem.key, len(leaves))))

    def draw(mask: Array | None, weights: Array, key: jax.Array) -> Array:
        if mask is None or weights.ndim > dimensions:
            return weights
        return jax.device_get(_xavier(key, jax.device_put(mask)))

    return map_masked(draw, problem.masks, problem.params, keys)


@jax.jit
def _xavier(key: jax.Array, mask: jax.Array) -> jax.Array:
    draw = jax.nn.initializers.xavier_normal()
    return draw(key, mask.shape, jnp.float32) * mask.astype(jnp.float32)
