"""The same importance without groups: keep the largest (w * g)^2 (Molchanov et al., CVPR 2019)."""

from __future__ import annotations

from fairgrape_jax.masks import Tree
from fairgrape_jax.methods.layerwise import prune_layers
from fairgrape_jax.methods.types import Problem
from fairgrape_jax.selection import select_first


def prune(problem: Problem, density: float) -> Tree:
    """Keep in every layer the weights of largest importance over all samples together."""
    importance = problem.importance(False)
    return prune_layers(problem.masks, importance, density, select_first, problem.scope)
