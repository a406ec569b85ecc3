"""Magnitude pruning: keep the largest |w| (Han et al., NeurIPS 2015)."""

from __future__ import annotations

import jax
import numpy as np

from fairgrape_jax.masks import Tree, select_prunable
from fairgrape_jax.methods.layerwise import prune_layers
from fairgrape_jax.methods.types import Problem
from fairgrape_jax.selection import select_first


def prune(problem: Problem, density: float) -> Tree:
    """Keep in every layer the weights of largest absolute value."""
    kernels = select_prunable(problem.masks, problem.params)
    scores = jax.tree.map(lambda w: np.abs(np.asarray(w))[None], kernels)
    return prune_layers(problem.masks, scores, density, select_first, problem.scope)
