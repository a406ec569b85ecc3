"""Which leaves of a pytree of parameters are pruned: the kernels, in whatever library made them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

Tree = Any  # a pytree of arrays
Path = tuple[Any, ...]  # the keys of a leaf, as jax.tree_util.tree_flatten_with_path gives them

KERNELS = ("kernel", "weight", "w")
# A matrix called weight or w is the table of an embedding, or stacked scales, where its module or
# the name of that says so. What is called kernel is one.
NO_KERNELS = re.compile(r"emb(ed|$|_)|norm|(^|_)(bn|ln)\d*$", re.IGNORECASE)
SHOWN = 12  # leaves in an error


def is_kernel(path: Path, leaf: object) -> bool:
    """Whether a leaf is the kernel of a convolution or dense layer.

    Floating numbers of two or more dimensions, named kernel, weight or w: not biases, embeddings,
    or scales of a normalisation, even where these are stacked to matrices.

    Args:
        path: its keys, as `jax.tree_util.tree_flatten_with_path` gives them.
        leaf: the array, or its shape and dtype; anything else is none.

    Example:
        >>> path = (jax.tree_util.DictKey("head"), jax.tree_util.DictKey("kernel"))
        >>> is_kernel(path, jnp.ones((3, 2))), is_kernel(path, jnp.ones(3))
        (True, False)
    """
    shape, dtype = getattr(leaf, "shape", None), getattr(leaf, "dtype", None)
    if shape is None or dtype is None or len(shape) < 2 or not _is_float(dtype):
        return False
    *modules, name = _names(path) or [""]
    if name not in KERNELS:
        return False
    return name == "kernel" or len(shape) > 2 or not (modules and NO_KERNELS.search(modules[-1]))


def is_pointwise(path: Path, leaf: object) -> bool:
    """Whether a leaf is the kernel of a 1x1 convolution, (1, 1, inputs, outputs).

    The one pattern of single zeros that mobile runtimes are fast with.

    Args:
        path: its keys, as for `is_kernel`.
        leaf: the array, or its shape and dtype.

    Example:
        >>> path = (jax.tree_util.DictKey("kernel"),)
        >>> [is_pointwise(path, jnp.ones(s)) for s in ((1, 1, 8, 4), (3, 3, 8, 4), (8, 4))]
        [True, False, False]
    """
    shape = getattr(leaf, "shape", ())
    return is_kernel(path, leaf) and len(shape) == 4 and tuple(shape[:2]) == (1, 1)


# What a run may prune, by the name of the choice.
PRUNABLE: dict[str, Callable[[Path, Any], bool]] = {"kernels": is_kernel, "1x1": is_pointwise}


def full_masks(params: Tree, prunable: Callable[[Path, Any], bool] = is_kernel) -> Tree:
    """Masks that keep everything.

    Args:
        params: any pytree: a Linen dict, an NNX state, an Equinox module, Haiku's dicts, lists,
            tuples; arrays, or their shapes and dtypes.
        prunable: (path, leaf) to whether a leaf is pruned.

    Returns:
        A tree of the structure of `params`: NumPy masks, True for each prunable weight; None for
        the other leaves.

    Raises:
        ValueError: nothing is prunable; the leaves that there are follow.

    Example:
        >>> full_masks({"kernel": jnp.ones((1, 2)), "bias": jnp.ones(2)})
        {'bias': None, 'kernel': array([[ True,  True]])}
        >>> full_masks([jnp.ones((1, 2)), jnp.ones(2)], lambda path, leaf: leaf.ndim > 1)
        [array([[ True,  True]]), None]
    """
    flat, structure = jax.tree_util.tree_flatten_with_path(params)
    exempt = _of_other_modules(params) if prunable is is_kernel else frozenset()
    masks = [
        np.ones(leaf.shape, bool) if path not in exempt and prunable(path, leaf) else None
        for path, leaf in flat
    ]
    if all(mask is None for mask in masks):
        raise ValueError(_nothing(flat))
    return jax.tree.unflatten(structure, masks)


def _of_other_modules(params: Tree) -> frozenset[Path]:
    """The leaves of modules whose class says that they hold no kernel: Embedding, LayerNorm."""

    def is_module(node: object) -> bool:
        kind = type(node)
        plain = isinstance(node, dict | list) or kind.__module__ == "builtins"
        return not plain and bool(NO_KERNELS.search(kind.__name__))

    flat = jax.tree_util.tree_flatten_with_path(params, is_leaf=is_module)[0]
    return frozenset(
        (*path, *inner)
        for path, node in flat
        if is_module(node)
        for inner, _ in jax.tree_util.tree_flatten_with_path(node)[0]
    )


def _nothing(flat: list[tuple[Path, object]]) -> str:
    shown = [f"{jax.tree_util.keystr(path) or 'params'} {_kind(leaf)}" for path, leaf in flat]
    more = [f"and {len(shown) - SHOWN} more"] if len(shown) > SHOWN else []
    return (
        "params: no leaf is prunable. By default these are floating numbers of two or more "
        f"dimensions named {', '.join(KERNELS)}; give prunable=lambda path, leaf: ... "
        f"The leaves are: {'; '.join([*shown[:SHOWN], *more]) or 'none'}"
    )


def is_array(leaf: object) -> bool:
    """Whether a leaf is an array, or its shape and dtype.

    Args:
        leaf: anything.

    Example:
        >>> is_array(jnp.ones(2)), is_array(jax.ShapeDtypeStruct((2,), jnp.float32)), is_array(2.0)
        (True, True, False)
    """
    return hasattr(leaf, "shape") and hasattr(leaf, "dtype")


def _kind(leaf: Any) -> str:
    if is_array(leaf):
        return f"{leaf.dtype}{list(leaf.shape)}"
    return type(leaf).__name__


def _is_float(dtype: DTypeLike) -> bool:
    return jnp.issubdtype(dtype, jnp.floating)


def _names(path: Path) -> list[str]:
    """The names in a path, without numbers, and without the "value" of NNX's variables."""
    names = [str(getattr(key, "name", getattr(key, "key", ""))) for key in path]
    names = [name for name in names if name and not name.isdigit()]
    return names[:-1] if len(names) > 1 and names[-1] == "value" else names
