"""Find the channels of a network that can only be pruned together, from the network itself."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from fairgrape_jax.kernels import is_array
from fairgrape_jax.masks import Array, Tree
from fairgrape_jax.structures.following import Followed, follow_program
from fairgrape_jax.structures.groups import Group, find_groups
from fairgrape_jax.structures.program import trace


@dataclasses.dataclass(frozen=True)
class Structures:
    """What of a network can be pruned so that it gets smaller.

    Attributes:
        groups: in the order of the network.
        whole: layers that stay whole as far as their outputs go, by name, and why.
        names: of all leaves of the parameters: their paths.
        params: the parameters as shapes and dtypes.
        apply: (params, x) to the outputs.
        followed: the program of `apply`, from which the groups were found.
        inputs: what `apply` was traced with, as shapes.
    """

    groups: tuple[Group, ...]
    whole: dict[str, str]
    names: tuple[str, ...]
    params: Tree
    apply: Callable[..., Any]
    followed: Followed
    inputs: tuple[Any, ...]

    @functools.cached_property
    def owners(self) -> tuple[tuple[np.ndarray, ...], ...]:
        """For every leaf and axis, (places) int: the number of the structure there, -1 of none.

        Structures are numbered group by group.
        """
        shapes = [leaf.shape for leaf in jax.tree.leaves(self.params) if is_array(leaf)]
        table = tuple(tuple(np.full(n, -1) for n in shape) for shape in shapes)
        first = 0
        for group in self.groups:
            for member in group.members:
                numbers = first + np.arange(group.size)[:, None]
                table[member.leaf][member.axis][member.places] = numbers
            first += group.size
        return table

    def kept(self, masks: Mapping[str, Array]) -> list[list[np.ndarray]]:
        """For every leaf and axis, (places) bool: which places are kept.

        Args:
            masks: (structures,) bool of each group.

        Raises:
            ValueError: masks that are not those of the groups, or a group that keeps nothing.
        """
        flat = [*self.checked(masks), np.ones(1, bool)]  # the last is that of no structure
        alive = np.concatenate(flat)
        return [[alive[owner] for owner in axes] for axes in self.owners]

    def checked(self, masks: Mapping[str, Array]) -> list[np.ndarray]:
        """The masks of all groups in their order.

        Args:
            masks: (structures,) bool of each group.

        Raises:
            ValueError: as `kept`.
        """
        names = [group.name for group in self.groups]
        if sorted(masks) != sorted(names):
            raise ValueError(
                f"masks: are of {', '.join(masks) or 'nothing'}; the groups of structures are "
                f"{', '.join(names)}"
            )
        result = [np.asarray(jax.device_get(masks[name])) for name in names]
        for group, mask in zip(self.groups, result, strict=True):
            if mask.dtype != bool or mask.shape != (group.size,):
                raise ValueError(
                    f"masks of group {group.name}: {mask.dtype} {mask.shape}; bool "
                    f"({group.size},) is expected"
                )
            if not mask.any():
                raise ValueError(
                    f"masks of group {group.name}: keep no structure, and a layer of none gives "
                    "nothing; keep 1 at least"
                )
        return result

    def full_masks(self) -> dict[str, np.ndarray]:
        """Masks of structures that keep all of them: (structures,) bool for each group."""
        return {group.name: np.ones(group.size, bool) for group in self.groups}

    def members(self, name: str) -> list[str]:
        """The axes that a group holds, as "layer/leaf[axis]".

        Args:
            name: of the group.
        """
        (group,) = (group for group in self.groups if group.name == name)
        return [f"{self.names[member.leaf]}[{member.axis}]" for member in group.members]


def find_structures(apply: Callable[..., Any], params: Tree, x: Any, *more: Any) -> Structures:
    """The coupled channels of any network, found by following its parameters through its program.

    Channels that meet in a sum, a product of the same places, a depthwise convolution or a batch
    norm are one structure, with the columns of all layers that read them, over a flattening and a
    concatenation too. Inputs and outputs are never part of one. Where an operation cannot be
    followed, the channels that reach it stay whole, and `whole` says which and why.

    Args:
        apply: (params, x, *more) to the outputs, a pytree; of a Linen module `module.apply`, whose
            params are then all of its variables, running statistics among them.
        params: any pytree of arrays, or their shapes.
        x: an input of it, a pytree of arrays with a batch axis, or their shapes.
        more: further arguments of it.

    Returns:
        The groups, in the order of the network.

    Raises:
        ValueError: the network cannot be traced, or no channel of it can be pruned; what each layer
            stays whole for follows.

    Source:
        Fang et al., "DepGraph: Towards Any Structural Pruning" (2023), whose groups these are.

    Example:
        >>> def apply(params, x):
        ...     return jax.nn.relu(x @ params["a"]["w"] + params["a"]["b"]) @ params["c"]["w"]
        >>> params = {
        ...     "a": {"w": np.ones((4, 5)), "b": np.ones(5)},
        ...     "c": {"w": np.ones((5, 2))},
        ... }
        >>> structures = find_structures(apply, params, np.ones((1, 4)))
        >>> [(group.name, group.size) for group in structures.groups]
        [('a', 5)]
        >>> structures.members("a")
        ['a/b[0]', 'a/w[1]', 'c/w[0]']
        >>> structures.whole
        {'c': 'an output of the network'}
    """
    leaves, function = on_leaves(apply, params)
    shapes = [jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype) for leaf in leaves.values()]
    inputs = jax.tree.map(lambda a: jax.ShapeDtypeStruct(np.shape(a), _dtype(a)), (x, *more))
    try:
        program, _ = trace(function, shapes, *inputs)
    except Exception as error:
        raise ValueError(
            "apply: cannot be traced with these params and this x "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
        ) from error
    followed = follow_program(program, [is_float(shape.dtype) for shape in shapes])
    names = tuple(leaves)
    groups, whole = find_groups(followed, names)
    if not groups:
        raise ValueError(
            "apply: no channel of this network can be pruned; "
            + "; ".join(f"{name} stays whole because of {why}" for name, why in whole.items())
        )
    template = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(np.shape(leaf), leaf.dtype) if is_array(leaf) else leaf,
        params,
    )
    return Structures(groups, whole, names, template, apply, followed, inputs)


def is_float(dtype: Any) -> bool:
    """Whether numbers of this type are weights.

    Args:
        dtype: of NumPy or JAX.
    """
    return bool(jax.numpy.issubdtype(dtype, jax.numpy.inexact))


def on_leaves(
    function: Callable[..., Any], params: Tree
) -> tuple[dict[str, Any], Callable[..., Any]]:
    """The arrays of a tree by their paths, and the function as one of a list of them.

    Args:
        function: (params, *args).
        params: any pytree; what is no array of it is held fixed.

    Returns:
        The arrays, and (list of arrays, *args) to the results.
    """
    flat, structure = jax.tree_util.tree_flatten_with_path(params)
    arrays = {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in flat
        if is_array(leaf)
    }

    def on_list(leaves: Sequence[Any], *args: Any) -> Any:
        rest = iter(leaves)
        merged = [next(rest) if is_array(leaf) else leaf for _, leaf in flat]
        return function(jax.tree.unflatten(structure, merged), *args)

    return arrays, on_list


def _dtype(leaf: Any) -> Any:
    return leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype
