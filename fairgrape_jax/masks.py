"""Masks as pytrees: which weights are alive, and what follows from it.

A mask tree has the structure of the parameters, a bool array where a leaf can be pruned (the
kernels of convolutions and dense layers) and None elsewhere. It is data, not structure: changing
it never recompiles anything. A pruned weight is held at zero twice, in the forward pass and after
the optimizer's update; masking gradients alone would let momentum and weight decay move it.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Bool, PyTree, Shaped, UInt8

from fairgrape_jax.kernels import Tree, full_masks, is_kernel

Array = jax.Array | np.ndarray
if TYPE_CHECKING:  # which knows no types of pytrees
    Masks = Tree
else:
    Masks = PyTree[Bool[Array, "..."]]  # None where not prunable, which is no leaf

__all__ = [
    "Array",
    "Masks",
    "Tree",
    "apply_masks",
    "as_real",
    "check_density",
    "check_masks",
    "check_nested",
    "density",
    "full_masks",
    "is_kernel",
    "kept",
    "layer_names",
    "map_masked",
    "native",
    "put_on_device",
    "select_prunable",
    "sparsity_table",
]


def map_masked(fn: Callable[..., Any], masks: Tree, *trees: Tree) -> Tree:
    """`fn(mask, *leaves)` at every leaf; `mask` is None where the leaf is not prunable.

    Args:
        fn: (mask, *leaves) to a leaf.
        masks: bool leaves, None where not prunable.
        trees: of the same structure.
    """
    return jax.tree.map(fn, masks, *trees, is_leaf=lambda leaf: leaf is None)


def apply_masks(masks: Masks, params: Tree) -> Tree:
    """Parameters times mask.

    Args:
        masks: bool arrays of the shapes of the parameters, None where not prunable.
        params: arrays of any dtype, which they keep.

    Returns:
        The parameters, zero where pruned.

    Example:
        >>> apply_masks({"kernel": jnp.array([True, False])}, {"kernel": jnp.array([2.0, 3.0])})
        {'kernel': Array([2., 0.], dtype=float32)}
    """
    return map_masked(
        lambda m, p: p if m is None else _zero_where_pruned(put_on_device(m), put_on_device(p)),
        masks,
        params,
    )


def native(array: ArrayLike | np.generic) -> Shaped[np.ndarray, " ..."]:
    """A NumPy array in a dtype and byte order that devices know, of the same values.

    Args:
        array: of any dtype and byte order.

    Example:
        >>> native(np.array([1.0], ">f4")).dtype
        dtype('float32')
    """
    array = np.asarray(array)
    dtype = array.dtype.newbyteorder("=")
    return array.astype(np.float64 if dtype == np.longdouble else dtype, copy=False)


def check_masks(masks: Tree, params: Tree) -> None:
    """ValueError, with the layer's name, unless masks are bool arrays of the prunable weights.

    Args:
        masks: what is checked.
        params: what it has to fit.
    """
    names, leaves = layer_names(masks), jax.tree.leaves(masks)
    if not names:
        raise ValueError("masks: no layer is prunable; every leaf is None")
    try:
        weights = jax.tree.leaves(select_prunable(masks, params))
    except (ValueError, TypeError) as error:
        raise ValueError(f"masks: not of the structure of the parameters ({error})") from error
    for name, mask, leaf in zip(names, leaves, weights, strict=True):
        dtype, shape = jnp.result_type(mask), jnp.shape(mask)
        if not jnp.issubdtype(dtype, jnp.bool_) or shape != jnp.shape(leaf):
            raise ValueError(
                f"masks of layer {name}: {dtype} {shape}; bool {jnp.shape(leaf)} is expected"
            )


def put_on_device(array: Shaped[Array, "*s"]) -> Shaped[jax.Array, "*s"]:
    """Moved there explicitly, as transfer guards want it; what is traced stays as it is.

    Args:
        array: of NumPy or JAX, or traced.
    """
    return array if isinstance(array, jax.Array) else jax.device_put(native(array))


@functools.partial(jax.jit, inline=True)  # in eager calls its constant is part of a program
def _zero_where_pruned(
    mask: Bool[jax.Array, "*s"], weights: Shaped[jax.Array, "*s"]
) -> Shaped[jax.Array, "*s"]:
    return jnp.where(mask, weights, jnp.zeros_like(weights))


def select_prunable(masks: Tree, tree: Tree) -> Tree:
    """`tree` with None wherever `masks` has None: what importance is computed for.

    Args:
        masks: bool leaves, None where not prunable.
        tree: of the same structure.
    """
    return map_masked(lambda m, leaf: None if m is None else leaf, masks, tree)


def layer_names(masks: Tree) -> list[str]:
    """The names of the prunable layers, in the order of `jax.tree.leaves(masks)`.

    A name is the path of the layer: of its kernel, without "kernel".

    Args:
        masks: bool leaves, None where not prunable.

    Example:
        >>> layer_names({"conv": {"kernel": np.ones((1, 2), bool), "bias": None}})
        ['conv']
        >>> layer_names([{"kernel": np.ones((1, 2), bool)}, np.ones((2, 1), bool)])
        ['0', '1']
    """
    paths = [
        jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        for path, _ in jax.tree_util.tree_flatten_with_path(masks)[0]
    ]
    return ["/".join(path[:-1] if path[-1] == "kernel" else path) for path in paths]


def kept(n: int, density: float) -> int:
    """How many of a layer's n weights are kept: floor(n * density), as the official code does.

    Densities are decimals that binary floats miss by a little (1 - 0.9 < 0.1); a millionth of a
    weight is added before rounding down so that such a miss costs no weight.

    Args:
        n: weights of the layer, or of the network.
        density: the part to keep, 0 to 1.

    Raises:
        ValueError: a density outside 0..1, NaN among them.

    Example:
        >>> kept(100, 1 - 0.9), kept(25, 0.5)
        (10, 12)
    """
    check_density(density)
    return min(n, math.floor(n * float(density) + 1e-6))


def check_density(density: float) -> None:
    """ValueError unless a density is a number from 0 to 1; NaN is none.

    Args:
        density: of any type.
    """
    if not 0 <= as_real(density) <= 1:
        raise ValueError(
            f"density: {density} is not between 0 and 1; it is the part of the weights to keep"
        )


def as_real(value: Any) -> float:
    """A real number of any type as a float; NaN for what is none: text, None, several numbers.

    Args:
        value: of any type.

    Example:
        >>> as_real(np.float32(0.5)), as_real("0.5"), as_real([0.5])
        (0.5, nan, nan)
    """
    if isinstance(value, str | bytes) or np.ndim(value):
        return math.nan
    try:
        return float(jax.device_get(value))
    except (TypeError, ValueError, OverflowError):
        return math.nan


def density(masks: Masks) -> float:
    """Weights alive over all prunable weights.

    Args:
        masks: bool leaves, None where not prunable.

    Raises:
        ValueError: masks without a prunable weight.
    """
    leaves = jax.device_get(jax.tree.leaves(masks))
    weights = sum(leaf.size for leaf in leaves)
    if not weights:
        raise ValueError("masks: no weight is prunable")
    return sum(int(np.sum(leaf)) for leaf in leaves) / weights


def sparsity_table(masks: Masks) -> list[dict[str, Any]]:
    """One row per prunable layer: its name, its weights, how many are alive.

    Args:
        masks: bool leaves, None where not prunable.
    """
    leaves = jax.device_get(jax.tree.leaves(masks))
    return [
        {"layer": name, "weights": int(leaf.size), "alive": int(np.sum(leaf))}
        for name, leaf in zip(layer_names(masks), leaves, strict=True)
    ]


def check_nested(new: Masks, previous: Masks) -> None:
    """Raise ValueError unless every weight alive in `new` is alive in `previous`.

    Args:
        new: masks.
        previous: masks of the same structure, which name the layers.
    """
    after, before = (jax.device_get(jax.tree.leaves(tree)) for tree in (new, previous))
    for name, late, early in zip(layer_names(previous), after, before, strict=True):
        if np.any(late & ~early):
            raise ValueError(f"masks: layer {name} revives weights that were pruned before")


def pack(mask: Bool[Array, " ..."]) -> UInt8[np.ndarray, " bytes"]:
    """A mask as packed bits, eight weights in a byte; see `unpack`.

    Args:
        mask: bool, of any shape.

    Example:
        >>> pack(np.array([[True, False], [False, True]])).tolist()
        [144]
    """
    return np.packbits(np.asarray(mask))


def unpack(bits: UInt8[np.ndarray, " bytes"], shape: Sequence[int]) -> Bool[np.ndarray, " ..."]:
    """The bool mask of a shape from the bits that `pack` makes.

    Args:
        bits: as `pack` makes them.
        shape: of the mask.

    Example:
        >>> unpack(np.array([144], np.uint8), (2, 2)).tolist()
        [[True, False], [False, True]]
    """
    return np.unpackbits(bits, count=math.prod(shape)).astype(bool).reshape(shape)
