"""FairGRAPE: keep each group's share of importance in every layer (Lin, Kim, Joo, ECCV 2022)."""

from __future__ import annotations

from functools import partial

import jax

from fairgrape_jax.masks import Tree
from fairgrape_jax.methods.base import Problem
from fairgrape_jax.methods.importance_normalised import importance_parts
from fairgrape_jax.methods.pruning import choose_by_groups, prune_layers
from fairgrape_jax.selection import select_greedy, solve_tree
from fairgrape_jax.selection.within import select_greedy_within


def choose(problem: Problem, density: float) -> Tree:
    """One round of Algorithm 1: per-group importance, then the choice that keeps the shares.

    Args:
        problem: the network at the start of the round.
        density: the part of ALL weights to keep, 0 to 1.

    Source:
        FairGRAPE (arXiv 2207.10888), Algorithm 1, Eqs. 6 to 8.

    Example:
        >>> import numpy as np
        >>> mask = {"kernel": np.ones((1, 4), bool)}
        >>> scores = {"kernel": np.array([[[4.0, 3, 0, 0]], [[0, 0, 2.0, 1]]], np.float32)}
        >>> choose(Problem(None, mask, importance=lambda over: scores, select="greedy"), 0.5)
        {'kernel': array([[ True, False,  True, False]])}
    """
    if problem.select != "greedy" and problem.pattern is None:
        return choose_by_groups(problem, density, solve_tree)
    greedy = select_greedy if problem.pattern is None else select_greedy_within
    select = partial(greedy, deficit=problem.deficit, advances=problem.advances)
    return prune_layers(problem, problem.importance("groups"), density, select)


def score(problem: Problem) -> Tree:
    """The largest part of a group's importance that the weight holds, max_k I[k, w] / T_k.

    Args:
        problem: the network at the start of the round.
    """
    return jax.tree.map(lambda leaf: leaf.max(axis=0), importance_parts(problem))
