"""Pruning methods: one small file each, and one row in METHODS.

A method is a function `prune(problem, density) -> masks`; see `methods.types`. The tests that run
over this table check a new row for exact counts, nesting and determinism without being told.
"""

from fairgrape_jax.methods import fairgrape, fairgrape_maxmin, magnitude, taylor
from fairgrape_jax.methods.types import Method, Problem

METHODS: dict[str, Method] = {
    "magnitude": Method("largest |w| in every layer", magnitude.prune),
    "taylor": Method("largest (w*g)^2 in every layer, without groups", taylor.prune),
    "fairgrape": Method(
        "each group's share of (w*g)^2 kept in every layer, greedily", fairgrape.prune
    ),
    "fairgrape-maxmin": Method(
        "most (w*g)^2 retained for the worst group in every layer", fairgrape_maxmin.prune
    ),
}

__all__ = ["METHODS", "Method", "Problem"]
