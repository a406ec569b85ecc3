"""What FairGRAPE's greedy choice approximates: most importance retained for the worst group."""

from __future__ import annotations

from fairgrape_jax.masks import Tree
from fairgrape_jax.maxmin import certified_maxmin
from fairgrape_jax.methods.layerwise import assemble, over_layers
from fairgrape_jax.methods.types import Problem


def prune(problem: Problem, density: float) -> Tree:
    """Per-group importance, then the max-min choice, with its certificate among the details."""
    importance = problem.importance(True)
    found = over_layers(problem.masks, importance, density, certified_maxmin, problem.scope)
    for name, (_, certificate) in found.items():
        problem.details[name] = {
            "achieved": certificate.achieved,
            "bound": certificate.bound,
            "gap": certificate.gap,
            "passes": certificate.passes,
        }
    return assemble(problem.masks, {name: mask for name, (mask, _) in found.items()})
