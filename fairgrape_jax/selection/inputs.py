"""Checks what a choice is made from, and brings scores of any dtype into a form that ranks exactly.

A dtype never decides silently. Integers rank as integers, half floats as the float32 that they are
exactly; what float32 cannot hold (float64, large integers) is told apart by `float32_exactly`, and
is ranked on the host.
"""

from __future__ import annotations

import operator
import warnings
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Bool, PyTree, Shaped

from fairgrape_jax.masks import Array

# (G, n); unchecked names, for (n, G) is turned where that cannot be mistaken.
LayerScores = Shaped[Array, "_groups _n"]
LayerMask = Bool[Array, " n"]
if TYPE_CHECKING:  # which knows no types of pytrees
    TreeScores = Any
else:
    TreeScores = PyTree[Shaped[Array, "_groups ..."]]  # None where masks have None
NumpyMask = Bool[np.ndarray, " n"]  # what is chosen on the host
EXACT_INTEGERS = 2**24  # up to here every integer is a float32


def on_host(array: ArrayLike) -> np.ndarray:
    """A NumPy array of what may lie on a device; an explicit transfer.

    Args:
        array: of NumPy or JAX, or what NumPy makes one of.

    Example:
        >>> on_host(jnp.arange(2))
        array([0, 1], dtype=int32)
    """
    return np.asarray(jax.device_get(array) if isinstance(array, jax.Array) else array)


def is_real(dtype: DTypeLike) -> bool:
    """Whether numbers of this dtype can be ranked: floats, integers and bool of any width.

    Args:
        dtype: of NumPy or JAX.

    Example:
        >>> is_real(jnp.bfloat16), is_real(np.uint8), is_real(np.complex64), is_real(object)
        (True, True, False, False)
    """
    return any(jnp.issubdtype(dtype, kind) for kind in (jnp.floating, jnp.integer, jnp.bool_))


def rankable(scores: ArrayLike, name: str = "scores") -> np.ndarray:
    """Scores as NumPy float32, float64 or integers in native byte order, of the same values.

    Args:
        scores: any shape; floats, integers or bool of any width, byte order and memory order.
        name: what to call them in an error.

    Raises:
        ValueError: not numbers, or complex ones.

    Example:
        >>> rankable(np.array([1, 0], ">f2")), rankable([True]).dtype
        (array([1., 0.], dtype=float32), dtype('uint8'))
    """
    array = on_host(scores)
    dtype = array.dtype
    if not is_real(dtype):
        raise ValueError(f"{name}: real numbers are expected, not dtype {dtype}")
    if dtype.kind == "b":
        return array.astype(np.uint8)
    if jnp.issubdtype(dtype, jnp.floating):
        if dtype.itemsize > 4 and dtype.kind == "f":
            with np.errstate(over="ignore"):
                return np.asarray(array, np.float64)
        return np.asarray(array, np.float32)
    if dtype.kind not in "iu":  # two and four bits
        return array.astype(np.int8)
    return np.asarray(array, dtype.newbyteorder("="))


def as_float(scores: np.ndarray) -> np.ndarray:
    """`rankable` scores as floats: integers as float64, which sums of them need.

    Args:
        scores: as `rankable` has them.
    """
    return scores if scores.dtype.kind == "f" else scores.astype(np.float64)


def float32_exactly(scores: np.ndarray) -> np.ndarray | None:
    """`rankable` scores as float32 of the same values, or None where float32 cannot hold them.

    Args:
        scores: as `rankable` has them.

    Example:
        >>> float32_exactly(np.array([0.5])), float32_exactly(np.array([0.1]))
        (array([0.5], dtype=float32), None)
    """
    if scores.dtype == np.float32:
        return scores
    if scores.dtype.kind in "iu":
        few = scores.size == 0 or (scores.max() <= EXACT_INTEGERS >= -int(scores.min()))
        return scores.astype(np.float32) if few else None
    with np.errstate(over="ignore", under="ignore"):
        narrow = scores.astype(np.float32)
    return narrow if np.array_equal(narrow, scores) else None


def check_values(scores: np.ndarray, name: str, *, signed: bool = False) -> None:
    """ValueError for what cannot be ranked: NaN, infinity and, unless `signed`, what is below 0.

    Args:
        scores: as `rankable` has them.
        name: what to call them in an error.
        signed: whether they may be negative.
    """
    finite = scores.dtype.kind != "f" or bool(np.isfinite(scores).all())
    if not finite or (not signed and scores.min(initial=0) < 0):
        raise ValueError(f"{name}: negative, NaN or infinite values cannot be ranked")


def whole_number(value: Any, name: str) -> int:
    """An integer from a Python, NumPy or JAX one.

    Args:
        value: what should be one.
        name: what to call it in an error.

    Raises:
        ValueError: it is none, a float for example.
    """
    try:
        return operator.index(on_host(value).item() if hasattr(value, "dtype") else value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: {value!r} is not a whole number") from error


def groups_first(importance: Array, weights: int) -> Array:
    """Importance (G, n) of `weights` weights; (n, G), the order before version 0.2, is turned.

    Only what cannot be meant otherwise is turned, and a FutureWarning says so. Of as many groups
    as weights the first axis is the groups.

    Args:
        importance: of any dtype.
        weights: how many there are.

    Raises:
        ValueError: neither axis is that of the weights.
    """
    shape = np.shape(importance)
    if len(shape) == 2 and shape[1] == weights:
        return importance
    if len(shape) == 2 and shape[0] == weights:
        warnings.warn(
            f"importance {shape} is taken as (n, G) and transposed; groups come first, (G, n)",
            FutureWarning,
            stacklevel=4,
        )
        return importance.T if hasattr(importance, "T") else np.transpose(importance)
    raise ValueError(
        f"importance {shape} does not fit the {weights} weights of `previous`: (G, n) and (n,) are "
        "expected, groups first"
    )


def check_layer(
    importance: Array, previous: ArrayLike, keep: ArrayLike, *, signed: bool = False
) -> tuple[np.ndarray, np.ndarray, int]:
    """The input of a choice of `keep` weights from a layer, checked and on the host.

    Args:
        importance: (G, n) of any real dtype.
        previous: (n,) bool, the weights alive.
        keep: how many weights to keep.
        signed: whether scores may be negative.

    Returns:
        `importance` as `rankable` has it, `previous` and `keep`.

    Raises:
        ValueError: shapes or dtypes that do not fit, values that cannot be ranked, or a `keep`
            outside 0..alive.
    """
    alive = on_host(previous)
    if alive.ndim != 1:
        raise ValueError(f"previous {alive.shape}: (n,) bool is expected")
    if alive.dtype != bool:
        raise ValueError(f"previous: dtype bool is expected, not {alive.dtype}")
    scores = rankable(groups_first(importance, len(alive)), "importance")
    check_values(scores, "importance", signed=signed)
    count, number = int(alive.sum()), whole_number(keep, "keep")
    if not 0 <= number <= count:
        raise ValueError(f"keep: {number} weights cannot be kept of the {count} that are alive")
    return scores, alive, number
