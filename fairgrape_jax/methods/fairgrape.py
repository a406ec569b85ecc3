"""FairGRAPE: keep each group's share of importance in every layer (Lin, Kim, Joo, ECCV 2022)."""

from __future__ import annotations

from functools import partial

from fairgrape_jax.masks import Tree
from fairgrape_jax.methods.layerwise import prune_layers
from fairgrape_jax.methods.types import Problem
from fairgrape_jax.selection import select_greedy, solve_tree


def prune(problem: Problem, density: float) -> Tree:
    """One round of Algorithm 1: per-group importance, then the choice that keeps the shares."""
    importance = problem.importance(True)
    if problem.select == "greedy":
        select = partial(select_greedy, deficit=problem.deficit)
        return prune_layers(problem.masks, importance, density, select, problem.scope)
    chosen, found = solve_tree(
        importance, problem.masks, density, scope=problem.scope, devices=problem.devices
    )
    problem.details.update(found)
    return chosen
