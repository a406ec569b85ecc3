"""Rules that divide a number of weights among the layers of a network.

Real numbers that sum up to the total are rounded down, and what is missing goes to the largest
remainders, ties to the earlier layer. A rule takes the layers in the order of the network, the
network's density and the bounds of its counts, and returns a count for each layer, (L,) int64.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float64, Int, Int64, Shaped

from fairgrape_jax.masks import as_real, kept

Counts = Int64[np.ndarray, " L"]

LAST_LAYER = 0.2  # "uniform+": the part of the last layer that is kept at least


class Layer(NamedTuple):
    """What an allocation looks at.

    Attributes:
        shape: of the kernel.
        alive: how many of its weights are alive.
        weights: those weights, for "lamp" alone.
    """

    shape: tuple[int, ...]
    alive: int
    weights: Shaped[np.ndarray, " alive"] | None = None


class Bounds(NamedTuple):
    """What a rule keeps to.

    Attributes:
        total: the number of weights to keep in all.
        low: the least number of each layer.
        high: the largest: what is alive.
    """

    total: int
    low: Int[np.ndarray, " L"]
    high: Int[np.ndarray, " L"]


# (layers in the order of the network, density of the network, bounds) to a count for each layer.
Rule = Callable[[Sequence[Layer], float, Bounds], np.ndarray]


def erk(layers: Sequence[Layer], density: float, bounds: Bounds) -> Counts:
    """Weights in proportion to the sum of the kernel's dimensions; small layers become dense.

    Args:
        layers: in the order of the network.
        density: the part of ALL weights to keep, 0 to 1.
        bounds: what the counts keep to.

    Source:
        Evci et al., "Rigging the Lottery" (ICML 2020), Erdos-Renyi-Kernel, and its code, whose sum
        differs by what it rounds in each layer.
    """
    return fill([sum(layer.shape) for layer in layers], bounds)


def uniform(layers: Sequence[Layer], density: float, bounds: Bounds) -> Counts:
    """floor(n * density) of every layer, as FairGRAPE's code does.

    Where a layer has fewer weights alive, the others keep what is missing.

    Args:
        layers: in the order of the network.
        density: the part of ALL weights to keep, 0 to 1.
        bounds: what the counts keep to.
    """
    wishes = np.array([kept(math.prod(layer.shape), density) for layer in layers])
    counts = np.maximum(wishes, bounds.low)
    if (counts <= bounds.high).all():
        return counts
    return fill([math.prod(x.shape) for x in layers], bounds._replace(total=int(counts.sum())))


def uniform_plus(layers: Sequence[Layer], density: float, bounds: Bounds) -> Counts:
    """The first layer dense, a fifth of the last at least, and one rate for all others.

    Args:
        layers: in the order of the network.
        density: the part of ALL weights to keep, 0 to 1.
        bounds: what the counts keep to.

    Raises:
        ValueError: these layers alone are more than the total.

    Source:
        Gale et al., "The State of Sparsity in Deep Neural Networks" (2019), Sec. 7, as in the code
        of Lee et al. (see `lamp`).
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


def lamp(layers: Sequence[Layer], density: float, bounds: Bounds) -> Counts:
    """As many of each layer as are among the network's largest scores of `lamp_scores`.

    Args:
        layers: in the order of the network.
        density: the part of ALL weights to keep, 0 to 1.
        bounds: what the counts keep to.

    Source:
        Lee et al., "Layer-adaptive Sparsity for the Magnitude-based Pruning" (ICLR 2021), and its
        code.
    """
    scores = [lamp_scores(np.asarray(layer.weights)) for layer in layers]
    counts = bounds.low.copy()
    rest = [each[least:most] for each, least, most in zip(scores, counts, bounds.high, strict=True)]
    owner = np.repeat(np.arange(len(layers)), [len(each) for each in rest])
    best = np.argsort(-np.concatenate(rest), kind="stable")[: bounds.total - counts.sum()]
    return counts + np.bincount(owner[best], minlength=len(layers))


def lamp_scores(weights: Shaped[np.ndarray, " n"]) -> Float64[np.ndarray, " n"]:
    """w^2 over the sum of all w^2 of the layer that are not smaller, the largest score (1) first.

    Args:
        weights: of a layer, those that are alive.

    Returns:
        The scores, descending; zeros where all weights are zero.

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

    Args:
        table: the density of each layer that it names.
        names: of all layers, in the order in which the rule gets them.

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


def fill(ideal: Sequence[float | int] | Shaped[np.ndarray, " L"], bounds: Bounds) -> Counts:
    """Numbers in proportion to `ideal`, cut off at the bounds, of the exact sum.

    Args:
        ideal: not negative; layers of 0 take part only where the others are full.
        bounds: what the numbers keep to.

    Example:
        >>> fill([1.0, 1.0, 6.0], Bounds(9, np.array([2, 0, 0]), np.array([9, 9, 4])))
        array([3, 2, 4])
    """
    share = np.asarray(ideal, np.float64)
    some = share > 0
    largest = float((bounds.high[some] / share[some]).max(initial=0))
    return _settle(lambda level: share * level, largest, bounds)


def follow(
    sizes: Int[np.ndarray, " L"], rates: Float64[np.ndarray, " L"], bounds: Bounds
) -> Counts:
    """sizes * rates ** s, cut off at the bounds, of the exact sum, with one s for all layers.

    Args:
        sizes: the weights of each layer.
        rates: the density of each at s = 1.
        bounds: what the numbers keep to.

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


def _settle(
    wish: Callable[[float], Float[np.ndarray, " L"]], largest: float, bounds: Bounds
) -> Counts:
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
    # Remainders that are equal but for the level's rounding tie.
    order = np.argsort(-np.round(real - counts, 6), kind="stable")
    while (missing := total - int(counts.sum())) > 0:
        counts[order[(counts < high)[order]][:missing]] += 1
    return counts
