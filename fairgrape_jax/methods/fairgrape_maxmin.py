"""What FairGRAPE's greedy choice approximates: most importance retained for the worst group."""

from __future__ import annotations

from fairgrape_jax.masks import Tree
from fairgrape_jax.maxmin import maxmin_tree
from fairgrape_jax.methods.types import Problem


def prune(problem: Problem, density: float) -> Tree:
    """Per-group importance, then the max-min choice, with its certificate among the details."""
    importance = problem.importance(True)
    chosen, found = maxmin_tree(
        importance, problem.masks, density, scope=problem.scope, devices=problem.devices
    )
    problem.details.update(found)
    return chosen
