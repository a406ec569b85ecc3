"""Build the smaller network: parameters without the pruned structures, and any function of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from fairgrape_jax.kernels import is_array
from fairgrape_jax.masks import Array, Tree
from fairgrape_jax.structures.coupling import (
    Structures,
    find_structures,
    is_float,
    on_leaves,
)
from fairgrape_jax.structures.following import follow_program, run
from fairgrape_jax.structures.program import trace

__all__ = ["Small", "find_structures", "remove", "shrink", "zero", "zero_masks"]


@dataclasses.dataclass(frozen=True)
class Small:
    """A network without the structures that were pruned.

    Attributes:
        params: its parameters, smaller arrays in the same tree.
        apply: (params, x) to the outputs: the network's program with smaller shapes, compiled.
        structures: those of the whole network.
        masks: which of them are kept, (structures,) bool for each group.
    """

    params: Tree
    apply: Callable[..., Any]
    structures: Structures
    masks: dict[str, np.ndarray]

    def function(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Another function of the network's parameters, of the small ones: a loss, a training pass.

        Args:
            function: (params, *args), of pytrees of arrays, written for the whole network.

        Returns:
            The same of the small parameters, to be jitted and differentiated. What it gives in the
            shape of the parameters or of their statistics is smaller likewise.
        """
        return shrunk_function(self.structures, self.masks, function)


def shrink(structures: Structures, params: Tree, masks: Mapping[str, Array]) -> Small:
    """The smaller dense network that gives what the masked one gives.

    Its parameters are cut, and the program of `apply` is run with smaller shapes, so that a network
    of any library gets smaller, also one whose widths are written in its code; a function that
    reads its shapes from the parameters takes the small ones as it is.

    Args:
        structures: as `find_structures` has found them.
        params: the parameters.
        masks: (structures,) bool for each group, which are kept.

    Returns:
        The small network.

    Raises:
        ValueError: params or masks that are not of these structures; a group without structures.

    Example:
        >>> params = {"a": np.ones((4, 5)), "b": np.ones((5, 2))}
        >>> structures = find_structures(lambda p, x: x @ p["a"] @ p["b"], params, np.ones((1, 4)))
        >>> small = shrink(structures, params, {"a": np.arange(5) < 3})
        >>> small.params["a"].shape, small.params["b"].shape
        ((4, 3), (3, 2))
        >>> small.apply(small.params, np.ones((1, 4), np.float32)).tolist()
        [[12.0, 12.0]]
    """
    small = remove(structures, params, masks)
    kept = {g.name: m for g, m in zip(structures.groups, structures.checked(masks), strict=True)}
    function = jax.jit(_on_arrays(shrunk_function(structures, kept, structures.apply), small))

    def apply(params: Tree, *args: Any) -> Any:
        return function([leaf for leaf in jax.tree.leaves(params) if is_array(leaf)], *args)

    return Small(small, apply, structures, kept)


def _on_arrays(function: Callable[..., Any], params: Tree) -> Callable[..., Any]:
    """A function of a tree like `params` as one of its arrays: what is none is held fixed."""
    return on_leaves(function, params)[1]


def remove(structures: Structures, params: Tree, masks: Mapping[str, Array]) -> Tree:
    """Parameters, or any tree like them, without the structures that are pruned.

    Args:
        structures: of the network.
        params: a tree of its structure: parameters, gradients, an optimizer's moments.
        masks: (structures,) bool for each group.

    Returns:
        The tree with smaller arrays.

    Raises:
        ValueError: arrays of other shapes, or masks that do not fit.
    """
    kept = structures.kept(masks)
    _check_params(structures, params)
    rest = iter(kept)

    def cut(leaf: Any) -> Any:
        if not is_array(leaf):
            return leaf
        for axis, there in enumerate(next(rest)):
            if not there.all():
                leaf = leaf.take(np.flatnonzero(there), axis=axis)
        return leaf

    return jax.tree.map(cut, params)


def zero(structures: Structures, params: Tree, masks: Mapping[str, Array]) -> Tree:
    """The masked network: parameters that are 0 where a structure is pruned.

    Args:
        structures: of the network.
        params: its parameters.
        masks: (structures,) bool for each group.

    Returns:
        A tree of the same shapes.

    Raises:
        ValueError: as `remove`.
    """
    rest = iter(structures.kept(masks))
    _check_params(structures, params)

    def clear(leaf: Any) -> Any:
        return _zeroed(leaf, next(rest)) if is_array(leaf) else leaf

    return jax.tree.map(clear, params)


def zero_masks(structures: Structures, weights: Tree, masks: Mapping[str, Array]) -> Tree:
    """Masks of weights without those of pruned structures.

    Args:
        structures: of the network.
        weights: masks of weights, None where not prunable.
        masks: (structures,) bool for each group.

    Returns:
        NumPy masks of the structure of `weights`.

    Raises:
        ValueError: masks that do not fit.

    Example:
        >>> params = {"a": np.ones((1, 3)), "b": np.ones((3, 1))}
        >>> structures = find_structures(lambda p, x: x @ p["a"] @ p["b"], params, np.ones((1, 1)))
        >>> weights = {"a": np.ones((1, 3), bool), "b": None}
        >>> zero_masks(structures, weights, {"a": np.array([True, False, True])})
        {'a': array([[ True, False,  True]]), 'b': None}
    """
    kept = dict(zip(structures.names, structures.kept(masks), strict=True))
    flat, structure = jax.tree_util.tree_flatten_with_path(weights, is_leaf=lambda x: x is None)
    names = [jax.tree_util.keystr(path, simple=True, separator="/") for path, _ in flat]
    leaves = [
        leaf if leaf is None or name not in kept else _zeroed(np.asarray(leaf), kept[name])
        for name, (_, leaf) in zip(names, flat, strict=True)
    ]
    return jax.tree.unflatten(structure, leaves)


def _zeroed(array: Any, kept: list[np.ndarray]) -> Any:
    for axis, there in enumerate(kept):
        if not there.all():
            shape = [-1 if i == axis else 1 for i in range(array.ndim)]
            array = array * there.reshape(shape).astype(array.dtype)
    return array


def shrunk_function(
    structures: Structures, masks: Mapping[str, Array], function: Callable[..., Any]
) -> Callable[..., Any]:
    """A function of the whole network's parameters as one of the small ones.

    Args:
        structures: of the network.
        masks: (structures,) bool for each group.
        function: (params, *args), of pytrees of arrays.
    """
    kept = structures.kept(masks)

    def small(params: Tree, *args: Any) -> Any:
        arrays, on_list = on_leaves(function, structures.params)
        shapes = list(arrays.values())
        program, result = trace(on_list, shapes, *args)
        followed = follow_program(program, [is_float(shape.dtype) for shape in shapes])
        components = followed.components
        removed = np.zeros(int(components.max(initial=-1)) + 1, bool)
        leaves = [leaf for leaf in jax.tree.leaves(params) if is_array(leaf)]
        for number, axes in zip(program.inputs, kept, strict=False):
            for places, there in zip(followed.axes[number].places, axes, strict=True):
                removed[components[places[~there]]] = True
        firm = followed.labels.reasons(components, soft=False)
        for name, number, axes, leaf in zip(
            structures.names, program.inputs, kept, leaves, strict=False
        ):
            for axis, (places, there) in enumerate(
                zip(followed.axes[number].places, axes, strict=True)
            ):
                why = [firm[c] for c in components[places[~there]].tolist() if c in firm]
                if why or (removed[components[places]] == there).any():
                    raise ValueError(
                        f"function: cannot be run without pruned places of {name}"
                        + (f", because of {why[0]}" if why else ", which it joins with others")
                    )
                if leaf.shape[axis] != there.sum():
                    raise ValueError(
                        f"params: {name} is {leaf.shape}; with these masks its axis {axis} has "
                        f"{int(there.sum())} places"
                    )
        flat = [jnp.asarray(leaf) for leaf in [*leaves, *jax.tree.leaves(args)]]
        return jax.tree.unflatten(jax.tree.structure(result), run(followed, removed, flat))

    return small


def _check_params(structures: Structures, params: Tree) -> None:
    leaves, _ = on_leaves(lambda p: p, params)
    shapes = [leaf.shape for leaf in jax.tree.leaves(structures.params) if is_array(leaf)]
    if tuple(leaves) != structures.names:
        other = sorted(set(leaves) ^ set(structures.names))
        raise ValueError(f"params: {other[0] if other else 'their order'} differs from the network")
    for (name, leaf), shape in zip(leaves.items(), shapes, strict=True):
        if tuple(leaf.shape) != tuple(shape):
            raise ValueError(f"params: {name} is {leaf.shape}, of the network {shape}")
