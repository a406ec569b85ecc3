"""What a pruning method is given, and what it gives back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax

from fairgrape_jax.masks import Tree
from fairgrape_jax.selection import Deficit, Scope, Select


@dataclasses.dataclass(frozen=True)
class Problem:
    """The network at the start of a round.

    params, masks: trees of NumPy arrays. importance(grouped) computes, when called, (w * g)^2 on
    the round's scoring sample: a tree of (G, *w.shape) with a group per row, or of (1, *w.shape)
    over all samples together. select, deficit: how FairGRAPE's choice is found, and which loss of
    share it looks at; scope: whether a count is kept in every layer or in the network; devices:
    over which a choice may be spread. details: what a method has to tell of its choice, by layer;
    it goes into the round's metrics.
    """

    params: Tree
    masks: Tree
    importance: Callable[[bool], Tree]
    select: Select = "threshold"
    deficit: Deficit = "relative"
    scope: Scope = "layer"
    devices: Sequence[jax.Device] = ()
    details: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Method:
    """A row of the table: a line for the user, and the function that prunes.

    prune(problem, density) -> masks, nested in problem.masks, keeping floor(n * density) of the n
    weights of every layer, or of the network for scope "global".
    """

    summary: str
    prune: Callable[[Problem, float], Tree]
