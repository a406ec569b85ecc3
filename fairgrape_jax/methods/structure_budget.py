"""The most structures whose network is within a budget, for any method's choice."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np

from fairgrape_jax.masks import kept
from fairgrape_jax.methods.base import Method, Problem
from fairgrape_jax.methods.pruning import prune
from fairgrape_jax.selection import allocate
from fairgrape_jax.selection.allocation import is_global
from fairgrape_jax.structures import Structures
from fairgrape_jax.structures.cost import Counter

Of = Literal["flops", "weights", "latency"]
Masks = dict[str, np.ndarray]
Counts = dict[str, int]


@dataclasses.dataclass(frozen=True)
class Budget:
    """What a network may cost.

    Attributes:
        part: of the whole network's cost, 0 to 1.
        of: the cost.
        multiple: of which the number of structures of a group is one.
        seconds: (masks) to the time of a call, for "latency".
    """

    part: float
    of: Of
    multiple: int = 1
    seconds: Callable[[Masks], float] | None = None


def choose_within(row: Method, problem: Problem, structures: Structures, budget: Budget) -> Masks:
    """The choice of the most structures that is within a budget.

    Structures of a group cost the same, so a cost follows from how many each group keeps, and the
    number in all is found by bisection.

    Args:
        row: the method.
        problem: the structures as the weights of a network whose layers are their groups.
        structures: of the network.
        budget: what it may cost.

    Returns:
        (structures,) bool for each group.

    Raises:
        ValueError: a budget that no choice keeps to, and what an allocation refuses.
    """
    counter = Counter(structures)

    def cost(counts: Counts) -> float:
        chosen = _first(problem.masks, counts)
        return budget.seconds(chosen) if budget.seconds else getattr(counter(chosen), budget.of)

    whole = cost({group.name: group.size for group in structures.groups})

    def fits(counts: Counts) -> bool:
        return cost(counts) <= budget.part * whole * (1 + 1e-12)

    chooser = _Chooser(row, problem, budget.multiple)
    number = _largest(chooser, fits)
    if number is None:
        least = cost(chooser.counts(chooser.fewest)) / whole
        raise ValueError(
            f"budget: {budget.part:g} of the {budget.of} cannot be kept to: the fewest structures "
            f"that are allowed leave {least:.4g}"
        )
    return chooser.choose(number, fits)


class _Chooser:
    """The choice of a number of structures in all, and how many of them each group gets."""

    def __init__(self, row: Method, problem: Problem, multiple: int) -> None:
        self.row, self.problem, self.multiple = row, problem, multiple
        self.total = sum(mask.size for mask in problem.masks.values())
        self.is_global = is_global(problem.allocation)
        self.fewest, self.most = self._range()

    def _allocate(self, number: int) -> Counts:
        problem = self.problem
        return allocate(
            problem.masks,
            number / self.total,
            problem.allocation,
            minimum=problem.minimum,
            weights=problem.params,
            order=problem.layers,
        )

    def _range(self) -> tuple[int, int]:
        """The fewest and the most structures that the allocation can divide among the groups."""
        masks, allocation = self.problem.masks, self.problem.allocation
        fixes = isinstance(allocation, Mapping) and len(allocation) < len(masks)
        table = allocation if fixes and isinstance(allocation, Mapping) else {}
        fewest = sum(
            min(max(kept(mask.size, table.get(name, 0)), self.problem.minimum), int(mask.sum()))
            for name, mask in masks.items()
        )
        self._allocate(fewest)  # an allocation that cannot be followed at all says so
        low, high = fewest, sum(int(mask.sum()) for mask in masks.values())
        while low < high:
            middle = (low + high + 1) // 2
            try:
                self._allocate(middle)
                low = middle
            except ValueError:  # more than a group has alive
                high = middle - 1
        return fewest, low

    def counts(self, number: int) -> Counts:
        """How many structures each group keeps of a number in all."""
        if self.is_global:
            chosen = prune(self.row, self.problem, number / self.total)
            counts = {name: int(mask.sum()) for name, mask in chosen.items()}
        else:
            counts = self._allocate(number)
        return counts if self.multiple == 1 else self._rounded(counts)

    def _rounded(self, counts: Counts) -> Counts:
        alive, m = self._alive(), self.multiple
        return {name: min(max(n // m * m, m), alive[name]) for name, n in counts.items()}

    def _alive(self) -> Counts:
        return {name: int(mask.sum()) for name, mask in self.problem.masks.items()}

    def choose(self, number: int, fits: Callable[[Counts], bool]) -> Masks:
        """The choice of a number of structures in all; rounded, of as many more as fit."""
        if self.multiple == 1:
            return prune(self.row, self.problem, number / self.total)
        counts, alive = self.counts(number), self._alive()
        for name in sorted(counts, key=lambda name: counts[name] / alive[name]):
            more = counts | {name: counts[name] + self.multiple}
            if more[name] <= alive[name] and fits(more):
                counts = more
        chosen: Masks = {}
        for name, count in counts.items():
            row, one = _only(self.row, self.problem, name)
            chosen |= prune(row, one, count / one.masks[name].size)
        return chosen


def _only(row: Method, problem: Problem, name: str) -> tuple[Method, Problem]:
    """A method and one group of a problem by itself."""

    def importance(over: Any) -> Masks:
        return {name: problem.importance(over)[name]}

    def average(*statistic: Any, **options: Any) -> Masks:
        return {name: problem.average(*statistic, **options)[name]}

    def score(_: Problem) -> Masks:
        return {name: row.score(problem)[name]}

    one = dataclasses.replace(
        problem,
        masks={name: problem.masks[name]},
        params={name: problem.params[name]},
        importance=importance,
        average=average,
        layers=(name,),
        allocation="uniform",
    )
    return (dataclasses.replace(row, score=score) if row.choose is None else row), one


def _largest(chooser: _Chooser, fits: Callable[[Counts], bool]) -> int | None:
    """The largest number of structures whose choice fits; None where the fewest do not."""
    low, high = chooser.fewest, chooser.most
    if fits(chooser.counts(high)):
        return high
    if not fits(best := chooser.counts(low)):
        return None
    while high - low > 1:
        middle = (low + high) // 2
        counts = chooser.counts(middle)
        if counts == best or fits(counts):
            low, best = middle, counts
        else:
            high = middle
    return low


def _first(masks: Masks, counts: Counts) -> Masks:
    """Masks of so many structures: of any, for all of a group cost the same."""
    return {name: np.arange(mask.size) < counts[name] for name, mask in masks.items()}
