"""Kernels and patterns: which 3x3 kernels of a convolution go, and which four places of one stay.

Source: Zhang et al., "ClickTrain: Efficient and Accurate End-to-End Deep Learning Training via
Fine-Grained Architecture-Preserving Pruning" (ICS 2021), and its public code. Arrays here are
(H, W, inputs, outputs); a "kernel" in ClickTrain's words is the (H, W) slice of an input and an
output.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

_ROWS = (
    ("000", "011", "011"),
    ("000", "110", "110"),
    ("011", "011", "000"),
    ("110", "110", "000"),
    ("000", "001", "111"),
    ("000", "111", "010"),
    ("010", "011", "010"),
    ("010", "110", "010"),
    ("111", "010", "000"),
    ("000", "100", "111"),
    ("111", "100", "000"),
    ("000", "101", "011"),
)
PATTERNS: Bool[np.ndarray, "12 3 3"] = np.array(
    [[[cell == "1" for cell in row] for row in rows] for rows in _ROWS]
)  # four of nine places each; the code uses the first 4, the first 8, or all
FLOOR = 1e-8  # under the roots of the group lasso, whose gradient at zero is then zero

Slices = Float[np.ndarray, "... inputs outputs"]


def kernel_importance(importance: Float[np.ndarray, "*r h w i o"]) -> Slices:
    """The sum of (w g)^2 over each kernel.

    Args:
        importance: (..., H, W, inputs, outputs), or (..., inputs, outputs) of a dense layer.

    Example:
        >>> kernel_importance(np.ones((3, 3, 1, 2)))
        array([[9., 9.]])
    """
    return np.asarray(importance, np.float64).sum(axis=(-4, -3))


def mark_kernels(importance: Slices, percent: float) -> Bool[np.ndarray, "inputs outputs"]:
    """Which kernels stay when a part of a layer's is marked.

    Args:
        importance: (inputs, outputs), of the kernels.
        percent: of them that are marked, rounded up; those of least importance.

    Returns:
        False for marked ones.

    Example:
        >>> mark_kernels(np.array([[3.0, 1.0], [2.0, 4.0]]), 30)
        array([[ True, False],
               [False,  True]])
    """
    flat = importance.reshape(-1)
    kept = np.ones(flat.size, bool)
    kept[np.argsort(flat, kind="stable")[: math.ceil(percent * flat.size / 100)]] = False
    return kept.reshape(importance.shape)


def pattern_importance(
    importance: Float[np.ndarray, "*r 3 3 i o"], count: int = len(PATTERNS)
) -> Float[np.ndarray, "*r p i o"]:
    """The sum of (w g)^2 over the places of each pattern, of each kernel.

    Args:
        importance: (..., 3, 3, inputs, outputs).
        count: how many patterns there are to choose from, the first of `PATTERNS`.
    """
    chosen = PATTERNS[:count].astype(np.float64)
    return np.einsum("phw,...hwio->...pio", chosen, np.asarray(importance, np.float64))


def choose_patterns(
    importance: Float[np.ndarray, "3 3 i o"], count: int = len(PATTERNS)
) -> Int[np.ndarray, "i o"]:
    """The pattern of each kernel that keeps most of its (w g)^2; the first of equals.

    Args:
        importance: (3, 3, inputs, outputs).
        count: as for `pattern_importance`.

    Example:
        >>> kernel = np.zeros((3, 3, 1, 1))
        >>> kernel[0, 0] = kernel[1, 1] = 1
        >>> choose_patterns(kernel)
        array([[3]])
    """
    return pattern_importance(importance, count).argmax(axis=0)


def choose_fair_patterns(
    importance: Float[np.ndarray, "g 3 3 i o"], count: int = len(PATTERNS)
) -> Int[np.ndarray, "i o"]:
    """The pattern of each kernel that keeps most for the group for which it keeps least.

    What it keeps is the part of the group's importance in the kernel; a group without importance
    there takes no part.

    Args:
        importance: (G, 3, 3, inputs, outputs).
        count: as for `pattern_importance`.

    Source:
        Ours.

    Example:
        >>> groups = np.zeros((2, 3, 3, 1, 1))
        >>> groups[0, 1, 1], groups[0, 0, 1], groups[1, 2, 2] = 8, 2, 1
        >>> choose_patterns(groups.sum(axis=0)), choose_fair_patterns(groups)
        (array([[2]]), array([[0]]))
    """
    kept = pattern_importance(importance, count)
    total = kernel_importance(importance)[:, None]
    part = np.divide(kept, total, out=np.full_like(kept, np.inf), where=total > 0)
    return part.min(axis=0).argmax(axis=0)


def pattern_masks(index: Int[np.ndarray, "i o"]) -> Bool[np.ndarray, "3 3 i o"]:
    """The masks of the patterns of all kernels.

    Args:
        index: (inputs, outputs), places in `PATTERNS`.
    """
    return np.moveaxis(PATTERNS[index], (2, 3), (0, 1))


def group_lasso(
    weights: Float[jax.Array, "h w i o"],
    pattern: Bool[jax.Array, "h w i o"],
    kernel: Bool[jax.Array, "i o"],
) -> Float[jax.Array, ""]:
    """The sum over kernels of the norms of what their pattern, and what their mark, will cut.

    As in the public code every kernel adds its two roots, sqrt(1e-8) where nothing will be cut.

    Args:
        weights: (H, W, inputs, outputs).
        pattern: which weights the pattern of each kernel keeps.
        kernel: which kernels stay.

    Example:
        >>> weights, whole = jnp.full((1, 1, 1, 1), 3.0), jnp.ones((1, 1, 1, 1), bool)
        >>> float(group_lasso(weights, whole, jnp.array([[False]])))  # 3 + 1e-4
        3.00...
    """

    def norms(cut: jax.Array) -> jax.Array:
        return jnp.sqrt(FLOOR + jnp.square(cut).sum(axis=(0, 1))).sum()

    return norms(jnp.where(pattern, 0, weights)) + norms(jnp.where(kernel, 0, weights))
