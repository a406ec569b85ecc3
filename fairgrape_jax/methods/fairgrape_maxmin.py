"""What FairGRAPE's greedy choice approximates: most importance retained for the worst group."""

from __future__ import annotations

from fairgrape_jax.masks import Tree
from fairgrape_jax.methods.base import Problem
from fairgrape_jax.methods.pruning import choose_by_groups, prune_layers
from fairgrape_jax.selection.maxmin import maxmin_tree
from fairgrape_jax.selection.within import select_maxmin_within


def choose(problem: Problem, density: float) -> Tree:
    """Maximise min_k S_k / T_k, kept over total importance of group k, at an exact count.

    The certificate (what was achieved, and the bound) is among the details; a choice within a
    pattern of N:M is approximate and has none.

    Args:
        problem: the network at the start of the round.
        density: the part of ALL weights to keep, 0 to 1.

    Source:
        docs/selection.md.

    Example:
        >>> import numpy as np
        >>> mask = {"kernel": np.ones((1, 4), bool)}
        >>> scores = {"kernel": np.array([[[4.0, 3, 0, 0]], [[0, 0, 2.0, 1]]], np.float32)}
        >>> problem = Problem(None, mask, importance=lambda over: scores)
        >>> chosen = choose(problem, 0.5)
        >>> [round(certificate["achieved"], 3) for certificate in problem.details.values()]
        [0.571]
    """
    if problem.pattern is not None:
        groups = problem.importance("groups")
        return prune_layers(problem, groups, density, select_maxmin_within)
    return choose_by_groups(problem, density, maxmin_tree)
