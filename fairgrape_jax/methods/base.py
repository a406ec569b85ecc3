"""What a pruning method sees of a round, and what a row of the table of methods holds."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import flax.linen as nn
import jax

from fairgrape_jax.masks import Tree
from fairgrape_jax.remedies.base import Active, Ingredient
from fairgrape_jax.selection import Allocation, Deficit, Select
from fairgrape_jax.selection.patterns import Pattern


def _no_samples(*args: Any, **options: Any) -> Tree:
    raise ValueError("problem: was made without `average`, which this method asks for")


@dataclasses.dataclass(frozen=True)
class Problem:
    """The network at the start of a round, and what may be asked of its samples.

    Attributes:
        params: a tree of NumPy arrays.
        masks: the weights alive, bool arrays of the shapes of the parameters, None where not
            prunable.
        importance: (over) to (w * g)^2 on the round's scoring sample, computed when first asked
            for: a tree of (G, *w.shape) for "groups"; of (1, *w.shape) for "all" samples together,
            for equally many of all "classes", or for the samples of a tuple of groups.
        average: (statistic, over="all", extra=None, params=None) to the mean of a
            `scoring.statistics.Statistic`, rows as for `importance`; extra: a pytree for the
            statistic; params: another network's in place of this one's.
        module: the network itself.
        batch_stats: its running statistics.
        shape: (H, W, C) of a picture.
        key: the round's own random key.
        layers: the prunable layers in the order of the network.
        alive: the weights alive, for a method that chooses among all, whose `masks` are full; None
            where these are `masks`.
        progress: how far the rounds are, 0 for the first one, below 1 for the last.
        carried: what the ingredients of its preparation, or of its approach, carried in the end, by
            name; None or () before there is any.
        groups: how many there are.
        minority: the groups of the minority methods.
        official: do what the official code of the method does where that differs.
        kernel_patterns: how many patterns of a 3x3 kernel there are to choose from.
        select: how FairGRAPE's choice is found.
        deficit: which loss of share it looks at.
        advances: as for `select_greedy`.
        allocation: how many weights each layer keeps, as for `selection.allocate`.
        minimum: the least number of weights that a layer keeps.
        pattern: what hardware is fast with, N:M or tiles; None: any weights.
        structures: whole structures are pruned, and a density is the part of all weights or of the
            dense network's operations; "none" for single weights.
        multiple: of which the number of structures of a group is one.
        devices: over which a choice may be spread.
        details: what a method reports of its choice, by layer; it goes into the round's metrics.
    """

    params: Tree
    masks: Tree
    importance: Callable[[Any], Tree] = _no_samples
    average: Callable[..., Tree] = _no_samples
    module: nn.Module | None = None
    batch_stats: Tree = None
    shape: tuple[int, ...] = ()
    key: Any = None
    layers: tuple[str, ...] = ()
    alive: Tree = None
    progress: float = 0.0
    carried: Tree = None
    groups: int = 0
    minority: tuple[int, ...] = ()
    official: bool = False
    kernel_patterns: int = 12
    select: Select = "threshold"
    deficit: Deficit = "relative"
    advances: int = 1
    allocation: Allocation = "uniform"
    minimum: int = 0
    pattern: Pattern | None = None
    structures: Literal["none", "weights", "flops"] = "none"
    multiple: int = 1
    devices: Sequence[jax.Device] = ()
    details: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)


# What a method may need: per-group importance; the gradient of a loss; a Linen module; a random
# key; which groups are a minority; statistics of samples that only a run takes.
Need = Literal["scores", "a loss", "a module", "a key", "a minority", "a run"]


def with_units(problem: Problem, sum_rows: Callable[[Tree], Tree], **fields: Any) -> Problem:
    """The same round with units in place of weights: tiles, or structures.

    What a unit matters is the sum over its weights. Units are few, so the greedy choice is made.

    Args:
        problem: the round.
        sum_rows: a tree of (K, *w.shape) to sums over units, (K, ...).
        fields: of the problem, its masks and parameters for example.
    """

    @functools.cache
    def importance(over: Any) -> Tree:
        return sum_rows(problem.importance(over))

    def average(*statistic: Any, **options: Any) -> Tree:
        return sum_rows(problem.average(*statistic, **options))

    return dataclasses.replace(
        problem, importance=importance, average=average, select="greedy", **fields
    )


@dataclasses.dataclass(frozen=True)
class Preparation:
    """A training before the choice of a round, as long as the retraining after it.

    Attributes:
        all_weights: whether all weights train, those pruned before from where the method has them.
        first: whether there is one before the first round, too.
        ingredients: what takes part in it; what they carry in the end is `Problem.carried`.
    """

    all_weights: bool = False
    first: bool = True
    ingredients: tuple[Active, ...] = ()


@dataclasses.dataclass(frozen=True)
class Method:
    """A row of the table: a line for the user, and a score for every weight.

    Attributes:
        summary: the line.
        score: (problem) to a tree of w.shape; larger is kept, ties go to the lower index.
        choose: (problem, density) to masks, where the choice is not that of the highest scores; the
            scores are then the order in which a layer gets its least number of weights.
        counts: (problem, density) to how many weights each layer keeps, by name, where that is not
            what `selection.allocate` gives; such a method has no allocation "global".
        rewinds: whether the weights return to a point of the dense training after each choice.
        needs: what it looks at besides the weights.
        nested: whether a round chooses among the weights alive; if not, among all.
        remembers: whether pruned weights come back as they were, not as zeros.
        prepares: a training before the choice of each round.
        approach: what takes part in the part of a round's training (`approach.part`) that comes
            before its masks.
        chooses_first: whether the choice is made before that training, and cut after it.
        of_structures: whether it chooses whole structures and never single weights.
    """

    summary: str
    score: Callable[[Problem], Tree]
    choose: Callable[[Problem, float], Tree] | None = None
    counts: Callable[[Problem, float], dict[str, int]] | None = None
    rewinds: bool = False
    needs: tuple[Need, ...] = ()
    nested: bool = True
    remembers: bool = False
    prepares: Preparation | None = None
    approach: Ingredient | None = None
    chooses_first: bool = False
    of_structures: bool = False


def check_row(name: str, row: Any) -> None:
    """Refuse what is no row of the table of methods.

    Args:
        name: of the method.
        row: what was registered.

    Raises:
        ValueError: what is no row, or has a name that is taken.
    """
    if name.lower() == "dense":
        raise ValueError("a run calls the network before pruning so; give it another name")
    if not isinstance(row, Method) or not callable(row.score):
        raise ValueError(
            f"{row!r:.60} is no Method(summary, score) with a score that can be called"
        )
    for field in ("choose", "counts"):
        if not (getattr(row, field) is None or callable(getattr(row, field))):
            raise ValueError(
                f"{field} is {getattr(row, field)!r:.60}; give a function, or leave it out"
            )
    if row.nested and (row.remembers or (row.prepares and row.prepares.all_weights)):
        raise ValueError("pruned weights come back, so nested must be False")
    if unknown := set(row.needs) - set(get_args(Need)):
        raise ValueError(f"needs {min(unknown)!r}: choose from {', '.join(get_args(Need))}")
