"""How many weights each layer keeps at a density of the network.

At high sparsity this matters more than which weights they are. Every allocation gives whole numbers
of an exact sum, never more than a layer has alive and never fewer than the least number of a layer,
and serves every score and choice alike. Real numbers that sum up to the total are rounded down, and
what is missing goes to the largest remainders, ties to the earlier layer.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import jax
import numpy as np

from fairgrape_jax.masks import Tree, as_real, kept, layer_names, map_masked
from fairgrape_jax.selection.inputs import whole_number

LAST_LAYER = 0.2  # "uniform+": the part of the last layer that is kept at least
AllocationName = Literal["uniform", "uniform+", "erk", "lamp", "global"]
# A name, or a table: the density of each layer.
Allocation = AllocationName | Mapping[str, float]


class Layer(NamedTuple):
    """What an allocation looks at.

    Attributes:
        shape: of the kernel.
        alive: how many of its weights are alive.
        weights: (alive,) those weights, for "lamp" alone.
    """

    shape: tuple[int, ...]
    alive: int
    weights: np.ndarray | None = None


class Bounds(NamedTuple):
    """What a rule keeps to.

    Attributes:
        total: the number of weights to keep in all.
        low: (L,) int, the least number of each layer.
        high: (L,) int, the largest: what is alive.
    """

    total: int
    low: np.ndarray
    high: np.ndarray


Rule = Callable[[Sequence[Layer], float, Bounds], np.ndarray]


def erk(layers: Sequence[Layer], density: float, bounds: Bounds) -> np.ndarray:
    """Weights in proportion to the sum of the kernel's dimensions; small layers become dense.

    Source: Evci et al., "Rigging the Lottery" (ICML 2020), Erdos-Renyi-Kernel, and its code, whose
    sum differs by what it rounds in each layer.
    """
    return fill([sum(layer.shape) for layer in layers], bounds)


def uniform(layers: Sequence[Layer], density: float, bounds: Bounds) -> np.ndarray:
    """floor(n * density) of every layer, as FairGRAPE's code does.

    Where a layer has fewer weights alive, the others keep what is missing.
    """
    wishes = np.array([kept(math.prod(layer.shape), density) for layer in layers])
    counts = np.maximum(wishes, bounds.low)
    if (counts <= bounds.high).all():
        return counts
    return fill([math.prod(x.shape) for x in layers], bounds._replace(total=int(counts.sum())))


def uniform_plus(layers: Sequence[Layer], density: float, bounds: Bounds) -> np.ndarray:
    """The first layer dense, a fifth of the last at least, and one rate for all others.

    Source: Gale et al., "The State of Sparsity in Deep Neural Networks" (2019), Sec. 7, as in the
    code of Lee et al. (see `lamp`).
    """
    low = bounds.low.copy()
    low[0] = layers[0].alive
    low[-1] = max(low[-1], math.floor(LAST_LAYER * math.prod(layers[-1].shape)))
    low = np.minimum(low, bounds.high)
    if low.sum() > bounds.total:
        raise ValueError(
            f"allocation: 'uniform+' keeps at least {low.sum()} weights, with the first layer dense"
            f" ({low[0]}) and a fifth of the last; density {density:.6g} leaves {bounds.total}. "
            "Give a larger density, or 'erk' or 'lamp'"
        )
    sizes = [math.prod(layer.shape) for layer in layers]
    return fill(sizes, bounds._replace(low=low))


def lamp(layers: Sequence[Layer], density: float, bounds: Bounds) -> np.ndarray:
    """As many of each layer as are among the network's largest scores of `lamp_scores`.

    Source: Lee et al., "Layer-adaptive Sparsity for the Magnitude-based Pruning" (ICLR 2021), and
    its code.
    """
    scores = [lamp_scores(np.asarray(layer.weights)) for layer in layers]
    counts = bounds.low.copy()
    rest = [each[least:] for each, least in zip(scores, counts, strict=True)]
    owner = np.repeat(np.arange(len(layers)), [len(each) for each in rest])
    best = np.argsort(-np.concatenate(rest), kind="stable")[: bounds.total - counts.sum()]
    return counts + np.bincount(owner[best], minlength=len(layers))


def lamp_scores(weights: np.ndarray) -> np.ndarray:
    """w^2 over the sum of all w^2 of the layer that are not smaller, the largest score (1) first.

    Args:
        weights: (n,) floats, the weights of a layer that are alive.

    Returns:
        (n,) float64, descending; zeros where all weights are zero.

    Raises:
        ValueError: a weight is NaN or infinite.

    Example:
        >>> lamp_scores(np.array([1.0, -2.0, 2.0]))
        array([1.        , 0.5       , 0.11111111])
    """
    size = np.sort(np.abs(np.asarray(weights, np.float64)))[::-1]
    if not np.isfinite(size).all():
        raise ValueError("allocation: 'lamp' ranks weights, and some are NaN or infinite")
    if not size.any():
        return np.zeros_like(size)
    squares = np.square(size / size[0])  # any scale: it drops out
    return squares / np.cumsum(squares)


def by_table(table: Mapping[str, float], names: Sequence[str]) -> Rule:
    """The rule of a user's table of densities by the name of a layer, for layers of these names.

    A table of some layers fixes their densities, and all others share one rate. A table of all
    layers is followed on a path: density t ** s, with one s for the network, so that it is the
    table where the network has the table's density, dense where it is dense, and falls in between.

    Raises:
        ValueError: a name that is no layer's, a density outside 0..1, or at the time of use a
            density of the network that the table does not allow.
    """
    if unknown := [name for name in table if name not in names]:
        raise ValueError(f"allocation: {unknown[0]!r} is no layer; choose from {', '.join(names)}")
    for name, value in table.items():
        if not 0 <= as_real(value) <= 1:
            raise ValueError(f"allocation: density {value} of layer {name!r} is not in 0..1")

    def rule(layers: Sequence[Layer], density: float, bounds: Bounds) -> np.ndarray:
        sizes = np.array([math.prod(layer.shape) for layer in layers])
        if len(table) == len(names):
            rates = np.array([float(table[name]) for name in names])
            return follow(sizes, rates, bounds)
        low, high = bounds.low.copy(), bounds.high.copy()
        for i, name in enumerate(names):
            if name in table:
                fixed = np.clip(kept(int(sizes[i]), table[name]), low[i], high[i])
                low[i] = high[i] = fixed
        if not low.sum() <= bounds.total <= high.sum():
            raise ValueError(
                f"allocation: the table leaves {low.sum()} to {high.sum()} weights for the "
                f"network, and density {density:.6g} is {bounds.total} of them; change one of them"
            )
        return fill(sizes, Bounds(bounds.total, low, high))

    return rule


def fill(ideal: Sequence[float] | np.ndarray, bounds: Bounds) -> np.ndarray:
    """Numbers in proportion to `ideal`, cut off at the bounds, of the exact sum.

    Example:
        >>> fill([1.0, 1.0, 6.0], Bounds(9, np.array([2, 0, 0]), np.array([9, 9, 4])))
        array([3, 2, 4])
    """
    share = np.asarray(ideal, np.float64)
    some = share > 0
    largest = float((bounds.high[some] / share[some]).max(initial=0))
    return _settle(lambda level: share * level, largest, bounds)


def follow(sizes: np.ndarray, rates: np.ndarray, bounds: Bounds) -> np.ndarray:
    """sizes * rates ** s, cut off at the bounds, of the exact sum.

    Raises:
        ValueError: the layers of rate 1 alone are more than the sum.
    """
    dense = int(np.where(rates == 1, bounds.high, bounds.low).sum())
    if dense > bounds.total:
        raise ValueError(
            f"allocation: the table's dense layers and least numbers are {dense} weights, and only "
            f"{bounds.total} are to be kept; give a larger density"
        )
    with np.errstate(divide="ignore"):
        logs = np.maximum(np.log(rates), -1e300)
    smallest = -float(logs[logs < 0].max(initial=-1.0))
    # So steep that nothing is left of a layer that is not dense.
    steep = (np.log(max(float(sizes.max(initial=1)), 1.0)) + 1) / smallest
    return _settle(lambda level: sizes * np.exp((level - 1) * steep * -logs), 1.0, bounds)


def _settle(wish: Callable[[float], np.ndarray], largest: float, bounds: Bounds) -> np.ndarray:
    """The rounded `wish(level)`, rising in level from 0 to `largest`, of the exact sum."""
    total, low, high = bounds

    def level_of(level: float) -> np.ndarray:
        return np.clip(wish(level), low, high)

    below, above = 0.0, largest
    for _ in range(200):
        middle = (below + above) / 2
        if level_of(middle).sum() <= total:
            below = middle
        else:
            above = middle
    real = level_of(below)
    spare = high - real
    if (missing := total - real.sum()) > 0.5 and spare.sum() > 0:
        # Layers that nothing was wished for, and jumps: all take part by what they have left.
        real = real + spare * min(1.0, missing / spare.sum())
    counts = np.minimum(np.floor(real).astype(np.int64), high)
    order = np.argsort(-(real - counts), kind="stable")
    while (missing := total - int(counts.sum())) > 0:
        counts[order[(counts < high)[order]][:missing]] += 1
    return counts


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


def check_allocation(allocation: Any) -> None:
    """ValueError unless it is one of ALLOCATIONS or a table of numbers by name."""
    if isinstance(allocation, Mapping):
        return
    if not isinstance(allocation, str) or allocation not in ALLOCATIONS:
        raise ValueError(
            f"allocation: {allocation!r} is none of {', '.join(ALLOCATIONS)}, nor a table of "
            "densities by layer"
        )


def is_global(allocation: Allocation) -> bool:
    """Whether there is one count for the whole network."""
    check_allocation(allocation)
    return isinstance(allocation, str) and ALLOCATIONS[allocation].rule is None


def allocate(
    masks: Tree,
    density: float,
    allocation: Allocation = "uniform",
    *,
    minimum: int = 0,
    weights: Tree = None,
    order: Sequence[str] = (),
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
    high = np.array([int(np.sum(leaf)) for leaf in leaves])
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
    layers = [Layer(leaf.shape, int(n)) for leaf, n in zip(leaves, high, strict=True)]
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
