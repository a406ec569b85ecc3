"""Magnitude pruning: keep the largest |w|."""

from __future__ import annotations

import jax
import numpy as np

from fairgrape_jax.masks import Tree, select_prunable
from fairgrape_jax.methods.base import Problem


def score(problem: Problem) -> Tree:
    """|w|: per layer the "WS" of the FairGRAPE paper; one threshold for all where it is global.

    Args:
        problem: the network at the start of the round.

    Source:
        Han et al., "Learning both Weights and Connections for Efficient Neural Networks"
        (NeurIPS 2015).

    Example:
        >>> kernel = {"kernel": np.array([[-2.0, 1.0]])}
        >>> mask = {"kernel": np.ones((1, 2), bool)}
        >>> score(Problem(kernel, mask, importance=None))
        {'kernel': array([[2., 1.]])}
    """
    return jax.tree.map(np.abs, select_prunable(problem.masks, problem.params))
