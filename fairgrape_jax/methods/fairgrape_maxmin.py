"""What FairGRAPE's greedy choice approximates: most importance retained for the worst group."""

from __future__ import annotations

from fairgrape_jax.masks import Tree
from fairgrape_jax.methods.base import Problem
from fairgrape_jax.methods.pruning import choose_by_groups
from fairgrape_jax.selection.maxmin import maxmin_tree


def choose(problem: Problem, density: float) -> Tree:
    """Maximise min_k S_k / T_k, kept over total importance of group k, at an exact count.

    The certificate (what was achieved, and the bound) is among the details.

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
    return choose_by_groups(problem, density, maxmin_tree)
