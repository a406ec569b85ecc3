"""What a pruning method is given, and what it gives back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from fairgrape_jax.masks import Tree
from fairgrape_jax.selection import Deficit


@dataclasses.dataclass(frozen=True)
class Problem:
    """The network at the start of a round.

    params, masks: trees of NumPy arrays. importance(grouped) computes, when called, (w * g)^2 on
    the round's scoring sample: a tree of (G, *w.shape) with a group per row, or of (1, *w.shape)
    over all samples together. deficit: which one FairGRAPE's greedy choice looks at.
    """

    params: Tree
    masks: Tree
    importance: Callable[[bool], Tree]
    deficit: Deficit = "relative"


@dataclasses.dataclass(frozen=True)
class Method:
    """A row of the table: a line for the user, and the function that prunes.

    prune(problem, density) -> masks, nested in problem.masks, keeping floor(n * density) of the n
    weights of every layer.
    """

    summary: str
    prune: Callable[[Problem, float], Tree]
