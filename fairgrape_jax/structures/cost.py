"""What a network costs with some of its structures: weights, operations, time of a call."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np

from fairgrape_jax.kernels import is_array
from fairgrape_jax.masks import Array, Tree
from fairgrape_jax.structures.coupling import Structures, is_float
from fairgrape_jax.structures.shrinking import shrink
from fairgrape_jax.structures.sum_rules import products


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a network costs.

    Attributes:
        weights: numbers in arrays of two or more axes.
        flops: floating point operations of the convolutions and matrix products of one call on the
            input that the structures were found with, a multiplication and an addition being two.
    """

    weights: int
    flops: int


class Counter:
    """Counts what a network costs, for any choice of its structures.

    Attributes:
        structures: of the network.
    """

    def __init__(self, structures: Structures) -> None:
        self.structures = structures
        followed = structures.followed
        owner = np.full(int(followed.components.max(initial=-1)) + 1, -1)
        for number, axes in zip(followed.program.inputs, structures.owners, strict=False):
            for places, owners in zip(followed.axes[number].places, axes, strict=True):
                owner[followed.components[places]] = owners
        self._lines: dict[int, np.ndarray] = {}
        self._products = []
        for equation in followed.program.equations:
            inputs = [followed.of(atom) for atom in equation.inputs]
            outputs = [followed.axes[number] for number in equation.outputs]
            if (axes_of_product := products(equation, inputs, outputs)) is not None:
                owners_of = [owner[followed.components[places]] for places in axes_of_product]
                self._products.append(Product.of(owners_of))
        self._arrays = [
            Product.of(axes)
            for leaf, axes in zip(_leaves(structures), structures.owners, strict=True)
            if len(leaf.shape) > 1 and is_float(leaf.dtype)
        ]

    def __call__(self, masks: Mapping[str, Array]) -> Cost:
        """What the network costs with the structures that are kept.

        Args:
            masks: (structures,) bool for each group.
        """
        alive = np.concatenate(self.structures.checked(masks))
        weights = sum(array.size(alive) for array in self._arrays)
        return Cost(weights, 2 * sum(product.size(alive) for product in self._products))

    def products(self, of: Literal["flops", "weights"]) -> list[Product]:
        """The products of sizes of which a cost is the sum.

        Args:
            of: what counts: multiplications of "flops", numbers of "weights".
        """
        return self._arrays if of == "weights" else self._products


@dataclasses.dataclass(frozen=True)
class Product:
    """A product of sizes, of which some depend on the structures that are kept.

    Attributes:
        whole: the product of those that do not.
        axes: of each other, the places of no structure, and the structures of its other places.
    """

    whole: int
    axes: tuple[tuple[int, np.ndarray], ...]

    @staticmethod
    def of(owners: Sequence[np.ndarray]) -> Product:
        """The product of the lengths of some axes.

        Args:
            owners: of each axis, the structure at each place, -1 for none.
        """
        axes = [(int((line < 0).sum()), line[line >= 0]) for line in owners]
        whole = int(np.prod([count for count, held in axes if not len(held)], dtype=object))
        return Product(whole, tuple((count, held) for count, held in axes if len(held)))

    def size(self, alive: np.ndarray) -> int:
        """The product, without what is pruned.

        Args:
            alive: (structures,) bool.
        """
        sizes = [count + int(np.count_nonzero(alive[held])) for count, held in self.axes]
        return self.whole * int(np.prod(sizes, dtype=object))


def kernel_norms(structures: Structures, params: Tree) -> Tree:
    """|w| of every array of two or more axes, as scores of one group; None for the others.

    Args:
        structures: of the network.
        params: its parameters.

    Returns:
        A tree of (1, *w.shape).
    """

    def absolute(leaf: Any) -> Any:
        if not is_array(leaf) or len(leaf.shape) < 2 or not is_float(leaf.dtype):
            return None
        return np.abs(np.asarray(jax.device_get(leaf), np.float64))[None]

    return jax.tree.map(absolute, params)


def time_call(function: Callable[..., Any], *args: Any, repeats: int = 10) -> float:
    """The median seconds of calls of a jitted function, after one that compiles it.

    Args:
        function: of arrays.
        args: the arrays.
        repeats: calls that are timed.
    """
    held = jax.device_put(args)
    jax.block_until_ready(function(*held))
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        jax.block_until_ready(function(*held))
        seconds.append(time.perf_counter() - begun)
    return float(np.median(seconds))


def latency(structures: Structures, params: Tree, masks: Mapping[str, Array], inputs: Any) -> float:
    """The median seconds of a call of the small network here.

    Args:
        structures: of the network.
        params: its parameters.
        masks: (structures,) bool for each group.
        inputs: the arrays that it is called with, a tuple.
    """
    small = shrink(structures, params, masks)
    return time_call(small.apply, small.params, *inputs)


def _leaves(structures: Structures) -> list[Any]:
    return [leaf for leaf in jax.tree.leaves(structures.params) if is_array(leaf)]
