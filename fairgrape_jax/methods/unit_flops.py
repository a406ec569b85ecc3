"""The density of weights at which a method with counts of its own is within a budget of operations.

For methods that keep whole filters, channels, stripes or kernels of single layers. A weight of a
layer is multiplied once for every place of the layer's output, so that the operations follow from
how many weights each layer keeps.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from fairgrape_jax.masks import Tree, layer_names
from fairgrape_jax.methods.base import Problem

HALVINGS = 50  # of the range in which the density is sought

Counts = Callable[[Problem, float], dict[str, int]]


def density_within_flops(problem: Problem, budget: float, counts: Counts) -> float:
    """The largest density of weights whose operations are within a budget.

    Args:
        problem: the network at the start of the round.
        budget: the part of the dense network's operations that may be left, 0 to 1.
        counts: (problem, density) to how many weights each layer keeps, as `Method.counts`.

    Returns:
        The part of ALL weights to keep.

    Raises:
        ValueError: a budget that no choice keeps to, or a layer whose output is not known.
    """
    cost_of = weight_costs(problem)
    masks = jax.tree.leaves(problem.masks)
    sizes = {name: mask.size for name, mask in zip(layer_names(problem.masks), masks, strict=True)}
    whole = operations(sizes, cost_of)

    def part(density: float) -> float:
        return operations(counts(problem, density), cost_of) / whole

    def fits(density: float) -> bool:
        try:
            return part(density) <= budget * (1 + 1e-12)
        except ValueError:  # more than is alive
            return False

    low, high = 0.0, 1.0
    if fits(high):
        return high
    if (least := part(low)) > budget:
        raise ValueError(
            f"budget: {budget:g} of the operations cannot be kept to: the least that is allowed "
            f"leaves {least:.4g}"
        )
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


def operations(counts: Mapping[str, int], cost_of: Mapping[str, int]) -> int:
    """Multiplications of a network for one picture.

    Args:
        counts: weights by layer.
        cost_of: multiplications of a weight, by layer.

    Example:
        >>> operations({"conv": 9, "head": 20}, {"conv": 64, "head": 1})
        596
    """
    return sum(count * cost_of[name] for name, count in counts.items())


def weight_costs(problem: Problem) -> dict[str, int]:
    """How often each weight of a layer is multiplied for one picture: the places of its output.

    Args:
        problem: with the module and the shape of a picture.

    Raises:
        ValueError: no module, or a layer that is no module of it.
    """
    if problem.module is None:
        raise ValueError("budget: operations are counted on a module, which only a run has")
    places = output_places(problem.module, tuple(problem.shape))
    names = layer_names(problem.masks)
    if missing := [name for name in names if name not in places]:
        raise ValueError(f"budget: layer {missing[0]} is no module, so its operations are unknown")
    return {name: places[name] for name in names}


@functools.cache
def output_places(module: nn.Module, shape: tuple[int, ...]) -> dict[str, int]:
    """The places of the output of every module of a network, one of each for a vector.

    Args:
        module: the network.
        shape: (H, W, C) of a picture.

    Example:
        >>> from fairgrape_jax import models
        >>> output_places(models.create("cnn", 3), (8, 8, 1))
        {'conv1': 64, 'conv2': 16, 'fc1': 1, 'fc2': 1, '': 1}
    """
    places: dict[str, int] = {}

    def note(
        call: Callable[..., Tree],
        args: tuple[Tree, ...],
        kwargs: dict[str, Tree],
        context: nn.module.InterceptorContext,
    ) -> Tree:
        output = call(*args, **kwargs)
        if context.method_name == "__call__" and hasattr(output, "shape"):
            places["/".join(context.module.path)] = int(np.prod(output.shape[1:-1], dtype=int))
        return output

    def init(key: jax.Array) -> Any:
        with nn.intercept_methods(note):
            return module.init(key, jnp.zeros((1, *shape), jnp.float32))

    jax.eval_shape(init, jax.random.key(0))
    return places
