"""One call that prunes structures of any network: the largest choice within a budget."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_args

import jax
import numpy as np

from fairgrape_jax.masks import Array, Tree, check_density
from fairgrape_jax.methods import METHODS
from fairgrape_jax.methods.base import Method, Problem, with_units
from fairgrape_jax.methods.library import check_needs, importance_of
from fairgrape_jax.methods.pruning import with_unit_scores
from fairgrape_jax.methods.structure_budget import Budget, Masks, Of, choose_within
from fairgrape_jax.selection import Allocation
from fairgrape_jax.selection.inputs import whole_number
from fairgrape_jax.structures import (
    Structures,
    alive_structures,
    find_structures,
    sum_importance,
    zero_masks,
)
from fairgrape_jax.structures.cost import Counter, kernel_norms, latency

# What a method may look at where structures are chosen: their scores and norms, and a key.
NEEDS = {"scores", "a key", "a minority"}


def prune_structures(
    structures: Structures,
    params: Tree,
    masks: Mapping[str, Array],
    budget: float,
    *,
    of: Of = "flops",
    method: str = "fairgrape",
    scores: Tree = None,
    allocation: Allocation = "uniform",
    minimum: int = 1,
    multiple: int = 1,
    key: jax.Array | None = None,
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
    problem, row = _problem(
        structures, params, masks, method, scores=scores, key=key, minority=minority
    )
    problem = dataclasses.replace(problem, allocation=allocation, minimum=minimum)
    seconds = _timer(structures, params, inputs) if of == "latency" else None
    chosen = choose_within(row, problem, structures, Budget(budget, of, multiple, seconds))
    counter = Counter(structures)
    dense, left = counter(structures.full_masks()), counter(chosen)
    info: dict[str, Any] = {
        "weights": left.weights / dense.weights,
        "flops": left.flops / dense.flops,
        "groups": {name: int(mask.sum()) for name, mask in chosen.items()},
    }
    if seconds:
        info["latency"] = (seconds(structures.full_masks()), seconds(chosen))
    return chosen, info


def takes_structures(row: Method) -> bool:
    """Whether a method can choose among structures: not where weights come back one by one, a
    training of single weights comes before, or it has counts of its own.

    Args:
        row: the method.
    """
    trains = row.prepares is not None or (row.approach is not None and not row.of_structures)
    return row.nested and not trains and row.counts is None


def choose_structures(method: Method, problem: Problem, density: float) -> Tree:
    """The masks of the next round where whole structures are pruned: the most that `density` lets.

    Scores of weights are summed over each structure; methods with a choice of their own choose
    among structures by the sums of importance.

    Args:
        method: a row of the table, with no counts of its own.
        problem: the round, whose `structures` are "weights" or "flops": what the density counts.
        density: the part of all weights, or of the dense network's operations.

    Returns:
        Masks of weights, nested in the problem's.

    Raises:
        TrainingError: a score is NaN or infinite.
        ValueError: a density outside 0..1, or below what the smallest network has.
    """
    check_density(density)
    assert problem.structures != "none"
    structures = find_in_round(problem)
    units = structure_problem(problem, structures)
    method = with_unit_scores(method, problem, functools.partial(sum_importance, structures))
    budget = Budget(density, problem.structures, problem.multiple)
    return zero_masks(structures, problem.masks, choose_within(method, units, structures, budget))


def find_in_round(problem: Problem) -> Structures:
    """The structures of a round's network, its running statistics held fixed.

    Args:
        problem: the network at the start of a round.
    """
    module, stats = problem.module, jax.device_get(problem.batch_stats)
    assert module is not None

    def apply(params: Tree, x: Any) -> Any:
        return module.apply({"params": params, "batch_stats": stats}, x, train=False)

    picture = jax.ShapeDtypeStruct((1, *problem.shape), np.float32)
    return find_structures(apply, problem.params, picture)


def structure_problem(problem: Problem, structures: Structures) -> Problem:
    """The same round with structures in place of weights: a group of them is a layer.

    A structure's importance is the sum of that of its weights, its weight the sum of their |w|. It
    is alive if any weight is. The least number of a layer is that of a group's structures, 1 at
    least.

    Args:
        problem: the round.
        structures: of its network.
    """

    norms = sum_importance(structures, kernel_norms(structures, problem.params))
    names = [group.name for group in structures.groups]
    allocation = problem.allocation
    if isinstance(allocation, Mapping):  # of all layers; what is no group has no count
        allocation = {name: value for name, value in allocation.items() if name in names}
    return with_units(
        problem,
        functools.partial(sum_importance, structures),
        structures="none",
        masks=alive_structures(structures, problem.masks),
        params={name: rows[0] for name, rows in norms.items()},
        layers=tuple(names),
        allocation=allocation,
        minimum=max(problem.minimum, 1),
    )


def _problem(
    structures: Structures,
    params: Tree,
    masks: Mapping[str, Array],
    method: str,
    *,
    scores: Tree,
    key: jax.Array | None,
    minority: Sequence[int],
) -> tuple[Problem, Method]:
    """The structures as the weights of a network whose layers are their groups."""
    if not METHODS.find(method):
        raise ValueError(f"method: {method!r} is none of {', '.join(METHODS)}")
    row = METHODS[method]
    if set(row.needs) - NEEDS or not takes_structures(row):
        usable = [n for n, r in METHODS.items() if not set(r.needs) - NEEDS and takes_structures(r)]
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
