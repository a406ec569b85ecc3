"""One call that prunes structures of any network: the largest choice within a budget."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import jax
import numpy as np

from fairgrape_jax.masks import Tree, check_density, kept
from fairgrape_jax.methods import METHODS
from fairgrape_jax.methods.base import Method, Problem
from fairgrape_jax.methods.library import check_needs, importance_of
from fairgrape_jax.methods.pruning import prune
from fairgrape_jax.selection import Allocation, allocate
from fairgrape_jax.selection.allocation import is_global
from fairgrape_jax.selection.inputs import whole_number
from fairgrape_jax.structures import Structures, sum_importance
from fairgrape_jax.structures.cost import Counter, kernel_norms, latency

Of = Literal["flops", "weights", "latency"]
Masks = dict[str, np.ndarray]
Counts = dict[str, int]
# What a method may look at where structures are chosen: their scores and norms, and a key.
NEEDS = {"scores", "a key", "a minority"}


def prune_structures(
    structures: Structures,
    params: Tree,
    masks: Mapping[str, Any],
    budget: float,
    *,
    of: Of = "flops",
    method: str = "fairgrape",
    scores: Tree = None,
    allocation: Allocation = "uniform",
    minimum: int = 1,
    multiple: int = 1,
    key: Any = None,
    minority: Sequence[int] = (),
    inputs: Any = None,
) -> tuple[Masks, dict[str, Any]]:
    """The structures that stay: the most of them whose network is within a budget.

    A method chooses among the structures of every group as it chooses among the weights of a layer,
    by the same counts and ties. How many stay in all is found by bisection.

    Args:
        structures: as `find_structures` has found them.
        params: the parameters of the network.
        masks: (structures,) bool for each group, those that are there: `structures.full_masks()`.
        budget: the part of the whole network's cost that may be left, 0 to 1.
        of: the cost: "flops" of convolutions and matrix products, "weights", or "latency", the
            median time of a call on this machine (a network is compiled for every one tried).
        method: a row of METHODS that looks at scores or at weights ("magnitude": the sum of |w|
            over a structure) alone.
        scores: importance per group: of weights, (G, *w.shape), which is summed over each
            structure, or of structures, (G, structures) for each group of them.
        allocation: how many structures each group keeps, as for `prune`; "global" counts them
            over the network.
        minimum: the least number of structures of a group, 1 or more.
        multiple: of which the number of a group is one, 8 for example; it is rounded down. A group
            of fewer keeps what it has.
        key: for methods that draw.
        minority: groups of the minority methods.
        inputs: what "latency" calls the network with, a tuple; numbers drawn if it is None.

    Returns:
        Masks of the groups, nested in `masks`, and {"weights", "flops": the parts that are left,
        "groups": how many structures are alive in each, "latency": seconds, dense and pruned, where
        that is the budget}.

    Raises:
        ValueError: a method without what it needs, a budget that no choice keeps to, or arguments
            that do not fit.

    Example:
        >>> from fairgrape_jax.structures import find_structures
        >>> params = {"a": np.array([[1.0, 4, 2, 3]]), "b": np.ones((4, 1))}
        >>> structures = find_structures(lambda p, x: x @ p["a"] @ p["b"], params, np.ones((1, 1)))
        >>> whole = structures.full_masks()
        >>> masks, info = prune_structures(structures, params, whole, 0.5, method="magnitude")
        >>> masks, info["flops"]
        ({'a': array([False,  True, False,  True])}, 0.5)
    """
    check_density(budget)
    if of not in get_args(Of):
        raise ValueError(f"of: {of!r} is none of {', '.join(get_args(Of))}")
    for name, value in (("minimum", minimum), ("multiple", multiple)):
        if whole_number(value, name) < 1:
            raise ValueError(f"{name}: {value} is less than 1")
    problem, row = _problem(structures, params, masks, method, scores, key, minority)
    problem = dataclasses.replace(problem, allocation=allocation, minimum=minimum)
    counter = Counter(structures)
    seconds = _timer(structures, params, inputs) if of == "latency" else None

    # Structures of a group cost the same, so a cost follows from how many each group keeps.
    def cost(counts: Counts) -> float:
        chosen = _first(problem.masks, counts)
        return seconds(chosen) if seconds else getattr(counter(chosen), of)

    total = sum(group.size for group in structures.groups)
    chooser = _Chooser(row, problem, total, multiple)
    whole = cost({group.name: group.size for group in structures.groups})
    number = _largest(chooser, lambda counts: cost(counts) <= budget * whole)
    if number is None:
        least = cost(chooser.counts(chooser.fewest)) / whole
        raise ValueError(
            f"budget: {budget:g} of the {of} cannot be kept to: the fewest structures that are "
            f"allowed leave {least:.4g}"
        )
    chosen = chooser.choose(number, lambda counts: cost(counts) <= budget * whole)
    dense, left = counter(structures.full_masks()), counter(chosen)
    info: dict[str, Any] = {
        "weights": left.weights / dense.weights,
        "flops": left.flops / dense.flops,
        "groups": {name: int(mask.sum()) for name, mask in chosen.items()},
    }
    if seconds:
        info["latency"] = (whole, seconds(chosen))
    return chosen, info


class _Chooser:
    """The choice of a number of structures in all, and how many of them each group gets."""

    def __init__(self, row: Method, problem: Problem, total: int, multiple: int) -> None:
        self.row, self.problem, self.total, self.multiple = row, problem, total, multiple
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
            one = _only(self.problem, name)
            chosen |= prune(self.row, one, count / one.masks[name].size)
        return chosen


def _only(problem: Problem, name: str) -> Problem:
    """One group of a problem by itself."""

    def importance(over: Any) -> Masks:
        return {name: problem.importance(over)[name]}

    return dataclasses.replace(
        problem,
        masks={name: problem.masks[name]},
        params={name: problem.params[name]},
        importance=importance,
        layers=(name,),
        allocation="uniform",
    )


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


def _problem(
    structures: Structures,
    params: Tree,
    masks: Mapping[str, Any],
    method: str,
    scores: Tree,
    key: Any,
    minority: Sequence[int],
) -> tuple[Problem, Method]:
    """The structures as the weights of a network whose layers are their groups."""
    if not METHODS.find(method):
        raise ValueError(f"method: {method!r} is none of {', '.join(METHODS)}")
    row = METHODS[method]
    if set(row.needs) - NEEDS or row.counts:
        usable = [n for n, r in METHODS.items() if not (set(r.needs) - NEEDS or r.counts)]
        raise ValueError(
            f"method: {method!r} does not score whole structures; choose from {', '.join(usable)}"
        )
    there = {
        "scores": scores is not None,
        "a key": key is not None,
        "a minority": len(minority) > 0,
    }
    check_needs(method, row, there)
    names = [group.name for group in structures.groups]
    alive = dict(zip(names, structures.checked(masks), strict=True))
    norms = sum_importance(structures, kernel_norms(structures, params))
    rows = None if scores is None else _of_structures(structures, scores)
    problem = Problem(
        params={name: norm[0] for name, norm in norms.items()},
        masks=alive,
        importance=importance_of(rows, alive),
        key=key,
        layers=tuple(names),
        groups=0 if rows is None else len(next(iter(rows.values()))),
        minority=tuple(minority),
        select="greedy",
    )
    return problem, row


def _of_structures(structures: Structures, scores: Tree) -> dict[str, np.ndarray]:
    """Importance (G, structures) of each group, summed over weights unless it is such already."""
    sizes = {group.name: group.size for group in structures.groups}
    if isinstance(scores, Mapping) and set(scores) == set(sizes):
        rows = {name: np.asarray(jax.device_get(scores[name])) for name in sizes}
        if all(row.ndim == 2 and row.shape[1] == sizes[name] for name, row in rows.items()):
            return rows
    return sum_importance(structures, scores)


def _timer(structures: Structures, params: Tree, inputs: Any) -> Callable[[Masks], float]:
    rng = np.random.default_rng(0)

    def drawn(shape: jax.ShapeDtypeStruct) -> np.ndarray:
        floats = np.issubdtype(shape.dtype, np.floating)
        return (rng.normal(size=shape.shape) if floats else np.zeros(shape.shape)).astype(
            shape.dtype
        )

    arrays = jax.tree.map(drawn, structures.inputs) if inputs is None else tuple(inputs)
    return lambda masks: latency(structures, params, masks, arrays)
