"""What a pruning method is given, and what it gives back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax

from fairgrape_jax.masks import Tree
from fairgrape_jax.selection import Deficit, Scope, Select


def _no_samples(*args: Any, **options: Any) -> Tree:
    raise ValueError("problem: was made without `average`, which this method asks for")


@dataclasses.dataclass(frozen=True)
class Problem:
    """The network at the start of a round.

    params, masks: trees of NumPy arrays.
    importance(over): (w * g)^2 on the round's scoring sample, computed when first asked for: a tree
    of (G, *w.shape) for "groups", of (1, *w.shape) for "all" samples together, for equally many of
    all "classes", or for the samples of a tuple of groups.
    average(statistic, over=..., given=..., params=...): the mean of a `statistic.Statistic`
    likewise; given: a pytree for it; params: another network's in place of this one's.
    module, batch_stats, shape: the network itself, and (H, W, C) of a picture. key: the round's
    own random key. layers: the prunable ones in the order of the network. groups: how many there
    are; minority: those of the minority methods. official: do what the official code of the method
    does where that differs.
    select, deficit, advances: how FairGRAPE's choice is found, and which loss of share it looks at;
    scope, minimum: whether a count is kept in every layer or in the network, and the least that a
    layer keeps; devices: over which a choice may be spread. details: what a method has to tell of
    its choice, by layer; it goes into the round's metrics.
    """

    params: Tree
    masks: Tree
    importance: Callable[[Any], Tree]
    average: Callable[..., Tree] = _no_samples
    module: nn.Module | None = None
    batch_stats: Tree = None
    shape: tuple[int, ...] = ()
    key: Any = None
    layers: tuple[str, ...] = ()
    groups: int = 0
    minority: tuple[int, ...] = ()
    official: bool = False
    select: Select = "threshold"
    deficit: Deficit = "relative"
    advances: int = 1
    scope: Scope = "layer"
    minimum: int = 0
    devices: Sequence[jax.Device] = ()
    details: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Method:
    """A row of the table: a line for the user, and a score for every weight.

    score(problem): a tree of w.shape, larger is kept; ties go to the lower index.
    choose(problem, density) -> masks: where the choice is not that of the highest scores; the
    scores are then the order in which a layer gets its least number of weights.
    counts(masks, density, minimum, layers): how many weights each layer keeps, by name, where that
    is not `selection.scope.counts`; such a method has no scope but "layer".
    rewinds: the weights return to a point of the dense training after each choice.
    """

    summary: str
    score: Callable[[Problem], Tree]
    choose: Callable[[Problem, float], Tree] | None = None
    counts: Callable[[Tree, float, int, Sequence[str]], dict[str, int]] | None = None
    rewinds: bool = False
