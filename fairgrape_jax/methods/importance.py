"""FairGRAPE's importance without its groups (Molchanov et al., CVPR 2019)."""

from __future__ import annotations

import jax

from fairgrape_jax.masks import Tree
from fairgrape_jax.methods.base import Problem


def score(problem: Problem) -> Tree:
    """(w * g)^2 over all samples together: what FairGRAPE is without fairness.

    Args:
        problem: the network at the start of the round.

    Source:
        Molchanov et al., "Importance Estimation for Neural Network Pruning" (CVPR 2019), first
        order ("Taylor").

    Example:
        >>> import numpy as np
        >>> mask = {"kernel": np.ones((1, 2), bool)}
        >>> scores = {"kernel": np.array([[[4.0, 1.0]]])}
        >>> score(Problem(None, mask, importance=lambda over: scores))
        {'kernel': array([[4., 1.]])}
    """
    return jax.tree.map(lambda leaf: leaf[0], problem.importance("all"))
