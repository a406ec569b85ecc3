"""Undecayed pruning: sensitivity of the loss without weight decay, which magnitude completes."""

from __future__ import annotations

import jax

from fairgrape_jax.masks import Tree, map_masked
from fairgrape_jax.methods.base import Problem
from fairgrape_jax.scoring.importance import at_least_float32
from fairgrape_jax.scoring.statistics import GRADIENT

DECAY = 5e-4  # lambda of the released code; where training ends, g = -lambda w


def score(problem: Problem) -> Tree:
    """|-w * g + DECAY * w^2|, g the gradient of the mean loss without decay.

    Where a network trained with decay has come to rest, w * g of the decayed loss is zero
    everywhere, and this is 2 DECAY w^2: between gradient and magnitude pruning. The released code
    takes g of one batch of training, this of the round's scoring sample.

    Args:
        problem: the network at the start of the round.

    Source:
        Good et al., "Recall Distortion in Neural Network Pruning and the Undecayed Pruning
        Algorithm" (NeurIPS 2022, arXiv 2206.02976), and its score in a fork of open_lth.

    Example:
        >>> import numpy as np
        >>> kernel = {"kernel": np.array([[-2.0, 1.0]])}
        >>> mask = {"kernel": np.ones((1, 2), bool)}
        >>> gradient = {"kernel": np.array([[[0.5, 3.0]]])}
        >>> score(Problem(kernel, mask, average=lambda statistic: gradient))
        {'kernel': array([[1.002 , 2.9995]])}
    """

    def sensitivity(mask: jax.Array | None, w: jax.Array, g: jax.Array) -> jax.Array | None:
        if mask is None:
            return None
        wide = at_least_float32(w)
        return abs(DECAY * wide**2 - wide * g[0])

    return map_masked(sensitivity, problem.masks, problem.params, problem.average(GRADIENT))
