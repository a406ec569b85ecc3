"""What FairGRAPE's greedy choice approximates: most importance retained for the worst group."""

from __future__ import annotations

from fairgrape_jax.masks import Tree
from fairgrape_jax.maxmin import select_maxmin
from fairgrape_jax.methods.layerwise import prune_layers
from fairgrape_jax.methods.types import Problem


def prune(problem: Problem, density: float) -> Tree:
    """Per-group importance, then the max-min choice in every layer."""
    return prune_layers(problem.masks, problem.importance(True), density, select_maxmin)
