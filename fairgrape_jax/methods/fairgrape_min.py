"""What a weight holds for the group that needs it least: only what all groups need is kept."""

from __future__ import annotations

import jax
import numpy as np

from fairgrape_jax.masks import Tree
from fairgrape_jax.methods.base import Problem
from fairgrape_jax.methods.importance_normalised import importance_parts
from fairgrape_jax.selection.counts import members


def score(problem: Problem) -> Tree:
    """The least part of a group's importance that the weight holds, min_k I[k, w] / T_k.

    T_k is the group's importance in the layer, with allocation "global" in the network. A group
    without importance there takes no part.

    Args:
        problem: the network at the start of the round.

    Source:
        Ours, after Hossain et al., "COLT" (2022), which keeps the weights that are large in both of
        two networks, each trained on half of the classes.

    Example:
        >>> mask = {"kernel": np.ones((1, 2), bool)}
        >>> scores = {"kernel": np.array([[[6.0, 2.0]], [[0.0, 1.0]], [[0.0, 0.0]]])}
        >>> score(Problem(None, mask, importance=lambda over: scores))
        {'kernel': array([[0.  , 0.25]], dtype=float32)}
    """
    parts, structure = jax.tree.flatten(importance_parts(problem))
    for numbers in members(problem.masks, problem.allocation).values():
        served = np.any(
            [part.reshape(len(part), -1).any(axis=1) for part in (parts[i] for i in numbers)],
            axis=0,
        )
        for i in numbers:
            parts[i] = parts[i][served].min(axis=0) if served.any() else parts[i][0]
    return jax.tree.unflatten(structure, parts)
