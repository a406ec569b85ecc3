"""How many weights each layer keeps at a density of the network.

At high sparsity this matters more than which weights they are. Every allocation gives whole numbers
of an exact sum, never more than a layer has alive and never fewer than the least number of a layer,
and serves every score and choice alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, TypedDict

import jax
import numpy as np

from fairgrape_jax.masks import Masks, Tree, kept, layer_names, map_masked
from fairgrape_jax.selection.inputs import whole_number
from fairgrape_jax.selection.rules import (
    Bounds,
    Layer,
    Rule,
    by_table,
    erk,
    lamp,
    uniform,
    uniform_plus,
)

AllocationName = Literal["uniform", "uniform+", "erk", "lamp", "global"]
# A name, or a table: the density of each layer.
Allocation = AllocationName | Mapping[str, float]


class Budget(TypedDict, total=False):
    """How many weights each layer keeps: what `allocate` takes besides masks and a density.

    Attributes:
        allocation: one of ALLOCATIONS, "uniform" if it is left out, or a table of densities by the
            name of a layer.
        minimum: the least number of a layer, 0 if it is left out.
        weights: the parameters, for "lamp".
        order: the names of the layers in the order of the network, for "uniform+".
    """

    allocation: Allocation
    minimum: int
    weights: Tree
    order: Sequence[str]


class Row(NamedTuple):
    """A row of ALLOCATIONS.

    Attributes:
        summary: a line for the user.
        rule: the counts of layers in the order of the network; None: one count for the whole
            network, which the choice itself divides.
        floors: whether each layer is rounded down by itself, so that the sum is that of floors.
        ranks: whether the rule looks at the weights.
    """

    summary: str
    rule: Rule | None
    floors: bool = False
    ranks: bool = False


ALLOCATIONS: dict[str, Row] = {
    "uniform": Row("the same density in every layer", uniform, floors=True),
    "uniform+": Row("the first layer dense, a fifth of the last, one density else", uniform_plus),
    "erk": Row("in proportion to the sum of a kernel's dimensions", erk),
    "lamp": Row("by the network's largest layer-adaptive magnitudes", lamp, ranks=True),
    "global": Row("one count for the whole network", None),
}


def check_allocation(allocation: object) -> None:
    """ValueError unless it is one of ALLOCATIONS or a table of numbers by name.

    Args:
        allocation: one of ALLOCATIONS, or a table of densities by the name of a layer.
    """
    if isinstance(allocation, Mapping):
        return
    if not isinstance(allocation, str) or allocation not in ALLOCATIONS:
        raise ValueError(
            f"allocation: {allocation!r} is none of {', '.join(ALLOCATIONS)}, nor a table of "
            "densities by layer"
        )


def is_global(allocation: Allocation) -> bool:
    """Whether there is one count for the whole network.

    Args:
        allocation: one of ALLOCATIONS, or a table of densities by the name of a layer.
    """
    check_allocation(allocation)
    return isinstance(allocation, str) and ALLOCATIONS[allocation].rule is None


def allocate(
    masks: Masks,
    density: float,
    allocation: Allocation = "uniform",
    *,
    minimum: int = 0,
    weights: Tree = None,
    order: Sequence[str] = (),
    most: Sequence[int] = (),
) -> dict[str, int]:
    """How many weights are kept, by layer, or under "network" for "global".

    Args:
        masks: bool leaves, the weights alive; None where not prunable.
        density: the part of ALL prunable weights to keep.
        allocation: one of ALLOCATIONS, or a table of densities by the name of a layer.
        minimum: the least number of a layer; one of fewer weights alive keeps them all. The sum of
            these numbers is kept even where the density says less.
        weights: the parameters, for "lamp": it ranks those that are alive.
        order: the names of the layers in the order of the network, for "uniform+"; that of the
            tree if empty.
        most: the largest number of each layer, in the order of the tree; those alive if empty.

    Returns:
        Counts in the order of `jax.tree.leaves(masks)`. They sum up to floor(n * density) of all
        n weights; for "uniform" to the sum of that of every layer.

    Raises:
        ValueError: fewer weights alive than are to be kept, an unknown allocation, a density
            outside 0..1, a negative minimum, or what the allocation cannot reach.

    Example:
        >>> masks = {"a": {"kernel": np.ones((3, 4), bool)}, "b": {"kernel": np.ones((9, 9), bool)}}
        >>> allocate(masks, 0.25), allocate(masks, 0.25, "erk")
        ({'a': 3, 'b': 20}, {'a': 6, 'b': 17})
        >>> allocate(masks, 0.25, {"a": 1.0})
        {'a': 12, 'b': 11}
    """
    check_allocation(allocation)
    names, leaves = layer_names(masks), jax.device_get(jax.tree.leaves(masks))
    if not names:
        raise ValueError("masks: no layer is prunable; every leaf is None")
    if (minimum := whole_number(minimum, "minimum")) < 0:
        raise ValueError(f"minimum: {minimum} is negative")
    places = _places(names, order)
    row = _row(allocation, [names[i] for i in places])
    leaves = [leaves[i] for i in places]
    alive_in = np.array([int(np.sum(leaf)) for leaf in leaves])
    high = np.minimum(alive_in, np.asarray(most)[places]) if len(most) else alive_in
    low = np.minimum(minimum, high)
    if row.floors:
        floors = np.maximum([kept(leaf.size, density) for leaf in leaves], low)
        total = int(floors.sum())
    else:
        total = max(kept(sum(leaf.size for leaf in leaves), density), int(low.sum()))
    if total > high.sum():
        where, count, alive = f"network of {len(names)} layers", total, high.sum()
        if row.floors or len(names) == 1:
            short = int(np.argmax(floors > high)) if row.floors else 0
            where, alive = f"layer {names[places[short]]}", high[short]
            count = floors[short] if row.floors else total
        raise ValueError(f"{where}: {count} weights cannot be kept of the {alive} alive")
    if row.rule is None:
        return {"network": total}
    layers = [Layer(leaf.shape, int(n)) for leaf, n in zip(leaves, alive_in, strict=True)]
    if row.ranks:
        kernels = _kernels(masks, weights)
        layers = [
            layer._replace(weights=kernels[i][leaf])
            for layer, i, leaf in zip(layers, places, leaves, strict=True)
        ]
    counts = np.empty(len(names), np.int64)
    counts[places] = row.rule(layers, density, Bounds(total, low, high))
    return dict(zip(names, counts.tolist(), strict=True))


def _row(allocation: Allocation, names: Sequence[str]) -> Row:
    if isinstance(allocation, str):
        return ALLOCATIONS[allocation]
    return Row("a table", by_table(allocation, names))


def _places(names: Sequence[str], order: Sequence[str]) -> np.ndarray:
    """The numbers of the layers in the order of the network."""
    if order and sorted(order) != sorted(names):
        raise ValueError(
            f"order: names {', '.join(order)}, and the prunable layers are {', '.join(names)}"
        )
    return np.array([names.index(name) for name in order or names])


def _kernels(masks: Tree, weights: Tree) -> list[np.ndarray]:
    """The prunable leaves of `weights`, in the order of the leaves of `masks`."""
    if weights is None:
        raise ValueError("allocation: 'lamp' ranks the weights of the network; give its parameters")
    prunable = map_masked(lambda mask, leaf: () if mask is None else (leaf,), masks, weights)
    return [np.asarray(leaf) for leaf in jax.device_get(jax.tree.leaves(prunable))]
