"""A gate for every structure: what it gives goes on times the gate, and costs as much of itself.

What reads a structure is a sum over its places, so that a gate may multiply the weights there
instead: after norms and activations, once on every way, whatever the channel is coupled with.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from fairgrape_jax.masks import Tree
from fairgrape_jax.structures.cost import Counter
from fairgrape_jax.structures.coupling import Structures
from fairgrape_jax.structures.groups import Group, Member, layer

Gates = Float[jax.Array, " structures"]
Numbers = jax.Array | np.ndarray
# For every leaf of the parameters, for each of its axes that has gates: (1, ..., places, ..., 1)
# int32, the number of the structure at each place; that after the last one is of none.
Owners = tuple[tuple[np.ndarray, ...], ...]


def find_readers(structures: Structures) -> Owners:
    """Where the weights lie that read each structure.

    Where nothing does, a product of two activations for example, the kernel and the bias that make
    it first stand for them.

    Args:
        structures: of the network, numbered group by group.

    Example:
        >>> from fairgrape_jax.structures import find_structures
        >>> params = {"a": np.ones((1, 3)), "b": np.ones((3, 1))}
        >>> structures = find_structures(lambda p, x: x @ p["a"] @ p["b"], params, np.ones((1, 1)))
        >>> [[axis.tolist() for axis in leaf] for leaf in find_readers(structures)]
        [[], [[[0], [1], [2]]]]
    """
    shapes = [leaf.shape for leaf in jax.tree.leaves(structures.params)]
    total = sum(group.size for group in structures.groups)
    table: list[dict[int, np.ndarray]] = [{} for _ in shapes]
    first = 0
    for group in structures.groups:
        for member in _readers(structures, group):
            shape = shapes[member.leaf]
            line = np.full(shape[member.axis], total, np.int32)
            line = table[member.leaf].setdefault(member.axis, line)
            line[member.places] = first + np.arange(group.size)[:, None]
        first += group.size

    def lying(line: np.ndarray, axis: int, ndim: int) -> np.ndarray:
        return line.reshape([-1 if i == axis else 1 for i in range(ndim)])

    return tuple(
        tuple(lying(line, axis, len(shape)) for axis, line in lines.items())
        for shape, lines in zip(shapes, table, strict=True)
    )


def _readers(structures: Structures, group: Group) -> list[Member]:
    followed = structures.followed

    def reads(member: Member) -> bool:
        axes = followed.axes[followed.program.inputs[member.leaf]]
        return followed.labels.is_contracted(axes, member.axis)

    maker = group.name.partition(":")[0]
    made = [one for one in group.members if layer(structures.names[one.leaf]) == maker]
    return [member for member in group.members if reads(member)] or made


def gate(owners: Owners, params: Tree, gates: Gates) -> Tree:
    """The parameters of a network in which what each structure gives is multiplied by its gate.

    Args:
        owners: as `find_readers` gives them.
        params: of the network.
        gates: a factor for each structure.
    """
    leaves, structure = jax.tree.flatten(params)
    factors = jnp.append(gates, jnp.ones((), gates.dtype))

    def scaled(leaf: jax.Array, axes: Sequence[np.ndarray]) -> jax.Array:
        each = (factors[owner].astype(leaf.dtype) for owner in axes)
        return functools.reduce(jnp.multiply, each, leaf)

    return jax.tree.unflatten(structure, [*map(scaled, leaves, owners)])


def sum_read(owners: Owners, products: Tree, number: int) -> Gates:
    """The sum over the weights that read each structure.

    Of w dL/dw it is z dL/dz, z the gate: the gradient in the logarithm of the gate.

    Args:
        owners: as `find_readers` gives them.
        products: what is summed, a tree of the shapes of the parameters.
        number: of structures.
    """
    total = jnp.zeros(number + 1)
    for leaf, axes in zip(jax.tree.leaves(products), owners, strict=True):
        for owner in axes:
            others = tuple(i for i, size in enumerate(owner.shape) if size == 1)
            line = leaf.astype(total.dtype).sum(axis=others, keepdims=True)
            total = total.at[owner.reshape(-1)].add(line.reshape(-1))
    return total[:-1]


class SoftCost(NamedTuple):
    """What a network costs as a function of gates: products of sizes, in which a gate counts.

    Attributes:
        whole: (products,) float32, the part of the whole network's cost of one place.
        places: (products, axes) float32, of no structure.
        structures: (n,) int32, at all other places of all axes.
        axes: (n,) int32, the number of the axis of each.
    """

    whole: Numbers
    places: Numbers
    structures: Numbers
    axes: Numbers

    def part(self, gates: Gates | np.ndarray) -> jax.Array:
        """The part of the whole network's cost, (); that of `Counter` where gates are 0 or 1.

        Args:
            gates: of each structure, 0 to 1.
        """
        each = jnp.asarray(gates)[self.structures]
        there = jax.ops.segment_sum(each, jnp.asarray(self.axes), self.places.size)
        sizes = self.places + there.reshape(self.places.shape)
        return (self.whole * sizes.prod(axis=1)).sum()


def soft_cost(structures: Structures, of: Literal["flops", "weights"]) -> SoftCost:
    """The cost of a network as a function of gates, in NumPy arrays.

    Args:
        structures: of the network.
        of: what counts.

    Example:
        >>> from fairgrape_jax.structures import find_structures
        >>> params = {"a": np.ones((1, 3)), "b": np.ones((3, 1))}
        >>> structures = find_structures(lambda p, x: x @ p["a"] @ p["b"], params, np.ones((1, 1)))
        >>> cost = soft_cost(structures, "flops")
        >>> round(float(cost.part(jnp.array([1.0, 0.5, 0.0]))), 6)
        0.5
    """
    products = Counter(structures).products(of)
    most = max((len(product.axes) for product in products), default=0)
    alive = np.ones(sum(group.size for group in structures.groups), bool)
    whole = np.array([product.whole for product in products], float)
    places = np.ones((len(products), most), np.float32)
    numbers, axes = [np.zeros(0, int)], [np.zeros(0, int)]
    for row, product in enumerate(products):
        for axis, (count, held) in enumerate(product.axes):
            places[row, axis] = count
            numbers.append(held)
            axes.append(np.full(len(held), row * most + axis))
    total = sum(product.size(alive) for product in products)
    return SoftCost(
        (whole / total).astype(np.float32),
        places,
        np.concatenate(numbers).astype(np.int32),
        np.concatenate(axes).astype(np.int32),
    )
