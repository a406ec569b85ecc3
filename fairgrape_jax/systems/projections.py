"""Projections of a kernel onto what may stay of it: single weights, filters, columns, patterns.

Source: the public code of SLR (Zhoushanglin100/SLR-ADMM-cifar10), `weight_pruning`. Kernels here
are (H, W, inputs, outputs). A part that is equal to the percentile stays, as there, but for
`channel`, which goes by the largest singular value of the (outputs, H W) matrix.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

Kernel = Float[np.ndarray, "..."]

# The four cells of a 3x3 kernel that each of the 13 patterns cuts, row * 3 + column.
_CUT = (
    "0268",
    "0178",
    "0167",
    "0134",
    "2356",
    "0358",
    "1267",
    "1278",
    "3568",
    "0235",
    "4578",
    "3467",
    "1245",
)
FIVE_OF_NINE = np.array([[str(cell) not in cells for cell in range(9)] for cells in _CUT])


def irregular(weights: Kernel, fraction: float) -> Kernel:
    """The weights of largest magnitude.

    Args:
        weights: a kernel.
        fraction: of it that goes.

    Example:
        >>> irregular(np.array([1.0, -4.0, 2.0]), 0.5)
        array([ 0., -4.,  2.])
    """
    return _cut_smallest(weights, np.abs(weights), fraction)


def _cut_smallest(weights: Kernel, size: np.ndarray, fraction: float) -> Kernel:
    """Zero what is below the percentile of `size`, which broadcasts with the weights."""
    return np.where(size < np.percentile(size, 100 * fraction), 0, weights).astype(weights.dtype)


def filters(weights: Kernel, fraction: float) -> Kernel:
    """The filters, one for each output, of largest L2 norm.

    Args:
        weights: (..., outputs).
        fraction: of the filters that goes.

    Example:
        >>> filters(np.array([[3.0, 1.0], [4.0, 1.0]]), 0.5)
        array([[3., 0.],
               [4., 0.]])
    """
    norm = np.linalg.norm(weights.reshape(-1, weights.shape[-1]), axis=0)
    return _cut_smallest(weights, norm, fraction)


def columns(weights: Kernel, fraction: float) -> Kernel:
    """The columns, a place and input for all outputs, of largest L2 norm.

    Args:
        weights: (..., outputs).
        fraction: of the columns that goes.

    Example:
        >>> columns(np.array([[3.0, 1.0], [0.5, 1.0]]), 0.5)
        array([[3., 1.],
               [0., 0.]])
    """
    return _cut_smallest(weights, np.linalg.norm(weights, axis=-1, keepdims=True), fraction)


def channels(weights: Kernel, fraction: float) -> Kernel:
    """The inputs whose matrix of (outputs, places) has the largest singular values.

    Args:
        weights: (H, W, inputs, outputs).
        fraction: of the inputs that goes.
    """
    matrices = weights.reshape(-1, *weights.shape[-2:]).transpose(1, 2, 0)
    norm = np.linalg.norm(matrices, 2, axis=(1, 2))[:, None]
    return np.where(norm <= np.percentile(norm, 100 * fraction), 0, weights).astype(weights.dtype)


def patterns(weights: Kernel, fraction: float = 0.0) -> Kernel:
    """Five of the nine weights of each 3x3 kernel, by the pattern of largest norm.

    Args:
        weights: (H, W, inputs, outputs); one that is not 3x3 stays as it is.
        fraction: has no part in it.
    """
    if weights.ndim != 4 or weights.shape[:2] != (3, 3):
        return weights
    squares = np.square(weights.reshape(9, *weights.shape[2:]), dtype=np.float64)
    best = np.einsum("pc,cio->pio", FIVE_OF_NINE.astype(np.float64), squares).argmax(axis=0)
    mask = np.moveaxis(FIVE_OF_NINE[best], -1, 0).reshape(weights.shape)
    return np.where(mask, weights, 0).astype(weights.dtype)


PROJECTIONS: dict[str, Callable[[Kernel, float], Kernel]] = {
    "irregular": irregular,
    "filter": filters,
    "column": columns,
    "channel": channels,
    "pattern": patterns,
}
